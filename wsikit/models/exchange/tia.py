"""TIAToolbox's pretrained patch classifiers and mitosis detector by name. The only module that imports tiatoolbox, and it puts back what that changes.

Licences of weights are those that TIAToolbox's documentation states (its page of pretrained models); they are not those of its code.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wsikit.errors import ModelError, UnknownModelError, UsageError, how_to_install
from wsikit.models.exchange.detectors import detector_fields
from wsikit.models.exchange.state import card_fields, write_fitted

# In the order of the outputs, as TIAToolbox's own examples name them.
CLASSES = {"kather100k": ["BACK", "NORM", "DEB", "TUM", "ADI", "MUC", "MUS", "STR", "LYM"], "pcam": ["no tumour", "tumour"]}
ABOUT = {
    "kather100k": "100,000 patches of human colorectal cancer and normal tissue (NCT-CRC-HE-100K)",
    "pcam": "patches of breast cancer metastases in lymph nodes (PatchCamelyon)",
}
LICENCES = {"kather100k": "CC BY 4.0, as TIAToolbox states of these weights", "pcam": "CC0 1.0, as TIAToolbox states of these weights"}
KONGNET = "KongNet_Det_MIDOG_1"
KONGNET_PLAN = {"mpp": 0.5, "tile_px": 512, "threshold": 0.99, "min_distance_px": 21}  # of TIAToolbox 2.1.3, for its weights without it
_NUCLEI = ("mapde", "kongnet", "sccnn")  # how the names of its other detectors begin
_BOX_UM = 12.5  # as wide as MIDOG's boxes


def tia_folder(name: str, told: dict[str, Any]) -> Path:
    """The model folder of a patch classifier such as ``densenet121-kather100k``, or of ``KongNet_Det_MIDOG_1``, fetched by TIAToolbox on first use.

    Raises
    ------
    ModelError
        TIAToolbox is not installed.
    UsageError
        It is a detector of other things than mitoses.
    UnknownModelError
        It has no such model, or the weights cannot be fetched.
    CardError, WeightsMismatchError
        Its network is of a kind that is not known here.
    """
    if name.lower() == KONGNET.lower():
        net, plan = pretrained(KONGNET)
        return write_fitted(kongnet_fields(f"tia:{KONGNET}", plan, told), net.state_dict(), f"tia:{KONGNET}")
    if name.lower().startswith(_NUCLEI):
        raise UsageError(f"tia:{name}: finds nuclei of all kinds, which would be counted as mitoses; TIAToolbox's detector of mitoses is tia:{KONGNET}")
    backbone, _, data = name.rpartition("-")
    if data not in CLASSES:
        raise UnknownModelError(
            f"tia:{name}: patch classifiers are called BACKBONE-{' or BACKBONE-'.join(CLASSES)}, such as tia:densenet121-kather100k; the detector of "
            f"mitoses is {KONGNET}"
        )
    net, plan = pretrained(name)
    known = {
        "name": f"tia-{name}",
        "pipeline": "tissue-type",
        "classes": CLASSES[data],
        "architecture": {"name": "tiatoolbox", "model": backbone},
        "mpp": plan["mpp"],
        "tile_px": plan["tile_px"],
        "scaling": {"mean": [0, 0, 0], "std": [1, 1, 1]},
        "licence": LICENCES[data],
        "source": f"tia:{name}",
        "trained_on": {"domain": "histology", "description": ABOUT[data]},
        "limitations": "Not sarcoma: a tile is the most similar of these tissues, whatever it is.",
    }
    return write_fitted(card_fields(f"tia:{name}", known, told), net.state_dict(), f"tia:{name}")


def kongnet_fields(where: str, plan: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """The card of KongNet-Det: ``plan`` has ``mpp``, ``tile_px``, and the ``threshold`` and ``min_distance_px`` of its peaks, as TIAToolbox has them."""
    from wsikit.models import _kongnet

    known = {
        "name": f"tia-{KONGNET}",
        **{k: plan[k] for k in ("mpp", "tile_px")},
        "scaling": {},  # ImageNet's
        "licence": "CC BY 4.0, as TIAToolbox states of these weights",
        "source": f"tia:{KONGNET}",
        "trained_on": {"domain": "histology", "description": "MIDOG 2025: human and canine tumours of several kinds (Lv et al. 2025, to be cited)"},
        "metrics": {"MIDOG 2025 final leaderboard, as TIAToolbox quotes it": {"f1": 0.74}},
        "limitations": "Its threshold is its authors'. How many figures it misses, and how many it finds that are none, on your slides is not known. "
        "The annotations of MIDOG 2021, a part of what it learned from, state CC BY-NC-ND of themselves: ask before you earn money with it.",
    }
    architecture = {"name": _kongnet.NAME, "min_distance_px": plan["min_distance_px"], "box_px": _BOX_UM / plan["mpp"]}
    fields = detector_fields(where, known, {"threshold": plan["threshold"]} | told, architecture)
    fields["detection"]["merge_um"] = plan["min_distance_px"] * plan["mpp"]  # so far apart are peaks of one tile
    return fields


def pretrained(name: str) -> tuple[Any, dict[str, Any]]:
    """TIAToolbox's network with its weights, and the µm/px and tile side that it takes; of a detector also the threshold and distance of its peaks.

    Raises
    ------
    ModelError, UnknownModelError
        See `tia_folder`.
    """
    with settings_put_back():
        try:
            from tiatoolbox.models.architecture import get_pretrained_model
        except ImportError as e:
            raise ModelError(f"tia:{name}: TIAToolbox is not installed ({e}); {how_to_install('tia')}") from e
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
    about: dict[str, Any] = {"mpp": float(first["resolution"]), "tile_px": int(plan.patch_input_shape[0])}
    if name == KONGNET:
        about |= {"threshold": float(net.threshold_abs), "min_distance_px": int(net.min_distance)}
    return net, about


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
