"""``wsikit models``: which models are at hand, what they may be used for, and are they whole?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from wsikit.cli.output import Json, show_facts, show_json, show_table

Name = Annotated[str, typer.Argument(help="A model's name, a pipeline's name, or a model folder.")]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    sub = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Model cards, licences, digests, and where weights are.")
    sub.command("list")(_list)
    sub.command("show")(_show)
    sub.command("add")(_add)
    sub.command("verify")(_verify)
    app.add_typer(sub, name="models")


def _list(as_json: Json = False) -> None:
    """List the models at hand.

    Example: wsikit models list
    """
    from wsikit.models import available, read_card

    cards = [(read_card(folder), folder) for folder in available().values()]
    if as_json:
        show_json([c.model_dump() | {"digest": c.digest, "folder": str(f)} for c, f in cards])
    else:
        rows = [(c.name, c.pipeline, ", ".join(c.classes) or "risk", f"{c.mpp:g}", c.trained_on.domain, c.licence, c.digest[:12]) for c, _ in cards]
        show_table(("model", "pipeline", "classes", "mpp", "trained on", "licence", "digest"), rows)


def _show(model: Name, as_json: Json = False) -> None:
    """Print a model's card.

    Example: wsikit models show phantom-mitosis
    """
    from wsikit.models import find_model, read_card

    folder = find_model(model)
    card = read_card(folder)
    facts = card.model_dump() | {"digest": card.digest, "folder": str(folder)}
    show_json(facts) if as_json else show_facts(dict(_flat(facts)))


def _flat(facts: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Nested facts as ``outer.inner`` and text."""
    for key, value in facts.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield before + key, ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _add(folder: Annotated[Path, typer.Argument(help="A model folder with card.json and safetensors weights.")]) -> None:
    """Copy a model folder to where wsikit finds it by name, after checking it.

    Example: wsikit models add my-model/
    """
    from wsikit.errors import UsageError
    from wsikit.models import CARD_FILE, check_model, installed_folder
    from wsikit.store.durable import write_atomic

    card = check_model(folder)
    target = installed_folder() / card.name
    if (target / CARD_FILE).exists():
        raise UsageError(f"{target}: a model of this name is there already; remove it, or name yours otherwise in its card")
    for name in (card.weights.file, CARD_FILE):  # nothing else comes along; the card last, since it makes the folder a model
        write_atomic(target / name, (folder / name).read_bytes())
    typer.echo(f"{card.name} is now the model of pipeline {card.pipeline}: {target}")


def _verify(models: Annotated[list[str] | None, typer.Argument(help="Names or folders. [default: all]")] = None, as_json: Json = False) -> int:
    """Check cards and weights: digests, tensors, architecture.

    Example: wsikit models verify phantom-mitosis
    """
    from wsikit.cli.main import OK, SOME_FAILED
    from wsikit.errors import ModelError
    from wsikit.models import available, check_model, find_model

    folders = {name: find_model(name) for name in models or sorted(available())}
    problems = {}
    for name, folder in folders.items():
        try:
            card = check_model(folder)
            problems[name] = ""
        except ModelError as e:
            problems[name] = str(e)
        if not as_json:
            typer.echo(f"{name}: {problems[name] or f'whole, {card.digest[:12]}'}")
    if as_json:
        show_json(problems)
    return SOME_FAILED if any(problems.values()) else OK
