"""Bring every slide to the same H&E colours: fit once on a sample of a slide's tissue, apply to its blocks.

A stain method is a module here with ``METHOD``, a `StainMethod`; adding a method is adding a module.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from wsikit.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


Images = TypeVar("Images", np.ndarray, "Tensor")
"""uint8 (..., 3): an array, or a tensor on any device. What goes in comes out, and only tensors need torch."""


class StainFit(BaseModel):
    """What a method learned of a slide; kept in the store and in every result.

    ``trusted`` is false where the fit could not be believed: pixels then pass through unchanged, and
    ``reason`` says why. ``vectors`` are unit optical-density vectors, one row a stain (haematoxylin, eosin);
    ``max_concentration`` is the 99th percentile of each. ``mean`` and ``std`` are L*, a*, b*, for methods that
    know no stains. ``target`` are the colours to bring the slide to; the method's reference when None.
    """

    model_config = ConfigDict(frozen=True)

    method: str
    trusted: bool
    reason: str = ""
    vectors: list[list[float]] = []
    max_concentration: list[float] = []
    mean: list[float] = []
    std: list[float] = []
    pixels: int = 0
    target: StainTarget | None = None


class StainTarget(BaseModel):
    """Colours taken from an image instead of a method's reference: the file's name, its SHA-256, and a trusted fit of it."""

    model_config = ConfigDict(frozen=True)

    image: str
    digest: str
    fit: StainFit


StainFit.model_rebuild()


class StainMethod(Protocol):
    """A way to normalise stain."""

    name: str

    def fit(self, pixels: np.ndarray) -> StainFit:
        """Learn a slide's stain from tissue pixels, uint8 (N, 3); never raises on odd tissue."""
        ...

    def apply(self, images: Images, fit: StainFit) -> Images:
        """Normalise uint8 (..., 3), an array or a tensor on whatever device; the same shape and type come back."""
        ...


@cache
def methods() -> dict[str, StainMethod]:
    """Every stain method, by name."""
    found: dict[str, StainMethod] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith("_"):
            continue
        method: Any = importlib.import_module(f"{__name__}.{module.name}").METHOD
        found[method.name] = method
    return found


def get_method(name: str) -> StainMethod:
    """The stain method of that name.

    Raises
    ------
    UsageError
        There is none.
    """
    if name not in methods():
        raise UsageError(f"no stain method is called '{name}'; there are: {', '.join(sorted(methods()))}")
    return methods()[name]
