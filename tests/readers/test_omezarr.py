"""OME-Zarr 0.4 and 0.5 as slides: what others write, what we write, and what tries to fool us."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import wsikit as wk
from wsikit.errors import DamagedSlideError, UnsupportedFormatError
from wsikit.run.cases import find_cases
from wsikit.survey import survey
from wsikit.testing.conformance import check_pixels, check_reader

MPP = 0.499


def write(path: Path, rgb: np.ndarray, version: str, axes: str = "cyx", levels: int = 3, **more: Any) -> Path:
    """As converters write it: levels by halves, chunks that do not divide the image."""
    kinds = {"t": {"type": "time"}, "c": {"type": "channel"}} | {a: {"type": "space", "unit": more.get("unit", "micrometer")} for a in "zyx"}
    group = zarr.open_group(str(path), mode="w", zarr_format=3 if version == "0.5" else 2)
    picture, datasets = rgb, []
    for i in range(levels):
        array = np.moveaxis(picture, -1, 0)[tuple(slice(None) if a in "cyx" else None for a in axes)]
        group.create_array(str(i), data=array, chunks=(*array.shape[:-2], 200, 200))
        scale = [MPP * more.get("factor", 1.0) * 2**i if a in "yx" else 1.0 for a in axes]
        datasets.append({"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
        h, w = (n // 2 for n in picture.shape[:2])
        picture = picture[: 2 * h, : 2 * w].reshape(h, 2, w, 2, -1).mean((1, 3)).round().astype(rgb.dtype)
    stated: dict[str, Any] = {"multiscales": [{"axes": [{"name": a, **kinds[a]} for a in axes], "datasets": datasets, "version": version}]}
    stated |= {k: more[k] for k in ("omero",) if k in more}
    group.attrs.update({"ome": stated} if version == "0.5" else stated)
    return path


@pytest.mark.parametrize(("version", "axes"), [("0.4", "tczyx"), ("0.5", "cyx"), ("0.4", "cyx")])
def test_both_versions(version: str, axes: str, picture: np.ndarray, tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", picture, version, axes)
    check_reader(partial(wk.open_slide, path))
    check_pixels(partial(wk.open_slide, path), picture)
    with wk.open_slide(path) as slide:
        assert (slide.reader, slide.mpp, slide.mpp_source) == ("ome-zarr", (MPP, MPP), "file metadata")
        assert [v.downsample for v in slide.levels] == [(1, 1), (2, 2), (4, 4)]


@pytest.mark.parametrize(("unit", "factor"), [("nanometer", 1e3), ("millimeter", 1e-3), ("meter", 1e-6)])
def test_units(unit: str, factor: float, picture: np.ndarray, tmp_path: Path) -> None:
    assert wk.open_slide(write(tmp_path / "a.zarr", picture, "0.5", levels=1, unit=unit, factor=factor)).mpp == pytest.approx((MPP, MPP))


def test_a_unit_that_is_no_length_is_refused(picture: np.ndarray, tmp_path: Path) -> None:
    slide = wk.open_slide(write(tmp_path / "a.zarr", picture, "0.5", levels=1, unit="pixel"))
    assert slide.mpp is None
    assert "file metadata" in slide.mpp_refusal
    assert "states no resolution" in wk.open_slide(write(tmp_path / "b.zarr", picture, "0.5", levels=1, unit="")).mpp_refusal


def test_our_own_store_is_a_slide(scored: wk.run.Run) -> None:
    """At its own resolution, with the pixels that it shows."""
    store = scored.store("lms")
    check_reader(partial(wk.open_slide, store.path))
    with wk.open_slide(store.path) as slide:
        assert slide.mpp == pytest.approx((0.5, 0.5))
        assert slide.is_phantom
        assert slide.facts.vendor == "wsikit"
        assert np.array_equal(slide.read((500, 600, 900, 700)), np.moveaxis(np.asarray(store.image()[:, 600:1300, 500:1400]), 0, -1))


def test_a_store_is_scored_like_a_slide(scored: wk.run.Run, tmp_path: Path) -> None:
    run = wk.score([scored.store("lms").path], tmp_path / "run", pipelines=["sts-subtype"])
    assert run.results["lms"]["pipelines"]["sts-subtype"]["call"] == "LMS"


@pytest.mark.parametrize("named", [True, False])
def test_channels_are_readable_and_refused_for_he(named: bool, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4000, (300, 400, 2), dtype=np.uint16)
    omero = {"channels": [{"label": "DAPI", "color": "0000FF"}, {"label": "CD3", "color": "FFFF00"}]}
    path = write(tmp_path / "a.zarr", pixels, "0.4", levels=1, **({"omero": omero} if named else {}))
    check_reader(partial(wk.open_slide, path))
    with wk.open_slide(path, mpp=0.5) as slide:
        assert "2 channels of uint16" in slide.facts.not_he
        with pytest.raises(UnsupportedFormatError, match="no brightfield H&E stain"):
            survey(slide)


def test_three_channels_with_other_names_are_no_picture(picture: np.ndarray, tmp_path: Path) -> None:
    omero = {"channels": [{"label": name, "color": "FFFFFF"} for name in ("DAPI", "FITC", "Cy5")]}
    assert wk.open_slide(write(tmp_path / "a.zarr", picture, "0.5", levels=1, omero=omero)).facts.not_he


def test_focal_planes(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    stack = np.broadcast_to(np.array([10, 20, 30], np.uint8)[None, :, None, None], (3, 3, 64, 80))
    group.create_array("0", data=np.ascontiguousarray(stack), chunks=(1, 1, 64, 64))
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "czyx"]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0"}], "version": "0.4"}]
    assert (wk.open_slide(path).read((0, 0, 9, 9)) == 20).all()
    assert (wk.open_slide(path, focal_plane="z2").read((0, 0, 9, 9)) == 30).all()


def test_what_bioformats2raw_writes(picture: np.ndarray, tmp_path: Path) -> None:
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    write(tmp_path / "a.zarr/0", picture, "0.4", "tczyx")
    check_pixels(partial(wk.open_slide, tmp_path / "a.zarr"), picture)


def attack(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        meta = json.loads((path / "zarr.json").read_text())
        change(meta["attributes"]["ome"]["multiscales"][0])
        (path / "zarr.json").write_text(json.dumps(meta))

    return apply


def array_meta(path: Path, **more: Any) -> None:
    file = path / "0/zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | more))


def bomb(path: Path) -> None:
    """One chunk that claims 16 GB."""
    grid = {"name": "regular", "configuration": {"chunk_shape": [4, 65536, 65536]}}
    array_meta(path, shape=[4, 65536, 65536], chunk_grid=grid)


ATTACKS: dict[str, Callable[[Path], Any]] = {
    "a level outside": attack(lambda m: m["datasets"][0].update(path="../secret")),
    "a level at the root": attack(lambda m: m["datasets"][0].update(path="/etc")),
    "no levels": attack(lambda m: m.update(datasets=[])),
    "levels that are text": attack(lambda m: m.update(datasets="0")),
    "no axes": attack(lambda m: m.pop("axes")),
    "other axes": attack(lambda m: m.update(axes=[{"name": a} for a in "abc"])),
    "an axis twice": attack(lambda m: m.update(axes=[{"name": a} for a in "yyx"])),
    "one axis too few": attack(lambda m: m.update(axes=[{"name": a} for a in "yx"])),
    "a scale of text": attack(lambda m: m["datasets"][0]["coordinateTransformations"][0].update(scale=["a", 1, 1])),
    "a scale of nan": attack(lambda m: m["datasets"][0]["coordinateTransformations"][0].update(scale=[1, float("nan"), 1])),
    "a missing array": lambda path: (path / "0/zarr.json").unlink(),
    "an array of nothing": lambda path: array_meta(path, shape=[3, 0, 0]),
    "an array without sides": lambda path: array_meta(path, shape=[]),
    "a bomb": bomb,
    "a torn description": lambda path: (path / "0/zarr.json").write_text("{"),
    "no description": lambda path: (path / "zarr.json").write_text("[]"),
}


@pytest.mark.parametrize("what", ATTACKS)
def test_metadata_that_cannot_be_is_refused(what: str, picture: np.ndarray, tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", picture, "0.5", levels=1)
    ATTACKS[what](path)
    with pytest.raises(wk.WsikitError, match=r"a\.zarr") as caught:
        wk.open_slide(path)
    assert "\n" not in str(caught.value)


def test_a_damaged_chunk_is_an_error_and_not_a_colour(picture: np.ndarray, tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", picture, "0.5", levels=1)
    chunk = path / "0/c/0/1/1"
    chunk.write_bytes(chunk.read_bytes()[:50])
    with wk.open_slide(path) as slide:
        slide.read((0, 0, 100, 100))
        with pytest.raises(DamagedSlideError, match=r"a\.zarr: level 0.*cannot be decoded"):
            slide.read((0, 0, *slide.size))


def test_an_empty_chunk_is_not_taken_for_one_without_tissue(picture: np.ndarray, tmp_path: Path) -> None:
    """As a power cut leaves it; Zarr itself reads it as the fill value."""
    path = write(tmp_path / "a.zarr", picture, "0.5", levels=1)
    (path / "0/c/0/1/1").write_bytes(b"")
    with pytest.raises(DamagedSlideError, match=r"a\.zarr: .* is empty"):
        _ = wk.open_slide(path).digest


def test_a_folder_of_stores_is_a_folder_of_slides(picture: np.ndarray, tmp_path: Path) -> None:
    for name in ("a.zarr", "b.ome.zarr"):
        write(tmp_path / name, picture, "0.5", levels=1)
    assert [c.slide_id for c in find_cases([tmp_path])] == ["a", "b"]
    assert [c.slide_id for c in find_cases([tmp_path / "b.ome.zarr"])] == ["b"]
