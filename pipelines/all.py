"""Everything in one pass, then a page for each slide and one for the run.

    uv run python pipelines/all.py cases.csv -o out/

On the command line: wsikit score cases.csv -o out/ --pipeline pipelines/all.toml && wsikit report out/
"""

from __future__ import annotations

import argparse
from pathlib import Path

import wsikit as wk
from wsikit.report import write_reports

CONFIG = Path(__file__).with_suffix(".toml")


def main() -> None:
    """Score, then write the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slides", nargs="+", help="slides, folders, or CSVs with a column path (and patient, mpp)")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=None)
    asked = parser.parse_args()
    run = wk.score(asked.slides, asked.out, [CONFIG], workers=asked.workers)
    for slide_id, reason in run.failed.items():
        print(f"left out: {slide_id}: {reason}")
    print(f"open {write_reports(run.folder)}")
    print(wk.RESEARCH_USE_ONLY)


if __name__ == "__main__":  # worker processes import this file
    main()
