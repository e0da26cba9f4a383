"""``wsikit tile``: slides → stain-normalised OME-Zarr."""

from __future__ import annotations

from typing import Annotated

import typer

from wsikit.cli.options import (
    AnyStain,
    Cluster,
    CopyTo,
    Device,
    ExpectSha256,
    FocalPlane,
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
    def tile(
        context: typer.Context,
        inputs: Slides,
        out: Out,
        mpp: Annotated[float, typer.Option("--mpp", help="µm/px of the stored pixels.")] = 0.5,
        tile_px: Annotated[int, typer.Option("--tile", help="Side of a tile and of a stored chunk, px.")] = 256,
        overlap: Annotated[int, typer.Option("--overlap", help="Overlap of the tiles in tables/tiles, px; stored pixels never overlap.")] = 0,
        stain: Stain = "macenko",
        stain_target: StainTarget = None,
        icc: Icc = "keep",
        focal_plane: FocalPlane = None,
        reader: ReaderName = None,
        any_stain: AnyStain = False,
        max_damaged: MaxDamaged = 0.0,
        codec: Annotated[str, typer.Option("--codec", help="Pixel codec: zstd:LEVEL (lossless) or jpeg:QUALITY.")] = "zstd:1",
        mpp_override: MppOverride = None,
        expect_sha256: ExpectSha256 = None,
        workers: Workers = None,
        scheduler: Scheduler = None,
        tls: Tls = None,
        cluster: Cluster = None,
        memory: Memory = None,
        copy_to: CopyTo = None,
        device: Device = "cpu",
        as_json: Json = False,
    ) -> int:
        """Turn slides into stain-normalised, sharded OME-Zarr.

        Example: wsikit tile a.svs -o out/ --mpp 0.5 --tile 256
        """
        from wsikit.run import tile_slides
        from wsikit.run.job import Pixels

        pixels = Pixels(mpp=mpp, tile_px=tile_px, overlap_px=overlap, codec=codec)
        options = given(context)
        return run_and_report(
            lambda **more: tile_slides(inputs, out, pixels=pixels, workers=workers, scheduler=scheduler, **options, **more), inputs, as_json, mpp_override
        )
