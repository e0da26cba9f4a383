"""Results as DICOM objects that belong to a DICOM slide, through highdicom (extra ``dicom``).

Detections are Microscopy Bulk Simple Annotations, heat maps Parametric Maps, calls and counts a Comprehensive 3D SR (TID 1500). All carry
the patient, study and frame of reference of the slide, as an archive needs them. Coordinates are of the total pixel matrix of its finest
level, which are our level-0 px as they are: 0, 0 is the corner of the first pixel (PS3.3 C.18.6.1.2). Positions of heat maps on the slide are
those of pixels' centres, in mm.

An answer that was withheld is told as such in the SR, and has no annotations and no map.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from shapely import MultiPolygon, get_coordinates

from wsikit import RESEARCH_USE_ONLY, __version__
from wsikit.aggregate.searched import counts_of
from wsikit.errors import StoreMismatchError, UsageError, how_to_install
from wsikit.overlay.heat import explaining
from wsikit.overlay.picture import heat_top
from wsikit.overlay.shapes import hotspot_outlines
from wsikit.readers._dicom import series_of
from wsikit.slide import open_slide
from wsikit.store import SlideStore
from wsikit.store.durable import atomic_file, digest_of

try:
    import highdicom as hd
    from highdicom.sr import CodedConcept
    from pydicom import dcmread
    from pydicom.dataset import Dataset
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid
except ImportError as e:
    raise UsageError(f"DICOM results need highdicom; {how_to_install('dicom')}") from e

SCHEME = "99WSIKIT"
EMPTY_ALLOWED = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName")
PADDING = -1.0  # where a heat map has no value
_NO_UNITS = codes.UCUM.NoUnits
_PER_MM2, _MM2, _COUNT = (CodedConcept(c, "UCUM", m) for c, m in (("/mm2", "per square millimeter"), ("mm2", "square millimeter"), ("{counts}", "counts")))


def write_dicom(store: SlideStore, folder: Path, source: Path) -> Iterator[Path]:
    """Write a slide's results; yields the files.

    Parameters
    ----------
    source : the DICOM slide that was scored: a file or a folder

    Raises
    ------
    StoreMismatchError
        The slide is not DICOM, or is not the one that was scored.
    SlideError
        The slide cannot be read.
    OutputError
        The folder cannot be written.
    """
    image = source_image(store, source)
    made: list[tuple[str, Any]] = [("sr", _report(store, image))]
    for name, result in store.result["pipelines"].items():
        if result["status"] != "ok":
            continue
        made += [(f"{map_}.map", _heat_map(store, image, map_)) for map_ in (name, explaining(name)) if map_ in store.overlays()]
        if "threshold" in result and len(store.tables()[name]["score"]):
            made.append((f"{name}.ann", _annotations(store, image, name, result)))
    for what, dataset in made:
        path = folder / f"{store.slide_id}.{what}.dcm"
        with atomic_file(path) as f:
            dataset.save_as(f)
        yield path


def source_image(store: SlideStore, source: Path) -> Dataset:
    """The header of the slide's finest level, with what highdicom takes from it.

    Raises
    ------
    StoreMismatchError
        The slide is not DICOM, or is not the one that was scored.
    SlideError
        The slide cannot be read.
    """
    with open_slide(source) as slide:
        if slide.facts.vendor != "dicom":
            raise StoreMismatchError(f"{source}: is no DICOM slide, to which DICOM results could belong; convert it (wsidicomizer) and score that")
        if slide.digest != store.attributes["slide"]["digest"]:
            raise StoreMismatchError(f"{source}: is not the slide that was scored, its bytes are others; score it again")
    finest = max((i for i in series_of(source) if i.is_volume), key=lambda i: i.width)
    image = dcmread(finest.path, stop_before_pixels=True)
    for keyword in EMPTY_ALLOWED:
        if keyword not in image:
            setattr(image, keyword, "")
    return image


def _annotations(store: SlideStore, image: Dataset, name: str, result: dict[str, Any]) -> Any:
    table = store.tables()[name]
    position, score = table["position"], table["score"]
    counted = counts_of(store, result)(position, score)
    groups: list[Any] = []
    for label, which in (("Mitosis", counted), ("Below threshold", score < np.float32(result["threshold"]))):
        if which.any():
            groups.append(_group(len(groups) + 1, label, position[which], score[which], store, name))
    found = hd.ann.MicroscopyBulkSimpleAnnotations(
        source_images=[image],
        annotation_coordinate_type=hd.ann.AnnotationCoordinateTypeValues.SCOORD,
        annotation_groups=groups,
        content_label="WSIKIT",
        content_description=f"{name}: {RESEARCH_USE_ONLY}"[:64],
        **_about(store, f"{name} ann", 1),
    )
    return _with_side(found, image)


def _with_side(found: Any, image: Dataset) -> Any:
    """The side of the body as the slide has it, which is seldom said: then it is empty, since the standard wants it where there may be two."""
    found.Laterality = image.get("Laterality", "")
    return found


def _group(number: int, label: str, position: np.ndarray, score: np.ndarray, store: SlideStore, name: str) -> Any:
    model = store.result["provenance"]["models"][name]
    return hd.ann.AnnotationGroup(
        number=number,
        uid=_uid(store, f"{name} {label}"),
        label=label,
        description=RESEARCH_USE_ONLY,
        annotated_property_category=CodedConcept("91723000", "SCT", "Anatomical structure"),
        annotated_property_type=CodedConcept("75167008", "SCT", "Mitotic cell")
        if label == "Mitosis"
        else _own("below-threshold", "Below the mitosis threshold"),
        graphic_type=hd.ann.GraphicTypeValues.POINT,
        graphic_data=list(position.reshape(-1, 1, 2)),
        algorithm_type=hd.ann.AnnotationGroupGenerationTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=model["name"], family=codes.DCM.ArtificialIntelligence, version=__version__, parameters={"digest": model["digest"]}
        ),
        measurements=[hd.ann.Measurements(name=_own("score", "Detection score"), values=score.astype(np.float32), unit=_NO_UNITS)],
    )


def _heat_map(store: SlideStore, image: Dataset, name: str) -> Any:
    heat = store.overlay(name)
    (sx, sy), start = ([v / m for v, m in zip(um, store.mpp, strict=True)] for um in (heat.placement.scale, heat.placement.translation))  # level-0 px
    to_slide = hd.spatial.PixelToReferenceTransformer.for_image(image, for_total_pixel_matrix=True)
    corner = to_slide.affine @ [start[0], start[1], 0, 1]  # the centre of the first cell, in mm
    # px of the slide are as large as its header says, whatever mpp was passed over that: the map must lie on the picture
    column_mm, row_mm = (float(np.linalg.norm(to_slide.affine[:3, axis])) for axis in (0, 1))
    orientation = [float(v) for v in image.ImageOrientationSlide]
    unit = _PER_MM2 if any("mm2" in c for c in heat.channels) else _NO_UNITS
    mappings = [
        hd.pm.RealWorldValueMapping(
            lut_label=channel[:16], lut_explanation=f"{name}: {channel}"[:64], unit=unit, value_range=[0.0, heat_top(v)], slope=1.0, intercept=0.0
        )
        for channel, v in zip(heat.channels, heat.values, strict=True)
    ]
    top = max(heat_top(v) for v in heat.values)
    found = hd.pm.ParametricMap(
        source_images=[image],
        pixel_array=np.nan_to_num(np.moveaxis(heat.values, 0, -1), nan=PADDING)[None].astype(np.float32),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[[m] for m in mappings],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=top / 2, window_width=top)],
        pixel_measures=hd.PixelMeasuresSequence(pixel_spacing=[sy * row_mm, sx * column_mm], slice_thickness=0.001),
        plane_orientation=hd.PlaneOrientationSequence("SLIDE", orientation),
        plane_positions=[hd.PlanePositionSequence("SLIDE", [float(v) for v in corner[:3]], (1, 1))],
        content_label="WSIKIT",
        content_description=f"{name}: {RESEARCH_USE_ONLY}"[:64],
        tile_pixel_array=True,
        tile_size=heat.values.shape[1:],
        **_about(store, f"{name} map", 2),
    )
    found.FloatPixelPaddingValue = found.FloatPixelPaddingRangeLimit = PADDING  # dciodvfy wants a range, here of one value
    return _with_side(found, image)


def _report(store: SlideStore, image: Dataset) -> Any:
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=["wsikit", __version__]), name="wsikit", manufacturer_name="wsikit", model_name=f"wsikit {__version__}"
    )
    groups = [g for name, result in store.result["pipelines"].items() for g in _groups(store, image, name, result)]
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(
            observer_device_context=hd.sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
        ),
        procedure_reported=CodedConcept("112703", "DCM", "Whole Slide Imaging"),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
        referenced_images=[image],
    )
    about = _about(store, "sr", 3)
    return hd.sr.Comprehensive3DSR(
        evidence=[image],
        content=content[0],
        series_description=RESEARCH_USE_ONLY[:64],
        **{k: about[k] for k in ("series_instance_uid", "series_number", "sop_instance_uid", "instance_number", "manufacturer", "specific_character_set")},
    )


def _groups(store: SlideStore, image: Dataset, name: str, r: dict[str, Any]) -> Iterator[Any]:
    """What a pipeline says of the whole slide, and of its hotspot."""
    model = store.result["provenance"]["models"].get(name, {"name": name, "digest": "-"})
    algorithm = hd.sr.AlgorithmIdentification(name=model["name"], version=__version__, parameters=[f"digest {model['digest']}", RESEARCH_USE_ONLY])
    told = [("status", "Status of the answer", r["status"])]
    told += [("reason", "Why no answer is given", r["reason"])] if r["reason"] else []
    told += [("call", "Subtype called", r["call"])] if r["status"] == "ok" and "call" in r else []
    told += [("group", "Risk group", r["group"])] if r["status"] == "ok" and "group" in r else []
    yield hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=_uid(store, f"{name} slide"), identifier=f"{store.slide_id} {name}"),
        finding_type=_own(name, f"wsikit pipeline {name}"),
        algorithm_id=algorithm,
        qualitative_evaluations=[hd.sr.QualitativeEvaluation(name=_own(c, m), value=_own(str(v), str(v))) for c, m, v in told],
        measurements=_measurements(r) if r["status"] == "ok" else None,
    )
    if r["status"] == "ok" and (h := r.get("hotspot")):
        parts = hotspot_outlines(h)
        ring = get_coordinates(parts[0] if len(parts) == 1 else MultiPolygon(parts).envelope)  # several fields have no outline of one line: their box
        region = hd.sr.ImageRegion(
            graphic_type=hd.sr.GraphicTypeValues.POLYLINE,
            graphic_data=ring,
            source_image=hd.sr.SourceImageForRegion.from_source_image(image),
            pixel_origin_interpretation=hd.sr.PixelOriginInterpretationValues.VOLUME,
        )
        yield hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=hd.sr.TrackingIdentifier(uid=_uid(store, f"{name} hotspot"), identifier=f"{store.slide_id} {name} hotspot"),
            referenced_region=region,
            finding_type=_own("hotspot", "Window with most mitoses"),
            algorithm_id=algorithm,
            measurements=_measurements(h),
        )


def _measurements(r: dict[str, Any]) -> list[Any]:
    """The numbers of an answer, those of them that it has."""
    found = [(_own(f"p-{c}", f"Probability of {c}"), p, _NO_UNITS) for c, p in r.get("probability", {}).items()]
    for key, meaning, unit in (
        ("doubt", "Doubt of the call", _NO_UNITS),
        ("count", "Mitotic count", _COUNT),
        ("area_mm2", "Tissue area", _MM2),
        ("tissue_mm2", "Tissue area of the window", _MM2),
        ("per_mm2", "Mitoses per tissue area", _PER_MM2),
        ("low", "Lower 95 % limit of mitoses per area", _PER_MM2),
        ("high", "Upper 95 % limit of mitoses per area", _PER_MM2),
        ("risk", "Log hazard ratio", _NO_UNITS),
    ):
        if isinstance(r.get(key), int | float):
            found.append((_own(key, meaning), r[key], unit))
    return [hd.sr.Measurement(name=n, value=float(v), unit=u) for n, v, u in found]


def _own(code: str, meaning: str) -> CodedConcept:
    """A concept of ours, where the standard has none; of its texts 64 bytes, which is what fits and what validators count."""
    code, meaning = (text.encode()[:64].decode(errors="ignore") for text in (code, meaning))
    return CodedConcept(code, SCHEME, meaning)


def _uid(store: SlideStore, what: str) -> str:
    """The same for the same result, so that writing again makes no second object."""
    return str(generate_uid(entropy_srcs=[store.attributes["slide"]["digest"], digest_of(store.result), what]))


def _about(store: SlideStore, what: str, number: int) -> dict[str, Any]:
    return {
        "series_instance_uid": _uid(store, f"{what} series"),
        "series_number": 900 + number,
        "sop_instance_uid": _uid(store, what),
        "instance_number": 1,
        "specific_character_set": "ISO_IR 192",  # reasons have µ in them, classes perhaps umlauts
        "manufacturer": "wsikit",
        "manufacturer_model_name": "wsikit",
        "software_versions": __version__,
        "device_serial_number": "0",
    }
