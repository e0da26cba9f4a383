"""Darknet's ``.cfg`` with the ``.weights`` beside it as a model folder: numbers only, nothing that runs."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from wsikit.errors import CardError, UnknownModelError, WeightsMismatchError
from wsikit.models._darknet import MAX_CFG_BYTES, Darknet, parse_cfg
from wsikit.models.exchange.detectors import detector_fields
from wsikit.models.exchange.state import write_fitted

SUFFIXES = (".cfg", ".weights")


def darknet_folder(path: Path, told: dict[str, Any]) -> Path:
    """The model folder of a cfg and its weights; either file names both.

    Raises
    ------
    UnknownModelError
        One of the two is not there.
    UsageError
        The µm/px was not told.
    CardError, WeightsMismatchError
        The cfg asks for what is not known here, or the weights are not its.
    """
    cfg, weights = path.with_suffix(".cfg"), path.with_suffix(".weights")
    for file in (cfg, weights):
        if not file.is_file():
            raise UnknownModelError(f"{path}: {file.name} is missing beside it; a Darknet model is a .cfg and a .weights file of the same name")
    try:
        with cfg.open("rb") as f:
            text = f.read(MAX_CFG_BYTES + 1).decode("utf-8")
    except UnicodeDecodeError as e:
        raise CardError(f"{cfg}: is no text, so no Darknet cfg") from e
    architecture = parse_cfg(text, str(cfg))
    known = {"name": path.stem, "tile_px": architecture["side"], "source": f"darknet: {cfg.name}"}
    fields = detector_fields(str(path), known, told, architecture)
    net = Darknet(architecture, str(cfg))
    read_weights(net, weights)
    return write_fitted(fields, net.state_dict(), str(weights))


def read_weights(net: Darknet, path: Path) -> None:
    """Fill a network from a ``.weights`` file.

    Raises
    ------
    WeightsMismatchError
        The file has not exactly the numbers that the cfg asks for, or some are none.
    """
    import torch
    from libreyolo.models.darknet.reader import load_darknet_weights

    with path.open("rb") as f:
        major, minor, _ = struct.unpack("<iii", f.read(12).ljust(12, b"\0"))
    header = 20 if 10 * major + minor >= 2 else 16  # three versions, and images seen as 8 or 4 bytes
    wanted, size = header + 4 * sum(v.numel() for v in net.state_dict().values()), path.stat().st_size
    if size != wanted:
        raise WeightsMismatchError(f"{path}: has {size:,} bytes and the cfg asks for {wanted:,}: it is of another cfg, or not whole")
    try:
        load_darknet_weights(net.net, path.read_bytes())
    except ValueError as e:
        raise WeightsMismatchError(f"{path}: {' '.join(str(e).split())[:200]}") from e
    if not all(bool(torch.isfinite(v).all()) for v in net.state_dict().values()):
        raise WeightsMismatchError(f"{path}: some weights are not numbers: the file is damaged")
