"""Did anything become slower? Compares ratios of one run with those of the committed baseline, and fails where one fell by more than 15 %.

    python benchmarks/slide_to_zarr.py --no-peers --json result.json && python benchmarks/guard.py result.json
    python benchmarks/guard.py result.json --update         # take a quiet run as the new baseline

Ratios are × the decode floor of the same run on as many cores, so that a slower machine is none. They still differ between kinds of processor, and
on a machine that others use they mean nothing: such a run is refused.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

BASELINE = Path(__file__).with_name("baseline.json")
FALL = 0.15
LEFT_OUT = "cold"  # starting an interpreter is the disk's business


def ratios(result: dict[str, Any]) -> dict[str, float]:
    """wsikit's cases of a run, × the decode floor."""
    ours = (c for c in result["cases"] if c["who"].startswith("wsikit") and c["slide"] == "mosaic" and LEFT_OUT not in c["who"])
    return {c["name"]: c["of_floor"] for c in ours if c.get("of_floor")}


def fallen(now: dict[str, float], before: dict[str, float], most: float = FALL) -> list[str]:
    """What is slower than it was, in words; what only one of them measured is not compared."""
    return [
        f"{name}: {now[name]:.3f} × the decode floor, it was {was:.3f} ({now[name] / was - 1:+.0%})"
        for name, was in sorted(before.items())
        if name in now and now[name] < (1 - most) * was
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("result", type=Path, help="what slide_to_zarr.py --json wrote")
    parser.add_argument("--update", action="store_true", help="make it the baseline")
    asked = parser.parse_args()
    result = json.loads(asked.result.read_bytes())
    if result["about"]["quick"] or not result["about"]["quiet"]:
        print("this run was quick, or others kept the machine busy: its ratios mean nothing")
        return 2
    now = ratios(result)
    if asked.update:
        about = {k: result["about"][k] for k in ("commit", "repeats", "versions")}
        BASELINE.write_text(json.dumps({"about": about, "of_floor": now}, indent=1) + "\n")
        return 0
    before = json.loads(BASELINE.read_bytes())["of_floor"]
    slower = fallen(now, before)
    print("\n".join(slower) or f"none of {len(set(now) & set(before))} ratios fell by more than {FALL:.0%}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
