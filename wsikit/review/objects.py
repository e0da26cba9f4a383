"""The objects of a detector and what people said of them, found again by their place."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from wsikit.review.changes import LABELS, NAMES

UNSEEN = -1
_COUNTS = np.array([counts for counts, _ in LABELS.values()])


class Objects:
    """What the model found first, then what people added.

    Attributes
    ----------
    position : float64 (M, 2) level-0 px x, y, where people have it
    score : float32 (M,), NaN of those that a person added
    label : int8 (M,) index into `NAMES`, −1 where nobody said anything
    by_model : bool (M,) what the model counts
    """

    def __init__(self, position: np.ndarray, score: np.ndarray, counted: np.ndarray, mpp: tuple[float, float], radius_um: float) -> None:
        self._found, self._mpp, self._radius_um = position, np.array(mpp), radius_um
        self.position, self.score, self.by_model = position.astype(np.float64), score.astype(np.float32), counted
        self.label = np.full(len(score), UNSEEN, np.int8)
        self._elsewhere: list[int] = []  # added or moved: not where the index of places has them

    @property
    def n_model(self) -> int:
        """How many the model found; those after them were added."""
        return len(self._found)

    @property
    def counts(self) -> np.ndarray:
        """Which count now, wherever they lie? bool (M,): as a person says, else as the model does."""
        return np.where(self.label == UNSEEN, self.by_model, _COUNTS[self.label])

    @cached_property
    def _by_x(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self._found[:, 0], kind="stable")
        return order, self._found[order, 0]

    def find(self, at: tuple[float, float]) -> int:
        """The nearest object within the merging distance, where it is now or where the model had it; −1 without."""
        order, x = self._by_x
        reach = self._radius_um / self._mpp[0]
        near = order[np.searchsorted(x, at[0] - reach) : np.searchsorted(x, at[0] + reach, "right")]
        rows = np.concatenate([near, np.array(self._elsewhere, np.int64)])
        places = np.concatenate([self._found[near], self.position[self._elsewhere]])
        if not len(rows):
            return -1
        um = np.hypot(*((places - np.array(at)) * self._mpp).T)
        best = int(um.argmin())
        return int(rows[best]) if um[best] <= self._radius_um else -1

    def say(self, at: tuple[float, float], label: str) -> int:
        """Label the object there, or add one; returns its row."""
        row = self.find(at)
        if row < 0:
            row = len(self.score)
            self.position = np.vstack([self.position, np.array([at], np.float64)])
            self.score = np.append(self.score, np.float32(np.nan))
            self.by_model = np.append(self.by_model, False)
            self.label = np.append(self.label, np.int8(UNSEEN))
            self._elsewhere.append(row)
        self.label[row] = NAMES.index(label)
        return row

    def move(self, at: tuple[float, float], to: tuple[float, float]) -> int:
        """Put the object there elsewhere; returns its row, −1 when there is none."""
        row = self.find(at)
        if row >= 0:
            self.position[row] = to
            if row not in self._elsewhere:
                self._elsewhere.append(row)
        return row

    def queue(self, threshold: float) -> np.ndarray:
        """Rows that nobody has looked at, those nearest to the threshold first."""
        unseen = np.flatnonzero(self.label == UNSEEN)
        return unseen[np.argsort(np.abs(self.score[unseen].astype(np.float64) - threshold), kind="stable")]
