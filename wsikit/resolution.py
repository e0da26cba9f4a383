"""How many micrometres is a pixel, and who says so? The cascade, and what is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

MIN_MPP, MAX_MPP = 0.05, 20.0
OBJECTIVE_UM = 10.0  # µm/px × objective power: 40× scans are about 0.25, 20× about 0.5
APPROXIMATE = "objective (approximate)"
AGREES = 1.6  # makers' 40x scans lie between 0.22 and 0.26 µm/px; another objective's are twice that or half
_WIDE_CAMERAS = ("mirax",)  # its 20x scans have 0.23 µm/px
_THOUSANDS_OR_DECIMALS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
ADVICE = "pass --mpp-override, or an mpp column in the CSV (for train and evaluate, in the labels)"


@dataclass(frozen=True, slots=True)
class Clue:
    """What one part of a file says about its resolution: µm/px along x and y, as it stands there."""

    source: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Resolution:
    """The mpp that was believed (None when none was), where it came from, and why not."""

    mpp: tuple[float, float] | None
    source: str
    refusal: str = ""


def is_believable(mpp: float) -> bool:
    """Whether a microscope slide can have this many µm per px.

    >>> [is_believable(v) for v in (0.25, 0.0, -1.0, float("nan"), 1e308)]
    [True, False, False, False, False]
    """
    return math.isfinite(mpp) and MIN_MPP <= mpp <= MAX_MPP


def parse_number(text: object) -> float | None:
    """A number as scanners write it (``0,499`` too), or None where there is none, or nobody can tell which (see `is_ambiguous`).

    >>> parse_number("0,499"), parse_number("about 20"), parse_number("1_0"), parse_number("1,234")
    (0.499, None, None, None)
    """
    if is_ambiguous(text):
        return None
    try:
        # Python reads 1_0 as 10, which nobody means
        return float(str(text).strip().replace(",", ".").replace("_", "?"))
    except ValueError:
        return None


def is_ambiguous(text: object) -> bool:
    """Whether a number is a thousand times larger to some people than to others.

    >>> is_ambiguous("1,234"), is_ambiguous("1,5"), is_ambiguous("0,499")
    (True, False, False)
    """
    return _THOUSANDS_OR_DECIMALS.fullmatch(str(text).strip()) is not None


def choose_mpp(clues: Sequence[Clue], objective: float | None, override: float | None = None, override_source: str = "override") -> Resolution:
    """Which mpp holds: an override, else the first clue, else the objective's, else none.

    A stated value that no slide can have is not passed over for a weaker clue: the file contradicts
    itself, and the slide is refused until a person says.
    """
    if override is not None:
        if not is_believable(override):
            return Resolution(None, "", f"the mpp given ({override_source}) is {override:g}, which is outside {MIN_MPP}–{MAX_MPP}; {ADVICE}")
        return Resolution((override, override), override_source)
    if clues:
        clue = clues[0]
        if is_believable(clue.x) and is_believable(clue.y):
            return Resolution((clue.x, clue.y), clue.source)
        return Resolution(None, "", f"by its {clue.source} the slide has {clue.x:g} × {clue.y:g} µm/px, which is outside {MIN_MPP}–{MAX_MPP}; {ADVICE}")
    if objective and is_believable(OBJECTIVE_UM / objective):
        approximate = OBJECTIVE_UM / objective
        return Resolution((approximate, approximate), APPROXIMATE)
    return Resolution(None, "", f"the file states no resolution (mpp); {ADVICE}")


def contradiction(resolution: Resolution, objective: float | None, vendor: str = "") -> str:
    """What is odd between mpp and objective: empty when they agree, when one is missing, or for makers that adapt their cameras.

    >>> contradiction(Resolution((0.5, 0.5), "file metadata"), 40)
    'an objective of 40x makes about 0.25 µm/px, the slide has 0.5 (file metadata): check which is right'
    """
    if resolution.mpp is None or resolution.source == APPROXIMATE or not objective or not objective > 0 or vendor in _WIDE_CAMERAS:
        return ""
    expected, found = OBJECTIVE_UM / objective, math.sqrt(resolution.mpp[0] * resolution.mpp[1])
    if expected / AGREES <= found <= expected * AGREES:
        return ""
    return f"an objective of {objective:g}x makes about {expected:.3g} µm/px, the slide has {found:.4g} ({resolution.source}): check which is right"
