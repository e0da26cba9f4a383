"""``wsikit train``: models from one's own slides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from wsikit.models import Card
    from wsikit.train.classify import Options
    from wsikit.train.detect import Course
    from wsikit.train.recipe import Recipe

TASKS = ("sts-subtype", "rms-subtype", "subtype", "tumour", "mitosis", "survival")
SUBTYPES, BY_RECIPE, NETWORKS = TASKS[:3], TASKS[:4], TASKS[:5]
_ONLY = {  # the options that not every training has
    ("survival",): "features feature endpoint clinical columns method tiles_of select penalty groups horizon outcome by_months condition",
    ("mitosis",): "rounds verifier scale paste",
    SUBTYPES: "mil",
    BY_RECIPE: "per_slide preset recipe tile stain init precision tensorboard",
    NETWORKS: "epochs mpp architecture device",
}
ONLY = {option: tasks for tasks, options in _ONLY.items() for option in options.split()}


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def train(
        context: typer.Context,
        task: Annotated[str, typer.Argument(help=f"{', '.join(TASKS)}.")],
        labels: Annotated[Path, typer.Option("--labels", help="CSV with the columns above.")],
        out: Annotated[Path, typer.Option("-o", "--out", metavar="MODEL", help="The model's folder.")],
        features: Annotated[Path | None, typer.Option("--features", metavar="DIR", help="survival: the run whose results are the features.")] = None,
        feature: Annotated[list[str] | None, typer.Option("--feature", help="survival: names or patterns, such as mitosis.per_mm2; repeatable.")] = None,
        endpoint: Annotated[str, typer.Option("--endpoint", help="survival: of what 'event' is the event: OS, DSS, RFS …")] = "",
        clinical: Annotated[list[str] | None, typer.Option("--clinical", help="survival: columns of the labels; repeatable. [default: all]")] = None,
        columns: Annotated[Path | None, typer.Option("--columns", metavar="CSV", help="survival: more columns by patient, such as radiomics.")] = None,
        method: Annotated[str, typer.Option("--method", help="survival: cox, deepsurv, discrete, or attention (over tiles).")] = "cox",
        tiles_of: Annotated[str, typer.Option("--tiles-of", metavar="PIPELINE", help="survival by attention: whose tile features.")] = "sts-subtype",
        select: Annotated[str, typer.Option("--select", help="survival: mrmr or lasso, inside each fold. [default: all features]")] = "",
        penalty: Annotated[float | None, typer.Option("--penalty", min=0, help="survival: the ridge penalty λ. [default: chosen inside each fold]")] = None,
        groups: Annotated[int, typer.Option("--groups", help="survival: 2 risk groups (median) or 3 (tertiles).")] = 2,
        horizon: Annotated[list[float] | None, typer.Option("--horizon", help="survival: months; repeatable. [default: 12 36 60]")] = None,
        by_site: Annotated[bool, typer.Option("--by-site", help="subtypes, survival: validate with each site left out, instead of folds.")] = False,
        outcome: Annotated[str, typer.Option("--outcome", help="survival: a yes/no column of the labels instead of times.")] = "",
        by_months: Annotated[float | None, typer.Option("--by-months", help="survival: did it happen by then, yes or no?")] = None,
        condition: Annotated[str, typer.Option("--condition", metavar="PIPELINE=CLASS", help="survival: for slides of this call only.")] = "",
        epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Passes over the training tiles. [default: the recipe's; mitosis 12]")] = None,
        mpp: Annotated[float | None, typer.Option("--mpp", help="µm/px to train at. [default: the recipe's; mitosis 0.25]")] = None,
        per_slide: Annotated[int, typer.Option("--per-slide", min=1, help="Tiles drawn from each slide.")] = 200,
        preset: Annotated[str, typer.Option("--preset", help="plain, cell, foersch, zhang, deeppath, or unet. [default: the task's own]")] = "",
        recipe: Annotated[Path | None, typer.Option("--recipe", metavar="TOML", help="Values in place of a preset's.")] = None,
        architecture: Annotated[
            str,
            typer.Option(
                "--architecture", help="torchvision:resnet18, timm:convnext_tiny …; mitosis yolox-n to -x, yolo9-t to -c. [default: the recipe's; yolox-n]"
            ),
        ] = "",
        tile: Annotated[int | None, typer.Option("--tile", min=16, max=4096, help="Tile side, px. [default: the recipe's]")] = None,
        stain: Annotated[str, typer.Option("--stain", help="Of its tiles: macenko, vahadane, reinhard or none. [default: the recipe's]")] = "",
        init: Annotated[str, typer.Option("--init", help="imagenet, none, a file of weights, or a model to go on from. [default: the recipe's]")] = "",
        precision: Annotated[str, typer.Option("--precision", help="fp32, bf16 or fp16. [default: the recipe's]")] = "",
        folds: Annotated[int, typer.Option("--folds", min=0, help="subtypes: cross-validate first. A column 'fold' or --by-site comes before.")] = 0,
        mil: Annotated[bool, typer.Option("--mil", help="subtypes: call slides by attention over tiles; the network is the encoder, as it starts.")] = False,
        acgan: Annotated[
            int, typer.Option("--acgan", min=0, metavar="EPOCHS", help="subtypes: train on as many synthetic tiles too, and measure what they are worth.")
        ] = 0,
        tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write TensorBoard's files (extra 'tensorboard').")] = False,
        rounds: Annotated[int | None, typer.Option("--rounds", min=0, help="mitosis: rounds of false finds that are trained on too. [default: 1]")] = None,
        verifier: Annotated[bool, typer.Option("--verifier", help="mitosis: a second stage that looks at each find again.")] = False,
        scale: Annotated[tuple[float, float] | None, typer.Option("--scale", help="mitosis: µm/px from … to that fields are shown at.")] = None,
        paste: Annotated[float | None, typer.Option("--paste", min=0, max=1, help="mitosis: share of fields with figures pasted in. [default: 0.25]")] = None,
        seed: Annotated[int, typer.Option("--seed", help="Of everything random.")] = 0,
        device: Annotated[str, typer.Option("--device", help="cpu, cuda or mps.")] = "cpu",
    ) -> None:
        """Train a model; patients are never on both sides of a split.

        Labels: classifiers path,label,patient (and mpp, site, split, fold), where a path is a slide, a store with kept pixels or a tile image;
        tumour path,patient,regions (QuPath's GeoJSON with class Tumor, or a mask as PNG);
        mitosis path,patient,x,y,label (level-0 px; label mitosis or lookalike; a slide without figures has an empty x),
        or path,patient,labels (a file each: COCO, YOLO .txt, QuPath .geojson, .csv), or one COCO .json (MIDOG, MIDOG++ as they are);
        survival patient, time_months (or time_days, time_years), event, and clinical columns (and endpoint, competing, site).

        With --rounds, --verifier, --scale or --paste, mitoses are learned on fields composed of the labelled tissue: mosaics, and figures pasted
        into other tissue.

        \b
        Example: wsikit train sts-subtype --labels labels.csv -o my-sts/
        Example: wsikit train survival --labels patients.csv --endpoint OS --features out/ --feature mitosis.per_mm2 -o my-risk/
        """
        from wsikit.errors import UsageError
        from wsikit.resolution import MAX_MPP, MIN_MPP, is_believable
        from wsikit.run.job import check_device
        from wsikit.train import tasks
        from wsikit.train.classify import Options
        from wsikit.train.mil import mil_recipe
        from wsikit.train.presets import choose_recipe

        if task not in TASKS:
            raise UsageError(f"task '{task}': there are {', '.join(TASKS)}")
        check_ways(task, acgan=acgan, mil=mil, folds=folds, by_site=by_site)
        check_options(task, [name for name in context.params if "DEFAULT" not in str(context.get_parameter_source(name))])
        if out.exists() and (not out.is_dir() or any(p.name != "training" for p in out.iterdir())):
            raise UsageError(f"{out}: is there already and not an empty folder, nor an unfinished training; choose a new one with -o")
        if mpp is not None and not is_believable(mpp):
            raise UsageError(f"--mpp {mpp:g}: µm/px must be {MIN_MPP} to {MAX_MPP}")
        check_device(device)
        options: dict[str, Any] = {"seed": seed, "log": typer.echo}
        if task == "survival":
            how: dict[str, Any] = {"method": method, "tiles_of": tiles_of, "select": select, "penalty": penalty, "groups": groups, "by_site": by_site}
            how |= {"clinical": clinical, "columns": columns, "outcome": outcome, "by_months": by_months, "condition": condition}
            how |= {"horizons": horizon} if horizon else {}
            said = _survival(labels, out, features, feature or [], endpoint, **how, **options)
        elif task == "mitosis":
            composed = verifier or any(v is not None for v in (rounds, scale, paste))
            options["course"] = course_of(mpp or 0.25, scale, paste, rounds, epochs or 12, seed, device) if composed else None
            options |= {"architecture": architecture or "yolox-n", "verifier": verifier, "epochs": epochs or 12, "device": device}
            said = _validation(tasks.mitosis(labels, out, mpp or 0.25, **options), out)
        else:
            values = {"mpp": mpp, "tile_px": tile, "stain": stain, "initial": init, "precision": precision, "architecture": architecture}
            chosen = choose_recipe(task, preset, recipe, {k: v for k, v in values.items() if v}, epochs)
            if mil:
                chosen = mil_recipe(chosen) if epochs is None else mil_recipe(chosen).shortened(epochs)
            said = _network(task, labels, out, chosen, Options(per_slide, seed, device, folds, by_site, tensorboard, typer.echo, acgan))
        if said:
            typer.echo(said)


def _survival(labels: Path, out: Path, features: Path | None, names: list[str], endpoint: str, **how: Any) -> str:
    from wsikit.errors import UsageError
    from wsikit.train import tasks

    alone = features is None and (how["clinical"] or how["columns"])
    if not (alone or (features is not None and (names or how["method"] == "attention"))):
        raise UsageError("survival needs --features DIR (a run with a patient column) and at least one --feature NAME; or --clinical NAME alone")
    card = tasks.survival(labels, out, features, names, endpoint, **how)
    return f"{card.name}: written to {out}; figures, curves and the nomogram are in {out / 'training'}"


def _network(task: str, labels: Path, out: Path, recipe: Recipe, options: Options) -> str:
    """Train on this process's device, or as one of a group; only the first of a group has anything to say."""
    from wsikit.train import tasks
    from wsikit.train.parallel import join_group

    with join_group(options.device) as group:
        ways = replace(options, device=group.device)
        card = tasks.tumour(labels, out, recipe, ways, group) if task == "tumour" else tasks.subtype(task, labels, out, recipe, ways, group)
        return _validation(card, out) if group.first else ""


def _validation(card: Card, out: Path) -> str:
    return f"{card.name}: written to {out}; validation: {card.metrics['validation']}"


def check_ways(task: str, *, acgan: int, mil: bool, folds: int, by_site: bool) -> None:
    """Nothing that is asked for is left out without a word.

    Raises
    ------
    UsageError
        A way of training is asked for that the task does not have.
    """
    from wsikit.errors import UsageError

    if acgan and (mil or task not in SUBTYPES):
        raise UsageError("--acgan is for classifiers of tiles (sts-subtype, rms-subtype, subtype), without --mil")
    if task in ("tumour", "mitosis") and (folds or by_site):
        raise UsageError(f"--folds and --by-site are not for {task}: give its labels a column split, once for each fold")
    if task == "survival" and folds:
        raise UsageError("--folds is not for survival, which is always validated in five; --by-site leaves out whole sites instead")


def check_options(task: str, typed: list[str]) -> None:
    """An option that a training does not have would change nothing, without a word.

    Raises
    ------
    UsageError
        One was given.
    """
    from wsikit.errors import UsageError

    for name in typed:
        tasks = ONLY.get(name, TASKS)
        if task not in tasks:
            raise UsageError(f"--{name.replace('_', '-')} is for {' and '.join(filter(None, [', '.join(tasks[:-1]), tasks[-1]]))}, not for {task}")


def course_of(mpp: float, scale: tuple[float, float] | None, paste: float | None, rounds: int | None, epochs: int, seed: int, device: str) -> Course:
    """How a mitosis detector is trained on composed fields.

    Raises
    ------
    UsageError
        The scales cannot be.
    """
    from wsikit.errors import UsageError
    from wsikit.resolution import MAX_MPP, MIN_MPP, is_believable
    from wsikit.train.compose import Composition
    from wsikit.train.detect import Course

    scale = scale or (0.8 * mpp, 1.28 * mpp)
    if not (all(map(is_believable, scale)) and scale[0] <= scale[1]):
        raise UsageError(f"--scale {scale[0]:g} {scale[1]:g}: two µm/px of {MIN_MPP} to {MAX_MPP}, the finer first")
    composition = Composition(scale=scale, paste=0.25 if paste is None else paste)
    return Course(composition, rounds=1 if rounds is None else rounds, epochs=epochs, seed=seed, device=device)
