"""A run needs no network: nothing but loopback exists, and slides are scored, reported and verified."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ALONE = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c"]
WITHOUT = """
import socket
try:
    socket.create_connection(("192.0.2.1", 80), 0.2)
except OSError as e:
    print(e.errno)
"""


def _alone(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a network of its own that has loopback only; bringing that up needs a tool or three lines of Python."""
    return subprocess.run([*ALONE, f"{LOOPBACK} && {script}", "sh", *arguments], capture_output=True, text=True, timeout=280)


# SIOCSIFFLAGS with IFF_UP | IFF_RUNNING for "lo"
LOOPBACK = f"""{sys.executable} -c 'import fcntl, socket, struct
fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8914, struct.pack("16sh14s", b"lo", 0x41, b""))'"""


@pytest.fixture(scope="module")
def alone() -> None:
    if shutil.which("unshare") is None or _alone("true").returncode:
        pytest.skip("this system gives no network namespaces to its users")


@pytest.mark.usefixtures("alone")
def test_a_run_needs_nothing_beyond_loopback(slide: Path, tmp_path: Path) -> None:
    assert _alone(f"{sys.executable} -c '{WITHOUT}'").stdout.strip() == "101"  # ENETUNREACH: the fence is there
    out = tmp_path / "run"
    wsikit = f"{sys.executable} -m wsikit"
    for words in (f"score {slide} -o {out} --workers 2", f"report {out}", f"export {out} --to geojson", f"verify {out}", f"doctor {slide}"):
        done = _alone(f"{wsikit} {words}")
        assert done.returncode == 0, done.stderr
    assert (out / "slides.csv").is_file()
