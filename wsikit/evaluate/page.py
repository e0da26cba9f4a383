"""A classifier's evaluation as one self-contained HTML page."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from wsikit import RESEARCH_USE_ONLY
from wsikit.metrics.classification import Answers
from wsikit.models import Card
from wsikit.plot import classes as draw
from wsikit.plot.curves import reliability
from wsikit.store.durable import write_atomic

PAGE = "index.html"


def write_evaluation(folder: Path, card: Card, facts: Mapping[str, Any], levels: Mapping[str, Mapping[str, Answers]]) -> Path:
    """Write the page of an evaluation; returns its path.

    Parameters
    ----------
    facts : of `wsikit.evaluate.classifier.evaluate_classifier`
    levels : answers by level (tile, slide, patient) and rule of aggregation

    Raises
    ------
    OutputError
        It cannot be written.
    """
    pages = Environment(loader=PackageLoader("wsikit.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    pages.globals.update(statement=RESEARCH_USE_ONLY)
    pictures = {level: _picture(next(iter(rules.values())), card.classes, level) for level, rules in levels.items()}
    html = pages.get_template("evaluation.html").render(card=card, facts=facts, pictures=pictures, show=_show)
    write_atomic(folder / PAGE, html.encode())
    return folder / PAGE


def _show(value: Any) -> str:
    """A number with three digits, an interval as it says itself, and a dash for what has no value."""
    if isinstance(value, float):
        return "–" if np.isnan(value) else f"{value:.3f}"
    return str(value).replace("nan", "–")


def _picture(answers: Answers, classes: list[str], level: str) -> str:
    """ROC, precision and recall, reliability, risk at coverage, confusion: PNG as base64."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(17, 3.9), layout="constrained")
    one, two, three, four, five = figure.subplots(1, 5)
    draw.roc_by_class(answers, classes, one)
    draw.precision_recall(answers, classes, two)
    called = answers.probability.argmax(1)
    reliability(np.clip(answers.probability.max(1), 0, 1), called == answers.truth, three, bins=15)
    draw.risk_at_coverage(answers, four)
    draw.confusion_table(answers, classes, five)
    figure.suptitle(f"{level}s, n = {len(answers)}", fontsize=11)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode()
