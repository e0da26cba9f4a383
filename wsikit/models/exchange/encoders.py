"""Encoders of a hub by name: what a recipe and a card take from them, and their weights; see `wsikit.models.exchange.licences` for their terms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsikit.errors import UsageError
from wsikit.models._card import is_non_commercial
from wsikit.models.exchange import SAFELY
from wsikit.models.exchange.hub import STATE, download, licence_of, timm_config
from wsikit.models.exchange.licences import ENCODERS, known, readable, repository, require_accepted

PICKLE = "pytorch_model.bin"


def is_encoder(name: str) -> bool:
    """Whether ``--architecture`` names an encoder of a hub, and not a network of a library.

    >>> is_encoder("uni"), is_encoder("hf:owner/name"), is_encoder("timm:convnext_tiny")
    (True, True, False)
    """
    return name.startswith("hf:") or name.lower() in ENCODERS


def encoder_values(name: str) -> dict[str, Any]:
    """What a recipe takes from an encoder: ``architecture``, ``tile_px`` and ``initial``.

    Raises
    ------
    LicenceError
        Its terms were not accepted here.
    UnknownModelError
        It is neither cached nor to be reached.
    UsageError
        Its network cannot be built here, or it does not say which it is.
    """
    repo, config = _config(name)
    revision = name.partition("@")[2]
    architecture = config["architecture"] | (found.arguments if (found := known(repo)) else {}) | {"weights_of": repo}
    return {"architecture": architecture, "initial": f"hf:{repo}" + (f"@{revision}" if revision else "")} | {k: v for k, v in config.items() if k == "tile_px"}


def encoder_card(architecture: dict[str, Any]) -> dict[str, Any]:
    """What a card takes from the encoder that its architecture names as ``weights_of``: ``scaling`` and ``licence``; nothing where it names none.

    Raises
    ------
    LicenceError, UnknownModelError, UsageError
        See `encoder_values`.
    """
    repo = (architecture.get("encoder") or architecture).get("weights_of")
    if not repo:
        return {}
    _, config = _config(repo)
    licence = found.licence if (found := known(repo)) else licence_of(repo)
    only = ", non-commercial use only" if is_non_commercial(licence) else ""
    fields: dict[str, Any] = {"licence": f"holds weights of hf:{repo} ({licence}{only}); else not stated by whoever trained it"}
    return fields | {k: v for k, v in config.items() if k == "scaling"}


def encoder_weights(name: str) -> tuple[dict[str, Any], str]:
    """An encoder's tensors by name, and where they are from.

    Raises
    ------
    LicenceError, UnknownModelError
        See `encoder_values`.
    UsageError
        There are only pickled ones, or none.
    """
    from safetensors.torch import load_file

    repo, revision = repository(name), name.partition("@")[2]
    require_accepted(repo, revision)
    path = download(repo, STATE, revision)
    if path is None:
        pickled = download(repo, PICKLE, revision)
        raise UsageError(f"hf:{repo}: has no {STATE}" + (f", and {pickled} {SAFELY} to --init" if pickled else ""))
    return load_file(path), f"hf:{repo}@{path.parent.name}"


def _config(name: str) -> tuple[str, dict[str, Any]]:
    repo, revision = repository(name), name.partition("@")[2]
    readable(repo)
    require_accepted(repo, revision)
    path: Path | None = download(repo, "config.json", revision)
    config = timm_config(path)
    if "architecture" not in config:
        raise UsageError(f"hf:{repo}: has no config.json of timm, so its network is not known; name that with --architecture timm:…, and --init FILE")
    return repo, config
