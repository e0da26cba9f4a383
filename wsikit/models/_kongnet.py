"""KongNet-Det (Lv et al. 2025, arXiv:2510.23559), the detector that won MIDOG 2025: a map of probabilities, whose peaks are the mitoses.

Written from its published layers, with TIAToolbox's names of tensors, so that its weights fit; peaks are taken as TIAToolbox takes them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from skimage.feature import peak_local_max
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

NAME = "kongnet"
ENCODER = "tf_efficientnetv2_l"
_STAGES = 5  # of the encoder: strides 2, 4, 8, 16, 32
_WIDTHS = (256, 128, 64, 32, 16)
_SQUEEZE = 16
_LEAST = 0.05  # what is below in the map is no peak that anybody looks at


class KongNet(nn.Module):
    """float32 (B, 3, H, W), sides a multiple of 32 → (B, N, 6) as `wsikit.models._boxes` has it: peaks of the map, filled up with score 0.

    Parameters
    ----------
    encoder : a network of timm with strides 2 to 32
    widths : channels of the decoder's stages, deepest first
    min_distance_px : peaks are at least this far apart, in each of x and y
    box_px : side of the boxes, which the network does not tell

    Raises
    ------
    ValueError
        There is no such encoder, or a number is none.
    """

    def __init__(self, encoder: str = ENCODER, widths: tuple[int, ...] = _WIDTHS, min_distance_px: int = 21, box_px: float = 25.0) -> None:
        super().__init__()
        import timm

        if not timm.is_model(encoder):  # also an address, which would be fetched
            raise ValueError(f"timm has no model '{encoder}'")
        if len(widths) != _STAGES or any(w < _SQUEEZE for w in widths) or min_distance_px < 1:
            raise ValueError(f"widths must be {_STAGES} numbers of at least {_SQUEEZE}, and min_distance_px at least 1")
        # under `model`, as in TIAToolbox's files
        self.encoder = nn.ModuleDict({"model": timm.create_model(encoder, pretrained=False, features_only=True, out_indices=tuple(range(_STAGES)))})
        info: Any = self.encoder["model"].feature_info
        self.decoders = nn.ModuleList([_Decoder(info.channels(), tuple(widths))])
        self.heads = nn.ModuleList([nn.Sequential(nn.Conv2d(widths[-1], 1, 1))])
        self.min_distance_px, self.box_px = min_distance_px, box_px

    def heat(self, x: Tensor) -> Tensor:
        """The probability of a mitosis at each pixel: float32 (B, H, W)."""
        return torch.sigmoid(self.heads[0](self.decoders[0](self.encoder["model"](x))).float())[:, 0]

    def forward(self, x: Tensor) -> Tensor:
        """Peaks, as boxes around the centres of their pixels."""
        found = [torch.from_numpy(self._peaks(heat)) for heat in self.heat(x).cpu().numpy()]
        rows = nn.utils.rnn.pad_sequence(found, batch_first=True)
        return rows.to(x.device)

    def _peaks(self, heat: np.ndarray) -> np.ndarray:
        """float32 (N, 6) of one map; a row of NaN where the map has one, which would hide all peaks."""
        if not np.isfinite(heat).all():
            return np.full((1, 6), np.nan, np.float32)
        row, column = peak_local_max(heat, min_distance=self.min_distance_px, threshold_abs=_LEAST, exclude_border=False).T
        sides = np.full((len(row), 2), self.box_px)
        return np.column_stack([column + 0.5, row + 0.5, sides, heat[row, column], np.ones(len(row))]).astype(np.float32)


class _Attention(nn.Module):
    """Concurrent spatial and channel squeeze and excitation (Roy et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // _SQUEEZE
        channel = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, inner, 1), nn.ReLU(), nn.Conv2d(inner, channels, 1), nn.Sigmoid()]
        self.attention = nn.ModuleDict({"cSE": nn.Sequential(*channel), "sSE": nn.Sequential(nn.Conv2d(channels, 1, 1), nn.Sigmoid())})

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        out: Tensor = x * self.attention["cSE"](x) + x * self.attention["sSE"](x)
        return out


class _Centre(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = _Attention(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.attention(x)
        return out


class _Enlarge(nn.Module):
    """Twice the side, by sub-pixel convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _convolution(channels, 4 * channels, 1)
        self.conv2 = _convolution(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(nn.functional.pixel_shuffle(self.conv1(x), 2))
        return out


class _Stage(nn.Module):
    """Enlarged, and joined with what the encoder saw at that size."""

    def __init__(self, channels: int, skip: int, out: int) -> None:
        super().__init__()
        self.up = _Enlarge(channels)
        self.conv1 = _convolution(channels + skip, out, 3)
        self.attention1 = _Attention(channels + skip)
        self.conv2 = _convolution(out, out, 3)
        self.attention2 = _Attention(out)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        x = self.up(x)
        if skip is not None:
            x = self.attention1(torch.cat([x, skip], 1))
        out: Tensor = self.attention2(self.conv2(self.conv1(x)))
        return out


class _Decoder(nn.Module):
    def __init__(self, encoder: list[int], widths: tuple[int, ...]) -> None:
        super().__init__()
        deepest, *skips = encoder[::-1]
        self.center = _Centre(deepest)
        self.blocks = nn.ModuleList(_Stage(i, s, o) for i, s, o in zip([deepest, *widths[:-1]], [*skips, 0], widths, strict=True))

    def forward(self, features: list[Tensor]) -> Tensor:
        deepest, *skips = features[::-1]
        x = self.center(deepest)
        for block, skip in zip(self.blocks, [*skips, None], strict=True):
            x = block(x, skip)
        out: Tensor = x
        return out


def _convolution(channels: int, out: int, side: int) -> nn.Module:
    module: nn.Module = Conv2dNormActivation(channels, out, side, norm_layer=nn.BatchNorm2d, activation_layer=nn.SiLU)
    return module
