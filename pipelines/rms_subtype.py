"""Subtype calls of rhabdomyosarcomas: what `sts_subtype.py` does, with another model.

    uv run python pipelines/rms_subtype.py cases.csv -o out/

On the command line: wsikit score cases.csv -o out/ --pipeline pipelines/rms_subtype.toml
"""

from __future__ import annotations

from pathlib import Path

from sts_subtype import main

if __name__ == "__main__":
    main(Path(__file__).with_suffix(".toml"), "rms-subtype")
