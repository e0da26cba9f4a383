"""Layers lie on each other: the same level-0 pixel is at the same µm in all of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

import wsikit as wk
from wsikit.overlay.grad_cam import placement
from wsikit.run import Run
from wsikit.run.plan import grid_of
from wsikit.slide import Slide
from wsikit.store import SlideStore
from wsikit.store.image import write_image
from wsikit.view.layers import lazy_level, plan_layers, slide_layers, store_layers, to_world
from wsikit.view.reader import get_reader


def corner_um(options: dict[str, Any]) -> np.ndarray:
    """µm (y, x) of the upper-left corner of a layer's first pixel."""
    return np.array(options["translate"]) - np.array(options["scale"]) / 2


@pytest.fixture(scope="module")
def layers(scored: Run) -> dict[str, tuple[Any, dict[str, Any], str]]:
    return {layer[1]["name"]: layer for layer in store_layers(scored.store("lms"))}


def test_every_kind_of_layer_is_there(layers: dict[str, Any]) -> None:
    assert {"slide", "stain-normalised", "tissue", "mitosis", "mitosis below threshold", "mitosis hotspot", "mitosis: mitosis per mm2"} <= set(layers)
    assert {f"sts-subtype: {c}" for c in ("DDLPS", "LMS", "MFS", "SS", "UPS")} <= set(layers)


def test_stripes_are_those_of_an_answer_that_was_looked_for(scored: Run) -> None:
    """Of two withheld answers, the one whose model saw no tile has nothing to hatch."""
    store = scored.store("lms")
    withheld = {"status": "abstained", "reason": "x"}
    result = store.result | {"pipelines": store.result["pipelines"] | {"rms-subtype": withheld | {"n_tiles": 0}, "sts-subtype": withheld | {"n_tiles": 40}}}
    with patch.object(type(store), "result", result):
        shown = {made[1]["name"] for p in plan_layers(store, None) if p.shown for made in [p.make()]}
    assert {n for n in shown if "no answer" in n} == {"sts-subtype: no answer"}


def test_all_images_start_at_the_slides_corner(layers: dict[str, Any]) -> None:
    for name, (_, options, kind) in layers.items():
        if kind in ("image", "labels"):
            np.testing.assert_allclose(corner_um(options), (-0.25, -0.25), atol=1e-9, err_msg=name)


def test_what_speaks_for_a_class_is_a_layer_on_the_same_corner(scored: Run, tmp_path: Path) -> None:
    store = SlideStore(shutil.copytree(scored.folder / "slides/lms.zarr", tmp_path / "slides/lms.zarr"))
    shutil.copy(scored.folder / "slides/lms.json", tmp_path / "slides")
    grid = grid_of(store.attributes["stages"]["sts-subtype"])
    heat = np.random.default_rng(0).random((2, 7 * grid.shape[1], 7 * grid.shape[0])).astype(np.float32)
    channels = [{"label": c, "color": "FFFFFF", "active": True, "window": {"min": 0, "max": 1, "start": 0, "end": 1}} for c in ("LMS", "SS")]
    write_image(store.path / "overlays/sts-subtype-grad-cam", "x", [heat], [placement(grid, 7)], fill=float("nan"), extra={"omero": {"channels": channels}})
    found = {layer[1]["name"]: layer for layer in store_layers(SlideStore(store.path))}
    for k, name in enumerate(("LMS", "SS")):
        values, options, kind = found[f"sts-subtype Grad-CAM: {name}"]
        assert (kind, options["visible"]) == ("image", False)
        np.testing.assert_array_equal(values, heat[k])
        np.testing.assert_allclose(corner_um(options), (-0.25, -0.25), atol=1e-9)
        np.testing.assert_allclose(np.array(options["scale"]) * 7, found[f"sts-subtype: {name}"][1]["scale"])


def test_points_are_where_their_pixels_are(layers: dict[str, Any], scored: Run) -> None:
    store = scored.store("lms")
    table = store.tables()["mitosis"]
    counted = table["position"][table["score"] >= store.result["pipelines"]["mitosis"]["threshold"]]
    np.testing.assert_allclose(layers["mitosis"][0], (counted[:, ::-1] - 0.5) * 0.5)


def test_the_hotspot_outline_is_the_results_box(layers: dict[str, Any], scored: Run) -> None:
    h = scored.results["lms"]["pipelines"]["mitosis"]["hotspot"]
    corners = layers["mitosis hotspot"][0][0]
    np.testing.assert_allclose(corners.min(0), to_world(np.array([[h["x"], h["y"]]]), (0.5, 0.5))[0])
    np.testing.assert_allclose(np.ptp(corners, axis=0), np.array([h["h"], h["w"]]) * 0.5, atol=1e-6)


def test_lazy_levels_are_the_slides_pixels(phantom: Any) -> None:
    slide = Slide(phantom.path)
    for level in slide.levels:
        array = lazy_level(slide, level)
        assert array.shape == (level.size.h, level.size.w, 3)
        y, x = level.size.h // 3, level.size.w // 3
        np.testing.assert_array_equal(np.asarray(array[y : y + 40, x : x + 50]), slide.read_level(level.index, wk.Region(x, y, 50, 40)))


def test_a_slide_without_mpp_still_opens_in_pixels(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((600, 700, 3), 200, np.uint8))
    (_, options, _) = slide_layers(Slide(tmp_path / "a.npy"))[0]
    assert options["scale"] == (1.0, 1.0)


def test_napari_is_offered_slides_and_stores_only(phantom: Any, scored: Run, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("not a slide")
    assert get_reader(str(phantom.path)) is not None
    assert get_reader(str(scored.folder / "slides/lms.zarr")) is not None
    assert get_reader(str(tmp_path / "note.txt")) is None
    assert get_reader(str(tmp_path)) is None


def test_the_manifest_is_valid_and_names_what_exists() -> None:
    from importlib import import_module

    from npe2 import PluginManifest

    import wsikit.view

    manifest = PluginManifest.from_file(Path(wsikit.view.__file__).parent / "napari.yaml")
    for command in manifest.contributions.commands or []:
        module, _, function = str(command.python_name).partition(":")
        assert callable(getattr(import_module(module), function))
