"""A run of one's own to review: hard links where nothing is written in place."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from wsikit.run import Run


@pytest.fixture
def folder(scored: Run, tmp_path: Path) -> Path:
    """A copy of the scored phantom's run."""
    shutil.copytree(scored.folder, tmp_path / "run")
    return tmp_path / "run"
