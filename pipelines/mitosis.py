"""Mitotic counts with their intervals, and a picture of each slide's hotspot.

    uv run python pipelines/mitosis.py cases.csv -o out/

On the command line: wsikit score cases.csv -o out/ --pipeline pipelines/mitosis.toml
"""

from __future__ import annotations

import argparse
from pathlib import Path

import wsikit as wk

CONFIG = Path(__file__).with_suffix(".toml")


def main() -> None:
    """Score, then say and draw what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slides", nargs="+", help="slides, folders, or CSVs with a column path (and patient, mpp)")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=None)
    asked = parser.parse_args()
    run = wk.score(asked.slides, asked.out, [CONFIG], workers=asked.workers)
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
        wk.plot.hotspot(run.store(slide_id)).figure.savefig(picture, dpi=150)
        print(f"  {picture}")
    print(wk.RESEARCH_USE_ONLY)


if __name__ == "__main__":  # worker processes import this file
    main()
