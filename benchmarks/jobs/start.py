"""How long until something happens? Starting Python, importing the package, the command's help."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from case import Case, Floor, Setup
from task import Task
from verdict import Figures, Target

STAGE, FLOOR, PYTHON, NUMPY = "start", "floor", "python", "python, numpy"
IMPORT, HELP, INFO = "import wsikit", "wsikit --help", "import everything that scoring needs"
Work = Callable[[], int]


def cases(setup: Setup) -> list[Case]:
    """Each a new process; files are read from the page cache."""
    code = {PYTHON: "pass", NUMPY: "import numpy", IMPORT: "import wsikit", INFO: "import wsikit.run.block, wsikit.run.finish, wsikit.models.mitosis"}
    times = 1 if setup.quick else 5
    commands = {who: ["-c", c] for who, c in code.items()} | {HELP: ["-m", "wsikit", "--help"]}

    def case(who: str, command: list[str]) -> Case:
        stage = FLOOR if who in (PYTHON, NUMPY) else STAGE
        return Case(stage, who, "jobs.start:start", options={"command": command, "times": times}, unit="starts", floors=_floors(who))

    return [case(who, command) for who, command in commands.items()]


def _floors(who: str) -> tuple[Floor, ...]:
    return {IMPORT: (Floor(FLOOR, PYTHON),), HELP: (Floor(FLOOR, PYTHON),), INFO: (Floor(FLOOR, NUMPY),)}.get(who, ())


def targets(f: Figures) -> list[Target]:
    """What was promised of the first seconds."""
    return [
        Target("`import wsikit`, beyond Python's own start, < 0.3 s", 1 / f.rate(STAGE, IMPORT) - 1 / f.rate(FLOOR, PYTHON), 0.3, "s", at_most=True),
        Target("`wsikit --help` < 0.5 s", 1 / f.rate(STAGE, HELP), 0.5, "s", at_most=True),
    ]


@contextmanager
def start(task: Task) -> Iterator[Work]:
    """Processes started one after another, the first one not counted."""
    command = [sys.executable, *task.options["command"]]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def once() -> None:
        subprocess.run(command, check=True, capture_output=True, env=environment)

    def work() -> int:
        for _ in range(task.options["times"]):
            once()
        return int(task.options["times"])

    once()
    yield work
