"""The *Run* panel: score the slide that is open in the background, its overlays appearing as blocks finish."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QCheckBox, QFormLayout, QLabel, QLineEdit, QProgressBar, QPushButton, QVBoxLayout, QWidget
from safetensors.numpy import load_file

from wsikit.errors import WsikitError
from wsikit.models import pipelines
from wsikit.overlay.heat import heat_map, heat_placement
from wsikit.run import Progress, score
from wsikit.run.job import Job, choose_models, read_run
from wsikit.run.plan import Plan
from wsikit.run.prepare import load_plan
from wsikit.store import SlideStore
from wsikit.store.durable import digest_of
from wsikit.view.layers import MITOSIS, UNITS, fading_viridis, to_world
from wsikit.view.session import Session, session_of


class _Cancelled(KeyboardInterrupt):
    """What a run takes for Ctrl-C: it stops, and what is done is kept."""


class Work(QObject):
    """A run in a thread of its own; signals arrive in the window's."""

    progress = Signal(object)
    done = Signal(str)  # the run's folder
    failed = Signal(str)

    def __init__(self, slide: Path, out: Path, names: list[str], models: dict[str, str], options: dict[str, Any]) -> None:
        super().__init__()
        self._arguments = (slide, out, names, models, options)
        self._stop = threading.Event()
        self.thread_ = threading.Thread(target=self._run, name="wsikit-run", daemon=True)

    def cancel(self) -> None:
        """Stop after the block that is being done; what is done is kept."""
        self._stop.set()

    def _told(self, progress: Progress) -> None:
        if self._stop.is_set():
            raise _Cancelled
        self.progress.emit(progress)

    def _run(self) -> None:
        slide, out, names, models, options = self._arguments
        try:
            run = score([slide], out, names, models=models, workers=0, on_progress=self._told, **options)
        except _Cancelled:
            self.failed.emit("Cancelled; what is done is kept, and running again goes on from there.")
        except (WsikitError, OSError) as e:
            self.failed.emit(str(e))
        else:
            failed = "; ".join(run.failed.values())
            self.failed.emit(failed) if failed else self.done.emit(str(run.folder))


class Run(QWidget):
    """Choose pipelines and models, and score the slide that is open."""

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session: Session = session_of(napari_viewer)
        self.work: Work | None = None
        self._live: dict[str, Any] = {}
        layout, form = QVBoxLayout(self), QFormLayout()
        self.folder = QLineEdit(str(Path.home() / "wsikit-runs"))
        form.addRow("Into", self.folder)
        self.chosen: dict[str, tuple[QCheckBox, QLineEdit]] = {}
        known = _defaults()
        for name in pipelines():
            box, model = QCheckBox(name), QLineEdit()
            box.setChecked(name in known)
            model.setPlaceholderText(known.get(name, "folder of a model"))
            self.chosen[name] = (box, model)
            form.addRow(box, model)
        layout.addLayout(form)
        self.start, self.stop = QPushButton("Score this slide"), QPushButton("Cancel")
        self.start.clicked.connect(self.begin)
        self.stop.clicked.connect(self.cancel)
        self.bar, self.status = QProgressBar(), QLabel("Research use only.")
        self.status.setWordWrap(True)
        for widget in (self.start, self.stop, self.bar, self.status):
            layout.addWidget(widget)
        layout.addStretch()
        self._busy(False)

    def begin(self) -> None:
        """Score the slide that is open with what is chosen."""
        slide = self.session.slide
        if slide is None or (self.work is not None and self.work.thread_.is_alive()):
            self.status.setText("Open a slide first." if slide is None else "A slide is being scored.")
            return
        names = [name for name, (box, _) in self.chosen.items() if box.isChecked()]
        models = {name: model.text().strip() for name, (box, model) in self.chosen.items() if box.isChecked() and model.text().strip()}
        mpp = {"mpp_override": slide.mpp[0]} if slide.mpp and slide.mpp_source in ("override", "csv") else {}
        out = Path(self.folder.text()).expanduser() / slide.path.stem
        self._live = {"out": out, "parts": {}, "layers": {}}
        self.work = Work(slide.path, out, names, models, mpp)
        self.work.progress.connect(self._progress)
        self.work.done.connect(self._done)
        self.work.failed.connect(self._failed)
        self._busy(True)
        self.bar.setRange(0, 0)
        self.status.setText(f"Scoring {slide.path.name} into {out}")
        self.work.thread_.start()

    def cancel(self) -> None:
        """Stop the run; what is done is kept."""
        if self.work is not None:
            self.work.cancel()
            self.status.setText("Cancelling after this block…")

    def _busy(self, on: bool) -> None:
        self.start.setEnabled(not on)
        self.stop.setEnabled(on)
        self.bar.setVisible(on)

    def _progress(self, progress: Progress) -> None:
        if progress.kind == "planned":
            self.bar.setRange(0, progress.blocks)
            self.bar.setValue(0)
        elif progress.kind == "block":
            self.bar.setValue(self.bar.value() + 1)
            self.status.setText(f"{self.bar.value()} of {self.bar.maximum()} blocks")
            self._overlays(progress.slide_id)
        elif progress.kind == "paused":
            self.status.setText(progress.reason)

    def _done(self, folder: str) -> None:
        self._busy(False)
        self._clear_live()
        try:
            self.session.open([Path(folder)])
            self.status.setText(f"Done; results in {folder}")
        except WsikitError as e:
            self.status.setText(str(e))

    def _failed(self, why: str) -> None:
        self._busy(False)
        self.status.setText(why)

    def _clear_live(self) -> None:
        for layer in self._live.get("layers", {}).values():
            if layer in self.session.viewer.layers:
                self.session.viewer.layers.remove(layer)
        self._live = {}

    def _overlays(self, slide_id: str) -> None:
        """Show what is done so far."""
        path = self._live["out"] / "slides" / f"{slide_id}.zarr"
        try:
            if "plan" not in self._live:
                job = Job.model_validate(read_run(self._live["out"])["job"])
                self._live |= {"cards": job.cards(), "plan": load_plan(str(path), digest_of(SlideStore(path).attributes)), "mpp": SlideStore(path).mpp}
            for name, card in self._live["cards"].items():
                if name in self._live["plan"].stages:
                    self._show(name, card, self._new_parts(path, name))
        except (WsikitError, OSError):
            return  # a part that is being written; the next block shows it

    def _new_parts(self, path: Path, name: str) -> list[dict[str, np.ndarray]]:
        """Parts of a pipeline, each read once."""
        known = self._live["parts"].setdefault(name, {})
        for part in sorted((path.with_suffix(".parts") / name).glob("*.safetensors")):
            if part.name not in known:
                known[part.name] = load_file(part)
        return list(known.values())

    def _show(self, name: str, card: Any, parts: list[dict[str, np.ndarray]]) -> None:
        if not parts:
            return
        layers, viewer, plan = self._live["layers"], self.session.viewer, self._live["plan"]
        if card.task == "detect":
            position, scores = (np.concatenate([p[k] for p in parts]) for k in ("position", "score"))
            at = to_world(position[scores >= np.float32(card.detection.threshold)], self._live["mpp"])
            if name not in layers:
                ring = {"size": 20.0, "face_color": "transparent", "border_color": MITOSIS, "units": UNITS}
                layers[name] = viewer.add_points(at, name=f"{name} (so far)", **ring)
            layers[name].data = at
            return
        values, place = self._heat(plan, name, parts)
        if name not in layers:
            where = {"scale": place.scale[::-1], "translate": place.translation[::-1], "units": UNITS}
            more = {"colormap": fading_viridis(), "contrast_limits": (0.0, 1.0), "interpolation2d": "nearest", "blending": "translucent"}
            layers[name] = viewer.add_image(values, name=f"{name} (so far)", **where, **more)
        layers[name].data = values

    @staticmethod
    def _heat(plan: Plan, name: str, parts: list[dict[str, np.ndarray]]) -> tuple[np.ndarray, Any]:
        """The likeliest class of the tiles so far, as its probability over the grid."""
        stage = plan.stages[name]
        rows, p = np.concatenate([v["row"] for v in parts]), np.concatenate([v["probability"] for v in parts])
        called = int(p.mean(0).argmax()) if len(p) else 0
        return heat_map(stage.grid, stage.cells[rows], p)[called], heat_placement(stage.grid)


def _defaults() -> dict[str, str]:
    """The model that each pipeline has at hand."""
    try:
        return {name: ref.name for name, ref in choose_models(None).items()}
    except WsikitError:
        return {}
