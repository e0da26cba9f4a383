"""Phantom slides: synthetic H&E-like tissue with known outline, subtype texture and mitoses.

They look a little like sarcoma and are none: each class is a recipe of texture and nuclei, loosely after what the entity looks like,
and different enough to be learnt in minutes. Everything follows from the seed. A phantom says in its file that it is one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tifffile

HAEMATOXYLIN = np.array([0.5626, 0.7201, 0.4062])
EOSIN = np.array([0.2159, 0.8012, 0.5581])
GLASS = 243.0
DESCRIPTION = "wsikit phantom: synthetic tissue, not a patient"


@dataclass(frozen=True)
class Recipe:
    """How a class looks: texture of the stroma, and nuclei.

    ``wave_um`` fibre spacing; ``warp_um`` how much fibres swirl; ``eosin`` and ``mucin`` strengths of stroma; ``per_mm2`` nuclei; ``length_um``
    and ``width_um`` of nuclei, ``spread`` their variation; ``vacuoles`` and ``nests`` per mm².
    """

    wave_um: float
    warp_um: float
    eosin: float
    mucin: float
    per_mm2: float
    length_um: float
    width_um: float
    spread: float
    vacuoles: float = 0.0
    nests: float = 0.0


RECIPES = {
    "DDLPS": Recipe(14, 40, 0.55, 0.02, 1500, 12, 6.0, 0.35, vacuoles=260),
    "LMS": Recipe(11, 70, 0.85, 0.00, 2300, 17, 4.5, 0.15),
    "MFS": Recipe(30, 160, 0.22, 0.16, 900, 13, 4.0, 0.40),
    "SS": Recipe(7, 25, 0.42, 0.05, 4300, 10, 5.0, 0.10),
    "UPS": Recipe(20, 90, 0.60, 0.03, 1500, 17, 11.0, 0.50),
    "ARMS": Recipe(24, 60, 0.40, 0.04, 4200, 7.5, 6.8, 0.15, nests=55),
    "ERMS": Recipe(16, 120, 0.35, 0.10, 2100, 14, 4.0, 0.25, nests=0.0),
}
STS_CLASSES = ("DDLPS", "LMS", "MFS", "SS", "UPS")
RMS_CLASSES = ("ARMS", "ERMS")


@dataclass(frozen=True)
class Spec:
    """What to make: class, size in px, µm/px, mitoses per mm² of tissue, and the seed of everything else."""

    seed: int
    subtype: str = "LMS"
    width: int = 4096
    height: int = 3072
    mpp: float = 0.5
    mitoses_per_mm2: float = 8.0
    lookalikes_per_mm2: float = 10.0


@dataclass(frozen=True)
class Truth:
    """What is known of a phantom.

    ``tissue`` bool (H / 16, W / 16); ``mitoses`` and ``lookalikes`` float64 (M, 2) x, y in level-0 px; ``stain`` (2, 3) unit vectors.
    """

    spec: Spec
    tissue: np.ndarray
    mitoses: np.ndarray
    lookalikes: np.ndarray
    stain: np.ndarray

    @property
    def tissue_mm2(self) -> float:
        """Area of tissue."""
        return float(self.tissue.sum()) * (16 * self.spec.mpp) ** 2 / 1e6


def make_phantom(spec: Spec) -> tuple[np.ndarray, Truth]:
    """The pixels of level 0, uint8 (H, W, 3), and the truth."""
    rng = np.random.default_rng([spec.seed, *map(ord, spec.subtype)])
    recipe = RECIPES[spec.subtype]
    shape = (spec.height, spec.width)
    tissue = _tissue(rng, shape)
    soft = _stretch(tissue.astype(np.float32), shape)
    fibres, angle = _fibres(rng, shape, recipe, spec.mpp)
    haem = recipe.mucin * soft
    eosin = recipe.eosin * fibres * soft
    _vacuoles(rng, (haem, eosin), tissue, recipe, spec.mpp)
    density = _nests(rng, eosin, tissue, recipe, spec.mpp)
    _nuclei(rng, haem, tissue, density, angle, recipe, spec.mpp)
    mitoses = _scatter_clustered(rng, tissue, spec.mitoses_per_mm2, spec.mpp)
    lookalikes = _scatter(rng, tissue, spec.lookalikes_per_mm2, spec.mpp)
    for at in lookalikes:
        _stamp_lookalike(rng, haem, eosin, at, spec.mpp)
    for at in mitoses:
        _stamp_mitosis(rng, haem, eosin, at, spec.mpp)
    stain = _stain(rng)
    rgb = _render(rng, haem, eosin, stain)
    return rgb, Truth(spec, tissue, mitoses, lookalikes, stain)


def _field(rng: np.random.Generator, shape: tuple[int, int], cell_px: float) -> np.ndarray:
    """Smooth noise in −1 … 1 with features of about ``cell_px``: float32 (H, W)."""
    grid = rng.uniform(-1, 1, (int(shape[0] / cell_px) + 3, int(shape[1] / cell_px) + 3)).astype(np.float32)
    return _interpolate(grid, np.arange(shape[0]) / cell_px, np.arange(shape[1]) / cell_px)


def _interpolate(grid: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    def parts(at: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        low = np.clip(at.astype(int), 0, n - 2)
        t = np.clip(at - low, 0, 1).astype(np.float32)
        return low, t * t * (3 - 2 * t)

    (j, ty), (i, tx) = parts(y, grid.shape[0]), parts(x, grid.shape[1])
    rows = grid[j] * (1 - ty)[:, None] + grid[j + 1] * ty[:, None]
    return np.asarray(rows[:, i] * (1 - tx) + rows[:, i + 1] * tx)


def _stretch(low: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    y, x = ((np.arange(n) + 0.5) / 16 - 0.5 for n in shape)
    return _interpolate(low, np.clip(y, 0, None), np.clip(x, 0, None))


def _tissue(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A section with a wavy outline and a margin of glass: bool at 1/16."""
    low = (-(-shape[0] // 16), -(-shape[1] // 16))
    y, x = (np.linspace(-1, 1, n)[..., None] if axis == 0 else np.linspace(-1, 1, n)[None] for axis, n in enumerate(low))
    inside = 1 - np.maximum(np.abs(y) ** 3 + np.abs(x) ** 4, 0) * 1.05
    return np.asarray(inside + 0.28 * _field(rng, low, 34) + 0.08 * _field(rng, low, 11) > 0.2)


def _fibres(rng: np.random.Generator, shape: tuple[int, int], recipe: Recipe, mpp: float) -> tuple[np.ndarray, np.ndarray]:
    """Wavy stripes (about 0.4 … 1.4) and the angle that nuclei follow (radians): float32 (H, W) both."""
    warp, wave = recipe.warp_um / mpp, recipe.wave_um / mpp
    y, x = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None]
    turn = rng.uniform(0, np.pi)
    bend = _field(rng, shape, 2.2 * warp + 40)
    along = x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn)) + warp * bend
    stripes = np.sin(along * np.float32(2 * np.pi / wave) + 2 * _field(rng, shape, 1.5 * wave)) * (0.7 + 0.6 * _field(rng, shape, 3 * wave))
    grain = _field(rng, shape, max(2.0, 1.6 / mpp))
    angle = turn + np.pi / 2 + 0.9 * bend
    return (0.85 + 0.28 * stripes + 0.3 * grain).clip(0.05).astype(np.float32), angle.astype(np.float32)


def _scatter(rng: np.random.Generator, tissue: np.ndarray, per_mm2: float, mpp: float, inset: int = 3) -> np.ndarray:
    """Uniformly random points on tissue, away from its edge: float64 (M, 2) x, y."""
    from scipy.ndimage import binary_erosion

    cells = np.argwhere(binary_erosion(tissue, iterations=inset))
    n = rng.poisson(per_mm2 * len(cells) * (16 * mpp) ** 2 / 1e6)
    if not len(cells):
        return np.empty((0, 2))
    return np.asarray((cells[rng.integers(0, len(cells), n)][:, ::-1] + rng.uniform(0, 1, (n, 2))) * 16)


def _scatter_clustered(rng: np.random.Generator, tissue: np.ndarray, per_mm2: float, mpp: float) -> np.ndarray:
    """Half uniform, half thinned towards one hot area; at least 20 µm apart, so that each is one object."""
    points = _scatter(rng, tissue, per_mm2 * 1.6, mpp)
    if not len(points):
        return points
    centre = points[rng.integers(len(points))]
    keep = rng.uniform(size=len(points)) < 0.35 + 0.65 * np.exp(-(((points - centre) * mpp) ** 2).sum(1) / 2 / 450**2)
    kept: list[np.ndarray] = []
    for p in points[keep]:
        if all(((p - q) ** 2).sum() > (20 / mpp) ** 2 for q in kept):
            kept.append(p)
    return np.array(kept).reshape(-1, 2)


def _ellipse(rng: np.random.Generator, length_px: float, width_px: float, angle: float, edge: float = 0.18) -> np.ndarray:
    """A soft blob, 0 … 1: float32, odd sides."""
    r = int(np.ceil(max(length_px, width_px) / 2)) + 2
    y, x = np.mgrid[-r : r + 1, -r : r + 1].astype(np.float32)
    u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    wobble = 1 + 0.12 * np.sin(3 * np.arctan2(v, u) + rng.uniform(0, 6.3))
    d = np.sqrt((u / (length_px / 2)) ** 2 + (v / (width_px / 2)) ** 2) / wobble
    sharpness = np.clip(2.2 / edge, width_px / 2.4, 60)  # a rim of about 2 px, also on giant nuclei
    return np.asarray(1 / (1 + np.exp(np.clip((d - 1) * sharpness, -30, 30))), np.float32)


def _add(field: np.ndarray, stamp: np.ndarray, at: np.ndarray, gain: float, *, replace: bool = False) -> None:
    """Put a stamp on a field, centred at x, y: the larger value, or (``replace``) faded to ``gain``."""
    r = stamp.shape[0] // 2
    x, y = int(at[0]), int(at[1])
    y0, x0 = max(0, y - r), max(0, x - r)
    part = field[y0 : y + r + 1, x0 : x + r + 1]
    s = stamp[y0 - (y - r) : y0 - (y - r) + part.shape[0], x0 - (x - r) : x0 - (x - r) + part.shape[1]]
    if replace:
        part += (gain - part) * s
    else:
        np.maximum(part, s * gain, out=part)


def _nuclei(rng: np.random.Generator, haem: np.ndarray, tissue: np.ndarray, density: np.ndarray | None, angle: np.ndarray, recipe: Recipe, mpp: float) -> None:
    points = _scatter(rng, tissue, recipe.per_mm2, mpp, inset=1)
    if density is not None:
        points = points[rng.uniform(size=len(points)) < density[(points[:, 1] // 16).astype(int), (points[:, 0] // 16).astype(int)]]
    turns = 24
    library = []
    for turn in range(turns):
        for _ in range(6):
            scale = float(np.exp(rng.normal(0, recipe.spread)))
            size = (recipe.length_um * scale / mpp, recipe.width_um * scale**0.8 / mpp)
            blob = _ellipse(rng, *size, turn * np.pi / turns)
            texture = 1 + rng.normal(0, 0.16, blob.shape).astype(np.float32)
            library.append((blob * texture).astype(np.float32))
    local = angle[points[:, 1].astype(int), points[:, 0].astype(int)] + rng.normal(0, 0.25 + recipe.spread, len(points))
    which = (np.rint(local / np.pi * turns).astype(int) % turns) * 6 + rng.integers(0, 6, len(points))
    dark = rng.uniform(0.75, 1.25, len(points))
    for p, k, gain in zip(points, which, dark, strict=True):
        _add(haem, library[k], p, gain)


def _vacuoles(rng: np.random.Generator, fields: tuple[np.ndarray, np.ndarray], tissue: np.ndarray, recipe: Recipe, mpp: float) -> None:
    for p in _scatter(rng, tissue, recipe.vacuoles, mpp):
        size = rng.uniform(14, 40) / mpp
        blob = _ellipse(rng, size, size * rng.uniform(0.8, 1), rng.uniform(0, 3), edge=0.06)
        for field in fields:
            _add(field, blob, p, 0.02, replace=True)


def _nests(rng: np.random.Generator, eosin: np.ndarray, tissue: np.ndarray, recipe: Recipe, mpp: float) -> np.ndarray | None:
    """Alveolar nests: eosinophilic septa between them and few nuclei there; returns where nuclei may be (0 … 1, at 1/16)."""
    if not recipe.nests:
        return None
    from scipy.spatial import cKDTree

    seeds = _scatter(rng, tissue, recipe.nests, mpp, inset=0)
    if len(seeds) < 2:
        return None
    h, w = tissue.shape
    cells = np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1).reshape(-1, 2) * 16 + 8
    nearest, _ = cKDTree(seeds).query(cells, k=2)
    gap_um = ((nearest[:, 1] - nearest[:, 0]) * mpp).reshape(h, w)
    septum = np.exp(-((gap_um / 14) ** 2)).astype(np.float32)
    eosin += 0.75 * _stretch(septum, eosin.shape) * (eosin > 0.02)
    return np.asarray(1 - septum)


def _stamp_mitosis(rng: np.random.Generator, haem: np.ndarray, eosin: np.ndarray, at: np.ndarray, mpp: float) -> None:
    """A metaphase plate or two anaphase plates: dark, ragged, in a cleared cell."""
    turn = rng.uniform(0, np.pi)
    halo = _ellipse(rng, 17 / mpp, 15 / mpp, turn, edge=0.2)
    _add(haem, halo, at, 0.03, replace=True)
    _add(eosin, halo, at, 0.22, replace=True)
    plates = [0.0] if rng.uniform() < 0.65 else [-2.6, 2.6]
    for offset in plates:
        shift = np.array([-np.sin(turn), np.cos(turn)]) * offset / mpp
        plate = _ellipse(rng, rng.uniform(8.5, 11) / mpp, rng.uniform(2.8, 4) / mpp, turn, edge=0.25)
        ragged = (plate * (1 + rng.normal(0, 0.2, plate.shape))).astype(np.float32)
        _add(haem, ragged, at + shift, rng.uniform(2.1, 2.7))


def _stamp_lookalike(rng: np.random.Generator, haem: np.ndarray, eosin: np.ndarray, at: np.ndarray, mpp: float) -> None:
    """A pyknotic or apoptotic cell: small, round, smooth, in a shrunken pink cell."""
    cell = _ellipse(rng, 10 / mpp, 10 / mpp, 0.0, edge=0.15)
    _add(eosin, cell, at, 1.3)
    size = rng.uniform(3.8, 5.5) / mpp
    _add(haem, _ellipse(rng, size, size, 0.0, edge=0.12), at, rng.uniform(1.5, 2.1))


def _stain(rng: np.random.Generator) -> np.ndarray:
    """The slide's stain vectors: the reference's, a little off, as laboratories are."""
    jittered = np.stack([HAEMATOXYLIN, EOSIN]) + rng.normal(0, 0.025, (2, 3))
    return np.asarray(jittered / np.linalg.norm(jittered, axis=1, keepdims=True))


def _render(rng: np.random.Generator, haem: np.ndarray, eosin: np.ndarray, stain: np.ndarray) -> np.ndarray:
    strength = rng.uniform(0.85, 1.2, 2)
    out = np.empty((*haem.shape, 3), np.uint8)
    for y in range(0, len(out), 512):
        h, e = haem[y : y + 512] * strength[0], eosin[y : y + 512] * strength[1]
        noise = rng.normal(0, 2.0, h.shape).astype(np.float32)
        for c in range(3):
            light = GLASS * np.exp(-(h * np.float32(stain[0, c]) + e * np.float32(stain[1, c])))
            out[y : y + 512, :, c] = np.clip(light + noise, 0, 255)
    return out


def write_phantom(path: Path, spec: Spec, quality: int = 88) -> Truth:
    """Write a phantom as a pyramidal tiled JPEG TIFF, its truth as ``<name>.truth.json`` beside it."""
    rgb, truth = make_phantom(spec)
    write_pyramid(path, rgb, spec.mpp, quality=quality)
    facts = {
        "spec": asdict(spec),
        "tissue_mm2": round(truth.tissue_mm2, 4),
        "mitoses": truth.mitoses.round(2).tolist(),
        "lookalikes": truth.lookalikes.round(2).tolist(),
        "stain": truth.stain.round(5).tolist(),
    }
    path.with_suffix(".truth.json").write_text(json.dumps(facts))
    return truth


def write_pyramid(path: Path, rgb: np.ndarray, mpp: float | None, *, quality: int = 88, tile: int = 256, description: str = DESCRIPTION) -> None:
    """A tiled TIFF with levels by twos, as scanners write them; ``mpp`` None leaves the resolution out."""
    resolution = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"} if mpp else {}
    options = {"tile": (tile, tile), "photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": quality}, "metadata": None}
    with tifffile.TiffWriter(path) as tif:
        tif.write(rgb, description=description, **options, **resolution)
        while max(rgb.shape[:2]) > 512:
            h, w = rgb.shape[0] // 2, rgb.shape[1] // 2
            rgb = rgb[: 2 * h, : 2 * w].reshape(h, 2, w, 2, 3).mean((1, 3)).round().astype(np.uint8)
            tif.write(rgb, subfiletype=1, **options)
