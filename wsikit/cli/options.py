"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer


def given_path(text: str) -> Path:
    """A path or address as typed; pathlib would take an empty one, as a shell leaves it of an unset variable, for the current folder."""
    if not text.strip():
        raise typer.BadParameter("a path is empty; give a file, a folder ('.' for this one) or a CSV")
    return Path(text)


_WHAT = "Slide files, folders, addresses (s3://, gs://, https://), or CSVs with a column 'path' (and patient, mpp, …)."
Slides = Annotated[list[Path], typer.Argument(help=_WHAT, show_default=False, parser=given_path, metavar="SLIDE")]
Out = Annotated[Path, typer.Option("-o", "--out", help="The run's folder; running again into it resumes.", show_default=False)]
Workers = Annotated[
    int | None, typer.Option("--workers", help="Worker processes on this machine; 0 works in this process. [default: one per GPU or core, at most 8]", min=0)
]
Scheduler = Annotated[str | None, typer.Option("--scheduler", help="Address of a running dask scheduler, tcp://host:port.")]
Cluster = Annotated[Path | None, typer.Option("--cluster", help="A batch system starts the workers: a TOML file such as pipelines/archive_slurm.toml.")]
Tls = Annotated[Path | None, typer.Option("--tls", help="Folder of wsikit cluster init, for a --scheduler at tls://host:port.")]
Memory = Annotated[str | None, typer.Option("--memory", help="Most memory of all processes together, such as 16GiB: fewer workers, then smaller blocks.")]
CopyTo = Annotated[str | None, typer.Option("--copy-to", help="Copy each finished slide to an object store as well, such as s3://bucket/run.")]
ReaderName = Annotated[str | None, typer.Option("--reader", help="Read all slides with this one, such as cucim. [default: the best for each file]")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda or mps.")]
Engine = Annotated[str, typer.Option("--engine", help="Of classifiers on a CPU: auto, torch, openvino or openvino-bf16; what ran is in the results.")]
Explain = Annotated[
    list[str] | None,
    typer.Option(
        "--explain", metavar="PIPELINE[=CLASS,…]", help="Draw what of a classifier's tiles speaks for its classes, or these: Grad-CAM; repeatable, also later."
    ),
]
MppOverride = Annotated[float | None, typer.Option("--mpp-override", help="µm/px of level 0, over what the files say (a CSV's mpp column goes first).")]
AnyStain = Annotated[bool, typer.Option("--any-stain", help="Take slides whose tissue is brown too: pigment, or immunohistochemistry.")]
MaxDamaged = Annotated[
    float,
    typer.Option(
        "--max-damaged", help="Share of tissue, such as 0.001, to leave out where a slide cannot be decoded. [default: none]", min=0, show_default=False
    ),
]
Icc = Annotated[str, typer.Option("--icc", help="Colour profiles of slides: keep (pixels as stored) or srgb (applied, where a slide has one).")]
FocalPlane = Annotated[str | None, typer.Option("--focal-plane", help="Which plane of slides with several, by its name in wsikit info. [default: the middle]")]
ExpectSha256 = Annotated[str | None, typer.Option("--expect-sha256", help="What the one slide's SHA-256 must be; for several, a CSV's expect_sha256 column.")]
Stain = Annotated[
    str, typer.Option("--stain", help="Stain of kept pixels and pictures: macenko, vahadane, reinhard or none. Models see the one that their card names.")
]
StainTarget = Annotated[
    Path | None, typer.Option("--stain-target", help="An image or slide whose colours kept pixels and pictures take, instead of the reference's.")
]

HotspotArea = Annotated[float | None, typer.Option("--hotspot-area", help="mm² that the densest window of mitoses has. [default: the model's, mostly 2.0]")]
HotspotShape = Annotated[str | None, typer.Option("--hotspot-shape", help="square, 4:3, circle, or fields (consecutive round ones). [default: square]")]
FieldDiameter = Annotated[float | None, typer.Option("--field-diameter", help="mm across a microscope's field; the area is that of --fields of them.")]
Fields = Annotated[int | None, typer.Option("--fields", help="How many fields. [default: 10]")]
Grading = Annotated[
    list[str] | None,
    typer.Option("--grading", help="Mitotic score in its own area, of that shape: fnclcc, uterine-spindle, uterine-epithelioid; repeatable. No grade."),
]


def run_and_report(start: Any, inputs: list[Path], as_json: bool, mpp_override: float | None) -> int:
    """Run with progress, print the summary, and return the exit code.

    ``start`` takes ``on_progress`` and returns a `wsikit.run.Run`.
    """
    from wsikit.cli.main import NOT_DONE, OK, SOME_FAILED
    from wsikit.cli.output import show_json
    from wsikit.cli.progress import RunProgress
    from wsikit.run.cases import find_cases

    with RunProgress(len(find_cases(inputs, mpp_override))) as progress:
        run = start(on_progress=progress)
    failed = run.failed
    if as_json:
        show_json({"folder": str(run.folder), "ok": len(run.results) - len(failed), "failed": failed, "answers": run.answers})
    else:
        typer.echo(f"{len(run.results) - len(failed)} of {len(run.results)} slides done; results in {run.folder / 'slides.csv'}")
        for slide_id, reason in failed.items():
            typer.echo(f"  failed: {slide_id}: {reason}")
        for line in _withheld(run):
            typer.echo(f"  {line}")
        for name, licence in _licences(run).items():
            typer.echo(f"  model {name} is from elsewhere; its licence: {licence}")
    if failed:
        return NOT_DONE if len(failed) == len(run.results) else SOME_FAILED
    return OK


def _withheld(run: Any) -> Iterator[str]:
    """A line for each pipeline that did not answer for every slide: a slide that is done may be one without any answer."""
    for name, statuses in run.answers.items():
        n, answered = sum(statuses.values()), statuses.get("ok", 0)
        if n > answered:
            told = ", ".join(f"{status} {k}" for status, k in statuses.items() if status != "ok")
            yield f"{name}: answers for {answered} of {n}; {told}{', such as' if n - answered > 1 else ''}: {run.withheld[name]}"


def _licences(run: Any) -> dict[str, str]:
    """Licences of the run's models that were made elsewhere, by the model's name."""
    done: Any = next((r for r in run.results.values() if r["status"] == "ok"), {"pipelines": {}})
    models = [p["model"] for p in done["pipelines"].values()]
    return {m["name"]: m["licence"] for m in models if "licence" in m}


def given(context: typer.Context) -> dict[str, Any]:
    """The run's options that were typed, by the names of `wsikit.run.settings.Settings`; what was not typed is not there."""
    from wsikit.cli.main import settings
    from wsikit.run.settings import Settings

    typed = {k: v for k, v in context.params.items() if k in Settings.model_fields and "DEFAULT" not in str(context.get_parameter_source(k))}
    return typed | {"debug": settings["debug"]}
