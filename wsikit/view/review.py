"""The *Review* panel: detections one after the other by keys, regions by a brush, the call with a comment."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout, QGridLayout, QGroupBox, QLabel, QLineEdit, QPushButton, QVBoxLayout, QWidget

from wsikit.errors import WsikitError
from wsikit.overlay.shapes import outlines
from wsikit.report import answer as in_words
from wsikit.review import NAMES, UNSEEN, Review
from wsikit.store.image import Placement
from wsikit.view.layers import UNITS
from wsikit.view.session import Session, session_of

KEYS = {
    "next": "N",
    "previous": "B",
    "accept": "Y",
    "reject": "X",
    "retype": "T",
    "add": "D",
    "undo": "U",
}
BRUSH: dict[str, tuple[Literal["exclude", "tissue", "background"], int]] = {"exclude": ("exclude", 1), "tissue": ("tissue", 2), "no tissue": ("background", 3)}
BRUSH_COLOURS = {None: "transparent", 0: "transparent", 1: (0.2, 0.2, 0.2, 0.6), 2: (0.0, 0.62, 0.45, 0.6), 3: (0.84, 0.37, 0.0, 0.6)}
BRUSH_LAYER = "brush"
BRUSH_UM = 160.0


class ReviewPanel(QWidget):
    """What a person says of the slide that is shown; each change is on the disk before the next."""

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session: Session = session_of(napari_viewer)
        self.viewer = self.session.viewer
        self.row, self._seen = -1, list[int]()
        self.initials, self.comment = QLineEdit(), QLineEdit()
        self.initials.setPlaceholderText("initials")
        self.initials.setMaxLength(20)
        self.initials.textChanged.connect(self._initials)
        self.comment.setPlaceholderText("comment, kept with the next change")
        self.pipeline, self.kind, self.call = QComboBox(), QComboBox(), QComboBox()
        self.kind.addItems(NAMES)
        self.call.setEditable(True)
        self.calls = QComboBox()
        self.calls.currentTextChanged.connect(self._classes)
        self.below = QCheckBox("also those below the threshold")
        self.below.toggled.connect(self._show_below)
        self.status, self.answer = QLabel(), QLabel()
        for label in (self.status, self.answer):
            label.setWordWrap(True)
        self.buttons = {name: QPushButton(f"{name} ({key})") for name, key in KEYS.items()}
        self._lay_out()
        for name, button in self.buttons.items():
            button.clicked.connect(getattr(self, name))
            shortcut = QShortcut(QKeySequence(KEYS[name]), self.viewer.window._qt_window)
            shortcut.activated.connect(getattr(self, name))
        self.session.opened.connect(self.fill)
        self.session.reviewed.connect(self.refresh)
        self.session.told.connect(self.status.setText)
        self.fill()

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        who = QFormLayout()
        who.addRow("Reviewer", self.initials)
        who.addRow("Comment", self.comment)
        layout.addLayout(who)
        box = QGroupBox("Detections, the least certain first")
        grid = QGridLayout(box)
        grid.addWidget(self.pipeline, 0, 0)
        grid.addWidget(self.kind, 0, 1)
        for i, button in enumerate(self.buttons.values()):
            grid.addWidget(button, 1 + i // 2, i % 2)
        grid.addWidget(self.below, 5, 0, 1, 2)
        grid.addWidget(self.status, 6, 0, 1, 2)
        layout.addWidget(box)
        brush = QGroupBox("Brush on regions")
        row = QGridLayout(brush)
        self.brushes = {name: QPushButton(name) for name in BRUSH}
        for i, (name, button) in enumerate(self.brushes.items()):
            button.setCheckable(True)
            button.clicked.connect(lambda on, which=name: self.brush(which if on else ""))
            row.addWidget(button, 0, i)
        layout.addWidget(brush)
        verdict = QGroupBox("Call")
        form = QFormLayout(verdict)
        form.addRow("Of", self.calls)
        form.addRow("Is", self.call)
        self.verdict = QPushButton("Accept or overrule")
        self.verdict.clicked.connect(self.decide)
        form.addRow(self.verdict)
        layout.addWidget(verdict)
        layout.addWidget(self.answer)
        layout.addStretch()

    # what is shown

    @property
    def review(self) -> Review | None:
        """The review of the slide that is shown."""
        return self.session.review

    def fill(self) -> None:
        """Begin with another slide."""
        self.row, self._seen = -1, []
        self.pipeline.clear()
        self.calls.clear()
        review = self.review
        self.setEnabled(review is not None)
        if review is None:
            self.status.setText("Open a scored slide to review it.")
            self.answer.clear()
            return
        self.pipeline.addItems(review.detectors)
        self.calls.addItems([n for n, c in review.cards.items() if c.task == "classify"])
        self.status.setText(f"{len(review.standing)} changes so far. Keys: {', '.join(f'{k} {name}' for name, k in KEYS.items())}.")
        if review.edited:
            self._brush_layer(make=True)
        self.refresh()

    def refresh(self) -> None:
        """Show the answers as they are now."""
        if self.review is None:
            return
        lines = []
        for name in self.review.detectors:
            answer = self.review.answer(name)
            model = self.review.results[name]
            told = f"model: {model['count'] if model['status'] == 'ok' else model['status']}; {_people(answer)}"
            lines.append(f"<b>{name}</b>: {in_words(answer)}<br>{told}")
        self.answer.setText("<br>".join(lines))

    def _classes(self, name: str) -> None:
        self.call.clear()
        if self.review is not None and name in self.review.cards:
            self.call.addItems(list(self.review.cards[name].classes))
            said = self.review.answer(name).get("call")
            self.call.setCurrentText(said or "")

    def _initials(self, text: str) -> None:
        self.session.by = text.strip()
        if self.review is not None:
            self.review.by = self.session.by

    def _show_below(self, on: bool) -> None:
        for shown in self.session.detections.values():
            shown.below = on
            shown.refresh()

    def _go(self, row: int) -> None:
        assert self.review is not None
        name = self.pipeline.currentText()
        found = self.review.objects(name)
        self.row = row
        x, y = found.position[row]
        self.session.look_at((float(x), float(y)))
        label = NAMES[found.label[row]] if found.label[row] != UNSEEN else "not looked at"
        left = len(found.queue(self.review.threshold(name)))
        self.status.setText(f"{name} {row + 1} of {len(found.score)}: score {found.score[row]:.2f}, {label}; {left} not looked at")

    # what is done

    def next(self) -> None:
        """Go to the detection that nobody has looked at and that is nearest to the threshold."""
        if self.review is None or not self.pipeline.currentText():
            return
        name = self.pipeline.currentText()
        queue = self.review.objects(name).queue(self.review.threshold(name))
        left = [r for r in queue.tolist() if r not in set(self._seen)] or queue.tolist()
        if not left:
            self.status.setText("All detections have been looked at.")
            return
        if self.row >= 0 and (not self._seen or self._seen[-1] != self.row):
            self._seen.append(self.row)
            left = [r for r in left if r != self.row] or left
        self._go(left[0])
        self._seen.append(left[0])

    def previous(self) -> None:
        """Go back to the one before."""
        if self.review is not None and len(self._seen) > 1:
            self._seen.pop()
            self._go(self._seen[-1])

    def accept(self) -> None:
        """It is a mitosis."""
        self._label("mitosis")

    def reject(self) -> None:
        """It is none."""
        self._label("lookalike")

    def retype(self) -> None:
        """It is what the list says."""
        self._label(self.kind.currentText())

    def _label(self, label: str) -> None:
        if self.review is None or self.row < 0:
            self.status.setText("Go to a detection first (N).")
            return
        name = self.pipeline.currentText()
        x, y = self.review.objects(name).position[self.row]
        if self._do(lambda r: r.label(name, (float(x), float(y)), label, self.comment.text())):
            self.next()

    def add(self) -> None:
        """There is a mitosis under the mouse."""
        if self.review is None:
            return
        (y, x), mpp, name = np.array(self.viewer.cursor.position)[-2:], self.review.store.mpp, self.pipeline.currentText()
        place = (float(x / mpp[0] + 0.5), float(y / mpp[1] + 0.5))
        self._do(lambda r: r.label(name, place, "mitosis", self.comment.text()))

    def undo(self) -> None:
        """Take the last change back."""
        self._do(lambda r: r.undo(self.comment.text()))
        self._draw_regions()

    def decide(self) -> None:
        """Accept the call, or overrule it by what the field says."""
        name, call = self.calls.currentText(), self.call.currentText().strip()
        if self._do(lambda r: r.verdict(name, call, self.comment.text())):
            self.status.setText(f"{name}: {call}, kept")

    def _do(self, what: Any) -> bool:
        """Say something; what is refused is told, and changes nothing."""
        if self.review is None:
            return False
        self.review.by = self.session.by
        try:
            what(self.review)
        except (WsikitError, OSError) as e:
            self.status.setText(str(e))
            if not self.session.by:
                self.initials.setFocus(Qt.FocusReason.OtherFocusReason)
            return False
        self.comment.clear()
        self.session.changed()
        return True

    # the brush

    def brush(self, which: str) -> None:
        """Paint on the tissue with one of `BRUSH`, or stop."""
        for name, button in self.brushes.items():
            button.setChecked(name == which)
        layer = self._brush_layer(make=bool(which))
        if layer is None:
            return
        layer.mode = "paint" if which else "pan_zoom"
        if which:
            layer.selected_label = BRUSH[which][1]
            layer.brush_size = max(1, round(BRUSH_UM / layer.scale[0]))
            self.viewer.layers.selection.active = layer

    def _brush_layer(self, make: bool) -> Any:
        found = next((v for v in self.viewer.layers if v.name == BRUSH_LAYER), None)
        if found is not None or not make or self.review is None:
            return found
        place = Placement.of(self.review.downsample, self.review.store.mpp)
        where = {"scale": place.scale[::-1], "translate": place.translation[::-1], "units": UNITS}
        found = self.viewer.add_labels(np.zeros(self.review.tissue.shape, np.uint8), name=BRUSH_LAYER, colormap=BRUSH_COLOURS, opacity=1.0, **where)
        found.mouse_drag_callbacks.append(self._painted)
        self.session.own(found)
        self._draw_regions()
        return found

    def _painted(self, layer: Any, _: Any) -> Any:
        """Wait until the stroke ends, then keep it."""
        before = layer.data.copy()
        yield
        while self.viewer.window._qt_window.isVisible() and _.type != "mouse_release":
            yield
        self.stroke(before, layer)

    def stroke(self, before: np.ndarray, layer: Any) -> None:
        """Keep what was painted since ``before`` as a region; what is refused disappears."""
        fresh = (layer.data != before) & (layer.data > 0)
        effect = next((e for e, v in BRUSH.values() if v == layer.selected_label), None)
        if self.review is None or effect is None or not fresh.any():
            return
        region = outlines(fresh, self.review.downsample)
        if not self._do(lambda r: r.area(effect, region, self.comment.text())):
            layer.data = before
        self._draw_regions()

    def _draw_regions(self) -> None:
        """Show what was taken away and added to the tissue."""
        layer = self._brush_layer(make=False)
        if layer is not None and self.review is not None:
            layer.data = self.review.gone.astype(np.uint8) + 2 * self.review.added.astype(np.uint8)


def _people(answer: dict[str, Any]) -> str:
    if (people := answer.get("people")) is None:
        return "what people confirm will count"
    return f"{people['confirmed']} confirmed, {people['rejected']} rejected, {people['added']} added, {people['not_looked_at']} not looked at"
