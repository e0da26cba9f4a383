"""What is fitted on training patients: an encoder, perhaps a chosen few of its columns, perhaps a network's signature, and one model on top."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from wsikit.errors import LabelsError
from wsikit.survival.columns import Encoder, fit_encoder
from wsikit.survival.cox import Cox, choose_penalty, fit_cox
from wsikit.survival.folds import event_folds
from wsikit.survival.follow_up import EVENTS_PER_VARIABLE, FollowUp
from wsikit.survival.forward import Tensors, attention_risk, discrete_survival, mlp
from wsikit.survival.logistic import Logistic, fit_logistic
from wsikit.survival.select import lasso, mrmr

if TYPE_CHECKING:
    import pandas as pd

SIGNATURE = "signature"
INNER_FOLDS = 5
Kind = Literal["", "deepsurv", "discrete", "attention"]


@dataclass(frozen=True)
class Patients:
    """Patients to train on or to predict: their columns, follow-up, and (for attention) the tile features (N_i, D) of each."""

    table: pd.DataFrame
    follow: FollowUp
    bags: list[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.follow)

    def take(self, rows: np.ndarray) -> Patients:
        """These rows, in this order."""
        bags = None if self.bags is None else [self.bags[i] for i in rows]
        return Patients(self.table.iloc[rows], self.follow.take(rows), bags)


class Fitted(Protocol):
    """A model that knows its training patients only."""

    def risk(self, patients: Patients) -> np.ndarray:
        """Higher is worse: float64 (n,)."""

    def survival(self, patients: Patients, months: np.ndarray) -> np.ndarray:
        """Probability of no event by these times: float64 (n, T)."""


@dataclass(frozen=True)
class Signature:
    """The mean log risk of networks that were each trained without one fold of the training patients."""

    kind: Kind
    members: Sequence[Tensors]
    encoder: Encoder | None = None
    edges: np.ndarray | None = None

    def score(self, patients: Patients) -> np.ndarray:
        """float64 (n,)."""
        return np.asarray(np.mean([self._one(m, patients) for m in self.members], 0))

    def _one(self, member: Tensors, patients: Patients) -> np.ndarray:
        if self.encoder is None:
            assert patients.bags is not None
            return attention_risk(member, patients.bags)
        out = mlp(member, self.encoder.transform(patients.table))
        if self.edges is None:
            return np.asarray(out[:, 0])
        return np.log(np.logaddexp(0, out).sum(1))  # log of −log S at the last edge

    def survival(self, patients: Patients, months: np.ndarray) -> np.ndarray:
        """Of discrete hazards: the mean of the members' survival, float64 (n, T)."""
        assert self.encoder is not None
        assert self.edges is not None
        x = self.encoder.transform(patients.table)
        return np.asarray(np.mean([discrete_survival(mlp(m, x), self.edges, months) for m in self.members], 0))


def fit_signature(kind: Kind, columns: Sequence[str], patients: Patients, seed: int = 0, log1p: Sequence[str] = ()) -> tuple[Signature, np.ndarray]:
    """The networks, and each training patient's score from the one network that was trained without that patient.

    A score of a patient that a network was trained on would be too good, and the model on top would believe it too much.
    """
    from wsikit.survival import nets

    folds = event_folds(patients.follow, INNER_FOLDS, seed)
    encoder = None if kind == "attention" else fit_encoder(patients.table[list(columns)], [c for c in log1p if c in columns])
    edges = nets.hazard_bins(patients.follow) if kind == "discrete" else None
    out_of_fold, members = np.empty(len(patients)), list[Tensors]()
    for k in range(INNER_FOLDS):
        held, start = folds == k, seed * 1000 + k
        if encoder is None:
            if patients.bags is None:
                raise LabelsError("attention needs the tile features of each patient; train on a run whose classifier kept them")
            member = nets.fit_attention(patients.bags, patients.follow, held, start)
        elif edges is None:
            member = nets.fit_deepsurv(encoder.transform(patients.table), patients.follow, held, start)
        else:
            member = nets.fit_discrete(encoder.transform(patients.table), patients.follow, held, start, edges)
        members.append(member)
        rows = np.flatnonzero(held)
        out_of_fold[rows] = Signature(kind, [member], encoder, edges).score(patients.take(rows))
    return Signature(kind, members, encoder, edges), out_of_fold


@dataclass(frozen=True)
class Model:
    """A fitted recipe: the columns that were kept, in ``names``, standardised by ``mean`` and ``sd``; the last may be the signature."""

    encoder: Encoder | None
    chosen: np.ndarray
    signature: Signature | None
    names: list[str]
    mean: np.ndarray
    sd: np.ndarray
    top: Cox | Logistic

    def columns(self, patients: Patients) -> np.ndarray:
        """The standardised input of the model on top: float64 (n, F)."""
        parts = []
        if self.encoder is not None:
            parts.append(self.encoder.transform(patients.table)[:, self.chosen])
        if self.signature is not None:
            parts.append((self.signature.score(patients)[:, None] - self.mean[-1]) / self.sd[-1])
        return np.concatenate(parts, 1)

    def risk(self, patients: Patients) -> np.ndarray:
        """Log hazard (or odds) ratio to the mean training patient: float64 (n,)."""
        return self.top.risk(self.columns(patients))

    def survival(self, patients: Patients, months: np.ndarray) -> np.ndarray:
        """Probability of no event by these times: float64 (n, T)."""
        return self.top.survival(self.columns(patients), months)

    def interval(self, patients: Patients, months: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of `survival`: float64 (n, T) twice."""
        return self.top.interval(self.columns(patients), months)


@dataclass(frozen=True)
class Recipe:
    """How a model is made.

    Attributes
    ----------
    columns : that enter the model on top
    signature : a network whose out-of-fold score enters as one more column; of ``signature_columns``, or (``attention``) of tiles
    select : ``mrmr`` keeps at most one column per ten events, ``lasso`` those at the largest λ within one standard error of the best
    penalty : ridge; None chooses it by cross-validation inside the training patients
    outcome : ``time`` for a Cox model, ``yes-no`` for a logistic one
    """

    columns: Sequence[str] = ()
    signature: Kind = ""
    signature_columns: Sequence[str] = ()
    select: Literal["", "mrmr", "lasso"] = ""
    penalty: float | None = 0.01
    outcome: Literal["time", "yes-no"] = "time"
    log1p: Sequence[str] = field(default=())

    def fit(self, patients: Patients, seed: int = 0) -> Model:
        """The model of these patients.

        Raises
        ------
        LabelsError
            No column varies, or the fit does not converge.
        """
        follow, encoder, signature = patients.follow, None, None
        parts, names, mean, sd = [], list[str](), list[float](), list[float]()
        chosen = np.empty(0, np.int64)
        if self.columns:
            encoder = fit_encoder(patients.table[list(self.columns)], [c for c in self.log1p if c in self.columns])
            z = encoder.transform(patients.table)
            chosen = self._chosen(z, follow, seed)
            parts.append(z[:, chosen])
            names += [encoder.names[i] for i in chosen]
            mean, sd = encoder.mean[chosen].tolist(), encoder.sd[chosen].tolist()
        if self.signature:
            signature, score = fit_signature(self.signature, self.signature_columns, patients, seed, self.log1p)
            names, mean, sd = [*names, SIGNATURE], [*mean, float(score.mean())], [*sd, float(score.std()) or 1.0]
            parts.append((score[:, None] - mean[-1]) / sd[-1])
        if not names:
            raise LabelsError("no column varies among the training patients, so there is nothing to train on")
        top = self._top(np.concatenate(parts, 1), names, follow, seed)
        return Model(encoder, chosen, signature, names, np.array(mean), np.array(sd), top)

    def _chosen(self, z: np.ndarray, follow: FollowUp, seed: int) -> np.ndarray:
        if self.select == "mrmr":
            return np.sort(mrmr(z, follow, max(1, int(follow.event.sum()) // EVENTS_PER_VARIABLE)))
        if self.select == "lasso":
            return lasso(z, follow, event_folds(follow, INNER_FOLDS, seed))
        return np.arange(z.shape[1])

    def _top(self, z: np.ndarray, names: list[str], follow: FollowUp, seed: int) -> Cox | Logistic:
        if self.outcome == "yes-no":
            return fit_logistic(z, names, follow.event, self.penalty if self.penalty is not None else 0.01)
        penalty = choose_penalty(z, follow, event_folds(follow, INNER_FOLDS, seed)) if self.penalty is None else self.penalty
        return fit_cox(z, names, follow, penalty)


@dataclass(frozen=True)
class Discrete:
    """Discrete hazards by themselves, without a Cox model on top: hazard ratios may change over time."""

    columns: Sequence[str]
    log1p: Sequence[str] = ()

    def fit(self, patients: Patients, seed: int = 0) -> DiscreteModel:
        """The networks of these patients."""
        return DiscreteModel(fit_signature("discrete", self.columns, patients, seed, self.log1p)[0])


@dataclass(frozen=True)
class DiscreteModel:
    """Fitted discrete hazards."""

    signature: Signature

    def risk(self, patients: Patients) -> np.ndarray:
        """Log cumulative hazard by the last event: float64 (n,)."""
        return self.signature.score(patients)

    def survival(self, patients: Patients, months: np.ndarray) -> np.ndarray:
        """Probability of no event by these times: float64 (n, T)."""
        return self.signature.survival(patients, months)
