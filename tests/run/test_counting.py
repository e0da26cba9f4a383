"""How mitoses are counted is chosen for a run, kept with it, and can be changed without reading a pixel."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wsikit as wk
from wsikit.aggregate.counting import Counting
from wsikit.grid import Raster, TileGrid
from wsikit.models import find_model
from wsikit.report import answer as in_words
from wsikit.report import write_reports
from wsikit.run.again import aggregate_run, verify_run
from wsikit.run.job import Job, read_run


def answer(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "slides/small.json").read_text())["pipelines"]["mitosis"]
    return found


def row(folder: Path) -> dict[str, str]:
    with (folder / "slides.csv").open(newline="") as f:
        return next(csv.DictReader(f))


def test_aggregating_with_another_window_changes_results_shapes_and_tables(undisturbed_lean: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(undisturbed_lean, tmp_path / "run"))
    before = answer(run)
    assert aggregate_run(run, Counting(area_mm2=0.03, shape="circle", grading=("fnclcc",))) == 1
    after = answer(run)
    assert after["count"] == before["count"]
    assert (after["hotspot"]["shape"], after["hotspot"]["window_mm2"]) == ("circle", 0.03)
    assert 0 < after["hotspot"]["count"] <= after["count"]
    assert after["grading"]["fnclcc"]["flags"][:2] == ["insufficient_area", "rescaled"]
    score = wk.open_store(run / "slides/small.zarr").tables()["mitosis"]["score"]
    near = after["near_threshold"]
    assert near["counted"] + near["not_counted"] == (abs(score - after["threshold"]) <= 0.1).sum()
    shapes = json.loads((run / "slides/small.geojson").read_text())["features"]
    spot = next(s for s in shapes if s["properties"]["classification"]["name"] == "Hotspot")
    assert len(spot["geometry"]["coordinates"][0]) > 90, "a circle, not a box"
    cells = row(run)
    assert cells["mitosis.fnclcc_score"] == after["grading"]["fnclcc"]["score"]
    assert "rescaled" in cells["mitosis.fnclcc_flags"]
    assert not list(verify_run(run)), "receipts are of what was made again"
    page = (write_reports(run).parent / "small.html").read_text()
    assert "densest circle" in page
    assert ("of the model&#39;s threshold" in page) == (sum(near[k] for k in ("counted", "not_counted")) > 0)
    said = in_words(after | {"near_threshold": {"within": 0.1, "counted": 2, "not_counted": 3}})
    assert "2 that are counted and 3 that are not counted score within 0.1 of the model's threshold" in said
    assert "FNCLCC mitotic score" in page
    assert "mitotic component only" in page
    assert aggregate_run(run) == 1, "without a choice it is counted as before"
    assert answer(run) == after


def test_scoring_again_with_another_window_does_no_block_again(undisturbed_lean: Path, tmp_path: Path, score: Callable[..., Any]) -> None:
    run = Path(shutil.copytree(undisturbed_lean, tmp_path / "run"))
    score(run, counting=Counting(field_mm=0.12, fields=4, shape="fields"))
    assert score.done == [0], "only the result is made again"  # type: ignore[attr-defined]
    spot = answer(run)["hotspot"]
    assert spot["shape"] == "fields"
    assert len(spot["fields"]) <= 4
    assert Job.model_validate(read_run(run)["job"]).counting.fields == 4
    shapes = json.loads((run / "slides/small.geojson").read_text())["features"]
    found = next(s for s in shapes if s["properties"]["classification"]["name"] == "Hotspot")
    assert found["geometry"]["type"] == "MultiPolygon"
    assert len(found["geometry"]["coordinates"]) == len(spot["fields"])


def test_what_the_cases_say_decides_whether_a_score_applies(slide: Path, tmp_path: Path) -> None:
    cases = tmp_path / "cases.csv"
    with cases.open("w", newline="") as f:
        csv.writer(f).writerows([["path", "patient", "neoadjuvant"], [slide, "P1", "yes"]])
    run = wk.score([cases], tmp_path / "run", pipelines=["mitosis"], counting=Counting(grading=("fnclcc", "uterine-spindle")))
    graded = run.results["small"]["pipelines"]["mitosis"]["grading"]
    assert {g["status"] for g in graded.values()} == {"not_applicable"}
    assert row(run.folder)["mitosis.fnclcc_score"] == "not_applicable"
    with (run.folder / "patients.csv").open(newline="") as f:
        assert next(csv.DictReader(f))["mitosis.fnclcc_score"] == "not_applicable"


def test_tissue_that_the_model_did_not_look_at_is_no_area(slide: Path, tmp_path: Path) -> None:
    """A card may leave out tiles with little tissue; what lies in them was not searched, and must not thin the count out."""
    model = Path(shutil.copytree(find_model("phantom-mitosis"), tmp_path / "model"))
    card = json.loads((model / "card.json").read_text())
    (model / "card.json").write_text(json.dumps(card | {"min_tissue": 0.9}))
    run = wk.score([slide], tmp_path / "run", ["mitosis"], models={"mitosis": model})
    store, answer = run.store("small"), run.results["small"]["pipelines"]["mitosis"]
    stage, tissue, (dx, dy) = store.attributes["stages"]["mitosis"], store.tissue() == 1, store.attributes["survey"]["raster"]["downsample"]
    grid = TileGrid(Raster.from_json(stage["raster"]), stage["tile_px"], stage["overlap_px"])
    looked_at = (grid.covered(tissue, (dx, dy)) >= 0.9).reshape(grid.shape[::-1])
    y, x = np.nonzero(tissue)
    side = grid.stride_px * np.array(grid.raster.downsample)
    inside = looked_at[((y + 0.5) * dy // side[1]).astype(int), ((x + 0.5) * dx // side[0]).astype(int)]
    assert 0.1 < inside.mean() < 0.9
    assert answer["area_mm2"] == pytest.approx(run.results["small"]["tissue_mm2"] * inside.mean(), rel=0.08), "rims of neighbours are left out with a tile"
    assert answer["per_mm2"] == pytest.approx(answer["count"] / answer["area_mm2"], rel=1e-5)
    assert answer["count"] == (store.tables()["mitosis"]["score"] >= np.float32(answer["threshold"])).sum()


def test_what_the_cases_say_now_is_what_counts(slide: Path, tmp_path: Path) -> None:
    """A mistake in the cases that was put right must not leave the score of the mistaken case, and costs no block."""
    cases, counting, done = tmp_path / "cases.csv", Counting(grading=("fnclcc",)), []

    def scored_as(neoadjuvant: str) -> str:
        cases.write_text(f"path,patient,neoadjuvant\n{slide},P1,{neoadjuvant}\n")
        done.clear()
        run = wk.score([cases], tmp_path / "run", ["mitosis"], counting=counting, on_progress=lambda e: done.append(e.kind))
        assert not list(verify_run(run.folder))
        return str(run.results["small"]["pipelines"]["mitosis"]["grading"]["fnclcc"]["status"])

    assert scored_as("yes") == "not_applicable"
    assert scored_as("no") == "ok"
    assert "block" not in done
    assert scored_as("no") == "ok"
    assert row(tmp_path / "run")["mitosis.fnclcc_score"] in "123"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--hotspot-shape", "hexagon"), "shape"),
        (("--grading", "french"), "fnclcc"),
        (("--hotspot-area", "2", "--field-diameter", "0.5"), "not both"),
        (("--fields", "0"), "fields"),
    ],
)
def test_the_command_line_refuses_what_cannot_be_counted(options: tuple[str, ...], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from wsikit.cli.main import main

    with pytest.raises(SystemExit) as left:
        main(["aggregate", str(tmp_path), *options])
    assert left.value.code == 2
    assert named in capsys.readouterr().err
