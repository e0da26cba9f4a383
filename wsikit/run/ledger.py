"""What of a slide is done, and what is left? The receipts on disk are the truth, and only while their bytes hold.

A slide's receipts are: ``layout`` for the empty store, one per block, and once it is finished ``stage <pipeline>`` for each table with its
heat map, and ``slide`` for the rest. A digest is taken when a file is written and never again from what is found on the disk: otherwise
damage would come to be receipted as right.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from wsikit.aggregate.counting import Counting
from wsikit.errors import DamagedStoreError
from wsikit.grid import Block
from wsikit.models import RISK_PIPELINE
from wsikit.run.job import Job
from wsikit.run.plan import PIXELS, Plan
from wsikit.store.durable import digest_of, sha256_file, write_atomic
from wsikit.store.receipts import Receipt, append_receipt, digests, read_receipts, rewrite_receipts

SLIDE, LAYOUT = "slide", "layout"
COUNTING, FACTS = "counting", "facts"
ATTRIBUTES = "zarr.json"
RESULT_SUFFIXES = (".json", ".geojson", ".png")
MADE_AGAIN = f"overlays/{RISK_PIPELINE}"
LITTER = (".partial", ".tmp")


def receipts_path(store: Path) -> Path:
    """The receipts beside a store."""
    return store.with_suffix(".receipts.jsonl")


def _stage_entry(name: str) -> str:
    return f"stage {name}"


def finished_stages(store: Path, plan: Plan) -> set[str]:
    """The pipelines whose tables are put together, from this slide, model and parameters, and undamaged."""
    found = _latest(store)
    entries = {name: found.get(_stage_entry(name)) for name in plan.stages}
    return {name for name, r in entries.items() if r and r.keys.get(name) == plan.stages[name].key and r.holds(store.parent)}


def missing_blocks(store: Path, plan: Plan) -> dict[Block, list[str]]:
    """Which stages are still to be done in which block."""
    done = _done_parts(store, plan)
    final = finished_stages(store, plan)
    left = {block: [n for n in names if n not in final and (block.name, n) not in done] for block, names in plan.work().items()}
    return {block: names for block, names in left.items() if names}


def _done_parts(store: Path, plan: Plan) -> set[tuple[str, str]]:
    keys = {name: plan.part_key(name) for name in plan.stages}
    done = set()
    for receipt in read_receipts(receipts_path(store)):
        current = [name for name, key in receipt.keys.items() if keys.get(name) == key]
        if current and receipt.holds(store.parent):
            done |= {(receipt.block, name) for name in current}
    return done


def written_parts(store: Path, name: str, blocks: Iterable[Block]) -> list[Path]:
    """The parts of a stage that these blocks wrote; a block that could not be decoded at all has none."""
    named = {f for r in read_receipts(receipts_path(store)) for f in r.files}
    parts = [store.with_suffix(".parts") / name / f"{block.name}.safetensors" for block in blocks]
    return [p for p in parts if p.relative_to(store.parent).as_posix() in named]


def layout(store: Path) -> dict[str, str] | None:
    """Digests of the files that the empty store was laid out with; None when there are none, or one is damaged or missing."""
    found = _latest(store).get(LAYOUT)
    return found.files if found and found.holds(store.parent) else None


def commit_layout(store: Path, laid: Mapping[str, str]) -> None:
    """Receipt of an empty store; of a store that was ``laid`` before, only the attributes are new."""
    files = [store / ATTRIBUTES] if laid else _files(store)
    append_receipt(receipts_path(store), Receipt(block=LAYOUT, keys={}, files={**laid, **digests(store.parent, files)}))


def commit_layout_file(store: Path, file: Path) -> None:
    """A file of the layout was written again on purpose."""
    laid = _latest(store)[LAYOUT]
    append_receipt(receipts_path(store), laid.model_copy(update={"files": {**laid.files, **digests(store.parent, [file])}}))


def is_complete(store: Path, plan: Plan, job: Job) -> bool:
    """Whether the slide was put together from exactly this plan and these models, and nothing of it is damaged or missing."""
    if not was_finished(store, plan, job):
        return False
    whole = _latest(store)[SLIDE]
    if {k: v for k, v in whole.keys.items() if k in (COUNTING, FACTS)} != _said_keys(job, store) or not whole.holds(store.parent):
        return False
    return finished_stages(store, plan) >= set(plan.stages) - {PIXELS} and not missing_blocks(store, plan)


def was_finished(store: Path, plan: Plan, job: Job) -> bool:
    """Whether the slide was put together from exactly this plan and these models.

    Whatever became of its files, however mitoses were counted, and whatever the cases said of it.
    """
    whole = _latest(store).get(SLIDE)
    return whole is not None and _without_said(whole.keys) == _slide_keys(plan, job)


def is_undamaged(store: Path) -> bool:
    """Whether every file with a receipt holds, its results aside."""
    known = {name: digest for r in read_receipts(receipts_path(store)) for name, digest in r.files.items() if not _is_result(store, name)}
    return Receipt(block=SLIDE, keys={}, files=known).holds(store.parent)


def commit_slide(store: Path, plan: Plan, job: Job) -> None:
    """Receipts of what remains of a finished slide: the layout, one per block with pixels, one per pipeline, one for the rest."""
    _sweep(store)
    blocks = {r.block: r for r in (_pixels_of(r, store) for r in read_receipts(receipts_path(store))) if r is not None}
    kept = [_latest(store)[LAYOUT], *blocks.values()]
    stages = {name: [p for part in ("tables", "overlays") for p in _files(store / part / name)] for name in plan.stages if name != PIXELS}
    spoken_for = {store.parent / f for r in kept for f in r.files} | {p for files in stages.values() for p in files}
    rest = [p for p in _files(store) if p not in spoken_for] + _results(store)
    for name, files in stages.items():
        kept.append(Receipt(block=_stage_entry(name), keys={name: plan.stages[name].key}, files=digests(store.parent, files)))
    boxes = sorted({box for r in read_receipts(receipts_path(store)) for box in r.damaged})
    kept.append(Receipt(block=SLIDE, keys=_slide_keys(plan, job) | _said_keys(job, store), files=digests(store.parent, rest), damaged=boxes))
    rewrite_receipts(receipts_path(store), kept)
    shutil.rmtree(store.with_suffix(".parts"), ignore_errors=True)


def commit_results(store: Path, job: Job) -> None:
    """New digests for a result that was made again, and for nothing else."""
    receipts = read_receipts(receipts_path(store))
    whole = _latest(store)[SLIDE]
    kept = {name: digest for name, digest in whole.files.items() if not _is_result(store, name)}
    files = [*_results(store), *_files(store / MADE_AGAIN)]
    keys = _without_said(whole.keys) | _said_keys(job, store)
    again = Receipt(block=SLIDE, keys=keys, files={**kept, **digests(store.parent, files)}, damaged=whole.damaged)
    rewrite_receipts(receipts_path(store), [*(r for r in receipts if r.block != SLIDE), again])


def replace_result(store: Path, data: bytes) -> None:
    """Put another result in the place of a slide's own, and its digest for the old one's.

    Raises
    ------
    DamagedStoreError
        The old one is not what was written.
    OutputError
        The disk is full or cannot be written.
    """
    whole, file = _latest(store)[SLIDE], store.with_suffix(RESULT_SUFFIXES[0])
    if not file.is_file() or sha256_file(file) != whole.files.get(file.name):
        raise DamagedStoreError(f"{file}: missing, or not what was written; run wsikit aggregate on the run folder")
    write_atomic(file, data)
    append_receipt(receipts_path(store), whole.model_copy(update={"files": {**whole.files, file.name: hashlib.sha256(data).hexdigest()}}))


def _sweep(store: Path) -> None:
    """Remove the half-written files that a killed process left."""
    for file in store.rglob("*"):
        if file.name.endswith(LITTER):
            file.unlink(missing_ok=True)


def _latest(store: Path) -> dict[str, Receipt]:
    return {r.block: r for r in read_receipts(receipts_path(store))}


def _slide_keys(plan: Plan, job: Job) -> dict[str, str]:
    """What a slide's result depends on: the stages, and the model of each answer, also of those without a stage."""
    keys = {name: stage.key for name, stage in plan.stages.items()} | {f"answer {name}": ref.digest for name, ref in job.models.items()}
    return keys | ({"max_damaged": str(job.max_damaged)} if job.max_damaged else {})


def _said_keys(job: Job, store: Path) -> dict[str, str]:
    """What a result depends on beside what was scored.

    How mitoses are counted, where it is not as the models say, and what the cases say of the slide: scores and risks rest on it.
    """
    facts = job.case(store.name.removesuffix(".zarr")).extra
    counting = {} if job.counting == Counting() else {COUNTING: digest_of(job.counting.model_dump())}
    return counting | ({FACTS: digest_of(facts)} if facts else {})


def _without_said(keys: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in keys.items() if k not in (COUNTING, FACTS)}


def _results(store: Path) -> list[Path]:
    return [store.with_suffix(suffix) for suffix in RESULT_SUFFIXES]


def _is_result(store: Path, name: str) -> bool:
    """Whether a file is made again from columns, with the slide's result."""
    return name in {p.name for p in _results(store)} or name.startswith(f"{store.name}/{MADE_AGAIN}/")


def _pixels_of(receipt: Receipt, store: Path) -> Receipt | None:
    """A block's receipt without the parts that were put together and removed; None when it kept no pixels."""
    if PIXELS not in receipt.keys or receipt.block == SLIDE:
        return None
    shards = {f: d for f, d in receipt.files.items() if f.startswith(f"{store.name}/")}
    return Receipt(block=receipt.block, keys={PIXELS: receipt.keys[PIXELS]}, files=shards, damaged=receipt.damaged)


def _files(folder: Path) -> Iterable[Path]:
    return [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.endswith(LITTER)]
