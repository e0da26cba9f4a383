"""What kind of tissue is each tile? Any tile classifier with classes of its own, such as those that came from elsewhere (`wsikit.models.exchange`)."""

from __future__ import annotations

from wsikit.models._backbone import build, load

PIPELINE = "tissue-type"
CLASSES: tuple[str, ...] = ()

__all__ = ["CLASSES", "PIPELINE", "build", "load"]
