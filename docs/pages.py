"""Pages that MkDocs makes from the code at build time, so that no copy can grow old: a hook of mkdocs.yml."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
# Files that lie elsewhere in the repository, where people and code hosts look for them, and their place on the site
ELSEWHERE = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "performance.md",
    "benchmarks/RESULTS.md": "figures.md",
}
LINK = re.compile(r"(?<=\]\()([^)#\s:]+)(?=[)#])")
HELP_COLUMNS = 110


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    made = {"cli.md": command_line(), "models.md": model_cards(), "notebooks.md": notebooks()}
    made |= {page: (ROOT / path).read_text() for path, page in ELSEWHERE.items()}
    made["figures.md"], plots = with_plots(made["figures.md"])
    for name, content in (made | plots).items():
        files.append(File.generated(config, name, content=content))
    return files


def with_plots(page: str) -> tuple[str, dict[str, bytes]]:
    """The page of measured figures with plots of each job's JSON above its table, and those plots."""
    sys.path.append(str(ROOT / "benchmarks"))
    from pictures import draw

    plots: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted((ROOT / "benchmarks/results").glob("*.json")):
            drawn = {f"figures-{p.name}": p.read_bytes() for p in draw(json.loads(path.read_bytes()), Path(folder))}
            pictures = "\n\n".join(f"![{name.removesuffix('.png')}]({name})" for name in drawn)
            page = page.replace(f"## {path.stem}\n", f"## {path.stem}\n\n{pictures}\n", 1)
            plots |= drawn
    return page, plots


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links between files of the repository become links between pages; what has no page (code) becomes its path in words."""
    source = next((path for path, name in ELSEWHERE.items() if name == page.file.src_uri), f"docs/{page.file.src_uri}")

    def on_site(link: re.Match[str]) -> str:
        path = os.path.normpath(Path(source).parent / link[1])
        target = ELSEWHERE.get(path, path.removeprefix("docs/") if path.startswith("docs/") else "")
        return os.path.relpath(target, Path(page.file.src_uri).parent) if target else link[1]

    return LINK.sub(on_site, markdown)


def command_line() -> str:
    """What ``--help`` says of every verb."""
    import typer

    from wsikit.cli.main import app

    os.environ["COLUMNS"] = str(HELP_COLUMNS)
    parts = ["# Command line\n", "What `--help` prints, of every verb. Exit codes: 0 all good, 1 some slides failed (each is named, with its reason), "
             "2 wrong usage or nothing could be done, 130 interrupted (what is done is kept).\n"]  # fmt: skip
    for path, text in _helps(typer.main.get_command(app), None, "wsikit"):
        parts.append(f"{'#' * min(3, 1 + len(path.split()))} {path}\n\n```text\n{text.strip()}\n```\n" if " " in path else f"```text\n{text.strip()}\n```\n")
    return "\n".join(parts)


def _helps(command: Any, parent: Any, name: str) -> Iterator[tuple[str, str]]:
    context = command.context_class(command, info_name=name, parent=parent, terminal_width=HELP_COLUMNS, max_content_width=HELP_COLUMNS)
    yield context.command_path, command.get_help(context)
    for verb, below in getattr(command, "commands", {}).items():
        yield from _helps(below, context, verb)


def _trained_on(card: Any) -> str:
    known = {"slides": card.trained_on.slides, "patients": card.trained_on.patients}
    return ", ".join(f"{n} {name}" for name, n in known.items() if n)


def model_cards() -> str:
    """Every bundled model, from its card."""
    from wsikit.models import BUNDLED, read_card

    cards = [read_card(path.parent) for path in sorted(BUNDLED.glob("*/card.json"))]
    out = [
        "# Models\n",
        "The cards of the models that come with wsikit, as `wsikit models show NAME` prints them. `wsikit models list` has those of your machine.\n",
    ]
    for card in cards:
        size = sum((BUNDLED / card.name / name).stat().st_size for name in card.files) / 1e6
        where = f"{card.tile_px} px tiles at {card.mpp:g} µm/px, stain `{card.stain}`" if card.task != "risk" else "results of the other pipelines"
        facts = {
            "pipeline": f"`{card.pipeline}` ({card.task})",
            "classes": ", ".join(card.classes) or "–",
            "network": f"`{card.architecture.get('name', 'none: coefficients')}`, {size:.1f} MB",
            "sees": where,
            "trained on": f"{card.trained_on.domain}: {card.trained_on.description} ({_trained_on(card)})",
            "not for": card.limitations,
            "licence": card.licence,
            "digest": f"`{card.digest[:16]}…`",
        }
        rows = "\n".join(f"| {k} | {str(v).replace('|', '¦')} |" for k, v in facts.items())
        figures = json.dumps(card.metrics, indent=1, ensure_ascii=False)
        out.append(f'## {card.name}\n\n| | |\n|---|---|\n{rows}\n\n??? note "Figures, as in the card"\n\n' + _indented(f"```json\n{figures}\n```") + "\n")
    return "\n".join(out)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def notebooks() -> str:
    """Each notebook with its first words."""
    out = ["# Notebooks\n", "In the folder `notebooks/`, without outputs: the tests run each from top to bottom, on slides that are made up as they run. "
           "Open them with `uv run --with jupyterlab jupyter lab notebooks/`.\n"]  # fmt: skip
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        title, _, text = "".join(json.loads(path.read_text())["cells"][0]["source"]).partition("\n")
        out.append(f"## {title.removeprefix('# ')}\n\n`notebooks/{path.name}`\n\n{text.strip()}\n")
    return "\n".join(out)
