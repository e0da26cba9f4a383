"""The *Run* panel: score the slide that is open in the background, its overlays appearing as blocks finish."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QObject, QProcess, QTimer, Signal
from qtpy.QtWidgets import QCheckBox, QFormLayout, QLabel, QLineEdit, QProgressBar, QPushButton, QVBoxLayout, QWidget
from safetensors.numpy import load_file

from wsikit.errors import WsikitError
from wsikit.models import pipelines
from wsikit.overlay.heat import heat_map, heat_placement
from wsikit.run.job import Job, choose_models, read_run
from wsikit.run.plan import Plan
from wsikit.run.prepare import load_plan
from wsikit.store import SlideStore
from wsikit.store.durable import digest_of
from wsikit.view.layers import MITOSIS, RING_PX, RING_UM, UNITS, fading_viridis, to_world
from wsikit.view.session import Session, session_of

LOOK_MS = 1500  # how often new blocks are looked for


class Work(QObject):
    """A run in a process of its own: what crashes there leaves the window alone, and a window that draws by LLVM cannot load torch's compiler."""

    blocks = Signal(int, int)  # done, of how many
    done = Signal(str)  # the run's folder
    failed = Signal(str)

    def __init__(self, slide: Path, out: Path, options: list[str]) -> None:
        super().__init__()
        self._out, self._said, self._cancelled = out, "", False
        self.process = QProcess()
        self.process.readyReadStandardError.connect(self._read)
        self.process.readyReadStandardOutput.connect(self._read)
        self.process.finished.connect(self._finished)
        self._arguments = ["-m", "wsikit", "score", str(slide), "-o", str(out), "--workers", "0", *options]

    def start(self) -> None:
        """Begin."""
        self.process.start(sys.executable, self._arguments)

    @property
    def running(self) -> bool:
        """Whether it is still at work."""
        return bool(self.process.state() != QProcess.ProcessState.NotRunning)

    def cancel(self) -> None:
        """Stop; what is done is kept."""
        self._cancelled = True
        if sys.platform == "win32":
            self.process.kill()
        elif pid := self.process.processId():
            os.kill(pid, signal.SIGINT)

    def _read(self) -> None:
        text = bytes(self.process.readAllStandardError()).decode(errors="replace") + bytes(self.process.readAllStandardOutput()).decode(errors="replace")
        self._said = (self._said + text)[-4000:]
        if found := re.findall(r"(\d+)/(\d+) blocks", text):
            self.blocks.emit(int(found[-1][0]), int(found[-1][1]))

    def _finished(self, code: int, _: Any = None) -> None:
        self._read()
        if self._cancelled:
            self.failed.emit("Cancelled; what is done is kept, and running again goes on from there.")
        elif code == 0:
            self.done.emit(str(self._out))
        else:
            lines = [line for line in self._said.splitlines() if "failed:" in line or line.startswith("wsikit:")]
            self.failed.emit(lines[-1].strip() if lines else f"The run ended with code {code}.")


class Run(QWidget):
    """Choose pipelines and models, and score the slide that is open."""

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session: Session = session_of(napari_viewer)
        self.work: Work | None = None
        self._live: dict[str, Any] = {}
        self._look = QTimer(interval=LOOK_MS)
        self._look.timeout.connect(self._overlays)
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
        if slide is None or (self.work is not None and self.work.running):
            self.status.setText("Open a slide first." if slide is None else "A slide is being scored.")
            return
        options = [f for name, (box, _) in self.chosen.items() if box.isChecked() for f in ("--pipeline", name)]
        options += [f for name, (box, m) in self.chosen.items() if box.isChecked() and m.text().strip() for f in ("--model", f"{name}={m.text().strip()}")]
        if slide.mpp and slide.mpp_source in ("override", "csv"):
            options += ["--mpp-override", str(slide.mpp[0])]
        out = Path(self.folder.text()).expanduser() / slide.path.stem
        self._live = {"out": out, "parts": {}, "layers": {}}
        self.work = Work(slide.path, out, options)
        self.work.blocks.connect(self._blocks)
        self.work.done.connect(self._done)
        self.work.failed.connect(self._failed)
        self._busy(True)
        self.bar.setRange(0, 0)
        self.status.setText(f"Scoring {slide.path.name} into {out}")
        self.work.start()
        self._look.start()

    def cancel(self) -> None:
        """Stop the run; what is done is kept."""
        if self.work is not None:
            self.work.cancel()
            self.status.setText("Cancelling after this block…")

    def _busy(self, on: bool) -> None:
        self.start.setEnabled(not on)
        self.stop.setEnabled(on)
        self.bar.setVisible(on)

    def _blocks(self, done: int, of: int) -> None:
        self.bar.setRange(0, of)
        self.bar.setValue(done)
        self.status.setText(f"{done} of {of} blocks")

    def _done(self, folder: str) -> None:
        self._busy(False)
        self._look.stop()
        self._clear_live()
        try:
            self.session.open([Path(folder)])
            self.status.setText(f"Done; results in {folder}")
        except WsikitError as e:
            self.status.setText(str(e))

    def _failed(self, why: str) -> None:
        self._busy(False)
        self._look.stop()
        self.status.setText(why)

    def _clear_live(self) -> None:
        for layer in self._live.get("layers", {}).values():
            if layer in self.session.viewer.layers:
                self.session.viewer.layers.remove(layer)
        self._live = {}

    def _overlays(self) -> None:
        """Show what is done so far."""
        path = next(iter(sorted((self._live["out"] / "slides").glob("*.zarr"))), None)
        if path is None:
            return
        try:
            if "plan" not in self._live:
                job = Job.model_validate(read_run(self._live["out"])["job"])
                self._live |= {"cards": job.cards(), "plan": load_plan(str(path), digest_of(SlideStore(path).attributes)), "mpp": SlideStore(path).mpp}
            for name, card in self._live["cards"].items():
                if name in self._live["plan"].stages:
                    self._show(name, card, self._new_parts(path, name))
        except (WsikitError, OSError):
            return  # something that is being written; the next look shows it

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
                ring = {"size": RING_UM, "canvas_size_limits": RING_PX, "face_color": "transparent", "border_color": MITOSIS, "units": UNITS}
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
