"""Names are planted in every text field and label of a slide, and looked for in all that wsikit leaves, prints or says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsikit.cli.main import main
from wsikit.errors import WsikitError
from wsikit.readers._private import places_in_tiff
from wsikit.readers._said import said
from wsikit.slide import open_slide
from wsikit.testing.corruptions import corruptions
from wsikit.testing.phantom import Spec, make_phantom
from wsikit.testing.slides import NAME_COLOUR, write_dicom, write_ome, write_svs

NAME = "Zyxwvuqp Mnolkjih"
PARTS = ("Zyxwvuqp", "Mnolkjih", "19560713", "1956-07-13")
FORMATS = ["a.svs", "b.ome.tif", "c"]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A slide of each format with a name everywhere."""
    folder = tmp_path_factory.mktemp("planted")
    rgb, _ = make_phantom(Spec(5, "LMS", 1100, 800))
    writers: dict[str, Any] = {"a.svs": write_svs, "b.ome.tif": write_ome, "c": write_dicom}

    def make(name: str) -> Path:
        return folder / name if (folder / name).exists() else writers[name](folder / name, rgb, NAME)

    return make


def holds(data: bytes) -> list[str]:
    """Which parts of the name are in there, in any case and of the usual encodings."""
    low = data.lower()
    found = [p for p in PARTS for encoding in ("utf-8", "utf-16-le", "utf-16-be") if p.lower().encode(encoding) in low]
    return found + [p for p in PARTS if p.encode().hex().encode() in low]


def names_in(folder: Path) -> list[str]:
    return [f"{p}: {found}" for p in folder.rglob("*") if p.is_file() and (found := holds(p.read_bytes()) + holds(p.name.encode()))]


def label_pixels(rgb: np.ndarray) -> int:
    """Pixels of the label's colour (H, W, 3 or more)."""
    return int((np.abs(rgb[..., :3].astype(int) - NAME_COLOUR).max(-1) < 60).sum())


def wsikit(*arguments: object, cwd: Path) -> bytes:
    """A command in a process of its own, where nothing keeps libraries from printing."""
    done = subprocess.run([sys.executable, "-m", "wsikit", *map(str, arguments)], cwd=cwd, capture_output=True, timeout=200, check=False)
    assert done.returncode == 0, done
    assert b"Traceback" not in done.stderr
    return done.stdout + done.stderr


def here(capfd: pytest.CaptureFixture[str], *arguments: object) -> bytes:
    """The same in this process, which is quicker."""
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    assert not left.value.code, arguments
    return "".join(capfd.readouterr()).encode()


@pytest.mark.parametrize("name", FORMATS)
def test_the_name_is_there_to_be_found(name: str, planted: Callable[[str], Path]) -> None:
    path = planted(name)
    assert all(holds(p.read_bytes()) for p in ([path] if path.is_file() else path.iterdir()))


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_slide_says_of_itself_has_no_name(name: str, planted: Callable[[str], Path]) -> None:
    with open_slide(planted(name)) as slide:
        assert slide.mpp == (0.5, 0.5)
        assert holds(repr((slide, slide.facts, slide.properties, slide.__reduce__()[1:])).encode()) == []
        assert label_pixels(slide.read((0, 0, *slide.size))) == 0


def test_no_output_has_a_name(planted: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Every verb that opens slides or writes anything, over all three formats."""
    import zarr
    from PIL import Image

    paths = [planted(name) for name in FORMATS]
    out = tmp_path / "out"
    told = [here(capfd, "info", path, *more) for path in paths for more in ((), ("--json",))]
    told.append(here(capfd, "doctor", *paths, "--json", "--no-estimate"))
    told.append(wsikit("score", *paths, "-o", out, "--pipeline", "sts-subtype", "--keep-tiles", "--workers", 0, "--debug", cwd=tmp_path))
    verbs = [("report", out), ("export", out, "--to", "geojson"), ("export", out, "--to", "hdf5"), ("aggregate", out), ("verify", out)]
    told += [here(capfd, *verb) for verb in verbs]
    assert [found for text in told if (found := holds(text))] == []
    assert names_in(out) == []
    assert len(list((out).rglob("*"))) > 100
    for picture in (out).rglob("*.png"):
        assert label_pixels(np.asarray(Image.open(picture).convert("RGB"))) == 0, picture
    for store in (tmp_path / "out/slides").glob("*.zarr"):
        pixels = np.moveaxis(np.asarray(zarr.open_array(str(store / "0"), mode="r")[...]), 0, -1)
        assert pixels.std() > 5
        assert label_pixels(pixels) == 0


@pytest.mark.parametrize("name", ["a.svs", "b.ome.tif"])
def test_no_error_quotes_a_name(name: str, planted: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of damaged files, whichever reader meets the damage, in this process, where libraries could print."""
    whole, refused = planted(name), 0
    for kind, seed, data in corruptions(whole, 0.5):
        if kind not in ("bit flip in a header", "64 bytes of garbage", "truncation"):
            continue
        path = tmp_path / f"{kind[:3]}{seed}{whole.suffix}"
        path.write_bytes(data)
        for reader in (None, "tiff", "openslide"):
            try:
                with open_slide(path, reader=reader, trusted=True) as slide:
                    slide.read((0, 0, *slide.size))
            except WsikitError as e:
                refused += 1
                assert holds(str(e).encode()) == []
        path.unlink()
    assert refused > 50
    assert holds("".join(capfd.readouterr()).encode()) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("cannot parse 'Zyxwvuqp Mnolkjih'", "cannot parse …"),
        ("<TiffTag 315 'Zyxwvuqp'> is odd", "… is odd"),
        ("Bad patient: Zyxwvuqp", "Bad patient: …"),
        ("Unsupported TIFF compression: 52479", "Unsupported TIFF compression: 52479"),
        ('unfinished "Zyxwvu', "unfinished …"),
    ],
)
def test_what_libraries_say_is_told_without_what_they_quote(words: str, expected: str) -> None:
    assert said(ValueError(words)) == expected


@pytest.mark.parametrize(
    ("name", "some"), [("a.svs", ["label image", "macro image", "aperio.Filename"]), ("b.ome.tif", []), ("c", ["label image", "dicom.PatientName"])]
)
def test_where_a_name_may_be_is_told_by_the_place(name: str, some: list[str], planted: Callable[[str], Path]) -> None:
    path = planted(name)
    with open_slide(path) as slide:
        places = [*slide.facts.private, *places_in_tiff(path)]
    assert set(some) <= set(places)
    assert holds(repr(places).encode()) == []
    if path.is_file():
        assert {"TIFF Artist", "TIFF ImageDescription", "TIFF HostComputer"} <= set(places)


def test_fields_pass_only_as_numbers(tmp_path: Path) -> None:
    """A name can stand where a number should be."""
    rgb, _ = make_phantom(Spec(5, "LMS", 600, 500))
    path = write_svs(tmp_path / "a.svs", rgb, NAME, mpp=NAME)
    with open_slide(path) as slide:
        assert "openslide.vendor" in slide.properties
        assert holds(repr((slide.facts, slide.properties, slide.mpp_refusal)).encode()) == []
