"""How the command line presents itself: help, version, usage errors, exit codes, and what it must not load."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import pytest

from wsikit import RESEARCH_USE_ONLY
from wsikit.cli import main as cli_main

VERBS = [
    "demo",
    "info",
    "doctor",
    "tile",
    "score",
    "aggregate",
    "view",
    "review",
    "export",
    "report",
    "train",
    "evaluate",
    "pipelines",
    "calibrate",
    "models",
    "verify",
    "diff",
    "cluster",
    "bench",
]
PROMISED = {  # the options that scripts rely on
    "demo": ["-o"],
    "info": ["--json"],
    "doctor": ["--json"],
    "tile": ["-o", "--mpp", "--tile", "--stain", "--codec", "--overlap", "--json"],
    "score": ["-o", "--pipeline", "--model", "--mpp-override", "--keep-tiles", "--workers", "--scheduler", "--device", "--json"],
    "view": ["--screenshot"],
    "review": ["--apply", "--by", "--labels", "--json"],
    "export": ["--to"],
    "train": ["--labels", "-o"],
    "evaluate": ["--labels", "--json"],
    "verify": ["--json"],
    "bench": ["--json"],
    "models list": ["--json"],
    "models show": ["--json"],
    "models verify": ["--json"],
}
GROUPS = {"models": ("list", "show", "add", "verify", "export"), "cluster": ("init", "check")}
EVERY = [*(v for v in VERBS if v not in GROUPS), *(f"{group} {v}" for group, verbs in GROUPS.items() for v in verbs)]


def python(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, **more)


@pytest.mark.parametrize("verb", EVERY)
def test_every_verb_has_help_with_an_example(cli: Any, verb: str) -> None:
    answer = cli(*verb.split(), "--help")
    assert (answer.code, answer.err) == (0, "")
    assert f"Usage: wsikit {verb} " in answer.out
    lines = [line.strip() for line in answer.out.splitlines()]
    examples = [line for line in lines if line.startswith("Example: ")]
    assert examples
    for example in examples:
        assert f"wsikit {verb}" in example
    for option in PROMISED.get(verb, []):
        assert any(line.startswith((f"{option} ", f"{option}, ")) for line in lines), option


def test_the_help_lists_exactly_the_verbs_and_the_statement(cli: Any) -> None:
    answer = cli("--help")
    commands = answer.out.split("Commands:\n")[1].splitlines()
    assert sorted(line.split()[0] for line in commands) == sorted(VERBS)
    assert " ".join(answer.out.split()).count(RESEARCH_USE_ONLY) == 1
    assert set(VERBS) == set(cli_main.VERBS)


@pytest.mark.parametrize("group", [[], ["models"]])
def test_without_a_verb_the_help_goes_to_stderr(cli: Any, group: list[str]) -> None:
    answer = cli(*group)
    assert (answer.code, answer.out) == (2, "")
    assert "Commands:\n" in answer.err
    assert "wsikit: " not in answer.err


def test_version_and_module_and_entry_point() -> None:
    done = python("-m", "wsikit", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"wsikit {version('wsikit')}\n", "")
    (script,) = entry_points(group="console_scripts", name="wsikit")
    assert script.load() is cli_main.main
    assert python("-m", "wsikit", "--help").stdout.startswith("Usage: wsikit [OPTIONS]")


HEAVY = ("torch", "torchvision", "napari", "qtpy", "zarr", "distributed", "dask", "libreyolo", "tiatoolbox", "numpy", "pandas", "scipy", "skimage")


@pytest.mark.parametrize("program", ["import wsikit", "import wsikit.cli.main", "HELP", "SCORE_HELP"])
def test_starting_up_loads_nothing_heavy(program: str) -> None:
    calls = {"HELP": "['--help']", "SCORE_HELP": "['score', '--help']"}
    if program in calls:
        program = f"from wsikit.cli.main import main\ntry:\n    main({calls[program]})\nexcept SystemExit as e:\n    assert e.code == 0"
    done = python("-c", f"{program}\nimport sys\nprint([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)")
    assert done.stderr == "[]\n"


USAGE = {
    "nosuch": "No such command 'nosuch'; see wsikit --help",
    "--bogus": "No such option: --bogus; see wsikit --help",
    "models nosuch": "No such command 'nosuch'; see wsikit models --help",
    "info": "see wsikit info --help",
    "info a b": "see wsikit info --help",
    "info a --jsno": "--jsno",
    "score": "see wsikit score --help",
    "score a": "--out",
    "score a -o b --workers -1": "'--workers'",
    "score a -o b --workers two": "'--workers'",
    "score a -o b --mpp-override abc": "'--mpp-override'",
    "score a -o b --pipeline": "'--pipeline'",
    "tile a -o b --tile 1.5": "'--tile'",
    "export": "DIR",
    "export a": "--to",
    "train": "task",
    "train subtype --labels a": "--out",
    "train subtype --labels a -o b --epochs 0": "'--epochs'",
    "evaluate a": "--labels",
    "models show": "see wsikit models show --help",
}


@pytest.mark.parametrize("line", USAGE)
def test_wrong_usage_is_one_line_that_says_where_help_is(cli: Any, line: str) -> None:
    message = cli(*line.split()).error
    assert USAGE[line] in message
    assert "; see wsikit" in message
    assert message.endswith(" --help")


@pytest.mark.parametrize("arguments", [["--debug", "info", "nope.svs"], ["info", "nope.svs", "--debug"]])
def test_debug_shows_the_traceback_and_only_then(cli: Any, arguments: list[str]) -> None:
    answer = cli(*arguments)
    assert answer.code == 2
    assert "Traceback (most recent call last)" in answer.err
    assert answer.err.splitlines()[-1] == "wsikit: nope.svs: no such file; check the path"
    assert cli("info", "nope.svs").error == "nope.svs: no such file; check the path"


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "wsikit: interrupted; what is done is kept, run the same command again to go on"),
        (PermissionError(13, "Permission denied", "a.svs"), 2, "wsikit: a.svs: Permission denied; check the path and its permissions (--debug shows where)"),
        (ZeroDivisionError("two\nlines"), 2, "wsikit: ZeroDivisionError: two lines (run with --debug for the traceback, and please report it)"),
    ],
)
def test_what_nobody_foresaw_is_one_line_too(cli: Any, monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, line: str) -> None:
    def fails(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("wsikit.slide.admit", fails)
    answer = cli("info", "a.svs")
    assert (answer.code, answer.out, answer.err) == (code, "", line + "\n")


def test_the_real_program_says_one_line_and_leaves_with_2(tmp_path: Path) -> None:
    (tmp_path / "text.svs").write_text("note")
    done = python("-m", "wsikit", "info", "text.svs", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("wsikit: text.svs: this is a text file, not a slide; ")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_went_away_is_no_crash(small: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as out:
        done = subprocess.run([sys.executable, "-m", "wsikit", "info", str(small), "--json"], stdout=out, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode != 2
    assert done.stderr == ""
