"""DICOM slides: one series of a folder whatever file is named, every tiling and codec, and colours as the frames have them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import wsikit as wk
from wsikit.errors import DamagedSlideError, UnsupportedFormatError
from wsikit.readers import candidates
from wsikit.run.cases import find_cases
from wsikit.survey import survey
from wsikit.testing.conformance import (
    check_close,
    check_crops,
    check_digest,
    check_edges,
    check_levels,
    check_pickle,
    check_pixels,
    check_pyramid,
    check_reader,
)
from wsikit.testing.dicom import KINDS, Layout, write_dicom

pytest.importorskip("wsidicom")
MPP = 0.5
JPEG_ERROR = 3.0
CHECKS = (check_levels, check_crops, check_edges, check_pyramid, check_pickle, check_close, check_digest)
EASY, HARD = ("openslide", "dicom"), ("dicom",)
# name → (layout, readers that get it right)
LAYOUTS: dict[str, tuple[Layout, tuple[str, ...]]] = {
    **{kind: (Layout(kind=kind), HARD if kind in ("jpeg-ls", "jpeg-444") else EASY) for kind in KINDS},
    "sparse": (Layout(sparse=True), EASY),
    "concatenation": (Layout(parts=3), EASY),
    "sparse concatenation": (Layout(sparse=True, parts=2), EASY),
    "false RGB": (Layout(photometric="RGB"), HARD),
}


@pytest.fixture(scope="module")
def levels(picture: np.ndarray) -> list[np.ndarray]:
    """A small picture, its white margin more than a frame high, and half of it."""
    rgb = np.ascontiguousarray(picture[:371, :437])
    rgb[:140] = 255
    return [rgb, rgb[:370, :436].reshape(185, 2, 218, 2, 3).mean((1, 3)).round().astype(np.uint8)]


@pytest.fixture(scope="module")
def dicom(levels: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of one of `LAYOUTS`, written when first asked for."""
    root = tmp_path_factory.mktemp("dicom")

    def make(name: str) -> Path:
        folder = root / name
        if not folder.exists():
            write_dicom(folder, levels, MPP, LAYOUTS[name][0])
        return folder

    return make


@pytest.mark.parametrize("name", LAYOUTS)
def test_pixels_of_every_layout(name: str, dicom, levels) -> None:
    folder = dicom(name)
    readers = LAYOUTS[name][1]
    assert next(candidates(folder)).name == readers[0]
    for reader in readers:
        check_pixels(partial(wk.open_slide, folder, reader=reader), levels[0], 0 if name in ("raw", "j2k", "jpeg-ls") else JPEG_ERROR)
        with wk.open_slide(folder, reader=reader) as slide:
            assert [v.size for v in slide.levels] == [(437, 371), (218, 185)]
            assert slide.mpp == pytest.approx((MPP, MPP))
            assert slide.facts.objective == 20


@pytest.mark.parametrize("name", ["jpeg", "sparse concatenation", "jpeg-ls", "false RGB"])
def test_conformance(name: str, dicom) -> None:
    for reader in LAYOUTS[name][1]:
        for check in CHECKS:
            check(partial(wk.open_slide, dicom(name), reader=reader))


def test_false_colours_are_never_shown(dicom, levels, tmp_path: Path) -> None:
    """OpenSlide alone shows pink for blue here, without a word."""
    for reader in ("openslide",):
        with pytest.raises(
            UnsupportedFormatError, match="its header says RGB, its JPEG frames say YCbCr: colours would be wrong; to read it by its frames, install"
        ):
            wk.open_slide(dicom("false RGB"), reader=reader)
    write_dicom(tmp_path / "unsure", levels, MPP, Layout(kind="jpeg-444", photometric="RGB"))
    for reader in ("openslide", "dicom"):
        with pytest.raises(UnsupportedFormatError, match=r"say maybe YCbCr.*have PhotometricInterpretation corrected"):
            wk.open_slide(tmp_path / "unsure", reader=reader)


@pytest.mark.parametrize("name", ["jpeg", "concatenation"])
def test_any_file_of_a_slide_is_the_slide(name: str, dicom) -> None:
    folder = dicom(name)
    with wk.open_slide(folder) as whole:
        for file in folder.iterdir():
            with wk.open_slide(file) as slide:
                assert slide.size == whole.size
                assert slide.digest == whole.digest
                assert np.array_equal(slide.read((100, 100, 200, 200)), whole.read((100, 100, 200, 200)))


def test_two_slides_in_a_folder(levels, tmp_path: Path) -> None:
    """The digest of each is of its own files; the folder is neither."""
    for name in ("a", "b"):
        write_dicom(tmp_path / name, levels, MPP)
    both = tmp_path / "both"
    both.mkdir()
    for name in ("a", "b"):
        for file in (tmp_path / name).iterdir():
            shutil.copy(file, both / f"{name}-{file.name}")
    (both / "notes.txt").write_text("not a slide")
    assert [Path(c.path).name[0] for c in find_cases([both])] == ["a", "b"]
    for case in find_cases([both]):
        name = Path(case.path).name[0]
        files = sorted(hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / name).iterdir())
        assert wk.open_slide(case.path).digest == wk.open_slide(tmp_path / name).digest == hashlib.sha256("".join(files).encode()).hexdigest()
    with pytest.raises(UnsupportedFormatError, match="holds 2 DICOM slides; name one file"):
        wk.open_slide(both)


def test_other_slides_do_not_go_through_their_folder(made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive has thousands of files in one folder, and each is opened."""
    path = tmp_path / "a.svs"
    shutil.copy(made("aperio.svs").path, path)
    monkeypatch.setattr(Path, "iterdir", lambda self: pytest.fail(f"{self} was gone through"))
    assert wk.open_slide(path).reader == "native"


@pytest.mark.parametrize("sparse", [True, False])
def test_a_missing_part_of_a_concatenation_is_told(sparse: bool, levels, tmp_path: Path) -> None:
    """A sparse slide would have white where the missing frames are."""
    files = write_dicom(tmp_path / "a", levels, MPP, Layout(sparse=sparse, parts=2))
    files[1].unlink()
    for reader in (None, "openslide", "dicom"):
        with pytest.raises((DamagedSlideError, UnsupportedFormatError), match="1 of the 2 files of a level are there"):
            wk.open_slide(tmp_path / "a", reader=reader)


def test_focal_planes(levels, tmp_path: Path) -> None:
    write_dicom(tmp_path / "a", levels, MPP, Layout(kind="raw"), planes=3)
    with wk.open_slide(tmp_path / "a") as slide:
        assert slide.facts.focal_planes == ("0um", "1um", "2um")
        assert slide.focal_plane == "1um"
        assert np.array_equal(slide.read((0, 150, 437, 200)), levels[0][150:350] - np.uint8(10))
    assert np.array_equal(wk.open_slide(tmp_path / "a", focal_plane="0um").read((0, 150, 437, 200)), levels[0][150:350])


@pytest.mark.parametrize("reader", EASY)
def test_fluorescence_is_refused_for_he(reader: str, levels, tmp_path: Path) -> None:
    write_dicom(tmp_path / "a", levels, MPP, Layout(illumination="Epifluorescence illumination"))
    with wk.open_slide(tmp_path / "a", reader=reader) as slide:
        assert slide.read((0, 0, 9, 9)).shape == (9, 9, 3)
        with pytest.raises(UnsupportedFormatError, match="fluorescence"):
            survey(slide)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("reader", EASY)
def test_a_cut_off_file_gives_no_wrong_pixel(reader: str, share: float, dicom, levels, tmp_path: Path) -> None:
    shutil.copytree(dicom("jpeg"), tmp_path / "a")
    file = tmp_path / "a/level0-0.dcm"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    try:
        with wk.open_slide(tmp_path / "a", reader=reader) as slide:
            if slide.size == (437, 371):
                found = slide.read((0, 0, 437, 371))
                raise AssertionError(f"it was read, {np.abs(found.astype(int) - levels[0]).mean():.1f} off")
    except wk.WsikitError as e:
        assert "\n" not in str(e)


def test_real_slides(data: Path) -> None:
    folder = data / "slides/dicom-cmu-small-napari"
    check_reader(partial(wk.open_slide, folder, reader="dicom"))
    with wk.open_slide(folder, reader="dicom") as a, wk.open_slide(folder, reader="openslide") as b:
        assert a.digest == b.digest
        assert a.facts.levels == b.facts.levels
        assert a.mpp == pytest.approx(b.mpp)
        assert np.abs(a.thumbnail(700).astype(int) - b.thumbnail(700)).mean() < 0.5
    for name in ("gcp-camelyon-jpeg.dcm", "highdicom-sm_image.dcm", "osp-boxes_0.dcm"):
        found = [wk.open_slide(data / "slides" / name, reader=reader) for reader in EASY]
        assert found[0].size == found[1].size
        assert found[0].mpp == pytest.approx(found[1].mpp) if found[0].mpp else found[1].mpp is None
        assert np.abs(found[0].read((0, 0, *found[0].size)).astype(int) - found[1].read((0, 0, *found[1].size))).mean() < 0.5
