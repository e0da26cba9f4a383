"""Shards that we put together are shards to zarr-python, with either codec, and rot in them is an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from wsikit.errors import UsageError
from wsikit.store.codec import PixelCodec, parse_codec
from wsikit.store.direct import write_parts
from wsikit.store.shard import encode_shard

CODECS = ["zstd:1", "zstd:0", "jpeg:90"]


def empty(path: Path, shape: tuple[int, int], side: int, chunk: int, codec: PixelCodec) -> zarr.Array:
    config = {"write_empty_chunks": False}
    arguments = {"chunks": (3, chunk, chunk), "shards": (3, side, side), "dtype": "|u1", "fill_value": 255, "config": config}
    return zarr.create_array(str(path), shape=(3, *shape), overwrite=True, **arguments, **codec.zarr_arguments())


def tissue(side: int, seed: int, white: float) -> np.ndarray:
    """Smooth colours, with squares of white."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    image = np.stack([180 + 60 * np.sin(x / 9 + seed), 120 + 70 * np.cos(y / 11), 160 + 50 * np.sin((x - y) / 17)], -1).astype(np.uint8)
    blank = rng.random((-(-side // 16), -(-side // 16))) < white
    image[np.kron(blank, np.ones((16, 16), bool))[:side, :side]] = 255
    return image


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=15)
@given(across=st.integers(1, 4), chunk=st.sampled_from([16, 32, 48]), seed=st.integers(0, 99), white=st.sampled_from([0, 0.5, 0.95]))
def test_zarr_reads_what_we_write_as_what_it_writes(
    tmp_path_factory: pytest.TempPathFactory, name: str, across: int, chunk: int, seed: int, white: float
) -> None:
    path, side, codec = tmp_path_factory.mktemp("shard"), across * chunk, parse_codec(name)
    rgb = tissue(side, seed, white)
    theirs = empty(path / "theirs", (side, side), side, chunk, codec)
    theirs[...] = np.moveaxis(rgb, -1, 0)
    ours = empty(path / "ours", (side, side), side, chunk, codec)
    write_parts(path / "ours/c/0/0/0", encode_shard(rgb, chunk, codec))
    np.testing.assert_array_equal(ours[...], theirs[...])
    if name.startswith("zstd"):
        np.testing.assert_array_equal(np.moveaxis(ours[...], 0, -1), rgb)


@pytest.mark.parametrize("name", CODECS)
def test_a_shard_at_the_border_reaches_beyond_the_array(tmp_path: Path, name: str) -> None:
    codec, rgb = parse_codec(name), tissue(64, 1, 0.2)
    array = empty(tmp_path / "a", (50, 41), 64, 32, codec)
    write_parts(tmp_path / "a/c/0/0/0", encode_shard(rgb, 32, codec))
    difference = np.abs(np.moveaxis(array[...], 0, -1).astype(int) - rgb[:50, :41])
    assert difference.mean() < (0.001 if name.startswith("zstd") else 8)


def test_white_is_not_stored() -> None:
    assert list(encode_shard(np.full((32, 32, 3), 255, np.uint8), 16, parse_codec("zstd"))) == []


@pytest.mark.parametrize("name", CODECS)
def test_no_flipped_bit_becomes_a_colour(tmp_path: Path, name: str) -> None:
    codec, rgb = parse_codec(name), tissue(32, 3, 0)
    array = empty(tmp_path / "a", (32, 32), 32, 16, codec)
    file = tmp_path / "a/c/0/0/0"
    write_parts(file, encode_shard(rgb, 16, codec))
    whole, right = file.read_bytes(), array[...]
    for at in np.random.default_rng(0).choice(len(whole), 60, replace=False):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        try:
            found = array[...]
        except Exception:
            continue
        np.testing.assert_array_equal(found, right, err_msg=f"byte {at} of {len(whole)}")


def test_jpeg_has_the_published_name(tmp_path: Path) -> None:
    array = empty(tmp_path / "a", (32, 32), 32, 16, parse_codec("jpeg:80"))
    codecs = array.metadata.to_dict()["codecs"][0]["configuration"]["codecs"]
    assert [c["name"] for c in codecs] == ["transpose", "imagecodecs_jpeg", "crc32c"]
    assert codecs[1]["configuration"]["level"] == 80


@pytest.mark.parametrize("text", ["png", "zstd:x", "zstd:23", "jpeg:5", "jpeg:101", "jpeg:", "zstd:1:2", ""])
def test_other_codecs_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="zstd:LEVEL"):
        parse_codec(text)
