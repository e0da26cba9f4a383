"""Tumour: polygons and masks become labels, a small U-Net finds the region, other answers are confined to it, and it is measured in µm."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from shapely.geometry import box

import wsikit as wk
from wsikit.aggregate.counting import Counting
from wsikit.aggregate.overlap import dice, hausdorff_um
from wsikit.aggregate.searched import counts_of
from wsikit.errors import LabelsError, ModelError, UsageError
from wsikit.evaluate import evaluate_model
from wsikit.export.corrections import corrections, read_geojson
from wsikit.grid import Raster
from wsikit.models import Card, load_network
from wsikit.review import Review
from wsikit.review.files import from_qupath
from wsikit.run import Run
from wsikit.run.again import aggregate_run
from wsikit.run.job import Job, read_run
from wsikit.run.reviewed import open_review
from wsikit.slide import open_slide
from wsikit.testing.regions import write_region_phantom
from wsikit.train.classify import Options
from wsikit.train.labels import Labelled
from wsikit.train.presets import PRESETS
from wsikit.train.recipe import changed
from wsikit.train.regions import Marked, marks, read_marked
from wsikit.train.segment import train_segmenter

ARCHITECTURE = {"name": "unet", "encoder": "resnet18", "depth": 3, "decoder_channels": [16, 8, 8]}
FIELDS: dict[str, Any] = {
    "name": "tiny", "pipeline": "tumour", "task": "segment", "classes": ["other", "tumour"], "architecture": ARCHITECTURE, "mpp": 2.0, "tile_px": 64,
    "overlap_px": 16, "min_tissue": 0.05, "batch": 8, "licence": "none", "segmentation": {}, "trained_on": {"domain": "phantom", "description": "a test"},
}  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """A small model, the slides it was made from, and their truth."""

    folder: Path
    card: Card
    slides: list[Marked]
    truth: list[np.ndarray]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("regions")
    slides, truth = [], []
    for n in range(5):
        path = folder / f"{n}.tif"
        truth.append(write_region_phantom(path, n if n < 4 else 6, 1024, 768, tumour=n != 4, mitoses_per_mm2=200 if n > 2 else 0))
        item = Labelled(path, "tumour", f"P{n}", split="val" if n == 2 else "test" if n > 2 else "train")
        slides.append(Marked(item, path.with_suffix(".geojson")))
    recipe = changed(PRESETS["unet"], {"tile_px": 64, "batch": 8, "initial": "none", "architecture": ARCHITECTURE}, "a test").shortened(10)
    card = train_segmenter(slides, folder / "model", FIELDS, recipe, Options(60, log=lambda _: None))
    return Trained(folder / "model", card, slides, truth)


@pytest.fixture(scope="module")
def run(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The two slides held out, scored for tumour and subtype."""
    paths = [s.item.path for s in trained.slides[3:]]
    models = {"tumour": trained.folder}
    return wk.score(paths, tmp_path_factory.mktemp("run") / "out", ["tumour", "sts-subtype", "mitosis"], models=models, counting=Counting(within="tumour"))


def test_a_few_epochs_find_the_tumour(trained: Trained) -> None:
    found = trained.card.metrics["validation"]
    assert found["dice"] > 0.7
    assert found["dice_interval"][0] <= found["dice"] <= found["dice_interval"][1]
    assert trained.card.training["started_from"] == "random"


def test_a_network_that_gives_no_numbers_does_not_pass_for_one_that_finds_no_tumour(trained: Trained) -> None:
    model = load_network(trained.card, trained.folder)
    with torch.no_grad():
        next(model.net.parameters()).fill_(float("nan"))
    with pytest.raises(ModelError, match="gave no number for a tile"):
        model.predict(np.zeros((2, 64, 64, 3), np.uint8))


def test_the_region_is_a_label_a_shape_and_an_area(run: Run, trained: Trained) -> None:
    store, result = run.store("3"), run.results["3"]["pipelines"]["tumour"]
    mask, truth = store.region("tumour"), trained.truth[3]
    assert mask is not None
    assert dice(mask, truth[: mask.shape[0], : mask.shape[1]]) > 0.7
    raster = Raster.from_json(store.attributes["survey"]["raster"])
    assert result["region_mm2"] == pytest.approx(mask.sum() * raster.mpp[0] * raster.mpp[1] / 1e6, abs=1e-6)
    assert result["share"] == pytest.approx(result["region_mm2"] / run.results["3"]["tissue_mm2"], abs=1e-4)
    drawn = [s for s in read_geojson(store.path.with_suffix(".geojson"), store) if s.name == "Tumour"]
    area = sum(s.geometry.area for s in drawn) * store.mpp[0] * store.mpp[1] / 1e6
    assert area == pytest.approx(result["region_mm2"], rel=0.05)
    labels = json.loads((store.path / "labels/zarr.json").read_text())["attributes"]["ome"]["labels"]
    assert labels == ["tissue", "quality", "tumour"]
    assert store.overlay("tumour").channels == ("tumour",)
    assert wk.score([trained.slides[3].item.path], run.folder, ["tumour"], models={"tumour": trained.folder}, counting=Counting(within="tumour")).failed == {}


def test_calls_and_mitoses_are_confined_to_it(run: Run) -> None:
    store, pipelines = run.store("3"), run.results["3"]["pipelines"]
    mask = store.region("tumour")
    assert mask is not None
    for name in ("sts-subtype", "mitosis"):
        assert pipelines[name]["within"] == {"region": "tumour"}
    tiles, down = store.tables()["sts-subtype"], np.array(store.attributes["survey"]["raster"]["downsample"])
    centre = ((tiles["origin"] + tiles["size"] / 2) / down).astype(int)
    inside = mask[centre[:, 1].clip(0, mask.shape[0] - 1), centre[:, 0].clip(0, mask.shape[1] - 1)]
    assert pipelines["sts-subtype"]["n_tiles"] == inside.sum() < len(inside)
    assert pipelines["mitosis"]["area_mm2"] == pytest.approx(pipelines["tumour"]["region_mm2"], rel=1e-3)
    found = store.tables()["mitosis"]
    at = (found["position"] / down).astype(int)
    counted = mask[at[:, 1].clip(0, mask.shape[0] - 1), at[:, 0].clip(0, mask.shape[1] - 1)] & (found["score"] >= np.float32(pipelines["mitosis"]["threshold"]))
    everywhere = (found["score"] >= np.float32(pipelines["mitosis"]["threshold"])).sum()
    assert 0 < pipelines["mitosis"]["count"] == counted.sum() < everywhere
    shapes = list(read_geojson(store.path.with_suffix(".geojson"), store))
    names = [s.name for s in shapes]
    assert (names.count("Mitosis"), names.count("Outside the region")) == (counted.sum(), everywhere - counted.sum())
    assert len(corrections(shapes, store).rejected) == 0, "what was never counted was not taken away either"
    assert from_qupath(store.path.with_suffix(".geojson"), open_review(run.folder, "3"), "mitosis") == []
    assert (counts_of(store, pipelines["mitosis"])(found["position"], found["score"]) == counted).all()


def test_where_no_tumour_was_found_the_others_say_so(run: Run) -> None:
    pipelines = run.results["4"]["pipelines"]
    assert pipelines["tumour"]["share"] < 0.05
    for name in ("sts-subtype", "mitosis"):
        assert pipelines[name]["status"] == "abstained"
        assert pipelines[name]["reason"] == "answers are to be confined to 'tumour', and none was found"


def test_a_person_counts_where_none_was_found_only_in_what_they_draw(run: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run.folder, tmp_path / "run"))
    review = open_review(folder, "4", "AB")
    position = review.store.tables()["mitosis"]["position"]
    x, y = position[np.abs(position - (512, 384)).max(1).argmin()]  # far from the slide's edges
    review.label("mitosis", (x, y), "mitosis")
    answer = review.answer("mitosis")
    assert (answer["status"], answer["count"]) == ("abstained", None)
    assert answer["reason"] == "answers are to be confined to 'tumour', and none was found; what is drawn as tissue is counted in"
    assert answer["people"]["off_tissue"] == 1
    review.area("tissue", box(x - 200, y - 200, x + 200, y + 200))
    answer = review.answer("mitosis")
    assert (answer["status"], answer["count"]) == ("ok", 1)
    assert 0 < answer["area_mm2"] == pytest.approx((400 * 0.5e-3) ** 2, rel=0.25)
    assert answer["withheld"] == "answers are to be confined to 'tumour', and none was found"


def test_a_persons_count_is_not_confined_to_a_region_whose_answer_was_withheld(run: Run, tmp_path: Path) -> None:
    """Its mask is stored, and means nothing."""
    folder = Path(shutil.copytree(run.folder, tmp_path / "run"))
    job, store = Job.model_validate(read_run(folder)["job"]), wk.open_store(folder / "slides/3.zarr")
    withheld = store.result["pipelines"] | {n: {"status": "abstained", "reason": "unlike any tissue that is known"} for n in ("tumour", "mitosis")}
    review = Review(store, job.cards(), "AB", withheld, counting=job.counting)
    assert not review.tissue.any()
    review.label("mitosis", tuple(review.store.tables()["mitosis"]["position"][0]), "mitosis")
    answer = review.answer("mitosis")
    assert (answer["status"], answer["count"]) == ("abstained", None)
    assert answer["reason"].startswith("answers are to be confined to 'tumour', and that unlike any tissue")


def test_a_region_that_nothing_finds_is_refused(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--within tumour: is no pipeline of this run"):
        wk.score([trained.slides[4].item.path], tmp_path / "b", ["mitosis"], counting=Counting(within="tumour"))


def test_aggregating_again_without_it_is_the_whole_tissue(run: Run) -> None:
    n = run.results["3"]["pipelines"]["sts-subtype"]["n_tiles"]
    aggregate_run(run.folder, Counting())
    whole = json.loads((run.folder / "slides/3.json").read_text())["pipelines"]["sts-subtype"]
    assert whole["n_tiles"] > n
    assert "within" not in whole
    aggregate_run(run.folder, Counting(within="tumour"))


def test_evaluation_is_in_um_with_intervals(trained: Trained, tmp_path: Path) -> None:
    rows = [f"{s.item.path},{s.item.patient},{s.regions}" for s in trained.slides[2:4]]
    (tmp_path / "labels.csv").write_text("\n".join(["path,patient,regions", *rows]) + "\n")
    facts = evaluate_model(str(trained.folder), tmp_path / "labels.csv", tmp_path / "e")
    about = facts["mean dice (both empty counts 1, one empty 0)"]
    assert about.low <= about.value <= about.high
    assert about.value > 0.7
    assert facts["median hausdorff95 um"].value <= facts["median hausdorff um (undefined where one is empty)"].value
    assert (tmp_path / "e.regions.csv").read_text().startswith("slide_id,patient,dice,hausdorff_um,hausdorff95_um,found_mm2,drawn_mm2\n")


def test_borders_are_apart_in_um_along_each_axis() -> None:
    a, b = (np.zeros((20, 30), bool) for _ in range(2))
    a[5:10, 5:10] = b[5:10, 8:13] = True
    assert hausdorff_um(a, b, (0.5, 2.0)) == 1.5
    assert hausdorff_um(a, a, (0.5, 2.0)) == 0
    c = np.roll(a, 3, axis=0)
    assert hausdorff_um(a, c, (0.5, 2.0)) == 6.0
    c[19, 29] = True
    assert hausdorff_um(a, c, (1, 1), 95) < hausdorff_um(a, c, (1, 1))
    empty = np.zeros_like(a)
    assert (dice(a, b), dice(empty, empty), dice(a, empty)) == (2 * 10 / 50, 1.0, 0.0)
    assert hausdorff_um(empty, empty, (1, 1)) == 0
    assert np.isnan(hausdorff_um(a, empty, (1, 1)))


def test_polygons_with_holes_areas_and_masks_say_the_same(trained: Trained, tmp_path: Path) -> None:
    def feature(name: str, *rings: list[list[int]]) -> dict[str, Any]:
        return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": list(rings)}, "properties": {"classification": {"name": name}}}

    def square(x: int, y: int, side: int) -> list[list[int]]:
        return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]

    path = tmp_path / "a.geojson"
    shapes = [feature("Tumor", square(128, 128, 256), square(192, 192, 64)), feature("Region*", square(64, 64, 512)), feature("Fat", square(0, 0, 99))]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": shapes}))
    with open_slide(trained.slides[0].item.path) as slide:
        raster = slide.raster(2.0)
        said = marks(path, slide, raster)
        expected = np.full((raster.size.h, raster.size.w), 255)
        expected[16:144, 16:144] = 0
        expected[32:96, 32:96] = 1
        expected[48:64, 48:64] = 0
        assert (said != expected).mean() < 0.01, "but for a pixel at borders"
        Image.fromarray(expected.astype(np.uint8)).save(tmp_path / "a.png")
        assert np.array_equal(marks(tmp_path / "a.png", slide, raster), expected)
        for value, says in {
            "{": "cannot be read as GeoJSON",
            json.dumps([feature("Fat", square(0, 0, 99))]): "no polygon of class Tumor",
            json.dumps([feature("Tumor", square(5000, 0, 99))]): "beyond the slide's 1024 × 768 px",
        }.items():
            path.write_text(value)
            with pytest.raises(LabelsError, match=says):
                marks(path, slide, raster)
        Image.new("L", (300, 300)).save(tmp_path / "b.png")
        with pytest.raises(LabelsError, match="not of the shape of its slide"):
            marks(tmp_path / "b.png", slide, raster)


def test_labels_of_regions_are_checked(trained: Trained, tmp_path: Path) -> None:
    slide, path = trained.slides[0].item.path, tmp_path / "labels.csv"
    for row, says in {f"{slide},P1,no.geojson": "no regions at", f"no.tif,P1,{slide}": "no slide at", f"{slide},,{slide}": "patient must not be empty"}.items():
        path.write_text(f"path,patient,regions\n{row}\n")
        with pytest.raises(LabelsError, match=says):
            read_marked(path)
    empty = [replace(s, regions=trained.slides[4].regions) for s in trained.slides[:3]]
    with pytest.raises(LabelsError, match="holds no pixel of tumour"):
        train_segmenter(empty, tmp_path / "m", FIELDS, changed(PRESETS["unet"], {"initial": "none", "tile_px": 64}, "t"), Options(5, log=lambda _: None))
    assert not (tmp_path / "m").exists()
