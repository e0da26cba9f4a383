"""Composed fields: a point lies where its object was painted, to the pixel, however it was turned, scaled, laid or pasted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsikit.train.compose import Composition, Motion, Piece, Tissue, compose, dark_spot, lay, soft_disc, soft_rectangle

GREEN = np.array([20, 200, 40])  # of painted objects: no tissue is green


def painted(side: int, points: np.ndarray, mpp: float = 0.25, seed: int = 0, source: str = "a") -> Piece:
    """Noise of tissue's colours with a green dot, 2 µm wide, on each point."""
    rng = np.random.default_rng(seed)
    image = np.clip(rng.normal((200, 130, 180), 12, (side, side, 3)), 0, 255)
    at = np.arange(side) + 0.5
    for x, y in points:
        bell = np.exp(-((at[None] - x) ** 2 + (at[:, None] - y) ** 2) / (2 * (1 / mpp) ** 2))[..., None]
        image = image * (1 - bell) + GREEN * bell
    return Piece(image.round().astype(np.uint8), points, mpp, source)


def greenness(image: np.ndarray) -> np.ndarray:
    """How green is each pixel, above noise?"""
    rgb = image.astype(float)
    return np.clip(rgb[..., 1] - np.maximum(rgb[..., 0], rgb[..., 2]) - 20, 0, None)


def centroid(image: np.ndarray, near: np.ndarray, radius: float) -> np.ndarray:
    """The centre of what is green around a point, x, y px."""
    at = np.arange(image.shape[0]) + 0.5
    weight = greenness(image) * (np.hypot(at[None] - near[0], at[:, None] - near[1]) < radius)
    return np.array([(weight * at[None]).sum(), (weight * at[:, None]).sum()]) / weight.sum()


motions = st.builds(
    lambda x, y, angle, zoom, mirror: Motion.about(np.array([40.3, 52.8]), np.array([x, y]), angle, zoom, mirror),
    st.floats(40, 80),
    st.floats(40, 80),
    st.floats(0, 2 * math.pi),
    st.floats(0.45, 1.6),
    st.booleans(),
)


@given(motions)
def test_points_move_with_the_pixels(motion: Motion) -> None:
    point = np.array([[40.3, 52.8]])
    image, covered = motion.image(painted(96, point).image, 120)
    (there,) = motion.points(point)
    assert centroid(image, there, 14) == pytest.approx(there, abs=0.25)
    assert covered[int(there[1]), int(there[0])] == 1
    corners = motion.points(np.array([[-3.0, 40], [99, 40]]))
    for x, y in corners[((corners > 0) & (corners < 120)).all(1)]:
        assert covered[int(y), int(x)] == 0, "what lies beyond the piece is not covered by it"


@given(motions)
def test_a_motion_keeps_angles_and_scales_by_its_zoom(motion: Motion) -> None:
    moved = motion.points(np.array([[0.0, 0], [10, 0], [0, 10]])) - motion.shift
    zoom = math.sqrt(abs(np.linalg.det(motion.matrix)))
    assert np.hypot(*moved[1:].T) == pytest.approx([10 * zoom] * 2)
    assert moved[1] @ moved[2] == pytest.approx(0, abs=1e-9)


def test_laying_hides_what_it_covers_and_brings_what_it_shows() -> None:
    under, over = painted(96, np.array([[20.0, 20], [70, 70]])), painted(96, np.array([[24.0, 24], [80, 80]]), seed=1)
    still = Motion(np.eye(2), np.zeros(2))
    made = lay(under, over, still, soft_rectangle(96, 0, 0, 48, 48, 4))
    assert made.objects.tolist() == [[70, 70], [24, 24]]
    assert made.hidden.tolist() == [[20, 20], [80, 80]]
    assert (made.image[4:40, 4:40] == over.image[4:40, 4:40]).all()
    assert (made.image[60:, 60:] == under.image[60:, 60:]).all()


@given(st.floats(10, 50), st.floats(10, 50), st.floats(3, 20), st.floats(0.5, 10))
def test_soft_edges_are_one_inside_half_on_the_edge_and_nothing_outside(x: float, y: float, radius: float, feather: float) -> None:
    disc = soft_disc(64, np.array([x, y]), radius, feather)
    at = np.arange(64) + 0.5
    distance = np.hypot(at[None] - x, at[:, None] - y)
    assert (disc[distance < radius - feather / 2] == 1).all()
    assert (disc[distance > radius + feather / 2] == 0).all()
    order = np.argsort(distance, axis=None)
    assert (np.diff(disc.ravel()[order]) <= 1e-6).all()
    box = soft_rectangle(64, x - radius, y - radius, x + radius, y + radius, feather)
    far = np.maximum(np.abs(at[None] - x), np.abs(at[:, None] - y))
    assert (box[far < radius - feather / 2] == 1).all()
    assert (box[far > radius + feather / 2] == 0).all()


def tissue() -> Tissue:
    rng = np.random.default_rng(3)
    figures = [painted(128, rng.uniform(50, 78, (1, 2)), seed=n, source=f"s{n % 2}") for n in range(6)]
    return Tissue(figures, [painted(400, np.empty((0, 2)), seed=9), painted(200, np.empty((0, 2)), 0.5, seed=10)])


@pytest.mark.parametrize(
    "recipe",
    [
        Composition(coarse=0, paste=0, empty=0),
        Composition(coarse=0, paste=1, empty=0),
        Composition(coarse=1, paste=0.5, empty=0),
        Composition((0.2, 0.55), 0, 0.3, 0.1),
    ],
    ids=["mosaics", "pasted", "coarse", "any scale"],
)
def test_every_green_dot_of_a_field_is_known_and_every_point_is_green(recipe: Composition) -> None:
    pool, rng, seen = tissue(), np.random.default_rng(7), 0
    for _ in range(25):
        field = compose(pool, 256, 0.25, recipe, rng)
        assert (field.image.shape, field.image.dtype, field.mpp) == ((256, 256, 3), np.uint8, 0.25)
        green = greenness(field.image)
        known = np.concatenate([field.objects, field.hidden])
        for y, x in np.argwhere(green > 60):
            assert np.hypot(*(known - (x + 0.5, y + 0.5)).T).min() < 14, "a dot that nobody knows of"
        inner = field.objects[((field.objects > 8) & (field.objects < 248)).all(1)]
        for point in inner:
            others = np.delete(known, np.flatnonzero((known == point).all(1)), 0)
            if len(others) and np.hypot(*(others - point).T).min() < 30:
                continue  # two dots, one centroid
            patch = centroid(field.image, point, 8)
            assert np.hypot(*(patch - point)) < 2.5
            seen += 1
    assert seen > 25


def test_figures_lie_anywhere_in_a_field() -> None:
    """A detector must not learn that figures are in the middle."""
    pool, rng = tissue(), np.random.default_rng(1)
    at = np.concatenate([compose(pool, 256, 0.25, Composition(), rng).objects for _ in range(150)])
    counts, _, _ = np.histogram2d(*at.T, bins=4, range=[[0, 256]] * 2)
    assert counts.min() > 0.25 * counts.mean()


def test_the_same_seed_gives_the_same_field() -> None:
    a, b = (compose(tissue(), 128, 0.25, Composition(), np.random.default_rng(5)) for _ in range(2))
    assert (a.image == b.image).all()
    assert (a.objects == b.objects).all()


def test_kinds_stay_with_their_figures() -> None:
    pool = tissue()
    marked = [Piece(p.image, p.objects, p.mpp, p.source, kind=np.array([float(n % 2)])) for n, p in enumerate(pool.figures)]
    field = compose(Tissue(marked, pool.empty), 256, 0.25, Composition(paste=0, empty=0), np.random.default_rng(0))
    assert len(field.kind) == len(field.objects) > 0
    assert set(field.kind.tolist()) <= {0.0, 1.0}


def test_a_dark_spot_is_dark_and_away_from_objects() -> None:
    piece = painted(128, np.array([[64.0, 64.0]]))
    image = piece.image.copy()
    image[20:44, 90:114] = 30
    spot = dark_spot(Piece(image, piece.objects, 0.25), np.random.default_rng(0), draws=200)
    assert spot is not None
    assert np.hypot(*(spot - (102, 32))) < 17
    assert dark_spot(painted(24, np.array([[12.0, 12.0]])), np.random.default_rng(0)) is None
