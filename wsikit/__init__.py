"""wsikit: whole-slide analysis for soft-tissue sarcoma. Research use only.

`open_slide`, `Slide` and `Region` read slides; `score` and `tile` work on them and `open_store` reads what they left; `load_model` gives
a model to use by itself; `plot` draws static pictures; every error raised on purpose is a `WsikitError`; ``RESEARCH_USE_ONLY`` is the
statement that goes with all results.

>>> import wsikit as wk
>>> slide = wk.open_slide("a.svs")                                    # doctest: +SKIP
>>> run = wk.score(["a.svs"], "out/", pipelines=["sts-subtype"])      # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

RESEARCH_USE_ONLY = (
    "Research use only. Not a medical device; not for diagnosis, grading or treatment decisions. Not validated on your scanner, stain or population."
)

_WHERE = {
    "open_slide": "slide",
    "Slide": "slide",
    "Region": "geometry",
    "load_model": "models",
    "score": "run",
    "tile": "run",
    "open_store": "store",
    "WsikitError": "errors",
}

__all__ = ["RESEARCH_USE_ONLY", "Region", "Slide", "WsikitError", "__version__", "load_model", "open_slide", "open_store", "plot", "score", "tile"]

if TYPE_CHECKING:
    from wsikit import plot
    from wsikit.errors import WsikitError
    from wsikit.geometry import Region
    from wsikit.models import load_model
    from wsikit.run import score, tile
    from wsikit.slide import Slide, open_slide
    from wsikit.store import open_store


def __getattr__(name: str) -> Any:
    """Import public names when they are first used, so that ``import wsikit`` stays quick."""
    if name == "plot":
        return importlib.import_module("wsikit.plot")
    if name in _WHERE:
        return getattr(importlib.import_module(f"wsikit.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'wsikit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
