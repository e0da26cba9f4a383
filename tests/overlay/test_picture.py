"""The picture for people: heat where the tiles are, colours that mean what the legend says, nothing claimed when withheld."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsikit.overlay.picture import blend, colours, hatch, heat_top, overview, write_overview
from wsikit.run import Run
from wsikit.store import Overlay
from wsikit.store.image import Placement


def heat(values: list[list[float]], downsample: tuple[float, float], mpp: tuple[float, float]) -> Overlay:
    return Overlay(np.array([values], np.float32), ("A",), Placement.of(downsample, mpp))


def test_heat_lies_where_its_cells_are() -> None:
    """Cells of 40 × 20 level-0 px over pixels of 10 × 10: blocks of 4 × 2, whatever the µm."""
    mpp = (0.25, 0.5)
    rgb = np.full((8, 16, 3), 200, np.uint8)
    over = heat([[1, np.nan, 0, np.nan], [np.nan, 1, np.nan, np.nan], [np.nan] * 4, [np.nan, np.nan, np.nan, 1]], (40, 20), mpp)
    out = blend(rgb, Placement.of((10, 10), mpp), over, 0)
    changed = (out != 200).any(-1)
    expected = np.zeros((8, 16), bool)
    expected[0:2, 0:4] = expected[0:2, 8:12] = expected[2:4, 4:8] = expected[6:8, 12:16] = True
    assert (changed == expected).all()
    assert (out[0, 0] == np.rint(200 * 0.45 + colours(np.array(1.0)) * 0.55)).all()
    assert (out[0, 8] == np.rint(200 * 0.45 + colours(np.array(0.0)) * 0.55)).all()
    assert (rgb == 200).all()


def test_pixels_beyond_the_heat_map_stay_as_they_are() -> None:
    rgb = np.full((10, 10, 3), 200, np.uint8)
    out = blend(rgb, Placement.of((10, 10), (0.5, 0.5)), heat([[0.5]], (30, 30), (0.5, 0.5)), 0)
    assert (out[:3, :3] != 200).any(-1).all()
    assert (out[3:] == 200).all()
    assert (out[:, 3:] == 200).all()


def test_a_withheld_answer_is_hatched_in_grey_only_where_it_was_scored() -> None:
    rgb = np.full((40, 80, 3), 240, np.uint8)
    out = hatch(rgb, Placement.of((10, 10), (0.5, 0.5)), heat([[1, np.nan]], (400, 400), (0.5, 0.5)))
    changed = (out != 240).any(-1)
    assert not changed[:, 40:].any()
    assert 0.1 < changed[:, :40].mean() < 0.5
    assert (out.max(-1) == out.min(-1)).all(), "no colour that could be read as a value"


def test_colours_are_viridis_in_order() -> None:
    assert colours(np.array([0.0, 1.0])).tolist() == [[68, 1, 84], [253, 231, 37]]
    assert colours(np.array([-3.0, 7.0])).tolist() == [[68, 1, 84], [253, 231, 37]]
    lightness = colours(np.linspace(0, 1, 50)) @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > 0).all()


def test_the_last_colour_is_1_or_the_densest() -> None:
    assert heat_top(np.array([0.2, np.nan])) == 1
    assert heat_top(np.array([0.2, 12.5, np.nan])) == 12.5
    assert heat_top(np.array([np.nan])) == 1


def test_the_overview_is_the_slide_at_its_place(scored: Run) -> None:
    store = scored.store("lms")
    rgb, place = overview(store, 640)
    assert (rgb.shape[2], rgb.dtype) == (3, np.uint8)
    assert 320 <= max(rgb.shape[:2]) <= 1280
    width, height = store.attributes["slide"]["size"]
    covered = (rgb.shape[1] * place.scale[0] / store.mpp[0], rgb.shape[0] * place.scale[1] / store.mpp[1])
    assert covered == pytest.approx((width, height), rel=0.02)
    assert place.translation == pytest.approx(tuple((s - m) / 2 for s, m in zip(place.scale, store.mpp, strict=True)))
    enlarged, closer = overview(store, 2000)
    assert max(enlarged.shape[:2]) >= max(rgb.shape[:2])
    assert closer.translation == pytest.approx(tuple((s - m) / 2 for s, m in zip(closer.scale, store.mpp, strict=True)))


def test_dark_nuclei_and_tissue_lie_under_the_heat(scored: Run) -> None:
    """Where the classifier's heat map has a value, the picture shows tissue; far from it, glass."""
    store = scored.store("lms")
    rgb, place = overview(store)
    over = store.overlay("sts-subtype")
    shown = (blend(rgb, place, over, 0).astype(int) != rgb).any(-1)
    assert 0.2 < shown.mean() < 0.9
    assert rgb[shown].mean() < rgb[~shown].mean() - 20


def test_the_sheet_is_written_with_a_panel_each(scored: Run, tmp_path: Path) -> None:
    store = scored.store("lms")
    write_overview(store, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image)
    panels = 1 + len(store.overlays())
    assert pixels.shape[1] > panels * 200
    thirds = np.array_split(pixels, panels, axis=1)
    assert all(t.std() > 10 for t in thirds), "no panel is empty"
    assert (np.abs(pixels.astype(int) - (230, 159, 0)).sum(-1) == 0).sum() > 100, "the hotspot's outline"
    write_overview(store, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
