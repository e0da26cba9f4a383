"""How long does a pathologist wait? Opening a gigapixel slide with its overlays, panning over a million detections, keeping a review's change.

Needs a screen: ``xvfb-run -a -s "-screen 0 1920x1200x24" uv run python benchmarks/viewer.py --json viewer.json``. Without a graphics card every
pixel is drawn by the processor, so that figures from Xvfb are the slowest there are.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from wsikit import __version__
from wsikit.run import score
from wsikit.run.reviewed import open_review
from wsikit.store import open_store
from wsikit.store.columns import write_table
from wsikit.testing.giant import PIECE_PX, write_giant
from wsikit.testing.phantom import Spec, make_phantom, write_phantom

PIECES = (6, 5)  # of 8192 px: 2.0 gigapixels
MOVES, CHANGES = 20, 10


def prepare(folder: Path, detections: int) -> Path:
    """A run whose one slide is a gigapixel one and has so many detections; the rest of it is a phantom's, stretched."""
    small = folder / "lms.tif"
    write_phantom(small, Spec(11, "LMS", 2560, 2048, mitoses_per_mm2=25))
    run = score([small], folder / "run", pipelines=["sts-subtype", "mitosis"])
    piece, _ = make_phantom(Spec(5, "LMS", PIECE_PX, PIECE_PX, mpp=0.5))
    size = (PIECES[0] * PIECE_PX, PIECES[1] * PIECE_PX)
    small.unlink()
    write_giant(small, piece, [(x, y) for x in range(PIECES[0]) for y in range(PIECES[1])], size, mpp=0.5)
    path = run.folder / "slides/lms.zarr"
    root = zarr.open_group(str(path), mode="r+")
    a: Any = root.attrs["wsikit"]
    h, w = open_store(path).tissue().shape
    a["slide"] |= {"size": list(size), "bounds": [0, 0, *size]}
    a["survey"]["raster"]["downsample"] = [size[0] / w, size[1] / h]
    root.attrs["wsikit"] = a
    put_detections(path, detections)
    return run.folder


def put_detections(path: Path, n: int) -> None:
    """Random detections instead of those that the store has."""
    store = open_store(path)
    attributes, size = store.tables()["mitosis"].attributes, store.attributes["slide"]["size"]
    rng = np.random.default_rng(0)
    shutil.rmtree(path / "tables/mitosis")
    write_table(path / "tables/mitosis", {"position": rng.random((n, 2)) * size, "score": rng.random(n).astype(np.float32)}, attributes)


def median_ms(work: Any, times: int) -> float:
    """Median milliseconds of ``work(i)``."""
    seconds = []
    for i in range(times):
        start = time.perf_counter()
        work(i)
        seconds.append(time.perf_counter() - start)
    return round(1000 * float(np.median(seconds)), 1)


def measure(folder: Path) -> dict[str, Any]:
    """Seconds to open, milliseconds of a pan and of a change, MiB of memory."""
    import napari

    from wsikit.view.app import dress, session_of
    from wsikit.view.tools import settled

    viewer: Any = napari.Viewer()
    dress(viewer)
    viewer.add_image(np.zeros((8, 8)))  # what napari imports with the first layer is not the slide's
    settled(viewer)
    viewer.layers.clear()
    session = session_of(viewer)
    start = time.perf_counter()
    session.open([folder])
    settled(viewer)
    found: dict[str, Any] = {"first overlays, s": round(time.perf_counter() - start, 2)}
    session.add_all()
    settled(viewer)
    found["all layers, s"] = round(time.perf_counter() - start, 2)
    shown = session.detections["mitosis"]
    found["detections"] = len(shown.found.score)
    w, h = session.store.attributes["slide"]["size"]  # type: ignore[union-attr]

    def pan(i: int, across_um: float) -> None:
        session.look_at((w * (0.3 + 0.02 * i), h * 0.5), across_um)
        shown.refresh()
        settled(viewer)

    found["pan far, ms"] = median_ms(lambda i: pan(i, 12_000.0), MOVES)
    found["pan near, ms"] = median_ms(lambda i: pan(i, 300.0), MOVES)
    found["points near"] = len(shown.points.data)
    found["level of detail near, ms"] = median_ms(lambda _: shown.refresh(), MOVES)
    review = session.review
    assert review is not None
    review.by = "AB"
    positions = review.objects("mitosis").position

    def change(i: int) -> None:
        review.label("mitosis", (float(positions[i, 0]), float(positions[i, 1])), "lookalike")
        review.answer("mitosis")

    change(CHANGES)
    found["a change kept and counted again, ms"] = median_ms(change, CHANGES)
    found["and shown, ms"] = median_ms(lambda i: (change(CHANGES + 1 + i), session.changed(), settled(viewer)), CHANGES)
    found["drawn by"] = renderer()
    viewer.close()
    found["peak memory, MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return found


def renderer() -> str:
    """What draws the canvas: llvmpipe is Mesa's software renderer."""
    from vispy.gloo import gl

    return str(gl.glGetParameter(gl.GL_RENDERER))


def count_again(folder: Path) -> float:
    """Milliseconds to keep a change and count again, without a window."""
    review = open_review(folder, "lms", "AB")
    positions = review.objects("mitosis").position
    review.answer("mitosis")

    def change(i: int) -> None:
        review.label("mitosis", (float(positions[i, 0]), float(positions[i, 1])), "lookalike")
        review.answer("mitosis")

    change(CHANGES)
    return median_ms(change, CHANGES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--detections", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    load = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory(prefix="wsikit-viewer-") as name:
        folder = prepare(Path(name), 100_000)
        found: dict[str, Any] = {"gigapixels": round(PIECES[0] * PIECES[1] * PIECE_PX**2 / 1e9, 2), "load before": load}
        found |= {"wsikit": __version__, "cores": os.cpu_count()}
        found["a change counted again at 100,000, ms"] = count_again(folder)
        store = folder / "slides/lms.zarr"
        store.with_suffix(".review.jsonl").unlink()
        put_detections(store, arguments.detections)
        found |= measure(folder)
    text = json.dumps(found, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
