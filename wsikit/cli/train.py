"""``wsikit train``: models from one's own slides."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

TASKS = ("sts-subtype", "rms-subtype", "subtype", "mitosis", "survival")


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def train(
        task: Annotated[str, typer.Argument(help=f"{', '.join(TASKS)}.")],
        labels: Annotated[Path, typer.Option("--labels", help="CSV with the columns above.")],
        out: Annotated[Path, typer.Option("-o", "--out", metavar="MODEL", help="The model's folder.")],
        features: Annotated[Path | None, typer.Option("--features", metavar="DIR", help="survival: the run whose results are the features.")] = None,
        feature: Annotated[list[str] | None, typer.Option("--feature", help="survival: names or patterns, such as mitosis.per_mm2; repeatable.")] = None,
        endpoint: Annotated[str, typer.Option("--endpoint", help="survival: of what 'event' is the event: OS, DSS, RFS …")] = "",
        clinical: Annotated[list[str] | None, typer.Option("--clinical", help="survival: columns of the labels; repeatable. [default: all]")] = None,
        columns: Annotated[Path | None, typer.Option("--columns", metavar="CSV", help="survival: more columns by patient, such as radiomics.")] = None,
        method: Annotated[str, typer.Option("--method", help="survival: cox, deepsurv, discrete, or attention (over tiles).")] = "cox",
        tiles_of: Annotated[str, typer.Option("--tiles-of", metavar="PIPELINE", help="attention: whose tile features.")] = "sts-subtype",
        select: Annotated[str, typer.Option("--select", help="survival: mrmr or lasso, inside each fold.")] = "",
        penalty: Annotated[float | None, typer.Option("--penalty", min=0, help="survival: ridge. [default: chosen inside each fold]")] = None,
        groups: Annotated[int, typer.Option("--groups", help="survival: 2 risk groups (median) or 3 (tertiles).")] = 2,
        horizon: Annotated[list[float] | None, typer.Option("--horizon", help="survival: months; repeatable. [default: 12 36 60]")] = None,
        by_site: Annotated[bool, typer.Option("--by-site", help="survival: validate with each site left out, instead of folds.")] = False,
        outcome: Annotated[str, typer.Option("--outcome", help="survival: a yes/no column of the labels instead of times.")] = "",
        by_months: Annotated[float | None, typer.Option("--by-months", help="survival: did it happen by then, yes or no?")] = None,
        condition: Annotated[str, typer.Option("--condition", metavar="PIPELINE=CLASS", help="survival: for slides of this call only.")] = "",
        epochs: Annotated[int, typer.Option("--epochs", min=1)] = 12,
        mpp: Annotated[float | None, typer.Option("--mpp", help="µm/px to train at. [default: 0.5, mitosis 0.25]")] = None,
        per_slide: Annotated[int, typer.Option("--per-slide", min=1, help="Tiles drawn from each slide.")] = 200,
        seed: Annotated[int, typer.Option("--seed")] = 0,
        device: Annotated[str, typer.Option("--device")] = "cpu",
    ) -> None:
        """Train a model; patients are never on both sides of a split.

        Labels: classifiers path,label,patient (and mpp, split); mitosis path,patient,x,y,label (level-0 px; label mitosis or lookalike; a slide without
        figures has an empty x); survival patient, time_months (or time_days, time_years), event, and clinical columns (and endpoint, competing, site).

        \b
        Example: wsikit train sts-subtype --labels labels.csv -o my-sts/
        Example: wsikit train survival --labels patients.csv --endpoint OS --features out/ --feature mitosis.per_mm2 -o my-risk/
        """
        from wsikit.errors import UsageError
        from wsikit.resolution import MAX_MPP, MIN_MPP, is_believable
        from wsikit.run.job import check_device
        from wsikit.train import tasks

        if task not in TASKS:
            raise UsageError(f"task '{task}': there are {', '.join(TASKS)}")
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(f"{out}: is there already and not an empty folder; choose a new one with -o")
        if mpp is not None and not is_believable(mpp):
            raise UsageError(f"--mpp {mpp:g}: µm/px must be {MIN_MPP} to {MAX_MPP}")
        check_device(device)
        options: dict[str, Any] = {"seed": seed, "log": typer.echo}
        if task == "survival":
            if (features is None and not (clinical or columns)) or (features is not None and not feature and method != "attention"):
                raise UsageError("survival needs --features DIR (a run with a patient column) and at least one --feature NAME; or --clinical NAME alone")
            how: dict[str, Any] = {"method": method, "tiles_of": tiles_of, "select": select, "penalty": penalty, "groups": groups, "by_site": by_site}
            how |= {"clinical": clinical, "columns": columns, "outcome": outcome, "by_months": by_months, "condition": condition}
            how |= {"horizons": horizon} if horizon else {}
            card = tasks.survival(labels, out, features, feature or [], endpoint, **how, **options)
            typer.echo(f"{card.name}: written to {out}; figures, curves and the nomogram are in {out / 'training'}")
            return
        if task == "mitosis":
            card = tasks.mitosis(labels, out, mpp or 0.25, epochs=epochs, device=device, **options)
        else:
            card = tasks.subtype(task, labels, out, mpp or 0.5, epochs=epochs, per_slide=per_slide, device=device, **options)
        typer.echo(f"{card.name}: written to {out}; validation: {card.metrics}")
