"""Phantom slides as scanners of several makers write them: the bytes by which their readers know them, and a picture whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

_JPEG: dict[str, Any] = {"photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": 92}, "metadata": None}


def write_philips(path: Path, levels: list[np.ndarray], mpp: float, *, tile: int = 256, missing: bool = False) -> None:
    """Philips TIFF: every level is padded to whole tiles, and only its pixel spacing in the XML tells how large it really is.

    Parameters
    ----------
    levels : uint8 (H, W, 3), finest first, each half of the one before
    missing : leave the first tile of level 0 out, as the scanner does where there is only glass
    """
    spacings = "".join(
        f'<DataObject ObjectType="PixelDataRepresentation"><Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030" PMSVR="IDoubleArray">'
        f'"{mpp * 2**i / 1e3:.9f}" "{mpp * 2**i / 1e3:.9f}"</Attribute>'
        f'<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_NUMBER" Group="0x301D" Element="0x2001" PMSVR="IUInt16">{i}</Attribute></DataObject>'
        for i in range(len(levels))
    )
    xml = (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        '<Attribute Name="PIM_DP_SCANNED_IMAGES" Group="0x301D" Element="0x1003" PMSVR="IDataObjectArray"><Array><DataObject ObjectType="DPScannedImage">'
        '<Attribute Name="PIM_DP_IMAGE_TYPE" Group="0x301D" Element="0x1004" PMSVR="IString">WSI</Attribute>'
        '<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE" Group="0x1001" Element="0x8B01" PMSVR="IDataObjectArray">'
        f"<Array>{spacings}</Array></Attribute>"
        f'<Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030" PMSVR="IDoubleArray">"{mpp / 1e3:.9f}" "{mpp / 1e3:.9f}"</Attribute>'
        "</DataObject></Array></Attribute></DataObject>"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for i, rgb in enumerate(levels):
            h, w = rgb.shape[:2]
            padded = np.pad(rgb, ((0, -h % tile), (0, -w % tile), (0, 0)), constant_values=255)
            tif.write(
                padded, tile=(tile, tile), software="Philips DP v1.0", description=xml if i == 0 else f"level={i}", subfiletype=0 if i == 0 else 1, **_JPEG
            )
    if missing:
        _leave_out(path, 0)


def write_scn(path: Path, levels: list[np.ndarray], mpp: float, *, at: tuple[int, int] = (2000, 1500), size: tuple[int, int] = (6000, 5000)) -> None:
    """Leica SCN: one scanned area of a larger slide, which OpenSlide shows as a canvas with bounds.

    Parameters
    ----------
    at : where the area lies, px
    size : of the whole slide, px
    """
    nm = mpp * 1e3
    h, w = levels[0].shape[:2]
    dimensions = "".join(f'<dimension sizeX="{v.shape[1]}" sizeY="{v.shape[0]}" r="{i}" ifd="{i + 1}"/>' for i, v in enumerate(levels))
    macro = np.full((64, 96, 3), 230, np.uint8)
    whole = f'sizeX="{int(size[0] * nm)}" sizeY="{int(size[1] * nm)}"'
    xml = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection name="phantom" '
        f"{whole}><barcode></barcode>"
        f'<image name="macro"><creationDate>2020-01-01T00:00:00Z</creationDate><device model="Leica SCN400"/><pixels sizeX="96" sizeY="64">'
        f'<dimension sizeX="96" sizeY="64" r="0" ifd="0"/></pixels><view {whole} offsetX="0" offsetY="0" spacingZ="0"/>'
        "<scanSettings><objectiveSettings><objective>0.6</objective></objectiveSettings><illuminationSettings><numericalAperture>0.01</numericalAperture>"
        "<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings></image>"
        '<image name="area"><creationDate>2020-01-01T00:00:00Z</creationDate><device model="Leica SCN400"/>'
        f'<pixels sizeX="{w}" sizeY="{h}">{dimensions}</pixels>'
        f'<view sizeX="{int(w * nm)}" sizeY="{int(h * nm)}" offsetX="{int(at[0] * nm)}" offsetY="{int(at[1] * nm)}" spacingZ="0"/>'
        "<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings><illuminationSettings><numericalAperture>0.4</numericalAperture>"
        "<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings></image></collection></scn>"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        tif.write(macro, tile=(64, 96), description=xml, **_JPEG)
        for i, rgb in enumerate(levels):
            per_cm = 1e4 / (mpp * 2**i)
            tif.write(rgb, tile=(256, 256), resolution=(per_cm, per_cm), resolutionunit="CENTIMETER", **_JPEG)


def write_ventana(path: Path, levels: list[np.ndarray], mpp: float) -> None:
    """Ventana BIF: one area of interest of one tile grid without overlaps, a label and a probability image before it."""
    h, w = levels[0].shape[:2]
    columns, rows = -(-w // 256), -(-h // 256)
    frames = "".join(f'<Frame XY="{c},{r}" Z="0"/>' for r in range(rows) for c in range(columns))
    joints = "".join(_joints(columns, rows))
    iscan = (
        f'<iScan UnitNumber="2000000" Magnification="20" ScanRes="{mpp}" ScannerModel="VENTANA iScan HT"><AOI0 AOIScanned="1" Left="0" Top="{h}" Right="{w}" '
        'Bottom="0"/></iScan>'
    )
    xmp = (
        '<?xml version="1.0" encoding="utf-8"?><EncodeInfo Ver="2"><SlideInfo>' + iscan + "</SlideInfo>"
        f'<SlideStitchInfo><ImageInfo AOIScanned="1" AOIIndex="0" NumRows="{rows}" NumCols="{columns}" Width="256" Height="256" Pos-X="0" Pos-Y="0">{joints}'
        f'</ImageInfo></SlideStitchInfo><AoiOrigin><AOI0 OriginX="0" OriginY="0"/></AoiOrigin><FrameInfo>{frames}</FrameInfo></EncodeInfo>'
    )
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        small = np.full((64, 64, 3), 200, np.uint8)
        tags = [(700, "B", len(iscan.encode()), iscan.encode(), True)]
        tif.write(small, description="Label_Image", extratags=tags, photometric="rgb", metadata=None)
        for i, rgb in enumerate(levels):
            tags = [(700, "B", len(xmp.encode()), xmp.encode(), True)] if i == 0 else []
            description = f"level={i} mag={20 / 2**i:g} quality=90"
            tif.write(rgb, tile=(256, 256), description=description, extratags=tags, **_JPEG)


def write_hamamatsu_vms(path: Path, rgb: np.ndarray, mpp: float) -> None:
    """Hamamatsu VMS: an index of one JPEG, beside it, with the restart markers by which parts of it are found. Sides are whole 16 px."""
    h, w = rgb.shape[:2]
    small = rgb.reshape(h // 16, 16, w // 16, 16, 3).mean((1, 3)).round().astype(np.uint8)
    for name, picture, every in (("img", rgb, 16), ("map", small, 1)):
        Image.fromarray(picture).save(path.with_name(f"{path.stem}-{name}.jpg"), quality=92, subsampling=0, restart_marker_blocks=every)
    facts = {"NoLayers": 1, "NoJpegColumns": 1, "NoJpegRows": 1, "ImageFile": f"{path.stem}-img.jpg", "MapFile": f"{path.stem}-map.jpg"}
    facts |= {"PhysicalWidth": round(w * mpp * 1e3), "PhysicalHeight": round(h * mpp * 1e3), "SourceLens": 20}
    path.write_text("[Virtual Microscope Specimen]\n" + "".join(f"{k}={v}\n" for k, v in facts.items()))


def _joints(columns: int, rows: int) -> Iterator[str]:
    """How tiles meet, which are numbered from the bottom, there and back: exactly, everywhere."""

    def number(column: int, row: int) -> int:
        up = rows - 1 - row
        return up * columns + (columns - 1 - column if up % 2 else column) + 1

    for row in range(rows):
        for column in range(columns):
            if column + 1 < columns:
                yield _joint("RIGHT", number(column, row), number(column + 1, row))
            if row:
                yield _joint("UP", number(column, row), number(column, row - 1))


def _joint(direction: str, one: int, two: int) -> str:
    return f'<TileJointInfo FlagJoined="1" Confidence="100" Direction="{direction}" Tile1="{one}" Tile2="{two}" OverlapX="0" OverlapY="0"/>'


def _leave_out(path: Path, index: int) -> None:
    """Take one tile of the first image out of the file's tables."""
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        for name in ("TileOffsets", "TileByteCounts"):
            tag = tif.pages[0].tags[name]
            n = {3: 2, 4: 4, 16: 8}[int(tag.dtype)]
            data[tag.valueoffset + n * index : tag.valueoffset + n * (index + 1)] = bytes(n)
    path.write_bytes(data)
