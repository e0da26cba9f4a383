"""Zeiss CZI as its maker's library writes it: scenes in their places, codecs, channels, focal planes, damage."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

import wsikit as wk
from wsikit.errors import UnsupportedFormatError
from wsikit.readers import candidates
from wsikit.survey import survey
from wsikit.testing.conformance import check_crops, check_pixels, check_reader

czi = pytest.importorskip("pylibCZIrw.czi")
MPP = 0.5
NATIVE = "zstd1:ExplicitLevel=2"


def write(path: Path, rgb: np.ndarray, at: tuple[int, int] = (100, -40), codec: str = NATIVE) -> Path:
    """In tiles of 256 px, away from the origin as scanners do it."""
    with czi.create_czi(str(path)) as doc:
        for y in range(0, rgb.shape[0], 256):
            for x in range(0, rgb.shape[1], 256):
                tile = np.ascontiguousarray(rgb[y : y + 256, x : x + 256, ::-1])
                doc.write(data=tile, plane={"C": 0}, location=(x + at[0], y + at[1]), scene=0, compression_options=codec)
        doc.write_metadata("phantom", scale_x=MPP * 1e-6, scale_y=MPP * 1e-6)
    return path


@pytest.mark.parametrize("codec", ["uncompressed:", NATIVE])
def test_pixels_and_facts(codec: str, picture: np.ndarray, tmp_path: Path) -> None:
    path = write(tmp_path / "a.czi", picture, codec=codec)
    assert next(candidates(path)).name == "czi"
    check_pixels(partial(wk.open_slide, path), picture)
    check_reader(partial(wk.open_slide, path))
    with wk.open_slide(path) as slide:
        assert (slide.mpp, slide.mpp_source, slide.facts.vendor) == (pytest.approx((MPP, MPP)), "file metadata", "zeiss")
        assert [v.downsample[0] for v in slide.levels] == [1, 2]


def test_scenes_lie_apart_on_white(picture: np.ndarray, tmp_path: Path) -> None:
    path, part = tmp_path / "a.czi", np.ascontiguousarray(picture[:200, :300])
    with czi.create_czi(str(path)) as doc:
        for scene, x in enumerate((0, 1000)):
            doc.write(data=np.ascontiguousarray(part[..., ::-1]), plane={"C": 0}, location=(x, 50 * scene), scene=scene)
        doc.write_metadata("phantom", scale_x=MPP * 1e-6, scale_y=MPP * 1e-6)
    with wk.open_slide(path) as slide:
        assert slide.size == (1300, 250)
        assert np.array_equal(slide.read((0, 0, 300, 200)), part)
        assert np.array_equal(slide.read((1000, 50, 300, 200)), part)
        assert (slide.read((300, 0, 700, 250)) == 255).all()


def test_channels_and_planes_are_readable_and_refused_for_he(tmp_path: Path) -> None:
    path = tmp_path / "a.czi"
    rng = np.random.default_rng(0)
    with czi.create_czi(str(path)) as doc:
        for c in range(2):
            for z in range(3):
                doc.write(data=rng.integers(0, 3000, (200, 300, 1), dtype=np.uint16), plane={"C": c, "Z": z}, scene=0)
        doc.write_metadata("phantom", scale_x=MPP * 1e-6, scale_y=MPP * 1e-6)
    with wk.open_slide(path) as slide:
        assert slide.facts.focal_planes == ("z0", "z1", "z2")
        assert "2 channels of uint16" in slide.facts.not_he
        with pytest.raises(UnsupportedFormatError, match="no brightfield"):
            survey(slide)
    seen = {wk.open_slide(path, focal_plane=f"z{z}").read((0, 0, 300, 200)).tobytes() for z in range(3)}
    assert len(seen) == 3
    check_crops(partial(wk.open_slide, path))


@pytest.mark.parametrize("share", [0.001, 0.3, 0.8, 0.99])
def test_a_file_that_stops_early_gives_no_wrong_pixel(share: float, picture: np.ndarray, tmp_path: Path) -> None:
    path = write(tmp_path / "a.czi", picture)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    try:
        found = wk.open_slide(path, reader="czi").read((0, 0, picture.shape[1], picture.shape[0]))
    except wk.WsikitError as e:
        assert "\n" not in str(e)
        return
    assert np.array_equal(found, picture)
