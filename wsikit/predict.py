"""How many slides like this one an hour, here? A part of it is scored for real, with all workers, and the rest is arithmetic.

The blocks of a slide differ in how much of them is tissue, so their seconds are taken per tile. What a slide costs once (the first look, putting it
together) is measured on it, or on a phantom where the slide was not scored to its end. While an archive is scored, all workers are busy all the time:
one slide is put together while the next one's blocks are done.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wsikit.errors import SlideError
from wsikit.run import Progress, score
from wsikit.run.engine import default_workers

BLOCKS_EACH = 5  # of each worker; its first one loads models and compiles, and does not count
_PHANTOM_PX = 1536


class _Watch:
    """Takes down what the tasks of one slide cost, and stops the run when it knows enough."""

    def __init__(self, workers: int) -> None:
        self.enough, self.warm = BLOCKS_EACH * max(1, workers), max(1, workers)
        self.planned: Progress | None = None
        self.blocks: list[Progress] = []
        self.finish: float | None = None

    def __call__(self, event: Progress) -> None:
        if event.kind == "planned":
            self.planned = event
        elif event.kind == "block":
            self.blocks.append(event)
            if len(self.blocks) >= self.enough:
                raise KeyboardInterrupt
        elif event.kind == "slide":
            self.finish = event.seconds

    @property
    def per_tile(self) -> float:
        """Seconds of a worker, from its second block on where there is one: the median over tiles, so that one stall of the machine is none of all."""
        counted = sorted(self.blocks[self.warm :] or self.blocks, key=lambda b: b.seconds / max(1, b.tiles))
        half, seen = sum(b.tiles for b in counted) / 2, 0
        for block in counted:
            seen += block.tiles
            if seen >= half:
                return block.seconds / max(1, block.tiles)
        return 0.0


def predict(
    slide: Path, pipelines: Sequence[str] | None = None, *, models: Mapping[str, str | Path] | None = None, workers: int | None = None, **options: Any
) -> dict[str, Any]:
    """Slides an hour and seconds a slide, for slides with as much tissue as this one; ``options`` as for `wsikit.score`.

    Raises
    ------
    SlideError
        The slide cannot be scored.
    """
    n = default_workers(str(options.get("device") or "cpu")) if workers is None else workers
    watch = _Watch(n)
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = score([slide], Path(folder) / "run", pipelines, models=models, workers=n, on_progress=watch, **options)
        except KeyboardInterrupt:
            if len(watch.blocks) < watch.enough:
                raise
        else:
            if run.failed:
                raise SlideError(next(iter(run.failed.values())))
        finish = watch.finish if watch.finish is not None else _finish_of_phantom(Path(folder), pipelines, models, options)
    if watch.planned is None:
        raise SlideError(f"{slide}: nothing of it was left to score")
    parts = {"prepare": watch.planned.seconds, "blocks": watch.per_tile * watch.planned.tiles, "finish": finish}
    seconds = sum(parts.values())
    return {
        "slide": slide.name,
        "workers": max(1, n),
        "blocks": watch.planned.blocks,
        "blocks_measured": len(watch.blocks),
        "tiles": watch.planned.tiles,
        "worker_seconds": {name: round(value, 3) for name, value in parts.items()},
        "seconds_per_slide": round(seconds / max(1, n), 2),
        "slides_per_hour": float(f"{3600 * max(1, n) / seconds:.3g}"),
    }


def _finish_of_phantom(folder: Path, pipelines: Sequence[str] | None, models: Mapping[str, str | Path] | None, options: Mapping[str, Any]) -> float:
    from wsikit.testing.phantom import Spec, write_phantom

    write_phantom(folder / "phantom.tif", Spec(1, "LMS", _PHANTOM_PX, _PHANTOM_PX))
    watch = _Watch(10**6)
    more = {k: v for k, v in options.items() if k not in ("mpp_override", "expect_sha256", "focal_plane", "reader")}
    score([folder / "phantom.tif"], folder / "phantom", pipelines, models=models, on_progress=watch, **more)
    return watch.finish or 0.0
