"""Darknet detectors: boxes equal OpenCV's on the same files, and hostile or damaged files are refused."""

from __future__ import annotations

import contextlib
import json
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsikit.errors import CardError, ModelError, UnknownModelError, UsageError, WeightsMismatchError
from wsikit.models import check_model, load_model, read_card
from wsikit.models._darknet import check_layers, parse_cfg
from wsikit.models.exchange import fetch_model

ANCHORS = "12, 16, 19, 36, 40, 28, 36, 75, 76, 55, 72, 146, 142, 110, 192, 243, 459, 401"


def conv(filters: int, size: int = 1, stride: int = 1, bn: int = 1, activation: str = "mish") -> str:
    normal = "batch_normalize=1\n" if bn else ""
    return f"[convolutional]\n{normal}filters={filters}\nsize={size}\nstride={stride}\npad=1\nactivation={activation}\n"


def yolov4medi(narrow: int, side: int = 416) -> str:
    """The layout of the leiomyosarcoma detector's cfg (three heads, one class), its channels divided by ``narrow``."""

    def c(n: int, size: int = 1, stride: int = 1) -> str:
        return conv(max(2, n // narrow), size, stride)

    def stage(n: int, inner: int, repeats: int) -> list[str]:
        block = [c(inner), c(inner, 3), "[shortcut]\nfrom=-3\nactivation=linear\n"]
        back = -(3 * repeats + 4)
        return [c(n, 3, 2), c(inner), "[route]\nlayers = -2\n", c(inner), *block * repeats, c(inner), f"[route]\nlayers = -1,{back}\n", c(n)]

    def neck(n: int) -> list[str]:
        return [c(n), c(n), "[route]\nlayers = -2\n", c(n), c(n, 3), c(n), c(n, 3), "[route]\nlayers = -1, -6\n", c(n)]

    def head(n: int, mask: str) -> list[str]:
        options = "num=9\njitter=.3\nignore_thresh = .7\ntruth_thresh = 1\nrandom=1\nscale_x_y = 1.05\niou_thresh=0.213\ncls_normalizer=1.0\n"
        options += "iou_normalizer=0.07\niou_loss=ciou\nnms_kind=greedynms\nbeta_nms=0.6\n"
        return [c(2 * n, 3), conv(18, bn=0, activation="linear"), f"[yolo]\nmask = {mask}\nanchors = {ANCHORS}\nclasses=1\n{options}"]

    pool = ["[maxpool]\nstride=1\nsize=5\n", "[route]\nlayers=-2\n", "[maxpool]\nstride=1\nsize=9\n", "[route]\nlayers=-4\n"]
    spp = [*pool, "[maxpool]\nstride=1\nsize=13\n", "[route]\nlayers=-1,-3,-5,-6\n"]
    layers = [c(32, 3), c(64, 3, 2), c(32), c(64, 3), "[shortcut]\nfrom=-3\nactivation=linear\n"]
    layers += [*stage(128, 64, 2), *stage(256, 128, 8), *stage(512, 256, 8), *stage(1024, 512, 4)]
    layers += [c(512), "[route]\nlayers = -2\n", c(512), c(512, 3), c(512), *spp, c(512), c(512, 3), "[route]\nlayers = -1, -13\n", c(512)]
    layers += [c(256), "[upsample]\nstride=2\n", "[route]\nlayers = 79\n", c(256), "[route]\nlayers = -1, -3\n", *neck(256)]
    layers += [c(128), "[upsample]\nstride=2\n", "[route]\nlayers = 48\n", c(128), "[route]\nlayers = -1, -3\n", *neck(128), *head(128, "0,1,2")]
    layers += ["[route]\nlayers = -4\n", c(256, 3, 2), "[route]\nlayers = -1, -20\n", *neck(256), *head(256, "3,4,5")]
    layers += ["[route]\nlayers = -4\n", c(512, 3, 2), "[route]\nlayers = -1, -49\n", *neck(512), *head(512, "6,7,8")]
    net = f"[net]\n# Training\nbatch=64\nsubdivisions=16\nwidth={side}\nheight={side}\nchannels=3\nmomentum=0.949\nlearning_rate=0.00261\n#cutmix=1\nmosaic=1\n"
    return "\n".join([net, *layers])


def weights(text: str, spread: float = 1.3, head: float = 2.0) -> bytes:
    """Random weights in Darknet's format: version 0.2.5, images seen, and of each convolution biases, scales, means, variances, kernels."""
    rng = np.random.default_rng(0)
    architecture = parse_cfg(text, "test")
    channels, out = [3], [struct.pack("<iiiQ", 0, 2, 5, 32_000)]
    for i, (kind, o) in enumerate(architecture["layers"]):
        before = channels[-1]
        if kind == "convolutional":
            n, size, bn = int(o["filters"]), int(o["size"]), "batch_normalize" in o
            parts = [rng.normal(0, 0.3, n) if bn else np.tile([0, 0, 0, 0, -1.5, 1.5], 3)]
            parts += [rng.uniform(0.7, 1.2, n), rng.normal(0, 0.2, n), rng.uniform(0.6, 1.4, n)] if bn else []
            parts += [rng.normal(0, (spread if bn else head) / np.sqrt(before * size * size), n * before * size * size)]
            out += [p.astype("<f4").tobytes() for p in parts]
            channels.append(n)
        elif kind == "route":
            channels.append(sum(channels[(r if r >= 0 else i + r) + 1] for r in map(int, o["layers"].split(","))))
        else:
            channels.append(before)
    return b"".join(out)


@pytest.fixture(scope="module")
def medi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow network of that layout as two files; returns the cfg."""
    cfg = tmp_path_factory.mktemp("darknet") / "yolov4medi.cfg"
    cfg.write_text(yolov4medi(16))
    cfg.with_suffix(".weights").write_bytes(weights(cfg.read_text()))
    return cfg


@pytest.fixture
def folder(medi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WSIKIT_HOME", str(tmp_path / "home"))
    return fetch_model(str(medi), mpp=0.25, threshold=0.6, nms_iou=0.4)


def opencv_boxes(cfg: Path, image: np.ndarray, threshold: float, nms: float) -> np.ndarray:
    """As their notebook does it: 1/255, RGB, the class score above the threshold, NMSBoxes; float (M, 5) x, y, w, h, score, best first."""
    net = cv2.dnn.readNetFromDarknet(str(cfg), str(cfg.with_suffix(".weights")))
    side = image.shape[0]
    net.setInput(cv2.dnn.blobFromImage(image[..., ::-1].copy(), 1 / 255, (side, side), swapRB=True, crop=False))
    rows = np.concatenate(net.forward(net.getUnconnectedOutLayersNames()))
    rows = rows[rows[:, 5] > threshold]
    centre, size = rows[:, :2] * side, rows[:, 2:4] * side
    boxes = np.concatenate([centre - size / 2, size], 1).astype(float)
    kept = np.array(cv2.dnn.NMSBoxes(boxes.tolist(), rows[:, 5].astype(float).tolist(), threshold, nms), int).ravel()
    found = np.concatenate([centre[kept], size[kept], rows[kept, 5:6]], 1)
    return found[np.argsort(-found[:, 4], kind="stable")]


def same_boxes(folder: Path, cfg: Path, seed: int) -> int:
    model = load_model(folder)
    side = model.card.tile_px
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 256, (side // 8, side // 8, 3), np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)
    assert model.card.detection is not None
    threshold, nms = model.card.detection.threshold, model.card.architecture["nms_iou"]
    expected = opencv_boxes(cfg, image, threshold, nms)
    (found,) = model.predict(image[None])
    counted = found.score > threshold
    assert counted.sum() == len(expected)
    order = np.lexsort((expected[:, 0], expected[:, 1]))
    mine = np.lexsort((found.position[counted][:, 0], found.position[counted][:, 1]))
    assert np.allclose(found.position[counted][mine], expected[order, :2], atol=0.02)
    assert np.allclose(found.size[counted][mine], expected[order, 2:4], rtol=2e-3)
    assert np.allclose(found.score[counted][mine], expected[order, 4], atol=2e-4)
    return len(expected)


def test_boxes_equal_opencvs_on_the_same_files(folder: Path, medi: Path) -> None:
    card = read_card(folder)
    assert (card.tile_px, card.classes, card.pipeline, card.weights.file) == (416, ["mitosis"], "mitosis", "model.safetensors")
    assert card.detection is not None
    assert (card.detection.threshold, card.architecture["nms_iou"], card.mpp) == (0.6, 0.4, 0.25)
    assert sum(kind == "yolo" for kind, _ in card.architecture["layers"]) == 3
    assert sum(same_boxes(folder, medi, seed) for seed in range(2)) > 20
    assert {p.name for p in folder.iterdir()} == {"card.json", "model.safetensors"}, "nothing that runs"


@pytest.mark.slow
def test_boxes_equal_opencvs_at_full_width(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 million weights, as the published file has."""
    monkeypatch.setenv("WSIKIT_HOME", str(tmp_path / "home"))
    cfg = tmp_path / "yolov4medi.cfg"
    cfg.write_text(yolov4medi(1))
    cfg.with_suffix(".weights").write_bytes(weights(cfg.read_text(), spread=1.15, head=3.0))  # wide sums are of larger spread: 1.3 ends in boxes of 1e28 px
    assert cfg.with_suffix(".weights").stat().st_size > 200e6
    assert same_boxes(fetch_model(str(cfg), mpp=0.25, threshold=0.6, nms_iou=0.4), cfg, 0) > 5


def test_the_model_is_checked_like_any_other_and_its_cfg_is_numbers(folder: Path) -> None:
    assert check_model(folder).name == "yolov4medi"
    card = json.loads((folder / "card.json").read_text())
    card["architecture"]["layers"][0][1]["filters"] = "99999999"
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(CardError, match="filters '99999999' is no whole number"):
        check_model(folder)


def test_what_must_be_told_is_asked_for(medi: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"mpp.*--mpp"):
        fetch_model(str(medi))
    with pytest.raises(UsageError, match="between 0 and 1"):
        fetch_model(str(medi), mpp=0.25, threshold=1.5)
    (tmp_path / "a.cfg").write_text("[net]\n")
    with pytest.raises(UnknownModelError, match=r"a\.weights is missing"):
        fetch_model(str(tmp_path / "a.cfg"), mpp=0.25)


@pytest.mark.parametrize("change", [lambda b: b[:-4], lambda b: b + b"\0\0\0\0", lambda b: b[:500], lambda b: b""])
def test_weights_of_another_cfg_or_cut_short_are_refused(medi: Path, tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    cfg = tmp_path / "m.cfg"
    cfg.write_text(medi.read_text())
    cfg.with_suffix(".weights").write_bytes(change(medi.with_suffix(".weights").read_bytes()))
    with pytest.raises(WeightsMismatchError, match="of another cfg, or not whole"):
        fetch_model(str(cfg), mpp=0.25)


def test_weights_that_are_no_numbers_are_refused(medi: Path, tmp_path: Path) -> None:
    cfg = tmp_path / "m.cfg"
    cfg.write_text(medi.read_text())
    data = bytearray(medi.with_suffix(".weights").read_bytes())
    data[1000:1004] = struct.pack("<f", float("nan"))
    cfg.with_suffix(".weights").write_bytes(data)
    with pytest.raises(WeightsMismatchError, match="not numbers"):
        fetch_model(str(cfg), mpp=0.25)


SMALL = "[net]\nwidth=64\nheight=64\n" + conv(8, 3, 2) + conv(6, bn=0, activation="linear") + "[yolo]\nmask=0\nanchors=12,16\nclasses=1\nnum=1\n"


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("filters=8", "filters=1000000", "no whole number"),
        ("filters=8", "filters=-3", "no whole number"),
        ("width=64", "width=1000000", "width"),
        ("height=64", "height=32", "square"),
        ("[yolo]", "[python]", "not known here"),
        ("activation=mish", "activation=__import__", "activation"),
        ("size=3", "size=3\ngroups=4", "'groups' is not known"),
        ("mask=0", "mask=7", "mask"),
        ("anchors=12,16", "anchors=12", "anchors"),
        ("anchors=12,16", "anchors=nan,16", "sizes"),
        ("classes=1", "classes=2", "channels"),
        ("classes=1", "classes=1\nnew_coords=1", "'new_coords' is not known"),
        ("[yolo]", "[route]\nlayers=9\n[yolo]", "not before it"),
        ("[yolo]", "[shortcut]\nfrom=-2\nactivation=linear\n[yolo]", "different shapes"),
        ("[yolo]", "[upsample]\nstride=8\n" * 9 + "[yolo]", "output would be"),
        ("[yolo]", "[maxpool]\nsize=4\nstride=1\n[yolo]", "even"),
        ("[net]", "[nothing]", "no Darknet cfg"),
        ("[yolo]", conv(6, 15) * 500 + "[yolo]", "1 to 400"),
        ("[yolo]", conv(8000, 3) * 2 + "[yolo]", "larger than any detector"),
    ],
)
def test_hostile_cfgs_are_refused_by_name_before_anything_is_built(old: str, new: str, why: str) -> None:
    assert parse_cfg(SMALL, "x")["classes"] == 1
    start = time.process_time()
    with pytest.raises(CardError, match=why):
        parse_cfg(SMALL.replace(old, new, 1), "x")
    assert time.process_time() - start < 1


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.characters()), max_size=6), st.integers(0, len(SMALL)))
def test_no_damaged_cfg_does_anything_but_a_typed_refusal(changes: list[tuple[int, str]], end: int) -> None:
    text = list(SMALL)
    for at, character in changes:
        text[at] = character
    with contextlib.suppress(ModelError):
        check_layers(parse_cfg("".join(text)[: max(end, 40)], "x"), "x")


def test_the_command_line_adds_one(medi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from wsikit.cli.main import main

    monkeypatch.setenv("WSIKIT_HOME", str(tmp_path / "home"))
    arguments: list[Any] = ["models", "add", str(medi), "--mpp", "0.25", "--threshold", "0.6", "--nms", "0.4", "--licence", "unknown"]
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 0, capsys.readouterr().err
    assert (tmp_path / "home/models/yolov4medi/card.json").exists()
    assert read_card(tmp_path / "home/models/yolov4medi").licence == "unknown"
