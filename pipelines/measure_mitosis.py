"""Choose a trained mitosis detector's threshold on validation slides, measure it on others, and write both into its card.

    python pipelines/measure_mitosis.py MODEL OUT --labelled FOLDER --public-slide CMU-1-Small-Region.svs

FOLDER is that of train_mitosis.py; where it holds ``midesec`` and ``icpr12_a00`` too, the detector is tested on them: nothing is ever learned from those.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from _mitosis_data import load
from _mitosis_figures import best_threshold, coarser, enlarged, false_per_mm2, fields_with, find, icpr12, midesec, pooled, typing
from safetensors.torch import load_file

from wsikit.models import family, read_card, write_model

COMPOSED = (
    "Fields of 256 px composed as they were needed: mosaics of AMi-Br crops (MIT; human breast, MIDOG 2021 and TUPAC16, each centred on a labelled figure) "
    "shifted, turned by any angle, mirrored and shown at 0.2 to 0.32 µm/px; figures and look-alikes pasted through soft discs into tissue without mitoses "
    "(one MIT field of canine mammary tissue, half of the CC0 slide CMU-1-Small-Region); some blurred as if scanned at 0.3 to 0.55 µm/px; stain varied. "
    "False finds of the first stage, and in a further round of the verifier, were learned as look-alikes. Both stages start from ImageNet weights of "
    "EfficientNet-Lite0 (Apache-2.0). Split by slide; pipelines/train_mitosis.py."
)
COMPOSED_TEST = (
    "crops of 18 other slides, two in each field of 512 px of tissue without mitoses, at 0.25 µm/px; of tumour only the crops' own surroundings are there, "
    "so that the precision is better than on real fields"
)
MIDESEC = "26 whole fields of another laboratory (human breast, x40, µm/px not stated and taken as 0.25); never learned from; intervals over fields"
ICPR12 = "27 patches of 256 px of four fields of one slide, some overlapping (another laboratory, human breast, 0.2456 µm/px); never learned from"
LIMITS = (
    "Research use only. Learned from human breast cancer alone; on sarcoma it has not been measured. Dark small nuclei (pyknotic cells, lymphocytes, "
    "smeared nuclei) are the usual false finds, pale prophases and figures out of focus the usual misses. On fields of another laboratory about half "
    "of what it counts is a mitosis: a person must look at each before a count is used. Needs 0.25 µm/px; coarser slides can be enlarged (--upsample), see the "
    "figures for that. The threshold expects a hot spot with about 60 figures per mm²; where there are few, most of what is found is false. "
    "The probability of atypical is for figures that are mitoses, and is not part of any count."
)


def measured(model: Any, labelled: Path, public_slide: Path) -> tuple[float, dict[str, Any]]:
    """The threshold, and every figure."""
    tissue = load(labelled, public_slide)
    threshold, expected = best_threshold([find(model, f) for f in fields_with(tissue["val"], 4)])
    print("threshold", threshold, expected, flush=True)
    at = len(tissue["val"].figures), len({p.source for p in tissue["val"].figures})
    facts: dict[str, Any] = {"validation": {"unit": "figures", "n": at[0], "slides": at[1], **{k: round(v, 3) for k, v in expected.items()}}}
    fields = fields_with(tissue["test"])
    found = [find(model, f) for f in fields]
    facts["held_out_slides"] = {
        "what": "AMi-Br crops of other slides, two in each field of 512 px of tissue without mitoses, 0.25 µm/px",
        **pooled(found, threshold),
    }
    facts["held_out_slides_enlarged_from_0.5"] = pooled([find(model, coarser(f, 2)) for f in fields], threshold)
    facts["typing"] = {"what": "typical against atypical on detected figures of held-out slides", **typing(found, threshold)}
    for empty in tissue["test"].empty:
        name = "CMU-1-Small-Region, other half, enlarged from 0.5" if empty.mpp > 0.3 else "second field without mitoses (canine)"
        facts[f"false finds: {name}"] = false_per_mm2(find(model, enlarged(empty, 0.25) if empty.mpp > 0.3 else empty), threshold)
    for name, read, what in (("midesec", midesec, MIDESEC), ("icpr12_a00", icpr12, ICPR12)):
        if (labelled / name).is_dir():
            # whole fields with figures: the errors that a slide's count is said to have, where false finds are as frequent as there
            unit = {"unit": "fields"} if name == "midesec" else {}
            facts[name] = {"what": what, **unit, **pooled([find(model, f) for f in read(labelled / name)], threshold)}
            print(name, facts[name], flush=True)
    return threshold, facts | {"rule": "a detection within 7.5 µm of a labelled figure, each once (MIDOG); [value, low, high]: 95 % interval over cases"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--labelled", type=Path, required=True)
    parser.add_argument("--public-slide", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    card = read_card(arguments.model)
    one = card.model_copy(update={"batch": 1, "detection": card.detection.model_copy(update={"keep_above": 0.1})})  # type: ignore[union-attr]
    threshold, facts = measured(family("mitosis").load(one, arguments.model, "cpu"), arguments.labelled, arguments.public_slide)
    fields = json.loads(card.model_dump_json(exclude={"weights"})) | {
        "tile_px": 512,
        "batch": 4,
        "detection": {"threshold": threshold, "keep_above": 0.2},
        "metrics": facts,
        "limitations": LIMITS,
        "trained_on": {"domain": "histology", "description": COMPOSED, "slides": 112 + 2, "patients": None},
    }
    print(write_model(arguments.out, fields, load_file(arguments.model / "model.safetensors")).model_dump_json(indent=1))


if __name__ == "__main__":
    main()
