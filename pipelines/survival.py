"""From scored slides and a table of patients to a risk that was validated, and then to the risk of new slides.

    uv run python pipelines/survival.py PATIENTS.csv SLIDES.csv OUT [--new NEW.csv] [--endpoint OS]

PATIENTS.csv has patient, time_months (or time_days, time_years), event and any clinical columns; SLIDES.csv has path and patient. Every step
is a verb of the command line too; it stands beside it. Everything lands in OUT, and running the script again goes on where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import wsikit as wk
from wsikit.train.tasks import survival

# What of the slides may enter, by pattern: the mitotic density, the shares of each class, and what can be read off nuclei and stain.
FEATURES = ["mitosis.per_mm2", "sts-subtype.*", "pathomics.*"]


def main() -> None:
    """Score, train, validate, and score new slides with the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patients", type=Path)
    parser.add_argument("slides", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--new", type=Path, help="slides of patients that the model has not seen: a CSV with path and patient, and the clinical columns")
    parser.add_argument("--endpoint", default="OS", help="what the event is [default: OS]")
    parser.add_argument("--workers", type=int, default=None)
    asked = parser.parse_args()

    # wsikit score SLIDES.csv -o OUT/run --pipeline mitosis --pipeline sts-subtype --keep-tiles
    run = wk.score([asked.slides], asked.out / "run", ["mitosis", "sts-subtype"], keep_tiles=True, workers=asked.workers)
    for slide_id, reason in run.failed.items():
        print(f"left out: {slide_id}: {reason}")

    # wsikit train survival --labels PATIENTS.csv --endpoint OS --features OUT/run --feature … -o OUT/model
    model = asked.out / "model"
    if not (model / "card.json").exists():
        survival(asked.patients, model, asked.out / "run", FEATURES, asked.endpoint, log=print)
    for picture in sorted((model / "training").glob("*.png")):
        print(f"look at {picture}")

    if asked.new:
        # wsikit score NEW.csv -o OUT/new --pipeline mitosis --pipeline sts-subtype --pipeline survival --model survival=OUT/model --keep-tiles
        names = ["mitosis", "sts-subtype", "survival"]
        found = wk.score([asked.new], asked.out / "new", names, models={"survival": model}, keep_tiles=True, workers=asked.workers)
        for slide_id, result in found.results.items():
            said = result.get("pipelines", {}).get("survival", {"status": "failed", "reason": result["reason"]})
            print(f"{slide_id}: {said['status']} {said.get('group', '')} {said['reason']}".rstrip())


if __name__ == "__main__":  # worker processes import this file
    main()
