"""ONNX files: as classifiers, run by ONNX Runtime; and classifiers as ONNX files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from wsikit.errors import CardError, ModelError, UsageError, WeightsMismatchError, how_to_install
from wsikit.models._card import CARD_FILE, Card, Weights, check_weights, read_card
from wsikit.models._network import Classifier, TileClassifier
from wsikit.models.exchange import OF_DETECTORS
from wsikit.models.exchange.state import cache_folder, card_fields

NAME = "onnx"
CARD_KEY = "wsikit.card"
PROBABILITY, LOGITS, FEATURE = "probability", "logits", "feature"
WEIGHTS_FILE = "model.onnx"
_NO_RULES = "no rules for what looks like nothing known: an ONNX file does not hold them; wsikit calibrate learns them again"
_NEEDED = ("pipeline", "classes", "mpp", "tile_px")


class Session(nn.Module):
    """An ONNX file in ONNX Runtime, one thread: float32 (B, 3, H, W) → its outputs, as tensors.

    Raises
    ------
    WeightsMismatchError
        The file is damaged, keeps weights in other files, or uses operators that the runtime has not.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        super().__init__()
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # more add in another order; parallel work comes from more workers
        options.log_severity_level = 4
        wanted = "CPUExecutionProvider" if device == "cpu" else "CUDAExecutionProvider"
        if wanted not in ort.get_available_providers():
            raise ModelError(f"{path}: an ONNX model runs with --device cpu here: this ONNX Runtime has no {wanted}")
        nowhere = str(path.with_suffix(".no-other-files"))  # from bytes, and with this, no other file that is named inside is read
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", nowhere)
        try:
            self.session: Any = ort.InferenceSession(path.read_bytes(), options, providers=[wanted])
        except Exception as e:  # the runtime's errors have no common type
            apart = "xternal data" in str(e) or "model_path" in str(e)
            outside = "its weights are in other files, save it as one (onnx.save)" if apart else " ".join(str(e).split())[-200:]
            raise WeightsMismatchError(f"{path}: ONNX Runtime cannot load it: {outside}") from e
        self.inputs, self.outputs = self.session.get_inputs(), self.session.get_outputs()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Outputs by name."""
        out = self.session.run(None, {self.inputs[0].name: np.ascontiguousarray(x.cpu().numpy())})
        return {o.name: torch.from_numpy(v) for o, v in zip(self.outputs, out, strict=True)}


class OnnxClassifier(TileClassifier):
    """A tile classifier in an ONNX file.

    The card's ``architecture``: ``output`` is the one with a number for each class, ``gives`` whether these are ``logits`` or ``probability``; the output
    ``feature``, where there is one, goes into the tables, else the logits do.
    """

    def __init__(self, card: Card, session: Session, device: str = "cpu") -> None:
        super().__init__(card, session, "cpu")
        self._output = card.architecture.get("output", PROBABILITY)
        self._gives = card.architecture.get("gives", PROBABILITY)
        shape = session.inputs[0].shape
        if isinstance(shape[0], int) and shape[0] != card.batch:
            raise CardError(f"model {card.name}: the file takes {shape[0]} tiles at a time, and the card's batch is {card.batch}")
        if self._output not in [o.name for o in session.outputs]:
            raise CardError(f"model {card.name}: the file has no output '{self._output}' as the card's architecture says")
        self._feature = FEATURE if FEATURE in [o.name for o in session.outputs] else self._output
        side = card.tile_px
        p, f = self._forward(torch.zeros(card.batch, 3, side, side))
        if p.shape != (card.batch, len(card.classes)):
            raise CardError(f"model {card.name}: output '{self._output}' has shape {tuple(p.shape[1:])}, the card {len(card.classes)} classes")
        self._size = int(f.shape[1])

    def _forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        try:
            out = self.net(batch.contiguous())
        except Exception as e:
            raise ModelError(f"model {self.card.name}: ONNX Runtime stopped: {' '.join(str(e).split())[-200:]}") from e
        scores = out[self._output].float()
        return scores if self._gives == PROBABILITY else torch.softmax(scores, 1), out[self._feature].flatten(1)

    @property
    def feature_size(self) -> int:
        """Features of a tile."""
        return self._size


def load(card: Card, folder: Path, device: str) -> OnnxClassifier:
    """The model of a folder with an ONNX file.

    Raises
    ------
    CardError, WeightsMismatchError
        Card or file are wrong.
    """
    return OnnxClassifier(card, Session(check_weights(card, folder), device), device)


def onnx_folder(path: Path, told: dict[str, Any]) -> Path:
    """The model folder of an ONNX file: with the card inside it, the ``card.json`` beside it, or what is told.

    Raises
    ------
    UsageError
        Nothing says what a card must.
    CardError, WeightsMismatchError
        The file cannot be used.
    """
    from wsikit.models.exchange.onnx_detector import detector_folder

    session = Session(path)
    inside = session.session.get_modelmeta().custom_metadata_map.get(CARD_KEY)
    known = _said(inside, path) if inside else _beside(path)
    shape = session.inputs[0].shape
    if known.get("task") == "detect" or told.get("pipeline", known.get("pipeline")) == "mitosis":
        return detector_folder(path, session, known, told)
    if len(session.inputs) != 1 or len(shape) != 4 or shape[1] not in (3, None) or session.inputs[0].type != "tensor(float)":
        raise CardError(f"{path}: a classifier takes one float32 input (B, 3, H, W); this file takes {[(i.name, i.shape, i.type) for i in session.inputs]}")
    told = told | ({"batch": shape[0]} if isinstance(shape[0], int) else {})
    known |= {"tile_px": shape[2]} if isinstance(shape[2], int) and not known.get("tile_px") else {}
    if odd := [k for k in OF_DETECTORS if k in told]:
        raise UsageError(f"{path}: {', '.join(odd)} are told of detectors only; add --pipeline mitosis if it is one")
    fields = card_fields(str(path), {"name": path.stem} | known, told, _NEEDED)
    if fields.get("architecture", {}).get("name") != NAME:
        fields["architecture"] = {"name": NAME} | _output_of(session, fields, path)
    return keep(path, fields)


def keep(path: Path, fields: dict[str, Any]) -> Path:
    """A folder in the cache with this file and a card."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    card = Card(**fields, weights=Weights(file=WEIGHTS_FILE, sha256=digest))
    folder = cache_folder([fields, digest])
    if not (folder / CARD_FILE).exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / WEIGHTS_FILE)
        (folder / CARD_FILE).write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return folder


def _said(text: str, path: Path) -> dict[str, Any]:
    """The card in a file, without its weights."""
    try:
        said = json.loads(text)
        Card(**said, weights=Weights(sha256="0" * 64))
    except (ValueError, TypeError, ValidationError) as e:
        raise CardError(f"{path}: the card inside is damaged ({str(e).splitlines()[0][:120]})") from e
    return dict(said)


def _beside(path: Path) -> dict[str, Any]:
    """The fields of a ``card.json`` in the same folder that names this file; none without it."""
    beside = path.with_name(CARD_FILE)
    if not beside.exists():
        return {}
    card = read_card(path.parent)
    return card.model_dump(mode="json", exclude={"weights"}) if card.weights.file == path.name else {}


def _output_of(session: Session, fields: dict[str, Any], path: Path) -> dict[str, str]:
    """Which output holds the classes, and whether as logits or probabilities: seen on noise."""
    side, classes = fields["tile_px"], len(fields["classes"])
    noise = torch.rand(fields.get("batch", 2), 3, side, side, generator=torch.Generator().manual_seed(0)) * 4 - 2
    try:
        out = session(noise)
    except Exception as e:
        raise CardError(f"{path}: ONNX Runtime stopped on tiles of {side} px: {' '.join(str(e).split())[-200:]}") from e
    fitting = [name for name, v in out.items() if v.ndim == 2 and v.shape[1] == classes]
    if not fitting:
        raise CardError(f"{path}: no output has {classes} numbers for {classes} classes; there are {[(k, tuple(v.shape)) for k, v in out.items()]}")
    first = out[fitting[0]]
    shares = [name for name in fitting if bool((out[name] >= 0).all()) and bool((out[name].sum(1) - 1).abs().max() < 1e-3)]
    if not shares and bool(((first >= 0) & (first <= 1)).all()):  # taken for logits, a softmax would make a call of every 0.9 and 0.1 that is hardly one
        raise CardError(
            f"{path}: output '{fitting[0]}' has numbers from 0 to 1 that do not add up to 1, as of a sigmoid for each class; classes exclude each other here: "
            'save it with logits or a softmax, or say what it gives in a card.json beside it ("architecture": {"name": "onnx", "output": …, "gives": "logits"})'
        )
    return {"output": (shares or fitting)[0], "gives": PROBABILITY if shares else LOGITS}


class _Whole(nn.Module):
    """A classifier's network from scaled input to probabilities and features."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.net, self.head, self.features, self.width = model.net, model._head, model.features, model.feature_size

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.features(image)[:, : self.width]
        return torch.softmax(self.head(feature), 1), feature


def export_onnx(folder: Path, out: Path) -> Path:
    """Write a classifier as one ONNX file, with its card inside; returns ``out``.

    Input ``image`` float32 (B, 3, tile, tile), scaled as the card says; outputs ``probability`` (B, K) and ``feature`` (B, D). B is free.

    Raises
    ------
    UsageError
        The model is no torch classifier, or the file exists.
    ModelError
        The extra ``onnx`` is not installed.
    """
    from wsikit.models import load_model

    card = read_card(folder)
    if card.task != "classify" or card.architecture.get("name") in (NAME, "mil"):
        raise UsageError(f"model {card.name}: only classifiers of torch are exported to ONNX, and this one is '{card.task}' of {card.architecture.get('name')}")
    if out.exists():
        raise UsageError(f"{out}: is there already; choose another file with -o")
    try:
        import onnx
    except ImportError as e:
        raise ModelError(f"exporting needs the library onnx; {how_to_install('onnx')}") from e
    model = load_model(folder)
    assert isinstance(model, Classifier)
    out.parent.mkdir(parents=True, exist_ok=True)
    tmp = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    names = ["image"], [PROBABILITY, FEATURE]
    free = {name: {0: "batch"} for name in (*names[0], *names[1])}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the exporter without onnxscript is the older one, and that shapes are constants
            example = torch.zeros(2, 3, card.tile_px, card.tile_px)
            torch.onnx.export(_Whole(model).eval(), (example,), str(tmp), input_names=names[0], output_names=names[1], dynamic_axes=free, dynamo=False)
        proto = onnx.load(str(tmp))
        said = card.model_dump(mode="json", exclude={"weights"}) | {"architecture": {"name": NAME, "output": PROBABILITY, "gives": PROBABILITY}}
        said["views"] = 1  # they are inside
        if (learnt := said["calibration"]) and learnt["outliers"]:
            said["calibration"] = learnt | {"outliers": None, "notes": [*learnt["notes"], _NO_RULES]}
        said["source"] = f"exported from model {card.name} {card.digest[:12]}"
        onnx.helper.set_model_props(proto, {CARD_KEY: json.dumps(said)})
        onnx.checker.check_model(proto)
        onnx.save(proto, str(tmp))
        tmp.replace(out)
    finally:
        tmp.unlink(missing_ok=True)
    return out
