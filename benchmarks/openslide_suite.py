"""openslide-python's own tests against wsikit.openslide_compat: the proof that other tools can use our readers unchanged.

    git clone https://github.com/openslide/openslide-python
    python benchmarks/openslide_suite.py openslide-python

``openslide`` is our module there, ``openslide.deepzoom`` theirs on top of ours. One test looks at the bindings of the C library
(``openslide.lowlevel``), which stay theirs.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import pytest

import wsikit.openslide_compat as compat


def install() -> None:
    """Put our module where ``import openslide`` finds it."""
    import openslide.deepzoom
    import openslide.lowlevel

    spec = importlib.util.spec_from_file_location("openslide.deepzoom", openslide.deepzoom.__file__)
    if spec is None or spec.loader is None:
        raise SystemExit("openslide.deepzoom cannot be found")
    deepzoom = importlib.util.module_from_spec(spec)
    ours = types.ModuleType("openslide")
    vars(ours).update({k: v for k, v in vars(compat).items() if not k.startswith("__")}, lowlevel=openslide.lowlevel, deepzoom=deepzoom)
    sys.modules |= {"openslide": ours, "openslide.deepzoom": deepzoom}
    spec.loader.exec_module(deepzoom)


def main() -> int:
    """Run the tests of a checkout; its exit code is pytest's."""
    if len(sys.argv) < 2 or not (Path(sys.argv[1]) / "tests").is_dir():
        raise SystemExit(__doc__)
    tests = Path(sys.argv[1]) / "tests"
    install()
    sys.path.insert(0, str(tests))  # its tests import their own module 'common'
    return int(pytest.main([str(tests), "-q", "-p", "no:cacheprovider", f"--rootdir={tests}", "-c", "/dev/null", "--import-mode=importlib", *sys.argv[2:]]))


if __name__ == "__main__":
    raise SystemExit(main())
