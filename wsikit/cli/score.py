"""``wsikit score``: slides → calls, detections, risk, overlays."""

from __future__ import annotations

from typing import Annotated

import typer

from wsikit.cli.options import (
    AnyStain,
    Cluster,
    CopyTo,
    Device,
    Engine,
    ExpectSha256,
    Explain,
    FieldDiameter,
    Fields,
    FocalPlane,
    Grading,
    HotspotArea,
    HotspotShape,
    Icc,
    MaxDamaged,
    Memory,
    MppOverride,
    Out,
    ReaderName,
    Scheduler,
    Slides,
    Stain,
    StainTarget,
    Tls,
    Workers,
    given,
    run_and_report,
)
from wsikit.cli.output import Json


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def score(
        context: typer.Context,
        inputs: Slides,
        out: Out,
        pipeline: Annotated[
            list[str] | None,
            typer.Option("--pipeline", help="A name of wsikit pipelines, or a TOML file; repeatable. [default: all that have a model]"),
        ] = None,
        model: Annotated[list[str] | None, typer.Option("--model", help="PIPELINE=MODEL, a name or a folder; repeatable.")] = None,
        mpp_override: MppOverride = None,
        expect_sha256: ExpectSha256 = None,
        within: Annotated[str, typer.Option("--within", metavar="PIPELINE", help="Confine calls and mitoses to a region, such as tumour.")] = "",
        explain: Explain = None,
        keep_tiles: Annotated[bool, typer.Option("--keep-tiles", help="Keep the stain-normalised pixels.")] = False,
        upsample: Annotated[bool, typer.Option("--upsample", help="Enlarge slides that are coarser than a model needs.")] = False,
        stain: Stain = "macenko",
        stain_target: StainTarget = None,
        icc: Icc = "keep",
        focal_plane: FocalPlane = None,
        reader: ReaderName = None,
        any_stain: AnyStain = False,
        max_damaged: MaxDamaged = 0.0,
        hotspot_area: HotspotArea = None,
        hotspot_shape: HotspotShape = None,
        field_diameter: FieldDiameter = None,
        fields: Fields = None,
        grading: Grading = None,
        workers: Workers = None,
        scheduler: Scheduler = None,
        tls: Tls = None,
        cluster: Cluster = None,
        memory: Memory = None,
        copy_to: CopyTo = None,
        device: Device = "cpu",
        engine: Engine = "auto",
        as_json: Json = False,
    ) -> int:
        """Score slides: calls, mitoses per mm², risk and overlays. Running it again resumes.

        \b
        Example: wsikit score a.svs -o out/
        Example: wsikit score cases.csv -o out/ --pipeline sts-subtype --pipeline mitosis --model mitosis=my-model/
        Example: wsikit score cases.csv -o out/ --pipeline pipelines/all.toml
        Example: wsikit score a.svs -o out/ --pipeline sts-subtype --explain sts-subtype --keep-tiles
        Example: wsikit score a.svs -o out/ --pipeline mitosis --field-diameter 0.55 --fields 10 --hotspot-shape fields --grading fnclcc
        """
        from wsikit.aggregate.counting import parse_counting
        from wsikit.run import score as start

        models = parse_models(model or [])
        how = {"area_mm2": hotspot_area, "shape": hotspot_shape, "field_mm": field_diameter, "fields": fields, "grading": grading, "within": within or None}
        counting = parse_counting(**how) if any(v is not None for v in how.values()) else None
        options = given(context) | ({"counting": counting} if counting is not None else {})
        return run_and_report(
            lambda **more: start(inputs, out, pipeline, models=models, keep_tiles=keep_tiles, workers=workers, scheduler=scheduler, **options, **more),
            inputs, as_json, mpp_override,
        )  # fmt: skip


def parse_models(given: list[str]) -> dict[str, str]:
    """``PIPELINE=MODEL`` pairs.

    Raises
    ------
    UsageError
        One has no ``=``.
    """
    from wsikit.errors import UsageError

    for item in given:
        if "=" not in item:
            raise UsageError(f"--model {item}: write PIPELINE=MODEL, such as mitosis=my-model/")
    return dict(item.split("=", 1) for item in given)
