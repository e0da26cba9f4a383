"""Colour profiles: from a scanner's own colours to sRGB."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from wsikit.errors import DamagedSlideError

KEEP, SRGB = "keep", "srgb"
ICC_CHOICES = (KEEP, SRGB)


class ToSrgb:
    """Applies a profile with its own rendering intent, as OpenSlide's documentation has it."""

    def __init__(self, profile: bytes) -> None:
        """Prepare it.

        Raises
        ------
        DamagedSlideError
            The bytes are no profile of RGB colours.
        """
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            target = ImageCms.createProfile("sRGB")
            self._transform = ImageCms.buildTransform(source, target, "RGB", "RGB", ImageCms.getDefaultIntent(source))
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as e:
            raise DamagedSlideError(f"its colour profile cannot be used ({e}); use --icc keep") from e

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) in sRGB."""
        return np.array(ImageCms.applyTransform(Image.fromarray(rgb), self._transform))


def icc_facts(profile: bytes, applied: str) -> dict[str, Any] | None:
    """What a result says of a slide's colour profile: its digest, and whether it was applied; None where there is none."""
    return {"sha256": hashlib.sha256(profile).hexdigest(), "applied": applied} if profile else None
