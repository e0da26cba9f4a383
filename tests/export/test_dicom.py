"""DICOM results, read back by highdicom and wsidicom: where they were found, whose they are, and what they say."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

import wsikit as wk
from wsikit.errors import StoreMismatchError
from wsikit.export import export_run
from wsikit.run import Run
from wsikit.store import SlideStore, open_store

hd = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")
wsidicom = pytest.importorskip("wsidicom")

from wsikit.export.dicom import EMPTY_ALLOWED, _heat_map, write_dicom  # noqa: E402
from wsikit.testing.dicom import write_dicom as write_slide  # noqa: E402


@dataclass(frozen=True)
class Exported:
    """A DICOM slide, a store of what was found on it, and the objects that tell it."""

    slide: Path
    store: SlideStore
    folder: Path

    def read(self, what: str) -> pydicom.Dataset:
        return pydicom.dcmread(self.folder / f"lms.{what}.dcm")


@pytest.fixture(scope="module")
def exported(scored: Run, phantom: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    """The scored phantom as DICOM; its store is that of the same pixels."""
    folder = tmp_path_factory.mktemp("dicom")
    rgb = tifffile.imread(phantom.path)
    write_slide(folder / "slide", [rgb, np.ascontiguousarray(rgb[::4, ::4])], 0.5)
    shutil.copytree(scored.folder / "slides/lms.zarr", folder / "lms.zarr")
    shutil.copy(scored.folder / "slides/lms.json", folder)
    root = zarr.open_group(str(folder / "lms.zarr"), mode="r+")
    attributes = root.attrs["wsikit"]
    attributes["slide"]["digest"] = wk.open_slide(folder / "slide").digest  # type: ignore[index, call-overload]
    root.attrs["wsikit"] = attributes
    shutil.copytree(folder / "lms.zarr/overlays/sts-subtype", folder / "lms.zarr/overlays/sts-subtype-grad-cam")  # as `--explain` adds one
    store = open_store(folder / "lms.zarr")
    files = list(write_dicom(store, folder / "out", folder / "slide"))
    assert {p.name.removeprefix("lms.").removesuffix(".dcm") for p in files} >= {
        "sr",
        "mitosis.ann",
        "mitosis.map",
        "sts-subtype.map",
        "sts-subtype-grad-cam.map",
        "rms-subtype.map",
    }
    yield Exported(folder / "slide", store, folder / "out")


def wrong_with(path: Path) -> list[str]:
    """What dciodvfy, of David Clunie's dicom3tools, calls an error."""
    done = subprocess.run([Path(sys.executable).with_name("dciodvfy"), path], capture_output=True, text=True, errors="replace", timeout=60)
    told = (done.stdout + done.stderr).splitlines()
    return [line for line in told if line.startswith("Error")] or ([] if done.returncode == 0 and len(told) > 1 else told)


def test_dciodvfy_finds_no_error(exported: Exported) -> None:
    for path in sorted(exported.folder.iterdir()):
        assert wrong_with(path) == [], path.name
    assert wrong_with(next(exported.slide.glob("level0*"))), "and it does find some: the slide of these tests is a bare one"


def test_all_belong_to_the_slide(exported: Exported) -> None:
    source = pydicom.dcmread(next(exported.slide.glob("level0*")), stop_before_pixels=True)
    objects = [pydicom.dcmread(p) for p in exported.folder.iterdir()]
    for ds in objects:
        assert (ds.StudyInstanceUID, ds.PatientID) == (source.StudyInstanceUID, "")
        assert getattr(ds, "FrameOfReferenceUID", source.FrameOfReferenceUID) == source.FrameOfReferenceUID
        assert source.SOPInstanceUID in str(ds)
        assert "Research use only" in str(ds)
        assert ds.SpecificCharacterSet == "ISO_IR 192"
    assert len({ds.SOPInstanceUID for ds in objects}) == len({ds.SeriesInstanceUID for ds in objects}) == len(objects)


def test_detections_are_where_they_were_found(exported: Exported) -> None:
    table = exported.store.tables()["mitosis"]
    found = hd.ann.annread(exported.folder / "lms.mitosis.ann.dcm")
    position, score = [], []
    for group in found.get_annotation_groups():
        position += list(group.get_graphic_data(coordinate_type="2D"))
        score += group.get_measurements()[1].ravel().tolist()
    order = np.lexsort(np.concatenate(position).T)
    expected = np.lexsort(table["position"].T)
    assert (np.concatenate(position)[order] == table["position"][expected]).all()
    assert (np.array(score, np.float32)[order] == table["score"][expected]).all()


def test_wsidicom_shows_them_there_too(exported: Exported) -> None:
    files = [*exported.slide.glob("*.dcm"), exported.folder / "lms.mitosis.ann.dcm"]
    with wsidicom.WsiDicom.open(files) as slide:
        points = [a.geometry for found in slide.annotations for group in found.groups for a in group.annotations]
    position = exported.store.tables()["mitosis"]["position"]
    away = np.abs(np.array([(p.x, p.y) for p in points])[:, None] - position).max(-1).min(1)
    assert len(points) == len(position) > 0
    assert away.max() < 0.5


def test_a_heat_map_lies_on_its_tiles(exported: Exported) -> None:
    source = pydicom.dcmread(next(exported.slide.glob("level0*")), stop_before_pixels=True)
    to_pixel = hd.spatial.ReferenceToPixelTransformer.for_image(source, for_total_pixel_matrix=True, round_output=False)
    heat = exported.store.overlay("sts-subtype")
    table = exported.store.tables()["sts-subtype"]
    ds = exported.read("sts-subtype.map")
    assert ds.NumberOfFrames == len(heat.channels)
    to_slide = hd.spatial.PixelToReferenceTransformer.for_image(ds, for_total_pixel_matrix=True)
    values = np.frombuffer(ds.FloatPixelData, np.float32).reshape(-1, ds.Rows, ds.Columns)
    for row in range(ds.Rows):
        for column in range(ds.Columns):
            x, y = (to_pixel(to_slide(np.array([[column, row]]))) + 0.5)[0, :2]
            inside = ((table["origin"] <= (x, y)) & ((x, y) < table["origin"] + table["size"])).all(1)
            if inside.any():
                centre = (table["origin"] + table["size"] / 2)[inside][0]
                assert (x, y) == pytest.approx(centre, abs=0.5)
                assert values[:, row, column] == pytest.approx(table["probability"][inside][0])
            else:
                assert (values[:, row, column] == ds.FloatPixelPaddingValue).all()


def test_a_heat_map_lies_on_the_picture_whatever_mpp_was_passed(exported: Exported, phantom: Any, tmp_path: Path) -> None:
    """The header says 0.25 µm/px, and the slide was scored with 0.5 passed over that: viewers place the map by the header."""
    write_slide(tmp_path / "slide", [tifffile.imread(phantom.path)], 0.25)
    image = pydicom.dcmread(next((tmp_path / "slide").glob("level0*")), stop_before_pixels=True)
    for keyword in EMPTY_ALLOWED:
        setattr(image, keyword, image.get(keyword, ""))
    found, heat = _heat_map(exported.store, image, "sts-subtype"), exported.store.overlay("sts-subtype")
    spacing = [float(v) for v in found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing]
    assert spacing == pytest.approx([heat.placement.scale[1] / 0.5 * 0.25e-3, heat.placement.scale[0] / 0.5 * 0.25e-3])


def test_calls_and_counts_are_those_of_the_result(exported: Exported) -> None:
    report = hd.sr.srread(exported.folder / "lms.sr.dcm").content
    result = exported.store.result["pipelines"]
    told = {g.tracking_identifier.split()[-1]: g for g in report.get_image_measurement_groups()}
    for name, answer in result.items():
        said = {e.name.value: e.value.meaning for e in told[name].get_qualitative_evaluations()}
        numbers = {m.name.value: m.value for m in told[name].get_measurements()}
        assert said["status"] == answer["status"] == "ok"
        assert said.get("call") == answer.get("call")
        assert numbers.get("count") == answer.get("count")
        for c, p in answer.get("probability", {}).items():
            assert numbers[f"p-{c}"] == pytest.approx(p)
    (spot,) = report.get_planar_roi_measurement_groups()
    h = result["mitosis"]["hotspot"]
    assert spot.roi.value[0] == pytest.approx((h["x"], h["y"]))
    assert spot.roi.value[2] == pytest.approx((h["x"] + h["w"], h["y"] + h["h"]))
    assert {m.name.value: m.value for m in spot.get_measurements()}["per_mm2"] == pytest.approx(h["per_mm2"])
    assert {m.name.value: m.unit.value for m in spot.get_measurements()}["per_mm2"] == "/mm2"


def test_writing_again_makes_the_same_objects(exported: Exported, tmp_path: Path) -> None:
    for path in write_dicom(exported.store, tmp_path, exported.slide):
        assert pydicom.dcmread(path).SOPInstanceUID == pydicom.dcmread(exported.folder / path.name).SOPInstanceUID


def test_another_slide_is_refused(exported: Exported, scored: Run, phantom: Any, tmp_path: Path) -> None:
    with pytest.raises(StoreMismatchError, match="is not the slide that was scored"):
        list(write_dicom(scored.store("lms"), tmp_path, exported.slide))
    with pytest.raises(StoreMismatchError, match="is no DICOM slide"):
        list(write_dicom(scored.store("lms"), tmp_path, phantom.path))


def test_a_real_slide_of_an_archive(data: Path, tmp_path: Path) -> None:
    """No model answers on it (the mitosis model needs finer pixels): the report says so, and nothing else is written."""
    run = wk.score([data / "slides/dicom-cmu-small-napari"], tmp_path / "run")
    (path,) = export_run(run.folder, tmp_path, "dicom").files
    assert wrong_with(path) == []
    report = hd.sr.srread(path)
    source = pydicom.dcmread(next((data / "slides/dicom-cmu-small-napari").iterdir()), stop_before_pixels=True)
    assert (report.PatientID, report.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)
    for group in report.content.get_image_measurement_groups():
        said = {e.name.value: e.value.value for e in group.get_qualitative_evaluations()}
        assert said["status"] in ("abstained", "refused")
        assert said["reason"]
        assert said["reason"]
        assert not group.get_measurements()
