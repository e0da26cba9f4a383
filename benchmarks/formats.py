"""Every format × what was tried × outcome: real files first, then phantoms whose picture is known. Writes docs/formats.md.

    WSIKIT_DATA=FOLDER python benchmarks/formats.py [-o docs/formats.md]

Real files are those of the folder slides/ in the one that WSIKIT_DATA names, where it is set. A reader has passed when all checks of
`wsikit.testing.conformance` hold; "off by" is the mean difference in grey levels to the picture that went in (JPEG costs
about one); "H&E" is what scoring says of the slide.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
import zarr

import wsikit as wk
from wsikit.errors import WsikitError
from wsikit.readers import candidates
from wsikit.readers.openslide import library_version
from wsikit.survey import survey
from wsikit.testing.conformance import CHECKS
from wsikit.testing.dicom import KINDS, Layout, write_dicom
from wsikit.testing.phantom import Spec, make_phantom, write_pyramid
from wsikit.testing.vendors import write_hamamatsu_vms, write_philips, write_scn, write_ventana

MPP = 0.5
SOFTWARE = ("wsikit", "openslide-python", "openslide-bin", "tifffile", "imagecodecs", "zarr", "pydicom", "wsidicom", "pylibCZIrw", "universal-pathlib")
APERIO = "Aperio Image Library v11.2.1\r\n1536x1024 [0,0 1536x1024] (256x256) JPEG/RGB Q=90|AppMag = 20|MPP = 0.5"


@dataclass(frozen=True)
class Try:
    """A file: its format, how it was made, where it is, and the picture in it at level 0 from (x, y), where known."""

    format: str
    made: str
    path: Path
    truth: np.ndarray | None = None
    at: tuple[int, int] = (0, 0)


REAL = {
    "CMU-1-Small-Region.svs": "Aperio SVS",
    "osp-small.svs": "Aperio SVS",
    "hamamatsu-fluo-DAPI.ndpi": "Hamamatsu NDPI",
    "dicom-cmu-small-napari": "DICOM",
    "gcp-camelyon-jpeg.dcm": "DICOM",
    "highdicom-sm_image.dcm": "DICOM",
    "osp-boxes_0.dcm": "DICOM",
    "derived-cmu-small.ome.tif": "OME-TIFF",
    "multi-channel-z-series.ome.tif": "OME-TIFF",
    "pathml-small_vectra.qptiff": "QPTIFF",
    "large-he-carotid-top-12480x14848.tif": "generic TIFF",
    "osp-boxes.tiff": "generic TIFF",
    "histoprep-slide.jpeg": "JPEG",
    "vsi-jpg2k/vsi-ets-test-jpg2k.vsi": "Olympus VSI",
    "malformed/cmu-no-mpp.svs": "damaged SVS",
    "malformed/cmu-one-tile-zeroed.svs": "damaged SVS",
    "malformed/cmu-truncated-50pct.svs": "damaged SVS",
    "malformed/cmu-empty.svs": "damaged SVS",
    "malformed/osp-unopenable.tiff": "damaged TIFF",
}


def real_files() -> Iterator[Try]:
    """Those of `REAL` that are here."""
    folder = Path(os.environ.get("WSIKIT_DATA", "nowhere")) / "slides"
    yield from (Try(kind, f"real: `{Path(name).name}`", folder / name) for name, kind in REAL.items() if (folder / name).exists())


def half(rgb: np.ndarray) -> np.ndarray:
    h, w = rgb.shape[0] // 2, rgb.shape[1] // 2
    return rgb[: 2 * h, : 2 * w].reshape(h, 2, w, 2, 3).mean((1, 3)).round().astype(np.uint8)


def tiff(**options: Any) -> Callable[[Path, np.ndarray], None]:
    more = {"photometric": "rgb", "metadata": None, "resolution": (1e4 / MPP, 1e4 / MPP), "resolutionunit": "CENTIMETER"}
    return lambda path, rgb: tifffile.imwrite(path, rgb, **{**more, **options})


def ome(unit: str = "µm", factor: float = 1.0, **options: Any) -> Callable[[Path, np.ndarray], None]:
    size = {f"PhysicalSize{a}": MPP * factor for a in "XY"} | {f"PhysicalSize{a}Unit": unit for a in "XY"}

    def write(path: Path, rgb: np.ndarray) -> None:
        tiles: dict[str, Any] = {"tile": (256, 256), "photometric": "rgb", "compression": "deflate"}
        with tifffile.TiffWriter(path, ome=True, **options) as tif:
            tif.write(rgb, subifds=2, metadata={"axes": "YXS", **size}, **tiles)
            tif.write(half(rgb), subfiletype=1, **tiles)
            tif.write(half(half(rgb)), subfiletype=1, **tiles)

    return write


def ome_planes(path: Path, rgb: np.ndarray) -> None:
    size = {f"PhysicalSize{a}": MPP for a in "XY"} | {f"PhysicalSize{a}Unit": "µm" for a in "XY"}
    stack = np.stack([rgb // 2, rgb, rgb // 2 + 100])
    tifffile.imwrite(path, stack, photometric="rgb", ome=True, tile=(256, 256), compression="deflate", metadata={"axes": "ZYXS", **size})


def ome_channels(path: Path, rgb: np.ndarray) -> None:
    names = {"Channel": {"Name": ["DAPI", "CD8", "PanCK"]}, "PhysicalSizeX": MPP, "PhysicalSizeY": MPP}
    pixels = np.moveaxis(255 - rgb, -1, 0).astype(np.uint16) * 16
    tifffile.imwrite(path, pixels, photometric="minisblack", ome=True, tile=(256, 256), metadata={"axes": "CYX", **names})


def aperio(path: Path, rgb: np.ndarray) -> None:
    tiles: dict[str, Any] = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": 92}, "metadata": None}
    with tifffile.TiffWriter(path) as tif:
        tif.write(rgb, description=APERIO, **tiles)
        tif.write(half(half(rgb)), description="Aperio thumbnail", photometric="rgb", compression="jpeg", rowsperstrip=16, metadata=None)
        tif.write(half(half(rgb)), description=APERIO, subfiletype=1, **tiles)


def zeiss(path: Path, rgb: np.ndarray) -> None:
    from pylibCZIrw import czi

    with czi.create_czi(str(path)) as doc:
        doc.write(data=np.ascontiguousarray(rgb[..., ::-1]), plane={"C": 0}, scene=0, compression_options="zstd1:ExplicitLevel=2")
        doc.write_metadata("phantom", scale_x=MPP * 1e-6, scale_y=MPP * 1e-6)


def ome_zarr(version_: int) -> Callable[[Path, np.ndarray], None]:
    def write(path: Path, rgb: np.ndarray) -> None:
        group = zarr.open_group(str(path), mode="w", zarr_format=version_)
        axes = [{"name": "c", "type": "channel"}, *({"name": a, "type": "space", "unit": "micrometer"} for a in "yx")]
        datasets = []
        for i, picture in enumerate((rgb, half(rgb), half(half(rgb)))):
            group.create_array(str(i), data=np.moveaxis(picture, -1, 0), chunks=(3, 256, 256))
            datasets.append({"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": [1, MPP * 2**i, MPP * 2**i]}]})
        image = {"multiscales": [{"axes": axes, "datasets": datasets, "version": "0.4" if version_ == 2 else "0.5"}]}
        group.attrs.update(image if version_ == 2 else {"ome": image})

    return write


def phantoms(folder: Path, rgb: np.ndarray) -> Iterator[Try]:
    """The same picture in every format that can be written here."""
    levels = [rgb, half(rgb), half(half(rgb))]
    bits = {"tile": (256, 256), "compression": "deflate"}
    writers: list[tuple[str, str, str, Callable[[Path, np.ndarray], Any]]] = [
        ("Aperio SVS", "JPEG, thumbnail between levels", "aperio.svs", aperio),
        ("Philips TIFF", "padded levels", "philips.tiff", lambda p, _: write_philips(p, levels, MPP)),
        ("Philips TIFF", "a tile is not there", "philips-gap.tiff", lambda p, _: write_philips(p, levels, MPP, missing=True)),
        ("Leica SCN", "one area of a slide: bounds", "leica.scn", lambda p, _: write_scn(p, levels, MPP, at=(1024, 512), size=(4096, 3072))),
        ("Ventana BIF", "one area, no overlaps", "ventana.bif", lambda p, _: write_ventana(p, levels, MPP)),
        ("Hamamatsu VMS", "index and JPEG with restart markers", "hamamatsu.vms", lambda p, _: write_hamamatsu_vms(p, rgb, MPP)),
        ("Zeiss CZI", "lossless tiles, by the maker's library", "zeiss.czi", zeiss),
        ("OME-TIFF", "SubIFD pyramid, µm", "a.ome.tif", ome()),
        ("OME-TIFF", "nm", "nm.ome.tif", ome("nm", 1e3)),
        ("OME-TIFF", "mm", "mm.ome.tif", ome("mm", 1e-3)),
        ("OME-TIFF", "in pixels: no resolution", "pixel.ome.tif", ome("pixel")),
        ("OME-TIFF", "BigTIFF", "big.ome.tif", ome(bigtiff=True)),
        ("OME-TIFF", "big-endian", "endian.ome.tif", ome(byteorder=">")),
        ("OME-TIFF", "three focal planes", "planes.ome.tif", ome_planes),
        ("OME-TIFF", "three channels of 16 bits", "channels.ome.tif", ome_channels),
        ("generic TIFF", "JPEG pyramid, cm", "pyramid.tif", lambda p, v: write_pyramid(p, v, MPP, quality=92)),
        ("generic TIFF", "inch", "inch.tif", tiff(**bits, resolution=(25400 / MPP, 25400 / MPP), resolutionunit="INCH")),
        ("generic TIFF", "strips of 40 rows, LZW", "strips.tif", tiff(rowsperstrip=40, compression="lzw")),
        ("generic TIFF", "one strip, not compressed (ImageJ)", "raw.tif", tiff(rowsperstrip=rgb.shape[0])),
        ("generic TIFF", "one strip, BigTIFF", "strip.tif", tiff(rowsperstrip=rgb.shape[0], compression="zlib", bigtiff=True)),
        ("generic TIFF", "colours in planes", "planar.tif", lambda p, v: tiff(**bits, planarconfig="separate")(p, np.moveaxis(v, -1, 0))),
        ("OME-Zarr 0.4", "Zarr 2", "v2.zarr", ome_zarr(2)),
        ("OME-Zarr 0.5", "Zarr 3", "v3.zarr", ome_zarr(3)),
        ("PNG", "no resolution", "picture.png", lambda p, v: p.write_bytes(imagecodecs.png_encode(v))),
        ("JPEG", "no resolution", "picture.jpg", lambda p, v: p.write_bytes(imagecodecs.jpeg8_encode(v, level=92))),
        ("NumPy", "array", "array.npy", lambda p, v: np.save(p, v)),
    ]
    for kind, made, name, write in writers:
        write(folder / name, rgb)
        truth = None if "channels" in made else rgb
        yield Try(kind, f"phantom: {made}", folder / name, truth, (1024, 512) if kind == "Leica SCN" else (0, 0))
    store = wk.tile(folder / "pyramid.tif", folder / "store", mpp=MPP, stain="none")
    yield Try("OME-Zarr 0.5", "wsikit's own store", store)
    layouts = {f"full tiling, {kind}": Layout(kind=kind) for kind in KINDS}
    layouts |= {"sparse tiling": Layout(sparse=True), "concatenation of 3": Layout(parts=3), "sparse, concatenation of 2": Layout(sparse=True, parts=2)}
    layouts |= {"JPEG that claims RGB and is YCbCr": Layout(photometric="RGB"), "fluorescence": Layout(illumination="Epifluorescence illumination")}
    layouts |= {"4:4:4 JPEG that claims RGB, unsure": Layout(kind="jpeg-444", photometric="RGB")}
    for i, (made, layout) in enumerate(layouts.items()):
        write_dicom(folder / f"dicom{i}", levels, MPP, layout)
        yield Try("DICOM", f"phantom: {made}", folder / f"dicom{i}", rgb)
    write_dicom(folder / "dicom-planes", levels[:1], MPP, Layout(kind="raw"), planes=3)
    yield Try("DICOM", "phantom: three focal planes", folder / "dicom-planes")


def row_of(one: Try, folder: Path) -> list[str]:
    """What the reader that is taken makes of a file, and in short what the others do."""
    readers = [r.name for r in candidates(one.path)]
    if not readers:
        return [one.format, one.made, "none", "", "", "", "", reason(lambda: wk.open_slide(one.path), one, folder), ""]
    first, *others = (looked_at(one, reader, folder) for reader in readers)
    return [one.format, one.made, readers[0], *first, "; ".join(f"{r}: {other[2] or 'refused'}" for r, other in zip(readers[1:], others, strict=True))]


def looked_at(one: Try, reader: str, folder: Path) -> list[str]:
    """Levels, resolution, checks, difference to the truth and H&E through one reader."""
    open_ = partial(wk.open_slide, one.path, reader=reader)
    try:
        with open_() as slide:
            levels, mpp = str(len(slide.levels)), f"{slide.mpp[0]:.4g} ({slide.mpp_source})" if slide.mpp else "none, or none to believe"
            off = off_by(slide, one)
    except WsikitError as e:
        return ["", "", "", "", f"refused: {short(e, one, folder)}"]
    held = [passed(check, open_) for check in CHECKS]
    return [levels, mpp, f"{sum(held)} of {len(held)}", off, reason(lambda: survey(open_()), one, folder)]


def off_by(slide: wk.Slide, one: Try) -> str:
    if one.truth is None:
        return ""
    h, w = one.truth.shape[:2]
    try:
        found = slide.read((*one.at, w, h)).astype(int)
    except WsikitError:
        return "not read"
    if "not there" in one.made:
        found, truth = found[256:], one.truth[256:]
        return f"{np.abs(found - truth).mean():.2f}, white where it is not"
    return f"{np.abs(found - one.truth).mean():.2f}"


def passed(check: Callable[[Any], None], open_: Any) -> bool:
    try:
        check(open_)
    except (AssertionError, WsikitError):
        return False
    return True


def reason(work: Callable[[], Any], one: Try, folder: Path) -> str:
    """``taken``, or why not."""
    try:
        work()
    except WsikitError as e:
        return f"refused: {short(e, one, folder)}"
    return "taken"


def short(e: Exception, one: Try, folder: Path) -> str:
    text = str(e).replace(f"{one.path}: ", "").replace(str(one.path), one.path.name).replace(str(one.path.parent), "…").replace(str(folder), "…")
    return text.replace("|", "/").replace("\n", " ")[:150]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/formats.md"))
    out = parser.parse_args().out
    rgb, _ = make_phantom(Spec(5, "LMS", 1536, 1024))
    head = ["format", "file", "reader", "levels", "µm/px (source)", "checks held", "off by", "H&E pipelines", "other readers: checks held"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for one in [*real_files(), *phantoms(folder, rgb)]:
            lines.append("| " + " | ".join(row_of(one, folder)) + " |")
            print(lines[-1], flush=True)
    software = ", ".join(f"{n} {version(n)}" for n in SOFTWARE)
    intro = (__doc__ or "").split("\n\n")
    text = f"# Formats\n\nMade by `benchmarks/formats.py`. {' '.join(intro[2].split())}\n\n"
    text += "\n".join(lines)
    text += f"\n\nPython {platform.python_version()}, OpenSlide {library_version()}, {software}.\n\n" + NOT_TRIED
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)


NOT_TRIED = """## Not tried

MRXS, SVSlide, Trestle and NDPI of brightfield go through OpenSlide, CZI with JPEG XR through the maker's library: no real file of these that may be used
here is small enough, and no writer makes one. iSyntax needs the maker's library or a package for which
there is no file to try it on. Olympus VSI keeps its slide in `.ets` files: of the packages that read them, slideio 2.10 gives all-black pixels without an
error for the JPEG 2000 file above, and bioio-vsi 0.1 reads it but no RGB slide could be tried, so VSI is refused with what to do. `s3://`, `gs://` and
`https://` are tested with a web server on the same machine and with fsspec's memory (`tests/readers/test_remote.py`), and were tried by hand with an S3 server
(moto 5, on the same machine: OME-TIFF, SVS and OME-Zarr with the pixels and digests of the disk), not against a cloud.
"""


if __name__ == "__main__":
    main()
