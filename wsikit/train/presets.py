"""The published recipes, as far as they are known. Each value that a source gives names it; every other one is our default.

No weights of the papers are public, and none of their figures is ours: a preset trains on one's own slides.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsikit.errors import UsageError
from wsikit.models.exchange.encoders import encoder_values, is_encoder
from wsikit.train.recipe import Augment, Loss, Optimiser, Recipe, Stage, changed, read_recipe

_FOERSCH = "published code of Foersch et al. 2021 (AGFoersch/DeepLearningSarcoma)"
_FASTAI = "fastai v1's default, which that code uses; from general knowledge, not seen in a source"
_DEEPPATH = "published code of DeepPATH (ncoudray/DeepPATH), which Frankel et al. 2022 use"
_ZHANG = "Zhang et al. 2022, as reviewed by Xu et al. 2024"
_AS_SCANNED = "foundation encoders learned from slides as they were scanned"

PLAIN = Recipe(
    name="plain",
    reference="our defaults, for small sets of slides",
    architecture={"name": "densenet121"},
    tile_px=224,
    stages=[Stage(epochs=12, learning_rate=2e-3)],
    initial="imagenet",
    sources={"loss.class_weights": _FOERSCH},
)

FOERSCH = Recipe(
    name="foersch",
    reference=(
        "Foersch et al., Ann Oncol 2021 (32:1178): DenseNet121, the head first, then everything with smaller steps for earlier layers. "
        "Not published: µm/px, the lowest learning rate (found by a search each time), how often training was repeated."
    ),
    architecture={"name": "fastai", "model": "densenet121"},
    tile_px=1024,
    mpp=0.5,
    stain="vahadane",
    batch=5,
    initial="imagenet",
    optimiser=Optimiser(name="adamw", betas=(0.9, 0.99)),
    loss=Loss(class_weights="balanced"),
    stages=[
        Stage(epochs=25, train="head", learning_rate=1e-4, weight_decay=0.1, schedule="one-cycle"),
        Stage(epochs=25, train="all", learning_rate=1e-4, lowest_rate=1e-6, weight_decay=0.1, schedule="one-cycle"),
    ],
    augment=Augment(turns=True, rotate_deg=90, brightness=0.4, contrast=(0.5, 2.0), holes=(60, 80), hole_px=8, restain=0, jitter=0),
    keep="accuracy",
    sources={
        **dict.fromkeys(
            ["tile_px", "stain", "batch", "initial", "loss.class_weights", "augment.turns", "augment.rotate_deg", "augment.brightness", "augment.contrast"],
            _FOERSCH,
        ),
        **dict.fromkeys(["augment.holes", "augment.hole_px", "keep"], _FOERSCH),
        **{f"stages.{i}.{k}": _FOERSCH for i in (0, 1) for k in ("epochs", "train", "learning_rate", "weight_decay", "schedule")},
        "architecture": f"DenseNet121: {_FOERSCH}; its head: {_FASTAI}",
        "optimiser.name": _FASTAI,
        "optimiser.betas": _FASTAI,
    },
)

ZHANG = Recipe(
    name="zhang",
    reference=(
        "Zhang et al., Am J Pathol 2022 (192:917): InceptionV3. Not published: tile, µm/px, stain, optimiser, learning rate, epochs, split; "
        "auxiliary loss and label smoothing are DeepPATH's."
    ),
    architecture={"name": "inception_v3"},
    tile_px=299,
    mpp=1.0,
    batch=16,
    optimiser=Optimiser(name="adamw"),
    loss=Loss(label_smoothing=0.1, auxiliary=0.4),
    stages=[Stage(epochs=30, learning_rate=1e-4, weight_decay=1e-4, schedule="one-cycle")],
    patience=8,
    keep="auc",
    sources={"architecture": _ZHANG, "tile_px": f"InceptionV3's own input: {_DEEPPATH}", "loss.label_smoothing": _DEEPPATH, "loss.auxiliary": _DEEPPATH},
)

DEEPPATH = Recipe(
    name="deeppath",
    reference=(
        "DeepPATH (Coudray et al.), as Frankel et al., Mod Pathol 2022, use it: InceptionV3 from scratch with RMSProp. "
        "Not published by Frankel et al.: tile and magnification. DeepPATH's weights run in TensorFlow; batch norm here keeps torch's own decay."
    ),
    architecture={"name": "inception_v3"},
    tile_px=299,
    mpp=0.5,
    stain="none",
    batch=30,
    initial="none",
    optimiser=Optimiser(name="rmsprop", momentum=0.9, smoothing=0.9, epsilon=1.0),
    loss=Loss(class_weights="none", label_smoothing=0.1, auxiliary=0.4),
    stages=[Stage(epochs=90, learning_rate=0.1, weight_decay=4e-5, schedule="step", decay=0.16, decay_every=30)],
    augment=Augment(turns=False, flip=True, brightness=32 / 255, contrast=(0.5, 1.5), saturation=(0.5, 1.5), hue=0.2, restain=0, jitter=0),
    average_decay=0.9999,
    keep="auc",
    validation_share=0.15,
    sources={
        **dict.fromkeys(["architecture", "tile_px", "batch", "initial", "optimiser.name", "optimiser.momentum", "optimiser.smoothing"], _DEEPPATH),
        **dict.fromkeys(["optimiser.epsilon", "loss.label_smoothing", "loss.auxiliary", "average_decay", "validation_share"], _DEEPPATH),
        **{f"stages.0.{k}": _DEEPPATH for k in ("learning_rate", "weight_decay", "schedule", "decay", "decay_every")},
        **{f"augment.{k}": _DEEPPATH for k in ("flip", "brightness", "contrast", "saturation", "hue")},
    },
)

CELL = Recipe(
    name="cell",
    reference="our defaults for pictures with one cell in the middle, such as mitotic figures: how the second look of the shipped detector was trained",
    architecture={"name": "lite"},
    tile_px=64,
    mpp=0.25,
    stain="none",
    batch=32,
    stages=[Stage(epochs=20, learning_rate=1e-3)],
    augment=Augment(rotate_deg=180, zoom=0.2, shift_px=4, restain=0.3, jitter=0.25),
    clip_norm=5.0,
    keep="auc",
    views=8,
    sources={"loss.class_weights": _FOERSCH},
)

UNET = Recipe(
    name="unet",
    reference="our defaults: a U-Net with cross-entropy and soft Dice on tiles of 512 px at 2 µm/px",
    architecture={"name": "unet", "encoder": "resnet18"},
    tile_px=512,
    mpp=2.0,
    batch=8,
    loss=Loss(class_weights="none"),
    stages=[Stage(epochs=40, learning_rate=1e-3, weight_decay=1e-4, schedule="cosine")],
    patience=10,
)

MIL = Recipe(
    name="mil",
    reference="our defaults for gated attention (Ilse et al., ICML 2018) over the features of a frozen encoder; a unit is a slide",
    architecture={"name": "mil", "encoder": {"name": "densenet121"}},
    tile_px=224,
    batch=2,
    accumulate=4,
    stages=[Stage(epochs=30, learning_rate=3e-4, weight_decay=1e-3, schedule="cosine")],
    augment=Augment(turns=False, restain=0, jitter=0),
    patience=10,
    keep="loss",
)

PRESETS = {r.name: r for r in (PLAIN, CELL, FOERSCH, ZHANG, DEEPPATH, UNET)}
OF_TASK = {"sts-subtype": "foersch", "rms-subtype": "zhang", "subtype": "plain", "tumour": "unet"}


def choose_recipe(task: str, preset: str = "", file: Path | None = None, values: dict[str, Any] | None = None, epochs: int | None = None) -> Recipe:
    """The recipe of a task: its own preset, another, or a file's; then single values, and another number of epochs.

    ``values`` may have an ``architecture`` as ``densenet121``, ``timm:convnext_tiny``, or an encoder of a hub (``uni``, ``hf:owner/name``), which then starts
    as it lies there, and sees pixels as they were scanned unless the file or ``values`` name a stain; the second output's loss is then left to networks that
    have one.

    Raises
    ------
    UsageError
        There is no such preset, or a value is impossible.
    LicenceError, UnknownModelError
        An encoder's terms were not accepted here, or it is not to be had.
    """
    if preset and file:
        raise UsageError('give --preset or --recipe and not both; a recipe file names its preset as: preset = "foersch"')
    if preset and preset not in PRESETS:
        raise UsageError(f"preset '{preset}': there are {', '.join(PRESETS)}")
    if preset and (task == "tumour") != (preset == "unet"):
        raise UsageError(f"preset '{preset}' is not for '{task}'")
    values = dict(values or {})
    name = values.get("architecture")
    foundation = isinstance(name, str) and is_encoder(name)
    presets = {k: changed(r, {"stain": "none"}, _AS_SCANNED) for k, r in PRESETS.items()} if foundation else PRESETS
    recipe = read_recipe(file, presets) if file else presets[preset or OF_TASK[task]]
    if isinstance(name, str):
        library, _, model = name.partition(":")
        key = "encoder" if library == "unet" else "model"
        values["architecture"] = {"name": library} | ({key: model} if model else {})
        if foundation:
            values = encoder_values(name) | {k: v for k, v in values.items() if k != "architecture"}
        values |= {} if name == "inception_v3" else {"loss": {"auxiliary": 0.0}}
    recipe = changed(recipe, values, "command line") if values else recipe
    return recipe.shortened(epochs) if epochs else recipe
