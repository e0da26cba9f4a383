"""What a person chooses of a slide, bounds that a scanner states, and where it all is told: in the result, the report, the shapes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import ImageCms

import wsikit as wk
from wsikit.errors import UsageError
from wsikit.geometry import Region
from wsikit.readers import Facts, registry
from wsikit.readers.array import ArrayReader
from wsikit.report import write_reports
from wsikit.run.cases import find_cases
from wsikit.survey import overview_raster, survey
from wsikit.testing.phantom import Spec, make_phantom

BOUNDS = Region(1500, 900, 1024, 768)


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    """Phantom tissue of 1024 × 768 px on glass that is not white."""
    return make_phantom(Spec(3, "LMS", BOUNDS.w, BOUNDS.h, mitoses_per_mm2=60))[0]


class Bounded(ArrayReader):
    """As MRXS and SCN are: a canvas that is mostly nothing, and bounds that say where something is."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._bounds = BOUNDS if path.stem == "bounded" else None

    @property
    def facts(self) -> Facts:
        """With bounds."""
        return Facts(vendor="mirax", levels=super().facts.levels, bounds=self._bounds, properties={"wsikit.phantom": "1"})


@pytest.fixture
def bounded(tissue: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tissue far from the corner of a larger, white canvas."""
    monkeypatch.setitem(registry(), "array", Bounded)
    canvas = np.full((2400, 3600, 3), 255, np.uint8)
    canvas[BOUNDS.y : BOUNDS.y1, BOUNDS.x : BOUNDS.x1] = tissue
    np.save(tmp_path / "bounded.npy", canvas)
    return tmp_path / "bounded.npy"


def test_bounds_are_the_slide_for_tissue_and_stain(bounded: Path, tissue: np.ndarray, tmp_path: Path) -> None:
    """As much tissue and the same stain as when the tissue is all there is: the made-up white around it is not its glass."""
    np.save(tmp_path / "alone.npy", tissue)
    with wk.open_slide(bounded, mpp=0.5) as slide, wk.open_slide(tmp_path / "alone.npy", mpp=0.5) as alone:
        assert slide.bounds == BOUNDS
        assert alone.bounds == Region(0, 0, *alone.size)
        found, expected = survey(slide), survey(alone)
        assert overview_raster(slide).downsample == found.raster.downsample
        assert found.mask.white_point == pytest.approx(expected.mask.white_point, abs=1)
        assert found.mask.white_point < 250
        assert found.tissue_mm2 == pytest.approx(expected.tissue_mm2, rel=0.02)
        ys, xs = np.nonzero(found.mask.tissue)
        dx, dy = found.raster.downsample
        assert xs.min() * dx >= BOUNDS.x - dx
        assert (xs.max() + 1) * dx <= BOUNDS.x1 + dx
        assert ys.min() * dy >= BOUNDS.y - dy
        assert np.allclose(found.stain.vectors, expected.stain.vectors, atol=0.02)


def test_shapes_lie_where_qupath_draws_them(bounded: Path, tmp_path: Path) -> None:
    """QuPath crops to the bounds and counts from their corner; tables count from the slide's."""
    run = wk.score([bounded], tmp_path / "run", models={"mitosis": "phantom-mitosis"}, mpp_override=0.5)
    assert run.failed == {}
    shapes = json.loads((tmp_path / "run/slides/bounded.geojson").read_text())
    assert shapes["wsikit"] == {"origin": [BOUNDS.x, BOUNDS.y]}
    points = [f["geometry"]["coordinates"] for f in shapes["features"] if f["geometry"]["type"] == "Point"]
    table = run.store("bounded").tables()["mitosis"]["position"]
    assert len(points) == len(table) > 0
    assert np.allclose(np.array(points) + np.array([BOUNDS.x, BOUNDS.y]), table, atol=0.01)
    outline = np.concatenate(
        [np.array(ring[0]) for f in shapes["features"] if f["geometry"]["type"] == "MultiPolygon" for ring in f["geometry"]["coordinates"]]
    )
    assert outline.min() >= -16
    assert (outline.max(0) <= (BOUNDS.w + 16, BOUNDS.h + 16)).all()
    facts = run.results["bounded"]["slide"]
    assert facts["bounds"] == [BOUNDS.x, BOUNDS.y, BOUNDS.w, BOUNDS.h]


def test_a_slide_without_bounds_has_no_origin(scored: Any) -> None:
    assert "wsikit" not in json.loads((scored.folder / "slides/lms.geojson").read_text())


def profiled(path: Path, rgb: np.ndarray) -> Path:
    """A TIFF whose profile lets red and blue trade places."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    at = [profile.find(tag, 128) for tag in (b"rXYZ", b"bXYZ")]
    swapped = bytearray(profile)
    swapped[at[0] + 4 : at[0] + 8], swapped[at[1] + 4 : at[1] + 8] = profile[at[1] + 4 : at[1] + 8], profile[at[0] + 4 : at[0] + 8]
    tifffile.imwrite(
        path, rgb[..., ::-1], tile=(256, 256), photometric="rgb", iccprofile=bytes(swapped), metadata=None, resolution=(20_000, 20_000), resolutionunit=3
    )
    return path


def test_a_colour_profile_is_part_of_the_recipe(tissue: np.ndarray, tmp_path: Path) -> None:
    """Applied or not is in the result and the report, and asking for the other does the work again."""
    path = profiled(tmp_path / "a.tif", tissue)
    done = {}
    for icc in ("keep", "srgb", "keep"):
        run = wk.score([path], tmp_path / "run", pipelines=["sts-subtype"], icc=icc)
        facts = run.results["a"]["slide"]["icc"]
        assert facts["applied"] == icc
        assert len(facts["sha256"]) == 64
        done.setdefault(icc, []).append(run.results["a"]["stain"])
        page = (write_reports(tmp_path / "run").parent / "a.html").read_text()
        assert ("applied (sRGB)" in page, "not applied" in page) == (icc == "srgb", icc == "keep")
    assert done["keep"][0] == done["keep"][1]
    assert done["keep"][0] != done["srgb"][0]
    assert done["srgb"][0]["trusted"]
    with pytest.raises(UsageError, match="choose keep or srgb"):
        wk.score([path], tmp_path / "other", pipelines=["sts-subtype"], icc="adobe")


def test_the_focal_plane_is_an_option_and_a_column(tissue: np.ndarray, tmp_path: Path) -> None:
    stack = np.stack([np.full_like(tissue, 240), tissue, np.full_like(tissue, 240)])
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, stack, photometric="rgb", ome=True, tile=(256, 256), metadata={"axes": "ZYXS", **sizes})
    (tmp_path / "cases.csv").write_text("path,focal_plane\na.ome.tif,z0\n")
    assert find_cases([tmp_path / "cases.csv"])[0].focal_plane == "z0"
    found = {}
    for name, inputs, more in (("middle", path, {}), ("option", path, {"focal_plane": "z2"}), ("csv", tmp_path / "cases.csv", {"focal_plane": "z2"})):
        result = wk.score([inputs], tmp_path / name, pipelines=["sts-subtype"], **more).results["a"]
        found[name] = (result["slide"]["focal_plane"], result["tissue_mm2"] > 0.05)
    assert found == {"middle": ("z1", True), "option": ("z2", False), "csv": ("z0", False)}
    run = wk.score([path], tmp_path / "none", pipelines=["sts-subtype"], focal_plane="z7")
    assert "there is no focal plane 'z7'; it has z0, z1, z2" in run.failed["a"]


def test_an_enlarged_slide_says_so_wherever_its_answer_stands(slide: Path, tmp_path: Path) -> None:
    """The same file said to be twice as coarse: refused, or enlarged by two for a model of 1 µm/px."""
    refused = wk.score([slide], tmp_path / "refused", ["sts-subtype"], mpp_override=2.0).results["small"]["pipelines"]["sts-subtype"]
    assert refused["status"] == "refused"
    assert "--upsample" in refused["reason"]
    run = wk.score([slide], tmp_path / "run", ["sts-subtype"], mpp_override=2.0, upsample=True)
    result = run.results["small"]["pipelines"]["sts-subtype"]
    assert (result["status"], result["enlarged"]) == ("ok", 2.0)
    (row,) = csv.DictReader((run.folder / "slides.csv").open())
    assert row["sts-subtype.enlarged"] == "2.0"
    write_reports(run.folder)
    assert "enlarged 2 × for this model" in (run.folder / "reports/small.html").read_text()
    plain = wk.score([slide], tmp_path / "plain", ["sts-subtype"], mpp_override=0.5, upsample=True)
    assert "enlarged" not in plain.results["small"]["pipelines"]["sts-subtype"]
