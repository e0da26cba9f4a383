"""TIAToolbox's pretrained patch classifiers by name. The only module that imports tiatoolbox, and it puts back what that changes."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wsikit.errors import ModelError, UnknownModelError
from wsikit.models.exchange.state import card_fields, write_fitted

# In the order of the outputs, as TIAToolbox's own examples name them.
CLASSES = {"kather100k": ["BACK", "NORM", "DEB", "TUM", "ADI", "MUC", "MUS", "STR", "LYM"], "pcam": ["no tumour", "tumour"]}
ABOUT = {
    "kather100k": "100,000 patches of human colorectal cancer and normal tissue (NCT-CRC-HE-100K)",
    "pcam": "patches of breast cancer metastases in lymph nodes (PatchCamelyon)",
}


def tia_folder(name: str, told: dict[str, Any]) -> Path:
    """The model folder of a pretrained patch classifier such as ``densenet121-kather100k``, fetched by TIAToolbox on first use.

    Raises
    ------
    ModelError
        TIAToolbox is not installed.
    UnknownModelError
        It has no such model, or the weights cannot be fetched.
    CardError, WeightsMismatchError
        Its network is of a kind that is not known here.
    """
    backbone, _, data = name.rpartition("-")
    if data not in CLASSES:
        raise UnknownModelError(f"tia:{name}: patch classifiers are called BACKBONE-{' or BACKBONE-'.join(CLASSES)}, such as tia:densenet121-kather100k")
    net, plan = pretrained(name)
    known = {
        "name": f"tia-{name}",
        "pipeline": "tissue-type",
        "classes": CLASSES[data],
        "architecture": {"name": "tiatoolbox", "model": backbone},
        "mpp": plan["mpp"],
        "tile_px": plan["tile_px"],
        "scaling": {"mean": [0, 0, 0], "std": [1, 1, 1]},
        "licence": "that of the weights at the hub repository TIACentre/TIAToolbox_pretrained_weights",
        "source": f"tia:{name}",
        "trained_on": {"domain": "histology", "description": ABOUT[data]},
        "limitations": "Not sarcoma: a tile is the most similar of these tissues, whatever it is.",
    }
    return write_fitted(card_fields(f"tia:{name}", known, told), net.state_dict(), f"tia:{name}")


def pretrained(name: str) -> tuple[Any, dict[str, Any]]:
    """TIAToolbox's network with its weights, and the µm/px and tile side that it takes.

    Raises
    ------
    ModelError, UnknownModelError
        See `tia_folder`.
    """
    with settings_put_back():
        try:
            from tiatoolbox.models.architecture import get_pretrained_model
        except ImportError as e:
            raise ModelError(f"tia:{name}: TIAToolbox is not installed ({e}); install wsikit with the extra 'tia'") from e
        try:
            net, plan = get_pretrained_model(name)
        except ValueError as e:
            raise UnknownModelError(f"tia:{name}: TIAToolbox has no such model") from e
        except OSError as e:
            raise UnknownModelError(
                f"tia:{name}: its weights cannot be fetched ({' '.join(str(e).split())[:160]}); fetch them once where the hub can be reached"
            ) from e
    first = plan.input_resolutions[0]
    if first["units"] != "mpp":
        raise ModelError(f"tia:{name}: wants its pixels in {first['units']}, and only µm/px (mpp) are known here")
    return net, {"mpp": float(first["resolution"]), "tile_px": int(plan.patch_input_shape[0])}


@contextlib.contextmanager
def settings_put_back() -> Iterator[None]:
    """Undo what importing and using TIAToolbox changes for everybody: the root logger, warnings, dask's scheduler, torch's compiler, the environment."""
    import dask
    import torch._dynamo

    root = logging.getLogger()
    handlers, level, show = root.handlers[:], root.level, warnings.showwarning
    scheduler, suppress = dask.config.get("scheduler", None), torch._dynamo.config.suppress_errors
    environment, filters = dict(os.environ), warnings.filters[:]
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        if warnings.showwarning is not show:
            logging.captureWarnings(False)
            warnings.showwarning = show
        warnings.filters[:] = filters  # type: ignore[index]
        dask.config.set({"scheduler": scheduler}) if scheduler is not None else dask.config.config.pop("scheduler", None)
        torch._dynamo.config.suppress_errors = suppress
        for key in os.environ.keys() - environment.keys():
            del os.environ[key]
        os.environ.update(environment)
