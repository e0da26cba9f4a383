"""Mitotic figures of AMi-Br as pictures and labels that ``wsikit train subtype --preset cell`` takes: typical against atypical, by slide.

    python pipelines/label_typing.py AMI_BR OUT
    wsikit train subtype --preset cell --labels OUT/split.csv -o typing/ --init mitosis                      # 19 slides are held out
    wsikit evaluate typing/ --labels OUT/test.csv -o evaluation/
    wsikit train subtype --preset cell --labels OUT/all.csv -o crossed/ --epochs 8 --folds 3 --init FILE     # every slide is held out once

AMI_BR is the folder of AMi-Br (MIT): ``labels.csv`` and ``patches``. The shipped detector has seen the slides of ``train`` and no other, so a model that starts
from it (``--init mitosis``) is measured on those of ``test`` only, and a cross-validation starts from ImageNet's weights: a file of EfficientNet-Lite0.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from _mitosis_data import CROP_MPP, part_of, rgb
from PIL import Image

COLUMNS = ("path", "label", "patient", "mpp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ami", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--side", type=int, default=64, help="px around the figure")
    arguments = parser.parse_args()
    rows = []
    with (arguments.ami / "labels.csv").open(newline="") as f:
        for row in csv.DictReader(f):
            image = rgb(arguments.ami / "patches" / row["label"] / row["file"])
            margin = (image.shape[0] - arguments.side) // 2
            name = Path("crops") / Path(row["file"]).with_suffix(".png").name
            (arguments.out / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[margin : margin + arguments.side, margin : margin + arguments.side]).save(arguments.out / name)
            rows.append([str(name), row["label"], row["group"], str(CROP_MPP)])
    split = [[*row, part_of(row[2])] for row in rows]
    for name, columns, chosen in (
        ("all", COLUMNS, rows),
        ("split", (*COLUMNS, "split"), split),
        ("test", COLUMNS, [row[:-1] for row in split if row[-1] == "test"]),
    ):
        with (arguments.out / f"{name}.csv").open("w", newline="") as f:
            csv.writer(f).writerows([columns, *chosen])
        print(f"{name}.csv: {len(chosen)} figures, {sum(r[1] == 'atypical' for r in chosen)} atypical, {len({r[2] for r in chosen})} slides")


if __name__ == "__main__":
    main()
