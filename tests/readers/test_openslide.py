"""What OpenSlide's reader says of a file: metadata without patients, colour profile, and all files that make it up."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import tifffile

import wsikit as wk
from wsikit.readers import candidates
from wsikit.readers.openslide import OpenSlideReader
from wsikit.testing.dicom import write_dicom

PICTURE = np.full((300, 400, 3), 200, np.uint8)


def test_no_patient_leaves_the_file_by_any_reader(made) -> None:
    """The description of this slide names one; the file's name must be the only other text."""
    path = made("aperio.svs").path
    assert b"Jane Roe" in path.read_bytes()
    for reader in candidates(path):
        slide = wk.open_slide(path, reader=reader.name)
        assert "Jane" not in repr((slide.facts, slide.properties, slide))
        assert not {"openslide.comment", "tiff.ImageDescription", "aperio.Patient"} & set(slide.properties)


def test_facts(made) -> None:
    facts = wk.open_slide(made("aperio.svs").path, reader="openslide").facts
    assert facts.vendor == "aperio"
    assert facts.objective == 20
    assert facts.associated == ("thumbnail",)
    assert facts.properties["aperio.MPP"] == "0.4990"


@pytest.mark.parametrize("reader", ["openslide", "native", "tiff"])
def test_a_colour_profile_is_seen(reader: str, tmp_path: Path) -> None:
    for name, profile in (("with", b"\0" * 36 + b"acsp" + b"\0" * 88), ("without", None)):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, PICTURE, tile=(256, 256), photometric="rgb", compression="jpeg", iccprofile=profile, metadata=None)
        assert wk.open_slide(path, reader=reader).facts.icc == (profile or b"")


def test_phantoms_are_known_as_such(phantom, made) -> None:
    for reader in candidates(phantom.path):
        assert wk.open_slide(phantom.path, reader=reader.name).is_phantom
    assert not wk.open_slide(made("aperio.svs").path).is_phantom


def touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return [folder / name for name in names]


def test_all_files_of_a_slide_count(tmp_path: Path) -> None:
    mirax = touch(tmp_path, "a.mrxs", "a/Data0000.dat", "a/Slidedat.ini", "b.mrxs", "b/Data0000.dat")
    assert OpenSlideReader.files(mirax[0]) == sorted(mirax[:3])
    dicom = write_dicom(tmp_path / "d", [PICTURE, PICTURE[::2, ::2].copy()], 0.5)
    touch(tmp_path, "d/3.dcm", "d/notes.txt")
    assert OpenSlideReader.files(tmp_path / "d") == OpenSlideReader.files(dicom[1]) == dicom
    hamamatsu = touch(tmp_path, "h/a.vms", "h/a.jpg", "h/a(1,0).jpg", "h/a.opt", "h/b.jpg")
    hamamatsu[0].write_text("[Virtual Microscope Specimen]\nImageFile=a.jpg\r\nImageFile(1,0)=a(1,0).jpg\nOptimisationFile=a.opt\nMacroImage=\n")
    assert OpenSlideReader.files(hamamatsu[0]) == sorted(hamamatsu[:4])
    (plain,) = touch(tmp_path, "c.svs")
    assert OpenSlideReader.files(plain) == [plain]


def test_the_digest_is_of_the_bytes(made, tmp_path: Path) -> None:
    source = made("aperio.svs").path
    copy = tmp_path / "other name.svs"
    copy.write_bytes(source.read_bytes())
    digest = wk.open_slide(source).digest
    assert digest == wk.open_slide(copy).digest == hashlib.sha256(source.read_bytes()).hexdigest()
    copy.write_bytes(source.read_bytes() + b"\0")
    assert wk.open_slide(copy).digest != digest
