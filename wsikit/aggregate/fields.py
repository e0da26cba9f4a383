"""Ten consecutive fields of a microscope: beginning at the most active one, each next one beside those counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from wsikit.aggregate.hotspot import MIN_TISSUE_SHARE, Ground, Hotspot, Window, best_place


def consecutive_fields(position: np.ndarray, ground: Ground) -> Hotspot | None:
    """The densest round field, then each time the one with most mitoses among those that touch a counted field and overlap none; None without tissue.

    A field is at least 80 % tissue; of equal ones the one with more tissue, then the smaller y and x is taken. What a person does at the microscope, so not
    the best of all sets of fields; but each is put where it holds most, so they hold more than fields laid side by side without looking. Where no further
    field fits, those found are counted, flagged ``insufficient_area``.

    Parameters
    ----------
    position : float64 (M, 2) x, y of counted mitoses, level-0 px
    """
    window = ground.window
    if ground.total_mm2 == 0:
        return None
    if ground.total_mm2 < window.area_mm2:
        return ground.densest(position)
    field = Window(window.field_mm2, "circle")
    counts = ground.counts(position)
    row, column, flags = best_place(counts, ground.areas, field.area_mm2)
    valid = ground.areas >= MIN_TISSUE_SHARE * field.area_mm2 - 1e-8
    chosen = [(row, column)]
    ring = _ring(2 * np.sqrt(field.area_mm2 / np.pi) * 1000 / (ground.step[0] * ground.mpp[0]))
    while len(chosen) < window.fields and (following := _next(chosen, ring, counts, ground.areas, valid)) is not None:
        chosen.append(following)
    if len(chosen) < window.fields:
        flags = (*flags, "insufficient_area")
    boxes = np.array([ground.box(*c) for c in chosen])
    rows, columns = np.array(chosen).T
    box = (*boxes[:, :2].min(0), *boxes[:, 2:].max(0))
    size = (float(boxes[0, 2] - boxes[0, 0]), float(boxes[0, 3] - boxes[0, 1]))
    centres = tuple(ground.centre(*c) for c in chosen)
    found = Hotspot.counted(box, float(ground.areas[rows, columns].sum()), int(counts[rows, columns].sum()), flags, window, fields=centres, field_px=size)
    return replace(found, shape="fields")


def _ring(diameter: float) -> np.ndarray:
    """Places, relative to a field, of fields that touch it: their centres a diameter and at most √2 steps more away; int64 (N, 2) row, column."""
    reach = int(diameter) + 3
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    distance = np.hypot(dy, dx)
    return np.argwhere((distance >= diameter - 1e-9) & (distance <= diameter + np.sqrt(2))) - reach


def _next(chosen: list[tuple[int, int]], ring: np.ndarray, counts: np.ndarray, areas: np.ndarray, valid: np.ndarray) -> tuple[int, int] | None:
    around = np.unique(np.concatenate([ring + c for c in chosen]), axis=0)  # in the order y, x
    around = around[((around >= 0) & (around < counts.shape)).all(1)]
    nearest = np.linalg.norm(around[:, None] - np.array(chosen)[None], axis=2).min(1)
    around = around[(nearest >= np.linalg.norm(ring, axis=1).min() - 1e-9) & valid[tuple(around.T)]]
    if not len(around):
        return None
    at = tuple(around.T)
    best = np.lexsort((around[:, 1], around[:, 0], -areas[at], -counts[at]))[0]
    return int(around[best, 0]), int(around[best, 1])
