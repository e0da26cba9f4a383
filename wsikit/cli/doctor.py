"""``wsikit doctor``: is the installation sound, and which slides of an archive will fail?"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from wsikit.cli.options import given_path
from wsikit.cli.output import Json, show_facts, show_json, show_table


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def doctor(
        paths: Annotated[list[Path] | None, typer.Argument(help="Slides, folders or CSVs to look at first.", parser=given_path)] = None,
        csv: Annotated[Path | None, typer.Option("--csv", help="Write the slides that can be scored, each once, as a CSV for wsikit score.")] = None,
        pipeline: Annotated[list[str] | None, typer.Option("--pipeline", help="Estimate for these; repeatable. [default: all that have a model]")] = None,
        model: Annotated[list[str] | None, typer.Option("--model", help="PIPELINE=MODEL, as for wsikit score.")] = None,
        mpp_override: Annotated[float | None, typer.Option("--mpp-override", help="µm/px of level 0, as for wsikit score.")] = None,
        no_estimate: Annotated[bool, typer.Option("--no-estimate", help="Leave out the measurement behind hours and disk.")] = False,
        processes: Annotated[int | None, typer.Option("--processes", min=1, help="Slides looked at at a time. [default: one per core, at most 8]")] = None,
        as_json: Json = False,
    ) -> int:
        """Check the installation, or an archive: what will fail, and why.

        Of an archive also tissue, duplicates, labels, hours and disk, from headers and a low-power picture only.

        \b
        Example: wsikit doctor
        Example: wsikit doctor archive/ --csv good.csv
        Example: wsikit doctor cases.csv --pipeline mitosis --json

        Exit code 0 when all slides can be scored, 1 when some cannot (a CSV of the others is written all the same).
        """
        from wsikit.errors import UsageError

        if not paths:
            if csv or pipeline or model or mpp_override is not None or no_estimate or processes:
                raise UsageError("these options are of an archive: name its slides, folders or CSVs; wsikit doctor alone checks the installation")
            return _installation(as_json)
        return _slides(paths, csv, None if no_estimate else (pipeline, model or []), mpp_override, processes, as_json)


def _installation(as_json: bool) -> int:
    from wsikit.cli.main import NOT_DONE, OK
    from wsikit.doctor.installation import installation, problems, self_test

    facts = installation() | {"self-test": self_test()}
    show_json(facts) if as_json else show_facts(facts)
    return NOT_DONE if problems(facts) else OK


def _slides(
    paths: list[Path], csv: Path | None, wanted: tuple[list[str] | None, list[str]] | None, mpp: float | None, processes: int | None, as_json: bool
) -> int:
    from wsikit.cli.main import OK, SOME_FAILED
    from wsikit.doctor.archive import look_at_all, write_cases
    from wsikit.run.cases import find_cases

    cases = find_cases(paths, mpp)
    with _Bar(len(cases)) as bar:
        rows = look_at_all(cases, bar, processes)
    expected = _estimate(rows, *wanted) if wanted and any(r["verdict"] == "ok" for r in rows) else None
    if csv is not None:
        n = write_cases(csv, rows)
        print(f"{n} of {len(rows)} slides in {csv}", file=sys.stderr)  # noqa: T201
    if as_json:
        show_json({"slides": [{k: v for k, v in r.items() if k != "mask"} for r in rows], "expected": expected})
    else:
        _show(rows, expected)
    return SOME_FAILED if any(r["verdict"] != "ok" for r in rows) else OK


def _estimate(rows: list[dict[str, Any]], pipelines: list[str] | None, models: list[str]) -> dict[str, Any]:
    from wsikit.cli.score import parse_models
    from wsikit.doctor.estimate import estimate, measure

    return estimate(rows, *measure(pipelines, parse_models(models)))


def _show(rows: list[dict[str, Any]], expected: Mapping[str, Any] | None) -> None:
    columns = ("slide_id", "reader", "mpp", "mpp_source", "size", "stain", "tissue_mm2", "label", "same as", "verdict")  # the long one last
    show_table(columns, [[_cells(r)[c] for c in columns] for r in rows])
    for r in rows:
        if r.get("patient_data"):
            typer.echo(f"{r['slide_id']}: may tell of a patient: {', '.join(r['patient_data'])}")
        for text in filter(None, [*r.get("warnings", []), r.get("note", "")]):
            typer.echo(f"{r['slide_id']}: {text}")
    good = sum(r["verdict"] == "ok" for r in rows)
    typer.echo(f"{good} of {len(rows)} slides can be scored, {_duplicates(sum(bool(r.get('duplicate_of')) for r in rows))}")
    if expected and expected["slides"]:
        _show_withheld(expected)
        tiles = ", ".join(f"{name} {n}" for name, n in expected["tiles"].items())
        typer.echo(f"expected with {expected['workers']} workers: {_time(expected['seconds'])}, {expected['gigabytes']:.3f} GB; tiles: {tiles}")
        typer.echo(f"  {expected['how']}")


def _duplicates(n: int) -> str:
    return f"{n or 'none'} of them {'is a duplicate' if n == 1 else 'are duplicates'}"


def _show_withheld(expected: Mapping[str, Any]) -> None:
    """Which pipelines will give no answer, though the slides can be scored."""
    n = expected["slides"]
    for name, slides in expected["too_coarse"].items():
        typer.echo(f"{name}: {slides} of {n} will be refused: coarser than its model needs (--upsample enlarges them)")
    for name, slides in expected["unknown_tissue"].items():
        typer.echo(f"{name}: {slides} of {n} will get no answer: the model at hand knows phantoms only; give one with --model {name}=FOLDER")


def _cells(r: Mapping[str, Any]) -> dict[str, Any]:
    size = f"{r['size'][0]} × {r['size'][1]}" if "size" in r else ""
    mpp = f"{r['mpp'][0]:.4g}" if r.get("mpp") else ""
    label = "" if "label" not in r else "yes" if r["label"] else "no"
    return {**{k: r.get(k, "") for k in ("slide_id", "reader", "mpp_source", "stain", "tissue_mm2")}} | {
        "verdict": r["verdict"].removeprefix(f"{r['path']}: "), "size": size, "mpp": mpp, "label": label, "same as": r.get("duplicate_of", ""),
    }  # fmt: skip


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class _Bar:
    """How many slides are looked at: a bar on a terminal, nothing elsewhere."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._bar: Any = None

    def __enter__(self) -> _Bar:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("looking at slides", total=self._total)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, _: dict[str, Any]) -> None:
        if self._bar is not None:
            self._bar.advance(self._task)
