"""A million detections on the canvas: points where few are in view, their density where many are."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.utils import Colormap
from qtpy.QtCore import QTimer

from wsikit.overlay.picture import colours
from wsikit.review import NAMES, UNSEEN
from wsikit.review.changes import LABELS
from wsikit.review.objects import Objects
from wsikit.view.layers import RING_PX, RING_UM, UNITS, to_world

NEAR = 4_000  # as many points are drawn at most; more are shown as their density
SETTLED_MS = 40  # after a movement
DENSE_CELLS = 512  # along the longer side of the density picture
_COUNTS = np.array([counts for counts, _ in LABELS.values()])
# from white over sky to deep blue: colours that tissue in H&E does not have, in an order that colour-blind eyes see as well
_STOPS = np.array([[255, 255, 255], [86, 180, 233], [0, 30, 200]]) / 255
SCORE_COLOURS = np.column_stack([*(np.interp(np.linspace(0, 1, 256), [0, 0.5, 1], _STOPS[:, i]) for i in range(3)), np.ones(256)])


class DetectionLayers:
    """The layers of one detector: those counted, coloured by score, and a density far out.

    Rings are what nobody has looked at, filled discs were confirmed, crosses rejected, diamonds added.
    """

    def __init__(self, viewer: Any, name: str, found: Objects, mpp: tuple[float, float], size_px: tuple[int, int]) -> None:
        self.viewer, self.name, self.mpp, self._size_px = viewer, name, mpp, size_px
        self.found, self.below = found, False
        ring = {"units": UNITS, "size": RING_UM, "border_width": 0.12, "canvas_size_limits": RING_PX, "out_of_slice_display": False}
        start = np.empty((0, 2))
        self.density = viewer.add_image(**self._density_options())
        self.points = viewer.add_points(start, name=name, face_color="transparent", border_color="white", symbol="disc", features={"score": []}, **ring)
        self._timer = QTimer(interval=SETTLED_MS, singleShot=True)
        self._timer.timeout.connect(self.refresh)
        viewer.scene.camera.events.connect(self._moved)
        self.refresh()

    def close(self) -> None:
        """Stop following the camera."""
        self._timer.stop()
        self.viewer.scene.camera.events.disconnect(self._moved)

    def _moved(self, _: Any = None) -> None:
        if not self._timer.isActive():
            self._timer.start()

    def changed(self, found: Objects) -> None:
        """Objects were labelled, moved, added or taken back."""
        self.found = found
        self.density.data = self._dense()
        self.refresh()

    @property
    def shown(self) -> np.ndarray:
        """Which objects are to be shown: those that count or that a person spoke of; bool (M,)."""
        return np.ones(len(self.found.score), bool) if self.below else self.found.by_model | (self.found.label != UNSEEN)

    def refresh(self) -> None:
        """Points in view when they are few, else the density."""
        rows = self._in_view()
        near = len(rows) <= NEAR
        self.density.visible = not near and self.points.visible
        self._draw(rows if near else rows[:0])

    def _in_view(self) -> np.ndarray:
        """Rows in view, or everywhere as long as that is few."""
        if (everywhere := np.flatnonzero(self.shown)).size <= NEAR:
            return everywhere
        low, high = view_box(self.viewer)
        edges = [np.array(v)[::-1] / np.array(self.mpp) + 0.5 for v in (low, high)]
        p = self.found.position
        return np.flatnonzero(self.shown & (p[:, 0] >= edges[0][0]) & (p[:, 0] <= edges[1][0]) & (p[:, 1] >= edges[0][1]) & (p[:, 1] <= edges[1][1]))

    def _draw(self, rows: np.ndarray) -> None:
        score, label = self.found.score[rows], self.found.label[rows]
        known = np.nan_to_num(score, nan=1.0)
        border = SCORE_COLOURS[(known * 255).astype(int).clip(0, 255)]
        counts = np.where(label == UNSEEN, False, _COUNTS[label])
        face = np.where(counts[:, None], border * (1, 1, 1, 0.45), 0.0)
        symbol = np.full(len(rows), "disc", object)
        symbol[(label != UNSEEN) & ~counts] = "x"
        symbol[rows >= self.found.n_model] = "diamond"
        with self.points.events.blocker_all():
            self.points.data = to_world(self.found.position[rows], self.mpp)
            self.points.set_view_slice()  # at once: what is sliced later, in a thread, would still speak of rows that are gone
            self.points.features = {"row": rows, "score": score, "label": [NAMES[v] if v >= 0 else "" for v in label]}
            if len(rows):
                self.points.border_color, self.points.face_color, self.points.symbol = border, face, symbol
                self.points.size = np.where(symbol == "x", RING_UM / 2, RING_UM)
        self.points.selected_data = set()
        self.points._refresh_sync(thumbnail=False, data_displayed=True, highlight=True, extent=True, force=True)

    def _dense(self) -> np.ndarray:
        """Detections per mm², float32 (H, W); NaN where there is none."""
        w, h = self._size_px
        cell = max(w, h) / DENSE_CELLS
        rows, columns = int(np.ceil(h / cell)), int(np.ceil(w / cell))
        at = np.floor(self.found.position[self.shown] / cell).astype(int)
        at = at[:, 1].clip(0, rows - 1) * columns + at[:, 0].clip(0, columns - 1)
        count = np.bincount(at, minlength=rows * columns).reshape(rows, columns)
        mm2 = cell**2 * self.mpp[0] * self.mpp[1] / 1e6
        return np.where(count > 0, count / mm2, np.nan).astype(np.float32)

    def _density_options(self) -> dict[str, Any]:
        cell = max(self._size_px) / DENSE_CELLS
        scale = np.array([cell * self.mpp[1], cell * self.mpp[0]])
        values = self._dense()
        top = float(np.nanmax(values, initial=1.0, where=~np.isnan(values)))
        shift = scale / 2 - np.array(self.mpp[::-1]) / 2
        steps = np.linspace(0, 1, 33)
        fading = Colormap(np.column_stack([colours(steps) / 255, 0.3 + 0.5 * steps]), name="density")
        more = {"colormap": fading, "contrast_limits": (0.0, top), "blending": "translucent", "interpolation2d": "nearest"}
        return {"data": values, "name": f"{self.name} density", "scale": scale, "translate": shift, "units": UNITS, "visible": False, **more}


def view_box(viewer: Any) -> tuple[np.ndarray, np.ndarray]:
    """The part of the world on the canvas: its upper-left and lower-right corners, µm (y, x)."""
    size = np.array(viewer.canvas.size) / viewer.scene.camera.zoom
    centre = np.array(viewer.scene.camera.center)[-2:]
    return centre - size / 2, centre + size / 2
