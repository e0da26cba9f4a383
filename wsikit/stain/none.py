"""No normalisation: pixels as the scanner made them."""

from __future__ import annotations

import numpy as np

from wsikit.stain import Images, StainFit


class NoStain:
    """The identity."""

    name = "none"

    def fit(self, pixels: np.ndarray) -> StainFit:
        """Nothing to learn."""
        return StainFit(method=self.name, trusted=True, pixels=len(pixels))

    def apply(self, images: Images, fit: StainFit) -> Images:
        """The images themselves."""
        return images


METHOD = NoStain()
