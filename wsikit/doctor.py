"""Is the installation sound? Will a slide open, and if not, why?"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from wsikit import __version__
from wsikit.errors import WsikitError
from wsikit.run.cases import Case
from wsikit.slide import open_slide

_PACKAGES = ("openslide-python", "openslide-bin", "tifffile", "imagecodecs", "zarr", "distributed", "torch", "torchvision", "libreyolo", "lifelines")
_EXTRAS = ("napari", "pyside6-essentials", "tiatoolbox", "cucim-cu13")


def installation() -> dict[str, str]:
    """Versions, devices and extras, as text."""
    import torch

    from wsikit.models import available
    from wsikit.readers import registry
    from wsikit.readers.openslide import library_version

    facts = {"wsikit": __version__, "python": platform.python_version(), "system": platform.platform(), "cores": str(os.cpu_count())}
    facts |= {name: _version(name) or "missing" for name in _PACKAGES}
    facts |= {name: _version(name) or "not installed (extra)" for name in _EXTRAS}
    facts["OpenSlide library"] = library_version()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    facts["GPUs"] = ", ".join(gpus) or "none that torch can use"
    facts["readers"] = ", ".join(sorted(registry()))
    facts["models"] = ", ".join(sorted(available()))
    return facts


def look_at(case: Case) -> dict[str, Any]:
    """What opening a slide says, without reading its pixels: ``verdict`` is ``ok`` or the reason it will fail."""
    row: dict[str, Any] = {"slide_id": case.slide_id, "path": case.path, "verdict": "ok"}
    try:
        with open_slide(case.path, mpp=case.mpp, mpp_source=case.mpp_source) as slide:
            mpp = f"{slide.mpp[0]:.4g}" if slide.mpp else ""
            row |= {"reader": slide.reader, "mpp": mpp, "mpp_source": slide.mpp_source, "size": f"{slide.size.w} × {slide.size.h}"}
            slide.require_mpp()
    except WsikitError as e:
        row["verdict"] = str(e)
    return row


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
