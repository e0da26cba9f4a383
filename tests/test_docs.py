"""What the pages tell people to type exists: every command line is parsed, every piece of Python is run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
import typer

from wsikit.cli.main import app

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    p.relative_to(ROOT) for p in (*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "pipelines").glob("*.toml"))
)
COMMAND = re.compile(r"^(?:\$ |#   )(?:.*\buv run )?wsikit (.*)$", re.M)
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
COMMENT = re.compile(r"\s{2,}#.*|\s+# .*")


def commands() -> list[tuple[str, str]]:
    return [(str(page), COMMENT.sub("", line)) for page in PAGES for line in COMMAND.findall((ROOT / page).read_text())]


def parse(command: Any, arguments: list[str], parent: Any = None) -> None:
    """As the command line would, without doing it."""
    context = command.make_context(command.name, list(arguments), parent=parent)
    if hasattr(command, "commands"):
        _, below, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        parse(below, rest, context)


def test_there_are_pages_with_commands() -> None:
    found = commands()
    assert len(found) > 40
    assert {line.split()[0] for _, line in found} >= {"demo", "score", "doctor", "verify", "train", "evaluate", "export", "view", "bench"}


@pytest.mark.parametrize(("page", "line"), sorted(set(commands())), ids=lambda v: v)
def test_every_command_can_be_typed(page: str, line: str) -> None:
    parse(typer.main.get_command(app), shlex.split(line))


def test_an_option_that_is_not_there_is_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):
        parse(typer.main.get_command(app), ["score", "a.svs", "-o", "out/", "--nosuch"])


@pytest.mark.parametrize("page", [p for p in PAGES if p.parts[0] == "docs" and p.name != "index.md" and PYTHON.search((ROOT / p).read_text())], ids=str)
def test_the_python_runs(page: Path, phantom: Any, scored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    Path("lms.tif").symlink_to(phantom.path)
    Path("lms.truth.json").symlink_to(phantom.path.with_suffix(".truth.json"))
    for name in ("out", "out-lms"):
        Path(name).symlink_to(scored.folder)
    for code in PYTHON.findall((ROOT / page).read_text()):
        exec(compile(code, str(page), "exec"), {"__name__": "page"})


def test_the_readmes_python_runs(phantom: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    Path("a.svs").symlink_to(phantom.path)
    (code,) = PYTHON.findall((ROOT / "README.md").read_text())
    exec(compile(code, "README.md", "exec"), {"__name__": "page"})


@pytest.mark.parametrize("page", [p for p in PAGES if p.suffix == ".md"], ids=str)
def test_links_between_files_lead_somewhere(page: Path) -> None:
    made = {"cli.md", "models.md", "notebooks.md", "api.md"}  # by mkdocs.yml's hooks; MkDocs checks all links of the site
    for link in re.findall(r"\]\(([^)#\s:]+)[)#]", (ROOT / page).read_text()):
        assert Path(link).name in made or ((ROOT / page).parent / link).exists(), f"{page}: {link}"
