"""Intervals against published tables, counts per mm² by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import poisson

from wsikit.aggregate.counting import Grounds, count_slide, near_threshold
from wsikit.aggregate.hotspot import Hotspot
from wsikit.aggregate.rates import poisson_interval
from wsikit.aggregate.region import describe_region, pooled_region
from wsikit.geometry import Size
from wsikit.grid import Raster
from wsikit.models._card import Detection, Segmentation
from wsikit.stain import StainFit
from wsikit.survey import Survey
from wsikit.tissue import TissueMask

# exact 95 % limits of a Poisson mean (Garwood, Biometrika 1936; Ulm, Am J Epidemiol 1990)
PUBLISHED = {
    0: (0.0, 3.689), 1: (0.0253, 5.572), 2: (0.2422, 7.225), 3: (0.6187, 8.767), 4: (1.0899, 10.242), 5: (1.6235, 11.668),
    10: (4.7954, 18.390), 15: (8.3954, 24.740), 20: (12.2165, 30.888), 25: (16.1787, 36.905), 30: (20.2409, 42.827),
    50: (37.1110, 65.919), 100: (81.3638, 121.627),
}  # fmt: skip


@pytest.mark.parametrize("count", PUBLISHED)
def test_intervals_are_the_published_ones(count: int) -> None:
    assert poisson_interval(count, 1.0) == pytest.approx(PUBLISHED[count], abs=6e-4)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3000), st.floats(0.01, 500), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_each_tail_holds_what_it_should(count: int, area: float, level: float) -> None:
    low, high = poisson_interval(count, area, level)
    tail = (1 - level) / 2
    assert low <= count / area <= high
    assert poisson.cdf(count, high * area) == pytest.approx(tail, rel=1e-6)
    if count:
        assert poisson.sf(count - 1, low * area) == pytest.approx(tail, rel=1e-6)


def test_a_count_is_divided_by_tissue() -> None:
    spot = Hotspot(0.0, 0.0, 1.0, 1.0, 2.0, 8, 4.0, 1.7, 7.9, ())
    result = count_slide(20, 7, 0.55, 12.5, spot)
    assert (result["status"], result["reason"], result["count"], result["below_threshold"], result["threshold"]) == ("ok", "", 20, 7, 0.55)
    assert (result["area_mm2"], result["per_mm2"]) == (12.5, 1.6)
    assert (result["low"], result["high"]) == pytest.approx((12.2165 / 12.5, 30.888 / 12.5), abs=1e-4)
    assert result["hotspot"] == spot.to_json()


def test_detections_near_the_threshold_are_told_unless_lower_ones_are_not_kept() -> None:
    score = np.float32([0.31, 0.42, 0.49, 0.5, 0.58, 0.61, 0.9])
    assert near_threshold(score, Detection(threshold=0.5)) == {"within": 0.1, "counted": 2, "not_counted": 2}
    assert near_threshold(score, Detection(threshold=0.5, keep_above=0.45)) == {"within": 0.1, "counted": 2, "not_counted": None}


def test_areas_are_of_both_sides_of_a_pixel() -> None:
    """600 px of 1 × 4 µm, however the area is asked for."""
    tissue = np.zeros((40, 60), np.uint8)
    tissue[10:30, 20:50] = 1
    raster = Raster(0, (4.0, 8.0), (4.0, 8.0), Size(60, 40), (1.0, 4.0))
    seen = Survey(raster, np.zeros((40, 60, 3), np.uint8), TissueMask(tissue, 240.0), 0.0, StainFit(method="none", trusted=True))
    said = describe_region(tissue == 1, 0.0048, raster, Segmentation(), 9)
    assert [Grounds(tissue == 1, (4.0, 8.0), (0.25, 0.5)).tissue_mm2, seen.tissue_mm2, said["region_mm2"], said["share"]] == [0.0024, 0.0024, 0.0024, 0.5]
    assert pooled_region([said, said | {"region_mm2": 0.0, "tissue_mm2": 0.0048}])["share"] == 0.25, "of all tissue together"


def test_no_mitoses_is_a_count_with_an_upper_bound() -> None:
    result = count_slide(0, 0, 0.5, 4.0, Hotspot(0.0, 0.0, 1.0, 1.0, 2.0, 0, 0.0, 0.0, 1.84, ()))
    assert (result["status"], result["count"], result["per_mm2"], result["low"]) == ("ok", 0, 0.0, 0.0)
    assert result["high"] == pytest.approx(3.689 / 4, abs=1e-3)


def test_without_tissue_there_is_no_count() -> None:
    result = count_slide(0, 0, 0.5, 0.0, None)
    assert (result["status"], result["count"], result["reason"]) == ("abstained", None, "the slide has no tissue")
    assert "per_mm2" not in result
