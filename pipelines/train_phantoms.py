"""Train the phantom models that ship with wsikit, on phantoms that neither tests nor demo use.

    uv run python pipelines/train_phantoms.py WORKDIR [--only sts|rms|mitosis|survival]

Takes about half an hour on two cores. They exist so that the whole way from slide to risk can be run and tested with a known truth;
on real tissue they abstain.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np

import wsikit as wk
from wsikit.aggregate.survival import features_of
from wsikit.models import BUNDLED, find_model, read_card
from wsikit.testing.cohort import Patient, specs, write_cohort
from wsikit.testing.phantom import RMS_CLASSES, STS_CLASSES
from wsikit.train.classify import Options, train_classifier
from wsikit.train.detect import Points, train_detector
from wsikit.train.labels import Labelled
from wsikit.train.presets import PLAIN
from wsikit.train.recipe import changed
from wsikit.train.survival import train_cox

LIMITATIONS = "Knows synthetic tissue only. Has never seen a patient's slide, and abstains on everything that is not a wsikit phantom."
PHANTOMS = changed(PLAIN, {"initial": "none"}, "pipelines/train_phantoms.py")
COMMON: dict[str, Any] = {"licence": "Apache-2.0", "limitations": LIMITATIONS}


def trained_on(what: str, n: int) -> dict[str, Any]:
    return {"domain": "phantom", "description": f"{what}, made by wsikit.testing.phantom; pipelines/train_phantoms.py", "slides": n, "patients": n}


def labelled(patients: list[Patient], other: bool = False) -> list[Labelled]:
    return [Labelled(p.path, "other" if other else p.truth.spec.subtype, f"{p.path.parent.name}-{p.patient}") for p in patients]


def train_sts(sts: list[Patient]) -> None:
    train_classifier(
        labelled(sts),
        BUNDLED / "phantom-sts-subtype",
        COMMON
        | {
            "name": "phantom-sts-subtype",
            "pipeline": "sts-subtype",
            "task": "classify",
            "classes": list(STS_CLASSES),
            "architecture": {"name": "densenet", "growth_rate": 8, "block_config": [2, 4, 6, 4], "num_init_features": 16},
            "mpp": 1.0,
            "tile_px": 224,
            "trained_on": trained_on("five texture classes named after sarcoma subtypes", len(sts)),
        },
        PHANTOMS,
        Options(per_slide=30),
    )


def train_rms(rms: list[Patient], sts: list[Patient]) -> None:
    items = labelled(rms) + labelled(sts[::3], other=True)
    train_classifier(
        items,
        BUNDLED / "phantom-rms-subtype",
        COMMON
        | {
            "name": "phantom-rms-subtype",
            "pipeline": "rms-subtype",
            "task": "classify",
            "classes": [*RMS_CLASSES, "other"],
            "architecture": {"name": "inception_v3_slim", "width": 8},
            "mpp": 1.0,
            "tile_px": 299,
            "trained_on": trained_on("two texture classes named after rhabdomyosarcoma subtypes, and others", len(items)),
        },
        PHANTOMS.shortened(24),
        Options(per_slide=30),
    )


def train_mitosis(patients: list[Patient]) -> None:
    slides = [Points(item, p.truth.mitoses, p.truth.lookalikes) for item, p in zip(labelled(patients), patients, strict=True)]
    train_detector(
        slides,
        BUNDLED / "phantom-mitosis",
        COMMON
        | {
            "name": "phantom-mitosis",
            "pipeline": "mitosis",
            "task": "detect",
            "classes": ["mitosis"],
            "architecture": {"name": "yolox", "depth": 0.33, "width": 0.125},
            "mpp": 0.5,
            "tile_px": 256,
            "overlap_px": 64,
            "min_tissue": 0.0,
            "scaling": {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]},
            "detection": {"threshold": 0.5, "keep_above": 0.1, "merge_um": 7.5, "hotspot_mm2": 2.0},
            "trained_on": trained_on("dark plates and paired plates as mitoses, round dark bodies as look-alikes", len(patients)),
        },
        epochs=14,
    )


def train_survival(folder: Path, patients: list[Patient]) -> None:
    run = wk.score([patients[0].path.parent / "cases.csv"], folder / "survival-run", ["sts-subtype", "mitosis"], workers=None)
    results = [run.results[p.path.stem] for p in patients]
    features = [features_of(r["pipelines"], r["tissue_mm2"]) for r in results]
    digests = {name: read_card(find_model(f"phantom-{name}")).digest for name in ("sts-subtype", "mitosis")}
    names = ["mitosis.per_mm2", "sts-subtype.p_UPS"]
    card = train_cox(
        features,
        np.array([p.time_months for p in patients]),
        np.array([p.event for p in patients]),
        BUNDLED / "phantom-survival",
        COMMON
        | {
            "name": "phantom-survival",
            "pipeline": "survival",
            "task": "risk",
            "architecture": {"name": "cox"},
            "stain": "macenko",
            "risk": {"endpoint": "phantom event", "features": names, "log1p": names[:1], "models": digests, "cutoff": 0.0, "cutoff_origin": ""},
            "trained_on": trained_on("follow-up drawn from a hazard of mitotic density and class", len(patients)),
        },
    )
    print(card.metrics)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--only", choices=["sts", "rms", "mitosis", "survival"], action="append")
    arguments = parser.parse_args()
    work, only = arguments.workdir, arguments.only or ["sts", "rms", "mitosis", "survival"]
    sts = write_cohort(work / "sts", specs(STS_CLASSES, 10, seed=901, width=2560, height=2048), seed=901)
    rms = write_cohort(work / "rms", specs(RMS_CLASSES, 14, seed=902, width=2560, height=2048), seed=902)
    if "sts" in only:
        train_sts(sts)
    if "rms" in only:
        train_rms(rms, sts)
    if "mitosis" in only:
        train_mitosis([*sts[::2], *rms[::2]])
    if "survival" in only:
        n = math.ceil(120 / len(STS_CLASSES))
        train_survival(work, write_cohort(work / "survival", specs(STS_CLASSES, n, seed=903, width=2560, height=2048), seed=903))


if __name__ == "__main__":
    main()
