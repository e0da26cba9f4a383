"""Nothing moves by a pixel: through every level on the canvas, and from the store through napari and GeoJSON and back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from wsikit.export.corrections import corrections, read_geojson
from wsikit.export.geojson import write_geojson
from wsikit.run import Run
from wsikit.slide import Slide
from wsikit.store import open_store
from wsikit.store.columns import write_table
from wsikit.view.layers import slide_layers, store_layers, to_world
from wsikit.view.tools import settled

MPP = (0.5, 0.27)
SIZE = (2999, 3701)  # height, width: no level is a whole multiple
BOX = (1777, 1203, 1937, 1331)  # left, top, right, bottom of a black rectangle, level-0 px


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Slide:
    """A slide with anisotropic mpp and levels of 2999/750 and 2999/188 rows; one black rectangle on white."""
    path = tmp_path_factory.mktemp("uneven") / "a.tif"
    full = np.full((*SIZE, 3), 255, np.uint8)
    full[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 0
    with tifffile.TiffWriter(path) as tif:
        for factor in (1, 4, 16):
            h, w = (-(-n // factor) for n in SIZE)
            padded = np.pad(full, ((0, h * factor - SIZE[0]), (0, w * factor - SIZE[1]), (0, 0)), mode="edge")
            level = padded.reshape(h, factor, w, factor, 3).mean((1, 3)).round().astype(np.uint8)
            more = {"resolution": (1e4 / MPP[0] / factor, 1e4 / MPP[1] / factor), "resolutionunit": "CENTIMETER"}
            tif.write(level, tile=(256, 256), photometric="rgb", subfiletype=int(factor > 1), **more)
    return Slide(path, mpp=None)


@pytest.mark.usefixtures("scored", "screen")  # torch first: its compiler and a canvas drawn by LLVM do not go together the other way round
def test_each_level_lies_where_level_0_does(uneven: Slide) -> None:
    import napari

    assert len(uneven.levels) == 3
    assert uneven.mpp == pytest.approx(MPP)
    viewer: Any = napari.Viewer()
    viewer.theme = "light"
    viewer.window.resize(1000, 750)
    data, options, _ = slide_layers(uneven)[0]
    layer = viewer.add_image(data, **options)
    middle = to_world(np.array([[(BOX[0] + BOX[2]) / 2, (BOX[1] + BOX[3]) / 2]]), MPP)[0]
    used = set()
    for zoom in (4.0, 1.0, 0.4, 0.06):  # screen px per µm
        viewer.scene.camera.center, viewer.scene.camera.zoom = tuple(middle), zoom
        settled(viewer)
        used.add(layer.data_level)
        picture = viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
        dark = np.argwhere(picture.sum(-1) < 3 * 128)
        centre = (dark.min(0) + dark.max(0) + 1) / 2
        half_level_px = 0.5 * np.array(MPP[::-1]) * zoom * uneven.levels[layer.data_level].downsample[0]
        assert (np.abs(centre - np.array(picture.shape[:2]) / 2) <= 1.5 + half_level_px).all(), (zoom, layer.data_level)
        size = np.array([BOX[3] - BOX[1], BOX[2] - BOX[0]]) * MPP[::-1] * zoom
        assert (np.abs(np.ptp(dark, axis=0) + 1 - size) <= 2 + 2 * half_level_px).all()
    viewer.close()
    assert used == {0, 1, 2}


def test_from_the_store_through_napari_and_geojson_and_back(scored: Run, tmp_path: Path) -> None:
    path = tmp_path / "slides/lms.zarr"
    shutil.copytree(scored.folder / "slides/lms.zarr", path)
    shutil.copy(scored.folder / "slides/lms.json", path.parent)
    bounds, downsample = (1371, 911), (16.37, 15.89)
    root = zarr.open_group(str(path), mode="r+")
    a: Any = root.attrs["wsikit"]
    a["slide"] |= {"bounds": [*bounds, 4000, 3000], "size": [5500, 4000], "mpp": list(MPP)}
    a["survey"]["raster"]["downsample"] = list(downsample)
    root.attrs["wsikit"] = a
    table = open_store(path).tables()["mitosis"]
    columns = {k: table[k] for k in table} | {"position": table["position"] + np.array(bounds)}
    write_table(path / "tables/mitosis", columns, table.attributes)
    store = open_store(path)
    layers = {options["name"]: (data, options) for data, options, _ in store_layers(store)}
    shown, _ = layers["mitosis"]
    seen = shown[:, ::-1] / np.array(MPP) + 0.5  # µm y, x → level-0 px x, y
    tissue, options = layers["tissue"]
    # the µm of the mask's outer corners are those of its pixels' edges on level 0
    first = np.array(options["translate"]) - np.array(options["scale"]) / 2
    last = first + np.array(tissue.shape) * options["scale"]
    np.testing.assert_allclose(first, -np.array(MPP[::-1]) / 2, atol=1e-9)
    np.testing.assert_allclose(last - first, np.array(tissue.shape) * np.array(downsample[::-1]) * MPP[::-1])
    file = tmp_path / "a.geojson"
    write_geojson(store, file)
    written = np.array([f["geometry"]["coordinates"] for f in json.loads(file.read_text())["features"] if f["properties"]["objectType"] == "detection"])
    assert np.abs(written + bounds - seen).max() < 0.01
    back = corrections(read_geojson(file, store), store)
    assert np.abs(back.position - seen).max() < 0.01
    assert np.abs(to_world(back.position, MPP) - shown).max() < 0.01
