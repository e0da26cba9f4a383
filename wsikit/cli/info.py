"""``wsikit info``: what is this slide?"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any

import typer

from wsikit.cli.options import FocalPlane, given_path
from wsikit.cli.output import Json, show_facts, show_json


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def info(
        slide: Annotated[Path, typer.Argument(help="A slide file, a folder of DICOM instances, an OME-Zarr folder, or an address of one.", parser=given_path)],
        focal_plane: FocalPlane = None,
        as_json: Json = False,
    ) -> None:
        """Show what a slide is, and where its mpp came from. Also reader, vendor, size, levels, objective, ICC, associated images.

        Example: wsikit info a.svs
        """
        from wsikit.slide import open_slide

        with open_slide(slide, focal_plane=focal_plane) as s:
            facts = slide_facts(s)
        if as_json:
            show_json(facts)
        else:
            levels = ", ".join(f"{w} × {h} (÷{d:.4g})" for (w, h), d in zip(facts["levels"], facts["downsamples"], strict=True))
            mpp = f"{facts['mpp'][0]:.6g} × {facts['mpp'][1]:.6g} µm/px, from {facts['mpp_source']}" if facts["mpp"] else f"unknown: {facts['mpp_refusal']}"
            shown = {k: facts[k] for k in ("path", "reader", "vendor")} | {"size": "{} × {} px".format(*facts["size"]), "levels": levels, "mpp": mpp}
            shown |= {"objective": facts["objective"] or "not stated", "icc": "present" if facts["icc"] else "none"}
            shown |= {"associated": ", ".join(facts["associated"]) or "none", "phantom": "yes" if facts["phantom"] else "no"}
            show_facts(shown | _only_some(facts))


def _only_some(facts: dict[str, Any]) -> dict[str, str]:
    """Rows that few slides have."""
    planes = ", ".join(facts["focal_planes"])
    rows = {"focal planes": f"{planes}; {facts['focal_plane']} is read", "not H&E": facts["not_he"], "warning": "; ".join(facts["warnings"])}
    if not planes:
        del rows["focal planes"]
    if facts["bounds"] != [0, 0, *facts["size"]]:
        rows["bounds"] = "x {}, y {}, {} × {} px".format(*facts["bounds"])
    return {k: v for k, v in rows.items() if v}


def slide_facts(s: Any) -> dict[str, Any]:
    """A slide's facts as plain values; associated images are named, never read."""
    from wsikit.readers._private import picture_names

    return {
        "path": str(s.path),
        "reader": s.reader,
        "vendor": s.facts.vendor,
        "size": list(s.size),
        "levels": [list(lv.size) for lv in s.levels],
        "downsamples": [lv.downsample[0] for lv in s.levels],
        "mpp": list(s.mpp) if s.mpp else None,
        "mpp_source": s.mpp_source,
        "mpp_refusal": s.mpp_refusal,
        "objective": s.facts.objective,
        "icc": bool(s.facts.icc),
        "icc_sha256": hashlib.sha256(s.facts.icc).hexdigest() if s.facts.icc else "",
        "not_he": s.facts.not_he,
        "focal_planes": list(s.facts.focal_planes),
        "focal_plane": s.focal_plane,
        "bounds": [s.bounds.x, s.bounds.y, s.bounds.w, s.bounds.h],
        "warnings": list(s.warnings),
        "associated": list(picture_names(s.facts.associated)),
        "phantom": s.is_phantom,
        "properties": s.properties,
    }
