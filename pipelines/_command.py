"""What the scripts here share: slides and a folder from the command line, scored as the TOML file beside the script says."""

from __future__ import annotations

import argparse
from pathlib import Path

import wsikit as wk


def score_asked(about: str, config: Path) -> wk.Run:
    """Score the slides that the command line names, and say which could not be."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slides", nargs="+", help="slides, folders, or CSVs with a column path (and patient, mpp)")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=None)
    asked = parser.parse_args()
    run = wk.score(asked.slides, asked.out, [config], workers=asked.workers)
    for slide_id, reason in run.failed.items():
        print(f"left out: {slide_id}: {reason}")
    return run
