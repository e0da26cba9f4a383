"""State dicts of torchvision, timm and fastai networks, and of detectors whose architecture is known here, as model folders."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from wsikit.errors import CardError, UsageError, WeightsMismatchError
from wsikit.models._card import CARD_FILE, NOT_STATED, Card, Weights, write_model
from wsikit.models.exchange import slug

NEEDED = ("pipeline", "classes", "mpp", "tile_px", "architecture")
OPTIONS = {"pipeline": "--pipeline", "classes": "--classes", "mpp": "--mpp", "tile_px": "--tile", "architecture": "--architecture"}
TOOLS = {"module.", "_orig_mod.", "model.", "net.", "backbone."}  # what DataParallel, torch.compile and trainers put before every name
_LATER = Weights(sha256="0" * 64)


def cache_folder(key: Any) -> Path:
    """Where the folder of a model from elsewhere is kept, by what it was made of."""
    from wsikit.models import installed_folder

    return installed_folder().parent / "cache" / hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:24]


def card_fields(where: str, known: dict[str, Any], told: dict[str, Any], needed: tuple[str, ...] = NEEDED) -> dict[str, Any]:
    """`Card` fields of a classifier from elsewhere: what is told goes before what its source says.

    Raises
    ------
    UsageError
        Neither says something that a card must have; the message names the options that do.
    """
    fields = {"task": "classify", "stain": "none", "licence": NOT_STATED} | known | told
    fields["name"] = slug(str(fields.get("name", where)))
    fields.setdefault("trained_on", {"domain": "histology", "description": f"elsewhere; taken from {where}"})
    missing = [k for k in needed if not fields.get(k)]
    if missing:
        raise UsageError(
            f"{where}: does not say its {', '.join(missing)}; tell with wsikit models add {where} {' '.join(OPTIONS[k] + ' …' for k in missing)}, see --help"
        )
    return fields


def state_folder(path: Path, told: dict[str, Any]) -> Path:
    """The model folder of a safetensors state dict.

    Raises
    ------
    UsageError
        Something that a card must say was not told.
    CardError, WeightsMismatchError
        There is no such architecture, or the tensors are not its.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    fields = _fields(path, told)
    try:
        tensors = load_file(path)
    except SafetensorError as e:
        raise WeightsMismatchError(f"{path}: not a whole safetensors file ({e})") from e
    return write_fitted(fields, tensors, str(path))


def _fields(path: Path, told: dict[str, Any]) -> dict[str, Any]:
    from wsikit.models.exchange import detectors, tia

    if path.stem.lower() == tia.KONGNET.lower():  # as its file is called, so all about it is known
        return tia.kongnet_fields(str(path), tia.KONGNET_PLAN, told)
    if told.get("pipeline") != "mitosis":
        return card_fields(str(path), {"name": path.stem}, told)
    if missing := [k for k in ("architecture", "tile_px") if not told.get(k)]:
        raise UsageError(f"{path}: does not say its {', '.join(missing)}; tell with wsikit models add {path} {' '.join(OPTIONS[k] + ' …' for k in missing)}")
    return detectors.detector_fields(str(path), {"name": path.stem}, told, told["architecture"])


def write_fitted(fields: dict[str, Any], tensors: dict[str, Any], where: str) -> Path:
    """A folder in the cache with these weights, once they were fitted into the architecture that the card names.

    Raises
    ------
    CardError, WeightsMismatchError
        There is no such architecture, or the tensors are not its.
    """
    from wsikit.models import family

    card = Card(**fields, weights=_LATER)
    net = family(card.pipeline).build(card)
    fitted = fit(net.state_dict(), tensors, where)
    net.load_state_dict(fitted, strict=True)
    digest = hashlib.sha256(b"".join(k.encode() + v.contiguous().numpy().tobytes() for k, v in sorted(fitted.items()))).hexdigest()
    folder = cache_folder([fields, digest])
    if not (folder / CARD_FILE).exists():
        write_model(folder, fields, fitted)
    return folder


def fit(expected: dict[str, Any], tensors: dict[str, Any], where: str) -> dict[str, Any]:
    """A state dict by the network's own names: prefixes of trainers and auxiliary heads taken off, shapes compared.

    Raises
    ------
    WeightsMismatchError
        Tensors are missing, left over, or of another shape; the message names the first.
    """
    import torch

    renamed = dict(tensors)
    while (prefix := next((p for p in TOOLS if renamed and all(k.startswith(p) for k in renamed)), None)) and not any(k.startswith(prefix) for k in expected):
        renamed = {k.removeprefix(prefix): v for k, v in renamed.items()}
    renamed = {k: v for k, v in renamed.items() if k in expected or not k.startswith(("AuxLogits.", "aux1.", "aux2."))}
    counters = {k: torch.zeros((), dtype=torch.int64) for k in expected if k.endswith("num_batches_tracked") and k not in renamed}
    renamed |= counters  # older files lack them, and they are of training only
    missing, extra = sorted(expected.keys() - renamed.keys()), sorted(renamed.keys() - expected.keys())
    odd = [k for k in sorted(expected.keys() & renamed.keys()) if expected[k].shape != renamed[k].shape]
    if missing or extra or odd:
        k = (odd or missing or extra)[0]
        how = f"has shape {tuple(renamed[k].shape)}, the architecture {tuple(expected[k].shape)}" if odd else "is missing" if missing else "is no part of it"
        raise WeightsMismatchError(f"{where}: these weights do not fit the architecture: tensor {k} {how} ({len(missing)} missing, {len(extra)} left over)")
    return {k: renamed[k].to(expected[k].dtype) for k in expected}


def parse_architecture(text: str) -> dict[str, Any]:
    """``torchvision:resnet50``, ``timm:…``, ``fastai:densenet121``, or a family's own name, with arguments as ``,key=value``.

    Raises
    ------
    CardError
        An argument is not ``key=value`` with a JSON value.

    Examples
    --------
    >>> parse_architecture("fastai:densenet121,bias=false")
    {'name': 'fastai', 'model': 'densenet121', 'bias': False}
    """
    first, *rest = text.split(",")
    name, _, model = first.partition(":")
    found: dict[str, Any] = {"name": name} | ({"model": model} if model else {})
    for part in rest:
        key, _, value = part.partition("=")
        try:
            found[key.strip()] = json.loads(value)
        except ValueError as e:
            raise CardError(f"architecture '{text}': '{part}' is not key=value with a number, true, false or \"text\"") from e
    return found
