"""Subtype calls of soft-tissue sarcomas, with their doubt: the slides' and, where the CSV names patients, the patients'.

    uv run python pipelines/sts_subtype.py cases.csv -o out/

On the command line: wsikit score cases.csv -o out/ --pipeline pipelines/sts_subtype.toml
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from _command import score_asked

import wsikit as wk

CONFIG = Path(__file__).with_suffix(".toml")


def main(config: Path = CONFIG, pipeline: str = "sts-subtype") -> None:
    """Score, then print who was called what, least certain first."""
    run = score_asked(__doc__ or "", config)
    for name in ("patients.csv", "slides.csv"):
        if (run.folder / name).exists():
            table = pd.read_csv(run.folder / name)
            columns = [table.columns[0], *(c for c in table.columns if c.startswith(f"{pipeline}."))]
            print(table[columns].sort_values(f"{pipeline}.doubt", ascending=False).to_string(index=False))
            print(f"all of it: {run.folder / name}\n")
    print(wk.RESEARCH_USE_ONLY)


if __name__ == "__main__":  # worker processes import this file
    main()
