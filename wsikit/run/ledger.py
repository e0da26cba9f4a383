"""What of a slide is done, and what is left? The receipts on disk are the truth, and only while their bytes hold."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from wsikit.grid import Block
from wsikit.run.plan import PIXELS, Plan
from wsikit.store.receipts import Receipt, digests, read_receipts, rewrite_receipts

SLIDE = "slide"
RESULT_SUFFIXES = (".json", ".geojson", ".png")


def receipts_path(store: Path) -> Path:
    """The receipts beside a store."""
    return store.with_suffix(".receipts.jsonl")


def _stage_entry(name: str) -> str:
    return f"stage {name}"


def finished_stages(store: Path, plan: Plan) -> set[str]:
    """The pipelines whose tables are put together, from this slide, model and parameters, and undamaged."""
    found = {r.block: r for r in read_receipts(receipts_path(store))}
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


def is_complete(store: Path, plan: Plan) -> bool:
    """Whether the slide was put together from exactly this plan, and nothing of it is damaged or missing."""
    whole = {r.block: r for r in read_receipts(receipts_path(store))}.get(SLIDE)
    keys = {name: stage.key for name, stage in plan.stages.items()}
    if whole is None or whole.keys != keys or not whole.holds(store.parent):
        return False
    return finished_stages(store, plan) >= set(plan.stages) - {PIXELS} and not missing_blocks(store, plan)


def commit_slide(store: Path, plan: Plan) -> None:
    """Receipts of what remains of a finished slide: one per block with pixels, one per pipeline, one for the rest."""
    blocks = {r.block: r for r in (_pixels_of(r, store) for r in read_receipts(receipts_path(store))) if r is not None}
    stages = {name: [p for part in ("tables", "overlays") for p in _files(store / part / name)] for name in plan.stages if name != PIXELS}
    spoken_for = {store.parent / f for r in blocks.values() for f in r.files} | {p for files in stages.values() for p in files}
    rest = [p for p in _files(store) if p not in spoken_for] + [store.with_suffix(s) for s in RESULT_SUFFIXES]
    receipts = [*blocks.values()]
    for name, files in stages.items():
        receipts.append(Receipt(block=_stage_entry(name), keys={name: plan.stages[name].key}, files=digests(store.parent, files)))
    keys = {name: stage.key for name, stage in plan.stages.items()}
    receipts.append(Receipt(block=SLIDE, keys=keys, files=digests(store.parent, rest)))
    rewrite_receipts(receipts_path(store), receipts)
    shutil.rmtree(store.with_suffix(".parts"), ignore_errors=True)


def _pixels_of(receipt: Receipt, store: Path) -> Receipt | None:
    """A block's receipt without the parts that were put together and removed; None when it kept no pixels."""
    if PIXELS not in receipt.keys or receipt.block == SLIDE:
        return None
    shards = {f: d for f, d in receipt.files.items() if f.startswith(f"{store.name}/")}
    return Receipt(block=receipt.block, keys={PIXELS: receipt.keys[PIXELS]}, files=shards)


def _files(folder: Path) -> Iterable[Path]:
    return [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.endswith((".partial", ".tmp"))]
