"""Run pipelines over slides: plan, blocks, workers, results."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsikit.errors import OutputError, SlideError, StoreMismatchError, UsageError
from wsikit.location import locate
from wsikit.run.cases import find_cases
from wsikit.run.drive import Driver, Progress
from wsikit.run.engine import open_pool
from wsikit.run.job import RUN_FILE, Job, Pixels, check_job, choose_models, merge_jobs, now, only_run, read_run, write_run
from wsikit.run.plan import BLOCK_PX
from wsikit.run.results import table_digests
from wsikit.slide import Slide
from wsikit.store import SlideStore, open_store
from wsikit.store.durable import write_atomic
from wsikit.survey import fit_target

MIN_FREE_BYTES = 64 * 1024**2


@dataclass(frozen=True)
class Run:
    """A run's folder and what it found.

    ``results`` are the slides' results by id, as in ``slides/<slide_id>.json``; ``seconds`` is the workers' time by stage,
    added up over this run's blocks.
    """

    folder: Path
    results: dict[str, dict[str, Any]]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> dict[str, str]:
        """Why each failed slide failed, by id."""
        return {k: r["reason"] for k, r in self.results.items() if r["status"] == "failed"}

    def store(self, slide_id: str) -> SlideStore:
        """The store of a slide."""
        return open_store(self.folder / "slides" / f"{slide_id}.zarr")


def score(
    inputs: Sequence[str | Path],
    out: str | Path,
    pipelines: Sequence[str] | None = None,
    *,
    models: Mapping[str, str | Path] | None = None,
    keep_tiles: bool = False,
    workers: int | None = 0,
    scheduler: str | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    **options: Any,
) -> Run:
    """Score slides: calls, detections, risk and overlays. Running it again into the same folder resumes.

    Parameters
    ----------
    inputs : slide files, folders, or CSVs with a column ``path`` (and ``patient``, ``mpp``)
    out : the run's folder
    pipelines : names; by default every pipeline that has a model at hand
    models : model (a name or folder) by pipeline, instead of the default one
    keep_tiles : keep the stain-normalised pixels
    workers : processes; 0 works in this process, None takes one per GPU or core. More than 0 needs the caller's script to be guarded by
        ``if __name__ == "__main__":``
    scheduler : address of a dask scheduler to use
    options : ``mpp_override``, ``device``, ``stain``, ``stain_target``, ``block_px``, ``upsample``, ``debug``. ``stain`` and ``stain_target`` (an
        image whose colours to take, instead of the reference) are of the kept pixels and pictures: a model always sees the colours of its card

    Raises
    ------
    UsageError, UnknownModelError, CardError, WeightsMismatchError, LabelsError, SlideNotFoundError
        Wrong arguments; nothing was started.
    OutputError
        The folder cannot be written, or the disk is full; what is done is kept.
    EngineError
        The scheduler cannot be reached.

    Examples
    --------
    >>> run = score(["a.svs"], "out/", pipelines=["sts-subtype", "mitosis"])    # doctest: +SKIP
    >>> run.failed                                                               # doctest: +SKIP
    {}
    >>> run.results["a"]["pipelines"]["sts-subtype"]["call"]                     # doctest: +SKIP
    'LMS'
    """
    chosen = choose_models(pipelines, models)
    if not chosen:
        raise UsageError("no pipeline has a model at hand; give one with --model PIPELINE=FOLDER, see wsikit models list")
    return _run(inputs, Path(out), chosen, Pixels() if keep_tiles else None, workers, scheduler, on_progress, options)


def tile(
    slide: Slide | str | Path,
    out: str | Path,
    *,
    mpp: float | None = 0.5,
    tile_px: int = 256,
    overlap_px: int = 0,
    stain: str = "macenko",
    codec: str = "zstd:1",
    workers: int | None = 0,
    **options: Any,
) -> Path:
    """Turn a slide into stain-normalised OME-Zarr; returns the path of its store.

    Parameters
    ----------
    slide : a slide or its path
    mpp : µm/px of the stored pixels; None keeps level 0
    tile_px : side of the stored chunks, and of the tiles in ``tables/tiles``
    overlap_px : overlap of the tiles in ``tables/tiles``; stored pixels never overlap
    options : as for `score`

    Raises
    ------
    SlideError
        The slide cannot be used; the message says why.
    UsageError, OutputError, EngineError
        As for `score`.

    Examples
    --------
    >>> store = tile("a.svs", "tiles/", mpp=1.0)    # doctest: +SKIP
    >>> store.name                                  # doctest: +SKIP
    'a.zarr'
    """
    path = slide.path if isinstance(slide, Slide) else slide
    pixels = Pixels(mpp=mpp, tile_px=tile_px, overlap_px=overlap_px, codec=codec)
    run = tile_slides([path], out, pixels=pixels, stain=stain, workers=workers, **options)
    (slide_id, result) = next((c, r) for c, r in run.results.items() if _same(run, c, path))
    if result["status"] == "failed":
        raise SlideError(result["reason"])
    return run.folder / "slides" / f"{slide_id}.zarr"


def _same(run: Run, slide_id: str, path: str | Path) -> bool:
    return Job.model_validate(read_run(run.folder)["job"]).case(slide_id).path == str(locate(path).absolute())


def tile_slides(
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    pixels: Pixels,
    workers: int | None = 0,
    scheduler: str | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    **options: Any,
) -> Run:
    """Tile several slides into one run folder; see `tile`."""
    return _run(inputs, Path(out), {}, pixels, workers, scheduler, on_progress, options)


def _run(
    inputs: Sequence[str | Path],
    folder: Path,
    models: Mapping[str, Any],
    pixels: Pixels | None,
    workers: int | None,
    scheduler: str | None,
    on_progress: Callable[[Progress], None],
    options: Mapping[str, Any],
) -> Run:
    known = {"mpp_override", "device", "stain", "stain_target", "block_px", "upsample", "debug"}
    if unknown := set(options) - known:
        raise UsageError(f"no option is called {', '.join(sorted(unknown))}; there are: {', '.join(sorted(known))}")
    # workers may have another current folder
    cases = [c.model_copy(update={"path": str(locate(c.path).absolute())}) for c in find_cases(inputs, options.get("mpp_override"))]
    parameters = {k: v for k, v in options.items() if k in ("device", "stain", "upsample") and v is not None}
    job = Job(models=dict(models), pixels=pixels, slides=cases, block_px=options.get("block_px") or BLOCK_PX, **parameters)
    check_job(job)
    if options.get("stain_target") is not None:
        job = job.model_copy(update={"stain_target": fit_target(options["stain_target"], job.stain)})
    prepare_folder(folder)
    with only_run(folder):
        if (folder / RUN_FILE).exists():
            job = merge_jobs(Job.model_validate(read_run(folder)["job"]), job)
        started = now()
        write_run(folder, job, started=started)
        with open_pool(workers, scheduler, job.device) as pool:
            driver = Driver(folder, job, pool, on_progress, bool(options.get("debug")))
            results = driver.run()
        slides = {k: r["slide"]["digest"] for k, r in results.items() if "slide" in r}
        seconds = {stage: round(value, 3) for stage, value in sorted(driver.clock.seconds.items())}
        done = {"started": started, "finished": now(), "workers": pool.workers, "worker_seconds": seconds}
        write_run(folder, job, **done, slide_digests=slides, files=table_digests(folder))
    return Run(folder, results, seconds)


def prepare_folder(folder: Path) -> None:
    """Make sure, before any work, that results can be written.

    Raises
    ------
    OutputError
        The folder cannot be made or written, or its disk is full.
    StoreMismatchError
        It is a folder with other things in it.
    """
    probe = folder / "slides" / ".writable"
    if folder.is_dir() and not (folder / RUN_FILE).exists() and any(p.name != "slides" and p.suffix != ".tmp" for p in folder.iterdir()):
        raise StoreMismatchError(f"{folder}: holds other files and no {RUN_FILE}; choose an empty or new folder with -o")
    try:
        write_atomic(probe, b"wsikit")
        probe.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as e:
        why = getattr(e.__cause__ or e, "strerror", None) or e
        raise OutputError(f"{folder}: cannot be written ({why}); choose another folder with -o") from e
    if free < MIN_FREE_BYTES:
        raise OutputError(f"{folder}: only {free // 1024**2} MiB are free on this disk; free some space or choose another folder with -o")


__all__ = ["Progress", "Run", "score", "tile", "tile_slides"]
