"""A small cohort of phantom patients: slides, classes, mitoses, and follow-up times from a hazard that is known."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from wsikit.testing.phantom import Spec, Truth, write_phantom

LOG_HAZARD_PER_LOG_MITOSES = 1.8
LOG_HAZARD_UPS = 0.8
BASELINE_MONTHS = 1500.0
FOLLOW_UP_MONTHS = 120.0


@dataclass(frozen=True)
class Patient:
    """A phantom patient with one slide."""

    patient: str
    path: Path
    truth: Truth
    time_months: float
    event: bool

    @property
    def log_hazard(self) -> float:
        """The log hazard that the follow-up was drawn from."""
        return log_hazard(self.truth)


def log_hazard(truth: Truth) -> float:
    """What drives survival here: mitoses per mm² of tissue, and being UPS."""
    density = len(truth.mitoses) / truth.tissue_mm2
    return LOG_HAZARD_PER_LOG_MITOSES * math.log1p(density) + LOG_HAZARD_UPS * (truth.spec.subtype == "UPS")


def specs(classes: Sequence[str], per_class: int, seed: int, width: int = 4096, height: int = 3072) -> list[Spec]:
    """``per_class`` phantoms of each class, mitotic density spread from 1 to 40 per mm²."""
    rng = np.random.default_rng(seed)
    density = np.exp(rng.uniform(0, np.log(40), len(classes) * per_class))
    pairs = [(c, i) for i in range(per_class) for c in classes]
    return [Spec(seed * 10_000 + n, c, width, height, mitoses_per_mm2=float(d)) for n, ((c, _), d) in enumerate(zip(pairs, density, strict=True))]


def write_cohort(
    folder: Path, wanted: Sequence[Spec], *, seed: int = 0, processes: int = 2, on_slide: Callable[[Path], None] = lambda _: None
) -> list[Patient]:
    """Write the phantoms and ``cases.csv`` (path, patient, label, time_months, event), which ``wsikit score`` and ``train`` read."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{spec.subtype.lower()}-{n + 1:02d}.tif" for n, spec in enumerate(wanted)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        truths = []
        for path, truth in zip(paths, pool.map(write_phantom, paths, wanted), strict=True):
            truths.append(truth)
            on_slide(path)
    rng = np.random.default_rng(seed)
    patients = [_follow(rng, f"P{n + 1:02d}", p, t) for n, (p, t) in enumerate(zip(paths, truths, strict=True))]
    with (folder / "cases.csv").open("w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["path", "patient", "label", "time_months", "event"])
        writer.writerows([p.path.name, p.patient, p.truth.spec.subtype, f"{p.time_months:.2f}", int(p.event)] for p in patients)
    return patients


def _follow(rng: np.random.Generator, name: str, path: Path, truth: Truth) -> Patient:
    time = rng.exponential(BASELINE_MONTHS / math.exp(log_hazard(truth)))
    censored = min(rng.uniform(0.3, 1.0) * FOLLOW_UP_MONTHS, FOLLOW_UP_MONTHS)
    return Patient(name, path, truth, max(0.1, min(time, censored)), bool(time <= censored))
