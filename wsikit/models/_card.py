"""What a model is, needs and may be used for: its card. A model is a folder of a card and safetensors weights."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from wsikit.errors import CardError, WeightsMismatchError

CARD_FILE = "card.json"
NOT_STATED = "not stated"
SIGNATURE = "signature"


_NON_COMMERCIAL = re.compile(r"(?<![a-z])nc(?![a-z])|non[- ]?commerc|academic|research[- ]only", re.IGNORECASE)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_Positive = Annotated[float, Field(gt=0)]


class Scaling(_Part):
    """How pixels become network input: ``(pixel / 255 − mean) / std`` for R, G, B. ImageNet's by default."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[_Positive, _Positive, _Positive] = (0.229, 0.224, 0.225)


class Decision(_Part):
    """When a classifier's call is withheld."""

    min_probability: float = Field(0.5, ge=0, le=1)
    min_tiles: int = Field(10, ge=1)


class Detection(_Part):
    """How a detector's boxes become counted objects.

    ``threshold`` was frozen on validation data; boxes above ``keep_above`` are stored, so that a person can
    look below it. ``merge_um`` is the distance at which two detections are the same object (MIDOG: 7.5 µm).
    """

    threshold: float = Field(ge=0, le=1)
    keep_above: float = Field(0.1, ge=0, le=1)
    merge_um: float = Field(7.5, gt=0)
    hotspot_mm2: float = Field(2.0, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> Detection:
        if self.threshold < self.keep_above:
            raise ValueError("threshold must not be below keep_above: what is not kept cannot be counted")
        return self


class Segmentation(_Part):
    """How a segmenter's pixels become a region.

    ``region`` is the class that is drawn, where its probability reaches ``threshold`` on tissue; probabilities are kept in squares of ``cell_px``.
    Parts, and holes, smaller than ``min_mm2`` are dropped.
    """

    region: str = "tumour"
    threshold: float = Field(0.5, gt=0, lt=1)
    cell_px: int = Field(8, ge=1)
    min_mm2: float = Field(0.02, ge=0)


class Condition(_Part):
    """When a survival model has anything to say: only where a pipeline calls this class."""

    pipeline: str
    call: str


class SignatureInput(_Part):
    """What the networks of a survival model see.

    ``attention``: the features of each tile of the classifier ``pipeline``. ``deepsurv`` and ``discrete``: the numbers ``inputs``, by name.
    ``networks`` were trained, each without one fold of the patients; their scores are averaged.
    """

    kind: Literal["attention", "deepsurv", "discrete"]
    pipeline: str = ""
    inputs: list[str] = []
    networks: int = Field(5, ge=1)


class Risk(_Part):
    """What a survival model needs: features by name, the models that must have made them, and its cut-off.

    Attributes
    ----------
    outcome : ``time`` to an event, or ``yes-no``
    clinical : columns that the cases CSV must have: the kinds of a category (the first is the reference), nothing for a number
    condition : without it, the model is for every slide
    signature : networks whose mean score is the feature ``signature``
    upper_cutoff : between the intermediate and the high group, where there are three
    counting : how the training patients' answers were counted, where not as the models say (`wsikit.aggregate.counting.counting_behind`)
    """

    endpoint: str
    time_unit: Literal["months"] = "months"
    outcome: Literal["time", "yes-no"] = "time"
    features: list[str]
    log1p: list[str] = []
    models: dict[str, str]
    clinical: dict[str, list[str]] = {}
    condition: Condition | None = None
    signature: SignatureInput | None = None
    cutoff: float
    upper_cutoff: float | None = None
    cutoff_origin: str
    horizons_months: list[float] = [24.0, 60.0]
    counting: dict[str, Any] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Risk:
        if self.upper_cutoff is not None and self.upper_cutoff < self.cutoff:
            raise ValueError("upper_cutoff must not be below cutoff")
        if (self.signature is not None) != (SIGNATURE in self.features):
            raise ValueError(f"the feature '{SIGNATURE}' needs 'signature', and 'signature' needs it")
        return self

    @property
    def cutoffs(self) -> list[float]:
        """Between groups, from the lowest."""
        return [self.cutoff] if self.upper_cutoff is None else [self.cutoff, self.upper_cutoff]


class TrainedOn(_Part):
    """What the model has seen. A ``phantom`` model abstains on everything but phantoms, one of ``photographs`` on all tissue."""

    domain: Literal["phantom", "histology", "photographs"]
    description: str
    slides: int | None = None
    patients: int | None = None


class Weights(_Part):
    """The weights file and the SHA-256 that it must have."""

    file: str = Field("model.safetensors", pattern=r"^[A-Za-z0-9._-]+\.(safetensors|onnx)$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Conformal(_Part):
    """Split conformal sets at patient level: classes with 1 − probability ≤ ``cutoff`` hold the true one in ``coverage`` of patients like ``patients``."""

    coverage: float = Field(gt=0, lt=1)
    cutoff: float = Field(ge=0, le=1)
    patients: int = Field(ge=1)


class Outliers(_Part):
    """When a tile looks like nothing that the model knows, see `wsikit.aggregate.outlier`; the thresholds are those that 95 % of known tiles keep.

    ``file`` has ``mean`` and ``precision`` of the features of known tiles, and the last layer (``weight``, ``bias``) where energy is used. Features are the
    means of the maps of ``layers`` of the network (`wsikit.models._known`), or where there are none, its last ones. A call is withheld where more than
    ``share`` of the tiles are outlying.
    """

    file: str = Field("doubt.safetensors", pattern=r"^[A-Za-z0-9._-]+\.safetensors$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    distance: float = Field(ge=0)
    energy: float | None = None
    tiles: int = Field(ge=1)
    share: float = Field(0.5, gt=0, le=1)
    layers: list[str] = []

    @model_serializer(mode="wrap")
    def _as_before(self, said: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """``layers`` are younger than models that are about, whose digests leave them out."""
        out: dict[str, Any] = said(self)
        return {k: v for k, v in out.items() if k != "layers" or v}


class Calibration(_Part):
    """What was learnt of a classifier's own doubt, on patients that it was not trained on.

    Attributes
    ----------
    origin : whose slides
    temperature : logits are divided by it before the softmax
    conformal : sets of classes; without them there were too few patients, see ``notes``
    notes : what could not be learnt, and why
    """

    origin: str
    patients: int = Field(ge=1)
    slides: int = Field(ge=1)
    temperature: _Positive = 1.0
    conformal: Conformal | None = None
    outliers: Outliers | None = None
    metrics: dict[str, float] = {}
    notes: list[str] = []


# fields younger than models that are about: a digest leaves out those that a card does not use
_LATER = ("source", "training", "segmentation", "calibration", "views")


class Card(_Part):
    """Everything about a model that is not its weights.

    Attributes
    ----------
    pipeline : which pipeline it serves (``sts-subtype``, ``rms-subtype``, ``mitosis``, ``survival``)
    task : ``classify``, ``detect``, ``segment`` or ``risk``
    classes : in the order of the outputs
    architecture : ``name`` and the builder's arguments
    mpp, tile_px, overlap_px : the grid it is run on
    min_tissue : share of a tile that must be tissue for it to be scored
    batch : tiles per forward pass; fixed, so that a tile's result does not depend on its neighbours
    views : of a classifier: in how many positions it sees a tile, whose logits are averaged: 1 as it is, 4 turned by quarters, 8 also mirrored; as many
        forward passes, so scoring takes that much longer
    calibration : of a classifier: its temperature, its sets of classes, and what it does not know
    source : where a model that was made elsewhere came from, such as ``hf:owner/name@commit``
    training : the recipe and the weights that training started from
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    version: str = "1"
    pipeline: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    task: Literal["classify", "detect", "segment", "risk"]
    classes: list[str] = []
    architecture: dict[str, Any] = {}
    mpp: float = Field(0.5, gt=0.05, lt=20)
    tile_px: int = Field(224, ge=16, le=4096)
    overlap_px: int = Field(0, ge=0, multiple_of=2)
    min_tissue: float = Field(0.5, ge=0, le=1)
    batch: int = Field(16, ge=1)
    views: Literal[1, 4, 8] = 1
    stain: str = "macenko"
    scaling: Scaling = Scaling()
    decision: Decision = Decision()
    detection: Detection | None = None
    segmentation: Segmentation | None = None
    risk: Risk | None = None
    trained_on: TrainedOn
    metrics: dict[str, Any] = {}
    training: dict[str, Any] = {}
    licence: str
    limitations: str = ""
    source: str = ""
    calibration: Calibration | None = None
    weights: Weights

    @property
    def files(self) -> list[str]:
        """All files of the model beside its card."""
        outliers = self.calibration.outliers if self.calibration else None
        return [self.weights.file, *([outliers.file] if outliers else [])]

    @property
    def terms(self) -> dict[str, str]:
        """What goes with every answer of this model: ``terms``, where its licence forbids commercial use."""
        return {"terms": f"non-commercial use only ({self.licence})"} if is_non_commercial(self.licence) else {}

    @model_validator(mode="after")
    def _consistent(self) -> Card:
        if self.overlap_px >= self.tile_px:
            raise ValueError("overlap_px must be smaller than tile_px")
        if self.task != "risk" and len(set(self.classes)) != max(1, len(self.classes)):
            raise ValueError("classes must be named, and each once")
        if (self.task == "risk") != (self.pipeline == "survival"):
            raise ValueError("pipeline 'survival' has task 'risk', and no other pipeline has it")
        if (self.task == "detect") != (self.detection is not None) or (self.task == "risk") != (self.risk is not None):
            raise ValueError("a detector needs 'detection', a survival model needs 'risk', and no other model has them")
        if (self.task == "segment") != (self.segmentation is not None):
            raise ValueError("a model of regions needs 'segmentation', and no other model has it")
        if self.views > 1 and (self.task != "classify" or self.architecture.get("name") in ("mil", "onnx")):
            raise ValueError("views are of classifiers of torch that call single tiles")
        if self.segmentation is not None and self.segmentation.region not in self.classes:
            raise ValueError(f"segmentation.region '{self.segmentation.region}' is none of the classes")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the card, and so of the weights it names: what makes two models the same."""
        said = self.model_dump(mode="json", exclude={name for name in _LATER if getattr(self, name) == Card.model_fields[name].default})
        if self.risk is not None and not self.risk.counting:
            del said["risk"]["counting"]  # younger than survival models that are about
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def is_non_commercial(licence: str) -> bool:
    """Whether a licence, by its name, forbids commercial use.

    >>> [is_non_commercial(x) for x in ("CC-BY-NC-ND-4.0", "cc-by-nc-4.0", "Owkin non-commercial licence", "Apache-2.0", "not stated")]
    [True, True, True, False, False]
    """
    return _NON_COMMERCIAL.search(licence) is not None


_IN_WORDS = {
    "weights.file": "must name a .safetensors or .onnx file beside the card; pickles are never opened, and wsikit models add FILE says how to convert one",
    "extra_forbidden": "a card has no such field; whoever wrote it made it for something else, so nothing of it is used",
}


def read_card(folder: Path) -> Card:
    """The card of a model folder.

    Raises
    ------
    CardError
        It is missing, not JSON, or says something impossible; the message names the key.
    """
    path = folder / CARD_FILE
    try:
        return Card.model_validate_json(path.read_bytes())
    except OSError as e:
        raise CardError(f"{folder}: no readable {CARD_FILE} ({e.strerror}); a model is a folder with {CARD_FILE} and safetensors weights") from e
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        said = _IN_WORDS.get(where, _IN_WORDS.get(first["type"], f"{first['msg']}; put the card right, or fetch the model again"))
        raise CardError(f"{path}: {where}: {said}") from e


def check_weights(card: Card, folder: Path) -> Path:
    """The weights file of a model, after its digest was compared.

    Raises
    ------
    WeightsMismatchError
        The file is missing or is not the one that the card names.
    """
    outliers = card.calibration.outliers if card.calibration else None
    if outliers is not None:
        check_file(folder, outliers.file, outliers.sha256)
    return check_file(folder, card.weights.file, card.weights.sha256)


def check_file(folder: Path, name: str, sha256: str) -> Path:
    """A file of a model, after its digest was compared with the card's.

    Raises
    ------
    WeightsMismatchError
        The file is missing or is not the one that the card names.
    """
    path = folder / name
    if not path.is_file():
        raise WeightsMismatchError(f"{path}: the weights that {CARD_FILE} names are missing; fetch the model again")
    with path.open("rb") as f:
        found = hashlib.file_digest(f, "sha256").hexdigest()
    if found != sha256:
        raise WeightsMismatchError(f"{path}: sha256 is {found[:12]}…, the card says {sha256[:12]}…; the weights are not the card's, fetch the model again")
    return path


def write_model(folder: Path, card_fields: dict[str, Any], tensors: dict[str, Any]) -> Card:
    """Write a model folder: weights first, then the card with their digest.

    ``tensors`` are torch tensors by name; ``card_fields`` are `Card`'s, without ``weights``.
    """
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    data = save({k: v.contiguous() for k, v in tensors.items()})
    (folder / "model.safetensors").write_bytes(data)
    card = Card(**card_fields, weights=Weights(sha256=hashlib.sha256(data).hexdigest()))
    (folder / CARD_FILE).write_text(card.model_dump_json(indent=1, exclude_defaults=False) + "\n", encoding="utf-8")
    return card
