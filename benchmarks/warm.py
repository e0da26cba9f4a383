"""Fetch back what the system has put away, right before the clock starts: the slide's bytes, and free memory.

Virtual machines hand free memory back to their host within seconds, and a fresh page then costs a hundred times what it costs otherwise;
they also forget files that were not read for a while. Neither is what a benchmark of readers is about.
"""

import sys
from pathlib import Path

import numpy as np

BYTES = 2**31


def main() -> None:
    """Read the file of the first argument, and write to free memory once."""
    np.ones(BYTES // 8)
    with Path(sys.argv[1]).open("rb") as f:
        while f.read(2**24):
            pass


if __name__ == "__main__":
    main()
