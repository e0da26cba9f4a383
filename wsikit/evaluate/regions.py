"""Score slides with a model of regions, and compare what it drew with what people drew, with intervals over patients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wsikit.aggregate.overlap import dice, hausdorff_um
from wsikit.errors import LabelsError
from wsikit.evaluate.slides import score_rows, slide_ids
from wsikit.grid import Raster
from wsikit.metrics import bootstrap
from wsikit.models import Card
from wsikit.store.durable import write_atomic
from wsikit.train.regions import IGNORED, REGION, read_marked, truth_on


def evaluate_regions(card: Card, folder: Path, labels: Path, out: Path, workers: int | None = 0) -> dict[str, Any]:
    """Dice, Hausdorff distance and its 95th percentile in µm, per slide in ``OUT.regions.csv`` and over all with intervals over patients.

    Raises
    ------
    LabelsError
        The labels cannot be used, or no slide could be scored.
    """
    slides = read_marked(labels)
    run = score_rows(card, folder, [(str(s.item.path), s.item.patient, s.item.mpp) for s in slides], out, workers)
    ids = slide_ids(run)
    rows: list[dict[str, Any]] = []
    for s in slides:
        slide_id = ids[str(s.item.path.resolve())]
        result = run.results[slide_id]
        if result["status"] == "ok" and result["pipelines"][card.pipeline]["status"] == "ok":
            rows.append({"slide_id": slide_id, "patient": s.item.patient, **_compare(run.store(slide_id), card, s)})
    if not rows:
        raise LabelsError(f"no slide has a region to compare; the first: {next(iter(run.failed.values()), 'every answer was withheld')}")
    lines = [",".join(rows[0]), *(",".join(str(v) for v in row.values()) for row in rows)]
    write_atomic(out.parent / f"{out.name}.regions.csv", ("\n".join(lines) + "\n").encode())
    return _figures(rows) | {"withheld or failed": len(slides) - len(rows)}


def _compare(store: Any, card: Card, marked: Any) -> dict[str, Any]:
    raster = Raster.from_json(store.attributes["survey"]["raster"])
    said, found = truth_on(marked, raster), store.region(card.pipeline)
    known = (said != IGNORED) & (store.tissue() == 1)  # what was drawn over glass is not tissue
    a, b = found & known, (said == REGION) & known
    area = raster.mpp[0] * raster.mpp[1] / 1e6
    far = {name: round(hausdorff_um(a, b, raster.mpp, p), 2) for name, p in (("hausdorff_um", 100.0), ("hausdorff95_um", 95.0))}
    return {"dice": round(dice(a, b), 6), **far, "found_mm2": round(float(a.sum()) * area, 6), "drawn_mm2": round(float(b.sum()) * area, 6)}


def _figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    patients = [str(r["patient"]) for r in rows]

    def of(name: str, statistic: Callable[[np.ndarray], Any]) -> Any:
        values = np.array([r[name] for r in rows], np.float64)
        return bootstrap(lambda picked: float(statistic(values[picked])) if not np.isnan(values[picked]).all() else float("nan"), patients)

    return {
        "slides": len(rows),
        "patients": len(set(patients)),
        "mean dice (both empty counts 1, one empty 0)": of("dice", np.mean),
        "median hausdorff um (undefined where one is empty)": of("hausdorff_um", np.nanmedian),
        "median hausdorff95 um": of("hausdorff95_um", np.nanmedian),
        "undefined distances": sum(bool(np.isnan(r["hausdorff_um"])) for r in rows),
    }
