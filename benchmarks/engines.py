"""Tiles per second of a classifier by what runs it: eager torch, torch as wsikit runs it, OpenVINO in float32 and bfloat16; and how far the answers are apart.

One thread; the engines take turns, so that what else the machine does falls on all alike, and the time is that of the processor, not of the clock on the wall.

    python benchmarks/engines.py densenet121 --tile 224 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsikit.models import load_model
from wsikit.models._backbone import build
from wsikit.models._card import Card, Weights, write_model
from wsikit.models._engine import ENGINES, probe_tiles


def make_model(folder: Path, name: str, tile: int, batch: int) -> None:
    """A model folder of a torchvision network with random weights that keep numbers in range."""
    about = {"domain": "histology", "description": "nothing: random weights"}
    fields: dict[str, Any] = {"name": "bench", "pipeline": "sts-subtype", "task": "classify", "classes": [*"ABCDE"], "trained_on": about, "licence": "none"}
    fields |= {"architecture": {"name": "torchvision", "model": name}, "tile_px": tile, "batch": batch}
    torch.manual_seed(0)
    write_model(folder, fields, build(Card(**fields, weights=Weights(sha256="0" * 64))).state_dict())


def eager(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The bare network as a notebook would run it: no channels-last, no fixed batch."""
    from safetensors.torch import load_file

    from wsikit.models import read_card

    card = read_card(folder)
    net = build(card)
    net.load_state_dict(load_file(folder / "model.safetensors"))
    net.eval()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (card.scaling.mean, card.scaling.std))

    def predict(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            x = (torch.from_numpy(images).permute(0, 3, 1, 2).float().contiguous() / 255 - mean) / std
            return torch.softmax(net(x), 1).numpy()

    return predict


def ours(folder: Path, engine: str) -> Callable[[np.ndarray], np.ndarray]:
    """The model as wsikit runs it, with this engine."""
    model: Any = load_model(folder, engine=engine)
    return lambda images: model.predict(images)["probability"]


def measure(name: str, tile: int, batch: int, rounds: int) -> dict[str, Any]:
    """Tiles per processor second, ratios to eager torch, and the largest difference of a probability."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "bench"
        make_model(folder, name, tile, batch)
        runs = {"eager torch": eager(folder)} | {engine: ours(folder, engine) for engine in ENGINES}
        tiles = probe_tiles(tile, batch)
        answers = {k: run(tiles) for k, run in runs.items()}  # also warms up
        speed: dict[str, list[float]] = {k: [] for k in runs}
        for _ in range(rounds):
            for k, run in runs.items():
                start = time.process_time()
                run(tiles)
                speed[k].append(len(tiles) / (time.process_time() - start))
    base = np.array(speed["eager torch"])
    return {
        k: {
            "tiles_per_cpu_second": round(float(np.median(v)), 1),
            "ratio_to_eager": round(float(np.median(np.array(v) / base)), 2),
            "largest_difference": float(np.abs(answers[k] - answers["eager torch"]).max()),
            "same_calls": bool((answers[k].argmax(1) == answers["eager torch"].argmax(1)).all()),
        }
        for k, v in speed.items()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="densenet121")
    parser.add_argument("--tile", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(json.dumps(measure(given.model, given.tile, given.batch, given.rounds), indent=1))
