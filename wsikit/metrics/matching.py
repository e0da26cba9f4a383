"""Which detection is which true object? Two matchings, and the curves and averages that follow from scores.

Pure: points in µm, scores, numbers. `wsikit.evaluate.detector` applies them to slides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from wsikit.metrics import DetectionScore

RADIUS_UM = 7.5
BOX_UM = 22.5  # MIDOG's boxes for AP reach 11.25 µm around a point: shifted by 7.5 µm, they have an IoU of 0.5
FROC_PER_MM2 = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def match_midog(found_um: np.ndarray, truth_um: np.ndarray, radius_um: float = RADIUS_UM) -> np.ndarray:
    """For each true point, in their order, its nearest detection within the radius (included) that none before it took; −1 where there is none.

    Parameters
    ----------
    found_um, truth_um : float64 (M, 2), (T, 2), µm

    Returns
    -------
    int64 (T,)

    Notes
    -----
    The rule of the MIDOG challenges' evaluation: the order of the true points can decide, so give them in the file's.

    Examples
    --------
    >>> match_midog(np.array([[0.0, 0], [9, 0]]), np.array([[6.0, 0], [3, 0]])).tolist()
    [1, 0]
    """
    out = np.full(len(truth_um), -1, np.int64)
    if not len(found_um) or not len(truth_um):
        return out
    used = np.zeros(len(found_um), bool)
    # the tree only narrows the search: its distances are compared again, so that the radius itself counts as within
    for i, near in enumerate(cKDTree(found_um).query_ball_point(truth_um, radius_um * (1 + 1e-9))):
        free = [j for j in sorted(near) if not used[j] and _distance(found_um[j], truth_um[i]) <= radius_um]
        if free:
            out[i] = min(free, key=lambda j: _distance(found_um[j], truth_um[i]))
            used[out[i]] = True
    return out


def match_optimal(found_um: np.ndarray, truth_um: np.ndarray, radius_um: float = RADIUS_UM) -> np.ndarray:
    """As many pairs within the radius as there can be, and of these the ones with the least total distance: no order matters. int64 (T,), −1 for none.

    Examples
    --------
    >>> match_optimal(np.array([[0.0, 0], [5, 0]]), np.array([[4.0, 0], [12, 0]])).tolist()
    [0, 1]
    """
    out = np.full(len(truth_um), -1, np.int64)
    if not len(found_um) or not len(truth_um):
        return out
    pairs = cKDTree(truth_um).sparse_distance_matrix(cKDTree(found_um), radius_um, output_type="coo_matrix")
    t, f, distance = pairs.row, pairs.col, pairs.data
    graph = coo_array((np.ones(len(t)), (t, f + len(truth_um))), shape=(len(truth_um) + len(found_um),) * 2)
    _, part = connected_components(graph, directed=False)
    order = np.argsort(part[t], kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(part[t][order])) + 1) if len(order) else []:
        ti, fi = np.unique(t[rows]), np.unique(f[rows])
        far = (1 + min(len(ti), len(fi))) * (radius_um + 1)  # a pair more is worth any sum of distances
        cost = np.full((len(ti), len(fi)), far)
        cost[np.searchsorted(ti, t[rows]), np.searchsorted(fi, f[rows])] = distance[rows]
        a, b = linear_sum_assignment(cost)
        real = cost[a, b] < far
        out[ti[a[real]]] = fi[b[real]]
    return out


MATCHINGS = {"midog": match_midog, "optimal": match_optimal}


def counts(found_um: np.ndarray, truth_um: np.ndarray, matching: str = "midog", radius_um: float = RADIUS_UM) -> DetectionScore:
    """True and false positives and false negatives of one field or slide."""
    hits = int((MATCHINGS[matching](found_um, truth_um, radius_um) >= 0).sum())
    return DetectionScore(hits, len(found_um) - hits, len(truth_um) - hits)


@dataclass(frozen=True)
class Case:
    """A slide or field: all detections with their scores, the true points, both in µm, and mm² searched."""

    found_um: np.ndarray
    score: np.ndarray
    truth_um: np.ndarray
    area_mm2: float


def froc(cases: Sequence[Case], radius_um: float = RADIUS_UM) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds from high to low, false positives per mm² and recall from each on: float64 (N,) each.

    Best detections take their nearest true point first, so that a lower threshold never takes a hit away.
    """
    score = np.concatenate([c.score for c in cases]) if cases else np.empty(0)
    hit = np.concatenate([_hits_by_score(c, radius_um) for c in cases]) if cases else np.empty(0, bool)
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True)) if len(order) else np.empty(0, int)  # ties enter together
    area, truth = sum(c.area_mm2 for c in cases), sum(len(c.truth_um) for c in cases)
    false, true = np.cumsum(~hit[order])[last], np.cumsum(hit[order])[last]
    return score[order][last].astype(np.float64), false / area if area else false * np.nan, true / truth if truth else true * np.nan


def recall_at(cases: Sequence[Case], per_mm2: Sequence[float] = FROC_PER_MM2, radius_um: float = RADIUS_UM) -> dict[float, float]:
    """The recall at so many false positives per mm²: the highest that does not exceed each."""
    _, false, recall = froc(cases, radius_um)
    return {rate: float(recall[false <= rate].max(initial=0.0)) if len(recall) else 0.0 for rate in per_mm2}


def _hits_by_score(case: Case, radius_um: float) -> np.ndarray:
    """Which detections are hits, when the best chooses first? bool (M,)"""
    out = np.zeros(len(case.score), bool)
    if not len(out) or not len(case.truth_um):
        return out
    used = np.zeros(len(case.truth_um), bool)
    near = cKDTree(case.truth_um).query_ball_point(case.found_um, radius_um * (1 + 1e-9))
    for i in np.argsort(-case.score, kind="stable"):
        free = [j for j in sorted(near[i]) if not used[j] and _distance(case.found_um[i], case.truth_um[j]) <= radius_um]
        if free:
            used[min(free, key=lambda j: _distance(case.found_um[i], case.truth_um[j]))] = True
            out[i] = True
    return out


def average_precision(cases: Sequence[Case], box_um: float = BOX_UM, iou: float = 0.5) -> float:
    """COCO's AP of one class: square boxes of ``box_um`` around points, without COCO's limit of 100 detections an image; NaN without true points.

    Each detection, best first, takes the free box with the highest IoU of at least ``iou``; precision is made non-increasing, and read at recalls
    0, 0.01 … 1 (Lin et al. 2014; as pycocotools has it).
    """
    truth = sum(len(c.truth_um) for c in cases)
    if not truth:
        return float("nan")
    score = np.concatenate([c.score for c in cases])
    hit = np.concatenate([_box_hits(c, box_um, iou) for c in cases])
    order = np.argsort(-score, kind="stable")
    true = np.cumsum(hit[order])
    precision = true / np.arange(1, len(true) + 1)
    best_after = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(true / truth, np.linspace(0, 1, 101), side="left")
    return float(np.where(at < len(true), np.append(best_after, 0.0)[np.minimum(at, len(true))], 0.0).mean())


def _box_hits(case: Case, box_um: float, least: float) -> np.ndarray:
    out = np.zeros(len(case.score), bool)
    if not len(out) or not len(case.truth_um):
        return out
    used = np.zeros(len(case.truth_um), bool)
    near = cKDTree(case.truth_um).query_ball_point(case.found_um, box_um, p=np.inf)
    for i in np.argsort(-case.score, kind="stable"):
        best, at = least, -1
        for j in sorted(near[i]):
            overlap = np.prod(np.maximum(0.0, box_um - np.abs(case.found_um[i] - case.truth_um[j])))
            value = overlap / (2 * box_um**2 - overlap)
            if not used[j] and value >= best:
                best, at = value, j
        if at >= 0:
            used[at] = out[i] = True
    return out


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.hypot(a[0] - b[0], a[1] - b[1]))
