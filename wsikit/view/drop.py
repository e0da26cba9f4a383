"""Drag and drop: slides, stores and runs open at once, where napari by itself would ask which of its readers is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QEvent, QObject, Qt

from wsikit.errors import WsikitError
from wsikit.view.reader import get_reader
from wsikit.view.session import Session

ASKS = Qt.KeyboardModifier.AltModifier | Qt.KeyboardModifier.ShiftModifier  # napari's own keys: choose a reader, stack


class Drops(QObject):
    """Takes what wsikit reads from what is dropped on a window; all else goes napari's way."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        session.viewer.window._qt_viewer.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: D102 (Qt's name)
        if event.type() != QEvent.Type.Drop or not (paths := _ours(event)):
            return bool(super().eventFilter(watched, event))
        event.accept()
        try:
            self.session.open(paths)
        except WsikitError as e:
            show_error(str(e))
        return True


def _ours(event: Any) -> list[Path]:
    """The files of a drop, when wsikit reads all of them."""
    urls = event.mimeData().urls()
    if event.modifiers() & ASKS or not all(url.isLocalFile() for url in urls):
        return []
    paths = [Path(url.toLocalFile()) for url in urls]
    return paths if all(get_reader(str(path)) is not None for path in paths) else []
