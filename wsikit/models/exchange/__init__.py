"""Models from elsewhere, and for elsewhere: each becomes a model folder (card and weights), and from there on is a model like any other.

``hf:owner/name[@revision]``, ``timm:name``, ``tia:name``, ``.onnx`` files and Darknet's ``.cfg`` with its
``.weights`` are taken as they are where everything that a card must say is known;
what is not is told once, with ``wsikit models add``. Pickles are never opened.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from wsikit.errors import UnknownModelError, UsageError

SCHEMES = ("hf", "timm", "tia")
DARKNET = (".cfg", ".weights")
OF_DETECTORS = ("threshold", "nms_iou", "layout")
PICKLES = (".pth", ".pt", ".pkl", ".pickle", ".bin", ".ckpt", ".tar", ".h5")
SAFELY = (
    "is a pickle, which can run code when it is opened. If you trust whoever made it, turn its tensors into safetensors where torch is installed: "
    "python -c \"import sys, torch; from safetensors.torch import save_file; d = torch.load(sys.argv[1], map_location='cpu', weights_only=True); "
    "d = d.get('state_dict', d.get('model', d)); save_file({k: v.contiguous() for k, v in d.items() if torch.is_tensor(v)}, sys.argv[2])\" "
    "IN.pth OUT.safetensors – and give that file"
)


def is_elsewhere(ref: str) -> bool:
    """Is a reference to a model not a folder or a name, but something to be made one?

    >>> is_elsewhere("hf:owner/name"), is_elsewhere("a/model.onnx"), is_elsewhere("phantom-mitosis")
    (True, True, False)
    """
    return ref.partition(":")[0] in SCHEMES or Path(ref).suffix.lower() in (".onnx", ".safetensors", *DARKNET, *PICKLES)


def fetch_model(ref: str, **told: Any) -> Path:
    """The folder of a model from elsewhere, made (or found in the cache) from what it says and what is ``told``.

    Parameters
    ----------
    told : `Card` fields over those that the source knows: ``name``, ``pipeline``, ``classes``, ``mpp``, ``tile_px``, ``architecture``, …

    Raises
    ------
    UnknownModelError
        It is not there, or cannot be reached.
    CardError, WeightsMismatchError
        What it holds does not fit.
    UsageError
        It is a pickle, or does not say something that must then be told.
    """
    told = {k: v for k, v in told.items() if v not in (None, "", [], {})}
    scheme, _, name = ref.partition(":")
    if (odd := [k for k in OF_DETECTORS if k in told]) and Path(ref).suffix.lower() not in (".onnx", ".safetensors", *DARKNET) and scheme != "tia":
        raise UsageError(f"{ref}: {', '.join(odd)} are told of detectors in .onnx, .safetensors or Darknet files, and of tia's, only")
    if scheme == "hf":
        from wsikit.models.exchange.hub import hub_folder

        return hub_folder(name, told)
    if scheme == "timm":
        from wsikit.models.exchange.timm import timm_folder

        return timm_folder(name, told)
    if scheme == "tia":
        from wsikit.models.exchange.tia import tia_folder

        return tia_folder(name, told)
    path = Path(ref)
    if not path.is_file():
        raise UnknownModelError(f"no model '{ref}': there is no such file")
    if path.suffix.lower() in PICKLES:
        raise UsageError(f"{path} {SAFELY}")
    if path.suffix.lower() in DARKNET:
        from wsikit.models.exchange.darknet import darknet_folder

        return darknet_folder(path, told)
    if path.suffix.lower() == ".onnx":
        from wsikit.models.exchange.onnx import onnx_folder

        return onnx_folder(path, told)
    from wsikit.models.exchange.state import state_folder

    return state_folder(path, told)


def slug(text: str) -> str:
    """A text as the name of a model.

    >>> slug("Owner/My Model_v2")
    'owner-my-model_v2'
    """
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._") or "model"
