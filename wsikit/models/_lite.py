"""EfficientNet-Lite0 (EfficientNet of Tan & Le 2019 without squeeze-excitation, with ReLU6), cut after any of its stages."""

from __future__ import annotations

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
