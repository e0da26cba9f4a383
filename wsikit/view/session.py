"""What one napari window shows of a run: the slide, its store, its review. Panels follow its signals."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QEvent, QObject, QTimer, Signal

from wsikit.errors import StoreMismatchError, UsageError, WsikitError
from wsikit.review import Review
from wsikit.run.reviewed import commit_reviews, open_review, run_of
from wsikit.slide import Slide, open_slide
from wsikit.store import SlideStore, open_store
from wsikit.view.detections import DetectionLayers
from wsikit.view.layers import Planned, find_slide, hotspot_layer, plan_layers, slide_layers, to_world

_SESSIONS: dict[int, Session] = {}
Target = Path | SlideStore | Slide
OUTLINE_PX = 3.0
CLOSE_UM = 120.0  # what is seen across when one detection is looked at


class Session(QObject):
    """What a viewer shows.

    Attributes
    ----------
    rows : the run's table, doubtful slides first; one row a store where several were given
    store, slide, review : of the slide that is shown; None where there is none
    """

    opened = Signal()  # another slide is shown
    reviewed = Signal()  # something was said, or taken back
    listed = Signal()  # another run, or its table changed
    told = Signal(str)  # a message for people

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.viewer, self.by = viewer, ""
        self.rows: list[dict[str, str]] = []
        self.folder: Path | None = None
        self.store: SlideStore | None = None
        self.slide: Slide | None = None
        self.review: Review | None = None
        self.detections: dict[str, DetectionLayers] = {}
        self._cases: dict[str, Path] = {}
        self._planned: list[Planned] = []
        self._ranks: dict[Any, int] = {}
        self._said = False
        self.drops: QObject | None = None  # what takes what is dropped on the window
        self._timer = QTimer(interval=0, singleShot=True)
        self._timer.timeout.connect(self._add_next)
        self._zoomed = QTimer(interval=60, singleShot=True)
        self._zoomed.timeout.connect(self.fit_outlines)
        viewer.scene.camera.events.zoom.connect(self._zoom)
        viewer.window._qt_window.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: D102 (Qt's name)
        if event.type() == QEvent.Type.Close:
            self.end()
        return bool(super().eventFilter(watched, event))

    def end(self) -> None:
        """The window goes: what was said goes into the run's results."""
        self.commit()
        self._timer.stop()
        self._zoomed.stop()
        self.viewer.scene.camera.events.zoom.disconnect(self._zoom)
        self._planned = []
        for shown in self.detections.values():
            shown.close()
        self.detections = {}
        _SESSIONS.pop(id(self.viewer), None)

    # what to show

    def open(self, paths: Sequence[Path]) -> None:
        """Show a slide, a store, or the most doubtful slide of a run; of several slides and stores the first, and all of them as cases.

        Raises
        ------
        SlideError, StoreError, UsageError
            One cannot be opened, or a run is one of several; what was shown stays.
        """
        self.show(find_targets(paths))

    def show(self, targets: Sequence[Target]) -> None:
        """Show what `find_targets` found."""
        first = targets[0]
        if isinstance(first, Path):
            self.list_run(first)
            self.open_case(next(r["slide_id"] for r in self.rows if r["slide_id"] in self._cases))
            return
        self._show(first)
        if len(targets) > 1:
            self.list_cases([t for t in targets if not isinstance(t, Path)])
        elif isinstance(first, SlideStore):
            run = first.path.parent.parent
            self.list_run(run) if (run / "run.json").exists() else self.list_cases([first])

    def _show(self, target: SlideStore | Slide) -> None:
        self.show_store(target) if isinstance(target, SlideStore) else self.show_slide(target)

    def list_cases(self, targets: Sequence[SlideStore | Slide]) -> None:
        """Take slides and stores for the list, by their names; by their paths where two have the same."""
        names = [t.slide_id if isinstance(t, SlideStore) else t.path.name for t in targets]
        self._cases = {name if names.count(name) == 1 else str(t.path): t.path for name, t in zip(names, targets, strict=True)}
        self.rows = [{"slide_id": name} for name in self._cases]
        for t in targets:
            if isinstance(t, Slide) and t is not self.slide:
                t.close()
        self.listed.emit()

    def list_run(self, folder: Path) -> None:
        """Take a run's table, doubtful slides first."""
        self.folder = folder
        self._cases = finished(folder)
        table = folder / "slides.csv"
        if table.is_file():
            with table.open(encoding="utf-8", newline="") as f:
                self.rows = sorted(csv.DictReader(f), key=most_doubtful)
        else:
            self.rows = [{"slide_id": k} for k in self._cases]
        self.listed.emit()

    def open_case(self, slide_id: str) -> None:
        """Show a slide of the list.

        Raises
        ------
        SlideError, StoreError
            It has no store, or that is damaged, or it cannot be opened any more.
        """
        if slide_id not in self._cases:
            raise StoreMismatchError(f"{slide_id}: has no result to show; slides.csv says why")
        path = self._cases[slide_id]
        self._show(open_store(path) if is_result(path) else open_slide(path))

    def show_store(self, store: SlideStore) -> None:
        """Show a store; what is to be seen first is there on return, the rest follows."""
        store.result  # noqa: B018 (an error leaves what was shown)
        try:
            review = open_review(run_of(store.path), store.slide_id, self.by)
        except WsikitError as e:
            review = None
            self.told.emit(f"Review is not possible: {e}")
        self.clear()
        self.store, self.slide, self.review = store, find_slide(store), review
        self._planned = plan_layers(store, self.slide)
        for planned in [p for p in self._planned if p.shown]:
            self._add(planned)
        self._add_detections()
        self.fit_view()
        self.viewer.title = f"wsikit – {store.slide_id}"
        self.describe()
        self._timer.start()
        self.opened.emit()

    def show_slide(self, slide: Slide) -> None:
        """Show a slide that was not scored."""
        self.clear()
        self.slide = slide
        data, options, _ = slide_layers(slide)[0]
        self._take(self.viewer.add_image(data, **options), 0)
        self.fit_view()
        self.viewer.title = f"wsikit – {slide.path.name}"
        self.describe()
        self.opened.emit()

    def clear(self) -> None:
        """Take away what is shown, and put what was said into the run's results."""
        self.commit()
        self._timer.stop()
        for shown in self.detections.values():
            shown.close()
        for layer in [v for v in self.viewer.layers if v in self._ranks]:
            self.viewer.layers.remove(layer)
        if self.slide is not None:
            self.slide.close()
        self.detections, self._planned, self._ranks = {}, [], {}
        self.store = self.slide = self.review = None

    def _add(self, planned: Planned) -> None:
        data, options, kind = planned.make()
        self._planned.remove(planned)
        layer = getattr(self.viewer, f"add_{kind}")(data, **options)
        if options.get("metadata", {}).get("legend") and hasattr(layer, "colorbar"):
            layer.colorbar.visible = True
            layer.colorbar.color = "black"
        self._take(layer, planned.rank)

    def describe(self) -> None:
        """Say on the canvas what is shown: the slide, and what the colours stand for."""
        lines = [self.store.slide_id if self.store else self.slide.path.name if self.slide else ""]
        heat = [v for v in self.viewer.layers if v.visible and v.metadata.get("legend")]
        lines += [f"colours: {v.name}, {v.contrast_limits[0]:g} to {v.contrast_limits[1]:.3g}" for v in heat]
        if any(v.points.visible and v.shown.any() for v in self.detections.values()):
            lines.append("rings: the bluer, the higher the score")
        self.viewer.canvas.overlays.text.text = "\n".join([*lines, "Research use only"])

    def fit_view(self) -> None:
        """Show all of the slide, and no more: of a small one, the outermost tiles and squares of other layers reach far beyond it."""
        slide = min(self._ranks, key=lambda layer: self._ranks[layer], default=None)
        self.viewer.reset_view(layers=None if slide is None else [slide])

    def _take(self, layer: Any, rank: int) -> None:
        """Put a layer where it belongs in the pile."""
        layer.events.visible.connect(lambda _: self.describe())
        self._ranks[layer] = rank
        below = sum(self._ranks.get(other, -1) < rank for other in self.viewer.layers if other is not layer)
        self.viewer.layers.move(self.viewer.layers.index(layer), below)

    def own(self, layer: Any) -> None:
        """A layer of this slide that a panel made: it goes when another slide is shown."""
        self._ranks[layer] = 2000

    def _add_next(self) -> None:
        """One more of the layers that are not shown at first, between two events."""
        if self._planned:
            active = self.viewer.layers.selection.active
            self._add(self._planned[0])
            self.viewer.layers.selection.active = active
            self._timer.start()

    def add_all(self) -> None:
        """Add the layers that are still to come at once."""
        while self._planned:
            self._add(self._planned[0])

    def _add_detections(self) -> None:
        assert self.store is not None
        w, h = self.store.attributes["slide"]["size"]
        if self.review is None:
            return
        for i, name in enumerate(self.review.detectors):
            shown = DetectionLayers(self.viewer, name, self.review.objects(name), self.store.mpp, (w, h))
            self.detections[name] = shown
            self._take(shown.density, 1000 + 10 * i)
            self._take(shown.points, 1002 + 10 * i)  # above the outline, which hides none so
            self._outline(name, 1001 + 10 * i)

    def _outline(self, name: str, rank: int) -> None:
        """Draw the densest window as it is now; none where there is no answer."""
        assert self.review is not None
        layer, spot = next((v for v in self.viewer.layers if v.name == f"{name} hotspot"), None), self.review.answer(name).get("hotspot")
        if spot is None:
            if layer is not None:
                self.viewer.layers.remove(layer)
            return
        data, options, _ = hotspot_layer(name, spot, self.review.store.mpp)
        if layer is None:
            active = self.viewer.layers.selection.active
            self._take(self.viewer.add_shapes(data, **options), rank)
            self.viewer.layers.selection.active = active
        else:
            layer.data = data
            layer.features, layer.text = {"label": options["text"]["string"]}, options["text"]
        self.fit_outlines()

    def _zoom(self, _: Any = None) -> None:
        if not self._zoomed.isActive():
            self._zoomed.start()

    def fit_outlines(self) -> None:
        """Outlines of windows are as thick on the screen at every zoom: on a whole slide one of a fixed width would vanish."""
        um = OUTLINE_PX / self.viewer.scene.camera.zoom
        for layer in self.viewer.layers:
            if layer.name in {f"{name} hotspot" for name in self.detections} and abs(layer.edge_width[0] / um - 1) > 0.1:
                layer.edge_width = um

    # what is said

    def changed(self) -> None:
        """The review changed: layers follow, and panels are told."""
        assert self.review is not None
        assert self.store is not None
        self._said = True
        for i, (name, shown) in enumerate(self.detections.items()):
            shown.changed(self.review.objects(name))
            self._outline(name, 1001 + 10 * i)
        self.describe()
        self.reviewed.emit()

    def commit(self) -> None:
        """Put what was said into the run's results; the journal has it in any case."""
        if self._said and self.store is not None:
            self._said = False
            try:
                commit_reviews(run_of(self.store.path), [self.store.slide_id])
                self.list_run(run_of(self.store.path))
            except WsikitError as e:
                self.told.emit(f"Kept in the journal, not yet in the tables: {e}")

    def look_at(self, position: tuple[float, float], across_um: float = CLOSE_UM) -> None:
        """Centre the view on a place in level-0 px."""
        mpp = self.store.mpp if self.store else (self.slide.mpp or (1.0, 1.0)) if self.slide else (1.0, 1.0)
        centre = to_world(np.array([position]), mpp)[0]
        self.viewer.scene.camera.center = tuple(float(v) for v in centre)
        self.viewer.scene.camera.zoom = min(self.viewer.canvas.size) / across_um
        self.fit_outlines()


def find_targets(paths: Sequence[Path]) -> list[Target]:
    """Stores and slides, opened, and runs with something to show: all of them before a window is touched.

    Raises
    ------
    SlideError, StoreError
        One cannot be opened.
    UsageError
        A run is one of several.
    """
    targets = [_target(path) for path in paths]
    runs = [t for t in targets if isinstance(t, Path)]
    if runs and len(targets) > 1:
        raise UsageError(f"{runs[0]}: a run is shown by itself, with all of its slides; open the others after it, or in another window")
    return targets


def _target(path: Path) -> Target:
    if (path / "run.json").exists():
        if not finished(path):
            raise StoreMismatchError(f"{path}: no slide of this run is finished yet")
        return path
    return open_store(path) if is_result(path) else open_slide(path)


def is_result(path: Path) -> bool:
    """Whether a path is meant as a wsikit store, be it damaged; other OME-Zarr images are slides."""
    return path.suffix == ".zarr" and (is_store(path) or not any((path / name).exists() for name in ("zarr.json", ".zattrs")))


def is_store(path: Path) -> bool:
    """Whether a folder says that it is a wsikit store; other OME-Zarr images are slides."""
    file = path / "zarr.json"
    return file.is_file() and '"wsikit"' in file.read_text(encoding="utf-8", errors="replace")


def finished(folder: Path) -> dict[str, Path]:
    """Stores of a run with a result, by slide."""
    return {p.stem: p for p in sorted((folder / "slides").glob("*.zarr")) if p.with_suffix(".json").exists()}


def most_doubtful(row: dict[str, str]) -> tuple[int, float, str]:
    """A key that sorts a run's rows: answers withheld first, then by the largest doubt; failed slides, which cannot be opened, last."""
    if row.get("status") != "ok":
        return (2, 0.0, row["slide_id"])
    withheld = any(v != "ok" for k, v in row.items() if k.endswith(".status") and ".reviewed_" not in k)
    doubt = max((float(v) for k, v in row.items() if k.endswith(".doubt") and v), default=0.0)
    return (0 if withheld else 1, -doubt, row["slide_id"])


def session_of(viewer: Any) -> Session:
    """The session of a viewer, begun when first asked for."""
    real = getattr(viewer, "__wrapped__", viewer)  # a plugin is handed a proxy
    if id(real) not in _SESSIONS:
        _SESSIONS[id(real)] = Session(real)
    return _SESSIONS[id(real)]
