"""What of a file may be told, and where it keeps what may not: names, dates, numbers of patients, in text and in pictures of labels.

Values pass only when they are of a kind that can hold no name: numbers, units. Where patient data can be is said by the place, never by its
content.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from wsikit.readers._container import directories, is_checkable

_UNITS = frozenset(["none", "inch", "centimeter"])
_NUMBER = re.compile(r"[-+0-9.,eE]{1,24}|nan|inf")
_PICTURES = frozenset(["label", "macro", "thumbnail", "overview", "map", "localizer"])
_TEXT_TAGS = {
    269: "DocumentName", 270: "ImageDescription", 285: "PageName", 306: "DateTime", 315: "Artist", 316: "HostComputer", 333: "InkNames",
    337: "TargetPrinter", 700: "XMP", 33432: "Copyright", 33723: "IPTC", 34377: "Photoshop", 34665: "EXIF", 65427: "NDPI reference",
}  # fmt: skip
_ASCII, _BYTES = 2, (1, 2, 4, 7, 13)
_APERIO = frozenset(
    ["User", "Date", "Time", "Filename", "Title", "ScanScope ID", "Barcode", "Patient", "Patient ID", "Accession Number", "Case Number", "Slide Number"]
)
_DICOM = frozenset(
    ["PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAddress", "PatientComments", "OtherPatientNames", "AccessionNumber", "StudyDate",
     "StudyID", "StudyDescription", "SeriesDescription", "ContentDate", "ReferringPhysicianName", "InstitutionName", "OperatorsName", "ContainerIdentifier",
     "ImageComments", "BarcodeValue", "LabelText"]
)  # fmt: skip


def tellable(properties: Mapping[str, str], allowed: Iterable[str]) -> dict[str, str]:
    """The allowed properties whose values are numbers or units: a name can stand in any field.

    >>> tellable({"aperio.MPP": "0.5", "aperio.AppMag": "Jane Roe"}, ["aperio.MPP", "aperio.AppMag"])
    {'aperio.MPP': '0.5'}
    """
    found = {k: properties[k] for k in allowed if k in properties}
    return {k: v for k, v in found.items() if k == "openslide.vendor" or v in _UNITS or _NUMBER.fullmatch(v.strip())}


def picture_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names of label, macro and thumbnail images as they are known; any other is called ``other``."""
    return tuple(dict.fromkeys(name if name in _PICTURES else "other" for name in names))


def places_in_tiff(path: Path) -> list[str]:
    """Text fields of a TIFF that are filled in and may tell of a patient, and its pictures of labels, by their usual names.

    Raises
    ------
    SlideError
        The file's directories cannot be followed.
    """
    if not is_checkable(path):
        return []
    found: list[str] = []
    for image in directories(path):
        for tag, name in _TEXT_TAGS.items():
            if tag in image.fields and image.raw(tag).strip(b"\0 "):
                found.append(f"TIFF {name}")
    return list(dict.fromkeys(found))


def places_in_properties(properties: Mapping[str, str], associated: Iterable[str]) -> list[str]:
    """Fields, as OpenSlide names them, that are filled in and may tell of a patient; and pictures of the label."""
    found = [f"{name} image" for name in picture_names(associated) if name != "thumbnail"]
    for key, value in properties.items():
        vendor, _, field = key.partition(".")
        if value and ((vendor == "aperio" and field in _APERIO) or (vendor == "dicom" and field.split("[")[0] in _DICOM)):
            found.append(key if "[" not in key else key.split("[")[0])
        elif value and key in ("openslide.barcode", "openslide.comment"):
            found.append(key)
    return list(dict.fromkeys(found))
