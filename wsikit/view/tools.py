"""The *Navigator*: where on the slide one is, at which magnification; measuring; a picture to keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from qtpy.QtCore import QRectF, Qt, QTimer
from qtpy.QtGui import QColor, QImage, QMouseEvent, QPainter, QPaintEvent, QPen, QPixmap
from qtpy.QtWidgets import QApplication, QFileDialog, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from wsikit.errors import WsikitError
from wsikit.overlay.picture import overview
from wsikit.store.durable import atomic_path
from wsikit.view.detections import view_box
from wsikit.view.layers import UNITS
from wsikit.view.session import Session, session_of

SIDE_PX = 240
MEASURE = "measure"
OBJECTIVE_UM = 10.0  # µm per screen px times the objective: 0.25 µm/px is what a 40× scanner gives


def objective(um_per_px: float) -> float:
    """The objective of a scanner that gives this resolution.

    >>> objective(0.25), objective(1.0)
    (40.0, 10.0)
    """
    return OBJECTIVE_UM / um_per_px


class Thumbnail(QLabel):
    """The whole slide, with the part in view framed; a click goes there."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.extent_um: tuple[float, float] = (1.0, 1.0)  # width, height
        self.setFixedHeight(SIDE_PX)
        self.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        self.setToolTip("Click to go there")

    def fill(self) -> None:
        """Show the slide that is open."""
        store, slide = self.session.store, self.session.slide
        if store is not None:
            rgb, size, mpp = overview(store, SIDE_PX)[0], store.attributes["slide"]["size"], store.mpp
        elif slide is not None:
            rgb, size, mpp = slide.thumbnail(2 * SIDE_PX), slide.size, slide.mpp or (1.0, 1.0)
        else:
            self.clear()
            return
        self.extent_um = (size[0] * mpp[0], size[1] * mpp[1])
        data = np.ascontiguousarray(rgb)
        picture = QImage(data.data, data.shape[1], data.shape[0], 3 * data.shape[1], QImage.Format.Format_RGB888).copy()
        w, h = self.extent_um
        scale = min(SIDE_PX / h, 320 / w)
        self.setPixmap(QPixmap.fromImage(picture.scaled(max(1, round(w * scale)), max(1, round(h * scale)))))

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: D102 (Qt's name)
        super().paintEvent(event)
        if (picture := self.pixmap()) is None or picture.isNull():
            return
        (top, left), (bottom, right) = view_box(self.session.viewer)
        x, y = picture.width() / self.extent_um[0], picture.height() / self.extent_um[1]
        painter = QPainter(self)
        painter.setPen(QPen(QColor("#d55e00"), 2))
        frame = QRectF(left * x, top * y, (right - left) * x, (bottom - top) * y)
        painter.drawRect(frame.intersected(QRectF(1, 1, picture.width() - 2, picture.height() - 2)))
        painter.end()

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: D102 (Qt's name)
        picture = self.pixmap()
        if picture is not None and not picture.isNull():
            at = event.position()
            um = (at.y() / picture.height() * self.extent_um[1], at.x() / picture.width() * self.extent_um[0])
            self.session.viewer.scene.camera.center = um


class Navigator(QWidget):
    """Thumbnail, magnification, measuring and pictures."""

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session: Session = session_of(napari_viewer)
        self.viewer = self.session.viewer
        self.thumbnail, self.magnification, self.said = Thumbnail(self.session), QLabel(), QLabel()
        self.said.setWordWrap(True)
        row = QWidget()
        line = QHBoxLayout(row)
        line.setContentsMargins(0, 0, 0, 0)
        for title, what in (("Length", lambda: self.measure("add_line")), ("Area", lambda: self.measure("add_polygon")), ("Picture…", self.save)):
            button = QPushButton(title)
            button.clicked.connect(lambda _=False, act=what: act())
            line.addWidget(button)
        layout = QVBoxLayout(self)
        for widget in (self.thumbnail, self.magnification, row, self.said):
            layout.addWidget(widget)
        layout.addStretch()
        self._timer = QTimer(interval=50, singleShot=True)
        self._timer.timeout.connect(self._follow)
        self.viewer.scene.camera.events.connect(lambda _: self._timer.isActive() or self._timer.start())
        self.session.opened.connect(self._opened)
        self._opened()

    def _opened(self) -> None:
        self.thumbnail.fill()
        self._follow()

    def _follow(self) -> None:
        self.thumbnail.update()
        self.magnification.setText(magnification(self.viewer))

    def measure(self, mode: str) -> None:
        """Draw a line or an outline; its length or area stands beside it."""
        layer = next((v for v in self.viewer.layers if v.name == MEASURE), None)
        if layer is None:
            text = {"string": "{text}", "color": "black", "size": 12, "anchor": "upper_left"}
            colours = {"edge_color": "#0072b2", "face_color": "transparent", "edge_width": 3.0 / self.viewer.scene.camera.zoom}
            layer = self.viewer.add_shapes([], ndim=2, name=MEASURE, features={"text": np.empty(0, str)}, text=text, units=UNITS, **colours)
            layer.events.data.connect(lambda _: label_measures(layer))
        layer.mode = mode
        self.viewer.layers.selection.active = layer

    def save(self) -> None:
        """Ask where to keep a picture of the canvas, and write it."""
        path, _ = QFileDialog.getSaveFileName(self, "Keep a picture", "slide.png", "PNG (*.png)")
        if path:
            try:
                write_picture(self.session, Path(path))
                self.said.setText(f"Kept as {path}")
            except (WsikitError, OSError) as e:
                self.said.setText(str(e))


def magnification(viewer: Any) -> str:
    """What the screen shows now, as µm per screen px and as the objective that gives it."""
    um = 1 / viewer.scene.camera.zoom
    return f"{um:.3g} µm per screen px, as a {objective(um):.3g}× objective scans"


def label_measures(layer: Any) -> None:
    """Write length (µm or mm) or area (mm²) beside each measure."""
    texts = [measured(shape, kind) for shape, kind in zip(layer.data, layer.shape_type, strict=True)]
    if len(layer.features) == len(texts) and list(layer.features["text"]) != texts:
        layer.features = {"text": texts}
        layer.refresh_text()


def measured(corners: np.ndarray, kind: str) -> str:
    """The length of a line or path, or the area of what an outline encloses, from µm (M, 2).

    >>> measured(np.array([[0, 0], [30, 40]]), "line"), measured(np.array([[0, 0], [0, 2000], [1000, 2000], [1000, 0]]), "polygon")
    ('50.0 µm', '2.000 mm²')
    """
    y, x = np.asarray(corners, np.float64)[:, -2:].T
    if kind in ("line", "path"):
        um = float(np.hypot(np.diff(x), np.diff(y)).sum())
        return f"{um:.1f} µm" if um < 1000 else f"{um / 1000:.3f} mm"
    um2 = abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2
    if kind == "ellipse":
        um2 *= np.pi / 4
    return f"{um2 / 1e6:.3f} mm²" if um2 >= 1e4 else f"{um2:.0f} µm²"


def settled(viewer: Any) -> None:
    """Wait until what is in view is on the canvas."""
    QApplication.processEvents()
    viewer._layer_slicer.wait_until_idle(timeout=60)
    QApplication.processEvents()


def write_picture(session: Session, path: Path) -> None:
    """The canvas with its scale bar and legends, and below it what it is.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    viewer = session.viewer
    session.fit_outlines()
    settled(viewer)
    canvas = Image.fromarray(viewer.screenshot(canvas_only=True, flash=False)[..., :3])
    font = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", 14)  # Pillow's own has no µ
    names = [v.name for v in viewer.layers if v.visible]
    what = session.store.slide_id if session.store else session.slide.path.name if session.slide else ""
    lines = [f"{what}: {', '.join(names)}", f"{magnification(viewer)}. Research use only; not for diagnosis."]
    if session.detections:
        lines.insert(1, "rings: nobody has looked; filled: confirmed; crosses: rejected; diamonds: added; the bluer, the higher the score")
    lines = [part for line in lines for part in wrapped(line, font, canvas.width - 16)]
    sheet = Image.new("RGB", (canvas.width, canvas.height + 22 * len(lines) + 8), "white")
    sheet.paste(canvas, (0, 0))
    for i, line in enumerate(lines):
        ImageDraw.Draw(sheet).text((8, canvas.height + 4 + 22 * i), line, (30, 30, 30), font)
    with atomic_path(path) as file:
        sheet.save(file, "PNG")


def wrapped(text: str, font: Any, width_px: float) -> list[str]:
    """Text in lines that are no wider than that, as long as its words are not."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width_px:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
