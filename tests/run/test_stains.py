"""The colours of a run: of an image when asked, for kept pixels and pictures; a model sees those of its card whatever was asked."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest

import wsikit as wk
from wsikit.cli.main import main
from wsikit.cut import normalise
from wsikit.errors import UsageError
from wsikit.models import find_model
from wsikit.run import Progress, Run, tile_slides
from wsikit.run.job import Pixels, read_run
from wsikit.slide import open_slide
from wsikit.stain import StainFit, get_method
from wsikit.survey import fit_target, survey
from wsikit.testing.phantom import Spec, write_phantom

MPP = 1.0  # of the phantoms' kept pixels: a quarter of the work
METHODS = ("macenko", "reinhard", "vahadane")


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stains") / "small.tif"
    write_phantom(path, Spec(5, "LMS", 1024, 896))
    return path


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture without mpp of violet haematoxylin and orange eosin, stained weakly."""
    vectors = np.array([[0.68, 0.66, 0.32], [0.13, 0.90, 0.42]])
    amount = np.random.default_rng(0).uniform(0.05, 1.1, (300 * 200, 2)) * (np.random.default_rng(1).uniform(size=(300 * 200, 2)) > 0.2)
    rgb = (240 * np.exp(-amount @ vectors) - 1).round().astype(np.uint8).reshape(200, 300, 3)
    path = tmp_path_factory.mktemp("target") / "target.png"
    path.write_bytes(imagecodecs.png_encode(rgb))
    return path


def columns(run: Run, name: str = "sts-subtype") -> dict[str, np.ndarray]:
    return dict(run.store("small").tables()[name])


def score(slide: Path, out: Path, **options: Any) -> Run:
    run = wk.score([slide], out, **{"pipelines": ["sts-subtype"]} | options)
    assert not run.failed
    return run


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def usual(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return score(slide, tmp_path_factory.mktemp("usual") / "run")


@pytest.fixture(scope="module")
def reinhard_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, with a card that names another stain."""
    folder = Path(shutil.copytree(find_model("sts-subtype"), tmp_path_factory.mktemp("model") / "reinhard"))
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"stain": "reinhard"}))
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_a_picture_without_mpp_is_fitted_by_all_of_its_pixels(image: Path, method: str) -> None:
    target = fit_target(image, method)
    assert target.fit == get_method(method).fit(open_slide(image).read((0, 0, 300, 200)).reshape(-1, 3))
    assert (target.image, target.digest) == ("target.png", hashlib.sha256(image.read_bytes()).hexdigest())


def test_a_slide_is_fitted_as_when_it_is_normalised(slide: Path) -> None:
    assert fit_target(slide, "macenko").fit == survey(open_slide(slide)).stain


@pytest.mark.parametrize(
    ("name", "stain", "words"),
    [
        ("missing.png", "macenko", "missing.png: no such file"),
        ("text.png", "macenko", "not a slide"),
        ("white.png", "vahadane", r"white.png: cannot be used for 'vahadane': only 0 stained pixels"),
        ("white.png", "reinhard", "only 0 stained pixels"),
        ("brown.png", "macenko", "wedge"),
        ("target.png", "none", "'none' changes no colours"),
        ("target.png", "quux", "no stain method is called 'quux'"),
    ],
)
def test_a_target_that_cannot_be_is_refused_before_anything_is_written(slide: Path, image: Path, tmp_path: Path, name: str, stain: str, words: str) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(image, folder)
    (folder / "text.png").write_text("hello")
    brown = 240 * np.exp(-np.random.default_rng(0).uniform(0.1, 1.4, (90, 90, 2)) @ np.array([[0.65, 0.70, 0.29], [0.27, 0.57, 0.78]])) - 1
    for file, rgb in (("white.png", np.full((90, 90, 3), 255, np.uint8)), ("brown.png", brown.astype(np.uint8))):
        (folder / file).write_bytes(imagecodecs.png_encode(rgb))
    with pytest.raises(UsageError, match=words):
        wk.tile(slide, tmp_path / "run", stain=stain, stain_target=folder / name)
    assert not (tmp_path / "run").exists()


def test_a_large_picture_without_mpp_is_not_read_whole(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsikit.survey.MAX_IMAGE_PX", 300 * 200 - 1)
    with pytest.raises(UsageError, match="300 × 200 px; give a slide with an mpp, or a crop"):
        fit_target(image, "macenko")


@pytest.mark.parametrize("method", METHODS)
def test_kept_pixels_are_in_the_targets_colours_and_say_so(slide: Path, image: Path, tmp_path: Path, method: str) -> None:
    path = wk.tile(slide, tmp_path / "run", mpp=MPP, stain=method, stain_target=image)
    target = fit_target(image, method)
    store = wk.open_store(path)
    fit = StainFit.model_validate(store.attributes["stain"])
    assert fit == survey(open_slide(slide), method).stain.model_copy(update={"target": target})
    assert store.result["stain"] == store.attributes["stain"]
    assert read_run(tmp_path / "run")["job"]["stain_target"] == target.model_dump()
    raw = open_slide(slide)
    stored = np.moveaxis(np.asarray(store.image(MPP)[:, 100:300, 100:300]), 0, -1)
    plain = raw.read_raster(raw.raster(MPP), 100, 100, 200, 200)
    assert np.array_equal(stored, np.asarray(normalise(plain, fit)))
    reference = np.asarray(normalise(plain, fit.model_copy(update={"target": None})))
    assert np.abs(stored.astype(int) - reference).mean() > 3, "other colours than the reference's"


@pytest.mark.parametrize("asked", [{"stain": "none"}, {"stain": "reinhard"}, {"stain_target": True}, {"stain": "vahadane", "stain_target": True}])
def test_a_model_sees_its_own_colours_whatever_is_asked_for_the_pixels(slide: Path, image: Path, tmp_path: Path, usual: Run, asked: dict[str, Any]) -> None:
    if "stain_target" in asked:
        asked = asked | {"stain_target": image}
    run = score(slide, tmp_path / "run", keep_tiles=True, **asked)
    assert same(columns(run), columns(usual))
    assert run.results["small"]["pipelines"] == usual.results["small"]["pipelines"]
    assert run.results["small"]["stain"] != usual.results["small"]["stain"]


def test_a_card_with_another_stain_gets_a_fit_of_its_own(slide: Path, tmp_path: Path, usual: Run, reinhard_model: Path) -> None:
    run = score(slide, tmp_path / "run", models={"sts-subtype": reinhard_model})
    attributes = run.store("small").attributes
    assert attributes["stain"] == usual.store("small").attributes["stain"], "the run's own stays what it is"
    own = StainFit.model_validate(attributes["model_stains"]["reinhard"])
    assert own == survey(open_slide(slide), "reinhard").stain, "of the same tissue pixels as when the run has that stain"
    assert run.results["small"]["provenance"]["model_stains"] == attributes["model_stains"]
    assert not same(columns(run), columns(usual))
    same_stain = score(slide, tmp_path / "reinhard", models={"sts-subtype": reinhard_model}, stain="reinhard")
    assert same(columns(run), columns(same_stain))


def test_a_model_that_is_added_later_gets_the_same_fit(slide: Path, tmp_path: Path, reinhard_model: Path) -> None:
    fresh = score(slide, tmp_path / "fresh", models={"sts-subtype": reinhard_model})
    score(slide, tmp_path / "run", pipelines=["rms-subtype"])
    later = score(slide, tmp_path / "run", models={"sts-subtype": reinhard_model})
    assert same(columns(later), columns(fresh))
    assert later.store("small").attributes["model_stains"] == fresh.store("small").attributes["model_stains"]


def test_a_card_with_an_unknown_stain_is_refused_before_work(slide: Path, tmp_path: Path, reinhard_model: Path) -> None:
    folder = Path(shutil.copytree(reinhard_model, tmp_path / "model"))
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"stain": "quux"}))
    with pytest.raises(UsageError, match="no stain method is called 'quux'"):
        wk.score([slide], tmp_path / "run", models={"sts-subtype": folder})
    assert not (tmp_path / "run").exists()


def test_another_target_is_other_work_and_another_name_is_not(slide: Path, image: Path, tmp_path: Path) -> None:
    blocks: list[int] = []

    def go(**options: Any) -> int:
        blocks.append(0)

        def count(event: Progress) -> None:
            blocks[-1] += event.kind == "block"

        run = tile_slides([slide], tmp_path / "run", pixels=Pixels(mpp=MPP), on_progress=count, **options)
        assert not run.failed
        return blocks[-1]

    renamed = Path(shutil.copy(image, tmp_path / "renamed.png"))
    first = go(stain_target=image)
    assert first > 0
    assert go(stain_target=image) == 0
    assert go(stain_target=renamed) == 0
    assert go(stain_target=slide) == first
    assert go() == first
    assert go(stain="vahadane") == first


def test_the_command_line_takes_a_target(slide: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["tile", str(slide), "-o", str(tmp_path / "run"), "--mpp", "2", "--workers", "0", "--stain-target"]
    with pytest.raises(SystemExit) as end:
        main([*arguments, str(tmp_path / "no.png")])
    assert end.value.code == 2
    assert "stain target" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    with pytest.raises(SystemExit) as end:
        main([*arguments, str(image)])
    assert end.value.code == 0
    assert wk.open_store(tmp_path / "run/slides/small.zarr").attributes["stain"]["target"]["image"] == "target.png"
