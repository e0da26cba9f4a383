"""What runs a classifier on a CPU: torch, or OpenVINO in float32 or bfloat16. Which one is part of a run's recipe."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wsikit.errors import ModelError, UsageError
from wsikit.models._card import Card
from wsikit.models._network import Classifier

TORCH, OPENVINO, BFLOAT16 = "torch", "openvino", "openvino-bf16"
ENGINES = (TORCH, OPENVINO, BFLOAT16)
AUTO = "auto"
LARGE_BYTES = 8_000_000  # of weights; smaller networks are not worth the conversion
LIMIT = {OPENVINO: 1e-3, BFLOAT16: 2e-2}  # of a probability, against torch in float32
_PRECISION = {OPENVINO: "f32", BFLOAT16: "bf16"}
_TILES = 8
BATCH = 4  # tiles of a pass at most: one thread is as fast with it as with more, and the last pass of a block is less in vain


class Compiled(nn.Module):
    """A network up to its features, compiled by OpenVINO for one shape and one thread: float32 (B, 3, H, W) → (B, D).

    Raises
    ------
    ModelError
        OpenVINO is not installed, cannot compile it, or this processor has no bfloat16.
    """

    def __init__(self, file: Path, shape: tuple[int, ...], engine: str) -> None:
        super().__init__()
        core = _core()
        if engine == BFLOAT16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ModelError(f"engine {engine}: this processor has no bfloat16, and would give other numbers; use --engine {OPENVINO}")
        try:
            network = core.read_model(str(file))
            network.reshape(list(shape))
            # one thread: with more, sums are added in another order; parallel work comes from more workers
            settings = {"INFERENCE_PRECISION_HINT": _PRECISION[engine], "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
            self._request: Any = core.compile_model(network, "CPU", settings).create_infer_request()
        except RuntimeError as e:
            raise ModelError(f"{file}: OpenVINO cannot compile it: {' '.join(str(e).split())[-160:]}; use --engine {TORCH}") from e

    def forward(self, x: Tensor) -> Tensor:
        """Features, in memory of their own."""
        found = self._request.infer([np.ascontiguousarray(x.numpy())])
        return torch.from_numpy(np.array(next(iter(found.values()))))


def accelerate(model: Any, engine: str) -> None:
    """Let a model's network be run by this engine from now on.

    Raises
    ------
    ModelError
        The engine does not run it.
    """
    if engine == TORCH:
        return
    if not isinstance(model, Classifier) or model.device.type != "cpu":
        raise ModelError(f"model {model.card.name}: engine {engine} runs classifiers of torch on the CPU; use --engine {TORCH}")
    side, model.batch = model.card.tile_px, min(model.card.batch, BATCH)
    model.net = Compiled(_converted(model), (model.batch, 3, side, side), engine)


def choose_engine(card: Card, folder: Path, device: str, wanted: str = AUTO) -> tuple[str, float | None]:
    """The engine for a model on this machine, and how far its probabilities were from torch's, at most.

    ``auto`` takes OpenVINO for large classifiers on a CPU: in bfloat16 where the processor multiplies in it (AMX, AVX512-BF16), else in float32; and torch
    where OpenVINO is missing or its answers differ too much (0.001 in float32, 0.02 in bfloat16, or another class).

    Raises
    ------
    UsageError
        There is no such engine.
    ModelError
        An engine that was asked for by name does not run this model, or differs too much.
    """
    if wanted not in (AUTO, *ENGINES):
        raise UsageError(f"engine '{wanted}': there are {', '.join((AUTO, *ENGINES))}")
    if wanted == TORCH or (wanted == AUTO and not _worth_it(card, folder, device)):
        return TORCH, None
    if card.task != "classify" or device != "cpu" or card.weights.file.endswith(".onnx") or card.architecture.get("name") == "mil":
        raise ModelError(f"model {card.name}: engine {wanted} runs classifiers of torch on the CPU; use --engine {AUTO}")
    candidates = [wanted] if wanted != AUTO else [BFLOAT16, OPENVINO] if _has_bfloat16() else [OPENVINO]
    reason = ""
    for engine in candidates:
        try:
            difference, same = _compare(card, folder, engine)
        except ModelError as e:
            reason = str(e)
            continue
        if same and difference <= LIMIT[engine]:
            return engine, difference
        reason = f"model {card.name}: engine {engine} differs from torch by {difference:.2g} in a probability{'' if same else ', and in a call'}"
    if wanted != AUTO:
        raise ModelError(f"{reason}; use --engine {TORCH}" if TORCH not in reason[-6:] else reason)
    return TORCH, None


def _worth_it(card: Card, folder: Path, device: str) -> bool:
    file = folder / card.weights.file
    if card.architecture.get("name") == "mil":
        return False  # it says more of a tile than a classifier does
    return card.task == "classify" and device == "cpu" and file.suffix == ".safetensors" and file.stat().st_size >= LARGE_BYTES and _has_openvino()


def _has_openvino() -> bool:
    try:
        _core()
    except ModelError:
        return False
    return True


@cache
def _core() -> Any:
    try:
        import openvino
    except ImportError as e:
        raise ModelError(f"OpenVINO is not installed here ({e}); use --engine {TORCH}") from e
    return openvino.Core()


@cache
def _has_bfloat16() -> bool:
    """Has the processor products in bfloat16? OpenVINO also takes it without, and is no quicker then."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def _cache(card: Card) -> Path:
    from importlib.metadata import version

    from wsikit.models import installed_folder

    return installed_folder().parent / "cache" / "engines" / f"{card.digest[:24]}-{version('openvino')}"


def _converted(model: Classifier) -> Path:
    """The network up to its features as a file that OpenVINO reads, written once."""
    from wsikit.store.durable import atomic_path

    path = _cache(model.card) / f"features-{model.batch}.onnx"
    if not path.exists():
        side = model.card.tile_px
        example = torch.zeros(model.batch, 3, side, side)
        with atomic_path(path) as tmp, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that this exporter, which needs nothing more installed, is the older one
            torch.onnx.export(model.net, (example,), str(tmp), dynamo=False, do_constant_folding=True)
    return path


def _compare(card: Card, folder: Path, engine: str) -> tuple[float, bool]:
    """The largest difference of a probability from torch's, and whether all calls are the same, on tiles that are always the same; once per machine."""
    from wsikit.models import load_network
    from wsikit.store.durable import write_json

    known = _cache(card) / f"{engine}-{_machine()}.json"
    try:
        said = json.loads(known.read_bytes())
        return float(said["difference"]), bool(said["same_calls"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    tiles = probe_tiles(card.tile_px, min(_TILES, max(card.batch, 2)))
    expected = load_network(card, folder).predict(tiles)["probability"]
    model = load_network(card, folder)
    accelerate(model, engine)
    found = model.predict(tiles)["probability"]
    difference, same = float(np.abs(found - expected).max()), bool((found.argmax(1) == expected.argmax(1)).all())
    write_json(known, {"difference": difference, "same_calls": same, "tiles": len(tiles)})
    return difference, same


def _machine() -> str:
    """Tells processors apart."""
    said = f"{_core().get_property('CPU', 'FULL_DEVICE_NAME')} {_core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')} {os.uname().machine}"
    return hashlib.sha256(said.encode()).hexdigest()[:12]


def probe_tiles(side: int, count: int) -> np.ndarray:
    """Tiles in the colours of H&E with structure of many sizes, always the same: uint8 (count, side, side, 3).

    >>> probe_tiles(32, 2).shape
    (2, 32, 32, 3)
    """
    rng = torch.Generator().manual_seed(0)
    amount = torch.zeros(count, 2, side, side)
    for cells in (3, 9, 27, 81):
        coarse = torch.rand(count, 2, cells, cells, generator=rng)
        amount += nn.functional.interpolate(coarse, (side, side), mode="bilinear") / 2
    vectors = torch.tensor([[0.56, 0.72, 0.41], [0.22, 0.80, 0.28]])  # optical density of haematoxylin and eosin, about the reference's
    density = torch.einsum("bshw,sc->bhwc", (amount - 0.5).clamp(min=0), vectors)
    return (255 * torch.exp(-density)).clamp(0, 255).to(torch.uint8).numpy()
