"""A scripted session with real napari: keys and clicks through Qt, and what is kept in the end."""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsikit.run import Run
from wsikit.run.again import verify_run
from wsikit.run.reviewed import open_review
from wsikit.slide import Slide
from wsikit.view.app import PANELS, open_viewer, session_of
from wsikit.view.layers import to_world
from wsikit.view.review import BRUSH_LAYER, KEYS
from wsikit.view.tools import MEASURE, magnification, settled, wrapped, write_picture

pytestmark = pytest.mark.usefixtures("screen")


@pytest.fixture(scope="module")
def folder(scored: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run, whose table also names a doubtful slide and one that failed."""
    out = tmp_path_factory.mktemp("reviewed") / "run"
    shutil.copytree(scored.folder, out)
    with (out / "slides.csv").open() as f:
        (row,) = csv.DictReader(f)
    others = [row | {"slide_id": "sure", "sts-subtype.doubt": "0.001", "rms-subtype.doubt": "0"}, {"slide_id": "bad", "status": "failed", "reason": "torn"}]
    with (out / "slides.csv").open("w") as f:
        writer = csv.DictWriter(f, list(row), restval="")
        writer.writeheader()
        writer.writerows([others[1], others[0], row])
    return out


@pytest.fixture(scope="module")
def viewer(screen: str, folder: Path) -> Iterator[Any]:
    from qtpy.QtTest import QTest

    v = open_viewer([folder])
    v.window.resize(1000, 750)  # every pixel is drawn by the processor here
    v.window._qt_window.activateWindow()
    assert QTest.qWaitForWindowActive(v.window._qt_window, 10_000)
    yield v
    v.close()


def press(viewer: Any, name: str) -> None:
    """A key on the window, as a person's."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    QTest.keyClick(viewer.window._qt_window, getattr(Qt.Key, f"Key_{KEYS[name]}"))


def panel(viewer: Any, name: str) -> Any:
    return viewer.window.dock_widgets[name]


def test_the_run_opens_with_its_panels_and_the_doubtful_slide_first(viewer: Any, folder: Path) -> None:
    assert set(PANELS) <= set(viewer.window.dock_widgets)
    table = panel(viewer, "Cases").table
    assert [table.item(i, 0).text() for i in range(3)] == ["lms", "sure", "bad"]
    assert table.item(table.currentRow(), 0).text() == "lms"
    shown = {v.name for v in viewer.layers if v.visible}
    assert {"slide", "sts-subtype: LMS", "mitosis", "mitosis hotspot"} <= shown
    table.cellClicked.emit(2, 0)
    assert "slides.csv says why" in panel(viewer, "Cases").count.text()
    assert session_of(viewer).store.slide_id == "lms", "what was shown stays"


def test_the_answers_lie_in_front_of_the_other_panels(viewer: Any) -> None:
    from qtpy.QtWidgets import QApplication, QTabBar

    QApplication.processEvents()
    assert [b.tabText(b.currentIndex()) for b in viewer.window._qt_window.findChildren(QTabBar) if b.count() == len(PANELS) - 1] == ["Call"]


def test_the_call_panel_tells_answers_doubt_and_facts(viewer: Any) -> None:
    from qtpy.QtWidgets import QLabel, QToolButton

    call = panel(viewer, "Call")
    text = " ".join(label.text() for label in call.findChildren(QLabel))
    for part in ("sts-subtype: LMS", "Doubt 0.01", "95 %", "tiff resolution", "Not a medical device", "high risk"):
        assert part in text
    button = call.findChildren(QToolButton)[0]
    before = tuple(viewer.scene.camera.center)
    button.click()
    assert tuple(viewer.scene.camera.center) != before


def test_a_scripted_review_ends_in_the_right_count(viewer: Any, folder: Path) -> None:
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    review, session = panel(viewer, "Review"), session_of(viewer)
    n = session.review.results["mitosis"]["count"]
    review.fill()
    press(viewer, "next")
    queue = session.review.objects("mitosis").queue(0.5)
    assert review.row == queue[0]
    press(viewer, "accept")
    assert "initials" in review.status.text(), "nobody is not a reviewer"
    assert session.review.standing == []
    QTest.keyClicks(review.initials, "AB")
    viewer.window._qt_window.setFocus()
    press(viewer, "accept")
    assert review.row == queue[1]
    press(viewer, "reject")
    press(viewer, "next")
    press(viewer, "previous")
    assert review.row == queue[2]
    QTest.mouseClick(review.buttons["reject"], Qt.MouseButton.LeftButton)
    press(viewer, "undo")
    review.kind.setCurrentText("apoptosis")
    review._go(int(queue[3]))
    press(viewer, "retype")
    viewer.cursor.position = tuple(to_world(np.array([[1500.0, 1000.0]]), (0.5, 0.5))[0])
    press(viewer, "add")
    answer = session.review.answer("mitosis")
    assert answer["count"] == n - 2 + 1
    assert answer["people"] | {"labels": 0} == {"confirmed": 1, "rejected": 2, "added": 1, "not_looked_at": n - 3, "off_tissue": 0, "labels": 0}
    again = open_review(folder, "lms")  # what is on the disk now, before anything was closed
    assert again.answer("mitosis") == answer
    assert again.objects("mitosis").position[-1] == pytest.approx((1500, 1000), abs=1e-6)
    symbols = {str(v) for v in viewer.layers["mitosis"].symbol}
    assert {"disc", "cross" if "cross" in symbols else "x", "diamond"} <= symbols


def stroke(viewer: Any, layer: Any, at: tuple[int, int], drag_px: int = 30) -> np.ndarray:
    """The brush pressed on a pixel of the raster (row, column), drawn along and let go; what it covers, bool (H, W)."""
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest

    canvas = viewer.window._qt_viewer.canvas.native
    viewer.scene.camera.center, viewer.scene.camera.zoom = tuple(layer.data_to_world(at)), 1.0
    settled(viewer)
    middle, covered = QPoint(canvas.width() // 2, canvas.height() // 2), layer.data.copy()

    def watch(_: Any) -> None:
        covered[layer.data == layer.selected_label] = layer.selected_label

    layer.events.paint.connect(watch)
    QTest.mousePress(canvas, Qt.MouseButton.LeftButton, pos=middle)
    if drag_px:
        QTest.mouseMove(canvas, middle + QPoint(drag_px, 0))
        QTest.qWait(50)
    QTest.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=middle + QPoint(drag_px, 0))
    QTest.qWait(50)
    layer.events.paint.disconnect(watch)
    return np.asarray(covered == layer.selected_label)


def test_the_brush_excludes_what_it_paints(viewer: Any, folder: Path) -> None:
    review, session = panel(viewer, "Review"), session_of(viewer)
    before = session.review.tissue_mm2
    review.brushes["exclude"].click()
    layer = viewer.layers[BRUSH_LAYER]
    assert (layer.mode, layer.selected_label) == ("paint", 1)
    painted = stroke(viewer, layer, (60, 60)) & (session.review.store.tissue() == 1)
    assert painted.sum() > 50
    assert (session.review.gone == painted).all(), "to the pixel"
    assert session.review.tissue_mm2 == pytest.approx(before - painted.sum() * 64e-6)
    press(viewer, "undo")
    assert session.review.tissue_mm2 == before
    assert not layer.data.any()
    n = len(session.review.entries)
    stroke(viewer, layer, (60, 60), drag_px=0)
    assert len(session.review.entries) == n + 1, "a click is a stroke"
    press(viewer, "undo")
    review.brush("")


def test_the_call_is_overruled_and_all_is_in_the_tables(viewer: Any, folder: Path) -> None:
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    review, session = panel(viewer, "Review"), session_of(viewer)
    review.calls.setCurrentText("sts-subtype")
    assert review.call.currentText() == "LMS"
    review.call.lineEdit().selectAll()
    QTest.keyClicks(review.call.lineEdit(), "MFS")
    QTest.keyClicks(review.comment, "myxoid")
    QTest.mouseClick(review.verdict, Qt.MouseButton.LeftButton)
    assert [(e.by, e.comment) for e in session.review.standing[-1:]] == [("AB", "myxoid")]
    session.commit()
    with (folder / "slides.csv").open() as f:
        row = next(r for r in csv.DictReader(f) if r["slide_id"] == "lms")
    assert (row["sts-subtype.call"], row["sts-subtype.reviewed_call"], row["sts-subtype.reviewed_comment"]) == ("LMS", "MFS", "myxoid")
    assert row["mitosis.reviewed_by"] == "AB"
    assert list(verify_run(folder)) == []


def test_outlines_and_rings_are_seen_at_every_zoom(viewer: Any) -> None:
    outline, rings = viewer.layers["mitosis hotspot"], viewer.layers["mitosis"]
    for zoom in (0.02, 0.5, 4.0):  # screen px per µm
        viewer.scene.camera.zoom = zoom
        session_of(viewer)._zoomed.timeout.emit()
        assert outline.edge_width[0] * zoom == pytest.approx(3.0, rel=0.12)
    assert rings.canvas_size_limits[0] >= 8


def test_a_legend_is_as_wide_as_its_picture() -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(14)
    lines = wrapped("one two three four five six seven", font, 80)
    assert " ".join(lines) == "one two three four five six seven"
    assert max(font.getlength(line) for line in lines) <= 80 < font.getlength(" ".join(lines[:2]))


KILLED = """
import os, signal, sys
from pathlib import Path
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from wsikit.view.app import open_viewer
viewer = open_viewer([Path(sys.argv[1])])
window, panel = viewer.window._qt_window, viewer.window.dock_widgets["Review"]
window.activateWindow()
assert QTest.qWaitForWindowActive(window, 10_000)
QTest.keyClicks(panel.initials, "CD")
window.setFocus()
for key in "NYXX":
    QTest.keyClick(window, getattr(Qt.Key, f"Key_{key}"))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_window_that_is_killed_has_kept_every_key(scored: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(scored.folder, tmp_path / "run"))
    before = open_review(folder, "lms")
    found = before.objects("mitosis")
    first, *others = found.by_model[found.queue(0.5)[:3]]
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    after = open_review(folder, "lms")
    assert [e.by for e in after.standing] == ["CD"] * 3
    assert after.answer("mitosis")["count"] == before.answer("mitosis")["count"] + (not first) - sum(others)
    assert list(verify_run(folder)) == []


def test_magnification_measures_and_pictures(viewer: Any, tmp_path: Path) -> None:
    viewer.scene.camera.zoom = 4.0
    assert magnification(viewer) == "0.25 µm per screen px, as a 40× objective scans"
    navigator = panel(viewer, "Navigator")
    navigator.measure("add_polygon")
    viewer.layers[MEASURE].add_polygons(np.array([[0.0, 0.0], [0.0, 200.0], [100.0, 200.0], [100.0, 0.0]]))
    viewer.layers[MEASURE].add_lines(np.array([[0.0, 0.0], [30.0, 40.0]]))
    assert list(viewer.layers[MEASURE].features["text"]) == ["0.020 mm²", "50.0 µm"]
    write_picture(session_of(viewer), tmp_path / "a.png")
    import imagecodecs

    picture = imagecodecs.imread(tmp_path / "a.png")
    assert picture.shape[0] > viewer.canvas.size[0]
    assert np.ptp(picture) > 100


def test_all_of_the_slide_is_in_view_and_what_lies_beyond_it_is_not(viewer: Any) -> None:
    far = viewer.add_image(np.zeros((8, 8)), scale=(9000, 9000))  # as one tile is to a small slide
    session_of(viewer).fit_view()
    (top, left), (bottom, right) = viewer.layers["slide"].extent.world
    assert viewer.scene.camera.center[-2:] == pytest.approx(((top + bottom) / 2, (left + right) / 2), rel=0.01)
    shown = min(viewer.canvas.size[0] / (bottom - top), viewer.canvas.size[1] / (right - left))
    assert 0.8 * shown < viewer.scene.camera.zoom <= shown
    viewer.layers.remove(far)


def test_a_million_points_are_shown_as_density_and_near_as_points(viewer: Any) -> None:
    from wsikit.review.objects import Objects
    from wsikit.view.detections import NEAR, DetectionLayers, view_box

    rng = np.random.default_rng(0)
    n = 1_000_000
    position = rng.random((n, 2)) * [2560, 2048]
    found = Objects(position, rng.random(n).astype(np.float32), np.ones(n, bool), (0.5, 0.5), 7.5)
    many = DetectionLayers(viewer, "many", found, (0.5, 0.5), (2560, 2048))
    viewer.reset_view()
    many.refresh()
    assert many.density.visible
    assert len(many.points.data) == 0
    viewer.scene.camera.center, viewer.scene.camera.zoom = (300.0, 400.0), 30.0
    seconds = []
    for shift in range(5):
        viewer.scene.camera.center = (300.0 + shift, 400.0)
        start = time.perf_counter()
        many.refresh()
        seconds.append(time.perf_counter() - start)
    (y0, x0), (y1, x1) = view_box(viewer)
    world = to_world(position, (0.5, 0.5))
    inside = ((world >= (y0, x0)) & (world <= (y1, x1))).all(1)
    assert 0 < inside.sum() == len(many.points.data) <= NEAR
    assert not many.density.visible
    assert np.median(seconds) < 1.0, "with room for a busy machine"
    from wsikit.view.tools import settled

    for zoom in (30.0, 60.0, 120.0, 30.0):  # fewer and fewer points, with what was drawn before still on the canvas
        settled(viewer)
        viewer.scene.camera.zoom = zoom
        many.refresh()
    many.close()
    viewer.layers.remove(many.points)
    viewer.layers.remove(many.density)


@pytest.mark.slow
def test_a_slide_is_scored_in_the_background(viewer: Any, phantom: Any, tmp_path: Path) -> None:
    from qtpy.QtTest import QTest

    session, run = session_of(viewer), panel(viewer, "Run")
    session.show_slide(Slide(phantom.path))
    run.folder.setText(str(tmp_path))
    for name, (box, _) in run.chosen.items():
        box.setChecked(name == "sts-subtype")
    run.begin()
    until = time.monotonic() + 240
    while run.work.running and time.monotonic() < until:
        QTest.qWait(50)
    assert "Done" in run.status.text()
    assert session.store.slide_id == "lms"
    assert session.store.path.is_relative_to(tmp_path)
    assert not any("so far" in v.name for v in viewer.layers)
    session.show_slide(Slide(phantom.path))
    run.folder.setText(str(tmp_path / "again"))
    run.begin()
    run.work.process.waitForStarted()
    QTest.qWait(300)
    run.cancel()
    while run.work.running and time.monotonic() < until:
        QTest.qWait(50)
    assert "Cancelled" in run.status.text()
    assert run.start.isEnabled()


def test_overlays_appear_as_blocks_finish(viewer: Any, scored: Run, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    folder = tmp_path / "run"
    shutil.copytree(scored.folder, folder)
    table = scored.store("lms").tables()
    parts = folder / "slides/lms.parts"
    for name in ("sts-subtype", "mitosis"):
        (parts / name).mkdir(parents=True)
    n = len(table["sts-subtype"]["tissue"])
    half = np.arange(n // 2)
    save_file({"row": half, "probability": table["sts-subtype"]["probability"][: n // 2]}, parts / "sts-subtype/r0c0.safetensors")
    save_file({k: table["mitosis"][k] for k in ("position", "score")}, parts / "mitosis/r0c0.safetensors")
    run = panel(viewer, "Run")
    run._live = {"out": folder, "parts": {}, "layers": {}}
    run._overlays()
    shown = {v.name: v for v in viewer.layers}
    assert len(shown["mitosis (so far)"].data) == (table["mitosis"]["score"] >= 0.5).sum()
    assert np.isfinite(shown["sts-subtype (so far)"].data).sum() == n // 2
    run._clear_live()
