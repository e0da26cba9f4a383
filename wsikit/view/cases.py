"""The *Cases* panel: a run's table, doubtful slides first; a click opens one."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractItemView, QLabel, QTableWidget, QTableWidgetItem, QVBoxLayout, QWidget

from wsikit.errors import WsikitError
from wsikit.view.session import Session, session_of


class _Cell(QTableWidgetItem):
    """Text that sorts as the number that it is."""

    def __lt__(self, other: QTableWidgetItem) -> bool:
        try:
            return float(self.text()) < float(other.text())
        except ValueError:
            return self.text() < other.text()


class Cases(QWidget):
    """All slides of the run that is open."""

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session: Session = session_of(napari_viewer)
        self.count, self.table = QLabel("Drop a run's folder or a store here"), QTableWidget()
        self.count.setWordWrap(True)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.verticalHeader().hide()
        self.table.cellClicked.connect(self._open)
        layout = QVBoxLayout(self)
        layout.addWidget(self.count)
        layout.addWidget(self.table)
        self.session.listed.connect(self.fill)
        self.session.opened.connect(self._mark)
        self.fill()

    def fill(self) -> None:
        """Show the session's rows, in their order."""
        rows = self.session.rows
        names = columns(rows)
        self.table.setSortingEnabled(False)
        self.table.setRowCount(len(rows))
        self.table.setColumnCount(len(names))
        self.table.setHorizontalHeaderLabels([title for _, title in names])
        for i, row in enumerate(rows):
            for j, (name, _) in enumerate(names):
                cell = _Cell(short(row, name))
                cell.setToolTip(row.get("reason") or next((v for k, v in row.items() if k.endswith(".reason") and v), ""))
                self.table.setItem(i, j, cell)
        self.table.setSortingEnabled(True)
        self.table.horizontalHeader().setSortIndicator(-1, Qt.SortOrder.AscendingOrder)  # doubtful first, until a header is clicked
        self.table.resizeColumnsToContents()
        if rows:
            order = ", doubtful ones first" if len(rows) > 1 and "status" in rows[0] else ""
            self.count.setText(f"{len(rows)} slide{'' if len(rows) == 1 else 's'}{order}. Research use only.")
        self._mark()

    def _mark(self) -> None:
        store, slide = self.session.store, self.session.slide
        shown = store.slide_id if store is not None else slide.path.name if slide is not None else ""
        for i in range(self.table.rowCount()):
            item = self.table.item(i, 0)
            if item is not None and item.text() == shown:
                self.table.selectRow(i)

    def _open(self, row: int, _: int) -> None:
        item = self.table.item(row, 0)
        if item is None:
            return
        try:
            self.session.open_case(item.text())
        except WsikitError as e:
            self.count.setText(str(e))


def columns(rows: list[dict[str, str]]) -> list[tuple[str, str]]:
    """Which columns of ``slides.csv`` are shown, and their titles."""
    found = [("slide_id", "slide")]
    for name in rows[0] if rows else ():
        pipeline, _, field = name.rpartition(".")
        if field in ("call", "doubt", "per_mm2", "group"):
            found.append((name, f"{pipeline} {'/mm²' if field == 'per_mm2' else field}".replace("mitosis /mm²", "mitoses/mm²")))
        elif field in ("reviewed_call", "reviewed_per_mm2"):
            found.append((name, f"{pipeline} reviewed"))
    return found if len(found) > 1 else [*found, *([("status", "status")] if rows and "status" in rows[0] else [])]


def short(row: dict[str, str], name: str) -> str:
    """A cell as people read it: numbers to two decimals, and why there is none."""
    text, pipeline = row.get(name, ""), name.rpartition(".")[0]
    if not text and pipeline and name.endswith((".call", ".per_mm2", ".group")):
        return row.get(f"{pipeline}.status", "") if row.get("status") == "ok" else row.get("status", "")
    try:
        return f"{float(text):.2f}"
    except ValueError:
        return text
