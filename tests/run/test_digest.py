"""A slide's digest is recorded, and one that was promised is looked at before any work."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import wsikit as wk


def test_a_promised_digest_holds_or_the_slide_is_not_touched(slide: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(slide.read_bytes()).hexdigest()
    changed = bytearray(slide.read_bytes())
    changed[len(changed) // 2] ^= 1
    (tmp_path / "changed.tif").write_bytes(changed)
    (tmp_path / "good.tif").write_bytes(slide.read_bytes())
    (tmp_path / "cases.csv").write_text(f"path,expect_sha256\ngood.tif,{digest}\nchanged.tif,{digest}\n")
    run = wk.score([tmp_path / "cases.csv"], tmp_path / "run", ["sts-subtype"])
    assert set(run.failed) == {"changed"}
    assert f"and not {digest} as expected" in run.failed["changed"]
    assert not list((tmp_path / "run/slides").glob("changed.zarr*")), "nothing was begun"
    rows = list(csv.DictReader((tmp_path / "run/slides.csv").open()))
    assert [row["sha256"] for row in rows] == [digest, ""]
    assert json.loads((tmp_path / "run/run.json").read_text())["slide_digests"] == {"good": digest}
    again = wk.score([tmp_path / "good.tif"], tmp_path / "second", ["sts-subtype"], expect_sha256=digest[::-1])
    assert "as expected" in again.failed["good"]
