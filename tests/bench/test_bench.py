"""The benchmark measures tissue, restores nothing it should not, and refuses where it would measure nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from wsikit import bench
from wsikit.errors import SlideError
from wsikit.geometry import Region
from wsikit.slide import Slide
from wsikit.survey import survey


def write(path: Path, pixels: np.ndarray) -> Path:
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), resolution=(20_000, 20_000), resolutionunit="CENTIMETER")
    return path


def test_the_densest_square_is_found_by_brute_force_too() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        tissue = rng.random((rng.integers(5, 40), rng.integers(5, 40))) < 0.2
        w, h = (int(rng.integers(1, n + 1)) for n in tissue.shape[::-1])
        x, y = bench._densest(tissue, w, h)
        best = max(tissue[r : r + h, c : c + w].sum() for r in range(tissue.shape[0] - h + 1) for c in range(tissue.shape[1] - w + 1))
        assert tissue[y : y + h, x : x + w].shape == (h, w)
        assert tissue[y : y + h, x : x + w].sum() == best


def test_each_stage_reads_the_densest_square(phantom: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "REPEATS", 1)
    said: list[str] = []
    facts = bench.bench_slide(phantom.path, "phantom-sts-subtype", mpp=1.0, side_px=512, say=said.append)
    assert (facts["square_px"], facts["mpp"]) == (512, 1.0)
    assert said == [f"{k}: {v} MPx/s" for k, v in facts["mpx_per_s"].items()]
    assert list(facts["mpx_per_s"]) == [bench.FLOOR, bench.READ, bench.RESAMPLE, bench.STAIN, bench.ENCODE, "infer phantom-sts-subtype", bench.TOGETHER]
    assert facts["of_decode_floor"].keys() == facts["mpx_per_s"].keys() - {bench.FLOOR}


def test_the_decode_floor_decodes_the_tiles_under_the_square_and_counts_them_in_its_pixels(phantom: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slide, decode, seen = Slide(phantom.path), bench.imagecodecs.jpeg8_decode, []

    def watched(*arguments: Any, **settings: Any) -> np.ndarray:
        seen.append(decode(*arguments, **settings))
        return seen[-1]

    monkeypatch.setattr(bench.imagecodecs, "jpeg8_decode", watched)
    for mpp, tile_of_level in ((0.5, slide.read_level(0, Region(256, 512, 256, 256))), (1.0, slide.read_level(1, Region(256, 512, 256, 256)))):
        square = bench._Square(slide, slide.raster(mpp), survey(slide), 300, 520, 400)  # 2 × 2 tiles of 256 px
        ((megapixels, work),) = bench._floor(square).values()
        seen.clear()
        work()
        assert len(seen) == 4
        assert any((tile == tile_of_level).all() for tile in seen)
        assert megapixels == pytest.approx(4 * 256**2 / 1e6)


def test_slides_that_are_not_jpeg_tiles_have_no_decode_floor(tmp_path: Path) -> None:
    path = write(tmp_path / "plain.tif", np.full((600, 600, 3), 240, np.uint8))
    slide = Slide(path)
    assert bench._floor(bench._Square(slide, slide.reduced(1), survey(slide), 0, 0, 512)) == {}


def test_a_slide_without_tissue_or_smaller_than_a_tile_is_refused(tmp_path: Path, phantom: Any) -> None:
    blank = write(tmp_path / "blank.tif", np.full((1000, 1200, 3), 240, np.uint8))
    with pytest.raises(SlideError, match=r"blank\.tif: no tissue was found"):
        bench.bench_slide(blank, "phantom-sts-subtype")
    with pytest.raises(SlideError, match="is less than one tile of phantom-sts-subtype"):
        bench.bench_slide(phantom.path, "phantom-sts-subtype", side_px=64)


def test_slow_stages_keep_a_rate_above_zero(phantom: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_median_seconds", lambda _: 3600.0)
    facts = bench.bench_slide(phantom.path, "phantom-sts-subtype", side_px=512)
    assert 0 < facts["one_after_another"] < min(facts["mpx_per_s"].values()) < 1e-3
