"""The detector that ships: small, free to use, honest about where it was measured, and as good on held-out figures as its card says."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from wsikit.models import BUNDLED, check_model, find_model, load_model

FOLDER = BUNDLED / "mitosis"
PIPELINES = Path(__file__).parents[2] / "pipelines"


def test_it_is_the_default_for_real_slides_and_may_be_shipped() -> None:
    card = check_model(find_model("mitosis"))
    assert (card.name, card.trained_on.domain, card.licence, card.mpp, card.stain) == ("mitosis", "histology", "Apache-2.0", 0.25, "none")
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) <= 10e6
    assert "Research use only" in card.limitations
    assert "midesec" not in card.trained_on.description, "sets without a licence are for testing"


def test_its_figures_follow_from_their_counts() -> None:
    card = check_model(FOLDER)
    for name in ("held_out_slides", "held_out_slides_enlarged_from_0.5", "midesec", "icpr12_a00"):
        f = card.metrics[name]
        values = [f["tp"] / (f["tp"] + f["fp"]), f["tp"] / (f["tp"] + f["fn"]), 2 * f["tp"] / (2 * f["tp"] + f["fp"] + f["fn"])]
        for (value, low, high), want in zip((f["precision"], f["recall"], f["f1"]), values, strict=True):
            assert value == pytest.approx(want, abs=6e-4)
            assert low <= value <= high
    for name in ("second field without mitoses (canine)", "CMU-1-Small-Region, other half, enlarged from 0.5"):
        f = card.metrics[f"false finds: {name}"]
        assert f["per_mm2"] == pytest.approx(f["found"] / f["tissue_mm2"], abs=0.1)


def test_it_finds_on_held_out_crops_what_its_card_says(data: Path) -> None:
    """Figures in the middle of AMi-Br crops of slides that it has not seen: recall, and how often typical and atypical are told apart."""
    tools = runpy.run_path(str(PIPELINES / "_mitosis_data.py"))
    crops = [c for c in tools["crops"](data / "labelled/ami_br") if tools["part_of"](c.source) == "test" and np.isfinite(c.kind).any()][::3]
    model = load_model("mitosis")
    assert model.card.detection is not None
    hits, typed = 0, []
    for crop, found in zip(crops, model.predict(np.stack([c.image for c in crops])), strict=True):
        near = np.hypot(*(found.position - 64).T) * 0.25 <= 7.5
        counted = near & (found.score >= model.card.detection.threshold)
        hits += bool(counted.any())
        if counted.any():
            typed.append((float(np.nanmax(crop.kind)), float(found.atypical[counted][0])))
    _, low, high = model.card.metrics["held_out_slides"]["recall"]
    assert low - 0.08 <= hits / len(crops) <= high + 0.08
    truth, probability = np.array(typed).T
    balanced = ((probability[truth == 1] >= 0.5).mean() + (probability[truth == 0] < 0.5).mean()) / 2
    assert balanced >= model.card.metrics["typing"]["balanced_accuracy"][1] - 0.1
