"""A model that was trained on normalised colours does not answer for a slide whose stain cannot be measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import wsikit as wk
from wsikit.testing.phantom import Spec, make_phantom, write_pyramid


def test_a_slide_whose_stain_is_unknown_gets_no_answer(tmp_path: Path) -> None:
    """A phantom in one colour: the classifier would say something, and it would mean nothing."""
    rgb, _ = make_phantom(Spec(5, "SS", 2304, 2048))
    density = -np.log((rgb.mean(-1, keepdims=True) + 1) / 256)
    pink = (255 * np.exp(-density * [0.5, 1.6, 0.9])).astype(np.uint8)
    write_pyramid(tmp_path / "pink.tif", pink, 0.5)
    run = wk.score([tmp_path / "pink.tif"], tmp_path / "out", ["sts-subtype", "mitosis"])
    assert not run.results["pink"]["stain"]["trusted"]
    for answer in run.results["pink"]["pipelines"].values():
        assert answer["status"] == "abstained"
        assert "stain cannot be measured" in answer["reason"]
        assert "probability" not in answer
        assert "count" not in answer


def test_a_call_that_is_withheld_anyway_has_no_probabilities_either(tmp_path: Path) -> None:
    """They would go into those of the patient."""
    rgb, _ = make_phantom(Spec(5, "SS", 640, 640))
    density = -np.log((rgb.mean(-1, keepdims=True) + 1) / 256)
    write_pyramid(tmp_path / "pink.tif", (255 * np.exp(-density * [0.5, 1.6, 0.9])).astype(np.uint8), 0.5)
    answer = wk.score([tmp_path / "pink.tif"], tmp_path / "out", ["sts-subtype"]).results["pink"]["pipelines"]["sts-subtype"]
    assert "tiles of tissue were scored" in answer["reason"]
    assert "stain cannot be measured" in answer["reason"]
    assert "probability" not in answer
