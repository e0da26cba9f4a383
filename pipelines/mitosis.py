"""Mitotic counts with their intervals, and a picture of each slide's hotspot.

    uv run python pipelines/mitosis.py cases.csv -o out/

On the command line: wsikit score cases.csv -o out/ --pipeline pipelines/mitosis.toml
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from _command import score_asked

import wsikit as wk

CONFIG = Path(__file__).with_suffix(".toml")


def main() -> None:
    """Score, then say and draw what was found."""
    run = score_asked(__doc__ or "", CONFIG)
    paths = pd.read_csv(run.folder / "slides.csv", index_col="slide_id")["path"]
    for slide_id, result in run.results.items():
        found = result["pipelines"].get("mitosis", result)
        if found["status"] != "ok":
            print(f"{slide_id}: {found['status']}: {found['reason']}")
            continue
        hotspot = found["hotspot"]
        print(
            f"{slide_id}: {found['count']} mitoses in {found['area_mm2']:.2f} mm², {found['per_mm2']:.2f} per mm² "
            f"({found['low']:.2f}–{found['high']:.2f}); hotspot {hotspot['count']} in {hotspot['tissue_mm2']:.2f} mm² {' '.join(hotspot['flags'])}".rstrip()
        )
        picture = run.folder / f"{slide_id}.hotspot.png"
        with wk.open_slide(paths[slide_id]) as slide:
            wk.plot.hotspot(run.store(slide_id), slide=slide).figure.savefig(picture, dpi=150)
        print(f"  {picture}")
    print(wk.RESEARCH_USE_ONLY)


if __name__ == "__main__":  # worker processes import this file
    main()
