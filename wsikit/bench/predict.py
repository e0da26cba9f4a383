"""How many slides like this one an hour, here? A part of it is scored for real, with all workers, and the rest is arithmetic.

The blocks of a slide differ in how much of them is tissue, so their seconds are taken per block and per tile. What a slide costs once (first look, putting it
together) is measured on it, or on a phantom where the slide was not scored to its end. While an archive is scored, all workers are busy all the time:
one slide is put together while the next one's blocks are done. What a worker does for the first time takes longer, by importing, loading models and
compiling: a first short run takes that away, and is told as ``start_seconds``, which an archive has once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from scipy.optimize import nnls

from wsikit.errors import SlideError
from wsikit.run import Progress, score
from wsikit.run.engine import Where, default_workers, open_pool

BLOCKS_EACH = 5  # of each worker
_PHANTOM_PX = 1536
_MOST_ROUNDS = 4


class _Watch:
    """Takes down what the tasks of one slide cost, and stops the run when it knows enough."""

    def __init__(self, enough: int) -> None:
        self.enough = enough
        self.planned: Progress | None = None
        self.blocks: list[Progress] = []
        self.finish: float | None = None

    def __call__(self, event: Progress) -> None:
        if event.kind == "planned":
            self.planned = event
        elif event.kind == "block":
            self.blocks.append(event)
            if self.seen() >= self.enough:
                raise KeyboardInterrupt
        elif event.kind == "slide":
            self.finish = event.seconds

    def seen(self) -> int:
        """Blocks with work for a model: those without load none."""
        return sum(b.tiles > 0 for b in self.blocks)

    def whole(self, planned: Progress) -> float:
        """Seconds of a worker for all planned blocks: so much for each, and so much for each of their tiles, neither below 0, as fits those measured."""
        work = np.array([[1.0, b.tiles] for b in self.blocks])
        seconds, _ = nnls(work, np.array([b.seconds for b in self.blocks]))
        return float(seconds @ (planned.blocks, planned.tiles))


def predict(
    slide: Path, pipelines: Sequence[str] | None = None, *, models: Mapping[str, str | Path] | None = None, workers: int | None = None, **options: Any
) -> dict[str, Any]:
    """Slides an hour and seconds a slide, for slides with as much tissue as this one; ``options`` of slides and of the work as for `wsikit.score`.

    Raises
    ------
    SlideError
        The slide cannot be scored.
    """
    device = str(options.get("device") or "cpu")
    n = default_workers(device) if workers is None else workers
    each, more = max(1, n), {"models": models, **options}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, started = Path(name), monotonic()
        where: dict[str, Any] = {"workers": 0}
        if n:  # the same workers for all runs: they start once
            where = {"scheduler": stack.enter_context(open_pool(Where(n), device)).client.scheduler.address}
        first = _Watch(each)
        _score_part(slide, folder / "first", pipelines, first, more | where)
        cold = monotonic() - started
        # a slide of few blocks warms few of the workers, and it is not ours to say which of them takes one
        watches = [_Watch(BLOCKS_EACH * each) for _ in range(1 if first.seen() >= each else min(_MOST_ROUNDS, 1 + each))]
        for i, again in enumerate(watches):
            _score_part(slide, folder / f"warm-{i}", pipelines, again, more | where)
        planned = next((w.planned for w in watches if w.planned is not None), None)
        if planned is None:
            raise SlideError(f"{slide}: nothing of it was left to score")
        watch = min(watches, key=lambda w: w.whole(planned))
        finish = watch.finish if watch.finish is not None else _finish_of_phantom(folder, pipelines, more | where)
    parts = {"prepare": planned.seconds, "blocks": watch.whole(planned), "finish": finish}
    seconds, one_each = sum(parts.values()), sum(b.seconds for b in watch.blocks) / max(1, len(watch.blocks))
    return {
        "slide": slide.name,
        "workers": each,
        "blocks": planned.blocks,
        "blocks_measured": len(watch.blocks),
        "tiles": planned.tiles,
        "worker_seconds": {name: round(value, 3) for name, value in parts.items()},
        "start_seconds": round(max(0.0, cold - parts["prepare"] - one_each), 1),
        "seconds_per_slide": round(seconds / each, 2),
        "slides_per_hour": float(f"{3600 * each / seconds:.3g}"),
    }


def _score_part(slide: Path, out: Path, pipelines: Sequence[str] | None, watch: _Watch, options: Mapping[str, Any]) -> None:
    """Score a slide until the watch has seen enough of it.

    Raises
    ------
    SlideError
        The slide cannot be scored.
    """
    try:
        run = score([slide], out, pipelines, on_progress=watch, **options)
    except KeyboardInterrupt:
        if watch.seen() < watch.enough:
            raise
    else:
        if run.failed:
            raise SlideError(next(iter(run.failed.values())))


def _finish_of_phantom(folder: Path, pipelines: Sequence[str] | None, options: Mapping[str, Any]) -> float:
    from wsikit.testing.phantom import Spec, write_phantom

    write_phantom(folder / "phantom.tif", Spec(1, "LMS", _PHANTOM_PX, _PHANTOM_PX))
    watch = _Watch(10**6)
    more = {k: v for k, v in options.items() if k not in ("mpp_override", "expect_sha256", "focal_plane", "reader")}
    score([folder / "phantom.tif"], folder / "phantom", pipelines, on_progress=watch, **more)
    return watch.finish or 0.0
