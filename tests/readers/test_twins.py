"""One slide in three containers: the same size, resolution and picture."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

import wsikit as wk
from wsikit.slide import Slide
from wsikit.testing.conformance import check_reader

TWINS = ["dicom-cmu-small-napari", "derived-cmu-small.ome.tif"]  # both encoded anew, with colours at half the resolution


def whole(slide: Slide) -> np.ndarray:
    return slide.read((0, 0, *slide.size)).astype(float)


def blocks(pixels: np.ndarray) -> np.ndarray:
    h, w = (n // 8 * 8 for n in pixels.shape[:2])
    return pixels[:h, :w].reshape(h // 8, 8, w // 8, 8, 3).mean((1, 3))


@pytest.fixture(params=TWINS)
def twin(request: pytest.FixtureRequest, data: Path) -> Path:
    return data / "slides" / request.param


def test_twins_agree(twin: Path, cmu: Path) -> None:
    ours, theirs = wk.open_slide(cmu), wk.open_slide(twin)
    assert theirs.size == ours.size == (2220, 2967)
    assert theirs.mpp == pytest.approx(ours.mpp)
    assert (ours.mpp_source, theirs.mpp_source) == ("file metadata", "file metadata")
    a, b = whole(ours), whole(theirs)
    error = np.abs(a - b).mean()
    assert error < 4
    assert np.abs(blocks(a) - blocks(b)).mean() < 1
    for axis in (0, 1):
        for by in (-1, 1):
            assert np.abs(a - np.roll(b, by, axis)).mean() > 1.3 * error


def test_twins_conform(twin: Path) -> None:
    check_reader(partial(wk.open_slide, twin))


def test_a_dicom_slide_is_all_of_its_files(data: Path) -> None:
    folder = data / "slides" / TWINS[0]
    with wk.open_slide(folder) as slide, wk.open_slide(min(folder.glob("*.dcm"))) as instance:
        assert slide.digest == instance.digest
        assert slide.size == instance.size
        assert np.array_equal(slide.thumbnail(300), instance.thumbnail(300))


def test_no_patient_data_leaves_the_file(twin: Path) -> None:
    keys = {key.split(".")[0] for key in wk.open_slide(twin).properties}
    assert keys <= {"openslide", "aperio", "hamamatsu", "tiff", "wsikit"}
