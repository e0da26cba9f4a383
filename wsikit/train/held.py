"""What a finished classifier says of the tiles that it was not trained on, and how good that is."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from wsikit.metrics import balanced_accuracy, bootstrap, confusion
from wsikit.store.durable import write_atomic
from wsikit.train.labels import Labelled, of_several_classes


@dataclass(frozen=True)
class HeldOut:
    """The answers for held-out tiles, or for slides that are called as one.

    Attributes
    ----------
    items : the slides that they are of
    owner : int64 (N,), which of them
    probability : float32 (N, K)
    feature : float32 (N, D)
    classes : K names
    unit : what a row is of
    """

    items: Sequence[Labelled]
    owner: np.ndarray
    probability: np.ndarray
    feature: np.ndarray
    classes: Sequence[str]
    unit: str = "tiles"

    @property
    def label(self) -> np.ndarray:
        """The class of each tile's slide: int64 (N,)."""
        return np.array([self.classes.index(i.label) for i in self.items], np.int64)[self.owner]

    def patients(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Of each patient and class: the name, the class int64 (P,), and the mean probability over all tiles, float64 (P, K)."""
        keys = [(i.patient, i.label) for i in self.items]
        order = sorted(set(keys))
        mine = np.array([order.index(k) for k in keys], np.int64)[self.owner]
        there = [k for k in range(len(order)) if (mine == k).any()]
        mean = np.array([self.probability[mine == k].mean(0, dtype=np.float64) for k in there]).reshape(-1, len(self.classes))
        return [order[k][0] for k in there], np.array([self.classes.index(order[k][1]) for k in there], np.int64), mean

    def figures(self) -> dict[str, Any]:
        """For the card: over tiles and over patients, with 95 % intervals over patients."""
        names, label, mean = self.patients()
        table = _confusion(self.label, self.probability.argmax(1), self.classes)
        by_patient = _confusion(label, mean.argmax(1), self.classes)

        def balanced(rows: np.ndarray) -> float:
            return balanced_accuracy(_confusion(label[rows], mean.argmax(1)[rows], self.classes))

        about = bootstrap(balanced, names)
        note = of_several_classes(names, [self.classes[i] for i in label.tolist()])
        return {
            "unit": self.unit,
            "n": len(self.owner),
            "patients": len(set(names)),
            "balanced_accuracy": round(balanced_accuracy(table), 4),
            "auc": auc(self.label, self.probability),
            "confusion": table.tolist(),
            "by_patient": {
                "balanced_accuracy": round(about.value, 4),
                "interval": [round(about.low, 4), round(about.high, 4)],
                "auc": auc(label, mean),
                "confusion": by_patient.tolist(),
            },
            **({"note": note} if note else {}),
        }

    def write(self, path: Path) -> None:
        """One row a patient, in the column order of the published code of Foersch et al."""
        names, label, mean = self.patients()
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["Patient_ID", "Label", "Prediction", *self.classes])
        for name, mine, p in zip(names, label.tolist(), mean, strict=True):
            rows.writerow([name, self.classes[mine], self.classes[int(p.argmax())], *(f"{v:.6f}" for v in p)])
        write_atomic(path, text.getvalue().encode())


def _confusion(label: np.ndarray, called: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    return confusion([classes[i] for i in label.tolist()], [classes[i] for i in called.tolist()], list(classes))


def auc(label: np.ndarray, probability: np.ndarray) -> float | None:
    """Mean one-against-the-rest area under the ROC curve of the classes that occur; None where fewer than two do."""
    there = [k for k in range(probability.shape[1]) if 0 < (label == k).sum() < len(label)]
    if not there:
        return None
    return round(float(np.mean([roc_auc_score(label == k, probability[:, k]) for k in there])), 4)


def scores(label: np.ndarray, probability: np.ndarray, keep: str) -> dict[str, float]:
    """Figures of an epoch over tiles; ``score`` is the one that ``keep`` names, higher is better."""
    k = probability.shape[1]
    names = [str(i) for i in range(k)]
    called = probability.argmax(1)
    found = {
        "balanced accuracy": balanced_accuracy(confusion([names[i] for i in label], [names[i] for i in called], names)),
        "accuracy": float((called == label).mean()),
        "auc": auc(label, probability) or 0.5,
        "validation loss": float(-np.log(np.maximum(probability[np.arange(len(label)), label], 1e-12)).mean()),
    }
    return {"score": -found["validation loss"] if keep == "loss" else found[keep], **found}
