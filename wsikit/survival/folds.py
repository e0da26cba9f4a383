"""Which patients are held out together? Folds with events in each, or whole sites."""

from __future__ import annotations

import numpy as np

from wsikit.errors import LabelsError
from wsikit.survival.follow_up import FollowUp


def event_folds(follow: FollowUp, k: int = 5, seed: int = 0) -> np.ndarray:
    """Folds of patients drawn at random, events spread evenly over them: int64 (n,), 0 … k − 1.

    Raises
    ------
    LabelsError
        There are fewer events than folds: some fold would have none.
    """
    events = int(follow.event.sum())
    if events < k:
        raise LabelsError(f"{events} events cannot be spread over {k} folds; use fewer folds, or more patients")
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.permutation(len(follow)), ~follow.event))  # those with the event first, each kind shuffled
    folds = np.empty(len(follow), np.int64)
    folds[order] = np.arange(len(follow)) % k
    return folds


def site_folds(follow: FollowUp) -> tuple[np.ndarray, list[str]]:
    """One fold per site, for leaving each out in turn: int64 (n,), and the sites' names.

    Raises
    ------
    LabelsError
        Sites are not known, there is one only, or all other sites together have fewer than two events.
    """
    if follow.site is None:
        raise LabelsError("to leave sites out, the labels need a column 'site'")
    names, folds = np.unique(follow.site, return_inverse=True)
    if "" in names or len(names) < 2:
        raise LabelsError(f"to leave sites out, each patient needs a site, and there must be two or more; there are: {', '.join(names) or '(none)'}")
    for i, name in enumerate(names):
        if follow.event[folds != i].sum() < 2:
            raise LabelsError(f"without site {name} there are fewer than two events to train on")
    return folds.astype(np.int64), [str(n) for n in names]
