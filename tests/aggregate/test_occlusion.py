"""What a cell adds to the risk is the risk with it less the risk without it, counted out by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from wsikit.aggregate.calls import call_slide
from wsikit.aggregate.doubt import tempered
from wsikit.aggregate.occlusion import contributions
from wsikit.aggregate.survival import CoxRisk, load_risk, predict_risk
from wsikit.models import Card, find_model, read_card
from wsikit.models._card import Calibration
from wsikit.run import Run

CARDS = {name: read_card(find_model(f"phantom-{name}")) for name in ("sts-subtype", "mitosis")}


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_cells_are_taken_out_one_by_one(scored: Run, temperature: float) -> None:
    """Also of a calibrated model, whose probabilities are at its temperature."""
    store, model = scored.store("lms"), load_risk(find_model("phantom-survival"))
    card = CARDS["sts-subtype"].model_copy(update={"calibration": Calibration(origin="a test", patients=1, slides=1, temperature=temperature)})
    called = call_slide(card, store.tables()["sts-subtype"]["probability"])
    results = store.result["pipelines"]
    results |= {"sts-subtype": results["sts-subtype"] | called}
    risk = predict_risk(model, results, store.attributes["survey"]["tissue_mm2"])
    found = contributions(model, store, results, risk["features"], CARDS | {"sts-subtype": card})
    assert found is not None
    whole, tissue = risk["risk"], store.attributes["survey"]["tissue_mm2"]
    tiles, mitoses = store.tables()["sts-subtype"], store.tables()["mitosis"]
    centres = tiles["origin"] + tiles["size"] / 2
    counted = mitoses["position"][mitoses["score"] >= np.float32(results["mitosis"]["threshold"])]
    ups = tempered(tiles["probability"], temperature)[:, tiles.attributes["classes"].index("UPS")]
    area = store.tissue() == 1
    step = np.array(store.attributes["survey"]["raster"]["downsample"])
    y, x = np.nonzero(area)
    spots = (np.stack([x, y], 1) + 0.5) * step
    for row, column in list(zip(*np.nonzero(~np.isnan(found.values)), strict=True))[::5]:
        low, high = np.array([column, row]) * found.cell, np.array([column + 1, row + 1]) * found.cell
        inside = [((p >= low) & (p < high)).all(1) for p in (centres, counted, spots)]
        left_mm2 = tissue * (1 - inside[2].mean())
        changed = results | {"mitosis": results["mitosis"] | {"per_mm2": (len(counted) - inside[1].sum()) / left_mm2}}
        if (~inside[0]).any():
            changed["sts-subtype"] = results["sts-subtype"] | {"probability": {"UPS": float(ups[~inside[0]].mean())}}
        without = predict_risk(model, changed, left_mm2)
        assert without["status"] == "ok"
        assert found.values[row, column] == pytest.approx(whole - without["risk"], abs=0.01), "the edges of cells cut pixels of the mask"
    if temperature != 1:
        return
    heat, risk = store.overlay("survival"), store.result["pipelines"]["survival"]
    assert heat.channels == ("raises the risk", "lowers the risk")
    assert np.nanmax(heat.values) == pytest.approx(1.0)
    assert np.nanmin(heat.values) == 0
    assert risk["occlusion"]["largest_log_risk"] == pytest.approx(np.nanmax(np.abs(found.values)), abs=1e-4)
    values = heat.values[0] - heat.values[1]
    assert values == pytest.approx(found.values / np.nanmax(np.abs(found.values)), abs=1e-3, nan_ok=True)


def test_features_that_lie_in_no_cell_are_left_as_they_are(scored: Run, make_card: Callable[..., Card]) -> None:
    store, spec = scored.store("lms"), {"endpoint": "OS", "models": {}, "cutoff": 0.0, "cutoff_origin": "a test"}
    card = make_card(pipeline="survival", task="risk", classes=[], risk=spec | {"features": ["quality.fold", "tissue_mm2"]})
    model, fold = CoxRisk(card, np.array([1.0, 0.5]), *(np.ones(2),) * 2, *(np.ones(1),) * 2), {"quality.fold": 0.25}
    one = contributions(model, store, store.result["pipelines"], fold | {"tissue_mm2": store.attributes["survey"]["tissue_mm2"]}, CARDS)
    assert one is not None
    assert np.nansum(one.values) == pytest.approx(0.5 * store.attributes["survey"]["tissue_mm2"], rel=1e-3), "each cell adds its tissue, and nothing else"


def test_where_the_mitoses_are_the_risk_is_raised(scored: Run) -> None:
    store, model = scored.store("lms"), load_risk(find_model("phantom-survival"))
    results = store.result["pipelines"]
    found = contributions(model, store, results, results["survival"]["features"], CARDS)
    assert found is not None
    mitoses = store.tables()["mitosis"]
    counted = mitoses["position"][mitoses["score"] >= np.float32(results["mitosis"]["threshold"])]
    cells = np.floor(counted / np.array(found.cell)).astype(int)
    number = np.zeros(found.values.shape)
    np.add.at(number, (cells[:, 1], cells[:, 0]), 1)
    scored_ = ~np.isnan(found.values)
    assert np.corrcoef(number[scored_], found.values[scored_])[0, 1] > 0.5
