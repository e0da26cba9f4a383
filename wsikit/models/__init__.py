"""Models: a folder with a card and safetensors weights, built by one of the families in this package.

A family is a module with ``PIPELINE``, ``CLASSES``, ``build(card)`` and ``load(card, folder, device)``; adding one is
adding a module. It needs no other names than those of this package: `Card`, `Classifier` or another `Network`, `load_weights`, and `write_model`
for its first folder.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsikit.errors import CardError, UnknownModelError
from wsikit.models._card import CARD_FILE, Card, check_weights, read_card, write_model
from wsikit.models._whole import added_last
from wsikit.models.exchange import fetch_model, is_elsewhere

if TYPE_CHECKING:
    from wsikit.models._cam import grad_cam
    from wsikit.models._network import Classifier, Detections, Network, load_weights

_WITH_TORCH = {"Classifier": "_network", "Detections": "_network", "Network": "_network", "grad_cam": "_cam", "load_weights": "_network"}

BUNDLED = Path(__file__).parent / "weights"
RISK_PIPELINE = "survival"  # its models have no network; see wsikit.aggregate.survival


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first used: most of a run reads cards only."""
    if name in _WITH_TORCH:
        return getattr(importlib.import_module(f"{__name__}.{_WITH_TORCH[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


class LeftOutWarning(UserWarning):
    """An installed model that cannot be used was passed over."""


def installed_folder() -> Path:
    """Where ``wsikit models add`` puts models: ``$WSIKIT_HOME/models``, by default ``~/.local/share/wsikit/models``."""
    home = os.environ.get("WSIKIT_HOME")
    return (Path(home) if home else Path.home() / ".local/share/wsikit") / "models"


@cache
def families() -> dict[str, str]:
    """Module of each pipeline that has a network, by pipeline name."""
    modules = [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_") and not m.ispkg]
    return {name.replace("_", "-"): f"{__name__}.{name}" for name in modules}


def pipelines() -> list[str]:
    """All pipeline names."""
    return [*sorted(families()), RISK_PIPELINE]


def family(pipeline: str) -> Any:
    """The family module of a pipeline.

    Raises
    ------
    UnknownModelError
        No family serves it.
    """
    if pipeline == RISK_PIPELINE:
        raise UnknownModelError("a survival model has no images to predict; it is applied to slide results, see wsikit.aggregate.survival")
    if pipeline not in families():
        raise UnknownModelError(f"no pipeline is called '{pipeline}'; there are: {', '.join(pipelines())}")
    return importlib.import_module(families()[pipeline])


def available() -> dict[str, Path]:
    """Every model at hand, by name: installed ones over bundled ones."""
    found: dict[str, Path] = {}
    for root in (BUNDLED, installed_folder()):
        if root.is_dir():
            found |= {p.parent.name: p.parent for p in sorted(root.glob("*/card.json"))}
    return found


def find_model(ref: str | Path, *, phantoms: bool = False) -> Path:
    """The folder of a model: a folder, the name of one at hand, a pipeline's name for its default model, or of one from elsewhere.

    A pipeline's default is the installed model with that pipeline, of several the one that was added last, else the bundled one of the pipeline's
    name, which knows real tissue, else ``phantom-<pipeline>``; with ``phantoms``, for slides that are phantoms, the bundled one for real tissue is
    passed over. An installed model whose card cannot be read is no pipeline's default: a `LeftOutWarning` names it. From elsewhere: ``hf:owner/name``,
    ``timm:name``, ``tia:name`` and ``.onnx`` files, see `wsikit.models.exchange`.

    Raises
    ------
    UnknownModelError
        There is no such model; the message lists what there is.
    ModelError, UsageError
        What is elsewhere cannot be used as it is.
    """
    at_hand, name = available(), str(ref)
    named = at_hand.get(name)
    if named and name not in pipelines():
        return named
    if not named and Path(ref).is_dir():
        return Path(ref)
    if is_elsewhere(name):
        return fetch_model(name)
    if name in pipelines():
        bundled = [BUNDLED / n for n in (*([] if phantoms else [name]), f"phantom-{name}")]
        for folder in (*_installed_for(name, at_hand), *bundled):
            if (folder / CARD_FILE).exists():
                return folder
    raise UnknownModelError(f"no model '{ref}': neither a folder nor one of {', '.join(sorted(at_hand)) or '(none)'}")


def _installed_for(pipeline: str, at_hand: Mapping[str, Path]) -> list[Path]:
    """The installed models of a pipeline, the one of its name first, then the one added last; with a warning for each whose card cannot be read."""
    found = {}
    for name, folder in sorted(at_hand.items()):
        if folder.parent == BUNDLED:
            continue
        try:
            card = read_card(folder)
        except CardError as e:
            warnings.warn(f"installed model '{name}' is passed over: {e}", LeftOutWarning, stacklevel=1)  # here, so that it is said once
            continue
        if pipeline in (name, card.pipeline):
            found[name] = folder
    return [found[name] for name in sorted(added_last(found, installed_folder()), key=lambda name: name != pipeline)]


def load_model(ref: str | Path, device: str = "cpu", engine: str = "torch") -> Network:
    """A model, ready to predict.

    Its ``card`` says what it is and has seen. Its ``predict`` takes uint8 (B, H, W, 3) at ``card.mpp`` µm/px, in the stain that the card names. A classifier
    answers with ``probability`` float32 (B, K), in the order of ``card.classes``, and ``feature`` float32 (B, D); a detector with
    one `Detections` per image.

    Parameters
    ----------
    ref : the name of a model at hand, a pipeline's name, a model folder, ``hf:owner/name``, ``timm:name``, ``tia:name``, or an ``.onnx`` file
    device : ``cpu``, ``cuda``, ``cuda:1``, ``mps``
    engine : ``torch``, or for classifiers on a CPU ``openvino`` or ``openvino-bf16``

    Raises
    ------
    UnknownModelError
        There is no such model.
    CardError, WeightsMismatchError
        Its card or weights are wrong.
    ModelError
        The engine does not run it.

    Examples
    --------
    >>> model = load_model("phantom-mitosis")                            # doctest: +SKIP
    >>> images = np.full((1, 256, 256, 3), 240, np.uint8)                # doctest: +SKIP
    >>> model.predict(images)[0].position.shape                          # doctest: +SKIP
    (0, 2)
    """
    folder = find_model(ref)
    card = read_card(folder)
    network = load_network(card, folder, device)
    if engine != "torch":
        from wsikit.models._engine import accelerate

        accelerate(network, engine)
    return network


def load_network(card: Card, folder: Path, device: str = "cpu") -> Network:
    """The network of a model folder, by its family, or by ONNX Runtime where its weights are an ONNX file of a classifier.

    Raises
    ------
    CardError, WeightsMismatchError
        Its card, weights or rules for outlying tiles are wrong.
    """
    from wsikit.models._known import recognise

    if card.task == "classify" and card.weights.file.endswith(".onnx"):
        from wsikit.models.exchange import onnx

        network: Network = onnx.load(card, folder, device)
    else:
        network = family(card.pipeline).load(card, folder, device)
    recognise(network, folder)
    return network


def check_model(folder: Path) -> Card:
    """A model folder's card, after its weights were compared with it and fitted into its architecture.

    Raises
    ------
    CardError, WeightsMismatchError
        Something is wrong; the message says what.
    """
    card = read_card(folder)
    check_weights(card, folder)
    if card.pipeline == RISK_PIPELINE:
        from wsikit.models._risk import read_coefficients

        read_coefficients(card, folder)
    else:
        load_network(card, folder)
    return card


__all__ = [
    "CARD_FILE",
    "RISK_PIPELINE",
    "Card",
    "Classifier",
    "Detections",
    "Network",
    "available",
    "check_model",
    "check_weights",
    "families",
    "family",
    "fetch_model",
    "find_model",
    "grad_cam",
    "installed_folder",
    "load_model",
    "load_network",
    "load_weights",
    "pipelines",
    "read_card",
    "write_model",
]
