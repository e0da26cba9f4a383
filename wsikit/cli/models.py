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
    sub.command("accept")(_accept)
    sub.command("export")(_export)
    app.add_typer(sub, name="models")


def _list(as_json: Json = False) -> None:
    """List the models at hand.

    Example: wsikit models list
    """
    from wsikit.errors import CardError
    from wsikit.models import available, read_card

    cards = []
    for folder in available().values():
        try:
            cards.append((read_card(folder), folder))
        except CardError as e:
            typer.echo(f"wsikit: left out: {e}", err=True)
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
    show_json(facts) if as_json else show_facts({"use": _use(card)} | dict(_flat(facts)))


def _use(card: Any) -> str:
    """What a model may be used for, in words."""
    from wsikit.models._card import NOT_STATED

    domains = {
        "phantom": "synthetic slides only; it abstains on real ones",
        "photographs": "its features only; its classes are things in photographs",
        "histology": "slides like those it was trained on",
    }
    stated = NOT_STATED not in card.licence
    terms = card.terms.get("terms") or (f"licence {card.licence}" if stated else f"licence {card.licence}: ask whoever made it before you use or share it")
    return f"research only, no diagnosis; {domains[card.trained_on.domain]}; {terms}"


def _flat(facts: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Nested facts as ``outer.inner`` and text."""
    for key, value in facts.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield before + key, ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _add(
    model: Annotated[
        str, typer.Argument(help="A model folder, .onnx, .safetensors or .cfg file, hf:owner/name[@revision], timm:name or tia:name.", metavar="MODEL")
    ],
    pipeline: Annotated[str, typer.Option("--pipeline", help="Which pipeline it is for: sts-subtype, rms-subtype, tissue-type (any classes) …")] = "",
    classes: Annotated[str, typer.Option("--classes", help="Names of the outputs, in their order, with commas.")] = "",
    mpp: Annotated[float | None, typer.Option("--mpp", help="µm/px of its tiles.")] = None,
    tile: Annotated[int | None, typer.Option("--tile", help="Side of its tiles in px.")] = None,
    architecture: Annotated[
        str, typer.Option("--architecture", help="Of a state dict: torchvision:NAME, timm:NAME or fastai:NAME, then ,argument=value …")
    ] = "",
    scaling: Annotated[str, typer.Option("--scaling", help="imagenet (mean and spread), or none (0 to 1). [default: what the model says, else imagenet]")] = "",
    stain: Annotated[str, typer.Option("--stain", help="Stain normalisation that its training tiles had: macenko, vahadane, reinhard, none.")] = "",
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Tiles at a time.")] = None,
    layout: Annotated[str, typer.Option("--layout", help="Of an ONNX detector's outputs: ultralytics, ultralytics-end-to-end, objectness, yolox …")] = "",
    threshold: Annotated[float | None, typer.Option("--threshold", help="From which score on a detector's boxes count. [default: 0.5]")] = None,
    nms: Annotated[float | None, typer.Option("--nms", help="IoU at which a detector's boxes of one tile are one. [default: 0.45]")] = None,
    licence: Annotated[str, typer.Option("--licence", help="Under which licence the weights are.")] = "",
    name: Annotated[str, typer.Option("--name", help="What to call it here.")] = "",
    accept_licence: Annotated[bool, typer.Option("--accept-licence", help="Accept the terms of a gated hf: model, as wsikit models accept does.")] = False,
) -> None:
    """Check a model, and put it where wsikit finds it by name. Options tell what a file of weights does not say.

    \b
    Example: wsikit models add my-model/
    Example: wsikit models add hf:owner/name
    Example: wsikit models add yolov4medi.cfg --mpp 0.25 --threshold 0.6 --nms 0.4
    Example: wsikit models add best.onnx --pipeline mitosis --layout ultralytics --mpp 0.25
    Example: wsikit models add foersch.safetensors --architecture fastai:densenet121 --pipeline sts-subtype --classes DDLPS,LMS,MFS,SS,UPS --mpp 0.5 --tile 1024
    """
    from wsikit.errors import UsageError
    from wsikit.models import BUNDLED, CARD_FILE, check_model, fetch_model, installed_folder
    from wsikit.models._whole import keep_digest
    from wsikit.models.exchange.state import parse_architecture
    from wsikit.store.durable import write_atomic

    if accept_licence:
        _accept(model, yes=True)
    scalings = {"imagenet": {}, "none": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}}
    if scaling and scaling not in scalings:
        raise UsageError(f"--scaling {scaling}: there are {', '.join(scalings)}")
    told: dict[str, Any] = {"name": name, "pipeline": pipeline, "classes": [c.strip() for c in classes.split(",") if c.strip()], "mpp": mpp, "tile_px": tile}
    told |= {"architecture": parse_architecture(architecture) if architecture else {}, "scaling": scalings.get(scaling), "batch": batch}
    told |= {"licence": licence, "stain": stain, "layout": layout, "threshold": threshold, "nms_iou": nms}
    if Path(model).is_dir() and any(told.values()):
        raise UsageError(f"{model}: a model folder's card says everything; edit {CARD_FILE} there")
    folder = Path(model) if Path(model).is_dir() else fetch_model(model, **told)
    card = check_model(folder)
    if card.name in {p.parent.name for p in BUNDLED.glob(f"*/{CARD_FILE}")}:
        raise UsageError(f"{card.name}: a model of this name comes with wsikit; name yours otherwise in its card (or with --name)")
    target = installed_folder() / card.name
    if (target / CARD_FILE).exists():
        raise UsageError(f"{target}: a model of this name is there already; remove it, or name yours otherwise in its card (or with --name)")
    for file in (*card.files, CARD_FILE):  # nothing else comes along; the card last, since it makes the folder a model
        write_atomic(target / file, (folder / file).read_bytes())
    keep_digest(card, installed_folder())
    typer.echo(f"{card.name} is now the model of pipeline {card.pipeline}: {target}")
    typer.echo(f"licence: {card.licence}; {card.trained_on.domain}: {card.trained_on.description}")


def _accept(
    name: Annotated[str, typer.Argument(help="An encoder that is known by name, or hf:owner/name. [default: list them]", show_default=False)] = "",
    yes: Annotated[bool, typer.Option("--yes", help="I have read the licence, and accept it.")] = False,
    as_json: Json = False,
) -> None:
    """Show the licence of gated weights, and keep that you accept it. Without a name, say which were accepted.

    \b
    Example: wsikit models accept uni
    Example: wsikit models accept hf:owner/name --yes
    """
    from wsikit.errors import UsageError
    from wsikit.models.exchange.licences import ENCODERS, accept, accepted, repository, terms_of

    if not name:
        given = accepted()
        others = {k: {"repo": v["repo"]} for k, v in given.items() if k not in {e.repo.lower() for e in ENCODERS.values()}}
        rows = [(short, e.repo, e.licence, given.get(e.repo.lower(), {}).get("accepted", "no")) for short, e in ENCODERS.items()]
        rows += [("", v["repo"], given[k]["licence"], given[k]["accepted"]) for k, v in others.items()]
        columns = ("name", "repository", "licence", "accepted")
        show_json([dict(zip(columns, r, strict=True)) for r in rows]) if as_json else show_table(columns, rows)
        return None
    if "/" not in (repo := repository(name)):
        raise UsageError(f"{name}: give hf:owner/name, or one of {', '.join(ENCODERS)}")
    terms = terms_of(repo)
    facts = {"repository": f"hf:{repo}", "licence": terms.licence, "use": terms.use, "to be read at": terms.page} | (
        {"asked": terms.prompt} if terms.prompt else {}
    )
    if as_json and not yes:
        return show_json(facts)
    if not as_json:
        show_facts(facts)
    if not terms.gated:
        typer.echo("needs no acceptance here")
        return None
    if not (yes or typer.confirm("Have you read it, and do you accept it?", err=True)):
        raise UsageError(f"hf:{repo}: not accepted, so it is not used here")
    where = accept(terms)
    show_json(facts | accepted()[repo.lower()]) if as_json else typer.echo(f"accepted, kept in {where}; access itself is given on its page (then set HF_TOKEN)")
    return None


def _export(
    model: Name,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="The file to write.")],
    to: Annotated[str, typer.Option("--to", help="onnx.")] = "onnx",
) -> None:
    """Write a classifier as one ONNX file, with its card inside. It gives probabilities (equal to 1e-4) and features of scaled tiles.

    Example: wsikit models export my-sts --to onnx -o my-sts.onnx
    """
    from wsikit.errors import UsageError
    from wsikit.models import find_model
    from wsikit.models.exchange.onnx import export_onnx

    if to != "onnx":
        raise UsageError(f"--to {to}: there is onnx")
    typer.echo(f"written: {export_onnx(find_model(model), out)}")


def _verify(models: Annotated[list[str] | None, typer.Argument(help="Names or folders. [default: all]")] = None, as_json: Json = False) -> int:
    """Check cards and weights: digests, tensors, architecture.

    Example: wsikit models verify phantom-mitosis
    """
    from wsikit.cli.main import OK, SOME_FAILED
    from wsikit.errors import ModelError
    from wsikit.models import available, check_model, find_model
    from wsikit.models._whole import changed_since, check_beside

    folders = {name: find_model(name) for name in models or sorted(available())}
    problems = {}
    for name, folder in folders.items():
        try:
            card = check_model(folder)
            check_beside(card, folder)
            problems[name] = changed_since(card, folder)
        except ModelError as e:
            problems[name] = str(e)
        if not as_json:
            typer.echo(f"{name}: {problems[name] or f'whole, {card.digest[:12]}'}")
    if as_json:
        show_json(problems)
    return SOME_FAILED if any(problems.values()) else OK
