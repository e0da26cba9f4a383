"""``wsikit view``: a picture of the viewer from the command line, and what it says when it cannot open one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from wsikit.cli.main import main
from wsikit.run import Run


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as left:
        main(["view", *map(str, arguments)])
    captured = capsys.readouterr()
    assert (left.value.code, captured.out) == (2, "")
    line = captured.err.splitlines()[-1]
    assert "Traceback" not in captured.err
    return line


def assert_shows_tissue(png: Path) -> None:
    image = imagecodecs.imread(png)
    assert min(image.shape[:2]) >= 800
    right = image[:, image.shape[1] // 2 :, :3].astype(int)
    assert ((right[..., 0] - right[..., 1]) > 25).mean() > 0.05  # pink
    assert np.ptp(right) > 100


@pytest.mark.slow
@pytest.mark.usefixtures("screen")
def test_the_program_leaves_a_picture(scored: Run, tmp_path: Path) -> None:
    png = tmp_path / "deep/a.png"
    command = [sys.executable, "-m", "wsikit", "view", str(scored.folder / "slides/lms.zarr"), "--screenshot", str(png)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, f"{png}\n"), done.stderr
    assert_shows_tissue(png)
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr


@pytest.mark.usefixtures("screen")
def test_a_picture_of_a_whole_run(scored: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["view", str(scored.folder), "--screenshot", str(tmp_path / "deep/a.png")])
    assert not left.value.code
    assert capsys.readouterr().out == f"{tmp_path / 'deep/a.png'}\n"
    assert_shows_tissue(tmp_path / "deep/a.png")


@pytest.mark.usefixtures("screen")
def test_what_is_no_store_is_named_before_a_window_opens(
    scored: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import napari

    monkeypatch.setattr(napari, "Viewer", lambda *_, **__: pytest.fail("a window was opened"))
    for name in ("a.zarr", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "note.txt").write_text("note")
    store, png = scored.folder / "slides/lms.zarr", ["--screenshot", tmp_path / "a.png"]
    line = fails(capsys, store, tmp_path / "a.zarr", *png)
    assert line == f"wsikit: {tmp_path / 'a.zarr'}: not a wsikit slide store; give the .zarr folder below a run's slides folder"
    assert "note.txt: this is a text file, not a slide" in fails(capsys, tmp_path / "note.txt", *png)
    assert "empty: a folder that is not one slide" in fails(capsys, tmp_path / "empty", *png)
    assert not (tmp_path / "a.png").exists()


def test_without_a_screen_it_says_how(scored: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    line = fails(capsys, scored.folder, "--screenshot", tmp_path / "a.png")
    assert line == "wsikit: there is no screen here; on a machine without one, run: xvfb-run wsikit view … --screenshot PNG"
    assert "no such store or slide" in fails(capsys, tmp_path / "gone.zarr")


def test_without_napari_it_says_what_to_install(scored: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setitem(sys.modules, "napari", None)
    monkeypatch.delitem(sys.modules, "wsikit.view.app", raising=False)
    import wsikit.view

    monkeypatch.delattr(wsikit.view, "app", raising=False)
    assert "uv sync --extra napari" in fails(capsys, scored.folder)
