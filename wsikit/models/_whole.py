"""Is a model as it was when it was added, and is there nothing in its folder that could be run?"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from wsikit.errors import CardError
from wsikit.models._card import CARD_FILE, Card

DIGESTS = "digests.json"  # of the models that were added, beside them
OF_MODELS = (".md", ".txt", ".json", ".csv", ".png", ".html", ".toml", ".tsv", ".pdf", "")  # what may lie beside a model, and is never read


def keep_digest(card: Card, installed: Path) -> None:
    """Remember a model as it was when it was added, beside the models, so that `changed_since` can tell.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    from wsikit.store.durable import write_json

    write_json(installed / DIGESTS, {name: digest for name, digest in _digests(installed).items() if name != card.name} | {card.name: card.digest})


def added_last(names: Iterable[str], installed: Path) -> list[str]:
    """Names of models, the one that was added last first; those that nobody added, but laid there, at the end."""
    order = list(_digests(installed))
    return sorted(names, key=lambda name: (-order.index(name) if name in order else 1, name))


def changed_since(card: Card, folder: Path) -> str:
    """How a model's card differs from what was added under its name; empty where it does not, or nobody added it."""
    then = _digests(folder.parent).get(folder.name, card.digest)
    return "" if then == card.digest else f"its card was edited since the model was added (digest then {then[:12]}, now {card.digest[:12]}); add it again"


def _digests(installed: Path) -> dict[str, str]:
    try:
        return {str(k): str(v) for k, v in json.loads((installed / DIGESTS).read_bytes()).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def check_beside(card: Card, folder: Path) -> None:
    """Is there nothing in a model folder that could be run or unpickled? wsikit would open none of it; others might.

    Raises
    ------
    CardError
        There is; the message names it.
    """
    own = {folder / name for name in (*card.files, CARD_FILE)}
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p not in own and "training" not in p.relative_to(folder).parts[:1]]
    if odd := [p.relative_to(folder).as_posix() for p in files if p.suffix.lower() not in OF_MODELS or (not p.suffix and p.stat().st_mode & 0o111)]:
        raise CardError(f"{folder}: holds {', '.join(odd[:5])}: a model holds nothing that can be run or unpickled; wsikit opens none of it, remove it")
