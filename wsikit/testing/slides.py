"""Small slides as scanners write them, label and macro image and free text included: what tests of damage and of patient data begin with.

Each writer takes a picture, and a ``name`` that it puts wherever such a file has room for one: into every text field, and (as `NAME_COLOUR`)
into the images of label and overview.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile

NAME_COLOUR = (255, 0, 255)
MPP = 0.5
TILE = 256
QUALITY = 88


def half(rgb: np.ndarray) -> np.ndarray:
    """A picture at half its size, by means of four: uint8 (H // 2, W // 2, 3)."""
    h, w = rgb.shape[0] // 2, rgb.shape[1] // 2
    return np.asarray(rgb[: 2 * h, : 2 * w].reshape(h, 2, w, 2, 3).mean((1, 3)).round().astype(np.uint8))


def label_image(height: int = 120, width: int = 160) -> np.ndarray:
    """What a label with a name on it looks like to a machine: nothing but `NAME_COLOUR`."""
    return np.full((height, width, 3), NAME_COLOUR, np.uint8)


def write_svs(path: Path, rgb: np.ndarray, name: str = "Jane Roe", *, mpp: str = "0.5", compression: str = "jpeg") -> Path:
    """As Aperio's scanners write: level, thumbnail, coarser level, label, macro; key = value text in the descriptions."""
    tiles: dict[str, Any] = {"tile": (TILE, TILE), "photometric": "rgb", "compression": compression, "metadata": None}
    strips: dict[str, Any] = {"photometric": "rgb", "compression": "jpeg", "rowsperstrip": 16, "metadata": None}
    if compression == "jpeg":
        tiles["compressionargs"] = {"level": QUALITY}
    (h, w), small = rgb.shape[:2], half(half(rgb))
    words = f"AppMag = 20|MPP = {mpp}|Filename = {name}|Title = {name}|User = {name}|Date = {name}|ScanScope ID = {name}|Barcode = {name}|{name} = {name}"
    first = f"Aperio Image Library v11.2.1\r\n{w}x{h} [0,0 {w}x{h}] ({TILE}x{TILE}) JPEG/RGB Q={QUALITY}|{words}"
    texts: Any = [(tag, "s", 0, name, False) for tag in (269, 271, 272, 285, 306, 315, 316, 337, 33432)]
    with tifffile.TiffWriter(path) as tif:
        tif.write(rgb, description=first, software=name, extratags=texts, **tiles)
        tif.write(small, description=f"Aperio Image Library v11.2.1\r\n{w}x{h} -> {small.shape[1]}x{small.shape[0]} |{words}", **strips)
        tif.write(half(rgb), description=first, subfiletype=1, **tiles)
        tif.write(label_image(), description="Aperio Image Library v11.2.1\r\nlabel 160x120", subfiletype=1, **strips)
        tif.write(label_image(100, 300), description="Aperio Image Library v11.2.1\r\nmacro 300x100", subfiletype=9, **strips)
    return path


def write_ome(path: Path, rgb: np.ndarray, name: str = "Jane Roe", *, mpp: float = MPP) -> Path:
    """OME-TIFF: a pyramid in SubIFDs and a second image called label; names in every text that OME-XML has room for."""
    tiles: dict[str, Any] = {"tile": (TILE, TILE), "photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": QUALITY}}
    facts = {"axes": "YXS", "PhysicalSizeX": mpp, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": mpp, "PhysicalSizeYUnit": "µm"}
    texts: Any = [(tag, "s", 0, name, False) for tag in (269, 271, 272, 285, 306, 315, 316, 33432)]
    words = {"Name": name, "Description": name, "Experimenter": name, "MapAnnotation": {"Patient": name}, "Channel": {"Name": [name]}}
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(rgb, subifds=1, metadata=facts | words, software=name, extratags=texts, **tiles)
        tif.write(half(rgb), subfiletype=1, **tiles)
        tif.write(label_image(), photometric="rgb", metadata={"axes": "YXS", "Name": f"label {name}"})
    return path


def write_dicom(folder: Path, rgb: np.ndarray, name: str = "Jane Roe", *, mpp: float = MPP) -> Path:
    """A DICOM slide: two levels, a label and an overview, one instance each, with everything of a patient filled in. Needs pydicom."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [("VOLUME", "NONE", rgb, mpp), ("VOLUME", "RESAMPLED", half(rgb), 2 * mpp)]
    images += [("LABEL", "NONE", label_image(), 50.0), ("OVERVIEW", "NONE", label_image(100, 300), 80.0)]
    for number, (kind, derived, picture, spacing) in enumerate(images, 1):
        _instance(number, kind, derived, picture, spacing, name).save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def _instance(number: int, kind: str, derived: str, rgb: np.ndarray, mpp: float, name: str) -> Any:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID, JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage

    root, (h, w) = "1.2.826.0.1.3680043.8.498.77", rgb.shape[:2]
    meta, ds = FileMetaDataset(), Dataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = UID(f"{root}.3.{number}")
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.file_meta = meta
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = (f"{root}.{i}" for i in (1, 2, 4))
    ds.Modality, ds.InstanceNumber, ds.SeriesNumber = "SM", number, 1
    ds.ImageType = ["ORIGINAL" if derived == "NONE" else "DERIVED", "PRIMARY", kind, derived]
    for field in ("PatientName", "PatientID", "OtherPatientNames", "PatientAddress", "PatientComments", "ReferringPhysicianName", "InstitutionName"):
        setattr(ds, field, name)
    for field in ("OperatorsName", "StudyDescription", "SeriesDescription", "StudyID", "AccessionNumber", "ContainerIdentifier", "ImageComments"):
        setattr(ds, field, name[:16])
    for field in ("BarcodeValue", "LabelText", "Manufacturer", "DeviceSerialNumber", "StationName", "SoftwareVersions"):
        setattr(ds, field, name[:16])
    ds.PatientBirthDate = ds.StudyDate = ds.ContentDate = "19560713"
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "YBR_FULL_422", 0
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation, ds.LossyImageCompression = 7, 0, "01"
    ds.Rows, ds.Columns = (TILE, TILE) if kind == "VOLUME" else (h, w)
    frames = _frames(rgb, int(ds.Rows), int(ds.Columns))
    ds.NumberOfFrames = len(frames)
    ds.TotalPixelMatrixRows, ds.TotalPixelMatrixColumns, ds.TotalPixelMatrixFocalPlanes = h, w, 1
    ds.DimensionOrganizationType = "TILED_FULL"
    ds.ImagedVolumeWidth, ds.ImagedVolumeHeight, ds.ImagedVolumeDepth = w * mpp / 1000, h * mpp / 1000, 0.001
    ds.NumberOfOpticalPaths, ds.BurnedInAnnotation, ds.SpecimenLabelInImage = 1, "YES" if kind == "LABEL" else "NO", "YES" if kind == "LABEL" else "NO"
    measures, path, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [mpp / 1000, mpp / 1000], 0.001
    shared.PixelMeasuresSequence = [measures]
    ds.SharedFunctionalGroupsSequence = [shared]
    path.OpticalPathIdentifier, path.OpticalPathDescription, path.ObjectiveLensPower = "1", name, 20
    ds.OpticalPathSequence = [path]
    ds.PixelData = encapsulate(frames)
    return ds


def _frames(rgb: np.ndarray, th: int, tw: int) -> list[bytes]:
    """JPEG frames row by row, the last ones filled up with white."""
    h, w = rgb.shape[:2]
    full = np.full((-(-h // th) * th, -(-w // tw) * tw, 3), 255, np.uint8)
    full[:h, :w] = rgb
    tiles = [full[y : y + th, x : x + tw] for y in range(0, len(full), th) for x in range(0, full.shape[1], tw)]
    return [bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(t), level=QUALITY, colorspace="rgb", outcolorspace="ycbcr")) for t in tiles]
