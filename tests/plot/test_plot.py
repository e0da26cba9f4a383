"""Static pictures: what is drawn lies where it is on the slide, and the numbers are those of the data."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import lifelines
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from sklearn.metrics import roc_auc_score

import wsikit as wk
from wsikit.errors import StoreError, UsageError
from wsikit.grid import TileGrid
from wsikit.plot.curves import wilson
from wsikit.run import Run

mpl.use("agg")


@pytest.fixture
def ax() -> Iterator[Axes]:
    import matplotlib.pyplot as plt

    figure, made = plt.subplots()
    yield made
    figure.canvas.draw()  # what was drawn can be drawn
    plt.close("all")


def tissue_of(ax: Axes) -> np.ndarray:
    """Where the picture beneath is not white, in level-0 px: (M, 2) centres of those pixels."""
    image = ax.images[0]
    rgb = np.asarray(image.get_array())
    x0, x1, y1, y0 = image.get_extent()
    y, x = np.nonzero(rgb.mean(-1) < 215)
    return np.stack([x0 + (x + 0.5) * (x1 - x0) / rgb.shape[1], y0 + (y + 0.5) * (y1 - y0) / rgb.shape[0]], -1)


def test_matplotlib_is_imported_with_the_first_picture_only() -> None:
    program = "import sys, wsikit as wk\nwk.plot.thumbnail\nprint([m for m in sys.modules if m in ('matplotlib', 'torch', 'napari')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_functions_take_and_return_axes(ax: Axes, scored: Run) -> None:
    store = scored.store("lms")
    assert wk.plot.thumbnail(store, ax) is ax
    assert wk.plot.heat_map(store, "sts-subtype", ax) is ax
    assert isinstance(wk.plot.roc([1, 0], [True, False]), Axes), "and make their own"


def test_a_store_and_its_slide_are_drawn_at_the_same_place(ax: Axes, scored: Run, phantom: Any) -> None:
    slide = wk.open_slide(phantom.path)
    wk.plot.thumbnail(slide, ax, side_px=2560)
    own = tissue_of(ax).mean(0)
    assert ax.get_xlim() == (0, 2560)
    assert ax.get_ylim() == (2048, 0)
    ax.clear()
    wk.plot.hotspot(scored.store("lms"), ax=ax, margin=3)
    kept = tissue_of(ax).mean(0)
    assert np.abs(own - kept).max() < 4, "of 2560 px"


def test_tiles_are_outlined_where_the_table_has_them(ax: Axes, scored: Run, phantom: Any) -> None:
    table = scored.store("lms").tables()["sts-subtype"]
    wk.plot.thumbnail(scored.store("lms"), ax, tiles=table)
    paths = [p.get_extents() for p in ax.collections[0].get_paths()]
    assert np.array([(b.x0, b.y0) for b in paths]) == pytest.approx(table["origin"])
    assert np.array([(b.width, b.height) for b in paths]) == pytest.approx(table["size"])
    ax.clear()
    grid = TileGrid(wk.open_slide(phantom.path).raster(1.0), 256)
    wk.plot.thumbnail(wk.open_slide(phantom.path), ax, tiles=grid)
    assert len(ax.collections[0].get_paths()) == len(grid.all_cells())


def test_a_heat_map_lies_on_its_tiles(ax: Axes, scored: Run) -> None:
    store = scored.store("lms")
    wk.plot.heat_map(store, "sts-subtype", ax, channel="UPS")
    heat = ax.images[1]
    x0, x1, y1, y0 = heat.get_extent()
    values = np.asarray(heat.get_array())
    table = store.tables()["sts-subtype"]
    centre = table["origin"] + table["size"] / 2
    column = ((centre[:, 0] - x0) / (x1 - x0) * values.shape[1]).astype(int)
    row = ((centre[:, 1] - y0) / (y1 - y0) * values.shape[0]).astype(int)
    assert values[row, column] == pytest.approx(table["probability"][:, 4])
    assert (x0, y0) == pytest.approx((0, 0), abs=1e-6)
    assert heat.get_clim() == (0, 1)


def test_what_cannot_be_drawn_is_refused_with_the_reason(ax: Axes, scored: Run) -> None:
    store = scored.store("lms")
    with pytest.raises(UsageError, match="no channel 'XYZ'; there are: DDLPS, LMS"):
        wk.plot.heat_map(store, "sts-subtype", ax, channel="XYZ")
    with pytest.raises(StoreError, match="no overlay 'nosuch'"):
        wk.plot.heat_map(store, "nosuch", ax)
    with pytest.raises(StoreError, match="no hotspot of 'sts-subtype'"):
        wk.plot.hotspot(store, "sts-subtype", ax)


def test_an_answer_withheld_is_hatched_and_shows_no_value(ax: Axes, scored: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    store = scored.store("lms")
    result = store.result
    result["pipelines"]["sts-subtype"] = {"status": "abstained", "reason": "strange"}
    monkeypatch.setattr(type(store), "result", property(lambda _: result))
    wk.plot.heat_map(store, "sts-subtype", ax)
    assert len(ax.images) == 1
    assert ax.collections[0].hatches == ["////"]
    assert "abstained" in ax.get_title()
    result["pipelines"]["mitosis"] = {"status": "abstained", "reason": "strange"}
    with pytest.raises(StoreError, match="abstained: strange"):
        wk.plot.hotspot(store, ax=ax)


def test_the_hotspot_shows_its_window_and_its_counted_mitoses(ax: Axes, scored: Run, phantom: Any) -> None:
    store = scored.store("lms")
    wk.plot.hotspot(store, ax=ax, slide=wk.open_slide(phantom.path))
    spot = scored.results["lms"]["pipelines"]["mitosis"]["hotspot"]
    assert f"{spot['count']} in " in ax.get_title()
    outline = next(p for p in ax.patches if p.get_edgecolor()[:3] == pytest.approx((0.902, 0.624, 0), abs=0.01))
    assert outline.get_path().get_extents().bounds == pytest.approx((spot["x"], spot["y"], spot["w"], spot["h"]))
    points = np.asarray(ax.collections[2].get_offsets())
    inside = ((points >= (spot["x"], spot["y"])) & (points < (spot["x"] + spot["w"], spot["y"] + spot["h"]))).all(1)
    assert inside.sum() == spot["count"] > 0
    assert (np.asarray(ax.collections[2].get_edgecolors())[:, 3] > 0).all(), "circles can be seen"


def test_the_scale_bar_is_as_long_as_it_says(ax: Axes, phantom: Any) -> None:
    wk.plot.thumbnail(wk.open_slide(phantom.path), ax)
    bar = ax.patches[1]
    assert bar.get_width() * 2560 * 0.5 == pytest.approx(200)
    assert "200 µm" in [t.get_text() for t in ax.texts]


def test_kaplan_meier_is_that_of_lifelines(ax: Axes) -> None:
    rng = np.random.default_rng(0)
    time, event = rng.exponential(30, 80).round(1), rng.random(80) < 0.6
    group = np.array(["a", "b"])[rng.integers(0, 2, 80)]
    wk.plot.kaplan_meier(time, event, ax, group=group)
    for name in "ab":
        fit = lifelines.KaplanMeierFitter().fit(time[group == name], event[group == name])
        line = next(v for v in ax.lines if v.get_label().startswith(f"{name} ("))
        x, y = np.asarray(line.get_data())
        assert y == pytest.approx(fit.survival_function_at_times(x).to_numpy())
    labels = [t.get_text() for t in ax.get_xticklabels()]
    first = dict.fromkeys(group)
    assert labels[0].split("\n") == ["0", *(str((group == g).sum()) for g in first)]


def test_reliability_and_its_error(ax: Axes) -> None:
    wk.plot.reliability([0.95] * 10 + [0.65] * 10, [True] * 9 + [False] + [True] * 3 + [False] * 7, ax)
    assert ax.get_title() == "ECE 0.200, n = 20"
    assert np.asarray(ax.collections[-1].get_offsets()) == pytest.approx(np.array([[0.65, 0.3], [0.95, 0.9]]))


def test_a_share_lies_within_its_interval_whatever_is_rounded(ax: Axes) -> None:
    n = np.arange(1, 400)
    for right in (n, np.zeros_like(n), n // 2, n - 1):
        share = right / n
        low, high = wilson(share, n)
        assert ((low <= share) & (share <= high)).all()
    for count in range(1, 40):
        wk.plot.reliability([0.9] * count, [True] * count, ax)


def test_wilson_is_that_of_a_textbook() -> None:
    low, high = wilson(np.array([15 / 148]), np.array([148]))  # Newcombe 1998, Stat Med 17:857, table I: 0.0624 to 0.1605
    assert (low[0], high[0]) == pytest.approx((0.0624, 0.1605), abs=5e-5)


def test_roc_and_its_area(ax: Axes) -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(60) < 0.5
    score = truth + rng.normal(size=60)
    wk.plot.roc(score, truth, ax, label="a")
    wk.plot.roc(score[:40], truth[:40], ax, label="b")
    assert ax.lines[1].get_label().startswith(f"a: AUC {roc_auc_score(truth, score):.3f} (")
    assert np.trapezoid(*np.asarray(ax.lines[1].get_data())[::-1]) == pytest.approx(roc_auc_score(truth, score))
    assert ax.lines[1].get_color() != ax.lines[2].get_color()


@pytest.mark.parametrize(
    ("draw", "reason"),
    [
        (lambda: wk.plot.kaplan_meier([1, 2], [True]), "2 times, 1 events"),
        (lambda: wk.plot.kaplan_meier([], []), "at least one"),
        (lambda: wk.plot.kaplan_meier([1, np.nan], [True, True]), "numbers of 0 or more"),
        (lambda: wk.plot.reliability([1.2], [True]), "between 0 and 1"),
        (lambda: wk.plot.roc([1, 2], [True, True]), "needs cases of the class and others"),
        (lambda: wk.plot.roc([1, np.nan], [True, False]), "scores must be numbers"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(draw: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        draw()
