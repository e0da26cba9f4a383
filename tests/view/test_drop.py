"""Files dropped on a real window by Qt: the right layers, and no questions."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsikit.run import Run
from wsikit.view.app import add_panels, dress, session_of

pytestmark = pytest.mark.usefixtures("screen")


@pytest.fixture(scope="module")
def viewer(screen: str, scored: Run) -> Iterator[Any]:  # torch first: its compiler and a canvas drawn by LLVM do not go together the other way round
    import napari

    v: Any = napari.Viewer(title="wsikit")
    v.window.resize(1000, 750)
    dress(v)
    add_panels(v)
    yield v
    v.close()


def drop(viewer: Any, *paths: Path) -> bool:
    """What a window system sends when files are dragged in and let go; whether it was taken."""
    from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
    from qtpy.QtGui import QDragEnterEvent, QDropEvent
    from qtpy.QtWidgets import QApplication

    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(p)) for p in paths])
    where, how = viewer.window._qt_viewer, (Qt.DropAction.CopyAction, mime, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier)
    enter = QDragEnterEvent(QPoint(300, 300), *how)
    QApplication.sendEvent(where, enter)
    assert enter.isAccepted()
    event = QDropEvent(QPointF(300, 300), *how)
    event.ignore()
    QApplication.sendEvent(where, event)
    return event.isAccepted()


def shown(viewer: Any) -> set[str]:
    return {v.name for v in viewer.layers if v.visible}


def test_a_slide_opens_as_one_lazy_pyramid_in_um(viewer: Any, phantom: Any) -> None:
    assert drop(viewer, phantom.path)
    (layer,) = viewer.layers
    assert (layer.name, layer.multiscale, len(layer.data)) == (phantom.path.name, True, 4)
    assert tuple(layer.scale) == (0.5, 0.5)
    assert [str(u) for u in layer.units] == ["micrometer"] * 2
    assert session_of(viewer).store is None


def test_several_slides_are_cases_to_choose_from(viewer: Any, phantom: Any, scored: Run, tmp_path: Path) -> None:
    other = Path(shutil.copy(phantom.path, tmp_path / "other.tif"))
    assert drop(viewer, phantom.path, other, scored.folder / "slides/lms.zarr")
    assert shown(viewer) == {phantom.path.name}
    cases = viewer.window.dock_widgets["Cases"]
    names = [cases.table.item(i, 0).text() for i in range(cases.table.rowCount())]
    assert names == [phantom.path.name, "other.tif", "lms"]
    assert cases.count.text().startswith("3 slides.")
    for row, name in ((1, "other.tif"), (2, "slide"), (0, phantom.path.name)):
        cases._open(row, 0)
        assert name in shown(viewer)


def test_slides_of_the_same_name_are_listed_by_their_paths(viewer: Any, phantom: Any, tmp_path: Path) -> None:
    again = Path(shutil.copy(phantom.path, tmp_path))
    assert drop(viewer, phantom.path, again)
    assert [r["slide_id"] for r in session_of(viewer).rows] == [str(phantom.path), str(again)]


def test_a_run_among_others_is_refused_in_words(viewer: Any, phantom: Any, scored: Run) -> None:
    from napari.utils.notifications import notification_manager

    before = shown(viewer)
    assert drop(viewer, scored.folder, phantom.path)
    assert "a run is shown by itself" in notification_manager.records[-1].message
    assert shown(viewer) == before


def test_a_store_opens_with_its_overlays_in_the_slides_place(viewer: Any, scored: Run) -> None:
    assert drop(viewer, scored.folder / "slides/lms.zarr")
    assert {"slide", "sts-subtype: LMS", "mitosis", "mitosis hotspot"} <= shown(viewer)
    assert "lms.tif" not in {v.name for v in viewer.layers}, "the slide that was there is gone"
    store = session_of(viewer).store
    assert store is not None
    assert len(viewer.layers["mitosis"].data) == store.result["pipelines"]["mitosis"]["count"]
    for layer in (viewer.layers["slide"], viewer.layers["sts-subtype: LMS"]):
        np.testing.assert_allclose(np.array(layer.translate) - np.array(layer.scale) / 2, (-0.25, -0.25), atol=1e-9, err_msg="its first pixel's corner")


def test_a_run_opens_its_list_and_its_most_doubtful_slide(viewer: Any, scored: Run, tmp_path: Path) -> None:
    run = Path(shutil.copytree(scored.folder, tmp_path / "a run of July", ignore=shutil.ignore_patterns("reports")))
    assert drop(viewer, run)
    cases = viewer.window.dock_widgets["Cases"]
    assert [cases.table.item(i, 0).text() for i in range(cases.table.rowCount())] == ["lms"]
    session = session_of(viewer)
    assert session.store is not None
    assert session.store.path == run / "slides/lms.zarr"
    assert {"slide", "mitosis", "mitosis hotspot"} <= shown(viewer)


def test_what_cannot_be_opened_is_told_and_leaves_what_was_shown(viewer: Any, scored: Run, tmp_path: Path) -> None:
    from napari.utils.notifications import notification_manager

    before = shown(viewer)
    broken = Path(shutil.copytree(scored.folder / "slides/lms.zarr", tmp_path / "b.zarr"))
    (tmp_path / "b.json").write_text("{")
    assert drop(viewer, broken)
    assert "b.json" in notification_manager.records[-1].message
    assert shown(viewer) == before
