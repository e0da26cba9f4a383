"""The files and scripts in pipelines/: each can be read, each runs, and a user's own is checked key by key."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import wsikit as wk
import wsikit.models
from wsikit.cli.main import main
from wsikit.errors import UsageError
from wsikit.run.cluster import ClusterConfig
from wsikit.run.settings import Settings, expand, read_pipeline, read_settings
from wsikit.testing.phantom import Spec, write_phantom
from wsikit.train.presets import PRESETS
from wsikit.train.recipe import read_recipe

PIPELINES = Path(__file__).parents[1] / "pipelines"
CONFIGS = sorted(p for p in PIPELINES.glob("*.toml") if "pipelines =" in p.read_text())
RECIPES = sorted(p for p in PIPELINES.glob("*.toml") if "\npreset =" in p.read_text())


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slide") / "small.tif"
    write_phantom(path, Spec(3, "LMS", 960, 960, mitoses_per_mm2=60))
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_each_file_names_pipelines_that_there_are(path: Path) -> None:
    found = read_pipeline(path)
    assert found.about
    assert set(found.pipelines) <= set(wk.models.pipelines())


def test_the_other_files_are_clusters() -> None:
    """Their key folder is not there, so the file is read and not used."""
    import tomllib

    for path in set(PIPELINES.glob("*.toml")) - {*CONFIGS, *RECIPES}:
        assert ClusterConfig.model_validate(tomllib.loads(path.read_text()))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_each_recipe_can_be_trained_by(path: Path) -> None:
    recipe = read_recipe(path, PRESETS)
    assert {recipe.source(name) for name, _ in recipe.values()} >= {path.name}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('pipelines = "mitosis"', "pipelines: Input should be a valid list"),
        ("pipelines = []", "pipelines: List should have at least 1 item"),
        ('pipelines = ["mitosis"]\nstain = "macenko"', "stain: there is no key 'stain' here; there are: about, keep_tiles, models, options, pipelines"),
        ('pipelines = ["mitosis"]\n[options]\nstian = "macenko"', "options: no option is called stian; there are: any_stain, block_px"),
        ('pipelines = ["mitosis"]\n[options]\nmax_damaged = "much"', "options: max_damaged: Input should be a valid number"),
        ('pipelines = ["mitosis"]\n[options.counting]\narea = 2', "options: counting.area: there is no key 'area' here; there are: area_mm2"),
        ('pipelines = ["mitosis"]\n[options.counting]\narea_mm2 = -1', "options: counting.area_mm2: Input should be greater than 0"),
        ("pipelines = [", "cannot be read"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "my.toml").write_text(text)
    with pytest.raises(UsageError) as e:
        read_pipeline(tmp_path / "my.toml")
    assert str(e.value).startswith(f"{tmp_path / 'my.toml'}: {said}")


def test_what_is_given_goes_before_what_a_file_says(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "a.toml").write_text('pipelines = ["mitosis"]\nkeep_tiles = true\n[models]\nmitosis = "model"\n[options]\nstain = "none"\nicc = "srgb"\n')
    (tmp_path / "b.toml").write_text('pipelines = ["survival", "mitosis"]\n[options]\nstain = "reinhard"\n')
    names, models, keep, options = expand([tmp_path / "a.toml", "sts-subtype"], {}, False, {"stain": "vahadane"})
    assert names == ["mitosis", "sts-subtype"]
    assert models == {"mitosis": str(tmp_path / "model")}
    assert keep
    assert read_settings(options) == Settings(stain="vahadane", icc="srgb")
    assert expand(None, {"mitosis": "m"}, False, {}) == (None, {"mitosis": "m"}, False, {})
    with pytest.raises(UsageError, match="option stain is 'reinhard', and another pipeline file says 'none'; score them apart"):
        expand([tmp_path / "a.toml", tmp_path / "b.toml"], {}, False, {})


def test_a_file_of_ones_own_on_the_command_line(slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my.toml").write_text('pipelines = ["sts-subtype"]\n[options]\nstain = "none"\nmax_damaged = 0.01\n')
    with pytest.raises(SystemExit) as e:
        main(["score", str(slide), "-o", str(tmp_path / "run"), "--pipeline", str(tmp_path / "my.toml"), "--stain", "reinhard", "--workers", "0", "--json"])
    assert e.value.code == 0
    job = json.loads((tmp_path / "run/run.json").read_bytes())["job"]
    assert (list(job["models"]), job["stain"], job["max_damaged"]) == (["sts-subtype"], "reinhard", 0.01)
    capsys.readouterr()
    with pytest.raises(SystemExit) as e:
        main(["pipelines", str(tmp_path / "my.toml"), "--json"])
    assert json.loads(capsys.readouterr().out)[0]["pipelines"] == ["sts-subtype"]


def test_pipelines_are_listed_with_their_models(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pipelines", "--json"])
    found = {f["pipeline"]: f for f in json.loads(capsys.readouterr().out)}
    assert set(found) == set(wk.models.pipelines())
    assert found["sts-subtype"]["trained_on"] == "phantom"
    assert all(f["about"] for f in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sts_subtype", "rms_subtype", "mitosis", "all"])
def test_each_script_runs(slide: Path, tmp_path: Path, name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(PIPELINES / f"{name}.py"), str(slide), "-o", str(tmp_path / "out"), "--workers", "1"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Research use only" in done.stdout
    assert (tmp_path / "out/slides.csv").exists()
