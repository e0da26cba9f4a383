"""From slide to normalised Zarr: each stage alone and all together, beside the peers."""

from __future__ import annotations

import math
from typing import Any

from case import Case, Floor, Setup
from verdict import GIB, Figures, Target

FLOOR, READ, RESAMPLE, STAIN, WRITE, ALL = "floor", "read", "read + resample", "stain", "write", "slide → Zarr"
DECODE, COPY, ZSTD, JPEG, DISK_ZSTD, DISK_JPEG = "decode", "copy", "zstd:1", "jpeg:90", "disk, zstd:1", "disk, jpeg:90"
ARCHIVE = 3  # slides of a small archive
OURS, OPENSLIDE = "wsikit", "openslide + Pillow"


def _floors(stage: str, codec: str = "zstd:1") -> tuple[Floor, ...]:
    """What each stage cannot do without."""
    decode, copy, encode = Floor(FLOOR, DECODE), Floor(FLOOR, COPY), Floor(FLOOR, JPEG if codec == "jpeg:90" else ZSTD)
    disk = Floor(FLOOR, DISK_JPEG if codec == "jpeg:90" else DISK_ZSTD, "disk")
    return {READ: (decode,), RESAMPLE: (decode, copy), STAIN: (copy,), WRITE: (encode, disk), ALL: (decode, copy, encode, disk)}[stage]


def cases(setup: Setup) -> list[Case]:
    """Every case on a machine with that many cores."""
    few = 64 if setup.quick else 1024
    blocks = {"side": setup.block_px, "count": 1 if setup.quick else 4}
    found = [c for n in setup.counts for c in (*_alone(n, blocks), *_ours(n, blocks), *_readers(n, few))]
    found += _peers(few, blocks, setup.counts)
    found.append(Case(ALL, "wsikit command, cold", "jobs.tile_ours:tile_command", setup.cores, slide="mosaic", floors=_floors(ALL)))
    return found + [_on_phantom(c) for c in found if c.cores == 1 and (c.stage, c.who) in PHANTOM]


# a phantom has other bytes, so it is decoded, read and stored otherwise; the rest does not depend on the slide
PHANTOM = {(FLOOR, DECODE), (READ, OURS), (READ, OPENSLIDE), (ALL, OURS)}


def _on_phantom(c: Case) -> Case:
    return Case(c.stage, c.who, c.function, c.cores, c.take, c.options, c.peer, "phantom", floors=tuple(f for f in c.floors if f.who == DECODE))


def decode_floor(cores: int, slide: str = "mosaic") -> Case:
    """The case under everything that reads a slide."""
    return Case(FLOOR, DECODE, "jobs.tile_ours:decode_floor", cores, slide=slide)


def _alone(n: int, blocks: dict[str, Any]) -> list[Case]:
    """The floors: libraries on bytes that lie in memory, with nothing of wsikit around them."""
    floors = {
        COPY: ("copy_floor", {}),
        ZSTD: ("encode_floor", {"codec": "zstd:1"}),
        JPEG: ("encode_floor", {"codec": "jpeg:90"}),
        DISK_ZSTD: ("disk_floor", {"codec": "zstd:1"}),
        DISK_JPEG: ("disk_floor", {"codec": "jpeg:90"}),
    }
    found = [Case(FLOOR, who, f"jobs.tile_ours:{name}", n, options=blocks | more, slide="mosaic") for who, (name, more) in floors.items()]
    return [decode_floor(n), *found]


def _ours(n: int, blocks: dict[str, Any]) -> list[Case]:
    """What wsikit does on n cores: in one process, and together also in n worker processes."""

    def case(stage: str, who: str, function: str, **options: Any) -> Case:
        floors = _floors(stage, options.get("codec", "zstd:1"))
        return Case(stage, who, f"jobs.tile_ours:{function}", n, options=options, slide="mosaic", floors=floors)

    found = [
        case(READ, OURS, "read_blocks"),
        case(RESAMPLE, "wsikit to 1.0 µm/px", "read_resample", mpp=1.0),
        case(STAIN, OURS, "stain", **blocks),
    ]
    for codec in ("zstd:1", "jpeg:90"):
        said = "" if codec == "zstd:1" else f" {codec}"
        found.append(case(WRITE, f"wsikit {codec}", "shards", **blocks, codec=codec))
        found.append(case(ALL, f"wsikit{said}", "tile", workers=0, codec=codec))
        found.append(case(ALL, f"wsikit --workers {n}{said}", "tile", workers=n, codec=codec))
        found.append(case(ALL, f"wsikit --workers {n}{said}, {ARCHIVE} slides", "tile", workers=n, codec=codec, slides=ARCHIVE))
    return found


def _peer(stage: str, who: str, function: str, cores: int, take: int | None, peer: str, **options: Any) -> Case:
    return Case(stage, who, f"jobs.peers:{function}", cores, take, options, peer, "mosaic", floors=_floors(stage))


def _readers(n: int, few: int) -> list[Case]:
    return [
        _peer(READ, OPENSLIDE, "openslide_read", n, few, "openslide"),
        _peer(READ, "tiffslide", "tiffslide_read", n, few, "tiffslide"),
        _peer(READ, "cuCIM", "cucim_read", n, few, "cucim"),
        _peer(READ, "cuCIM batches", "cucim_batch", n, few, "cucim"),
    ]


def _peers(few: int, blocks: dict[str, Any], counts: list[int]) -> list[Case]:
    """Peers that have one way to go about it, whatever the cores; their libraries may use all of them."""
    less, most = max(1, few // 4), counts[-1]
    found = [
        _peer(READ, "TIAToolbox extractor", "tia_read", 1, few, "tiatoolbox"),
        _peer(READ, "LazySlide tile iterator", "lazyslide_read", 1, few, "lazyslide"),
        _peer(READ, "LazySlide dataset", "lazyslide_dataset", most, few, "lazyslide"),
        _peer(READ, "PathML region reader", "pathml_read", 1, few, "pathml"),
        _peer(ALL, "TIAToolbox, one matrix", "tia_together", most, less, "tiatoolbox", fixed=True),
        _peer(ALL, "LazySlide + torchstain", "lazyslide_together", most, less, "lazyslide"),
    ]
    for n in counts:
        found += [
            _peer(STAIN, "torchstain per tile", "torchstain_apply", n, less, "torchstain"),
            _peer(STAIN, "TIAToolbox, one matrix", "tia_apply", n, less, "tiatoolbox", fixed=True),
            _peer(STAIN, "PathML per tile", "pathml_apply", n, less, "pathml"),
            _peer(WRITE, "zarr-python zstd:1", "zarr_shards", n, None, "zarr", **blocks),
            _peer(ALL, "openslide + torchstain script", "script", n, less, "torchstain"),
            _peer(ALL, "TIAToolbox", "tia_together", n, less, "tiatoolbox"),
        ]
    return found


def targets(f: Figures) -> list[Target]:
    """The targets that were set before anything was measured."""
    n, floor, read = f.cores, f.rate(FLOOR, DECODE), f.rate(READ, OURS)
    tia = [f.rate(ALL, "TIAToolbox", n), f.rate(ALL, "TIAToolbox, one matrix", n)]
    return [
        Target("reading ≥ 0.8 × the decode floor, one core", read / floor, 0.8),
        Target("reading ≥ 5 × openslide + Pillow, one core", read / f.rate(READ, OPENSLIDE), 5),
        Target(f"reading ≥ 5 × openslide + Pillow, {n} cores each", f.rate(READ, OURS, n) / f.rate(READ, OPENSLIDE, n), 5),
        Target("Macenko applied at ≥ 170 MPx/s a core", f.rate(STAIN, OURS), 170, "MPx/s"),
        Target("slide → Zarr, lossless, ≥ 0.25 × the decode floor, one core", _fastest(f, 1) / floor, 0.25),
        Target("slide → Zarr, jpeg:90, ≥ 0.35 × the decode floor, one core", _fastest(f, 1, "jpeg:90") / floor, 0.35),
        Target(f"slide → Zarr ≥ 30 × TIAToolbox, {n} cores each", _fastest(f, n) / tia[0], 30),
        Target(f"slide → Zarr ≥ 30 × TIAToolbox with one matrix, {n} cores each", _fastest(f, n) / tia[1], 30),
        Target(f"slide → Zarr ≥ 15 × openslide + torchstain, {n} cores each", _fastest(f, n) / f.rate(ALL, "openslide + torchstain script", n), 15),
        Target("resident memory of all processes together ≤ 2 GiB", _together(f, "peak_bytes") / GIB, 2, "GiB", at_most=True),
        *(Target(f"two cores ≥ 1.7 × one, {ARCHIVE} slides → Zarr{who.removeprefix(OURS)}", _scaling(f, who), 1.7) for who in (OURS, f"{OURS} jpeg:90")),
        Target("files of a slide of half a gigapixel ≤ 200", _together(f, "files"), 200, "files", at_most=True),
    ]


def _fastest(f: Figures, cores: int, codec: str = "") -> float:
    """The best of wsikit in one process and in workers, for one slide and for several, from slide to Zarr."""
    said = codec and f" {codec}"
    names = [f"{OURS}{how}{said}{several}" for how in ("", f" --workers {cores}") for several in ("", f", {ARCHIVE} slides")]
    rates = [r for name in names if not math.isnan(r := f.rate(ALL, name, cores))]
    return max(rates, default=math.nan)


def _scaling(f: Figures, who: str) -> float:
    """How much faster several slides are done by two worker processes on two cores than by one on one; unknown per core-second."""
    one, two = (f.rate(ALL, f"{OURS} --workers {n}{who.removeprefix(OURS)}, {ARCHIVE} slides", n) for n in (1, 2))
    return math.nan if f.per_core else two / one


def _together(f: Figures, key: str) -> float:
    """The most of wsikit's cases from slide to Zarr, per slide where it is of slides."""
    ours = [m for m in f.measured if m.case.stage == ALL and m.case.who.startswith(OURS) and m.runs]
    return max((m.most(key) / (m.case.options.get("slides", 1) if key == "files" else 1) for m in ours), default=math.nan)
