"""Grad-CAM as a stage of a run: it lies where the class is, is done alone when asked for later, and is the same however it came about."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wsikit as wk
from wsikit.errors import ModelError, UsageError
from wsikit.geometry import Size
from wsikit.grid import Raster, TileGrid
from wsikit.models import BUNDLED
from wsikit.overlay.grad_cam import assemble, placement
from wsikit.overlay.heat import heat_placement
from wsikit.overlay.picture import extent_px
from wsikit.report import write_reports
from wsikit.run import Progress
from wsikit.run.again import repair_run, verify_run
from wsikit.run.explain import own_squares
from wsikit.run.plan import Stage
from wsikit.testing.regions import CELL_PX, STROMA, TUMOUR, write_region_phantom

NAME = "sts-subtype-grad-cam"
Differences = Callable[[Path, Path], set[str]]


@pytest.fixture(scope="module")
def regions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A section of two tissues with a known border: a slide, and where the tumour is, bool (H / 16, W / 16)."""
    path = tmp_path_factory.mktemp("regions") / "two.tif"
    return path, write_region_phantom(path, 3)


def test_the_map_of_a_class_lies_where_that_class_is(regions: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    """Of each class's map, the share inside its own tissue is far above that tissue's share of what was scored."""
    path, tumour = regions
    run = wk.score([path], tmp_path / "run", ["sts-subtype"], explain=[f"sts-subtype={TUMOUR},{STROMA}"], keep_tiles=True)
    store = run.store("two")
    heat = store.overlay(NAME)
    assert heat.channels == (TUMOUR, STROMA)
    left, right, bottom, top = extent_px(heat.placement, heat.values.shape[1:], store.mpp)
    y, x = (((np.arange(n) + 0.5) * (high - low) / n + low) / CELL_PX for n, low, high in zip(heat.values.shape[1:], (top, left), (bottom, right), strict=True))
    rows, columns = np.clip(y.astype(int), 0, tumour.shape[0] - 1), np.clip(x.astype(int), 0, tumour.shape[1] - 1)
    inside, scored = tumour[np.ix_(rows, columns)], ~np.isnan(heat.values[0])
    for k, where in ((0, inside), (1, ~inside)):
        energy = float(np.nansum(heat.values[k][where]) / np.nansum(heat.values[k]))
        assert energy > 0.8 > (where & scored).sum() / scored.sum() + 0.1, f"{heat.channels[k]}: {energy:.2f} of its map in its own tissue"
    about = store.about_overlay(NAME)
    assert about["model"]["digest"] == run.results["two"]["pipelines"]["sts-subtype"]["model"]["digest"]
    assert (about["method"], about["layer"]) == ("Grad-CAM (Selvaraju et al., ICCV 2017)", "features")
    said = run.results["two"]["pipelines"]["sts-subtype"]["explanation"]
    assert said["class"] in heat.channels
    assert said["logits_at_1"] == pytest.approx(about["logits_at_1"], abs=1e-6)
    page = (write_reports(run.folder).parent / "two.html").read_text()
    assert f"with Grad-CAM of {said['class']} in red" in page


@pytest.fixture(scope="module")
def explained_at_once(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wk.score([slide], tmp_path_factory.mktemp("once") / "run", ["mitosis", "sts-subtype"], block_px=512, explain=["sts-subtype"]).folder


def test_asked_for_later_it_alone_is_done(undisturbed_lean: Path, explained_at_once: Path, tmp_path: Path, differences: Differences, slide: Path) -> None:
    folder = Path(shutil.copytree(undisturbed_lean, tmp_path / "run"))
    events: list[Progress] = []
    before = {p: p.stat().st_mtime_ns for p in (folder / "slides/small.zarr/tables").rglob("*") if p.is_file()}
    wk.score([slide], folder, ["mitosis", "sts-subtype"], block_px=512, explain=["sts-subtype"], on_progress=events.append)
    store = wk.open_store(folder / "slides/small.zarr")
    assert sum(e.tiles for e in events if e.kind == "planned") == len(store.tables()["sts-subtype"]["tissue"]), "the mitoses are not looked for again"
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert differences(folder, explained_at_once) == {"run.json"}
    again: list[Progress] = []
    wk.score([slide], folder, ["mitosis", "sts-subtype"], block_px=512, on_progress=again.append)
    assert {e.kind for e in again} == {"slide"}, "it stays explained, and nothing is done"
    assert not list(verify_run(folder))


def test_a_run_that_was_stopped_goes_on_and_a_damaged_map_is_made_again(slide: Path, explained_at_once: Path, tmp_path: Path, differences: Differences) -> None:
    def stop(event: Progress) -> None:
        if event.kind == "block":
            raise KeyboardInterrupt

    folder = tmp_path / "run"
    how: dict[str, Any] = {"pipelines": ["mitosis", "sts-subtype"], "block_px": 512, "explain": ["sts-subtype"]}
    with pytest.raises(KeyboardInterrupt):
        wk.score([slide], folder, **how, on_progress=stop)
    wk.score([slide], folder, **how)
    assert differences(folder, explained_at_once) == {"run.json"}
    file = next(p for p in (folder / f"slides/small.zarr/overlays/{NAME}").rglob("*") if p.is_file() and "/c/" in p.as_posix())
    file.write_bytes(file.read_bytes()[:-9] + bytes(9))
    assert [f.problem for f in verify_run(folder)] == ["damaged"]
    assert repair_run(folder) == []
    assert differences(folder, explained_at_once) == {"run.json"}


def test_a_withheld_call_is_not_explained(explained_at_once: Path, tmp_path: Path, slide: Path) -> None:
    model = Path(shutil.copytree(BUNDLED / "phantom-sts-subtype", tmp_path / "strict"))
    card = json.loads((model / "card.json").read_text())
    (model / "card.json").write_text(json.dumps(card | {"decision": {"min_tiles": 10_000}}))
    folder = Path(shutil.copytree(explained_at_once, tmp_path / "run"))
    run = wk.score([slide], folder, ["mitosis", "sts-subtype"], models={"sts-subtype": model}, block_px=512)
    answer = run.results["small"]["pipelines"]["sts-subtype"]
    assert answer["status"] == "abstained"
    assert "explanation" not in answer
    assert NAME not in run.store("small").overlays(), "that of another model is gone"
    run = wk.score([slide], folder, ["mitosis", "sts-subtype"], models={"sts-subtype": model}, block_px=512, explain=["sts-subtype=SS"])
    assert run.store("small").overlay(NAME).channels == ("SS",)
    assert "explanation" not in run.results["small"]["pipelines"]["sts-subtype"]


@pytest.mark.parametrize(
    ("wanted", "error", "message"),
    [
        ("rms-subtype", UsageError, "'rms-subtype' is no pipeline of this run; there are: mitosis, sts-subtype"),
        ("mitosis", UsageError, "Grad-CAM is of classifiers of tiles, and the task of model phantom-mitosis is 'detect'"),
        ("sts-subtype=LMS,XYZ", UsageError, "has no class 'XYZ'"),
    ],
)
def test_what_cannot_be_explained_is_refused_before_any_work(slide: Path, tmp_path: Path, wanted: str, error: type[ModelError], message: str) -> None:
    with pytest.raises(error, match=message):
        wk.score([slide], tmp_path / "run", ["mitosis", "sts-subtype"], explain=[wanted])
    assert not (tmp_path / "run").exists()


def test_maps_are_cut_to_the_tiles_own_cells_and_put_together_without_gaps() -> None:
    """A ramp over the slide, seen tile by tile with overlap, is that ramp again."""
    grid = TileGrid(Raster(0, (1.0, 1.0), (1.0, 1.0), Size(2000, 1400), (0.5, 0.5)), 256, 64)
    cells = grid.all_cells()
    corners, n = grid.corners_px(cells), 8
    centres = corners[:, :1] + (np.arange(n) + 0.5) * 256 / n  # of each map's columns, in px
    maps = np.broadcast_to(centres[:, None, None, :] / 2000, (len(cells), 1, n, n)).astype(np.float32)
    stage = Stage("x-grad-cam", "k", grid, cells, np.ones(len(cells)))
    own = own_squares(maps, stage)
    assert own.shape == (len(cells), 1, 6, 6)
    heat, top = assemble(grid, 1, [(cells[:3], own[:3]), (cells[3:], own[3:])])
    step = grid.stride_px / 6
    expected = (np.arange(heat.shape[2]) + 0.5) * step / 2000
    assert np.allclose((heat[0] * top)[:, 3:-12], expected[3:-12], atol=2e-3)
    whole, fine = heat_placement(grid), placement(grid, 6)
    assert fine.translation[0] - fine.scale[0] / 2 == pytest.approx(whole.translation[0] - whole.scale[0] / 2)
    assert assemble(grid, 2, [])[0].shape == (2, grid.shape[1], grid.shape[0])
