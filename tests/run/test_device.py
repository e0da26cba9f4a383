"""A GPU that fails ends its worker, not the run, and no slide is blamed. No GPU is here, so its errors are raised where it would."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from wsikit.errors import EngineError
from wsikit.run import block
from wsikit.run.device import is_of_device

FAILS_ONCE = """
import os
from wsikit.run import engine
setup = engine.dask_setup
def dask_setup(worker):
    setup(worker)
    import torch
    from wsikit.run import block
    score = block._score
    def fail(*arguments):
        try:
            os.close(os.open(os.environ["GPU_FAILED"], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return score(*arguments)
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    block._score = fail
engine.dask_setup = dask_setup
"""


def test_a_worker_whose_gpu_fails_is_started_again(
    score: Any, undisturbed_lean: Path, differences: Callable[[Path, Path], set[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(FAILS_ONCE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    monkeypatch.setenv("GPU_FAILED", str(tmp_path / "failed"))
    run = score(tmp_path / "run", workers=1)
    assert (tmp_path / "failed").exists()
    assert differences(run.folder, undisturbed_lean) == {"run.json"}


def test_in_this_process_the_run_ends_and_keeps_what_is_done(
    score: Any, undisturbed_lean: Path, differences: Callable[[Path, Path], set[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, calls = block._score, []

    def fail(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return right(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(block, "_score", fail)
        with pytest.raises(EngineError, match=r"the GPU failed \(CUDA out of memory.*what is done is kept, run the same command again"):
            score(tmp_path / "run")
    score(tmp_path / "run")
    assert score.done[-1] == score.planned[0] - 1, "the block that was done is not done again"
    assert differences(tmp_path / "run", undisturbed_lean) == {"run.json"}


def test_other_errors_are_the_slides() -> None:
    assert not is_of_device(RuntimeError("size mismatch"))
    assert is_of_device(RuntimeError("CUDA error: device-side assert triggered"))
    assert not is_of_device(EngineError("no scheduler at tcp://a:1"))
