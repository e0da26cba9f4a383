"""Damage is named, repaired by scoring again, and never taken for what was written."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wsikit as wk
from wsikit.cli.main import main
from wsikit.errors import DamagedStoreError, StoreMismatchError, WeightsMismatchError
from wsikit.run import Progress
from wsikit.run.again import Finding, aggregate_run, repair_run, verify_run
from wsikit.run.job import read_run, update_run
from wsikit.store.receipts import read_receipts

Differences = Callable[[Path, Path], set[str]]

KINDS = [
    "run.json",
    "slides.csv",
    "slides/small.json",
    "slides/small.geojson",
    "slides/small.png",
    "slides/small.zarr/zarr.json",
    "slides/small.zarr/0/zarr.json",
    "slides/small.zarr/0/c/0/1/1",
    "slides/small.zarr/1/c/0/1/1",
    "slides/small.zarr/labels/zarr.json",
    "slides/small.zarr/labels/tissue/zarr.json",
    "slides/small.zarr/labels/tissue/0/zarr.json",
    "slides/small.zarr/labels/tissue/0/c/0/0",
    "slides/small.zarr/tables/zarr.json",
    "slides/small.zarr/tables/tiles/origin/c/0/0",
    "slides/small.zarr/tables/mitosis/zarr.json",
    "slides/small.zarr/tables/mitosis/score/zarr.json",
    "slides/small.zarr/tables/mitosis/position/c/0/0",
    "slides/small.zarr/tables/sts-subtype/feature/c/0/0",
    "slides/small.zarr/overlays/mitosis/0/c/0/0/0",
]


def flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 0x04
    path.write_bytes(data)


def harms(names: list[str]) -> list[Any]:
    """Each file flipped, and each removed; every other one of these is left to the slow tests."""
    both = [(name, harm) for name in names for harm in (flip, Path.unlink)]
    return [pytest.param(*p, id=f"{p[0]}-{p[1].__name__}", marks=[pytest.mark.slow] * (i % 4 in (1, 2))) for i, p in enumerate(both)]


def of_the_run(name: str) -> str:
    """How a finding calls a file: relative to the slides folder, except for files of the run."""
    return name.removeprefix("slides/")


def test_the_kinds_are_all_there_are(undisturbed: Path) -> None:
    files = {p.relative_to(undisturbed).as_posix() for p in undisturbed.rglob("*") if p.is_file()}
    assert set(KINDS) <= files
    beside = {f for f in files if ".zarr/" not in f}
    assert beside - set(KINDS) == {"slides/.lock", "slides/small.receipts.jsonl"}


def test_an_intact_run_has_no_findings(undisturbed: Path, undisturbed_lean: Path) -> None:
    assert list(verify_run(undisturbed)) == []
    assert list(verify_run(undisturbed_lean)) == []


def test_a_flipped_byte_in_any_file_is_named(undisturbed: Path, tmp_path: Path) -> None:
    """Every file of the run, one after the other, at its start, middle and end."""
    folder = Path(shutil.copytree(undisturbed, tmp_path / "run"))
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != ".lock" and "receipts" not in p.name)
    assert len(files) > 50
    for i, name in enumerate(files):
        good = (folder / name).read_bytes()
        flip(folder / name, (0.0, 0.5, 1.0)[i % 3])
        found = list(verify_run(folder))
        assert [(f.problem, f.file) for f in found] == [("damaged", of_the_run(name))]
        (folder / name).write_bytes(good)
    assert list(verify_run(folder)) == []


@pytest.mark.parametrize("name", KINDS)
def test_a_missing_file_is_named(run_copy: Path, name: str) -> None:
    (run_copy / name).unlink()
    if name == "run.json":
        with pytest.raises(StoreMismatchError, match=r"no readable run\.json"):
            list(verify_run(run_copy))
    else:
        assert [(f.problem, f.file) for f in verify_run(run_copy)] == [("missing", of_the_run(name))]


def test_a_flipped_byte_in_the_receipts_is_noticed(run_copy: Path) -> None:
    """In what names a file or its digest: other bits only decide whether work is done again."""
    path = run_copy / "slides/small.receipts.jsonl"
    good = path.read_bytes()
    for word in (b'"block": "layout"', b'"block": "slide"', b'"files"', b"small.zarr/0/c/0/1/1", b"small.json"):
        at = good.index(word) + len(word) // 2
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert list(verify_run(run_copy)), word
    path.write_bytes(good[: good.index(b'"block": "slide"')])
    assert {f.problem for f in verify_run(run_copy)} == {"unfinished"}
    path.unlink()
    assert list(verify_run(run_copy)) == [Finding("small", "unfinished", "small.zarr")]


def test_a_file_that_nobody_wrote_is_named(run_copy: Path) -> None:
    (run_copy / "slides/small.zarr/0/c/0/9").mkdir()
    (run_copy / "slides/small.zarr/0/c/0/9/9").write_bytes(b"who put this here")
    assert list(verify_run(run_copy)) == [Finding("small", "unknown", "small.zarr/0/c/0/9/9")]


def test_verify_as_a_command(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for damage, code, line in ((False, 0, "every stored byte is as it was written"), (True, 1, "damaged: small.zarr/1/c/0/1/1")):
        if damage:
            flip(run_copy / "slides/small.zarr/1/c/0/1/1")
        with pytest.raises(SystemExit) as left:
            main(["verify", str(run_copy)])
        assert left.value.code == code
        assert line in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(("name", "harm"), harms([n for n in KINDS if n != "run.json"]))
def test_scoring_again_repairs_it(score: Any, run_copy: Path, undisturbed: Path, differences: Differences, name: str, harm: Callable[[Path], None]) -> None:
    harm(run_copy / name)
    score(run_copy, keep_tiles=True)
    assert differences(run_copy, undisturbed) == {"run.json"}
    assert list(verify_run(run_copy)) == []


def test_only_the_damaged_is_done_again(score: Any, run_copy: Path) -> None:
    flip(run_copy / "slides/small.zarr/0/c/0/1/1")
    score(run_copy, keep_tiles=True)
    assert score.done[-1] == 1


def test_a_damaged_passport_is_not_believed(score: Any, run_copy: Path, undisturbed: Path, differences: Differences) -> None:
    """A digit of an mpp or of a digest in it would otherwise become a number of the next run."""
    text = (run_copy / "run.json").read_text()
    (run_copy / "run.json").write_text(text.replace('"block_px": 512', '"block_px": 513'))
    with pytest.raises(DamagedStoreError, match=r"run\.json: damaged, or not of wsikit; remove it and the CSV files beside it and score"):
        score(run_copy, keep_tiles=True)
    flip(run_copy / "slides/small.json")
    assert [(f.problem, f.file) for f in verify_run(run_copy)] == [("damaged", "run.json"), ("damaged", "small.json")]
    for name in ("run.json", "slides.csv"):
        (run_copy / name).unlink()
    score(run_copy, keep_tiles=True)
    assert score.done[-1] == 0
    assert differences(run_copy, undisturbed) == {"run.json"}


def test_a_slide_with_a_pipeline_still_to_do_is_left_out_of_aggregating(score: Any, run_copy: Path) -> None:
    """It is neither damaged nor finished: the run that adds a pipeline was stopped."""

    def stop(event: Progress) -> None:
        if event.kind == "block":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(run_copy, stop, pipelines=["rms-subtype"], keep_tiles=True)
    before = (run_copy / "slides/small.json").read_bytes()
    assert aggregate_run(run_copy) == 0
    assert (run_copy / "slides/small.json").read_bytes() == before
    score(run_copy, pipelines=["rms-subtype"], keep_tiles=True)
    assert aggregate_run(run_copy) == 1


RESULTS = ("slides/small.json", "slides/small.geojson", "slides/small.png", "slides.csv")


def test_aggregating_changes_nothing_that_was_right(run_copy: Path, undisturbed: Path, differences: Differences) -> None:
    assert aggregate_run(run_copy) == 1
    assert differences(run_copy, undisturbed) == set()


@pytest.mark.parametrize("name", RESULTS)
def test_aggregating_makes_results_again_from_columns(run_copy: Path, undisturbed: Path, differences: Differences, name: str) -> None:
    flip(run_copy / name)
    assert aggregate_run(run_copy) == 1
    assert differences(run_copy, undisturbed) == set()


@pytest.mark.parametrize(("name", "harm"), harms([n for n in KINDS if n not in RESULTS and n != "run.json"]))
def test_aggregating_never_receipts_damage_as_right(run_copy: Path, name: str, harm: Callable[[Path], None]) -> None:
    """A slide with a damaged file is refused, and the file stays damaged by its receipt."""
    harm(run_copy / name)
    before = (run_copy / "slides/small.json").read_bytes()
    with pytest.raises(DamagedStoreError, match="files are damaged or missing, and were not used, of small; score these slides again"):
        aggregate_run(run_copy)
    assert (run_copy / "slides/small.json").read_bytes() == before
    assert [f.file for f in verify_run(run_copy)] == [of_the_run(name)]


def test_one_damaged_slide_does_not_stop_the_others(slide: Path, tmp_path: Path) -> None:
    """Neither its result on the disk nor its columns: the other slide is resumed, aggregated and verified."""
    for name in ("a", "b"):
        shutil.copy(slide, tmp_path / f"{name}.tif")
    arguments: dict[str, Any] = {"pipelines": ["sts-subtype"], "block_px": 1024}
    inputs = [tmp_path / "a.tif", tmp_path / "b.tif"]
    folder = wk.score(inputs, tmp_path / "run", **arguments).folder
    (folder / "slides/a.json").write_text("{")
    assert wk.score([inputs[1]], folder, **arguments).failed == {}
    (folder / "slides/b.json").write_text("[]")
    assert [f.file for f in verify_run(folder)] == ["b.json"]
    flip(folder / "slides/a.zarr/tables/sts-subtype/probability/c/0/0")
    with pytest.raises(DamagedStoreError, match="of a; score"):
        aggregate_run(folder)
    assert json.loads((folder / "slides/b.json").read_text())["status"] == "ok"
    assert [f.file for f in verify_run(folder)] == ["a.zarr/tables/sts-subtype/probability/c/0/0"]


def test_litter_of_a_killed_process_is_swept(score: Any, run_copy: Path, undisturbed: Path, differences: Differences) -> None:
    flip(run_copy / "slides/small.zarr/0/c/0/1/1")
    litter = [".run.json.77.tmp", ".slides.csv.77.tmp", "slides/.small.json.77.tmp", "slides/small.zarr/0/c/0/1/1.abc.partial"]
    litter += ["slides/small.zarr/0/c/0/1/.1.77.tmp"]
    for name in litter:
        (run_copy / name).write_bytes(b"half")
    score(run_copy, keep_tiles=True)
    assert differences(run_copy, undisturbed) == {"run.json"}


def test_receipts_are_one_a_block_one_a_stage_and_two_for_the_slide(undisturbed: Path) -> None:
    blocks = [r.block for r in read_receipts(undisturbed / "slides/small.receipts.jsonl")]
    assert blocks == ["layout", *(f"r{r}c{c}" for r in range(2) for c in range(2)), "slide", "stage mitosis", "stage quality", "stage sts-subtype"]
    files = [f for r in read_receipts(undisturbed / "slides/small.receipts.jsonl") for f in r.files]
    assert len(files) == len(set(files)), "each file has one receipt"


def test_repair_mends_what_verify_found_and_nothing_else(undisturbed: Path, run_copy: Path, differences: Differences) -> None:
    flip(run_copy / "slides/small.zarr/0/c/0/1/1")
    (run_copy / "slides/small.zarr/tables/mitosis/score/zarr.json").unlink()
    (run_copy / "slides/small.geojson").unlink()
    assert len(list(verify_run(run_copy))) == 3
    blocks: list[Progress] = []
    assert repair_run(run_copy, on_progress=lambda e: blocks.append(e) if e.kind == "block" else None) == []
    assert differences(undisturbed, run_copy) == {"run.json"}  # its times
    assert blocks


def test_repair_refuses_a_model_that_changed(run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = read_run(run_copy)
    run["job"]["models"]["mitosis"]["digest"] = "0" * 64
    update_run(run_copy, job=run["job"])
    with pytest.raises(WeightsMismatchError, match="not the model that this run had for mitosis"):
        repair_run(run_copy)


@pytest.mark.slow
def test_two_hundred_flips_twenty_losses_and_twenty_swaps_are_all_found(undisturbed: Path, run_copy: Path) -> None:
    """Each by itself, at a random bit of a random file of the slide."""
    rng = random.Random(4)
    files = sorted(p for p in run_copy.rglob("*") if p.is_file() and p.stat().st_size and p.name != ".lock" and "receipts" not in p.name)
    chunks = [p for p in files if "c" in p.parts]
    for i in range(240):
        path = rng.choice(files if i < 200 else chunks)
        other = rng.choice([p for p in chunks if p.read_bytes() != path.read_bytes()])
        whole = path.read_bytes()
        if i < 200:
            bit = rng.randrange(8 * len(whole))
            path.write_bytes(whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :])
        elif i < 220:
            path.unlink()
        else:
            path.write_bytes(other.read_bytes())
        found = {f.file for f in verify_run(run_copy)}
        assert of_the_run(path.relative_to(run_copy).as_posix()) in found, f"{i}: {path}"
        path.write_bytes(whole)
    assert list(verify_run(run_copy)) == []
