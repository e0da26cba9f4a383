"""What a benchmark is made of: cases, the floors under them, and how large everything is in this run.

A job is a module of ``jobs/`` (or of this folder) with a function ``cases(setup)`` that returns its cases, and perhaps ``targets(figures)``, which compares
what was measured with what was promised. What a case does is a function ``module:function``, a context manager that takes a `task.Task`, sets up what is not
timed, and gives the work to time; the work returns how much it did, in the case's unit (``MPx``: in level-0 px).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

SCALE = {"MPx": 1e6}  # what the work counts, per unit


@dataclass(frozen=True)
class Floor:
    """Work that a case cannot do without, measured alone by the case of this stage and name in the same run.

    ``times`` it is needed for one unit of the case; ``resource`` says what does it: while the processor works on one block, the disk takes another.
    ``cores`` are those of the floor's case, by default as many as the case itself has.
    """

    stage: str
    who: str
    resource: Literal["processor", "disk"] = "processor"
    times: float = 1.0
    cores: int | None = None


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes
    ----------
    stage, who : what it is and who does it; with ``cores`` and the slide they name the case
    function : ``module:function``
    take : tiles to work on, None for all of the slide; slow peers get fewer
    peer : whose environment it runs in, a name of `runs.PEERS`; none is wsikit's
    slide : ``mosaic``, ``phantom``, or none
    unit : of its rate, a second
    floors : what it cannot be faster than
    """

    stage: str
    who: str
    function: str
    cores: int = 1
    take: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    peer: str = ""
    slide: str = ""
    unit: str = "MPx"
    floors: tuple[Floor, ...] = ()

    @property
    def name(self) -> str:
        """As the table, the JSON and ``--only`` call it."""
        slide = f", {self.slide}" if self.slide else ""
        return f"{self.stage}: {self.who}, {self.cores} core{'s' if self.cores > 1 else ''}{slide}"


@dataclass(frozen=True)
class Setup:
    """How large a run is: cores that there are, the side of wsikit's blocks on the mosaic, and whether it only shows that everything works."""

    cores: int
    block_px: int
    quick: bool = False

    @property
    def counts(self) -> list[int]:
        """Numbers of cores to measure at."""
        return sorted({1, min(2, self.cores), self.cores})
