"""``wsikit train`` and ``wsikit evaluate``: their arguments, and that an evaluation is the run compared with the labels."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from wsikit.cli.main import app
from wsikit.cli.train import ONLY, TASKS
from wsikit.run import Run


@pytest.fixture
def labels(tmp_path: Path, small: Path, phantom: Any) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text(f"path,label,patient\n{small},UPS,P1\n{phantom.path},LMS,P2\n")
    return path


def test_train_refuses_before_any_work(cli: Any, labels: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    out = tmp_path / "model"
    wrong = {
        ("grading", "--labels", labels, "-o", out): "task 'grading': there are sts-subtype, rms-subtype, subtype, tumour, mitosis, survival",
        ("subtype", "--labels", tmp_path / "no.csv", "-o", out): f"{tmp_path / 'no.csv'}: cannot be read as CSV (No such file or directory)",
        ("subtype", "--labels", labels, "-o", tmp_path): f"{tmp_path}: is there already and not an empty folder",
        ("subtype", "--labels", labels, "-o", tmp_path / "file"): f"{tmp_path / 'file'}: is there already and not an empty folder",
        ("subtype", "--labels", labels, "-o", out): "too few patients to hold some out",
        ("rms-subtype", "--labels", labels, "-o", out): f"{labels}: line 2: label 'UPS' is none of ARMS, ERMS",
        ("mitosis", "--labels", labels, "-o", out): f"{labels}: needs the columns path, patient, x, y, label; missing: x, y",
        ("mitosis", "--labels", labels, "-o", out, "--scale", "0.5", "0.2"): "--scale 0.5 0.2: two µm/px of 0.05 to 20.0, the finer first",
        ("survival", "--labels", labels, "-o", out): "survival needs --features DIR",
        ("subtype", "--labels", labels, "-o", out, "--acgan", 5): "ACGAN makes tiles of 16, 32, 64, 128 px, and these have 224; give --tile 64",
        ("subtype", "--labels", labels, "-o", out, "--acgan", 5, "--mil"): "--acgan is for classifiers of tiles",
        ("mitosis", "--labels", labels, "-o", out, "--mil"): "--mil is for sts-subtype, rms-subtype and subtype, not for mitosis",
        ("tumour", "--labels", labels, "-o", out, "--folds", 3): "--folds and --by-site are not for tumour",
        ("survival", "--labels", labels, "-o", out, "--folds", 3): "--folds is not for survival",
        ("mitosis", "--labels", labels, "-o", out, "--tile", 256): "--tile is for sts-subtype, rms-subtype, subtype and tumour, not for mitosis",
        ("subtype", "--labels", labels, "-o", out, "--endpoint", "OS"): "--endpoint is for survival, not for subtype",
        ("survival", "--labels", labels, "-o", out, "--epochs", 3): "--epochs is for sts-subtype, rms-subtype, subtype, tumour and mitosis, not for survival",
        ("subtype", "--labels", labels, "-o", out, "--device", "banana"): "device 'banana' cannot be used here",
    }
    for arguments, says in wrong.items():
        assert cli("train", *arguments).error.startswith(says)
    assert not out.exists()


def test_every_option_of_one_training_is_there() -> None:
    group: Any = typer.main.get_command(app)
    options = {option.name for option in group.commands["train"].params}
    assert set(ONLY) < options
    assert all(set(tasks) < set(TASKS) for tasks in ONLY.values())


@pytest.mark.parametrize("mpp", ["0", "nan", "-1", "50"])
def test_train_never_takes_another_mpp_than_it_was_given(cli: Any, labels: Path, tmp_path: Path, mpp: str) -> None:
    assert cli("train", "subtype", "--labels", labels, "-o", tmp_path / "model", "--mpp", mpp).error.startswith(f"--mpp {float(mpp):g}: ")


def test_survival_needs_the_patients_of_a_run(cli: Any, scored: Run, tmp_path: Path) -> None:
    (tmp_path / "patients.csv").write_text("patient,time_months,event\nP1,12,1\n")
    features = ["--feature", "mitosis.per_mm2", "-o", tmp_path / "model"]
    message = cli("train", "survival", "--labels", tmp_path / "patients.csv", "--features", scored.folder, *features).error
    assert message.startswith(f"{scored.folder}: needs run.json and patients.csv of a run with a patient column")


def test_evaluate_compares_the_runs_calls_with_the_labels(cli: Any, labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "evaluation"
    facts = cli("evaluate", "phantom-sts-subtype", "--labels", labels, "-o", out, "--workers", 0, "--json").json
    calls = {s: json.loads((out / f"slides/{s}.json").read_text())["pipelines"]["sts-subtype"]["call"] for s in ("small", "lms")}
    right = (calls["small"] == "UPS") + (calls["lms"] == "LMS")
    assert (facts["slides"], facts["patients"], facts["failed"], facts["withheld"]) == (2, 2, 0, list(calls.values()).count(""))
    assert facts["accuracy (withheld counts as wrong)"]["value"] == right / 2
    assert facts["accuracy (withheld counts as wrong)"]["low"] <= right / 2
    assert sum(map(sum, facts["confusion (last column: withheld)"])) == 2
    plain = cli("evaluate", "phantom-sts-subtype", "--labels", labels, "-o", out, "--workers", 0)
    assert plain.code == 0
    assert re.search(r"^model +phantom-sts-subtype$", plain.out, re.MULTILINE)


def test_evaluate_refuses_what_it_cannot_judge(cli: Any, labels: Path, tmp_path: Path) -> None:
    out = ["--labels", labels, "-o", tmp_path / "evaluation", "--workers", 0]
    assert cli("evaluate", "best", *out).error.startswith("no model 'best'")
    assert "survival model" in cli("evaluate", "phantom-survival", *out).error
    assert "missing: x, y" in cli("evaluate", "phantom-mitosis", *out).error
    assert "label 'UPS' is none of" in cli("evaluate", "phantom-rms-subtype", *out).error
    assert not (tmp_path / "evaluation").exists()


def test_evaluate_without_any_usable_slide(cli: Any, junk: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(f"path,label,patient\n{junk / 'cut.tif'},UPS,P1\n")
    message = cli("evaluate", "phantom-sts-subtype", "--labels", tmp_path / "labels.csv", "-o", tmp_path / "evaluation", "--workers", 0).error
    assert message.startswith("no slide could be scored; the first: ")
    assert "truncated" in message
