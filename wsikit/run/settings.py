"""How a run is done: the options that `wsikit.score`, `wsikit.tile`, the command line and pipeline files share."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wsikit.aggregate.counting import Counting
from wsikit.colour import KEEP
from wsikit.errors import UsageError
from wsikit.run.plan import BLOCK_PX

SUFFIX = ".toml"
Model = TypeVar("Model", bound=BaseModel)


class Settings(BaseModel):
    """Options of slides, of kept pixels and pictures, of counting, and of the work; see `wsikit.score`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mpp_override: float | None = None
    expect_sha256: str | None = None
    focal_plane: str | None = None
    icc: str = KEEP
    any_stain: bool = False
    max_damaged: float = 0.0
    reader: str | None = None
    upsample: bool = False
    stain: str = "macenko"
    stain_target: Path | None = None
    counting: Counting = Counting()
    device: str = "cpu"
    engine: str = "auto"
    explain: list[str] = []
    memory: str | None = None
    block_px: int = BLOCK_PX
    cluster: Path | None = None
    tls: Path | None = None
    task_seconds: float = Field(1800.0, gt=0)
    copy_to: str | None = None
    debug: bool = False


class PipelineFile(BaseModel):
    """A run as a TOML file describes it.

    Attributes
    ----------
    about : what it is for, in a sentence
    pipelines : names, in any order
    models : model (a name, or a folder seen from the file) by pipeline, instead of the default one
    keep_tiles : keep the stain-normalised pixels
    options : see `Settings`
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str = ""
    pipelines: list[str] = Field(min_length=1)
    models: dict[str, str] = {}
    keep_tiles: bool = False
    options: dict[str, Any] = {}


def read_settings(options: Mapping[str, Any]) -> Settings:
    """Options by name; those that are None have their defaults.

    Raises
    ------
    UsageError
        There is none of a name, or it cannot have a value; the message names it.
    """
    if unknown := set(options) - set(Settings.model_fields):
        raise UsageError(f"no option is called {', '.join(sorted(unknown))}; there are: {', '.join(sorted(Settings.model_fields))}")
    try:
        return Settings.model_validate({k: v for k, v in options.items() if v is not None})
    except ValidationError as e:
        raise UsageError(_said(e, Settings)) from e


def read_toml(path: Path, model: type[Model], example: str) -> Model:
    """What a TOML file says, checked key by key; ``example`` is a file of ours to look at.

    Raises
    ------
    UsageError
        It is no TOML, or a key is wrong; the message names it.
    """
    try:
        return model.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise UsageError(f"{path}: cannot be read ({e}); give a TOML file such as {example}") from e
    except ValidationError as e:
        raise UsageError(f"{path}: {_said(e, model)}; see {example}") from e


def read_pipeline(path: Path) -> PipelineFile:
    """The run that a TOML file describes; models that are folders beside the file are named in full.

    Raises
    ------
    UsageError
        It is no TOML, or a key is wrong; the message names it.
    """
    found = read_toml(path, PipelineFile, "pipelines/mitosis.toml")
    try:
        read_settings(found.options)
    except UsageError as e:
        raise UsageError(f"{path}: options: {e}") from e
    beside = {name: str((path.parent / ref).resolve()) for name, ref in found.models.items() if (path.parent / ref).is_dir()}
    return found.model_copy(update={"models": found.models | beside})


def expand(
    pipelines: Sequence[str | Path] | None, models: Mapping[str, str | Path], keep_tiles: bool, options: Mapping[str, Any]
) -> tuple[list[str] | None, dict[str, str | Path], bool, dict[str, Any]]:
    """Pipelines, models, kept pixels and options, where some of the pipelines are TOML files; what is given beside a file goes before it.

    Raises
    ------
    UsageError
        A file cannot be used, or two of them differ in an option or a model.
    """
    if pipelines is None:
        return None, dict(models), keep_tiles, dict(options)
    names: list[str] = []
    said: dict[str, dict[str, Any]] = {"option": {}, "model": {}}
    for given in pipelines:
        if not str(given).endswith(SUFFIX):
            names.append(str(given))
            continue
        file = read_pipeline(Path(given))
        names += file.pipelines
        keep_tiles = keep_tiles or file.keep_tiles
        for what, values in (("option", file.options), ("model", file.models)):
            for name, value in values.items():
                if said[what].setdefault(name, value) != value:
                    raise UsageError(f"{given}: {what} {name} is {value!r}, and another pipeline file says {said[what][name]!r}; score them apart")
    return list(dict.fromkeys(names)), said["model"] | dict(models), keep_tiles, said["option"] | dict(options)


def _said(error: ValidationError, model: type[BaseModel]) -> str:
    first = error.errors()[0]
    *above, last = first["loc"] or ("the file",)
    if first["type"] != "extra_forbidden":
        return f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
    for name in above:  # the model that the key was given to
        model = next((m for m in _models(model.model_fields[str(name)].annotation)), model)
    return f"{'.'.join(map(str, first['loc']))}: there is no key '{last}' here; there are: {', '.join(sorted(model.model_fields))}"


def _models(annotation: Any) -> list[type[BaseModel]]:
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []
