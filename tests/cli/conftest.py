"""The command line in this process, and inputs to give it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsikit.cli.main import main
from wsikit.models import find_model
from wsikit.run import Run
from wsikit.testing.phantom import Spec, write_phantom


@dataclass(frozen=True)
class Answer:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line that tells a user what is wrong."""
        assert self.code == 2, self
        assert self.out == "", self.out
        assert "Traceback" not in self.err
        (line,) = self.err.splitlines()
        assert line.startswith("wsikit: ")
        assert "please report" not in line, "an error that nobody foresaw"
        return line.removeprefix("wsikit: ")


Cli = Callable[..., Answer]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: object) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return Answer(int(left.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom of less than a megapixel."""
    path = tmp_path_factory.mktemp("small") / "small.tif"
    write_phantom(path, Spec(12, "UPS", 1024, 768, mitoses_per_mm2=25))
    return path


@pytest.fixture(scope="session")
def junk(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that cannot be scored: text.svs, cut.tif (truncated) and unknown.npy (without mpp)."""
    folder = tmp_path_factory.mktemp("junk")
    (folder / "text.svs").write_text("this is a note\n")
    (folder / "cut.tif").write_bytes(small.read_bytes()[:50_000])
    np.save(folder / "unknown.npy", np.full((600, 700, 3), 200, np.uint8))
    return folder


@pytest.fixture
def run_copy(scored: Run, tmp_path: Path) -> Path:
    """A finished run that a test may change."""
    return Path(shutil.copytree(scored.folder, tmp_path / "run"))


@pytest.fixture
def damaged_model(tmp_path: Path) -> Path:
    """The mitosis model with one bit of its weights flipped."""
    folder = Path(shutil.copytree(find_model("mitosis"), tmp_path / "damaged"))
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    return folder
