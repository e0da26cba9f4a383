"""Weights that are to be had on terms: which these are, and who here has agreed to them, once, and when.

Pathology's foundation encoders mostly lie in gated repositories, and most of them may not be used commercially. They are fetched, and opened from the
cache, only once ``wsikit models accept NAME`` has shown the licence and kept the answer (``licences.json`` in the user's folder of wsikit).
"""

from __future__ import annotations

import datetime as dt
import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsikit.errors import DamagedStoreError, LicenceError, ModelError, UsageError
from wsikit.models._card import is_non_commercial

NC_ND, APACHE = "CC-BY-NC-ND-4.0", "Apache-2.0"
_SWIGLU = {"mlp_layer": "SwiGLUPacked", "act_layer": "silu", "global_pool": "token"}


@dataclass(frozen=True)
class Encoder:
    """A foundation encoder that is known by name.

    Attributes
    ----------
    repo : ``owner/name`` at the hub
    licence : as its page gives it
    arguments : of its network in timm, beyond or over those of the repository's ``config.json``
    unread : why its network cannot be built here, where it cannot
    """

    repo: str
    licence: str
    arguments: dict[str, Any] = field(default_factory=dict)
    unread: str = ""


_TRANSFORMERS = "its weights are those of the library transformers, by other names than timm's"
_OPEN_CLIP = "its network is a changed open_clip of its makers' own"
ENCODERS = {
    "uni": Encoder("MahmoodLab/UNI", NC_ND, {"init_values": 1e-5}),
    "uni2-h": Encoder("MahmoodLab/UNI2-h", NC_ND, _SWIGLU),
    "conch": Encoder("MahmoodLab/CONCH", NC_ND, unread=_OPEN_CLIP),
    "conch-v1.5": Encoder("MahmoodLab/conchv1_5", NC_ND, unread=_OPEN_CLIP),
    "virchow": Encoder("paige-ai/Virchow", APACHE, _SWIGLU),
    "virchow2": Encoder("paige-ai/Virchow2", NC_ND, _SWIGLU),
    "h-optimus-0": Encoder("bioptimus/H-optimus-0", APACHE, {"init_values": 1e-5}),
    "h-optimus-1": Encoder("bioptimus/H-optimus-1", NC_ND, {"init_values": 1e-5}),
    "h0-mini": Encoder("bioptimus/H0-mini", NC_ND, _SWIGLU),
    "prov-gigapath": Encoder("prov-gigapath/prov-gigapath", APACHE),
    "phikon": Encoder("owkin/phikon", "Owkin non-commercial licence", unread=_TRANSFORMERS),
    "phikon-v2": Encoder("owkin/phikon-v2", "Owkin non-commercial licence", unread=_TRANSFORMERS),
}


@dataclass(frozen=True)
class Terms:
    """On what terms a repository's weights are to be had: its licence, the page to read it at, what the page asks of users, and whether that needs a yes."""

    repo: str
    licence: str
    page: str
    prompt: str = ""
    gated: bool = True

    @property
    def use(self) -> str:
        """What the licence allows, in words."""
        return "non-commercial use only" if is_non_commercial(self.licence) else "commercial use is allowed by it"


def repository(name: str) -> str:
    """``owner/name`` of an encoder that is known by name, or of a reference such as ``hf:owner/name@revision``.

    >>> repository("uni"), repository("hf:Uni"), repository("hf:owner/name@v1")
    ('MahmoodLab/UNI', 'MahmoodLab/UNI', 'owner/name')
    """
    short = name.removeprefix("hf:").partition("@")[0]
    encoder = ENCODERS.get(short.lower()) or known(short)
    return encoder.repo if encoder else short


def known(repo: str) -> Encoder | None:
    """The encoder of a repository, whose name the hub reads in capitals or not; None where it is another repository."""
    return next((e for e in ENCODERS.values() if e.repo.lower() == repo.lower()), None)


def terms_of(repo: str, revision: str = "") -> Terms:
    """The terms of a repository: those that are known here, with what its page says where that can be had.

    Raises
    ------
    UnknownModelError
        It is not known here, and its page is neither cached nor to be reached.
    """
    from huggingface_hub import constants

    page = f"{constants.ENDPOINT}/{repo}"
    encoder, said = known(repo), {}
    if encoder is None:
        said = _page(repo, revision)
    else:
        with suppress(ModelError):
            said = _page(repo, revision)
    licence = encoder.licence if encoder else str(said.get("license_name") or said.get("license") or "not stated")
    gated = encoder is not None or any(k.startswith("extra_gated") for k in said)
    return Terms(repo, licence, page, " ".join(str(said.get("extra_gated_prompt", "")).split()), gated)


def _page(repo: str, revision: str) -> dict[str, Any]:
    from huggingface_hub import ModelCard

    from wsikit.models.exchange.hub import download

    path = download(repo, "README.md", revision)
    if path is None:
        return {}
    try:
        return dict(ModelCard.load(path).data.to_dict())
    except (ValueError, OSError):
        return {}


def require_accepted(repo: str, revision: str = "") -> None:
    """Go on where a repository's weights need no yes, or have one.

    Raises
    ------
    LicenceError
        They need one; the message says how to give it.
    UnknownModelError
        See `terms_of`.
    """
    if (encoder := known(repo)) is not None and accepted().get(encoder.repo.lower(), {}).get("licence") == encoder.licence:
        return  # without a look at the hub
    terms = terms_of(repo, revision)
    if terms.gated and accepted().get(repo.lower(), {}).get("licence") != terms.licence:
        raise LicenceError(
            f"hf:{repo}: its licence is {terms.licence} ({terms.use}), which nobody has accepted here: read it at {terms.page}, ask for access there, and run "
            f"wsikit models accept {repo}"
        )


def accept(terms: Terms) -> Path:
    """Keep that its terms were read and accepted now; returns the file that says so.

    Raises
    ------
    OutputError
        The user's folder cannot be written.
    DamagedStoreError
        The file is there and cannot be read.
    """
    from wsikit.store.durable import write_json

    entry = {"repo": terms.repo, "licence": terms.licence, "page": terms.page, "accepted": dt.datetime.now(dt.UTC).isoformat(timespec="seconds")}
    write_json(_file(), accepted() | {terms.repo.lower(): entry})
    return _file()


def accepted() -> dict[str, dict[str, str]]:
    """What was accepted here, by repository in small letters: ``licence``, ``page`` and ``accepted``, when.

    Raises
    ------
    DamagedStoreError
        The file cannot be read.
    """
    try:
        said = json.loads(_file().read_bytes())
        return {str(k): {str(a): str(b) for a, b in v.items()} for k, v in said.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as e:
        raise DamagedStoreError(f"{_file()}: cannot be read ({' '.join(str(e).split())[:80]}); remove it, and accept licences again") from e


def _file() -> Path:
    from wsikit.models import installed_folder

    return installed_folder().parent / "licences.json"


def readable(repo: str) -> Encoder | None:
    """The encoder of a repository, where it is one that is known and can be read.

    Raises
    ------
    UsageError
        It is known, and its network cannot be built here.
    """
    encoder = known(repo)
    if encoder is not None and encoder.unread:
        raise UsageError(f"hf:{repo}: {encoder.unread}, so it cannot be read here; of those known by name these can: {', '.join(_read())}")
    return encoder


def _read() -> list[str]:
    return [name for name, e in ENCODERS.items() if not e.unread]
