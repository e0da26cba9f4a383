"""A run's copies in an object store (a real S3 server on this machine), and slides that are read from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import wsikit as wk
from wsikit import gate
from wsikit.errors import OutputError, UsageError
from wsikit.sandbox import Sandbox

s3fs = pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")
OPTIONS: dict[str, Any] = {"pipelines": ["sts-subtype"], "block_px": 512}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().makedirs("bucket", exist_ok=True)
    yield "s3://bucket"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_what_is_there_is_what_is_here(bucket: str, slide: Path, differences: Callable[[Path, Path], set[str]], tmp_path: Path) -> None:
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"no slide")
    run = wk.score([slide, broken], tmp_path / "run", copy_to=f"{bucket}/a/run", **OPTIONS)
    fs = s3fs.S3FileSystem()
    fs.get("bucket/a/run/", f"{tmp_path / 'copy'}/", recursive=True)
    (tmp_path / "copy/.wsikit").unlink()
    assert differences(tmp_path / "copy", run.folder) <= {"slides/.lock"}
    assert set(run.failed) == {"broken"}
    fs.rm("bucket/a/run/slides/small.png")
    wk.score([slide, broken], run.folder, copy_to=f"{bucket}/a/run", **OPTIONS)
    assert not fs.exists("bucket/a/run/slides/small.png"), "a slide whose receipts are there is not copied again"
    fs.rm("bucket/a/run/slides/small.receipts.jsonl")
    wk.score([slide, broken], run.folder, copy_to=f"{bucket}/a/run", **OPTIONS)
    assert fs.exists("bucket/a/run/slides/small.png")


def test_a_place_that_cannot_be_is_said_before_any_work(bucket: str, slide: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"s3://nowhere/run: cannot be written \(.*; everything is in"):
        wk.score([slide], tmp_path / "run", copy_to="s3://nowhere/run", **OPTIONS)
    with pytest.raises(UsageError, match="copies go to an address such as s3://bucket/run; a folder on this machine is given with -o"):
        wk.score([slide], tmp_path / "run", copy_to=str(tmp_path / "other"), **OPTIONS)
    assert not list(tmp_path.glob("run/slides/*.zarr"))


def test_a_slide_in_a_bucket_is_scored_from_there(bucket: str, slide: Path, undisturbed_lean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s3fs.S3FileSystem().put(str(slide), "bucket/slides/small.tif")
    with Sandbox("wsikit.gate:inspect") as sandbox:  # one that was started with the server's address
        monkeypatch.setattr(gate, "_sandbox", lambda: sandbox)
        run = wk.score([f"{bucket}/slides/small.tif"], tmp_path / "run", **OPTIONS)
        assert not run.failed
    here = wk.open_store(undisturbed_lean / "slides/small.zarr").result["pipelines"]["sts-subtype"]
    assert run.results["small"]["pipelines"]["sts-subtype"]["call"] == here["call"]
