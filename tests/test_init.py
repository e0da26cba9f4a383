"""The public names: few, documented, quick to import, and their examples do what they show."""

from __future__ import annotations

import doctest
import inspect
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wsikit as wk
from wsikit import errors, models

ROOT = Path(__file__).parent.parent
NAMES = ["Region", "Slide", "WsikitError", "load_model", "open_slide", "open_store", "score", "tile"]
FUNCTIONS = ["load_model", "open_slide", "open_store", "score", "tile"]

# What scripts out there call: a name that goes, a default that changes or an argument that must be given breaks them. New ones may come at the end.
SIGNATURES = {
    "load_model": "ref, device='cpu', engine='torch'",
    "open_slide": "path, *, mpp=None, mpp_source='override', reader=None, focal_plane=None, icc='keep', trusted=False",
    "open_store": "path",
    "score": "inputs, out, pipelines=None, *, models=None, keep_tiles=False, workers=0, scheduler=None, on_progress=…, **options",
    "tile": "slide, out, *, mpp=0.5, tile_px=256, overlap_px=0, stain='macenko', codec='zstd:1', workers=0, **options",
    "Slide.read": "self, region, mpp=None",
    "Slide.thumbnail": "self, max_px=1024",
    "plot.hotspot": "store, pipeline='mitosis', ax=None, *, slide=None, margin=0.1",
}
SLIDE = {
    "bounds",
    "close",
    "digest",
    "facts",
    "icc",
    "levels",
    "mpp",
    "mpp_source",
    "path",
    "properties",
    "read",
    "read_level",
    "reader",
    "size",
    "thumbnail",
    "warnings",
}
STORE = {"image", "mpp", "overlay", "overlays", "path", "result", "tables"}


def signature(function: Any) -> str:
    """Names, kinds and defaults; a default that is a function has no name."""
    bare = [p.replace(annotation=p.empty) for p in inspect.signature(function).parameters.values()]
    return re.sub(r"<function.*?>(?=[,)])", "…", str(inspect.Signature(bare)))[1:-1]


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_these(name: str) -> None:
    function: Any = wk
    for part in name.split("."):
        function = getattr(function, part)
    assert signature(function) == SIGNATURES[name]


def test_slides_and_stores_have_these(scored: Any, phantom: Any) -> None:
    slide, store = wk.open_slide(phantom.path), scored.store("lms")
    assert [name for name in SLIDE if not hasattr(slide, name)] == []
    assert [name for name in STORE if not hasattr(store, name)] == []
    assert isinstance(scored.results["lms"], dict)
    assert scored.folder.is_dir()
    assert scored.failed == {}


def test_the_names_are_these() -> None:
    assert sorted(wk.__all__) == sorted([*NAMES, "RESEARCH_USE_ONLY", "__version__", "plot"])
    assert dir(wk) == wk.__all__
    assert len(wk.__all__) <= 20
    assert wk.__version__ == version("wsikit")
    assert wk.RESEARCH_USE_ONLY.startswith("Research use only. Not a medical device")
    for name in NAMES:
        assert getattr(wk, name).__name__ == name
        assert name in (wk.__doc__ or "")


def test_pages_notebooks_and_pipelines_need_public_names_only() -> None:
    shown = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("pipelines/*.py")]
    assert len(shown) > 30
    assert [(p.name, name) for p in shown for name in re.findall(r"\bwsikit(?:\.\w+)*\._[a-z]\w*|from wsikit[\w.]* import _\w+", p.read_text())] == []


def test_a_model_in_one_file_needs_the_names_of_one_package() -> None:
    assert {"Card", "Classifier", "Detections", "Network", "grad_cam", "load_weights", "write_model"} <= set(models.__all__)
    for name in models.__all__:
        assert getattr(models, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nosuch'"):
        models.nosuch  # noqa: B018


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        wk.nosuch  # noqa: B018
    with pytest.raises(ImportError):
        from wsikit import nosuch  # type: ignore[attr-defined]  # noqa: F401


def test_names_import_only_when_used() -> None:
    loaded = "[m for m in sys.modules if m.startswith(('wsikit.', 'torch', 'numpy'))]"
    program = f"import sys, wsikit as wk\nprint({loaded})\nfor name in wk.__all__: getattr(wk, name)\nprint('wsikit.run' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\nTrue\n", "")


@pytest.mark.parametrize("name", NAMES)
def test_each_name_says_what_it_does_with_an_example(name: str) -> None:
    text = getattr(wk, name).__doc__
    assert ">>>" in text
    assert re.match(r"[A-Z].*[.?]\n", text)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_names_the_errors_it_raises(name: str) -> None:
    section = getattr(wk, name).__doc__.split("Raises\n")[1].split("\n\n")[0]
    named = re.findall(r"\w+Error", section)
    assert named
    for error in named:
        assert issubclass(getattr(errors, error), wk.WsikitError)


def examples(name: str) -> doctest.DocTest:
    """The examples of a public name, those marked as skipped too."""
    found = doctest.DocTestFinder(recurse=False).find(getattr(wk, name), name, globs={"wk": wk, "np": np, **{n: getattr(wk, n) for n in NAMES}})
    (test,) = found
    for example in test.examples:
        example.options = {}
        example.source = example.source.replace("# doctest: +SKIP", "")
    return test


def test_the_examples_of_the_docstrings_run(phantom: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(phantom.path, tmp_path / "a.svs")
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for name in ["open_slide", "Slide", "load_model", "score", "open_store", "tile"]:
        report: list[str] = []
        assert runner.run(examples(name), out=report.append, clear_globs=False).failed == 0, "".join(report)
    assert runner.summarize(verbose=False).attempted >= 12
    assert wk.open_store("out/slides/a.zarr").result["pipelines"]["sts-subtype"]["call"] == "LMS"


def test_workers_without_networks_load_no_torch() -> None:
    """It takes half a gigabyte of each, and the memory that is shared out counts on that."""
    heavy = "[m for m in ('torch', 'pandas', 'openvino', 'matplotlib') if m in sys.modules]"
    program = f"import sys, wsikit.run.block, wsikit.run.finish, wsikit.run.prepare\nprint({heavy})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
