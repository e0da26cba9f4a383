"""Run pipelines over slides: plan, blocks, workers, results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from wsikit.errors import SlideError, UsageError
from wsikit.location import locate
from wsikit.run.cases import Case, any_phantom, find_cases
from wsikit.run.cluster import read_cluster
from wsikit.run.drive import Progress
from wsikit.run.engine import Where, default_workers
from wsikit.run.explain import choose_explained
from wsikit.run.job import RUN_FILE, Job, ModelRef, Pixels, check_job, choose_engines, choose_models, read_run
from wsikit.run.memory import parse_memory, share_out
from wsikit.run.settings import Settings, expand, read_settings
from wsikit.run.start import Run, carry_out
from wsikit.slide import Slide
from wsikit.survey import fit_target


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
    inputs : slide files, folders, or CSVs with a column ``path`` (and ``patient``, ``mpp``, ``expect_sha256``)
    out : the run's folder
    pipelines : names, or TOML files (see `wsikit.run.settings`, and the folder ``pipelines``); by default every pipeline that has a model at hand
    models : model (a name or folder) by pipeline, instead of the default one
    keep_tiles : keep the stain-normalised pixels
    workers : processes; 0 works in this process, None takes one per GPU or core. More than 0 needs the caller's script to be guarded by
        ``if __name__ == "__main__":``
    scheduler : address of a dask scheduler to use
    options : of slides: ``mpp_override``, ``expect_sha256`` (of one slide), ``focal_plane``, ``icc``, ``any_stain``, ``reader``,
        ``upsample``, ``max_damaged`` (the share of tissue that may be left out because it cannot be decoded, by default none);
        of kept pixels and pictures: ``stain``, ``stain_target`` (an image whose colours to take, instead of the reference)
        – a model always sees the colours of its card; of mitoses: ``counting``, a `wsikit.aggregate.counting.Counting`;
        of classifiers: ``explain``, a list of ``PIPELINE`` or ``PIPELINE=CLASS,CLASS`` whose tiles get Grad-CAM, also of a run that is finished;
        of the work: ``device``, ``engine`` (of classifiers on a CPU: ``auto``, ``torch``, ``openvino``, ``openvino-bf16``),
        ``memory`` (such as "16GiB", for all processes of this machine together), ``block_px``, ``cluster`` (a TOML
        file, see `wsikit.run.cluster`), ``tls`` (the folder of ``wsikit cluster init``, for a scheduler at tls://), ``task_seconds`` (a worker that is at a
        block for longer is ended, by default 1800), ``copy_to`` (an address such as s3://bucket/run: finished slides are copied there), ``debug``

    Raises
    ------
    UsageError, UnknownModelError, CardError, WeightsMismatchError, LabelsError, SlideNotFoundError
        Wrong arguments; nothing was started.
    OutputError
        The folder cannot be written, or the disk is full; what is done is kept.
    EngineError
        Workers do not start, or the scheduler cannot be reached.

    Examples
    --------
    >>> run = score(["a.svs"], "out/", pipelines=["sts-subtype", "mitosis"])    # doctest: +SKIP
    >>> run.failed                                                               # doctest: +SKIP
    {}
    >>> run.results["a"]["pipelines"]["sts-subtype"]["call"]                     # doctest: +SKIP
    'LMS'
    """
    names, models, keep_tiles, options = expand(pipelines, models or {}, keep_tiles, options)
    chosen = choose_models(names, models)
    if not chosen:
        raise UsageError("no pipeline has a model at hand; give one with --model PIPELINE=FOLDER, see wsikit models list")
    choose = partial(choose_models, names, models)
    return _run(inputs, Path(out), choose, Pixels() if keep_tiles else None, workers, scheduler, on_progress, options)


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
    return _run(inputs, Path(out), None, pixels, workers, scheduler, on_progress, options)


def _run(
    inputs: Sequence[str | Path],
    folder: Path,
    choose: Callable[..., dict[str, ModelRef]] | None,
    pixels: Pixels | None,
    workers: int | None,
    scheduler: str | None,
    on_progress: Callable[[Progress], None],
    options: Mapping[str, Any],
) -> Run:
    chosen = read_settings(options)
    where, block_px = _where(chosen, workers, scheduler, models=choose is not None)
    cases = _cases(inputs, chosen)
    models = choose(phantoms=any_phantom(cases)) if choose else {}
    of_job = {name: getattr(chosen, name) for name in Job.model_fields if name in Settings.model_fields and name not in ("stain_target", "explain")}
    job = Job(**of_job | {"models": models, "pixels": pixels, "slides": cases, "block_px": block_px})
    check_job(job)
    job = job.model_copy(update={"explain": choose_explained(chosen.explain, models)})
    before = Job.model_validate(read_run(folder)["job"]).models if (folder / RUN_FILE).exists() else {}
    job = job.model_copy(update={"models": choose_engines(job.models, job.device, chosen.engine, before)})
    if chosen.stain_target is not None:
        job = job.model_copy(update={"stain_target": fit_target(chosen.stain_target, job.stain)})
    return carry_out(folder, job, where, on_progress, debug=chosen.debug, copy_to=chosen.copy_to or "")


def _cases(inputs: Sequence[str | Path], chosen: Settings) -> list[Case]:
    """The slides, by full paths: workers may have another current folder."""
    found = find_cases(inputs, chosen.mpp_override, chosen.expect_sha256 or "")
    plane = {"focal_plane": chosen.focal_plane} if chosen.focal_plane else {}
    return [c.model_copy(update={"path": str(locate(c.path).absolute())} | (plane if c.focal_plane is None else {})) for c in found]


def _where(chosen: Settings, workers: int | None, scheduler: str | None, *, models: bool) -> tuple[Where, int]:
    """Where the work is done, and the side of its blocks."""
    block_px, worker_bytes = chosen.block_px, 0
    elsewhere = scheduler is not None or chosen.cluster is not None
    if elsewhere and workers:
        raise UsageError("--workers is of processes on this machine; a scheduler has those it was given, and a cluster those of its file (least, most)")
    if chosen.tls is not None and scheduler is None:
        raise UsageError("--tls is for --scheduler tls://…; the file of a --cluster names its own")
    if chosen.memory:
        if elsewhere:
            raise UsageError("--memory is of worker processes on this machine; those of a scheduler or cluster have what they were started with")
        wanted = default_workers(chosen.device) if workers is None else workers
        workers, block_px, worker_bytes = share_out(parse_memory(chosen.memory), wanted, models=models)
    cluster = read_cluster(chosen.cluster) if chosen.cluster else None
    return Where(workers, worker_bytes, scheduler, cluster, chosen.tls, chosen.task_seconds), block_px


__all__ = ["Progress", "Run", "score", "tile", "tile_slides"]
