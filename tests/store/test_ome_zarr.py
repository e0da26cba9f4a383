"""Made stores are what OME-Zarr 0.5 asks for, and a viewer that knows nothing of wsikit sees the slide in its place."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_models
import pytest
import yaozarrs
import zarr
from ome_zarr_models.v05 import Image, ImageLabel, Labels

import wsikit as wk
from wsikit.cut import normalise
from wsikit.run import Run
from wsikit.stain import StainFit

IMAGES = ["", "overlays/mitosis", "overlays/sts-subtype"]


@pytest.fixture(params=["kept", "lean"])
def path(request: pytest.FixtureRequest) -> Path:
    """A store with kept pixels, and one without."""
    run: Run = request.getfixturevalue({"kept": "scored", "lean": "lean"}[request.param])
    return run.store(next(iter(run.results))).path


def view(path: Path) -> dict[str, Any]:
    """What a viewer makes of an image: arrays, and µm of their first pixel and per pixel (y, x), from plain metadata."""
    group = zarr.open_group(str(path), mode="r")
    datasets = group.attrs["ome"]["multiscales"][0]["datasets"]
    steps = [{t["type"]: t[t["type"]] for t in d["coordinateTransformations"]} for d in datasets]
    return {"arrays": [group[d["path"]] for d in datasets], "scale": [s["scale"][-2:] for s in steps], "start": [s["translation"][-2:] for s in steps]}


@pytest.mark.parametrize("name", IMAGES)
def test_images_pass_both_validators(path: Path, name: str) -> None:
    group = zarr.open_group(str(path / name), mode="r")
    assert isinstance(ome_zarr_models.open_ome_zarr(group), Image)
    yaozarrs.validate_zarr_store(str(path / name))
    assert yaozarrs.open_group(str(path / name)).ome_metadata().version == "0.5"


def test_labels_pass_both_validators(path: Path) -> None:
    labels = ome_zarr_models.open_ome_zarr(zarr.open_group(str(path / "labels"), mode="r"))
    assert isinstance(labels, Labels)
    assert labels.attributes.ome.labels == ["tissue", "quality"]
    assert isinstance(ome_zarr_models.open_ome_zarr(zarr.open_group(str(path / "labels/tissue"), mode="r")), ImageLabel)
    yaozarrs.validate_zarr_store(str(path / "labels"))
    yaozarrs.validate_zarr_store(str(path / "labels/tissue"))


def test_a_wrong_store_fails_the_validators(lean_store: Path) -> None:
    """The two checks above can fail: without its scale, or without an array, a store is refused."""
    group = zarr.open_group(str(lean_store), mode="a")
    ome = dict(group.attrs["ome"])
    del ome["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    group.attrs["ome"] = ome
    with pytest.raises(ValueError, match="coordinateTransformations"):
        Image.from_zarr(zarr.open_group(str(lean_store), mode="r"))
    with pytest.raises(ValueError, match="coordinateTransformations"):
        yaozarrs.validate_zarr_store(str(lean_store))


def test_each_level_covers_the_slide_where_the_first_does(path: Path) -> None:
    """The corner of the first pixel is the slide's corner at every level, and the last one reaches the far corner."""
    slide = wk.open_store(path).attributes["slide"]
    for image in (view(path), view(path / "labels/tissue")):
        for array, scale, start in zip(image["arrays"], image["scale"], image["start"], strict=True):
            for axis in (0, 1):
                mpp, extent = slide["mpp"][1 - axis], slide["size"][1 - axis] * slide["mpp"][1 - axis]
                n = array.shape[-2 + axis]
                assert start[axis] - scale[axis] / 2 == pytest.approx(-mpp / 2)
                assert (n - 1) * scale[axis] < extent <= n * scale[axis] + 1e-6


def test_a_picture_of_the_overview_level_shows_the_slide(path: Path) -> None:
    """Dark where there is tissue by the label, light elsewhere, looked up through µm as a viewer does."""
    image, label = view(path), view(path / "labels/tissue")
    rgb, mask = np.asarray(image["arrays"][-1]).mean(0), np.asarray(label["arrays"][0])
    y, x = (np.arange(n) for n in rgb.shape)
    rows, columns = (
        np.rint((i * image["scale"][-1][k] + image["start"][-1][k] - label["start"][0][k]) / label["scale"][0][k]).astype(int).clip(0, mask.shape[k] - 1)
        for k, i in enumerate((y, x))
    )
    tissue = mask[np.ix_(rows, columns)] == 1
    assert rgb[tissue].mean() < 225
    assert rgb[~tissue].mean() > rgb[tissue].mean() + 15


def test_kept_pixels_are_the_slides_own_normalised_and_nothing_elsewhere(scored: Run, phantom: Any) -> None:
    store = scored.store("lms")
    slide, fit = wk.open_slide(phantom.path), StainFit.model_validate(store.attributes["stain"])
    assert fit.trusted
    pixels = np.moveaxis(np.asarray(store.image()), 0, -1)
    assert pixels.shape == (2048, 2560, 3)
    expected = np.asarray(normalise(slide.read((0, 0, 2560, 2048)), fit))
    tiles = store.tables()["tiles"]
    wanted = np.zeros(pixels.shape[:2], bool)
    for x, y in tiles["origin"]:
        wanted[y : y + 256, x : x + 256] = True
    assert 0.2 < wanted.mean() < 1, "the phantom has tissue and glass"
    assert np.array_equal(pixels[wanted], expected[wanted])
    assert (pixels[~wanted] == 255).all()


def test_coarser_levels_are_means_of_finer_ones(scored: Run) -> None:
    levels = [np.moveaxis(np.asarray(a), 0, -1).astype(float) for a, _ in scored.store("lms").levels()]
    assert [lv.shape[:2] for lv in levels] == [(2048, 2560), (512, 640), (128, 160)]
    for fine, coarse in pairwise(levels):
        h, w = coarse.shape[:2]
        exact = fine.reshape(h, 4, w, 4, 3).mean((1, 3))
        assert np.abs(coarse - exact).max() <= 0.5


def test_one_shard_is_one_block_and_blocks_without_tissue_are_not_there(tmp_path: Path, phantom: Any) -> None:
    path = wk.tile(phantom.path, tmp_path / "out", mpp=None, tile_px=128, block_px=256)
    array = zarr.open_array(str(path / "0"), mode="r")
    assert (array.chunks, array.shards) == ((3, 128, 128), (3, 256, 256))
    there = {(int(p.parent.name), int(p.name)) for p in (path / "0/c/0").glob("*/*")}
    origins = wk.open_store(path).tables()["tiles"]["origin"]
    assert there == {(int(y) // 256, int(x) // 256) for x, y in origins}
    assert 40 < len(there) < 8 * 10, "some block of this phantom has no tissue"
    missing = next((r, c) for r in range(8) for c in range(10) if (r, c) not in there)
    assert (np.asarray(array[:, missing[0] * 256 :, missing[1] * 256 :][:, :256, :256]) == 255).all()


def test_a_heat_map_lies_on_its_tiles(scored: Run) -> None:
    """Each tile's probability is at the pixel that a viewer draws over the tile's centre."""
    store = scored.store("lms")
    image, table = view(store.path / "overlays/sts-subtype"), store.tables()["sts-subtype"]
    heat = np.asarray(image["arrays"][0])
    centre = (table["origin"] + table["size"] / 2 - 0.5)[:, ::-1] * np.array(store.mpp[::-1])
    row, column = np.rint((centre - image["start"][0]) / image["scale"][0]).astype(int).T
    assert np.array_equal(heat[:, row, column].T, table["probability"])
    assert np.isnan(heat).any() or len(row) == heat[0].size
    assert np.isfinite(heat[0]).sum() == len(row)
    assert store.overlay("sts-subtype").channels == tuple(table.attributes["classes"])
