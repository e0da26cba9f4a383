"""The *Call* panel: what the models say of the slide, with their doubt, and where that comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtGui import QIcon, QPixmap
from qtpy.QtWidgets import QHBoxLayout, QLabel, QScrollArea, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from wsikit import RESEARCH_USE_ONLY
from wsikit.errors import WsikitError
from wsikit.geometry import Region
from wsikit.overlay.picture import window
from wsikit.report import answer as in_words
from wsikit.report import grading, reviewed
from wsikit.report.pictures import risk_curve
from wsikit.slide import Slide
from wsikit.store import SlideStore
from wsikit.view.session import Session, session_of

TILES, TILE_PX = 5, 62
BAR_PX = 110
ACROSS_UM = 300.0


class Call(QScrollArea):
    """Answers, reasons and facts of the slide that is shown."""

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session: Session = session_of(napari_viewer)
        self.setWidgetResizable(True)
        self.setMinimumWidth(340)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.session.opened.connect(self.fill)
        self.session.reviewed.connect(self.fill)
        self.fill()

    def fill(self) -> None:
        """Show the slide's answers."""
        inside = QWidget()
        layout = QVBoxLayout(inside)
        store, review = self.session.store, self.session.review
        if store is None:
            layout.addWidget(_text("<p>No scored slide is open.</p>"))
        else:
            result, touched = store.result, review.touched if review else []
            for name, answer in result["pipelines"].items():
                layout.addWidget(_text(pipeline_html(name, answer)))
                if terms := answer.get("model", {}).get("terms"):
                    layout.addWidget(_text(f"<p><b>{escape(terms)}</b></p>"))
                if review is not None and name in touched:
                    layout.addWidget(_text(f"<p><b>Reviewed:</b> {escape(reviewed(review.answer(name)))}</p>"))
                if answer.get("survival"):
                    layout.addWidget(_picture(risk_curve(answer)))
                if answer["status"] == "ok" and "call" in answer:
                    layout.addWidget(self._tiles(store, answer))
            layout.addWidget(_text(facts_html(result)))
        layout.addWidget(_text(f"<p><i>{escape(RESEARCH_USE_ONLY)}</i></p>"))
        layout.addStretch()
        self.setWidget(inside)

    def _tiles(self, store: SlideStore, answer: Mapping[str, Any]) -> QWidget:
        row = QWidget()
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        try:
            for picture, place, p in top_tiles(store, answer, self.session.slide):
                button = QToolButton()
                button.setIcon(QIcon(_pixmap(picture)))
                button.setStyleSheet(f"icon-size: {TILE_PX - 6}px; max-width: {TILE_PX}px; padding: 1px;")  # napari's own sheet makes it 28 px
                button.setText(f"{p:.2f}")
                button.setToolTip(f"Tile with {answer['call']} {p:.2f}: click to go there")
                button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextUnderIcon)
                button.clicked.connect(lambda _=False, at=place: self.session.look_at(at, ACROSS_UM))
                layout.addWidget(button)
        except (WsikitError, KeyError, ValueError) as e:
            layout.addWidget(_text(f"<p>No tiles: {escape(str(e))}</p>"))
        layout.addStretch()
        return row


def top_tiles(store: SlideStore, answer: Mapping[str, Any], slide: Slide | None) -> Iterator[tuple[np.ndarray, tuple[float, float], float]]:
    """The tiles that speak most for the call, as the result names them: picture uint8 (H, W, 3), centre in level-0 px, probability.

    Pictures are of the slide where it is there: a store may keep no finer pixels than its overview's.
    """
    for x, y, w, h, p in answer.get("tiles", {"for": []})["for"][:TILES]:
        if slide is None:
            rgb, _ = window(store, (x, y, x + w, y + h), 512)
        else:
            rgb = slide.read(Region(round(x), round(y), round(w), round(h)), mpp=max(slide.mpp or (1.0,)) * max(1.0, w / (2 * TILE_PX)))
        yield rgb, (x + w / 2, y + h / 2), p


def pipeline_html(name: str, r: Mapping[str, Any]) -> str:
    """A pipeline's answer as a heading, bars and a sentence."""
    if r["status"] != "ok":
        return f"<h3>{escape(name)}: no answer</h3><p>{escape(r['status'])}: {escape(r['reason'])}</p>"
    if "call" in r:
        rows = "".join(_bar(c, v) for c, v in sorted(r["probability"].items(), key=lambda kv: -kv[1]))
        return f"<h3>{escape(name)}: {escape(r['call'])}</h3><table>{rows}</table><p>Doubt {r['doubt']:.2f} (0 certain, 1 all alike), {r['n_tiles']} tiles.</p>"
    other = f"{r['group']} risk" if r.get("group") else in_words(r)
    head = f"{r['per_mm2']:.1f}/mm² ({r['low']:.1f}–{r['high']:.1f})" if "count" in r else other
    return f"<h3>{escape(name)}: {escape(head)}</h3><p>{escape(in_words(r))}</p>{_grades(r)}"


def _grades(r: Mapping[str, Any]) -> str:
    """Published scores of the mitotic count, where the run was asked for them."""
    return "".join(f"<p>{escape(told)}</p>" for told in grading(r))


def _bar(name: str, value: float) -> str:
    width = max(1, round(BAR_PX * value))
    bar = f"<table cellspacing='0'><tr><td bgcolor='#0072b2' width='{width}' height='10'></td></tr></table>"
    return f"<tr><td>{escape(name)}&nbsp;</td><td width='{BAR_PX + 8}'>{bar}</td><td>{value:.3f}</td></tr>"


def facts_html(result: Mapping[str, Any]) -> str:
    """The slide itself: size, resolution and its source, reader, tissue, stain, warnings."""
    s = result["slide"]
    rows = {
        "slide": result["slide_id"],
        "size": f"{s['size'][0]} × {s['size'][1]} px",
        "resolution": f"{s['mpp'][0]:.4g} × {s['mpp'][1]:.4g} µm/px ({s['mpp_source']})",
        "read by": f"{s['reader']} ({s['vendor']})",
        "tissue": f"{result['tissue_mm2']:.2f} mm²",
        "stain": result["stain"]["method"] + ("" if result["stain"]["trusted"] else f": not applied, {result['stain']['reason']}"),
        **({"warning": "; ".join(s["warnings"])} if s["warnings"] else {}),
    }
    return "<h3>Slide</h3><table>" + "".join(f"<tr><td>{k}&nbsp;</td><td>{escape(str(v))}</td></tr>" for k, v in rows.items()) + "</table>"


def _text(html: str) -> QLabel:
    label = QLabel(html)
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.RichText)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    return label


def _picture(png: bytes) -> QLabel:
    label, picture = QLabel(), QPixmap()
    picture.loadFromData(png)
    label.setPixmap(picture)
    label.setAccessibleDescription("Survival at the model's horizons")
    return label


def _pixmap(rgb: np.ndarray) -> QPixmap:
    buffer, picture = BytesIO(), QPixmap()
    image = Image.fromarray(rgb)
    image.thumbnail((2 * TILE_PX, 2 * TILE_PX))
    image.save(buffer, "PNG")
    picture.loadFromData(buffer.getvalue())
    return picture
