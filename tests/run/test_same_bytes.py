"""The same slides and models give the same bytes, whoever does the work and however it is cut."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wsikit as wk
from wsikit.models import find_model

Differences = Callable[[Path, Path], set[str]]
OF_THE_OCCASION = {"started", "finished", "command", "workers", "worker_seconds", "slides_before", "digest"}

WATCH_WEIGHTS = """
import os, sys
log = os.open({log!r}, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
def watch(event, args):
    if event == "open" and str(args[0]).endswith("model.safetensors"):
        os.write(log, f"{{os.getpid()}} {{args[0]}}\\n".encode())
sys.addaudithook(watch)
"""


def passport(folder: Path) -> dict[str, Any]:
    return {k: v for k, v in json.loads((folder / "run.json").read_text()).items() if k not in OF_THE_OCCASION}


@pytest.fixture
def weights_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in which each worker process notes every weights file that it opens."""
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch/sitecustomize.py").write_text(WATCH_WEIGHTS.format(log=str(tmp_path / "weights.log")))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "watch"), prepend=os.pathsep)
    return tmp_path / "weights.log"


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_workers_make_the_bytes_that_one_process_makes(
    score: Any, undisturbed: Path, differences: Differences, weights_log: Path, tmp_path: Path, workers: int
) -> None:
    run = score(tmp_path / "run", keep_tiles=True, workers=workers)
    assert differences(run.folder, undisturbed) == {"run.json"}
    assert passport(run.folder) == passport(undisturbed)
    assert json.loads((run.folder / "run.json").read_text())["workers"] == workers
    loads = Counter(weights_log.read_text().splitlines())
    processes = {int(line.split()[0]) for line in loads}
    assert set(loads.values()) == {1}, "each worker loads each model once"
    assert 1 <= len(processes) <= workers
    assert os.getpid() not in processes
    assert len(loads) >= 2


def test_twice_in_one_process(score: Any, undisturbed: Path, differences: Differences, tmp_path: Path) -> None:
    assert differences(score(tmp_path / "run", keep_tiles=True).folder, undisturbed) == {"run.json"}


@pytest.mark.parametrize("block_px", [256, 700, 4096])
def test_results_do_not_depend_on_the_blocks(score: Any, undisturbed_lean: Path, differences: Differences, tmp_path: Path, block_px: int) -> None:
    """Only what says how the slide was cut may differ: the attributes, and so their receipt."""
    run = score(tmp_path / "run", block_px=block_px)
    assert (score.done[-1] > 4, score.done[-1] == 1) == (block_px < 512, block_px == 4096)
    assert differences(run.folder, undisturbed_lean) == {"run.json", "slides/small.zarr/zarr.json", "slides/small.receipts.jsonl"}
    ours, theirs = (wk.open_store(f / "slides/small.zarr").attributes for f in (run.folder, undisturbed_lean))
    assert ours.pop("block_px") == block_px
    assert theirs.pop("block_px") == 512
    assert ours == theirs


@pytest.mark.parametrize(("block_px", "shard"), [(256, 256), (900, 1024)])
def test_kept_pixels_do_not_depend_on_the_blocks(score: Any, undisturbed: Path, tmp_path: Path, block_px: int, shard: int) -> None:
    store = score(tmp_path / "run", block_px=block_px, keep_tiles=True).store("small")
    other = wk.open_store(undisturbed / "slides/small.zarr")
    assert store.image().shards == (3, shard, shard)
    assert other.image().shards == (3, 512, 512)
    for (a, place_a), (b, place_b) in zip(store.levels(), other.levels(), strict=True):
        assert place_a == place_b
        assert np.array_equal(np.asarray(a), np.asarray(b))
    assert store.result["pipelines"] == other.result["pipelines"]


@pytest.mark.parametrize("pipeline", ["mitosis", "sts-subtype"])
def test_columns_do_not_depend_on_the_other_models(score: Any, undisturbed_lean: Path, differences: Differences, tmp_path: Path, pipeline: str) -> None:
    run = score(tmp_path / "run", pipelines=[pipeline])
    for part in ("tables", "overlays"):
        assert not differences(run.folder / f"slides/small.zarr/{part}/{pipeline}", undisturbed_lean / f"slides/small.zarr/{part}/{pipeline}")


STEPS = [
    [["sts-subtype"], ["mitosis"]],
    [["mitosis"], ["sts-subtype"]],
    [["sts-subtype"], ["survival"], ["rms-subtype", "mitosis"]],
    [["survival"], ["mitosis"], ["sts-subtype"]],
]


@pytest.mark.parametrize("steps", STEPS, ids=lambda s: " then ".join("+".join(step) for step in s))
def test_pipelines_added_later_give_what_they_give_at_once(score: Any, differences: Differences, tmp_path: Path, steps: list[list[str]]) -> None:
    for step in steps:
        score(tmp_path / "steps", pipelines=step)
    score(tmp_path / "once", pipelines=[name for step in steps for name in step])
    assert differences(tmp_path / "steps", tmp_path / "once") == {"run.json"}
    assert passport(tmp_path / "steps") == passport(tmp_path / "once")


def test_a_pipeline_added_later_redoes_no_other(score: Any, tmp_path: Path) -> None:
    """The first one's columns are not touched: same files, same times."""
    score(tmp_path / "run", pipelines=["sts-subtype"])
    columns = {p: p.stat().st_mtime_ns for p in (tmp_path / "run/slides/small.zarr/tables/sts-subtype").rglob("*") if p.is_file()}
    run = score(tmp_path / "run", pipelines=["mitosis"])
    assert sorted(run.results["small"]["pipelines"]) == ["mitosis", "sts-subtype"]
    assert {p: p.stat().st_mtime_ns for p in columns} == columns


def test_another_model_for_a_pipeline_replaces_its_columns_only(score: Any, undisturbed_lean: Path, differences: Differences, tmp_path: Path) -> None:
    """A model that differs in one threshold of its card is another model."""
    other = tmp_path / "model"
    shutil.copytree(find_model("phantom-mitosis"), other)
    card = json.loads((other / "card.json").read_text())
    card["detection"]["threshold"] = 0.999999
    (other / "card.json").write_text(json.dumps(card))
    shutil.copytree(undisturbed_lean, tmp_path / "run")
    run = score(tmp_path / "run", models={"mitosis": other})
    assert score.planned[-1] > 0
    assert run.results["small"]["pipelines"]["mitosis"]["threshold"] == pytest.approx(0.999999)
    assert not differences(run.folder / "slides/small.zarr/tables/sts-subtype", undisturbed_lean / "slides/small.zarr/tables/sts-subtype")
    score(tmp_path / "run", models={"mitosis": find_model("phantom-mitosis")})
    assert differences(run.folder, undisturbed_lean) == {"run.json"}
