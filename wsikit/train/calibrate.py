"""What a classifier may say of its own doubt, learnt on patients that it was not trained on: temperature, sets of classes, and what it does not know.

Everything is at patient level, since the tiles of a patient are alike. The formulas: temperature, Guo et al., ICML 2017; split conformal sets, Vovk et al. 2005
and Angelopoulos and Bates 2023; outlying tiles, see `wsikit.aggregate.outlier`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize_scalar

from wsikit.aggregate.doubt import tempered
from wsikit.aggregate.outlier import energy
from wsikit.errors import LabelsError, UsageError
from wsikit.metrics import calibration_error
from wsikit.models import load_network, read_card
from wsikit.models._card import CARD_FILE, Calibration, Card, Conformal, Outliers
from wsikit.models._distance import squared_distance
from wsikit.models._network import TileClassifier
from wsikit.store.durable import write_atomic
from wsikit.train.labels import of_several_classes

if TYPE_CHECKING:
    from wsikit.train.held import HeldOut

COVERAGE = 0.9
MIN_PATIENTS = 10  # fewer cannot tell a temperature from chance
PRIOR_SD = 0.5  # of the logarithm of the temperature, our default: few patients who were all called rightly are no reason to be nearly certain
KEPT = 0.95  # of known tiles, by each threshold
MOST_TILES, FOLDS = 4000, 5
DOUBT_FILE = "doubt.safetensors"


@dataclass(frozen=True)
class KnownTiles:
    """Tiles of patients whose class is known.

    Attributes
    ----------
    probability : float32 (N, K)
    feature : float (N, D)
    label : int64 (N,), the class of each tile's patient
    patient : (N,) names
    slides : how many slides they are of
    layers : of which the features are means (`wsikit.models._known`); none where they are the network's last ones
    """

    probability: np.ndarray
    feature: np.ndarray
    label: np.ndarray
    patient: np.ndarray
    slides: int
    layers: Sequence[str] = ()

    def by_patient(self) -> list[np.ndarray]:
        """The rows of each patient; one with tiles of several classes counts once for each."""
        _, where = np.unique(np.char.add(np.char.add(self.patient.astype(str), "\n"), self.label.astype(str)), return_inverse=True)
        return [np.flatnonzero(where == i) for i in range(where.max() + 1)] if len(where) else []

    @classmethod
    def of(cls, held: HeldOut) -> KnownTiles:
        """The tiles that a training held out."""
        patient = np.array([i.patient for i in held.items], dtype=str)[held.owner]
        return cls(held.probability, held.feature, held.label, patient, len(held.items))


def calibrate_model(folder: Path, tiles: KnownTiles, origin: str, coverage: float = COVERAGE, *, tissue: KnownTiles | None = None) -> Card:
    """Learn a model's doubt from tiles of patients that it was not trained on, and write it into its folder; returns the new card.

    ``tissue`` has the tiles whose features tell what is known, where these are not the last features of ``tiles``, or where those are slides that are called
    as one.

    Raises
    ------
    LabelsError
        There are no tiles.
    UsageError
        The model is no classifier, or the coverage no share.
    """
    card = read_card(folder)
    if card.task != "classify":
        raise UsageError(f"model {card.name}: only classifiers are calibrated, and this one is to {card.task}")
    network = load_network(card, folder)
    last = network.last_layer if isinstance(network, TileClassifier) else None
    found, tensors = learn(tiles, card.classes, origin, coverage, last, tissue)
    if tensors:
        from safetensors.numpy import save

        data = save(tensors)
        write_atomic(folder / DOUBT_FILE, data)
        assert found.outliers is not None
        found = found.model_copy(update={"outliers": found.outliers.model_copy(update={"sha256": hashlib.sha256(data).hexdigest()})})
    card = card.model_copy(update={"calibration": found})
    write_atomic(folder / CARD_FILE, (card.model_dump_json(indent=1) + "\n").encode())
    return card


def learn(
    tiles: KnownTiles,
    classes: Sequence[str],
    origin: str,
    coverage: float = COVERAGE,
    last_layer: tuple[np.ndarray, np.ndarray] | None = None,
    tissue: KnownTiles | None = None,
) -> tuple[Calibration, dict[str, np.ndarray]]:
    """The calibration of a classifier, and the tensors that its outlier rules need.

    Raises
    ------
    LabelsError
        There are no tiles.
    UsageError
        The coverage is no share.
    """
    if not 0 < coverage < 1:
        raise UsageError(f"a coverage of {coverage:g}: it is a share between 0 and 1, such as 0.9")
    groups = tiles.by_patient()
    if not groups:
        raise LabelsError("no tile of any patient to calibrate on")
    truth = np.array([tiles.label[g[0]] for g in groups])
    notes = []
    temperature = fit_temperature(tiles.probability, groups, truth) if len(groups) >= MIN_PATIENTS else 1.0
    if len(groups) < MIN_PATIENTS:
        notes.append(f"temperature left at 1: {len(groups)} patients, {MIN_PATIENTS} are needed")
    before, after = (_means(tiles.probability, groups, t) for t in (1.0, temperature))
    conformal = fit_conformal(after, truth, coverage)
    if conformal is None:
        needed = math.ceil(coverage / (1 - coverage) - 1e-9)
        notes.append(f"no sets of classes: {len(groups)} patients, {needed} are needed for {100 * coverage:.0f} % coverage")
    if several := of_several_classes([str(tiles.patient[g[0]]) for g in groups], [classes[k] for k in truth]):
        notes.append(several)
    metrics = {f"{name}_{when}": round(float(v), 4) for when, p in (("before", before), ("after", after)) for name, v in _figures(p, truth).items()}
    known = tissue or tiles
    outliers, tensors = _outliers(known, known.by_patient(), last_layer)
    if outliers is None:
        notes.append("no rules for what looks like nothing known: they need tiles of at least two patients")
    said: dict[str, Any] = {"temperature": round(temperature, 6), "conformal": conformal, "outliers": outliers, "metrics": metrics, "notes": notes}
    return Calibration(origin=origin, patients=len(groups), slides=tiles.slides, **said), tensors


def fit_temperature(probability: np.ndarray, groups: Sequence[np.ndarray], truth: np.ndarray) -> float:
    """The likeliest temperature, 0.1 to 10: lowest negative log likelihood of the patients' classes, with a weak prior (log-normal around 1).

    Parameters
    ----------
    probability : (N, K) of tiles
    groups : the rows of each patient
    truth : int64 (P,)
    """

    def loss(log_t: float) -> float:
        p = _means(probability, groups, math.exp(log_t))[np.arange(len(truth)), truth]
        return float(-np.log(np.maximum(p, 1e-12)).sum() + (log_t / PRIOR_SD) ** 2 / 2)

    return math.exp(minimize_scalar(loss, bounds=(math.log(0.1), math.log(10)), method="bounded", options={"xatol": 1e-4}).x)


def fit_conformal(probability: np.ndarray, truth: np.ndarray, coverage: float) -> Conformal | None:
    """The cut-off whose sets hold the true class in at least ``coverage`` of patients like these; None where there are too few for any.

    The ⌈(n + 1) · coverage⌉-th smallest of 1 − probability of the true class (P,).

    Examples
    --------
    >>> p = np.linspace(0.5, 1, 19)
    >>> fit_conformal(np.stack([p, 1 - p], 1), np.zeros(19, int), 0.9).cutoff.__round__(4)
    0.4722
    """
    n = len(truth)
    k = math.ceil((n + 1) * coverage - 1e-9)
    if k > n:
        return None
    score = np.sort(1 - probability[np.arange(n), truth])
    return Conformal(coverage=coverage, cutoff=float(np.clip(score[k - 1], 0, 1)), patients=n)


def _means(probability: np.ndarray, groups: Sequence[np.ndarray], temperature: float) -> np.ndarray:
    """Each patient's probabilities: the mean of its tiles' at a temperature, float64 (P, K)."""
    p = tempered(probability, temperature)
    return np.array([p[g].mean(0) for g in groups])


def _figures(probability: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    called = probability.argmax(1)
    return {
        "nll": float(-np.log(np.maximum(probability[np.arange(len(truth)), truth], 1e-12)).mean()),
        "ece": calibration_error(probability.max(1), called == truth),
        "accuracy": float((called == truth).mean()),
    }


def _outliers(tiles: KnownTiles, groups: Sequence[np.ndarray], last: tuple[np.ndarray, np.ndarray] | None) -> tuple[Outliers | None, dict[str, np.ndarray]]:
    """Rules for outlying tiles: thresholds on patients whose own tiles are left out of mean and covariance."""
    if len(groups) < 2 or tiles.feature.ndim != 2 or tiles.feature.shape[1] < 2:
        return None, {}
    feature = tiles.feature if tiles.layers else tiles.feature.astype(np.float16)  # as the tables keep them
    rows = np.sort(np.concatenate([_spread(g, max(1, MOST_TILES // len(groups))) for g in groups]))
    fold = np.empty(len(feature), int)
    for i, g in enumerate(groups):
        fold[g] = i % min(FOLDS, len(groups))
    distance = np.empty(len(feature))
    for k in range(fold.max() + 1):
        distance[fold == k] = squared_distance(feature[fold == k], *_spread_of(feature[rows[fold[rows] != k]]))
    weight = np.empty(len(feature))
    for g in groups:
        weight[g] = 1 / len(g)  # a patient counts once, however many tiles
    tensors = dict(zip(("mean", "precision"), _spread_of(feature[rows]), strict=True))
    rules: dict[str, Any] = {"distance": round(_quantile(distance, weight), 6), "tiles": len(rows)}
    if tiles.layers:
        rules["layers"] = list(tiles.layers)
    elif last is not None:
        tensors |= {"weight": last[0].astype(np.float32), "bias": last[1].astype(np.float32)}
        rules["energy"] = round(_quantile(energy(feature, *last), weight), 6)
    return Outliers(sha256="0" * 64, file=DOUBT_FILE, **rules), tensors


def _spread_of(feature: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean float32 (D,) and precision float32 (D, D) of features (N, D)."""
    from scipy.linalg import pinvh
    from sklearn.covariance import ledoit_wolf

    known = feature.astype(np.float64)
    covariance, _ = ledoit_wolf(known)
    floor = 1e-6 * np.trace(covariance) / len(covariance) + 1e-12  # features that never vary here may do so elsewhere
    return known.mean(0).astype(np.float32), np.asarray(pinvh(covariance + floor * np.eye(len(covariance)))).astype(np.float32)


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    """At most so many of these rows, evenly spread."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))]


def _quantile(values: np.ndarray, weight: np.ndarray) -> float:
    """The smallest value that `KEPT` of the weight does not exceed."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weight[order]) / weight.sum()
    return float(values[order][min(int(np.searchsorted(below, KEPT - 1e-12)), len(values) - 1)])
