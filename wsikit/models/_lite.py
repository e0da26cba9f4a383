"""EfficientNet-Lite0 (EfficientNet of Tan & Le 2019 without squeeze-excitation, with ReLU6), cut after any of its stages."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# repeats, kernel, stride, expansion, channels of each stage
_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))


def convolution(i: int, o: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True) -> list[nn.Module]:
    """A convolution without bias, its batch norm, and ReLU6."""
    layers: list[nn.Module] = [nn.Conv2d(i, o, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(o)]
    return [*layers, nn.ReLU6(inplace=True)] if act else layers


class _Block(nn.Module):
    def __init__(self, i: int, o: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = i * expansion
        first = convolution(i, wide) if expansion > 1 else []
        self.layers = nn.Sequential(*first, *convolution(wide, wide, kernel, stride, wide), *convolution(wide, o, act=False))
        self.residual = stride == 1 and i == o

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


def lite_layers(stages: int, width: float = 1.0) -> tuple[list[nn.Module], list[tuple[int, int]]]:
    """The layers of the first 1 to 7 stages, ``width`` × as wide, and of each stage the index after its last layer and its channels.

    Layers and their tensors are in the order of the published weights.
    """
    if not 1 <= stages <= len(_STAGES):
        raise ValueError(f"stages must be 1 to {len(_STAGES)}")
    i = max(4, int(32 * width))
    layers, ends = convolution(3, i, 3, 2), []
    for repeats, kernel, stride, expansion, channels in _STAGES[:stages]:
        o = max(4, int(channels * width))
        for n in range(repeats):
            layers.append(_Block(i, o, kernel, stride if n == 0 else 1, expansion))
            i = o
        ends.append((len(layers), o))
    return layers, ends


class LiteNet(nn.Module):
    """What is in the middle of a tile? EfficientNet-Lite0 up to a stage, its maps pooled over the tile and over its middle: (N, 3, H, W) → logits (N, K).

    Parameters
    ----------
    stages : how much of EfficientNet-Lite0 there is, 1 to 7; a map's pixel is 16 px wide after 5 of them, so that a small tile still has some
    width : scales its channels
    """

    def __init__(self, classes: int, stages: int = 5, width: float = 1.0) -> None:
        super().__init__()
        layers, ends = lite_layers(stages, width)
        self.trunk = nn.Sequential(*layers)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(2 * ends[-1][1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits float32."""
        f = self.trunk(x)
        middle = f.shape[2] // 4
        centre = f[:, :, middle : f.shape[2] - middle, middle : f.shape[3] - middle]
        logits: Tensor = self.head(self.drop(torch.cat([f.mean((2, 3)), centre.mean((2, 3))], 1)))
        return logits.float()
