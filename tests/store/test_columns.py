"""Tables: every column comes back bit for bit, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from wsikit.errors import DamagedStoreError
from wsikit.store import columns
from wsikit.store.columns import Table, write_table

DTYPES = {"origin": (np.int64, (2,)), "tissue": (np.float32, ()), "probability": (np.float32, (5,)), "feature": (np.float16, (17,)), "class": (np.int64, ())}


def some(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: (rng.normal(size=(rows, *rest)) * 1000).astype(dtype) for name, (dtype, rest) in DTYPES.items()}


def opened(path: Path) -> Table:
    return Table(zarr.open_group(str(path), mode="r"))


def same(table: Table, expected: dict[str, np.ndarray]) -> bool:
    return all(table[k].dtype == v.dtype and table[k].shape == v.shape and table[k].tobytes() == v.tobytes() for k, v in expected.items())


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(0, 70), seed=st.integers(0, 9))
def test_columns_round_trip_across_chunks_and_shards(tmp_path_factory: pytest.TempPathFactory, rows: int, seed: int) -> None:
    path = tmp_path_factory.mktemp("table") / "t"
    with pytest.MonkeyPatch.context() as patch:  # a chunk of 7 rows and a shard of 21: 70 rows are four shards, the last one not full
        patch.setattr(columns, "_CHUNK_ROWS", 7)
        patch.setattr(columns, "_SHARD_ROWS", 21)
        written = some(rows, seed)
        write_table(path, written, {"classes": ["A"], "task": "classify"})
    table = opened(path)
    assert set(table) == set(written)
    assert len(table) == 5
    assert same(table, written)
    assert table.attributes["classes"] == ["A"]
    assert len(list((path / "tissue/c").glob("*"))) == -(-rows // 21)


def test_nan_infinity_and_signed_noughts_round_trip(tmp_path: Path) -> None:
    odd = {"score": np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-45], np.float32)}
    write_table(tmp_path / "t", odd, {})
    assert same(opened(tmp_path / "t"), odd)


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    write_table(tmp_path / "t", some(3), {})
    table = opened(tmp_path / "t")
    assert "score" not in table
    with pytest.raises(KeyError, match="score"):
        table["score"]


@pytest.mark.parametrize("name", DTYPES)
def test_a_lost_file_is_no_column_of_noughts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(columns, "_CHUNK_ROWS", 4)
    monkeypatch.setattr(columns, "_SHARD_ROWS", 8)
    write_table(tmp_path / "t", {k: np.zeros_like(v) for k, v in some(20).items()}, {})
    shards = sorted(p for p in (tmp_path / "t" / name / "c").rglob("*") if p.is_file())
    assert len(shards) == 3
    for shard in shards:
        data = shard.read_bytes()
        shard.unlink()
        with pytest.raises(DamagedStoreError, match=rf"{name}.*missing; run wsikit verify"):
            opened(tmp_path / "t")[name]
        shard.write_bytes(data)
    assert not opened(tmp_path / "t")[name].any()


def test_every_flipped_byte_is_noticed(tmp_path: Path, flip: Callable[[Path, int], None]) -> None:
    written, noticed = {"score": np.linspace(0, 1, 30, dtype=np.float32)}, 0
    write_table(tmp_path / "t", written, {})
    shard = tmp_path / "t/score/c/0"
    for at in range(shard.stat().st_size):
        flip(shard, at)
        try:
            assert same(opened(tmp_path / "t"), written), at  # a few bits of a zstd header mean nothing
        except DamagedStoreError as e:
            assert "t/score: damaged (" in str(e)
            assert "run wsikit verify" in str(e)
            noticed += 1
        flip(shard, at)
    assert noticed > 0.95 * shard.stat().st_size


@pytest.mark.parametrize("keep", [0, 1, 19, 20, -1])
def test_a_file_that_was_cut_short_is_noticed(tmp_path: Path, keep: int) -> None:
    write_table(tmp_path / "t", {"score": np.linspace(0, 1, 30, dtype=np.float32)}, {})
    shard = tmp_path / "t/score/c/0"
    shard.write_bytes(shard.read_bytes()[:keep])
    with pytest.raises(DamagedStoreError, match="score"):
        opened(tmp_path / "t")["score"]


def test_tiles_as_a_data_frame(tmp_path: Path) -> None:
    made = {
        "origin": np.array([[0, 224], [448, 0]]),
        "size": np.full((2, 2), 448.0),
        "tissue": np.array([1, 0.5], np.float32),
        "probability": np.array([[0.25, 0.75], [1, 0]], np.float32),
        "feature": np.zeros((2, 9), np.float16),
    }
    write_table(tmp_path / "t", made, {"classes": ["LMS", "UPS"]})
    frame = opened(tmp_path / "t").to_pandas()
    assert set(frame.columns) == {"origin_x", "origin_y", "size_w", "size_h", "tissue", "p_LMS", "p_UPS"}
    assert frame[["origin_x", "origin_y", "p_UPS"]].to_numpy().tolist() == [[0, 224, 0.75], [448, 0, 0]]


@pytest.mark.parametrize("rows", [0, 2])
def test_detections_as_a_data_frame(tmp_path: Path, rows: int) -> None:
    made = {
        "position": np.array([[1.5, 2.5], [3, 4]])[:rows],
        "size": np.ones((rows, 2), np.float32),
        "score": np.ones(rows, np.float32),
        "class": np.array([1, 0])[:rows],
    }
    write_table(tmp_path / "t", made, {"classes": ["mitosis", "lookalike"]})
    frame = opened(tmp_path / "t").to_pandas()
    assert set(frame.columns) == {"position_x", "position_y", "size_w", "size_h", "score", "class"}
    assert frame["class"].tolist() == ["lookalike", "mitosis"][:rows]
    assert frame["position_x"].tolist() == [1.5, 3.0][:rows]
