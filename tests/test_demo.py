"""The demo: it abstains on real tissue, its numbers are those of the run and of the truth, and it says where to look."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from wsikit import RESEARCH_USE_ONLY, demo
from wsikit.errors import WsikitError
from wsikit.run import Run
from wsikit.testing.cohort import specs


@dataclass
class Told:
    """What a demo said."""

    lines: list[str] = field(default_factory=list)

    @property
    def watch(self) -> demo.Watch:
        return demo.Watch(self.lines.append, lambda _: lambda _: None)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Run], Told, Path]:
    """The demo's cohort with fewer classes and one small slide of each, scored in this process."""
    out, told = tmp_path_factory.mktemp("demo"), Told()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "STS_CLASSES", ("LMS", "SS", "UPS"))
        patch.setattr(demo, "STS_PER_CLASS", 1)
        patch.setattr(demo, "RMS_PER_CLASS", 1)
        patch.setattr(demo, "specs", partial(specs, width=1024, height=1024))
        runs = demo.phantom_cohort(out, told.watch, 0)
    return runs, told, out


ROW = re.compile(r"^   ([a-z]+-\d\d) +(\w+) +(\w+|–) +([\d.]+) +(\d+) +(\d+) +([\d.]+) ", re.MULTILINE)


def table(text: str, name: str) -> pd.DataFrame:
    """One of the demo's tables of slides, read back."""
    part = text.split(f"{name}: what the models say")[1].split("class right")[0]
    return pd.DataFrame(ROW.findall(part), columns=["slide", "truth", "call", "doubt", "count", "true", "per_mm2"]).set_index("slide")


def test_the_tables_are_the_runs_results_beside_the_truth(cohort: tuple[list[Run], Told, Path]) -> None:
    runs, told, out = cohort
    for run, name, n in zip(runs, ("sts-subtype", "rms-subtype"), (3, 2), strict=True):
        shown, truth = table(told.text, name), pd.read_csv(out / "phantoms" / name[:3] / "cases.csv")
        results = pd.read_csv(run.folder / "slides.csv", index_col="slide_id")
        assert len(shown) == len(results) == len(truth) == n
        assert shown["truth"].tolist() == truth["label"].tolist()
        calls = results.loc[shown.index, f"{name}.call"].fillna("–")
        assert shown["call"].tolist() == calls.tolist()
        assert shown["count"].astype(int).tolist() == results.loc[shown.index, "mitosis.count"].tolist()
        np.testing.assert_allclose(shown["per_mm2"].astype(float), results.loc[shown.index, "mitosis.per_mm2"], atol=0.051)
        right = int((calls.to_numpy() == truth["label"].to_numpy()).sum())
        assert f"class right: {right} of {n}" in told.text.split(f"{name}: what")[1]


def test_its_summary_of_mitoses_adds_up(cohort: tuple[list[Run], Told, Path]) -> None:
    runs, told, _ = cohort
    parts = told.text.split("what the models say")[1:]
    for run, name, part in zip(runs, ("sts-subtype", "rms-subtype"), parts, strict=True):
        hits, false, missed = map(int, re.findall(r"\((\d+) hits, (\d+) false, (\d+) missed\)", part)[0])
        precision, recall = map(float, re.findall(r"precision ([\d.]+), recall ([\d.]+)", part)[0])
        shown = table(told.text, name)
        assert hits + false == shown["count"].astype(int).sum()
        assert hits + missed == shown["true"].astype(int).sum()
        assert precision == pytest.approx(hits / (hits + false), abs=6e-4)
        assert recall == pytest.approx(hits / (hits + missed), abs=6e-4)
        assert min(precision, recall) > 0.6, run.folder


def test_the_cohort_is_the_same_every_time_and_unseen_in_training() -> None:
    first, second = (specs(demo.STS_CLASSES, demo.STS_PER_CLASS, demo.SEED) for _ in range(2))
    assert first == second
    assert len({s.seed for s in first}) == len(first) == 15
    assert demo.SEED not in (901, 902, 903)
    assert {s.subtype for s in first} == set(demo.STS_CLASSES)


def test_it_ends_by_saying_where_to_look(cohort: tuple[list[Run], Told, Path]) -> None:
    runs, told = cohort[0], Told()
    demo.closing(runs, told.lines.append)
    for run in runs:
        assert str(run.folder / "slides.csv") in told.text
    for path in re.findall(r"(?:picture|store|QuPath) +(\S+)", told.text) + re.findall(r"wsikit \w+ (\S+)", told.text):
        assert Path(path).exists(), path
    assert f"and {len(runs[0].results) - 2} more slides" in told.text
    assert told.lines[-1].endswith(RESEARCH_USE_ONLY)


@pytest.fixture
def unmarked(tmp_path: Path) -> Path:
    """Tissue-coloured noise in a TIFF that does not call itself a phantom."""
    rng = np.random.default_rng(5)
    pixels = np.clip(rng.normal((200, 130, 180), 25, (1024, 1024, 3)), 0, 255).astype(np.uint8)
    pixels[:200] = 243
    path = tmp_path / "real.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), compression="jpeg", resolution=(20_000, 20_000), resolutionunit="CENTIMETER")
    return path


def test_on_a_slide_that_is_no_phantom_no_model_of_phantoms_answers(unmarked: Path, tmp_path: Path) -> None:
    told = Told()
    run = demo.real_slide(tmp_path / "out", unmarked, told.watch, 0)
    answers = run.results["real"]["pipelines"]
    assert set(answers) == {"sts-subtype", "rms-subtype", "mitosis", "survival"}
    assert answers["mitosis"]["status"] == "refused"
    assert "0.25 µm/px" in answers["mitosis"]["reason"]
    for name, answer in answers.items():
        assert not {"call", "probability", "count", "per_mm2", "risk", "group"} & answer.keys()
        assert name == "mitosis" or f"{name:12s} abstained: the model was trained on phantoms" in told.text
    assert "0.5 µm/px from tiff resolution" in told.text
    assert run.store("real").image().shape[1:] == (512, 512)  # the pixels are kept for the viewer, as fine as a model saw them: 1 µm/px


def test_a_count_on_a_slide_of_ones_own_is_told_in_words(unmarked: Path, tmp_path: Path) -> None:
    fine, told = tmp_path / "fine.tif", Told()
    pixels = tifffile.imread(unmarked)
    tifffile.imwrite(fine, pixels, photometric="rgb", tile=(256, 256), compression="jpeg", resolution=(40_000, 40_000), resolutionunit="CENTIMETER")
    found = demo.real_slide(tmp_path / "out", fine, told.watch, 0).results["fine"]["pipelines"]["mitosis"]
    assert found["status"] == "ok"
    assert re.search(rf"   mitosis +{found['count']} mitoses in ", told.text)
    assert "finer than this slide" not in told.text


def test_a_slide_that_cannot_be_used_ends_the_demo(tmp_path: Path) -> None:
    (tmp_path / "note.svs").write_text("not a slide")
    with pytest.raises(WsikitError, match=r"note\.svs: .*a text file"):
        demo.real_slide(tmp_path / "out", tmp_path / "note.svs", Told().watch, 0)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_whole_demo_is_right_on_its_cohort(unmarked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from wsikit.cli.main import main

    with pytest.raises(SystemExit) as left:
        main(["demo", "-o", str(tmp_path / "out"), "--slide", str(unmarked)])
    out = capsys.readouterr().out
    assert not left.value.code
    right = [tuple(map(int, m)) for m in re.findall(r"class right: (\d+) of (\d+)", out)]
    assert [n for _, n in right] == [15, 6]
    assert sum(r for r, _ in right) >= 20
    for precision, recall in re.findall(r"precision ([\d.]+), recall ([\d.]+)", out):
        assert min(float(precision), float(recall)) > 0.85
    said = r"C-index ([\d.]+) \(([\d.]+)–([\d.]+)\), (\d+) events in 15 patients; the true hazard itself reaches ([\d.]+)"
    c, low, high, events, ceiling = re.findall(said, out)[0]
    assert 0.5 < float(c) <= 1
    assert float(low) <= float(c) <= float(high)
    assert int(events) >= 3
    assert float(ceiling) >= float(c) - 0.15
    assert re.search(r"done in \d+ s", out)
