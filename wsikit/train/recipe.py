"""How a model is trained, as values that are checked, kept in its card, and each have a source."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wsikit.errors import UsageError

OURS = "our default"
_Share = Annotated[float, Field(ge=0, lt=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Stage(_Part):
    """A number of epochs with one way of learning.

    Attributes
    ----------
    train : ``head`` freezes all but the last layers, whose batch norms then keep their statistics; ``all`` trains everything
    learning_rate : the highest, of the last layers
    lowest_rate : of the first layers; those between follow geometrically. The same as the highest when None
    schedule : ``one-cycle`` up and down, ``step`` times ``decay`` every ``decay_every`` epochs, ``cosine`` down, or ``constant``
    """

    epochs: int = Field(ge=1)
    train: Literal["head", "all"] = "all"
    learning_rate: float = Field(gt=0)
    lowest_rate: float | None = Field(None, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    schedule: Literal["one-cycle", "step", "cosine", "constant"] = "one-cycle"
    decay: float = Field(0.16, gt=0, le=1)
    decay_every: int = Field(30, ge=1)


class Optimiser(_Part):
    """``adamw`` with ``betas`` (decoupled weight decay), or ``rmsprop`` as TensorFlow has it (epsilon inside the root)."""

    name: Literal["adamw", "rmsprop"] = "adamw"
    betas: tuple[_Share, _Share] = (0.9, 0.999)
    momentum: float = Field(0.9, ge=0, lt=1)
    smoothing: float = Field(0.9, ge=0, lt=1)
    epsilon: float = Field(1e-8, gt=0)


class Loss(_Part):
    """Cross-entropy: ``balanced`` weights are n / (K · n_k); ``auxiliary`` is the weight of an InceptionV3's second output."""

    class_weights: Literal["balanced", "none"] = "balanced"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    auxiliary: float = Field(0.0, ge=0)


class Augment(_Part):
    """What is done to a tile before each epoch. Numbers are the largest change; 0 is none.

    Attributes
    ----------
    turns : quarter turns and mirror images
    flip : mirror images only, left to right
    rotate_deg : turned by any angle; ``zoom`` is the share by which it is shown larger or smaller, ``shift_px`` how far it is moved; what is missing at
        the edges is mirrored from inside
    restain : share by which the amount of haematoxylin, and of eosin, changes
    jitter : share by which the optical density of each colour changes
    brightness : shift, of the whole range; ``contrast`` and ``saturation`` are factors (lowest, highest); ``hue`` a share of the circle
    holes : "progressive sprinkles": how many squares of ``hole_px`` are blotted out (lowest, highest)
    """

    turns: bool = True
    flip: bool = False
    rotate_deg: float = Field(0.0, ge=0, le=180)
    zoom: float = Field(0.0, ge=0, lt=1)
    shift_px: float = Field(0.0, ge=0)
    restain: float = Field(0.2, ge=0, lt=1)
    jitter: float = Field(0.15, ge=0, lt=1)
    brightness: float = Field(0.0, ge=0, lt=1)
    contrast: tuple[float, float] = (1.0, 1.0)
    saturation: tuple[float, float] = (1.0, 1.0)
    hue: float = Field(0.0, ge=0, le=0.5)
    holes: tuple[int, int] = (0, 0)
    hole_px: int = Field(8, ge=1)


class Recipe(_Part):
    """Everything that decides how a network learns, apart from the tiles.

    Attributes
    ----------
    reference : the paper or code that it follows, and what of it is not known
    batch : tiles at once on a device; ``accumulate`` such batches make a step
    average_decay : of a running mean of the weights, which is then the model; none when None
    patience : epochs without a better validation score before training stops; never when None
    keep : which validation score chooses the epoch that is kept, over tiles
    validation_share : of the patients of each class, where the labels name no split
    views : in how many positions the finished model sees each tile, see `wsikit.models.Card`; the epochs are judged by one
    sources : where each value is from, by its name; what is not named is our default
    """

    name: str
    reference: str = ""
    architecture: dict[str, Any]
    tile_px: int = Field(ge=16, le=4096)
    mpp: float = Field(0.5, gt=0.05, lt=20)
    stain: str = "macenko"
    batch: int = Field(16, ge=2)
    accumulate: int = Field(1, ge=1)
    initial: str = "imagenet"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    optimiser: Optimiser = Optimiser()
    loss: Loss = Loss()
    stages: list[Stage] = Field(min_length=1)
    augment: Augment = Augment()
    average_decay: float | None = Field(None, gt=0, lt=1)
    clip_norm: float | None = Field(None, gt=0)
    patience: int | None = Field(None, ge=1)
    keep: Literal["balanced accuracy", "accuracy", "auc", "loss"] = "balanced accuracy"
    validation_share: float = Field(0.2, gt=0, lt=1)
    views: Literal[1, 4, 8] = 1
    sources: dict[str, str] = {}

    @model_validator(mode="after")
    def _sources_name_values(self) -> Recipe:
        if unknown := set(self.sources) - {name for name, _ in self.values()}:
            raise ValueError(f"sources name values that are not there: {', '.join(sorted(unknown))}")
        return self

    @property
    def epochs(self) -> int:
        """Of all stages together."""
        return sum(s.epochs for s in self.stages)

    def values(self) -> Iterator[tuple[str, Any]]:
        """Every value by its name, such as ``loss.label_smoothing`` and ``stages.0.epochs``."""
        for name, value in self.model_dump(exclude={"name", "reference", "sources"}).items():
            yield from _flat(name, value)

    def source(self, name: str) -> str:
        """Where a value is from."""
        return self.sources.get(name, OURS)

    def shortened(self, epochs: int) -> Recipe:
        """The same with another number of epochs in all, shared out between stages as before, at least one each."""
        whole = self.epochs
        stages = [s.model_copy(update={"epochs": max(1, round(epochs * s.epochs / whole))}) for s in self.stages]
        names = {f"stages.{i}.epochs" for i, s in enumerate(stages) if s != self.stages[i]}
        return self.model_copy(update={"stages": stages, "sources": {k: v for k, v in self.sources.items() if k not in names}})


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and name != "architecture":
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}", inner)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for i, inner in enumerate(value):
            yield from _flat(f"{name}.{i}", inner)
    else:
        yield name, value


def changed(recipe: Recipe, values: dict[str, Any], said: str) -> Recipe:
    """The recipe with some values replaced, and where those are from: ``said``.

    Parameters
    ----------
    values : as in a recipe file: nested tables, only what differs; ``stages`` replaces all stages

    Raises
    ------
    UsageError
        A value is not known or impossible; the message names it.
    """
    base = recipe.model_dump()
    new = {k: {**base[k], **v} if isinstance(v, dict) and isinstance(base.get(k), dict) and k != "architecture" else v for k, v in values.items()}
    merged = base | new | {"sources": {}}
    try:
        out = Recipe.model_validate(merged)
    except ValidationError as e:
        first = e.errors()[0]
        raise UsageError(f"{said}: {'.'.join(map(str, first['loc'])) or 'the recipe'}: {first['msg']}") from e
    before, now = dict(recipe.values()), dict(out.values())
    sources = {k: recipe.sources[k] if before.get(k, object()) == v else said for k, v in now.items() if k in recipe.sources or before.get(k, object()) != v}
    return out.model_copy(update={"sources": sources})


def read_recipe(path: Path, presets: dict[str, Recipe]) -> Recipe:
    """A recipe from a TOML file: ``preset`` names what it starts from, everything else replaces values of that.

    Raises
    ------
    UsageError
        It cannot be read, or a value is not known or impossible.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise UsageError(f"{path}: cannot be read as TOML ({e.strerror if isinstance(e, OSError) else e})") from e
    start = values.pop("preset", "plain")
    if start not in presets:
        raise UsageError(f"{path}: preset '{start}': there are {', '.join(presets)}")
    return changed(presets[start], values, path.name)
