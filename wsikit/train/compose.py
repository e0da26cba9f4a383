"""Fields that never were, with every point known: pieces of tissue turned, scaled, laid side by side and pasted into one another.

Coordinates are continuous px, x right and y down, the centre of the first pixel at (0.5, 0.5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

NO_POINTS = np.empty((0, 2))
_DRAWS, _COLOURED = 12, 25  # places tried; mean of max − min of R, G, B above which a window is tissue
FIGURE_UM = 12.5  # MIDOG's box of 50 px at 0.25 µm/px


@dataclass(frozen=True)
class Piece:
    """Tissue whose objects are all known.

    Attributes
    ----------
    image : uint8 (H, W, 3)
    objects : float64 (M, 2) x, y px: what is to be found
    mpp : µm/px
    source : the slide, so that pieces of one stain can be laid side by side
    lookalikes : float64 (L, 2) x, y px: what was taken for an object, and is none
    kind : float64 (M,), 1 atypical, 0 typical, NaN not known; empty where nothing is known
    hidden : float64 (K, 2) x, y px: objects that are covered, or beyond the edge, of which a part may still be seen
    """

    image: np.ndarray
    objects: np.ndarray
    mpp: float
    source: str = ""
    lookalikes: np.ndarray = field(default_factory=lambda: NO_POINTS)
    kind: np.ndarray = field(default_factory=lambda: np.empty(0))
    hidden: np.ndarray = field(default_factory=lambda: NO_POINTS)

    @property
    def kinds(self) -> np.ndarray:
        """``kind``, of the length of ``objects``."""
        return self.kind if len(self.kind) == len(self.objects) else np.full(len(self.objects), np.nan)


@dataclass(frozen=True)
class Tissue:
    """What fields are composed of: pieces with objects, and pieces without any."""

    figures: Sequence[Piece]
    empty: Sequence[Piece]


@dataclass(frozen=True)
class Motion:
    """p ↦ ``matrix`` · p + ``shift``, in px."""

    matrix: np.ndarray
    shift: np.ndarray

    @classmethod
    def about(cls, source: np.ndarray, target: np.ndarray, angle: float, zoom: float, mirror: bool) -> Motion:
        """Turn by ``angle`` radians, enlarge by ``zoom`` and mirror, so that ``source`` comes to lie on ``target``."""
        c, s = math.cos(angle) * zoom, math.sin(angle) * zoom
        matrix = np.array([[c, -s], [s, c]]) @ np.diag([-1.0 if mirror else 1.0, 1.0])
        return cls(matrix, target - matrix @ source)

    def points(self, points: np.ndarray) -> np.ndarray:
        """Where points (M, 2) go."""
        return points @ self.matrix.T + self.shift

    def image(self, image: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
        """The moved image uint8 (side, side, 3), and how much of each pixel it covers, float32 (side, side)."""
        zoom = math.sqrt(abs(np.linalg.det(self.matrix)))
        if zoom < 0.9:  # what is too fine for the new pixels would appear as another pattern
            image = cv2.GaussianBlur(image, (0, 0), 0.4 / zoom)
        affine = np.column_stack([self.matrix, self.matrix @ np.array([0.5, 0.5]) + self.shift - 0.5])
        moved = cv2.warpAffine(image, affine, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        covers = np.full(image.shape[:2], 255, np.uint8)
        covers[[0, -1]] = covers[:, [0, -1]] = 0
        covered = cv2.warpAffine(covers, affine, (side, side), flags=cv2.INTER_LINEAR, borderValue=0)
        return moved, covered.astype(np.float32) / 255


@dataclass(frozen=True)
class Composition:
    """How fields are composed.

    Attributes
    ----------
    scale : finest and coarsest µm/px that the pieces are shown at, whatever they were scanned at
    coarse : share of fields that are blurred as if enlarged from a slide of up to twice the µm/px
    paste : share of fields of background with objects pasted in; the rest are mosaics of pieces
    empty : share of fields of background alone
    """

    scale: tuple[float, float] = (0.2, 0.32)
    coarse: float = 0.15
    paste: float = 0.25
    empty: float = 0.2


def compose(tissue: Tissue, side: int, mpp: float, how: Composition, rng: np.random.Generator) -> Piece:
    """One field of ``side`` px at ``mpp``: a mosaic of pieces with objects, or background with objects pasted in, or background.

    Where there is no tissue without objects, pieces with objects serve as background, and their objects are kept.
    """
    figures, grounds = tissue.figures, tissue.empty or tissue.figures
    shown = math.exp(rng.uniform(*np.log(how.scale)))
    ground = grounds[int(rng.integers(len(grounds)))]
    made = _window(ground, side, ground.mpp / shown, mpp, rng)
    draw = rng.random()
    if draw >= how.empty and len(figures):
        donors = _donors(figures, rng)
        made = _pasted(made, donors, grounds, shown, rng) if draw < how.empty + how.paste else _mosaic(made, donors, shown, rng)
    if rng.random() < how.coarse:
        made = _as_coarse(made, rng.uniform(1.2, 2.2))
    return made


def _donors(figures: Sequence[Piece], rng: np.random.Generator) -> list[Piece]:
    """Nine pieces: of one slide, as on a real field, or of any."""
    first = figures[int(rng.integers(len(figures)))]
    mates = [p for p in figures if p.source == first.source] if first.source and rng.random() < 0.6 else figures
    return [first, *(mates[int(i)] for i in rng.integers(len(mates), size=8))]


def _window(piece: Piece, side: int, zoom: float, mpp: float, rng: np.random.Generator) -> Piece:
    """A turned window of a piece, from where it covers most, and rather of tissue than of glass."""
    h, w = piece.image.shape[:2]
    reach = side * 0.71 / zoom
    for _ in range(_DRAWS):
        at = np.array([rng.uniform(min(reach, w / 2), max(w - reach, w / 2)), rng.uniform(min(reach, h / 2), max(h - reach, h / 2))])
        x0, y0 = np.maximum(0, np.floor(at - reach - 4)).astype(int)
        x1, y1 = np.ceil(at + reach + 4).astype(int)
        if np.ptp(piece.image[y0:y1:8, x0:x1:8].astype(np.int16), axis=2).mean() > _COLOURED:
            break
    motion = _drawn_motion(at - (x0, y0), np.full(2, side / 2), zoom, rng)
    image, _ = motion.image(piece.image[y0:y1, x0:x1], side)
    objects, lookalikes, hidden = (motion.points(points - (x0, y0)) for points in (piece.objects, piece.lookalikes, piece.hidden))
    inside, false = (((points > 0) & (points < side)).all(1) for points in (objects, lookalikes))
    hidden = np.concatenate([hidden, objects[~inside]])
    return Piece(image, objects[inside], mpp, piece.source, lookalikes[false], piece.kinds[inside], hidden)


def _drawn_motion(source: np.ndarray, target: np.ndarray, zoom: float, rng: np.random.Generator) -> Motion:
    return Motion.about(source, target, rng.uniform(0, 2 * math.pi), zoom, bool(rng.integers(2)))


def lay(under: Piece, over: Piece, motion: Motion, alpha: np.ndarray) -> Piece:
    """A moved piece laid over another through ``alpha`` float32 (side, side): points that are mostly covered vanish, those mostly shown come."""
    side = under.image.shape[0]
    image, covered = motion.image(over.image, side)
    alpha = alpha * covered
    mixed = under.image + (image.astype(np.float32) - under.image) * alpha[..., None]
    points = np.concatenate([under.objects, motion.points(over.objects)])
    shown = np.concatenate([_seen(under.objects, 1 - alpha), _seen(points[len(under.objects) :], alpha)])
    kind = np.concatenate([under.kinds, over.kinds])
    false = motion.points(over.lookalikes)
    lookalikes = np.concatenate([under.lookalikes[_seen(under.lookalikes, 1 - alpha)], false[_seen(false, alpha)]])
    hidden = np.concatenate([under.hidden, points[~shown], motion.points(over.hidden)])
    return Piece(np.clip(mixed + 0.5, 0, 255).astype(np.uint8), points[shown], under.mpp, under.source, lookalikes, kind[shown], hidden)


def _seen(points: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Which points (M, 2) lie in the image, more than half shown: bool (M,)"""
    cell = np.floor(points).astype(int)
    inside = ((cell >= 0) & (cell < alpha.shape[::-1])).all(1)
    shown = np.zeros(len(points), bool)
    shown[inside] = alpha[cell[inside, 1], cell[inside, 0]] > 0.5
    return shown


def soft_rectangle(side: int, x0: float, y0: float, x1: float, y1: float, feather_px: float) -> np.ndarray:
    """1 inside of a rectangle, 0 outside, a ramp of ``feather_px`` between: float32 (side, side)."""
    at = np.arange(side, dtype=np.float32) + 0.5
    ramps = [np.clip((np.minimum(at - low, high - at)) / feather_px + 0.5, 0, 1) for low, high in ((x0, x1), (y0, y1))]
    return np.minimum(ramps[0][None], ramps[1][:, None])


def soft_disc(side: int, centre: np.ndarray, radius_px: float, feather_px: float) -> np.ndarray:
    """1 inside of a disc, 0 outside, a ramp of ``feather_px`` between: float32 (side, side)."""
    at = np.arange(side, dtype=np.float32) + 0.5
    distance = np.hypot(at[None] - centre[0], at[:, None] - centre[1])
    return np.clip((radius_px - distance) / feather_px + 0.5, 0, 1).astype(np.float32)


def _mosaic(under: Piece, donors: Sequence[Piece], shown: float, rng: np.random.Generator) -> Piece:
    """Up to 3 × 3 cells, each a piece whose middle lies anywhere near; some cells stay background."""
    side = under.image.shape[0]
    n = max(1, round(side * under.mpp / 32))
    lines = [np.concatenate([[-8], (np.arange(1, n) + rng.uniform(-0.2, 0.2, n - 1)) * side / n, [side + 8]]) for _ in range(2)]
    for i, donor in zip(rng.permutation(n * n), list(donors) * (n * n), strict=False):
        if rng.random() < 0.15:
            continue
        (x0, x1), (y0, y1) = lines[0][i % n : i % n + 2], lines[1][i // n : i // n + 2]
        zoom = donor.mpp / shown
        middle = np.array(donor.image.shape[1::-1]) / 2
        target = np.array([(x0 + x1) / 2, (y0 + y1) / 2]) + rng.uniform(-0.33, 0.33, 2) * (x1 - x0, y1 - y0)
        under = lay(under, donor, _drawn_motion(middle, target, zoom, rng), soft_rectangle(side, x0, y0, x1, y1, rng.uniform(2, 10)))
    return under


def _pasted(under: Piece, donors: Sequence[Piece], grounds: Sequence[Piece], shown: float, rng: np.random.Generator) -> Piece:
    """Objects in soft discs, and as many dark spots that are none, so that the edge of a disc tells nothing."""
    decoys = [*donors, *(grounds[int(i)] for i in rng.integers(len(grounds), size=2))]
    for _ in range(int(rng.integers(1, 4))):
        donor = donors[int(rng.integers(len(donors)))]
        if len(donor.objects):
            under = _paste(under, donor, donor.objects[rng.integers(len(donor.objects))], shown, rng)
        decoy = decoys[int(rng.integers(len(decoys)))]
        spot = dark_spot(decoy, rng)
        if spot is not None:
            under = _paste(under, decoy, spot, shown, rng)
    return under


def _paste(under: Piece, donor: Piece, at: np.ndarray, shown: float, rng: np.random.Generator) -> Piece:
    """What is around ``at`` in ``donor``, through a soft disc somewhere in the field, its light brought near to that of the place."""
    side = under.image.shape[0]
    radius = FIGURE_UM * rng.uniform(0.45, 0.9) / shown
    target = rng.uniform(0.04, 0.96, 2) * side
    reach = math.ceil(2 * FIGURE_UM / donor.mpp)
    x0, y0 = np.maximum(0, np.floor(at).astype(int) - reach)
    near = donor.image[y0 : y0 + 2 * reach, x0 : x0 + 2 * reach]
    local = Piece(
        _relit(near, under.image, rng), donor.objects - (x0, y0), donor.mpp, donor.source, donor.lookalikes - (x0, y0), donor.kinds, donor.hidden - (x0, y0)
    )
    return lay(under, local, _drawn_motion(at - (x0, y0), target, donor.mpp / shown, rng), soft_disc(side, target, radius, rng.uniform(0.2, 0.8) * radius))


def _relit(image: np.ndarray, like: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image with its light tissue at the level of another's, in some draws."""
    if rng.random() < 0.4:
        return image
    ours, theirs = np.percentile(image[::3, ::3], 75, (0, 1)), np.percentile(like[::5, ::5], 75, (0, 1))
    return np.clip(image * (np.clip(theirs / np.maximum(ours, 1), 0.7, 1.4)), 0, 255).astype(np.uint8)


def dark_spot(piece: Piece, rng: np.random.Generator, draws: int = 24) -> np.ndarray | None:
    """Of some random places away from all objects, hidden ones too, the darkest, x, y px; None where there is no place."""
    h, w = piece.image.shape[:2]
    radius = max(2, round(2 / piece.mpp))
    at = rng.uniform((radius, radius), (max(w - radius, radius + 1), max(h - radius, radius + 1)), (draws, 2))
    known = np.concatenate([piece.objects, piece.hidden])
    at = at[(np.hypot(*(at[:, None] - known[None]).transpose(2, 0, 1)) * piece.mpp > FIGURE_UM).all(1)]
    if not len(at):
        return None
    grey = [piece.image[int(y) - radius : int(y) + radius, int(x) - radius : int(x) + radius].mean() for x, y in at]
    return np.asarray(at[int(np.argmin(grey))])


def _as_coarse(piece: Piece, times: float) -> Piece:
    """The field as a slide of ``times`` the µm/px would give it, enlarged."""
    side = piece.image.shape[0]
    small = cv2.resize(piece.image, (round(side / times),) * 2, interpolation=cv2.INTER_AREA)
    return replace(piece, image=cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR))
