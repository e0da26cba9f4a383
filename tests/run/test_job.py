"""What a run is, as ``run.json`` keeps it; and what becomes of it when a second run joins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsikit.errors import DamagedStoreError, StoreMismatchError, UsageError
from wsikit.models import pipelines
from wsikit.run.cases import Case, any_phantom
from wsikit.run.job import Job, ModelRef, Pixels, check_job, choose_models, load_job, merge_jobs, now, read_run, update_run, write_run

names = st.sampled_from(["a", "b", "A", "c"])


def job_of(paths: list[str], models: list[str] | None = None, **more: Any) -> Job:
    """A job whose slide ids are made as `find_cases` makes them."""
    cases: list[Case] = []
    for path in paths:
        wanted, n = Path(path).stem, 1
        slide_id = wanted
        while slide_id.lower() in {c.slide_id.lower() for c in cases}:
            n += 1
            slide_id = f"{wanted}-{n}"
        cases.append(Case(slide_id=slide_id, path=path))
    refs = {m: ModelRef(name=f"{m}-model", folder=f"/{m}", digest=m) for m in models or []}
    return Job(slides=cases, models=refs, **more)


@settings(max_examples=150, deadline=None)
@given(st.lists(names, max_size=5), st.lists(names, max_size=5))
def test_slides_of_two_runs(first: list[str], second: list[str]) -> None:
    """Ids stay with their slides and are unique on any file system; no slide is lost or done twice, however often it was given."""
    old, new = job_of([f"/one/{n}.svs" for n in first]), job_of([f"/one/{n}.svs" for n in second])
    merged = merge_jobs(old, new)
    ids = [c.slide_id for c in merged.slides]
    assert len({i.lower() for i in ids}) == len(ids)
    assert merged.slides[: len(old.slides)] == old.slides
    for path in {c.path for c in merged.slides}:
        counts = [sum(c.path == path for c in job.slides) for job in (old, new, merged)]
        assert counts[2] == max(counts[:2])
    assert merge_jobs(merged, new) == merged


def test_a_slide_of_the_same_name_elsewhere_is_another() -> None:
    merged = merge_jobs(job_of(["/one/a.svs"]), job_of(["/two/A.svs", "/one/a.svs"]))
    assert [(c.slide_id, c.path) for c in merged.slides] == [("a", "/one/a.svs"), ("A-2", "/two/A.svs")]


def test_what_a_csv_says_later_holds() -> None:
    new = job_of(["/a.svs"])
    new = new.model_copy(update={"slides": [new.slides[0].model_copy(update={"patient": "P", "mpp": 0.25})]})
    (case,) = merge_jobs(job_of(["/a.svs"]), new).slides
    assert (case.slide_id, case.patient, case.mpp) == ("a", "P", 0.25)


@given(st.lists(st.sampled_from(pipelines()), unique=True), st.lists(st.sampled_from(pipelines()), unique=True))
def test_models_are_added_in_one_order(first: list[str], second: list[str]) -> None:
    merged = merge_jobs(job_of([], first), job_of([], second))
    assert list(merged.models) == [p for p in pipelines() if p in {*first, *second}]


def test_kept_pixels_stay_kept_and_other_parameters_are_the_new_ones() -> None:
    old, new = job_of([], pixels=Pixels(tile_px=128), block_px=512), job_of([], stain="none", block_px=1024)
    merged = merge_jobs(old, new)
    assert (merged.pixels, merged.stain, merged.block_px) == (Pixels(tile_px=128), "none", 1024)
    assert merge_jobs(old, job_of([], pixels=Pixels(tile_px=256))).pixels == Pixels(tile_px=256)


def test_a_key_tells_jobs_apart() -> None:
    base = job_of(["/a.svs"], ["mitosis"])
    changes: list[dict[str, Any]] = [{"stain": "none"}, {"upsample": True}, {"block_px": 512}]
    others = [job_of(["/b.svs"], ["mitosis"]), job_of(["/a.svs"]), *(job_of(["/a.svs"], ["mitosis"], **c) for c in changes)]
    assert len({j.key for j in [base, *others]}) == 6
    assert Job.model_validate(json.loads(base.model_dump_json())).key == base.key


def test_a_passport_round_trips(tmp_path: Path) -> None:
    job = job_of(["/µ m.svs"], ["mitosis"], pixels=Pixels(mpp=0.1 + 0.2))
    write_run(tmp_path, job, started=now(), note=[1, 0.1, None])
    value = read_run(tmp_path)
    assert Job.model_validate(value["job"]) == job
    assert value["note"] == [1, 0.1, None]
    assert {"wsikit", "software", "machine", "seeds", "command", "statement"} <= value.keys()
    update_run(tmp_path, note="x")
    again = read_run(tmp_path)
    assert again["note"] == "x"
    assert {k for k in value if value[k] != again[k]} == {"note", "digest"}


def test_any_changed_character_of_a_passport_is_noticed(tmp_path: Path) -> None:
    """Whatever does not change the JSON's meaning may pass: nothing here is white space."""
    write_run(tmp_path, job_of(["/a.svs"], ["mitosis"]))
    text = (tmp_path / "run.json").read_text()
    for at in [i for i, c in enumerate(text) if not c.isspace()][::17]:
        (tmp_path / "run.json").write_text(text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :])
        with pytest.raises(DamagedStoreError, match=r"run\.json: damaged, or not of wsikit"):
            read_run(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"job": {}}', "\xff"])
def test_what_is_no_passport(tmp_path: Path, text: str) -> None:
    with pytest.raises(StoreMismatchError, match=r"no readable run\.json"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DamagedStoreError, match=r"run\.json: damaged, or not of wsikit"):
        read_run(tmp_path)


def test_a_worker_refuses_another_runs_job(tmp_path: Path) -> None:
    mine, other = job_of(["/a.svs"]), job_of(["/b.svs"])
    write_run(tmp_path, mine)
    assert load_job(str(tmp_path), mine.key) == mine
    write_run(tmp_path, other)
    assert load_job(str(tmp_path), other.key) == other
    with pytest.raises(StoreMismatchError, match="was changed by another run while this one is going on"):
        load_job(str(tmp_path), job_of(["/c.svs"]).key)


def test_models_by_default_and_by_name() -> None:
    assert list(choose_models(None)) == [p for p in pipelines() if p not in ("tissue-type", "tumour")], "which have no model of their own"
    assert list(choose_models(["survival", "mitosis", "mitosis"])) == ["mitosis", "survival"]
    assert list(choose_models(None, {"rms-subtype": "phantom-rms-subtype"})) == ["rms-subtype"]
    chosen = choose_models(["mitosis"])["mitosis"]
    assert chosen.name == "mitosis", "of real tissue"
    assert choose_models(["mitosis"], phantoms=True)["mitosis"].name == "phantom-mitosis"
    assert Path(chosen.folder).is_absolute()


@pytest.mark.parametrize(
    ("names", "models", "message"),
    [
        (["melanoma"], None, "no pipeline is called 'melanoma'; there are: mitosis,"),
        (None, {"melanoma": "x"}, "no pipeline is called 'melanoma'"),
        (["mitosis"], {"mitosis": "phantom-sts-subtype"}, "model phantom-sts-subtype is for pipeline 'sts-subtype', not 'mitosis'"),
    ],
)
def test_models_that_cannot_be(names: list[str] | None, models: dict[str, str | Path] | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose_models(names, models)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"block_px": 255}, "blocks have 256 to 16384 px"),
        ({"block_px": 16385}, "blocks have 256 to 16384 px"),
        ({"pixels": Pixels(tile_px=15)}, "tiles have 16 to 4096 px"),
        ({"pixels": Pixels(tile_px=256, overlap_px=256)}, "an even overlap smaller than that"),
        ({"pixels": Pixels(tile_px=256, overlap_px=3)}, "an even overlap"),
        ({"pixels": Pixels(mpp=0.04)}, r"--mpp 0\.04: µm/px of the stored pixels must be 0\.05 to 20"),
        ({"pixels": Pixels(codec="lzma")}, "codec 'lzma' is not known"),
        ({"stain": "magenta"}, "magenta"),
        ({"device": "cuda:77"}, "device 'cuda:77' cannot be used here"),
    ],
)
def test_parameters_that_cannot_be(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_job(job_of([], **parameters))


def test_runs_of_phantoms_are_told_from_their_first_bytes(phantom: Any, scored: Any, tmp_path: Path) -> None:
    real = tmp_path / "real.tif"
    real.write_bytes(b"II*\0 not a phantom")
    cases = [Case(slide_id=str(n), path=str(p)) for n, p in enumerate([real, tmp_path / "missing.tif", tmp_path])]
    assert not any_phantom(cases)
    assert not any_phantom([])
    for path in (phantom.path, scored.store("lms").path):
        assert any_phantom([*cases, Case(slide_id="p", path=str(path))])
