"""Which parts of the slide raise the risk, and which lower it? What the risk would be without each of them, in turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsikit.aggregate.calls import attention_weights, log_probability
from wsikit.aggregate.doubt import tempered
from wsikit.aggregate.searched import searched
from wsikit.aggregate.survival import CoxRisk, model_inputs
from wsikit.grid import bilinear, on_mask, summed_area
from wsikit.models._card import SIGNATURE, Card
from wsikit.models._risk import networks_of
from wsikit.store import SlideStore
from wsikit.survival.forward import attention, mlp

CELL_UM = 256.0


@dataclass(frozen=True)
class Contributions:
    """By how much the log risk falls when a cell is taken out of the slide: float64 (rows, columns), NaN where nothing was scored.

    Above 0 where the cell raises the risk. ``cell`` is its size in level-0 px (x, y); cells start at the slide's origin.
    """

    values: np.ndarray
    cell: tuple[float, float]


def contributions(
    model: CoxRisk, store: SlideStore, results: Mapping[str, Mapping[str, Any]], found: Mapping[str, float], cards: Mapping[str, Card]
) -> Contributions | None:
    """Take out each cell's tiles, mitoses and tissue; None when the model sees nothing that lies in cells.

    Means over tiles (class probabilities, deep features, attention), mitoses per mm² and tissue area are computed again without the cell; all other
    features (hotspot, doubt, shares, quality, pathomics, clinical facts) are left as they are.

    Parameters
    ----------
    results : the pipelines' results of the slide
    found : the values of the model's features, in ``survival``'s result
    cards : of the pipelines: class probabilities are put together as for their calls
    """
    spec = model.spec
    names = [*spec.features, *(spec.signature.inputs if spec.signature else [])]
    tiles = spec.signature.pipeline if spec.signature else ""
    owners = {n.split(".", 1)[0] for n in names if "." in n} | ({tiles} if tiles else set())
    tables = {n: t for n, t in store.tables().items() if n in owners & cards.keys()}
    if not tables and "tissue_mm2" not in names:
        return None
    cell = _cell(store, tables)
    shape = tuple(int(np.ceil(store.attributes["slide"]["size"][axis] / cell[axis])) for axis in (1, 0))
    area = _mm2_of(store.tissue() == 1, store, cell, (shape[0], shape[1]))
    tissue_mm2 = store.attributes["survey"]["tissue_mm2"]
    without: dict[str, np.ndarray] = {"tissue_mm2": tissue_mm2 - area}
    touched = area > 0
    for owner, table in tables.items():
        if "position" in table:
            without[f"{owner}.per_mm2"] = _rate_without(store, owner, results[owner], table, cell, area.shape)
            continue
        centres = table["origin"] + table["size"] / 2
        without |= _probability_without(store, owner, results[owner], table, cards[owner], cell, area.shape)
        columns = {n: table["feature"][:, int(n.rsplit(".f", 1)[1])] for n in names if n.startswith(f"{owner}.f")}
        if columns:
            means = _means_without(centres, np.stack(list(columns.values()), 1).astype(np.float64), np.ones(len(centres)), cell, area.shape)
            without |= {name: means[..., i] for i, name in enumerate(columns)}
        if owner == tiles:
            without[SIGNATURE] = _attention_without(model, table["feature"], centres, cell, area.shape)
    changed = _risks(model, {k: np.where(touched, v, found.get(k, 0.0)) for k, v in without.items()}, found, area.shape)
    whole = float(((model_inputs(found, spec.features, spec.log1p) - model.mean) / model.sd) @ model.beta)
    return Contributions(np.where(touched, whole - changed, np.nan), cell)


def _cell(store: SlideStore, tables: Mapping[str, Any]) -> tuple[float, float]:
    """As large as the largest tile, at least 256 µm."""
    least = np.array([CELL_UM / m for m in store.mpp])
    sizes = [t["size"].max(0) for t in tables.values() if "origin" in t and len(t["size"])]
    x, y = np.max([least, *sizes], 0).tolist()
    return x, y


def _sums(at: np.ndarray, values: np.ndarray, cell: tuple[float, float], shape: tuple[int, ...]) -> np.ndarray:
    """Sums of values (N, K) of points by cell: float64 (rows, columns, K)."""
    out = np.zeros((*shape, values.shape[1]))
    if len(at):
        index = np.floor(at / np.array(cell)).astype(int)
        np.add.at(out, (index[:, 1].clip(0, shape[0] - 1), index[:, 0].clip(0, shape[1] - 1)), values)
    return out


def _means_without(at: np.ndarray, values: np.ndarray, weight: np.ndarray, cell: tuple[float, float], shape: tuple[int, ...]) -> np.ndarray:
    """Weighted means of values (N, K) of points without each cell's, 0 where a cell holds all: float64 (rows, columns, K)."""
    weighted = values * weight[:, None]
    inside, n = _sums(at, weighted, cell, shape), _sums(at, weight[:, None], cell, shape)
    left = weight.sum() - n
    return np.where(left > 1e-9, (weighted.sum(0) - inside) / np.maximum(left, 1e-9), 0.0)


def _probability_without(
    store: SlideStore, owner: str, result: Mapping[str, Any], table: Mapping[str, np.ndarray], card: Card, cell: tuple[float, float], shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """A slide's class probabilities without each cell, by feature: of the tiles in its region, and at the model's temperature, as for its call."""
    p, at = table["probability"], table["origin"] + table["size"] / 2
    kept = np.ones(len(p), bool)
    if "within" in result and (region := store.region(result["within"]["region"])) is not None:
        kept = on_mask(at, region, tuple(store.attributes["survey"]["raster"]["downsample"]))
    p, at, k = p[kept], at[kept], p.shape[1]
    temperature = card.calibration.temperature if card.calibration else 1.0
    if "attention" in table and len(p):
        left = _means_without(at, log_probability(p), attention_weights(table["attention"][kept]), cell, shape).reshape(-1, k)
        left = np.exp(left - left.max(1, keepdims=True))
        mean = tempered(left / left.sum(1, keepdims=True), temperature).reshape(*shape, k)
    else:
        mean = _means_without(at, tempered(p, temperature), np.ones(len(p)), cell, shape)
    return {f"{owner}.p_{c}": mean[..., i] for i, c in enumerate(card.classes)}


def _rate_without(
    store: SlideStore, owner: str, result: Mapping[str, Any], table: Mapping[str, np.ndarray], cell: tuple[float, float], shape: tuple[int, ...]
) -> np.ndarray:
    """Mitoses per mm² of the tissue that was searched, without each cell."""
    region = store.region(result["within"]["region"]) if "within" in result else None
    ground = searched(store, owner).tissue if region is None else searched(store, owner).tissue & region
    counted = table["position"][table["score"] >= np.float32(result["threshold"])]
    counted = counted[on_mask(counted, ground, tuple(store.attributes["survey"]["raster"]["downsample"]))]
    count = _sums(counted, np.ones((len(counted), 1)), cell, shape)[..., 0]
    left_mm2 = result["area_mm2"] - _mm2_of(ground, store, cell, (shape[0], shape[1]))
    return np.asarray((result["count"] - count) / np.maximum(left_mm2, 1e-9))


def _mm2_of(tissue: np.ndarray, store: SlideStore, cell: tuple[float, float], shape: tuple[int, int]) -> np.ndarray:
    """Area of tissue in each cell: float64 (rows, columns)."""
    dx, dy = store.attributes["survey"]["raster"]["downsample"]
    y = np.clip(np.arange(shape[0] + 1) * cell[1] / dy, 0, tissue.shape[0])
    x = np.clip(np.arange(shape[1] + 1) * cell[0] / dx, 0, tissue.shape[1])
    px = np.diff(np.diff(bilinear(summed_area(tissue), y, x), axis=0), axis=1)
    return np.asarray(np.round(px, 9) * dx * dy * store.mpp[0] * store.mpp[1] / 1e6)


def _attention_without(model: CoxRisk, tiles: np.ndarray, centres: np.ndarray, cell: tuple[float, float], shape: tuple[int, ...]) -> np.ndarray:
    """The mean score of the networks without each cell's tiles: exact, since attention is a weighted mean."""
    out = []
    for network in networks_of(dict(model.more)):
        a, score = attention(network, tiles)
        inside = _sums(centres, np.stack([a, a * score], 1), cell, shape)
        left = 1 - inside[..., 0]
        total = float((a * score).sum())
        out.append(np.where(left > 1e-9, (total - inside[..., 1]) / np.maximum(left, 1e-9), total))
    return np.asarray(np.mean(out, 0))


def _risks(model: CoxRisk, without: Mapping[str, np.ndarray], found: Mapping[str, float], shape: tuple[int, ...]) -> np.ndarray:
    """The log risk with each cell's numbers in place of the slide's: float64 (rows, columns)."""
    spec = model.spec

    def columns(names: list[str], extra: Mapping[str, np.ndarray]) -> np.ndarray:
        raw = [np.broadcast_to(np.asarray(extra.get(n, without.get(n, found.get(n, 0.0))), np.float64), shape) for n in names]
        return np.stack([np.log1p(v) if n in spec.log1p else v for n, v in zip(names, raw, strict=True)], -1)

    extra: dict[str, np.ndarray] = {}
    if spec.signature is not None and spec.signature.kind != "attention":
        networks = networks_of(dict(model.more))
        z = (columns(spec.signature.inputs, {}) - networks[0]["input_mean"]) / networks[0]["input_sd"]
        outputs = [mlp({k: v for k, v in n.items() if not k.startswith("input_")}, z.reshape(-1, z.shape[-1])) for n in networks]
        scores = [o[:, 0] if spec.signature.kind == "deepsurv" else np.log(np.logaddexp(0, o).sum(1)) for o in outputs]
        extra[SIGNATURE] = np.mean(scores, 0).reshape(shape)
    return np.asarray((columns(spec.features, extra) - model.mean) / model.sd @ model.beta)
