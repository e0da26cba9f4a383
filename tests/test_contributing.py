"""What CONTRIBUTING.md shows is put where it says, and does what it says."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from wsikit import models, readers, stain

PAGE = Path(__file__).parent.parent / "CONTRIBUTING.md"
BLOCK = re.compile(r'^```python title="([^"]+)"\n(.*?)^```$', re.M | re.S)
BLOCKS = BLOCK.findall(PAGE.read_text())
CACHES = (readers.registry, stain.methods, models.families)


def forget() -> None:
    for found in CACHES:
        found.cache_clear()
    importlib.invalidate_caches()


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The page's files beside the ones that wsikit has, found as those are; a folder to work in."""
    names = []
    for title, code in BLOCKS:
        if title == "check":
            continue
        package = {"readers": readers, "stain": stain, "models": models}[Path(title).parent.name]
        folder = tmp_path / Path(title).parent.name
        folder.mkdir()
        (folder / Path(title).name).write_text(code)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        names.append(f"{package.__name__}.{Path(title).stem}")
    monkeypatch.chdir(tmp_path)
    forget()
    yield names
    for name in names:
        sys.modules.pop(name, None)
    monkeypatch.undo()
    forget()


def test_there_is_a_reader_a_stain_method_and_a_model_each_with_its_check() -> None:
    kinds = [Path(title).parent.name if title != "check" else "check" for title, _ in BLOCKS]
    assert kinds == ["readers", "check", "stain", "check", "models", "check"]


def test_each_is_found_and_passes_its_check(added: list[str]) -> None:
    assert {"rawslide"} == readers.registry().keys() & {"rawslide"}
    assert "density" in stain.methods()
    assert models.families()["darkness"] == "wsikit.models.darkness"
    for title, code in BLOCKS:
        if title == "check":
            exec(compile(code, f"{PAGE.name}: {title}", "exec"), {"__name__": "check"})


def test_a_file_that_was_cut_off_is_refused(added: list[str]) -> None:
    from wsikit.errors import DamagedSlideError
    from wsikit.slide import open_slide

    reader = importlib.import_module("wsikit.readers.rawslide")
    whole = reader.HEADER.pack(reader.MAGIC, 20, 10, 0.5) + bytes(600)
    Path("cut.rawslide").write_bytes(whole[:-1])
    with pytest.raises(DamagedSlideError, match="another length"):
        partial(open_slide, "cut.rawslide", trusted=True)()
