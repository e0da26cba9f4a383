"""A small cohort of phantom patients: slides, classes, mitoses, and follow-up times from a hazard that is known."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
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
    with (folder / "cases.csv").open("w", encoding="utf-8", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["path", "patient", "label", "time_months", "event"])
        writer.writerows([p.path.name, p.patient, p.truth.spec.subtype, f"{p.time_months:.2f}", int(p.event)] for p in patients)
    return patients


@dataclass(frozen=True)
class DrawnPatients:
    """Patients without slides: numbers as a run would measure them, and follow-up from a hazard that is known.

    ``columns`` by name, each float64 (n,); ``log_hazard`` float64 (n,) is what the follow-up was drawn from: ``effects`` per standard deviation of
    each column, of log(1 + x) where it is a density.
    """

    columns: dict[str, np.ndarray]
    effects: dict[str, float]
    log_hazard: np.ndarray
    time_months: np.ndarray
    event: np.ndarray

    @property
    def names(self) -> list[str]:
        """Of the patients."""
        return [f"P{i + 1:03d}" for i in range(len(self.event))]


IMAGE_EFFECTS = {"mitosis.per_mm2": 0.7, "pathomics.texture_contrast": 0.5, "pathomics.nuclei_per_mm2": 0.0, "age": 0.3}


def draw_patients(n: int = 200, seed: int = 0, effects: Mapping[str, float] = IMAGE_EFFECTS) -> DrawnPatients:
    """``n`` patients: mitotic density, texture, nuclear density and age, correlated a little, with these effects on the hazard.

    Examples
    --------
    >>> p = draw_patients(50, effects={})
    >>> float(abs(p.log_hazard).max()), len(p.names)
    (0.0, 50)
    """
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=n)
    latent = {name: 0.3 * shared + math.sqrt(1 - 0.09) * rng.normal(size=n) for name in IMAGE_EFFECTS}
    columns = {
        "mitosis.per_mm2": np.expm1(np.clip(2.2 + 0.7 * latent["mitosis.per_mm2"], 0, None)),
        "pathomics.texture_contrast": 0.2 + 0.03 * latent["pathomics.texture_contrast"],
        "pathomics.nuclei_per_mm2": 2200 * np.exp(0.3 * latent["pathomics.nuclei_per_mm2"]),
        "age": 60 + 12 * latent["age"],
    }
    scaled = {k: np.log1p(v) if k.endswith("per_mm2") else v for k, v in columns.items()}
    log_hazard = sum((effects.get(k, 0.0) * (v - v.mean()) / v.std() for k, v in scaled.items()), np.zeros(n))
    time = rng.exponential(50 / np.exp(log_hazard))
    censored = rng.uniform(0.2, 1.0, n) * FOLLOW_UP_MONTHS
    return DrawnPatients(columns, dict(effects), log_hazard, np.minimum(time, censored).clip(0.1), time <= censored)


def _follow(rng: np.random.Generator, name: str, path: Path, truth: Truth) -> Patient:
    time = rng.exponential(BASELINE_MONTHS / math.exp(log_hazard(truth)))
    censored = min(rng.uniform(0.3, 1.0) * FOLLOW_UP_MONTHS, FOLLOW_UP_MONTHS)
    return Patient(name, path, truth, max(0.1, min(time, censored)), bool(time <= censored))
