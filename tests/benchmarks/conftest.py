"""The benchmark's modules, which are scripts beside the package and not part of it."""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(FOLDER))  # last, so that nothing is hidden by it
