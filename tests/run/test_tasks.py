"""What goes through the scheduler: names and numbers, never pixels, one task a block."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wsikit.geometry import Level, Size
from wsikit.grid import Block, TileGrid, make_raster
from wsikit.models._network import Detections
from wsikit.run.block import _owned
from wsikit.run.engine import InProcess


class Wire(InProcess):
    """Notes what a scheduler would have carried there and back."""

    sent: list[tuple[str, tuple[Any, ...], int]]
    returned: list[int]

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.sent.append((fn.__name__, args, len(pickle.dumps((fn, args, kwargs)))))
        future = super().submit(*pickle.loads(pickle.dumps((fn, *args))))
        self.returned.append(len(pickle.dumps(future.result())))
        return future


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> type[Wire]:
    Wire.sent, Wire.returned = [], []
    monkeypatch.setattr("wsikit.run.engine.InProcess", Wire)
    return Wire


def plain(value: Any) -> bool:
    """Only text, numbers and the names of blocks."""
    return all(map(plain, value)) if isinstance(value, list | tuple) and not isinstance(value, Block) else isinstance(value, str | int | Block)


def test_tasks_are_small_and_one_a_block(score: Any, wire: type[Wire], tmp_path: Path) -> None:
    """Also in a folder whose name is long, with every pipeline and the pixels."""
    folder = tmp_path / ("a folder with a long name " * 6) / "run"
    run = score(folder, pipelines=None, keep_tiles=True, block_px=256)
    tasks = Counter(name for name, _, _ in wire.sent)
    assert tasks == {"prepare_slide": 1, "do_block": score.done[-1], "finish_slide": 1}
    blocks = [args[3] for name, args, _ in wire.sent if name == "do_block"]
    assert len(blocks) == len(set(blocks)) > 10
    assert max(size for *_, size in wire.sent) < 1000
    assert max(wire.returned) < 2000
    assert all(plain(args) for _, args, _ in wire.sent)
    assert len(run.results["small"]["pipelines"]) == 4


def test_a_task_stays_small_when_the_run_has_many_slides(score: Any, wire: type[Wire], slide: Path, tmp_path: Path) -> None:
    """Tasks name the job by a digest; the job itself is read from the folder."""
    import wsikit as wk

    rows = "\n".join(f"missing-{i:04d}.tif" for i in range(1500))
    (tmp_path / "cases.csv").write_text(f"path\n{slide}\n{rows}\n")
    with pytest.raises(KeyboardInterrupt):
        wk.score([tmp_path / "cases.csv"], tmp_path / "run", ["sts-subtype"], on_progress=_stop)
    assert max(size for *_, size in wire.sent) < 1000
    assert (tmp_path / "run/run.json").stat().st_size > 100_000


def _stop(event: Any) -> None:
    if event.kind == "block":
        raise KeyboardInterrupt


LEVELS = [Level(0, Size(3000, 2000), (1.0, 1.0))]


@settings(max_examples=60, deadline=None)
@given(x=st.floats(0, 2999), y=st.floats(0, 1999), overlap=st.sampled_from([0, 16, 64]), mpp=st.sampled_from([0.5, 0.8, 1.0]))
@example(x=192.0, y=384.0, overlap=64, mpp=0.5)  # on the edges of cells
def test_an_object_belongs_to_one_tile(x: float, y: float, overlap: int, mpp: float) -> None:
    """Seen by every tile that holds it, it is kept by one, at the place where it is."""
    grid = TileGrid(make_raster(LEVELS, (0.5, 0.5), mpp), 256, overlap)
    downsample = np.array(grid.raster.downsample)
    corners = grid.corners_px(grid.all_cells())
    at = np.array([x, y]) / downsample
    kept = []
    for row, corner in enumerate(corners):
        seen = ((at >= corner) & (at < corner + grid.tile_px)).all()
        position = (at - corner)[None].astype(np.float64) if seen else np.empty((0, 2))
        n = len(position)
        found = Detections(position, np.ones(n, np.float32), np.zeros(n, np.int64), np.full((n, 2), 20, np.float32))
        kept.append(_owned(found, corner, row, grid))
    (place,) = np.concatenate([k["position"] for k in kept])
    assert place == pytest.approx([x, y], abs=1e-6)
    (size,) = np.concatenate([k["size"] for k in kept])
    assert size == pytest.approx(20 * downsample)
    (row,) = np.concatenate([k["row"] for k in kept])
    assert np.array_equal(grid.all_cells()[row], np.floor(at / grid.stride_px))
