"""A screen for napari: the one that is there, else a virtual one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def screen() -> Iterator[str]:
    """A display; skips where there is neither one nor Xvfb to make one."""
    if sys.platform != "linux" or os.environ.get("DISPLAY"):
        yield os.environ.get("DISPLAY", "")
        return
    xvfb = shutil.which("Xvfb")
    if xvfb is None:
        pytest.skip("no screen, and no Xvfb to make a virtual one")
    read, write = os.pipe()
    server = subprocess.Popen([xvfb, "-displayfd", str(write), "-screen", "0", "1920x1200x24", "-nolisten", "tcp"], pass_fds=[write])
    os.close(write)
    display = ":" + os.read(read, 16).decode().strip()
    os.environ["DISPLAY"] = display
    yield display
    del os.environ["DISPLAY"]
    server.terminate()
    server.wait()
