"""Phantom slides of two tissues with a known border: a dense tumour in pale stroma, one stain, one section."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from shapely.geometry import mapping

from wsikit.overlay.shapes import outlines
from wsikit.testing import phantom
from wsikit.testing.phantom import RECIPES, write_pyramid

TUMOUR, STROMA = "SS", "MFS"
CELL_PX = 16  # level-0 px of a pixel of the truth


def write_region_phantom(
    path: Path, seed: int, width: int = 2048, height: int = 1536, mpp: float = 0.5, *, tumour: bool = True, mitoses_per_mm2: float = 0.0
) -> np.ndarray:
    """Write a pyramidal TIFF and ``<name>.geojson`` with the tumour as QuPath would export it; returns the tumour, bool (H / 16, W / 16).

    Mitoses lie anywhere in the tissue, in tumour and stroma alike.
    """
    rng = np.random.default_rng([seed, 77])
    tissue = phantom._tissue(rng, (height, width))
    field = phantom._field(rng, (tissue.shape[0], tissue.shape[1]), max(tissue.shape) / 2.5)
    inside = tissue & (field > np.quantile(field[tissue], 0.55)) & tumour
    soft = phantom._stretch(tissue.astype(np.float32), (height, width))
    part = phantom._stretch(inside.astype(np.float32), (height, width)) > 0.5
    planes = [np.zeros((height, width), np.float32) for _ in range(2)]
    for name, where, cells in ((STROMA, ~part, tissue & ~inside), (TUMOUR, part, inside)):
        recipe = RECIPES[name]
        fibres, angle = phantom._fibres(rng, (height, width), recipe, mpp)
        haem = recipe.mucin * soft
        phantom._nuclei(rng, haem, cells, None, angle, recipe, mpp)
        for plane, values in zip(planes, (haem, recipe.eosin * fibres * soft), strict=True):
            plane[where] = values[where]
    stamps = np.random.default_rng([seed, 78])  # its own, so that the tissue is the same with and without
    for at in phantom._scatter_clustered(stamps, tissue, mitoses_per_mm2, mpp):
        phantom._stamp_mitosis(stamps, planes[0], planes[1], at, mpp)
    write_pyramid(path, phantom._render(rng, planes[0], planes[1], phantom._stain(rng)), mpp)
    shape = outlines(inside, (CELL_PX, CELL_PX))
    said = {"objectType": "annotation", "classification": {"name": "Tumor", "color": [200, 0, 0]}}
    features = [] if shape.is_empty else [{"type": "Feature", "geometry": mapping(shape), "properties": said}]
    path.with_suffix(".geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return np.asarray(inside)
