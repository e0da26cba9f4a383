"""What every stain method promises, whatever it is given."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from wsikit.errors import UsageError
from wsikit.stain import StainFit, StainMethod, StainTarget, get_method, methods
from wsikit.stain.macenko import REFERENCE

RNG = np.random.default_rng(0)
ODD = {
    "nothing": np.empty((0, 3), np.uint8),
    "one pixel": np.array([[180, 90, 160]], np.uint8),
    "blank": np.full((5000, 3), 255, np.uint8),
    "glass with noise": RNG.normal(243, 2, (5000, 3)).clip(0, 255).astype(np.uint8),
    "pale": RNG.normal((232, 222, 230), 3, (5000, 3)).clip(0, 255).astype(np.uint8),
    "one colour": np.full((5000, 3), (150, 60, 140), np.uint8),
    "one colour with noise": RNG.normal((150, 60, 140), 2, (5000, 3)).clip(0, 255).astype(np.uint8),
    "black": np.zeros((5000, 3), np.uint8),
    "grey": np.repeat(RNG.integers(20, 200, (5000, 1)), 3, 1).astype(np.uint8),
    "green pen": RNG.normal((40, 150, 70), 12, (5000, 3)).clip(0, 255).astype(np.uint8),
    "blue pen": RNG.normal((30, 60, 180), 12, (5000, 3)).clip(0, 255).astype(np.uint8),
    "any colours": RNG.integers(0, 256, (5000, 3)).astype(np.uint8),
}
EVERY = pytest.mark.parametrize("name", sorted(methods()))
COLOURS = pytest.mark.parametrize("name", sorted(methods().keys() - {"none"}))


def sound(fit: StainFit) -> bool:
    """A fit that can be kept: finite, and with a reason when it is not to be used."""
    numbers = [*np.ravel(fit.vectors), *fit.max_concentration, *fit.mean, *fit.std]
    return bool(np.isfinite(numbers).all()) and (fit.trusted or (bool(fit.reason) and not fit.vectors and not fit.mean))


@EVERY
@pytest.mark.parametrize("kind", ODD)
def test_odd_tissue_neither_raises_nor_gives_odd_numbers(name: str, kind: str) -> None:
    method = get_method(name)
    fit = method.fit(ODD[kind])
    assert sound(fit)
    assert fit.method == name
    image = torch.from_numpy(RNG.integers(0, 256, (2, 8, 8, 3)).astype(np.uint8))
    out = method.apply(image, fit)
    assert (out.shape, out.dtype) == (image.shape, torch.uint8)


@EVERY
@settings(max_examples=40, deadline=None)
@given(image=arrays(np.uint8, array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9).map(lambda s: (*s, 3))))
def test_shape_type_and_input_are_kept(name: str, image: np.ndarray) -> None:
    method = get_method(name)
    fit = _fit_of_reference(method)
    before = image.copy()
    out = method.apply(torch.from_numpy(image), fit)
    assert tuple(out.shape) == image.shape
    assert out.dtype == torch.uint8
    assert (image == before).all()


@EVERY
def test_a_pixel_does_not_depend_on_its_neighbours(name: str) -> None:
    method = get_method(name)
    fit = _fit_of_reference(method)
    images = torch.from_numpy(RNG.integers(0, 256, (5, 33, 17, 3)).astype(np.uint8))
    together = method.apply(images, fit)
    assert torch.equal(together, torch.stack([method.apply(i, fit) for i in images]))
    assert torch.equal(together[2, 4:9, 3:5], method.apply(images[2, 4:9, 3:5], fit))


@EVERY
def test_white_stays_white(name: str, make_stained: Callable[..., np.ndarray]) -> None:
    method = get_method(name)
    tilted = np.array([[0.55, 0.75, 0.36], [0.15, 0.86, 0.49]])
    for vectors, strength in ((REFERENCE, (2.0, 1.0)), (tilted, (0.9, 2.0))):
        fit = method.fit(make_stained(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), strength=strength))
        white = torch.tensor([[[255, 255, 255], [240, 240, 240]]], dtype=torch.uint8)
        out = method.apply(white, fit).int()
        assert int(out.min()) >= 235
        assert int((out.amax(-1) - out.amin(-1)).max()) <= 16


@EVERY
def test_a_fit_travels(name: str) -> None:
    fit = _fit_of_reference(get_method(name))
    assert StainFit.model_validate_json(fit.model_dump_json()) == fit
    assert StainFit.model_validate(json.loads(json.dumps(fit.model_dump()))) == fit
    assert pickle.loads(pickle.dumps(fit)) == fit
    assert get_method(name).fit(_reference_pixels()) == fit, "the same pixels give the same fit"


@EVERY
def test_an_untrusted_fit_changes_nothing(name: str) -> None:
    image = torch.from_numpy(RNG.integers(0, 256, (4, 4, 3)).astype(np.uint8))
    fit = StainFit(method=name, trusted=False, reason="a test")
    assert torch.equal(get_method(name).apply(image, fit), image)


@EVERY
def test_a_slide_brought_to_its_own_colours_stays_as_it_is(name: str) -> None:
    """But for the one level that Macenko's programs add."""
    method = get_method(name)
    fit = _fit_of_reference(method)
    own = fit.model_copy(update={"target": StainTarget(image="a.png", digest="0" * 64, fit=fit)})
    image = torch.from_numpy(_reference_pixels()[:4000])
    assert int((method.apply(image, own).int() - image.int()).abs().max()) <= 2
    assert StainFit.model_validate_json(own.model_dump_json()) == own


@COLOURS
def test_another_target_gives_the_targets_colours(name: str, make_stained: Callable[..., np.ndarray]) -> None:
    """Two laboratories: the pixels of one, brought to the other, are fitted like the other's."""
    method = get_method(name)
    here, there = (np.array(v) for v in ([[0.66, 0.62, 0.42], [0.2, 0.85, 0.5]], [[0.5, 0.75, 0.43], [0.25, 0.86, 0.44]]))
    pixels = make_stained(here / np.linalg.norm(here, axis=1, keepdims=True), 30_000, (1.4, 1.2), 1)
    target = method.fit(make_stained(there / np.linalg.norm(there, axis=1, keepdims=True), 30_000, (1.3, 1.1), 2))
    fit = method.fit(pixels)
    moved = method.apply(torch.from_numpy(pixels), fit.model_copy(update={"target": StainTarget(image="a.png", digest="0" * 64, fit=target)}))
    again, usual = method.fit(moved.numpy()), method.fit(method.apply(torch.from_numpy(pixels), fit).numpy())
    for values in ("vectors", "max_concentration", "mean", "std"):
        wanted, got, other = (np.ravel(getattr(f, values)) for f in (target, again, usual))
        assert got == pytest.approx(wanted, abs=0.03 if values == "vectors" else 0.06 * max(1.0, *np.abs(wanted), 0))
        assert len(wanted) == 0 or np.abs(other - wanted).max() > 1.5 * np.abs(got - wanted).max(), "the reference's colours are others"


def test_unknown_methods_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"'vahadan'.*macenko"):
        get_method("vahadan")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=6), st.integers(0, 2**31))
def test_no_mixture_of_colours_gives_an_unsound_fit(colours: list[tuple[int, int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = np.array(colours, np.uint8)[rng.integers(0, len(colours), 3000)]
    for method in methods().values():
        fit = method.fit(pixels)
        assert sound(fit)
        assert method.apply(torch.from_numpy(pixels), fit).shape == pixels.shape


def _reference_pixels() -> np.ndarray:
    rng = np.random.default_rng(3)
    amount = rng.uniform(0, 1.5, (8000, 2)) * (rng.uniform(size=(8000, 2)) > 0.2)
    return (240 * np.exp(-amount @ REFERENCE) - 1).round().clip(0, 255).astype(np.uint8)


def _fit_of_reference(method: StainMethod) -> StainFit:
    fit = method.fit(_reference_pixels())
    assert fit.trusted, fit.reason
    return fit
