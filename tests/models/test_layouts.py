"""Detectors of other tools as ONNX files: the same boxes in each layout of outputs; and YOLOv9 beside YOLOX."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wsikit.errors import CardError, UsageError
from wsikit.models import check_model, load_model
from wsikit.models._boxes import LAYOUTS, decode
from wsikit.models._card import Card, write_model
from wsikit.models._yolo9 import Yolo9
from wsikit.models.exchange import fetch_model
from wsikit.models.mitosis import build

SIDE = 64
BOXES = torch.tensor([[20.0, 24.0, 12.0, 10.0], [45.0, 40.0, 8.0, 14.0], [46.0, 40.0, 8.0, 14.0], [8.0, 50.0, 9.0, 9.0]])  # centre, size
SCORES = torch.tensor([0.9, 0.8, 0.7, 0.3])  # the third overlaps the second


def corners(boxes: Tensor) -> Tensor:
    return torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)


def on_grid() -> Tensor:
    """The boxes as YOLOX writes them: in the cells of strides 8, 16, 32, all others with score 0."""
    rows = torch.zeros(64 + 16 + 4, 6)
    for (x, y, w, h), score in zip(BOXES.tolist(), SCORES.tolist(), strict=True):
        n = next(i for i in range(64) if not rows[i, 4])  # any cell can hold any box
        column, row = n % 8, n // 8
        rows[n] = torch.tensor([x / 8 - column, y / 8 - row, np.log(w / 8), np.log(h / 8), score, 1.0])
    return rows


PLAIN = torch.cat([BOXES, SCORES[:, None]], 1)
OUTPUTS: dict[str, Callable[[], list[Tensor]]] = {
    "ultralytics": lambda: [PLAIN.T],
    "ultralytics-end-to-end": lambda: [torch.cat([corners(BOXES), SCORES[:, None], torch.zeros(4, 1)], 1)],
    "objectness": lambda: [torch.cat([BOXES, SCORES[:, None], torch.ones(4, 1)], 1)],
    "yolox": lambda: [on_grid()],
    "corners": lambda: [torch.cat([corners(BOXES), SCORES[:, None]], 1).T],
    "torchvision": lambda: [corners(BOXES), torch.ones(4, dtype=torch.int64), SCORES],
}


class Says(nn.Module):
    """Gives what it was told, whatever it is shown."""

    def __init__(self, outputs: list[Tensor], batched: bool) -> None:
        super().__init__()
        self.batched = batched
        for i, out in enumerate(outputs):
            self.register_buffer(f"out{i}", out)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        nothing = (x * 0).sum((1, 2, 3))
        found = []
        for _, out in self.named_buffers():
            zero = nothing.to(out.dtype)
            found.append(out[None] + zero[:, None, None] if self.batched else out + zero.sum())
        return tuple(found)


def onnx_file(path: Path, layout: str, batch: int | None = None) -> Path:
    batched = layout != "torchvision"
    says = Says(OUTPUTS[layout](), batched)
    names = ["boxes", "labels", "scores"] if not batched else ["output0"]
    free = {"images": {0: "batch"}} | ({names[0]: {0: "batch"}} if batched else {})
    example = torch.zeros(batch or (2 if batched else 1), 3, SIDE, SIDE)
    dynamic = None if batch or not batched else free
    torch.onnx.export(says, (example,), str(path), input_names=["images"], output_names=names, dynamic_axes=dynamic, dynamo=False)
    return path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSIKIT_HOME", str(tmp_path / "home"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Two threads that wait for each other on a busy machine take minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_gives_the_same_boxes(layout: str, tmp_path: Path) -> None:
    file = onnx_file(tmp_path / "mine.onnx", layout)
    folder = fetch_model(str(file), pipeline="mitosis", layout=layout, mpp=0.25, threshold=0.5, nms_iou=0.4)
    assert check_model(folder).architecture["layout"] == layout
    model = load_model(folder)
    found = model.predict(np.zeros((3, SIDE, SIDE, 3), np.uint8))
    assert len(found) == 3
    for one in found:
        assert one.position == pytest.approx(BOXES[[0, 1, 3], :2].numpy(), abs=1e-4)
        assert one.size == pytest.approx(BOXES[[0, 1, 3], 2:].numpy(), abs=1e-4)
        assert one.score == pytest.approx([0.9, 0.8, 0.3], abs=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_file_without_a_layout_or_of_another_one_is_refused(tmp_path: Path) -> None:
    file = onnx_file(tmp_path / "mine.onnx", "ultralytics", batch=1)
    with pytest.raises(UsageError, match=r"output0.*--layout …; there are: ultralytics"):
        fetch_model(str(file), pipeline="mitosis", mpp=0.25)
    with pytest.raises(UsageError, match="--mpp"):
        fetch_model(str(file), pipeline="mitosis", layout="ultralytics")
    wrong = fetch_model(str(file), pipeline="mitosis", layout="yolox", mpp=0.25)
    with pytest.raises(CardError, match="not those of strides"):
        check_model(wrong)
    with pytest.raises(UsageError, match="of detectors only"):
        fetch_model(str(file), pipeline="sts-subtype", layout="ultralytics")
    assert check_model(fetch_model(str(file), pipeline="mitosis", layout="ultralytics", mpp=0.25)).batch == 1


def test_only_the_counted_class_of_a_file_gives_scores() -> None:
    two = torch.tensor([[[10.0, 10, 4, 4, 0.2, 0.9]]]).transpose(1, 2)
    assert decode("ultralytics", {"o": two}, 64)[0, 0, 5] == pytest.approx(0.2)
    assert decode("ultralytics", {"o": two}, 64, class_index=1)[0, 0, 5] == pytest.approx(0.9)
    ends = torch.tensor([[[8.0, 8, 12, 12, 0.7, 1.0]]])
    assert decode("ultralytics-end-to-end", {"o": ends}, 64)[0, 0, 4:].prod() == 0
    assert decode("ultralytics-end-to-end", {"o": ends}, 64, class_index=1)[0, 0, 4:].prod() == pytest.approx(0.7)


def test_yolov9_learns_where_a_dark_square_is(one_thread: None) -> None:
    """Boxes as libreyolo's own, and a loss that falls on one picture."""
    torch.manual_seed(0)
    net = Yolo9("yolo9-t", 64)
    net.init_weights()
    image = torch.ones(2, 3, 64, 64)
    image[:, :, 20:32, 36:48] = 0
    targets = torch.zeros(2, 3, 5)
    targets[:, 0] = torch.tensor([0, 42.0, 26, 12, 12])
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    losses = []
    for _ in range(5):
        loss = net(image, targets)["total_loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.97 * losses[0], losses
    net.eval()
    with torch.inference_mode():
        rows, own = net(image), net.net(image)
    assert rows.shape == (2, 84, 6)
    assert torch.allclose(rows[..., :2], (own[:, :2] + own[:, 2:4]).transpose(1, 2) / 2)
    assert torch.allclose(rows[..., 5], own[:, 4])


def test_a_yolov9_is_a_model_folder_like_any_other(tmp_path: Path, one_thread: None) -> None:
    fields = {"name": "nine", "pipeline": "mitosis", "task": "detect", "classes": ["mitosis"], "architecture": {"name": "yolo9-t"}, "tile_px": 64, "batch": 1}
    fields |= {"detection": {"threshold": 0.5}, "licence": "none", "trained_on": {"domain": "phantom", "description": "nothing"}}
    net = build(Card(**fields, weights={"sha256": "0" * 64}))
    write_model(tmp_path / "nine", fields, net.state_dict())
    assert check_model(tmp_path / "nine").architecture == {"name": "yolo9-t"}
    (found,) = load_model(tmp_path / "nine").predict(np.zeros((1, 64, 64, 3), np.uint8))
    assert len(found.score) == 0, "it begins by seeing nothing"
