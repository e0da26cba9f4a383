"""No normalisation: pixels as the scanner made them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wsikit.stain import StainFit

if TYPE_CHECKING:
    from torch import Tensor


class NoStain:
    """The identity."""

    name = "none"

    def fit(self, pixels: np.ndarray) -> StainFit:
        """Nothing to learn."""
        return StainFit(method=self.name, trusted=True, pixels=len(pixels))

    def apply(self, images: Tensor, fit: StainFit) -> Tensor:
        """The images themselves."""
        return images


METHOD = NoStain()
