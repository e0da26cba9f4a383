"""Flaws drawn into phantoms, each with where it is: folds, pen strokes, parts out of focus, dust."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage as ndi

from wsikit.testing.phantom import GLASS

Points = Sequence[tuple[float, float]]
INKS = {"green": (40, 160, 70), "cyan": (30, 170, 190), "blue": (35, 70, 190), "red": (200, 25, 30), "black": (12, 12, 14)}


def band(shape: tuple[int, int], points: Points, width_px: float) -> np.ndarray:
    """A line through points x, y of some width: bool (H, W)."""
    image = Image.new("L", (shape[1], shape[0]))
    ImageDraw.Draw(image).line([tuple(p) for p in points], fill=255, width=max(1, round(width_px)), joint="curve")
    return np.asarray(image) > 0


def fold(rgb: np.ndarray, points: Points, width_px: float, layers: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Lay tissue from beside a band over it: the picture uint8 (H, W, 3), and the band bool (H, W)."""
    where = band(rgb.shape[:2], points, width_px)
    light = rgb[where].astype(np.float64)
    for layer in range(1, layers):
        shift = (round(1.4 * width_px) * layer, -round(1.1 * width_px) * layer)
        light *= np.minimum(np.roll(rgb, shift, (0, 1))[where] / GLASS, 1)
    out = rgb.copy()
    out[where] = light.round()
    return out, where


def pen(rgb: np.ndarray, points: Points, width_px: float, ink: str, opacity: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Draw a stroke of ink: the picture uint8 (H, W, 3), and the stroke bool (H, W)."""
    where = band(rgb.shape[:2], points, width_px)
    out = rgb.copy()
    out[where] = (rgb[where] * (1 - opacity) + np.array(INKS[ink]) * opacity).round()
    return out, where


def unfocused(rgb: np.ndarray, part: tuple[slice, slice], sigma_px: float) -> np.ndarray:
    """A picture with one part seen through a Gaussian."""
    out = rgb.copy()
    out[part] = ndi.gaussian_filter(rgb[part].astype(np.float32), (sigma_px, sigma_px, 0)).round()
    return out


def dust(rgb: np.ndarray, centre: tuple[float, float], radius_px: float, depth: float = 45.0) -> tuple[np.ndarray, np.ndarray]:
    """A grey smear out of focus on the glass at x, y: the picture uint8 (H, W, 3), and where it is darker by half its depth: bool (H, W)."""
    y, x = np.ogrid[: rgb.shape[0], : rgb.shape[1]]
    shade = np.exp(-(((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * radius_px**2)))
    return np.clip(rgb - depth * shade[..., None], 0, 255).astype(np.uint8), shade > 0.5
