"""``wsikit cluster``: what workers on other machines need."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    sub = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Keys for workers on other machines; check a cluster's file.")

    @sub.command("init")
    def init(folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, on a disk that all machines see.", show_default=False)]) -> None:
        """Make the key and certificate of a cluster of one's own.

        Scheduler and workers prove themselves with them: who can read the folder can use the cluster.

        Example: wsikit cluster init ~/.config/wsikit/tls
        """
        from wsikit.run.tls import make_tls

        for what, file in make_tls(folder).items():
            typer.echo(f"{what}: {file}")
        typer.echo('name the folder in the cluster\'s file: tls = "…"')

    @sub.command("check")
    def check(file: Annotated[Path, typer.Argument(metavar="FILE", help="A cluster's TOML file.", show_default=False)]) -> None:
        """Check a cluster's file, and print the script that a job would run.

        Example: wsikit cluster check pipelines/archive_slurm.toml
        """
        from wsikit.run.cluster import read_cluster
        from wsikit.run.engine import job_script

        typer.echo(job_script(read_cluster(file)))

    app.add_typer(sub, name="cluster")
