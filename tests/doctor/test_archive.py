"""A preflight tells of each slide what a run would find: why it fails, tissue, stain, doubles, labels; and what the run will take."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wsikit as wk
from wsikit.doctor.archive import look_at_all, mark_duplicates, write_cases
from wsikit.doctor.estimate import Speed, estimate
from wsikit.doctor.examine import examine, unpacked
from wsikit.doctor.installation import KNOWN_BAD, installation, known_bad, parts, problems, self_test
from wsikit.run import Run
from wsikit.run.cases import find_cases
from wsikit.testing.phantom import Spec, make_phantom
from wsikit.testing.slides import write_dicom, write_svs


@pytest.fixture(scope="module")
def archive(phantom: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good slide twice, one with a label, a DICOM folder, a text file, one cut off, one without mpp."""
    folder = tmp_path_factory.mktemp("archive")
    shutil.copy(phantom.path, folder / "good.tif")
    shutil.copy(phantom.path, folder / "twin.tif")
    rgb, _ = make_phantom(Spec(5, "LMS", 900, 700))
    write_svs(folder / "label.svs", rgb)
    write_dicom(folder / "dicom", rgb)
    (folder / "text.svs").write_text("note")
    (folder / "cut.tif").write_bytes(phantom.path.read_bytes()[:200_000])
    np.save(folder / "unknown.npy", np.full((600, 700, 3), 200, np.uint8))
    return folder


@pytest.fixture(scope="module")
def rows(archive: Path) -> dict[str, dict[str, Any]]:
    seen: list[dict[str, Any]] = []
    found = look_at_all(find_cases([archive]), seen.append, processes=2)
    assert {r["slide_id"] for r in seen} == {r["slide_id"] for r in found}
    return {r["slide_id"]: r for r in found}


def test_each_slide_is_told_as_a_run_would_find_it(rows: dict[str, dict[str, Any]], phantom: Any, archive: Path) -> None:
    good = rows["good"]
    assert (good["verdict"], good["reader"], good["mpp"], good["mpp_source"], good["stain"]) == ("ok", "native", [0.5, 0.5], "tiff resolution", "H&E")
    assert good["tissue_mm2"] == pytest.approx(phantom.truth.tissue_mm2, rel=0.1)
    assert good["size"] == [2560, 2048]
    assert unpacked(good["mask"]).sum() > 100
    assert "a text file" in rows["text"]["verdict"]
    assert "truncated" in rows["cut"]["verdict"]
    assert "--mpp-override" in rows["unknown"]["verdict"]
    assert [k for k, r in rows.items() if r["verdict"] == "ok"] == ["dicom", "good", "label", "twin"]
    assert {k: r["label"] for k, r in rows.items() if r["verdict"] == "ok"} == {"dicom": True, "good": False, "label": True, "twin": False}
    assert "dicom.PatientName" in rows["dicom"]["patient_data"]


def test_doubles_are_named_by_their_bytes(rows: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    assert {k: r["duplicate_of"] for k, r in rows.items() if r.get("duplicate_of")} == {"twin": "good"}
    for name, content in {"a.npy": 1, "b.npy": 2, "c.npy": 1}.items():
        np.save(tmp_path / name, np.full((64, 64, 3), content, np.uint8))
    same_size = [{"slide_id": p.stem, "path": str(p), "reader": "array", "verdict": "ok"} for p in sorted(tmp_path.glob("*.npy"))]
    mark_duplicates(same_size)
    assert [r.get("duplicate_of") for r in same_size] == [None, None, "a"]


def test_the_csv_is_what_score_takes(rows: dict[str, dict[str, Any]], archive: Path, tmp_path: Path) -> None:
    assert write_cases(tmp_path / "good.csv", list(rows.values())) == 3
    cases = find_cases([tmp_path / "good.csv"])
    assert [c.slide_id for c in cases] == ["dicom", "good", "label"]
    assert [Path(c.path).resolve() for c in cases] == [archive / n for n in ("dicom", "good.tif", "label.svs")]
    given = look_at_all(find_cases([archive / "unknown.npy"], 0.5))
    assert given[0]["verdict"] == "ok"
    write_cases(tmp_path / "mpp.csv", given)
    assert next(csv.DictReader((tmp_path / "mpp.csv").open()))["mpp"] == "0.5"


def test_tiles_are_counted_as_a_run_plans_them(scored: Run, phantom: Any) -> None:
    from wsikit.run.job import Job, choose_models
    from wsikit.run.prepare import load_plan
    from wsikit.store.durable import digest_of

    cards = Job(models=choose_models(["sts-subtype", "mitosis"], phantoms=True), slides=[]).cards()
    row = {"slide_id": "lms", "path": str(phantom.path)} | examine(str(phantom.path), None, "override")
    speed = Speed(per_tile=dict.fromkeys(cards, 0.5), per_mpx=0.0, per_slide=2.0, bytes_per_mm2=1e9, bytes_per_slide=5e8, workers=2)
    found = estimate([row, {"verdict": "broken"}, row | {"duplicate_of": "lms"}], speed, cards)
    store = scored.store("lms")
    stages = load_plan(str(store.path), digest_of(store.attributes)).stages
    assert found["tiles"] == {name: len(stages[name].cells) for name in cards}
    assert found["slides"] == 1
    assert found["seconds"] == pytest.approx(4.0 + 2.0 + 0.5 * sum(found["tiles"].values()), abs=0.1)
    assert found["gigabytes"] == pytest.approx(row["tissue_mm2"] + 0.5, abs=0.01)


def test_a_slide_too_large_to_look_at_is_told(made_large: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsikit.doctor.examine.MOST_PX", 1000)
    row = examine(str(made_large()), None, "override")
    assert (row["verdict"], row["stain"]) == ("ok", "not looked at")
    assert "tissue was not estimated" in row["note"]
    assert "mask" not in row


@pytest.fixture
def made_large(phantom: Any) -> Callable[[], Path]:
    return lambda: phantom.path


@pytest.mark.parametrize(
    ("name", "version", "bad"),
    [
        ("torch", "2.9.1+cu128", True),
        ("torch", "2.10.0", False),
        ("openslide-bin", "4.0.0.13", True),
        ("openslide-bin", "4.0.1.2", False),
        ("OpenSlide library", "3.4.1", True),
        ("pillow", "12.1.1", True),
        ("pillow", "13.0.0", False),
        ("tiatoolbox", "2.1.3", True),
        ("torch", "missing", False),
    ],
)
def test_versions_known_to_be_bad(name: str, version: str, bad: bool) -> None:
    assert (name in known_bad({name: version})) is bad


def test_this_installation_is_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = installation() | {"self-test": self_test()}
    assert facts["self-test"].startswith("passed in ")
    assert problems(facts) == []
    assert set(KNOWN_BAD) <= set(facts)
    monkeypatch.setattr("wsikit.doctor.installation._version", lambda name: "2.9.0" if name == "torch" else "999.0")
    old = installation()
    assert "BAD: CVE-2026-24747" in old["torch"]
    assert "install 2.10 or newer" in old["torch"]
    assert problems(old) == ["torch"]
    assert parts("") == ()


def test_a_self_test_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise wk.WsikitError("a.tif: no")

    monkeypatch.setattr("wsikit.run.tile", fail)
    assert self_test() == "failed: a.tif: no"
    assert problems({"self-test": "failed: a.tif: no"}) == ["self-test"]
