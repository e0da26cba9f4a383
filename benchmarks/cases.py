"""Which cases are measured: what runs where, on how many cores, on how much of the slide."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

OPENSLIDE = ("openslide-python==1.4.7", "openslide-bin==4.0.1.2", "pillow", "numpy")
TORCHSTAIN = (*OPENSLIDE, "torchstain==1.4.1", "torch==2.15.0", "zarr==3.1.6")
TIA = ("tiatoolbox==2.1.3",)  # brings the newest torch, zarr and openslide that it allows
TIFFSLIDE = ("tiffslide==3.0.1; python_version<'3.12'", "tiffslide==4.0.0; python_version>='3.12'")
CUCIM = ("cucim-cu13==26.10.0; sys_platform=='linux'",)
ZARR = (*OPENSLIDE, "zarr==3.1.6")

FLOOR, READ, RESAMPLE, STAIN, WRITE, ALL = "decode floor", "read", "read + resample", "stain", "write", "slide → Zarr"
ARCHIVE = 3  # slides of a small archive
STAGES = (FLOOR, READ, RESAMPLE, STAIN, WRITE, ALL)


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes
    ----------
    stage, who : what it is and who does it; with ``cores`` they name the case
    function : ``module:function``
    take : tiles to work on, None for all of the slide; slow peers get fewer
    packages : the pinned packages of a peer's own environment; none for wsikit
    slide : ``mosaic`` or ``phantom``
    """

    stage: str
    who: str
    function: str
    cores: int = 1
    take: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    slide: str = "mosaic"

    @property
    def name(self) -> str:
        """As the table, the JSON and ``--only`` call it."""
        return f"{self.stage}: {self.who}, {self.cores} core{'s' if self.cores > 1 else ''}, {self.slide}"


def all_cases(cores: int, block: int, *, quick: bool = False) -> list[Case]:
    """Every case on a machine with that many cores; ``block`` is the side of wsikit's blocks on this slide."""
    few = 64 if quick else 1024
    blocks = {"side": block, "count": 1 if quick else 4}
    counts = sorted({1, min(2, cores), cores})
    found = [c for n in counts for c in (*_ours(n, blocks), *_readers(n, few))]
    found += _peers(few, blocks, counts)
    found += [Case(ALL, "wsikit command, cold", "ours:tile_command", cores)]
    found += [Case(c.stage, c.who, c.function, c.cores, c.take, c.options, c.packages, "phantom") for c in found if _on_phantom(c)]
    return found


def _ours(n: int, blocks: dict[str, Any]) -> list[Case]:
    """What wsikit does on n cores: in one process, and together also in n worker processes."""
    cases = [
        Case(FLOOR, "imagecodecs", "ours:decode_floor", n),
        Case(READ, "wsikit", "ours:read_blocks", n),
        Case(RESAMPLE, "wsikit to 1.0 µm/px", "ours:read_resample", n, options={"mpp": 1.0}),
        Case(STAIN, "wsikit", "ours:stain", n, options=blocks),
        Case(WRITE, "wsikit zstd:1", "ours:shards", n, options={**blocks, "codec": "zstd:1", "write": True}),
        Case(WRITE, "wsikit zstd:1, encode only", "ours:shards", n, options={**blocks, "codec": "zstd:1", "write": False}),
        Case(WRITE, "wsikit jpeg:90", "ours:shards", n, options={**blocks, "codec": "jpeg:90", "write": True}),
        Case(ALL, "wsikit", "ours:tile", n, options={"workers": 0}),
        Case(ALL, "wsikit jpeg:90", "ours:tile", n, options={"workers": 0, "codec": "jpeg:90"}),
    ]
    for codec, said in (("zstd:1", ""), ("jpeg:90", " jpeg:90")):
        cases.append(Case(ALL, f"wsikit --workers {n}{said}", "ours:tile", n, options={"workers": n, "codec": codec}))
        cases.append(Case(ALL, f"wsikit --workers {n}{said}, {ARCHIVE} slides", "ours:tile", n, options={"workers": n, "codec": codec, "slides": ARCHIVE}))
    return cases


def _readers(n: int, few: int) -> list[Case]:
    return [
        Case(READ, "openslide + Pillow", "peers:openslide_read", n, few, packages=OPENSLIDE),
        Case(READ, "tiffslide", "peers:tiffslide_read", n, few, packages=TIFFSLIDE),
        Case(READ, "cuCIM", "peers:cucim_read", n, few, packages=CUCIM),
        Case(READ, "cuCIM batches", "peers:cucim_batch", n, few, packages=CUCIM),
    ]


def _peers(few: int, blocks: dict[str, Any], counts: list[int]) -> list[Case]:
    """Peers that have one way to go about it, whatever the cores; their libraries may use all of them."""
    less = max(1, few // 4)
    return [
        Case(READ, "TIAToolbox extractor", "peers:tia_read", 1, few, packages=TIA),
        *(Case(STAIN, "torchstain per tile", "peers:torchstain_apply", n, less, packages=TORCHSTAIN) for n in counts),
        *(Case(STAIN, "TIAToolbox, one matrix", "peers:tia_apply", n, less, {"fixed": True}, TIA) for n in counts),
        *(Case(WRITE, "zarr-python zstd:1", "peers:zarr_shards", n, options=blocks, packages=ZARR) for n in counts),
        *(Case(ALL, "openslide + torchstain script", "peers:script", n, less, packages=TORCHSTAIN) for n in counts),
        *(Case(ALL, "TIAToolbox", "peers:tia_together", n, less, packages=TIA) for n in counts),
        Case(ALL, "TIAToolbox, one matrix", "peers:tia_together", counts[-1], less, {"fixed": True}, TIA),
    ]


def _on_phantom(case: Case) -> bool:
    """A phantom has other bytes, so it is decoded, read and stored otherwise; the rest does not depend on the slide."""
    return case.cores == 1 and case.who in ("imagecodecs", "wsikit", "openslide + Pillow") and case.stage in (FLOOR, READ, ALL)
