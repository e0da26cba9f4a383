"""What is on the screen: real napari, and pixels looked up in its picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest

from wsikit.run import Run
from wsikit.view.app import open_viewer, screenshot, session_of
from wsikit.view.layers import to_world
from wsikit.view.tools import settled

pytestmark = pytest.mark.usefixtures("screen")


@pytest.fixture
def viewer(scored: Run) -> Iterator[Any]:
    v = open_viewer([scored.folder / "slides/lms.zarr"], panels=False)
    session_of(v).add_all()
    yield v
    v.close()


def look(viewer: Any, at_um: np.ndarray, zoom: float, shown: list[str]) -> np.ndarray:
    """The canvas with µm (y, x) in its middle, ``zoom`` screen px per µm, and only some layers: uint8 (H, W, 3)."""
    for layer in viewer.layers:
        layer.visible = layer.name in shown
    viewer.canvas.overlays.text.visible = viewer.canvas.overlays.scale_bar.visible = False
    viewer.scene.camera.center, viewer.scene.camera.zoom = tuple(at_um), zoom
    settled(viewer)
    return np.asarray(viewer.screenshot(canvas_only=True, flash=False))[..., :3]


def test_a_mitosis_is_ringed_where_it_is(viewer: Any, scored: Run) -> None:
    store = scored.store("lms")
    table = store.tables()["mitosis"]
    best = table["position"][table["score"].argmax()]
    picture = look(viewer, to_world(best[None], store.mpp)[0], 4.0, ["slide", "mitosis"]).astype(int)
    ring = np.argwhere((picture[..., 2] > 190) & (picture[..., 2] - picture[..., 0] > 110))  # blue: its score is high
    middle = np.array(picture.shape[:2]) / 2
    near = ring[np.hypot(*(ring - middle).T) < 60]
    assert len(near) > 50
    np.testing.assert_allclose((near.min(0) + near.max(0)) / 2, middle, atol=2.5)  # 4 screen px are 1 µm
    dark = np.argwhere(picture.sum(-1) < 150)
    assert np.hypot(*(dark - middle).T).min() < 16  # the figure itself is inside


def test_heat_covers_exactly_its_cell(viewer: Any, scored: Run) -> None:
    heat = viewer.layers["sts-subtype: LMS"]
    values = heat.data
    row, column = np.argwhere(~np.isnan(values))[len(values) // 2]
    heat.data = np.where(np.arange(values.size).reshape(values.shape) == row * values.shape[1] + column, 1.0, np.nan).astype(np.float32)
    heat.colorbar.visible = False
    heat.colormap, heat.opacity, heat.blending = "red", 1.0, "opaque"
    size_um = np.array(heat.scale)
    centre = np.array(heat.translate) + (row, column) * size_um
    picture = look(viewer, centre, 2.0, [heat.name])
    red = np.argwhere((picture[..., 0] > 200) & (picture[..., 1] < 60))
    middle = np.array(picture.shape[:2]) / 2
    np.testing.assert_allclose((red.min(0) + red.max(0) + 1) / 2, middle, atol=1.5)
    np.testing.assert_allclose(np.ptp(red, axis=0) + 1, size_um * 2.0, atol=2)


def test_the_screenshot_shows_tissue(scored: Run, tmp_path: Path) -> None:
    screenshot([scored.folder], tmp_path / "a.png")
    image = imagecodecs.imread(tmp_path / "a.png")
    assert image.shape[0] >= 800
    assert image.shape[1] >= 1200
    right = image[:, image.shape[1] // 2 :, :3].astype(int)
    assert ((right[..., 0] - right[..., 1]) > 25).mean() > 0.05  # pink
