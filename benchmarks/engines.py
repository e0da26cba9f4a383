"""Tiles per second of a classifier by what runs it: eager torch, torch as wsikit runs it, OpenVINO in float32 and bfloat16; and how far the answers are apart.

One thread; all take turns, so that what else the machine does falls on all alike, and the time is that of the processor, not of the clock on the wall. The
roofs are the tiles that the processor could do if it never did anything but multiply: the fastest product of large matrices, or convolution, that OpenVINO has
here, over the network's own multiplications and additions. Where an engine's time goes, by kind of layer, is told beside it.

    python benchmarks/engines.py densenet121 --tile 224 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsikit.models import load_model, read_card
from wsikit.models._backbone import build
from wsikit.models._card import Card, Weights, write_model
from wsikit.models._engine import BATCH, BFLOAT16, ENGINES, OPENVINO, _converted, probe_tiles

EAGER = "eager torch"
PRECISION = {"float32": "f32", "bfloat16": "bf16"}  # of the roofs, as OpenVINO calls them
PRODUCT = 2048  # rows and columns of the matrices of the roofs


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


def compiled(network: Any, precision: str, **more: Any) -> Any:
    """A request to OpenVINO on one thread."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    return openvino.Core().compile_model(network, "CPU", settings | more).create_infer_request()


def multiplied(kind: str, precision: str) -> tuple[Callable[[], Any], float]:
    """What OpenVINO multiplies fastest: two matrices, or maps of 256 channels with kernels of 3 × 3, six times on end; and the operations in it."""
    import openvino
    from openvino import opset13 as ops

    rng = np.random.default_rng(0)
    if kind == "product":
        shape, kernel, operations = (PRODUCT, PRODUCT), (PRODUCT, PRODUCT), 2.0 * PRODUCT**3
        x = y = ops.parameter(shape, np.float32)
        y = ops.matmul(x, ops.constant(rng.standard_normal(kernel).astype(np.float32)), False, True)
    else:
        shape, kernel, operations = (4, 256, 28, 28), (256, 256, 3, 3), 6 * 2.0 * 4 * 28**2 * 256**2 * 9
        x = y = ops.parameter(shape, np.float32)
        for _ in range(6):
            y = ops.convolution(y, ops.constant((rng.standard_normal(kernel) / 48).astype(np.float32)), [1, 1], [1, 1], [1, 1], [1, 1])
    request, given = compiled(openvino.Model([y], [x], kind), precision), rng.standard_normal(shape).astype(np.float32)
    return lambda: request.infer([given]), operations


def roofs(per_tile: float) -> dict[str, tuple[Callable[[], Any], float]]:
    """By precision and kind of multiplication, and the tiles that each is worth."""
    found = {}
    for said, precision in PRECISION.items():
        for kind in ("product", "convolution"):
            multiply, done = multiplied(kind, precision)
            multiply()
            found[f"roof, {said}: {kind}"] = (multiply, done / per_tile)
    return found


def operations(folder: Path) -> float:
    """Multiplications and additions of a network for one tile, in its convolutions and linear layers."""
    from torch.utils.flop_counter import FlopCounterMode

    card = read_card(folder)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        build(card).eval()(torch.zeros(1, 3, card.tile_px, card.tile_px))
    return float(counter.get_total_flops())


def layers(folder: Path, engine: str) -> dict[str, float]:
    """The share of an engine's time that each kind of layer takes, the largest first."""
    import openvino

    model: Any = load_model(folder)
    model.batch = min(model.card.batch, BATCH)
    network = openvino.Core().read_model(str(_converted(model)))
    request = compiled(network, PRECISION["bfloat16" if engine == BFLOAT16 else "float32"], PERF_COUNT=True)
    seconds: Counter[str] = Counter()
    for _ in range(4):
        request.infer([np.zeros(network.inputs[0].shape, np.float32)])
        for node in request.profiling_info:
            seconds[node.node_type] += node.real_time.total_seconds()
    return {k: round(v / seconds.total(), 2) for k, v in seconds.most_common() if v > 0.01 * seconds.total()}


def in_turn(work: dict[str, tuple[Callable[[], Any], float]], rounds: int) -> dict[str, np.ndarray]:
    """Tiles per processor second of each, by round; ``work`` is what to call, and the tiles that it is worth."""
    speed: dict[str, list[float]] = {k: [] for k in work}
    for _ in range(rounds):
        for k, (run, tiles) in work.items():
            start = time.process_time()
            run()
            speed[k].append(tiles / (time.process_time() - start))
    return {k: np.array(v) for k, v in speed.items()}


def measure(name: str, tile: int, batch: int, rounds: int) -> dict[str, Any]:
    """Tiles per processor second, ratios to eager torch, shares of the roof, the largest difference of a probability, and where the time goes."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "bench"
        make_model(folder, name, tile, batch)
        runs = {EAGER: eager(folder)} | {engine: ours(folder, engine) for engine in ENGINES}
        tiles = probe_tiles(tile, batch)
        answers = {k: run(tiles) for k, run in runs.items()}  # also warms up
        parts = {engine: layers(folder, engine) for engine in (OPENVINO, BFLOAT16)}
        per_tile = operations(folder)
        work = {k: (partial(run, tiles), float(batch)) for k, run in runs.items()} | roofs(per_tile)
        speed = in_turn(work, rounds)
    roof = {p: max((k for k in speed if k.startswith(f"roof, {p}")), key=lambda k: float(np.median(speed[k]))) for p in PRECISION}
    shown = {k: v for k, v in speed.items() if k in runs or k in roof.values()}
    out: dict[str, Any] = {"operations_per_tile": per_tile}
    for k, v in shown.items():
        out[k] = {"tiles_per_cpu_second": round(float(np.median(v)), 1), "ratio_to_eager": round(float(np.median(v / speed[EAGER])), 2)}
        if k in runs:
            best = roof["bfloat16" if k == BFLOAT16 else "float32"]
            out[k] |= {
                "of_roof": round(float(np.median(v / speed[best])), 2),
                "largest_difference": float(np.abs(answers[k] - answers[EAGER]).max()),
                "same_calls": bool((answers[k].argmax(1) == answers[EAGER].argmax(1)).all()),
                "time_by_layer": parts.get(k, {}),
            }
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="densenet121")
    parser.add_argument("--tile", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(json.dumps(measure(given.model, given.tile, given.batch, given.rounds), indent=1))
