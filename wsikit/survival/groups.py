"""Risk groups: cut at values frozen on training patients, and how they fare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsikit.survival.cox import fit_cox
from wsikit.survival.curves import LogRank, kaplan_meier, log_rank, median_time, restricted_mean
from wsikit.survival.follow_up import FollowUp

NAMES = {2: ("low", "high"), 3: ("low", "intermediate", "high")}


def cut_offs(training_risk: np.ndarray, n_groups: int = 2) -> list[float]:
    """The median of the training patients' risks, or their tertiles."""
    return [float(v) for v in np.quantile(training_risk, np.linspace(0, 1, n_groups + 1)[1:-1])]


def group_of(risk: float, cutoffs: Sequence[float]) -> str:
    """The group of a risk: at a cut-off it is the lower one.

    >>> group_of(0.1, [0.0]), group_of(0.0, [0.0]), group_of(0.5, [-1.0, 1.0])
    ('high', 'low', 'intermediate')
    """
    return NAMES[len(cutoffs) + 1][sum(risk > c for c in cutoffs)]


@dataclass(frozen=True)
class GroupFacts:
    """One group: patients, events, median months without the event (infinite when not reached), restricted mean with interval."""

    name: str
    patients: int
    events: int
    median_months: float
    restricted_mean_months: tuple[float, float, float]


@dataclass(frozen=True)
class Separation:
    """How groups differ: log-rank, and the hazard ratio of each to the lowest, with its 95 % interval (unpenalised Cox); NaN where a group has no event."""

    groups: list[GroupFacts]
    log_rank: LogRank
    hazard_ratio: dict[str, tuple[float, float, float]]


def separation(follow: FollowUp, group: Sequence[str], months: float) -> Separation:
    """Of patients in groups, at most ``months`` of the restricted mean."""
    who = np.array(group)
    names = [n for n in NAMES[3] if (who == n).any()]
    facts = []
    for name in names:
        mine = who == name
        time, event = follow.time_months[mine], follow.event[mine]
        facts.append(GroupFacts(name, int(mine.sum()), int(event.sum()), median_time(kaplan_meier(time, event)), restricted_mean(time, event, months)))
    ratios = {}
    if all(f.events for f in facts) and len(facts) > 1:
        dummies = np.stack([(who == n).astype(float) for n in names[1:]], 1)
        fitted = fit_cox(dummies, names[1:], follow, penalty=0.0)
        ratios = {n: r[:3] for n, r in fitted.hazard_ratios().items()}
    nothing = (float("nan"),) * 3
    return Separation(facts, log_rank(follow.time_months, follow.event, who), {n: ratios.get(n, nothing) for n in names[1:]})
