"""What people do with a finished run: aggregate, export, report, verify; and info, doctor and bench on a slide."""

from __future__ import annotations

import csv
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

import wsikit as wk
from wsikit.run import Run
from wsikit.run.cases import find_cases


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.csv")) + sorted(folder.glob("slides/*.*son")) + sorted(folder.glob("slides/*.png"))}


def test_aggregate_gives_the_runs_own_results_without_the_slide(cli: Any, run_copy: Path) -> None:
    passport = json.loads((run_copy / "run.json").read_text())
    before = bytes_of(run_copy)
    assert {"slides.csv", "lms.json", "lms.geojson", "lms.png"} <= before.keys()
    for name in ("slides.csv", "slides/lms.geojson", "slides/lms.png"):
        (run_copy / name).unlink()
    answer = cli("aggregate", run_copy)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == f"1 slides aggregated again; results in {run_copy / 'slides.csv'}\n"
    assert bytes_of(run_copy) == before
    assert json.loads((run_copy / "run.json").read_text())["job"] == passport["job"]
    assert cli("verify", run_copy).code == 0


def test_aggregate_really_reads_the_columns(cli: Any, run_copy: Path) -> None:
    shutil.rmtree(run_copy / "slides/lms.zarr/tables/sts-subtype/probability")
    answer = cli("aggregate", run_copy)
    assert answer.code == 2
    assert "lms" in answer.error


def test_verify_names_what_is_damaged_missing_or_strange(cli: Any, run_copy: Path) -> None:
    assert cli("verify", run_copy).out == "every stored byte is as it was written\n"
    assert cli("verify", run_copy, "--json").json == []
    shards = sorted(p for p in (run_copy / "slides/lms.zarr/0").rglob("*") if p.is_file() and p.name != "zarr.json")
    data = bytearray(shards[0].read_bytes())
    data[len(data) // 2] ^= 1
    shards[0].write_bytes(data)
    (run_copy / "slides/lms.geojson").unlink()
    (run_copy / "slides/lms.zarr/stray.txt").write_text("?")
    answer = cli("verify", run_copy, "--json")
    assert answer.code == 1
    found = {f["problem"]: f["file"] for f in answer.json}
    assert found == {"damaged": shards[0].relative_to(run_copy / "slides").as_posix(), "missing": "lms.geojson", "unknown": "lms.zarr/stray.txt"}
    plain = cli("verify", run_copy)
    assert plain.code == 1
    assert sorted(plain.out.splitlines()[:-1]) == sorted(f"{k}: {v}" for k, v in found.items())


def test_export_geojson_is_the_runs_own(cli: Any, scored: Run, tmp_path: Path) -> None:
    answer = cli("export", scored.folder, "--to", "geojson", "-o", tmp_path)
    assert (answer.code, answer.out) == (0, f"1 files in {tmp_path}\n")
    assert (tmp_path / "lms.geojson").read_bytes() == (scored.folder / "slides/lms.geojson").read_bytes()


def test_export_csv_holds_every_column_of_the_store(cli: Any, scored: Run, tmp_path: Path) -> None:
    answer = cli("export", scored.folder, "--to", "csv", "-o", tmp_path)
    tables = scored.store("lms").tables()
    assert (answer.code, answer.out) == (0, f"{len(tables)} files in {tmp_path}\n")
    for name in tables:
        with (tmp_path / f"lms.{name}.csv").open(newline="") as f:
            assert len(list(csv.reader(f))) == len(tables[name]["origin" if "origin" in tables[name] else "position"]) + 1
    calls = pd.read_csv(tmp_path / "lms.sts-subtype.csv")
    probability = calls[[c for c in calls if c.split(".")[-1].split("_")[-1] in ("DDLPS", "LMS", "MFS", "SS", "UPS")]].to_numpy()
    np.testing.assert_allclose(probability, tables["sts-subtype"]["probability"], rtol=1e-6)


def test_export_hdf5_is_what_clam_reads(cli: Any, scored: Run, tmp_path: Path) -> None:
    assert cli("export", scored.folder, "--to", "hdf5", "-o", tmp_path).code == 0
    table = scored.store("lms").tables()["sts-subtype"]
    with h5py.File(tmp_path / "lms.sts-subtype.h5") as h5:
        np.testing.assert_array_equal(h5["coords"], table["origin"])
        np.testing.assert_array_equal(h5["features"], table["feature"].astype(np.float32))
        assert (h5["coords"].attrs["level0_width"], h5["coords"].attrs["level0_height"]) == (2560, 2048)


def test_export_parquet(cli: Any, scored: Run, tmp_path: Path) -> None:
    assert cli("export", scored.folder, "--to", "parquet", "-o", tmp_path).code == 0
    assert (tmp_path / "lms.mitosis.parquet").read_bytes()[:4] == b"PAR1"


def test_export_goes_below_the_run_unless_told(cli: Any, run_copy: Path) -> None:
    assert cli("export", run_copy, "--to", "geojson").out == f"1 files in {run_copy / 'export'}\n"
    assert cli("verify", run_copy).code == 0


class Links(HTMLParser):
    """What a page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [str(v) for k, v in attributes if k in ("src", "href")]


def test_report_is_pages_that_need_nothing_else(cli: Any, run_copy: Path) -> None:
    answer = cli("report", run_copy)
    assert (answer.code, answer.out) == (0, f"{run_copy / 'reports/index.html'}\n")
    for name in ("index.html", "lms.html"):
        page = run_copy / "reports" / name
        text = page.read_text()
        assert wk.RESEARCH_USE_ONLY in text
        for link in Links(text).found:
            assert link.startswith(("data:", "#")) or (page.parent / link).is_file(), link
    assert "LMS" in (run_copy / "reports/lms.html").read_text()
    assert cli("verify", run_copy).code == 0


def test_info_as_text_and_json_say_the_same(cli: Any, phantom: Any) -> None:
    facts = cli("info", phantom.path, "--json").json
    assert (facts["size"], facts["mpp"], facts["mpp_source"], facts["phantom"]) == ([2560, 2048], [0.5, 0.5], "tiff resolution", True)
    assert facts["levels"][0] == facts["size"]
    np.testing.assert_allclose([facts["size"][0] / w for w, _ in facts["levels"]], facts["downsamples"])
    shown = dict(line.split(maxsplit=1) for line in cli("info", phantom.path).out.splitlines())
    assert (shown["reader"], shown["size"], shown["mpp"]) == (facts["reader"], "2560 × 2048 px", "0.5 × 0.5 µm/px, from tiff resolution")
    assert list(shown) == ["path", "reader", "vendor", "size", "levels", "mpp", "objective", "icc", "associated", "phantom"]


def test_info_says_why_there_is_no_mpp(cli: Any, junk: Path) -> None:
    answer = cli("info", junk / "unknown.npy")
    assert answer.code == 0
    assert "unknown: the file states no resolution (mpp); pass --mpp-override" in answer.out
    facts = cli("info", junk / "unknown.npy", "--json").json
    assert facts["mpp"] is None
    assert facts["mpp_refusal"]


def test_doctor_looks_at_an_archive(cli: Any, small: Path, junk: Path, tmp_path: Path) -> None:
    found = cli("doctor", small, junk, "--json", "--csv", tmp_path / "good.csv", "--pipeline", "sts-subtype").json
    rows = {r["slide_id"]: r for r in found["slides"]}
    assert (rows["small"]["verdict"], rows["small"]["mpp"], rows["small"]["size"]) == ("ok", [0.5, 0.5], [1024, 768])
    assert "truncated" in rows["cut"]["verdict"]
    assert "a text file" in rows["text"]["verdict"]
    assert "--mpp-override" in rows["unknown"]["verdict"]
    expected = found["expected"]
    assert expected["slides"] == 1
    assert expected["tiles"]["sts-subtype"] == 4
    assert expected["seconds"] > 0
    assert expected["gigabytes"] > 0
    assert "phantom" in expected["how"]
    assert [c.slide_id for c in find_cases([tmp_path / "good.csv"])] == ["small"]
    plain = cli("doctor", small, junk, "--no-estimate")
    assert plain.code == 1
    head, *lines = plain.out.splitlines()
    assert head.split()[:4] == ["slide_id", "reader", "mpp", "mpp_source"]
    assert "1 of 4 slides can be scored" in lines[-1]
    for line in lines[:4]:
        row = rows[line.split()[0]]
        assert line.endswith(row["verdict"].removeprefix(f"{row['path']}: "))
    assert cli("doctor", small, "--no-estimate").code == 0


def test_doctor_knows_the_installation(cli: Any) -> None:
    from importlib.metadata import version

    facts = cli("doctor", "--json").json
    for name in ("wsikit", "torch", "zarr", "distributed", "openslide-python"):
        assert facts[name] == version(name)
    assert "phantom-mitosis" in facts["models"].split(", ")
    assert {"openslide", "tiff", "image", "array"} <= set(facts["readers"].split(", "))
    assert re.fullmatch(r"\d+\.\d+\.\d+", facts["OpenSlide library"])
    shown = cli("doctor")
    assert shown.code == 0
    assert {line.split("  ")[0] for line in shown.out.splitlines()} == set(facts)


@pytest.mark.parametrize("model", ["phantom-mitosis", "sts-subtype"])
def test_bench_names_the_slowest_stage(cli: Any, small: Path, model: str) -> None:
    facts = cli("bench", small, "--model", model, "--json").json
    rates = facts["mpx_per_s"]
    alone = {k: v for k, v in rates.items() if k in ("read and resample", "stain") or k.startswith(("encode ", "infer "))}
    assert len(alone) == 4
    assert min(rates.values()) > 0
    assert facts["bottleneck"] == min(alone, key=lambda k: alone[k])
    assert facts["one_after_another"] == pytest.approx(1 / sum(1 / v for v in alone.values()), rel=0.02)
    assert (facts["slide"], facts["square_px"], facts["mpp"]) == ("small.tif", 768, 0.5)
