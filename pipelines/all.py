"""Everything in one pass, then a page for each slide and one for the run.

    uv run python pipelines/all.py cases.csv -o out/

On the command line: wsikit score cases.csv -o out/ --pipeline pipelines/all.toml && wsikit report out/
"""

from __future__ import annotations

from pathlib import Path

from _command import score_asked

import wsikit as wk
from wsikit.report import write_reports

CONFIG = Path(__file__).with_suffix(".toml")


def main() -> None:
    """Score, then write the pages."""
    run = score_asked(__doc__ or "", CONFIG)
    print(f"open {write_reports(run.folder)}")
    print(wk.RESEARCH_USE_ONLY)


if __name__ == "__main__":  # worker processes import this file
    main()
