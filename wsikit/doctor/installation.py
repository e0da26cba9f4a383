"""Is the installation sound? Versions against those known to be bad, devices, extras, and a small job from end to end."""

from __future__ import annotations

import os
import platform
import re
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from wsikit import __version__
from wsikit.errors import WsikitError

_PACKAGES = ("openslide-python", "openslide-bin", "tifffile", "imagecodecs", "zarr", "distributed", "torch", "torchvision", "libreyolo", "lifelines", "pillow")
# a package of each extra
_EXTRAS = {
    "napari": "napari", "pyside6-essentials": "napari", "wsidicom": "dicom", "highdicom": "dicom", "pylibczirw": "czi", "anndata": "anndata",
    "onnx": "onnx", "universal-pathlib": "cloud", "dask-jobqueue": "cluster", "cucim-cu13": "cucim", "tiatoolbox": "tia", "tensorboard": "tensorboard",
}  # fmt: skip


class Bad(NamedTuple):
    """Versions of a package below ``before`` are known to be bad: why, and whether that matters here at once (or only to be known)."""

    before: str
    why: str
    serious: bool = True


KNOWN_BAD = {
    "OpenSlide library": Bad("4.0.1", "CVE-2026-48977 writes to memory where a crafted slide says, CVE-2026-54604 shows pixels that nobody wrote"),
    "openslide-bin": Bad("4.0.1", "CVE-2026-48977 and CVE-2026-54604 in the OpenSlide that it brings"),
    "torch": Bad("2.10", "CVE-2026-24747: weights can corrupt memory while they are loaded"),
    "zarr": Bad("3.1.3", "no settings per array for sharding"),
    "pillow": Bad("13", "CVE-2026-112403 in its JPEG decoder; wsikit decodes no slide with it, other software may", False),
    "tiatoolbox": Bad("999", "caps Pillow, zarr, dask and torch at versions with known faults; keep it out of environments that open foreign slides", False),
}


def parts(text: str) -> tuple[int, ...]:
    """A version as numbers, for comparing: local and pre-release parts are left out.

    >>> parts("2.10.0+cu130") > parts("2.9"), parts("4.0.1.2") >= parts("4.0.1"), parts("13.0.0rc1") >= parts("13")
    (True, True, True)
    """
    found = re.match(r"\d+(\.\d+)*", text)
    numbers = [int(n) for n in found[0].split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def known_bad(versions: dict[str, str]) -> dict[str, Bad]:
    """Which of some versions are known to be bad."""
    return {name: bad for name, bad in KNOWN_BAD.items() if name in versions and parts(versions[name]) and parts(versions[name]) < parts(bad.before)}


def installation() -> dict[str, str]:
    """Versions, devices and extras, as text; a version that is known to be bad says why."""
    import torch

    from wsikit.models import available
    from wsikit.readers import registry
    from wsikit.readers.openslide import library_version

    facts = {"wsikit": __version__, "python": platform.python_version(), "system": platform.platform(), "cores": str(os.cpu_count())}
    facts |= {name: _version(name) or "missing" for name in _PACKAGES}
    facts["openvino"] = _version("openvino") or "no build for this machine; torch runs classifiers"
    facts |= {name: _version(name) or f"not installed (extra {extra})" for name, extra in _EXTRAS.items()}
    facts["OpenSlide library"] = library_version()
    for name, bad in known_bad(facts).items():
        facts[name] += f" – {'BAD' if bad.serious else 'note'}: {bad.why}" + (f"; install {bad.before} or newer" if parts(bad.before) < (999,) else "")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    facts["GPUs"] = ", ".join(gpus) or "none that torch can use"
    facts["readers"] = ", ".join(sorted(registry()))
    facts["models"] = ", ".join(sorted(available()))
    return facts


def problems(facts: dict[str, str]) -> list[str]:
    """What of an installation must be mended: serious known-bad versions, missing packages, a self-test that failed."""
    found = [name for name, bad in known_bad({k: v.split(" ")[0] for k, v in facts.items()}).items() if bad.serious]
    found += [name for name in _PACKAGES if facts.get(name) == "missing"]
    return found + [name for name, value in facts.items() if value.startswith("failed")]


def self_test() -> str:
    """``passed in … s``, or ``failed`` and why: a phantom is written, let in at the gate, tiled to OME-Zarr, and every stored byte verified."""
    from wsikit.run import tile
    from wsikit.run.again import verify_run
    from wsikit.store import open_store
    from wsikit.testing.phantom import Spec, write_phantom

    begun = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "phantom.tif"
            write_phantom(path, Spec(1, "LMS", 768, 640))
            store = open_store(tile(path, Path(folder) / "run", mpp=1.0))
            found = list(verify_run(Path(folder) / "run"))
            pixels = store.image(1.0)
    except (WsikitError, OSError) as e:
        return f"failed: {e}"
    if found or pixels.size == 0:
        return f"failed: {found[0].problem if found else 'no pixels'}"
    return f"passed in {time.monotonic() - begun:.1f} s"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
