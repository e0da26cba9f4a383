"""What a run is: its parameters, models and slides, as ``run.json`` keeps them for workers, for resuming and for readers."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from wsikit import RESEARCH_USE_ONLY, __version__
from wsikit.aggregate.counting import Counting
from wsikit.aggregate.survival import CoxRisk, load_risk
from wsikit.colour import ICC_CHOICES, KEEP
from wsikit.errors import DamagedStoreError, StoreMismatchError, UnknownModelError, UsageError
from wsikit.models import RISK_PIPELINE, Card, check_weights, find_model, pipelines, read_card
from wsikit.readers import registry
from wsikit.run.cases import Case
from wsikit.run.plan import BLOCK_PX
from wsikit.stain import StainTarget, get_method
from wsikit.store.codec import parse_codec
from wsikit.store.durable import digest_of, write_json
from wsikit.store.lease import lease

RUN_FILE = "run.json"
_SOFTWARE = (
    "wsikit",
    "numpy",
    "torch",
    "torchvision",
    "openvino",
    "onnxruntime",
    "zarr",
    "openslide-python",
    "openslide-bin",
    "tifffile",
    "imagecodecs",
    "distributed",
    "libreyolo",
    "lifelines",
)


class Pixels(BaseModel):
    """How pixels are kept: µm/px (the slide's own when None), tile side and overlap, and codec."""

    model_config = ConfigDict(frozen=True)

    mpp: float | None = None
    tile_px: int = 256
    overlap_px: int = 0
    codec: str = "zstd:1"


class ModelRef(BaseModel):
    """The model of a pipeline: its folder and digest, and what runs it.

    ``engine_difference`` is how far this engine's probabilities were from torch's on tiles that are always the same, at most.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    folder: str
    digest: str
    engine: str = "torch"
    engine_difference: float | None = None

    @property
    def recipe(self) -> list[str]:
        """All that its numbers depend on; with torch, the model alone."""
        return [self.digest] if self.engine == "torch" else [self.digest, self.engine]


class Explained(BaseModel):
    """What is explained of a pipeline's tiles: which classes, and by which of its network's maps (`wsikit.run.explain`)."""

    model_config = ConfigDict(frozen=True)

    classes: list[str]
    layer: str


class Job(BaseModel):
    """Everything that decides what a run computes."""

    model_config = ConfigDict(frozen=True)

    models: dict[str, ModelRef] = {}
    explain: dict[str, Explained] = {}
    stain: str = "macenko"
    stain_target: StainTarget | None = None
    icc: str = KEEP
    reader: str | None = None
    pixels: Pixels | None = None
    block_px: int = BLOCK_PX
    device: str = "cpu"
    upsample: bool = False
    any_stain: bool = False
    max_damaged: float = 0.0
    counting: Counting = Counting()
    slides: list[Case]

    @property
    def key(self) -> str:
        """Tells workers whether the job they remember is still this one."""
        return digest_of(self.model_dump())

    def case(self, slide_id: str) -> Case:
        """The slide of that id."""
        return next(c for c in self.slides if c.slide_id == slide_id)

    def cards(self) -> dict[str, Card]:
        """The cards of all pipelines with a network."""
        return {name: read_card(Path(ref.folder)) for name, ref in self.models.items() if name != RISK_PIPELINE}

    def risk(self) -> CoxRisk | None:
        """The survival model, where the run has one."""
        return load_risk(Path(self.models[RISK_PIPELINE].folder)) if RISK_PIPELINE in self.models else None


def choose_models(names: Sequence[str] | None, models: Mapping[str, str | Path] | None = None, *, phantoms: bool = False) -> dict[str, ModelRef]:
    """The model of each wanted pipeline: the given one, else the default of `find_model`, for ``phantoms`` or for real slides.

    Without names: the pipelines of the given models, or every pipeline that has a model at hand.

    Raises
    ------
    UsageError
        A pipeline is not known, or a model is of another pipeline.
    UnknownModelError, CardError, WeightsMismatchError
        A model cannot be found, its card not read, or its weights are not the card's.
    """
    models = dict(models or {})
    for name in [*(names or ()), *models]:
        if name not in pipelines():
            raise UsageError(f"no pipeline is called '{name}'; there are: {', '.join(pipelines())}")
    wanted = list(dict.fromkeys([*(names or ()), *models])) if names or models else _with_models()
    found = {}
    for name in sorted(wanted, key=pipelines().index):
        folder = find_model(models.get(name, name), phantoms=phantoms)
        card = read_card(folder)
        if card.pipeline != name:
            raise UsageError(f"model {card.name} is for pipeline '{card.pipeline}', not '{name}'")
        check_weights(card, folder)  # now, and not slide after slide
        found[name] = ModelRef(name=card.name, folder=str(folder.resolve()), digest=card.digest)
    return found


def choose_engines(models: Mapping[str, ModelRef], device: str, wanted: str, before: Mapping[str, ModelRef]) -> dict[str, ModelRef]:
    """The models with what runs each here: with ``auto`` what it ran on ``before`` in this folder, else what `choose_engine` takes.

    Raises
    ------
    UsageError
        There is no such engine.
    ModelError
        An engine that was asked for by name does not run a model, or differs from torch too much.
    """
    from wsikit.models._engine import AUTO, ENGINES, choose_engine

    if wanted not in (AUTO, *ENGINES):
        raise UsageError(f"engine '{wanted}': there are {', '.join((AUTO, *ENGINES))}")
    found = dict(models)
    for name, ref in models.items():
        old = before.get(name)
        if name == RISK_PIPELINE:
            continue
        if wanted == AUTO and old is not None and old.digest == ref.digest and device == "cpu":
            engine, difference = old.engine, old.engine_difference
        elif (card := read_card(Path(ref.folder))).task != "classify":
            continue
        else:
            engine, difference = choose_engine(card, Path(ref.folder), device, wanted)
        found[name] = ref.model_copy(update={"engine": engine, "engine_difference": difference})
    return found


def _with_models() -> list[str]:
    found = []
    for name in pipelines():
        try:
            find_model(name)
        except UnknownModelError:  # any other fault of a model is told, and not passed over
            continue
        found.append(name)
    return found


def check_job(job: Job) -> None:
    """Fail before any work on parameters that cannot work.

    Raises
    ------
    UsageError
        A stain method, codec, device, tile or block size, damaged share, or what to do with colour profiles cannot be.
    """
    for name in {job.stain, *(card.stain for card in job.cards().values())}:
        get_method(name)
    if job.pixels is not None:
        parse_codec(job.pixels.codec)
        if not 16 <= job.pixels.tile_px <= 4096 or not 0 <= job.pixels.overlap_px < job.pixels.tile_px or job.pixels.overlap_px % 2:
            raise UsageError("tiles have 16 to 4096 px, and an even overlap smaller than that")
        if job.pixels.mpp is not None and not 0.05 <= job.pixels.mpp <= 20:
            raise UsageError(f"--mpp {job.pixels.mpp:g}: µm/px of the stored pixels must be 0.05 to 20, such as 0.5")
    if not 0 <= job.max_damaged < 1:
        raise UsageError(f"a damaged share of {job.max_damaged:g}: give one from 0 to below 1, such as 0.001")
    if not 256 <= job.block_px <= 16384:
        raise UsageError("blocks have 256 to 16384 px a side")
    if job.reader is not None and job.reader not in registry():
        raise UsageError(f"no reader is called '{job.reader}'; there are: {', '.join(sorted(registry()))}")
    if (name := job.counting.within) and (name not in job.models or job.cards()[name].task != "segment"):
        raise UsageError(f"--within {name}: is no pipeline of this run that finds regions; add --pipeline tumour, with a model of your own")
    if job.icc not in ICC_CHOICES:
        raise UsageError(f"icc '{job.icc}': choose {' or '.join(ICC_CHOICES)}")
    check_device(job.device)


def check_device(device: str) -> None:
    """Fail before any work where torch cannot use a device.

    Raises
    ------
    UsageError
        It cannot, or there is none of that name.
    """
    if device == "cpu":
        return
    import torch

    try:
        torch.zeros(1, device=device).cpu()  # "meta" takes numbers and never gives them back
    except (RuntimeError, AssertionError, ValueError) as e:
        why = (str(e).strip().splitlines() or [type(e).__name__])[0].split(". ")[0].removesuffix(".")
        why = "there is none of that name" if why.startswith("Expected one of") else why[:100]  # torch lists what nobody here has heard of
        raise UsageError(f"device '{device}' cannot be used here ({why}); devices are cpu, cuda, cuda:1 …, mps: try --device cpu") from e


def write_run(folder: Path, job: Job, **more: Any) -> None:
    """Write the passport ``run.json``: job, software, machine, times.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    passport = {
        "wsikit": __version__,
        "statement": RESEARCH_USE_ONLY,
        "job": job.model_dump(),
        "seeds": {},
        "software": {"python": platform.python_version(), **{n: v for n in _SOFTWARE if (v := _version(n))}},
        "machine": {"system": platform.system(), "processor": platform.machine(), "device": job.device},
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        **more,
    }
    write_json(folder / RUN_FILE, passport | {"digest": digest_of(passport)})


def update_run(folder: Path, **more: Any) -> None:
    """Replace some entries of ``run.json``.

    Raises
    ------
    StoreMismatchError, DamagedStoreError
        See `read_run`.
    OutputError
        The folder cannot be written.
    """
    passport = {k: v for k, v in read_run(folder).items() if k != "digest"} | more
    write_json(folder / RUN_FILE, passport | {"digest": digest_of(passport)})


@contextlib.contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder, and clear away what a killed one left half-written.

    Raises
    ------
    StoreMismatchError
        Another process is working in the folder.
    """
    with lease(folder / "slides/.lock") as mine:
        if not mine:
            raise StoreMismatchError(f"{folder}: another wsikit is working in this folder; wait until it is done, or choose another one with -o")
        for torn in [*folder.glob(".*.tmp"), *folder.glob("slides/.*.tmp")]:
            torn.unlink(missing_ok=True)
        yield


def now() -> str:
    """The time, UTC, to the second."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def read_run(folder: Path) -> dict[str, Any]:
    """The passport of a run folder.

    Raises
    ------
    StoreMismatchError
        The folder holds no run.
    DamagedStoreError
        Its ``run.json`` is not what was written.
    """
    path = folder / RUN_FILE
    try:
        value: dict[str, Any] = json.loads(path.read_bytes())
        Job.model_validate(value["job"])
        whole = value["digest"] == digest_of({k: v for k, v in value.items() if k != "digest"})
    except OSError as e:
        raise StoreMismatchError(f"{folder}: no readable {RUN_FILE}, so no wsikit run; give the folder that wsikit score wrote with -o") from e
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise DamagedStoreError(f"{path}: damaged, or not of wsikit; remove it and the CSV files beside it and score the same slides again")
    return value


@lru_cache(maxsize=4)
def load_job(folder: str, key: str) -> Job:
    """The job of a run folder, read once per process and job.

    Raises
    ------
    StoreMismatchError
        The folder holds another job.
    """
    job = Job.model_validate(read_run(Path(folder))["job"])
    if job.key != key:
        raise StoreMismatchError(f"{folder}: {RUN_FILE} was changed by another run while this one is going on")
    return job


def merge_jobs(old: Job, new: Job) -> Job:
    """A second run into the same folder: its pipelines and slides are added, its other parameters hold.

    What was explained stays explained while its model is the same.
    """
    slides = {c.slide_id: c for c in old.slides}
    known: dict[str, list[str]] = {}
    for case in old.slides:
        known.setdefault(case.path, []).append(case.slide_id)
    for case in new.slides:
        ids = known.get(case.path)
        slide_id = ids.pop(0) if ids else _free(case.slide_id, {name.lower() for name in slides})
        slides[slide_id] = case.model_copy(update={"slide_id": slide_id})
    models = dict(sorted({**old.models, **new.models}.items(), key=lambda m: pipelines().index(m[0])))
    explained = {name: e for name, e in old.explain.items() if models[name].digest == old.models[name].digest} | new.explain
    return new.model_copy(update={"models": models, "explain": explained, "slides": list(slides.values()), "pixels": new.pixels or old.pixels})


def _free(slide_id: str, taken: set[str]) -> str:
    free, n = slide_id, 1
    while free.lower() in taken:  # some file systems fold case
        n += 1
        free = f"{slide_id}-{n}"
    return free
