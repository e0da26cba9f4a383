"""Models of a Hugging Face hub repository; what is in the local cache needs no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wsikit.errors import ModelError, UnknownModelError, UsageError
from wsikit.models._card import CARD_FILE, NOT_STATED, read_card
from wsikit.models.exchange import SAFELY
from wsikit.models.exchange.licences import readable, repository, require_accepted
from wsikit.models.exchange.state import card_fields, write_fitted

STATE = "model.safetensors"


def hub_folder(name: str, told: dict[str, Any]) -> Path:
    """The model folder of ``owner/name[@revision]``: its own where it has a ``card.json``, else made from timm's ``config.json`` and what is told.

    Raises
    ------
    UnknownModelError
        There is no such repository, nothing of it is cached while offline, or it is gated.
    LicenceError
        Its terms were not accepted here.
    UsageError
        It holds only a pickle, is an encoder without classes, or does not say something that must then be told.
    """
    repo, revision = repository(name), name.partition("@")[2]
    readable(repo)
    require_accepted(repo, revision)
    if (card_file := download(repo, CARD_FILE, revision)) is not None:
        commit = card_file.parent.name  # of the same commit, also when the branch has moved meanwhile
        if told:
            raise UsageError(f"hf:{name}: has a {CARD_FILE}, which says everything; to change it, copy the folder {card_file.parent} and edit the copy")
        for file in read_card(card_file.parent).files:
            download(repo, file, commit)
        return card_file.parent
    weights = download(repo, STATE, revision)
    if weights is None:
        raise UsageError(f"hf:{repo}: has neither {CARD_FILE} nor {STATE}; if it has a pytorch_model.bin, that {SAFELY}")
    commit = weights.parent.name
    config = timm_config(download(repo, "config.json", commit))
    if config.pop("encoder", False):
        raise UsageError(f"hf:{repo}: is an encoder, without classes of its own; train with it: wsikit train … --mil --architecture hf:{repo}")
    known = {"name": repo, "source": f"hf:{repo}@{commit}", "licence": licence_of(repo, commit)} | config
    from safetensors.torch import load_file

    fields = card_fields(f"hf:{name}", known, told)
    return write_fitted(fields, load_file(weights), f"hf:{name}")


def download(repo: str, file: str, revision: str = "") -> Path | None:
    """A file of a repository, from the cache where it is there; None where the repository has no such file.

    Raises
    ------
    UnknownModelError
        The repository is not there, gated, or cannot be reached and is not cached.
    """
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(repo, file, revision=revision or None))
    except errors.LocalEntryNotFoundError as e:
        if _cached(repo, revision):
            return None  # offline, and this file was never fetched with the others
        raise UnknownModelError(f"hf:{repo}: the hub cannot be reached (or is not to be, HF_HUB_OFFLINE), and nothing of it is cached") from e
    except errors.GatedRepoError as e:
        raise UnknownModelError(f"hf:{repo}: is gated: accept its licence on its page at the hub, and set HF_TOKEN to your token") from e
    except errors.EntryNotFoundError:
        return None
    except errors.RepositoryNotFoundError as e:
        raise UnknownModelError(f"hf:{repo}: no such repository, or a private one (then set HF_TOKEN)") from e
    except errors.RevisionNotFoundError as e:
        raise UnknownModelError(f"hf:{repo}@{revision}: the repository has no such revision") from e
    except errors.HFValidationError as e:
        raise UsageError(f"hf:{repo}: not the name of a repository; it is hf:owner/name, with @revision after it where wanted") from e
    except (OSError, errors.HfHubHTTPError) as e:
        raise ModelError(f"hf:{repo}: {file} cannot be fetched ({' '.join(str(e).split())[:160]})") from e


def _cached(repo: str, revision: str) -> bool:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    snapshots = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model") / "snapshots"
    return snapshots.is_dir() and any(not revision or s.name == revision or _is_ref(snapshots.parent, revision) for s in snapshots.iterdir())


def _is_ref(repo: Path, revision: str) -> bool:
    return (repo / "refs" / revision).is_file()


def licence_of(repo: str, revision: str = "") -> str:
    """What the repository's own page gives as its licence."""
    from huggingface_hub import ModelCard

    page = download(repo, "README.md", revision)
    if page is None:
        return NOT_STATED
    try:
        said = ModelCard.load(page).data
    except ValueError:
        return NOT_STATED
    return str(getattr(said, "license_name", None) or said.license or NOT_STATED)


def timm_config(path: Path | None) -> dict[str, Any]:
    """What timm's ``config.json`` says of a network; nothing where it is another kind of file. ``encoder`` tells one without classes."""
    if path is None:
        return {}
    try:
        config = json.loads(path.read_bytes())
        cfg = config.get("pretrained_cfg", config)
        arguments = {k: v for k, v in config.get("model_args", {}).items() if k != "num_classes"}
        known: dict[str, Any] = {"architecture": {"name": "timm", "model": config["architecture"]} | arguments}
        known |= {"encoder": True} if config.get("num_classes", cfg.get("num_classes")) == 0 else {}
        side = cfg.get("input_size", [3, 0, 0])[1]
        known |= {"tile_px": side} if side else {}
        if "mean" in cfg:
            known["scaling"] = {"mean": cfg["mean"], "std": cfg["std"]}
        names = cfg.get("label_names") or config.get("label_names")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return {}
    return known | ({"classes": [str(n) for n in names]} if names else {})
