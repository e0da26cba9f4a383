"""Tissue out of focus: no mitosis is looked for there, so it is no area either, and the result says how much that was."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from shapely import box

import wsikit as wk
from wsikit.aggregate.region import Within
from wsikit.aggregate.searched import counts_of, searched
from wsikit.run import Run
from wsikit.run.finish import _count
from wsikit.run.job import Job, read_run
from wsikit.run.reviewed import open_review
from wsikit.testing.flaws import unfocused
from wsikit.testing.phantom import Spec, Truth, make_phantom, write_pyramid

PART = (slice(512, 1024), slice(512, 1536))  # two of the tiles that quality is measured in
SOFT_PX = 0.7  # so little that the model still finds figures there: only then can it be seen that they do not count
CALLED_BLURRED = 0.75  # of the slide's median, in place of `wsikit.tissue.quality.BLURRED`


@pytest.fixture(scope="module")
def truth_and_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Truth, Run]:
    rgb, truth = make_phantom(Spec(11, "LMS", 2048, 1536, mitoses_per_mm2=160))
    folder = tmp_path_factory.mktemp("soft")
    write_pyramid(folder / "soft.tif", unfocused(rgb, PART, SOFT_PX), 0.5)
    (folder / "cases.csv").write_text("path,patient\nsoft.tif,P1\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wsikit.tissue.quality.BLURRED", CALLED_BLURRED)
        run = wk.score([folder / "cases.csv"], folder / "run", ["mitosis"], workers=0)
    assert not run.failed
    return truth, run


def there(position: np.ndarray) -> np.ndarray:
    """Which points lie in the part, its rim left out: a mask has pixels of 8 µm."""
    low, high = (np.array([getattr(s, edge) for s in PART[::-1]]) for edge in ("start", "stop"))
    return ((position >= low + 16) & (position < high - 16)).all(1)


def test_neither_its_figures_nor_its_area_count(truth_and_run: tuple[Truth, Run]) -> None:
    truth, run = truth_and_run
    store = run.store("soft")
    found, table = store.result["pipelines"]["mitosis"], store.tables()["mitosis"]
    tissue = truth.tissue[tuple(slice(s.start // 16, s.stop // 16) for s in PART)]
    assert found["left_out"]["blurred_mm2"] == pytest.approx(tissue.sum() * (16 * 0.5) ** 2 / 1e6, rel=0.05)
    assert found["area_mm2"] + found["left_out"]["blurred_mm2"] == pytest.approx(store.result["tissue_mm2"], abs=1e-5)
    assert there(truth.mitoses).sum() > 5, "the phantom has figures there"
    assert found["left_out"]["blurred_detections"] > 0, "and the model finds some"
    assert not there(table["position"]).any()
    counted = table["score"] >= np.float32(found["threshold"])
    assert found["count"] == counted.sum()
    assert found["per_mm2"] == pytest.approx(counted.sum() / found["area_mm2"], rel=1e-5)
    assert np.isfinite(store.overlay("mitosis").values).any()


def test_a_review_counts_in_the_same_tissue(truth_and_run: tuple[Truth, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsikit.tissue.quality.BLURRED", CALLED_BLURRED)
    _, run = truth_and_run
    found, review = run.results["soft"]["pipelines"]["mitosis"], open_review(run.folder, "soft")
    again = review.answer("mitosis")
    assert {k: again[k] for k in ("count", "area_mm2", "per_mm2", "hotspot")} == {
        k: found[k] if k != "hotspot" else {n: v for n, v in found[k].items() if n != "chance"} for k in ("count", "area_mm2", "per_mm2", "hotspot")
    }
    assert review.grounds("mitosis").tissue_mm2 == pytest.approx(found["area_mm2"], abs=1e-5)
    review.by = "AB"
    (y, x), store = PART, run.store("soft")
    review.area("tissue", box(x.start + 64, y.start + 64, x.start + 264, y.start + 264))  # a person has looked there
    assert review.answer("mitosis")["area_mm2"] == pytest.approx(found["area_mm2"] + (200 * store.mpp[0]) ** 2 / 1e6, abs=0.002)


def test_it_is_shown_and_in_the_tables(truth_and_run: tuple[Truth, Run]) -> None:
    _, run = truth_and_run
    left_out = run.results["soft"]["pipelines"]["mitosis"]["left_out"]["blurred_mm2"]
    shapes = json.loads((run.folder / "slides/soft.geojson").read_bytes())["features"]
    (shape,) = (f for f in shapes if f["properties"]["classification"]["name"] == "Blurred")
    assert shape["properties"]["measurements"]["area mm2"] == left_out
    for table in ("slides.csv", "patients.csv"):
        with (run.folder / table).open(newline="") as f:
            (row,) = csv.DictReader(f)
        assert float(row["mitosis.blurred_mm2"]) == left_out


def test_where_all_is_blurred_the_reason_says_so(truth_and_run: tuple[Truth, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """A region that lies in the blurred part alone."""
    monkeypatch.setattr("wsikit.tissue.quality.BLURRED", CALLED_BLURRED)
    _, run = truth_and_run
    store, job = run.store("soft"), Job.model_validate(read_run(run.folder)["job"])
    found = _count(store, job.cards()["mitosis"], store.tables()["mitosis"], job, Within("tumour", searched(store, "mitosis").blurred, ""))
    assert (found["status"], found["count"]) == ("abstained", None)
    assert found["reason"] == "all tissue of 'tumour' is blurred, and nothing is counted there"
    assert found["left_out"]["blurred_mm2"] > 0


def test_a_score_at_the_threshold_counts(scored: Run) -> None:
    """Scores are in single precision: 0.55 of theirs is not below 0.55."""
    counts = counts_of(scored.store("lms"), {"threshold": 0.55})
    assert counts(np.zeros((3, 2)), np.array([0.55, 0.5499, 0.56], np.float32)).tolist() == [True, False, True]


def test_a_sharp_slide_loses_nothing(scored: Run) -> None:
    found = scored.results["lms"]["pipelines"]["mitosis"]
    assert found["left_out"] == {"blurred_mm2": 0.0, "blurred_detections": 0}
