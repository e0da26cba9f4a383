"""Images of a store: where their pixels lie, how levels follow, and that rot is an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from wsikit.errors import DamagedStoreError
from wsikit.geometry import Level, Size
from wsikit.grid import raster_at
from wsikit.store.image import Placement, coarser, create_array, multiscales, read_array, write_group, write_image

MPP = (0.5, 0.52)


@given(st.floats(0.5, 64), st.floats(0.5, 64), st.integers(0, 500))
def test_a_pixels_centre_lies_on_the_slide_where_its_area_does(dx: float, dy: float, i: int) -> None:
    """Pixel i covers level-0 px [i·d, (i+1)·d); level-0 pixel centres are at whole numbers, as OME-Zarr has it."""
    place = Placement.of((dx, dy), MPP)
    x, y = (place.translation[k] + i * place.scale[k] for k in (0, 1))
    assert x == pytest.approx(((i + 0.5) * dx - 0.5) * MPP[0])
    assert y == pytest.approx(((i + 0.5) * dy - 0.5) * MPP[1])


def test_level_0_has_no_offset_and_a_rasters_place_is_its_downsamples() -> None:
    assert Placement.of((1.0, 1.0), MPP) == Placement(MPP, (0.0, 0.0))
    raster = raster_at(Level(2, Size(700, 300), (4.0, 4.02)), MPP, (2.0, 2.5))
    found, expected = Placement.of_raster(raster), Placement.of((8.0, 10.05), MPP)
    assert np.allclose([*found.scale, *found.translation], [*expected.scale, *expected.translation])


def test_multiscales_name_axes_in_the_order_of_the_array() -> None:
    (image,) = multiscales("a", [Placement.of((2, 3), MPP)])
    assert [a["name"] for a in image["axes"]] == ["c", "y", "x"]
    assert [a.get("unit") for a in image["axes"]] == [None, "micrometer", "micrometer"]
    scale, translation = image["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == [1.0, 3 * MPP[1], 2 * MPP[0]]
    assert translation["translation"] == [0.0, 1.0 * MPP[1], 0.5 * MPP[0]]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 33), st.integers(1, 33), st.integers(0, 9))
def test_coarser_is_the_mean_of_whole_cells_with_repeated_edges(h: int, w: int, seed: int) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)
    out = coarser(rgb, 4)
    assert out.shape == (-(-h // 4), -(-w // 4), 3)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            rows, columns = np.minimum(np.arange(4 * y, 4 * y + 4), h - 1), np.minimum(np.arange(4 * x, 4 * x + 4), w - 1)
            exact = rgb[np.ix_(rows, columns)].astype(float).mean((0, 1))
            assert (np.abs(out[y, x] - exact) <= 0.5 + 1e-9).all()


@pytest.mark.parametrize("shape", [(1, 3), (40, 70), (3, 512, 513)])
def test_an_image_reads_back_whole_in_one_shard_a_level(tmp_path: Path, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    levels = [rng.random(shape).astype(np.float32), rng.random((*shape[:-2], 1, 2)).astype(np.float32)]
    write_image(tmp_path / "i", "i", levels, [Placement.of((f, f), MPP) for f in (1, 2)], fill=float("nan"), chunk=64)
    for i, level in enumerate(levels):
        array = zarr.open_array(str(tmp_path / f"i/{i}"), mode="r")
        assert np.array_equal(np.asarray(array), level)
        assert array.metadata.dimension_names == ("c", "y", "x")[-level.ndim :]
        assert len([p for p in (tmp_path / f"i/{i}/c").rglob("*") if p.is_file()]) == 1


def test_what_was_never_written_is_the_fill_value_and_takes_no_file(tmp_path: Path) -> None:
    array = create_array(tmp_path, "0", (3, 64, 64), "|u1", 255, chunk=(3, 16, 16), shard=(3, 32, 32))
    array[:, :32, :32] = 255
    array[:, 32:, 32:] = 7
    assert [p.name for p in (tmp_path / "0/c/0").rglob("*") if p.is_file()] == ["1"]
    assert (np.asarray(array[:, :32]) == 255).all()


@pytest.mark.parametrize("codec", ["zstd:1", "zstd:19", "jpeg:90"])
def test_rot_is_an_error_and_not_a_colour(tmp_path: Path, flip: Callable[[Path, int], None], codec: str) -> None:
    rng = np.random.default_rng(0)
    array = create_array(tmp_path, "0", (3, 64, 64), "|u1", 255, chunk=(3, 32, 32), shard=(3, 64, 64), codec=codec)
    array[...] = rng.integers(0, 256, (3, 64, 64), dtype=np.uint8)
    shard = tmp_path / "0/c/0/0/0"
    for at in [0, 1, *rng.integers(0, shard.stat().st_size, 60).tolist(), -1, -4, -5, -20]:
        flip(shard, at)
        with pytest.raises(DamagedStoreError, match=r"0: damaged \("):
            read_array(zarr.open_array(str(tmp_path / "0"), mode="r"))
        flip(shard, at)
    assert read_array(zarr.open_array(str(tmp_path / "0"), mode="r")).shape == (3, 64, 64)


def test_a_group_keeps_what_is_below_and_beside(tmp_path: Path) -> None:
    write_group(tmp_path / "g", {"ome": {"version": "0.5"}})
    create_array(tmp_path / "g", "0", (1, 1, 1), "|u1", 0, chunk=(1, 1, 1))
    write_group(tmp_path / "g", {"wsikit": {"schema": 1}})
    group = zarr.open_group(str(tmp_path / "g"), mode="r")
    assert dict(group.attrs) == {"ome": {"version": "0.5"}, "wsikit": {"schema": 1}}
    assert list(group.array_keys()) == ["0"]
