"""The notebooks run from top to bottom, in a kernel of their own."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
SAYS = {
    "subtype": ["no patient in both", "balanced accuracy of patients held out: 1.000", "the call is right: True"],
    "first_look": ["call: LMS", "recall 1.000"],
    "survival": [
        "the interval holds the truth for 4 of 4",
        "clinic and elsewhere is better",
        "no better than chance",
        "no difference that these patients could show",
    ],
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_runs(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    text = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    assert [words for words in SAYS[path.stem] if words not in text] == []


def test_there_is_one() -> None:
    assert NOTEBOOKS
