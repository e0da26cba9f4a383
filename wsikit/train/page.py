"""What a training did, as one HTML page: curves, the recipe with the source of each value, patients, and figures."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from wsikit import RESEARCH_USE_ONLY
from wsikit.models._card import Card
from wsikit.store.durable import write_atomic
from wsikit.train.labels import Labelled
from wsikit.train.recipe import Recipe

_BLUE, _ORANGE = "#0072B2", "#D55E00"  # Okabe & Ito's, which colour-blind eyes tell apart
_NOT_DRAWN = ("epoch", "stage", "seconds", "score", "loss", "validation loss", "learning_rate")


def write_page(
    folder: Path,
    card: Card,
    recipe: Recipe,
    history: Sequence[Mapping[str, Any]],
    parts: Mapping[str, Sequence[Labelled]],
    labels: Sequence[str] | None = None,
) -> Path:
    """Write ``training.html``; returns its path. ``labels`` are those that slides have, where they are not the classes.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    pages = Environment(loader=PackageLoader("wsikit.train"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    values = [(name, value, recipe.source(name)) for name, value in recipe.values()]
    labels = labels or card.classes
    html = pages.get_template("training.html").render(
        card=card, recipe=recipe, values=values, statement=RESEARCH_USE_ONLY, curves=_curves(history), labels=labels, parts=_counts(parts, labels)
    )
    path = folder / "training.html"
    write_atomic(path, html.encode())
    return path


def _counts(parts: Mapping[str, Sequence[Labelled]], classes: Sequence[str]) -> list[tuple[str, list[tuple[int, int]]]]:
    """Slides and patients of each class in each part."""
    rows = []
    for name, items in parts.items():
        slides, patients = Counter(i.label for i in items), Counter(label for _, label in {(i.patient, i.label) for i in items})
        rows.append((name, [(slides[c], patients[c]) for c in classes]))
    return rows


def _curves(history: Sequence[Mapping[str, Any]]) -> str:
    """Loss, validation figures and learning rate by epoch: PNG as base64."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    x = [row["epoch"] for row in history]
    left.plot(x, [row["loss"] for row in history], color=_BLUE, marker=".", label="training")
    if "validation loss" in history[0]:
        left.plot(x, [row["validation loss"] for row in history], color=_ORANGE, marker=".", label="validation")
    left.legend(frameon=False)
    for name in (k for k in history[0] if k not in _NOT_DRAWN):
        middle.plot(x, [row[name] for row in history], marker=".", label=name)
    middle.set_ylim(0, 1)
    middle.legend(frameon=False)
    right.plot(x, [row["learning_rate"] for row in history], color=_BLUE, marker=".")
    right.set_yscale("log")
    for axes, title in ((left, "loss"), (middle, "validation"), (right, "learning rate at the end of the epoch")):
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.spines[["top", "right"]].set_visible(False)
        for change in (i for i in range(1, len(history)) if history[i]["stage"] != history[i - 1]["stage"]):
            axes.axvline(x[change] - 0.5, color="#999999", linestyle=":")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode()
