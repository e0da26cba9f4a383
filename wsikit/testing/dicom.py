"""Phantom DICOM slides of every kind that the standard allows: full or sparse tiling, codecs, concatenations, focal planes, one file a level."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import JPEG2000, UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, generate_uid

SOP_CLASS = UID("1.2.840.10008.5.1.4.1.1.77.1.6")  # VL Whole Slide Microscopy Image
Frame = Callable[[np.ndarray], bytes]


def _jpeg(colourspace: str, subsampling: str) -> Frame:
    return lambda tile: bytes(imagecodecs.jpeg8_encode(tile, level=92, outcolorspace=colourspace, subsampling=subsampling))


# how frames are stored: transfer syntax, encoder, true PhotometricInterpretation
KINDS: dict[str, tuple[UID, Frame, str]] = {
    "raw": (ExplicitVRLittleEndian, lambda tile: tile.tobytes(), "RGB"),
    "jpeg": (JPEGBaseline8Bit, _jpeg("YCBCR", "420"), "YBR_FULL_422"),
    "jpeg-444": (JPEGBaseline8Bit, _jpeg("YCBCR", "444"), "YBR_FULL"),
    "jpeg-rgb": (JPEGBaseline8Bit, _jpeg("RGB", "444"), "RGB"),
    "j2k": (JPEG2000Lossless, lambda tile: bytes(imagecodecs.jpeg2k_encode(tile, level=0, codecformat="j2k", mct=False)), "RGB"),
    "j2k-lossy": (JPEG2000, lambda tile: bytes(imagecodecs.jpeg2k_encode(tile, level=45, codecformat="j2k")), "YBR_ICT"),
    "jpeg-ls": (JPEGLSLossless, lambda tile: bytes(imagecodecs.jpegls_encode(tile)), "RGB"),
}


@dataclass(frozen=True)
class Layout:
    """How a slide lies in its files.

    Attributes
    ----------
    kind : one of `KINDS`
    tile_px : side of the frames
    sparse : TILED_SPARSE, with the frames in no order and those that are all white left out
    parts : files that a level is cut into (a concatenation)
    photometric : what the header claims, if not the truth
    illumination : meaning of the light's code
    """

    kind: str = "jpeg"
    tile_px: int = 128
    sparse: bool = False
    parts: int = 1
    photometric: str = ""
    illumination: str = "Brightfield illumination"


def write_dicom(folder: Path, levels: list[np.ndarray], mpp: float, layout: Layout | None = None, planes: int = 1, series: str = "") -> list[Path]:
    """Write a slide, one file a level (or several); returns them. Plane z of several is the picture, 10 z darker.

    Parameters
    ----------
    levels : uint8 (H, W, 3), finest first
    series : the SeriesInstanceUID, to put slides that are not one into a folder
    """
    layout = layout or Layout()
    folder.mkdir(parents=True, exist_ok=True)
    uids = [series or generate_uid(), generate_uid(), generate_uid()]
    files = []
    for i, rgb in enumerate(levels):
        frames = list(_frames(rgb, layout, planes))
        concatenation, source = generate_uid(), generate_uid()
        parts = min(layout.parts, len(frames))
        cuts = [len(frames) * n // parts for n in range(parts + 1)]
        for part in range(parts):
            ds = _dataset(rgb, mpp * levels[0].shape[1] / rgb.shape[1], layout, planes, uids, i)
            if parts > 1:
                ds.ConcatenationUID, ds.InConcatenationNumber, ds.InConcatenationTotalNumber = concatenation, part + 1, parts
                ds.ConcatenationFrameOffsetNumber, ds.SOPInstanceUIDOfConcatenationSource = cuts[part], source
            _fill(ds, frames[cuts[part] : cuts[part + 1]], layout, mpp)
            files.append(folder / f"level{i}-{part}.dcm")
            ds.save_as(files[-1], enforce_file_format=True)
    return files


def _frames(rgb: np.ndarray, layout: Layout, planes: int) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """Column, row (from 1), plane and pixels of each frame, as they are stored."""
    t = layout.tile_px
    h, w = rgb.shape[:2]
    padded = np.pad(rgb, ((0, -h % t), (0, -w % t), (0, 0)), constant_values=255)
    found = [
        (x + 1, y + 1, z, np.ascontiguousarray(padded[y : y + t, x : x + t] - np.uint8(10 * z)))
        for z in range(planes)
        for y in range(0, h, t)
        for x in range(0, w, t)
    ]
    yield from [f for f in reversed(found) if (f[3] < 255).any()] if layout.sparse else found


def _dataset(rgb: np.ndarray, mpp: float, layout: Layout, planes: int, uids: list[str], level: int) -> FileDataset:
    syntax, _, photometric = KINDS[layout.kind]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = SOP_CLASS, generate_uid(), syntax
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = SOP_CLASS, meta.MediaStorageSOPInstanceUID, "SM"
    ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.FrameOfReferenceUID = uids
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE" if level == 0 else "RESAMPLED"]
    ds.Rows = ds.Columns = layout.tile_px
    ds.TotalPixelMatrixRows, ds.TotalPixelMatrixColumns = rgb.shape[:2]
    ds.TotalPixelMatrixFocalPlanes, ds.NumberOfOpticalPaths = planes, 1
    ds.ImagedVolumeWidth, ds.ImagedVolumeHeight, ds.ImagedVolumeDepth = rgb.shape[1] * mpp / 1e3, rgb.shape[0] * mpp / 1e3, 1.0
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, layout.photometric or photometric, 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.DimensionOrganizationType = "TILED_SPARSE" if layout.sparse else "TILED_FULL"
    ds.BurnedInAnnotation, ds.SpecimenLabelInImage, ds.FocusMethod, ds.ExtendedDepthOfField = "NO", "NO", "AUTO", "NO"
    ds.LossyImageCompression, ds.InstanceNumber, ds.VolumetricProperties = "00", level + 1, "VOLUME"
    ds.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    ds.TotalPixelMatrixOriginSequence = Sequence([_item(XOffsetInSlideCoordinateSystem=20.0, YOffsetInSlideCoordinateSystem=40.0)])
    light = _item(CodeValue="111744", CodingSchemeDesignator="DCM", CodeMeaning=layout.illumination)
    lens = {"ObjectiveLensPower": "20"}
    ds.OpticalPathSequence = Sequence([_item(OpticalPathIdentifier="1", IlluminationTypeCodeSequence=Sequence([light]), **lens)])
    measures = _item(PixelSpacing=[mpp / 1e3, mpp / 1e3], SliceThickness=0.001, SpacingBetweenSlices=0.001)
    ds.SharedFunctionalGroupsSequence = Sequence([_item(PixelMeasuresSequence=Sequence([measures]))])
    return ds


def _fill(ds: FileDataset, frames: list[tuple[int, int, int, np.ndarray]], layout: Layout, mpp: float) -> None:
    syntax, encode, _ = KINDS[layout.kind]
    ds.NumberOfFrames = len(frames)
    if layout.sparse:
        ds.PerFrameFunctionalGroupsSequence = Sequence([_place(x, y, z, mpp) for x, y, z, _ in frames])
    data = [encode(pixels) for *_, pixels in frames]
    ds.PixelData = encapsulate(data) if syntax.is_compressed else b"".join(data)
    ds["PixelData"].VR = "OB"


def _place(x: int, y: int, z: int, mpp: float) -> Dataset:
    plane = _item(ColumnPositionInTotalImagePixelMatrix=x, RowPositionInTotalImagePixelMatrix=y)
    plane.XOffsetInSlideCoordinateSystem, plane.YOffsetInSlideCoordinateSystem = x * mpp / 1e3, y * mpp / 1e3
    plane.ZOffsetInSlideCoordinateSystem = float(z)
    return _item(PlanePositionSlideSequence=Sequence([plane]), OpticalPathIdentificationSequence=Sequence([_item(OpticalPathIdentifier="1")]))


def _item(**values: object) -> Dataset:
    ds = Dataset()
    for name, value in values.items():
        setattr(ds, name, value)
    return ds
