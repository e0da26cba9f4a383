"""Train the soft-tissue sarcoma subtypes on your own slides, validate across patients, and look at slides that no training saw.

    uv run python pipelines/train_sts.py LABELS.csv OUT [--test TEST.csv] [--folds 5] [--recipe pipelines/train_sts.toml]

LABELS.csv has path, label (DDLPS, LMS, MFS, SS, UPS), patient, and perhaps mpp, site, split, fold; a path is a slide, a store with kept pixels or a
tile image. A patient on both sides of a split is an error. Killed, it goes on where it was. Each step is a verb of the command line too.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from wsikit.evaluate import evaluate_model
from wsikit.train.classify import Options
from wsikit.train.presets import choose_recipe
from wsikit.train.tasks import subtype

RECIPE = Path(__file__).with_suffix(".toml")


def main() -> None:
    """Train, then evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--test", type=Path, help="slides of other patients: a CSV as LABELS")
    parser.add_argument("--folds", type=int, default=5, help="of a cross-validation before the final training; 0 for none")
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()

    # wsikit train sts-subtype --labels LABELS.csv --recipe RECIPE --folds 5 -o OUT/model
    model = asked.out / "model"
    if not (model / "card.json").exists():
        recipe = choose_recipe("sts-subtype", file=asked.recipe)
        card = subtype("sts-subtype", asked.labels, model, recipe, Options(folds=asked.folds, device=asked.device))
        print(json.dumps(card.metrics, indent=1))
    print(f"curves, the recipe with its sources, and what was predicted of patients held out: {model / 'training'}")

    if asked.test:
        # wsikit evaluate OUT/model --labels TEST.csv -o OUT/evaluation
        found = evaluate_model(str(model), asked.test, asked.out / "evaluation")
        print(json.dumps(found, indent=1, default=str))


if __name__ == "__main__":  # worker processes import this file
    main()
