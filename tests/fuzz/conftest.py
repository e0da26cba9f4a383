"""Three slides to damage, what is in them, and what becomes of a damaged one: by us, behind the gate, and by bare OpenSlide."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from wsikit import gate
from wsikit.errors import DigestMismatchError, SlideError, WsikitError
from wsikit.readers._container import missing_tiles
from wsikit.sandbox import Sandbox, SandboxDiedError
from wsikit.testing.phantom import Spec, make_phantom
from wsikit.testing.slides import write_dicom, write_ome, write_svs

SECONDS = 10


@dataclass
class Readers:
    """The processes that read, and what they said of the whole slides."""

    ours: Sandbox
    bare: Sandbox

    def open(self, path: Path) -> dict[str, Any]:
        """Through the gate, then in a process of its own, as workers do. ``path`` is the slide."""
        found: dict[str, Any] = self.ours.call(str(path), gate.admit(path))
        return found | {"missing": len(missing_tiles(path))}

    def outcome(self, path: Path, whole: dict[str, Any]) -> str:
        """What becomes of a slide here: ``refused``, ``identical``, ``missing``, ``silent`` (and of what), or how the process died."""
        try:
            found = self.open(path)
        except WsikitError as e:
            assert isinstance(e, SlideError), e
            assert str(path) in str(e)
            assert "\n" not in str(e)
            return "refused"
        except SandboxDiedError as e:
            return e.kind
        return _compare(found, whole)

    def bare_outcome(self, path: Path, whole: dict[str, Any]) -> str:
        """The same for a script that uses openslide-python as it is."""
        try:
            found = self.bare.call(str(path))
        except SandboxDiedError as e:
            return "refused" if e.kind == "error" else e.kind
        return _compare(found, whole)

    def promised(self, path: Path, digest: str) -> str:
        """The same with the digest of the whole file at hand."""
        from wsikit.run.prepare import check_digest
        from wsikit.slide import Slide

        try:
            with Slide(path, reader=gate.admit(path)) as slide:
                check_digest(slide, digest)
        except DigestMismatchError:
            return "another file"
        except SlideError:
            return "refused"
        return "accepted"


def _compare(found: dict[str, Any], whole: dict[str, Any]) -> str:
    if found.get("missing"):
        return "missing"
    for what in ("sizes", "pixels", "mpp"):
        if found[what] != whole[what]:
            return f"silent {what}"
    return "identical"


@pytest.fixture(scope="session")
def readers() -> Iterator[Readers]:
    here = str(Path(__file__).parent)
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(here)
    with (
        Sandbox("reading:ours", seconds=SECONDS) as ours,
        Sandbox("reading:openslide", seconds=SECONDS) as bare,
        Sandbox("wsikit.gate:inspect", seconds=SECONDS) as door,
    ):
        patch.setattr(gate, "_sandbox", lambda: door)
        yield Readers(ours, bare)
    patch.undo()


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A slide of each of the three formats, 1000 × 700 px of phantom; of DICOM, one instance."""
    folder = tmp_path_factory.mktemp("whole")
    rgb, _ = make_phantom(Spec(21, "LMS", 1000, 700))

    def make(name: str) -> Path:
        path = folder / name
        if path.exists():
            return path
        if name.endswith(".dcm"):
            write_dicom(folder / "all", rgb)
            path.parent.mkdir(exist_ok=True)
            return Path(shutil.copy(folder / "all/1.dcm", path))
        return (write_svs if name.endswith(".svs") else write_ome)(path, rgb)

    return make
