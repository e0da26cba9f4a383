"""The notebooks run from top to bottom, in a kernel of their own."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
SLOW = {"cluster": "worker processes", "extend": "tests/test_contributing.py runs much the same"}
ON_SCREEN = {"review"}
SAYS = {
    "review": [
        "accepted LMS by AB - spindle cells",
        "taken in: {'a': 4}\nagain: {}",
        "kept at [1024.5, 768.25] | 4 changes from QuPath",
        "the model's own answer is as it was: True | reviewed by AB CD",
    ],
    "subtype": ["no patient in both", "balanced accuracy of patients held out: 1.000", "the call is right: True"],
    "which_model_can_be_trusted": ["no patient in both", "from 18 patients: temperature", "stated 90%", "it is immunohistochemistry (DAB)"],
    "cluster": ["the same files: True; the same bytes: True", "up to 16 workers"],
    "extend": ["same pixels: True", "all checks hold", "trusted: True", "ok | call: "],
    "first_look": ["call: LMS", "recall 1.000"],
    "results_as_tables": ["3 slides, failed: {}", "Research use only"],
    "tile_and_normalise": ["stain fit: macenko, trusted: True", "vahadane: trusted True"],
    "mitosis": ["F1 1.000", "signed-off count: 39 of 39"],
    "survival": [
        "the interval holds the truth for 4 of 4",
        "clinic and elsewhere is better",
        "no better than chance",
        "no difference that these patients could show",
    ],
}


@pytest.mark.parametrize("path", [pytest.param(p, marks=[pytest.mark.slow] if p.stem in SLOW else [], id=p.stem) for p in NOTEBOOKS])
def test_runs(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if path.stem in ON_SCREEN:
        request.getfixturevalue("screen")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    text = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    assert [words for words in SAYS.get(path.stem, []) if words not in text] == []
    assert [c for c in notebook.cells if any("image" in str(o.get("data", {}).keys()) for o in c.get("outputs", []))], "it ends in a picture"


def test_there_is_one() -> None:
    assert NOTEBOOKS
