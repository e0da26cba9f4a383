"""Tiles as AnnData, for scanpy, squidpy and the rest of scverse (extra ``anndata``)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wsikit import RESEARCH_USE_ONLY
from wsikit.errors import UsageError, how_to_install
from wsikit.store import SlideStore
from wsikit.store.durable import atomic_path

try:
    import anndata
except ImportError as e:
    raise UsageError(f"AnnData files need anndata; {how_to_install('anndata')}") from e


def write_anndata(store: SlideStore, folder: Path) -> Iterator[Path]:
    """One ``.h5ad`` a classifier, a row a tile; yields the files.

    ``X`` float32 (N, K) are the probabilities, with the classes as ``var``; ``obs`` holds ``tissue`` and the tile's ``origin_x`` … ``size_h`` in
    level-0 px; ``obsm["spatial"]`` float64 (N, 2) the tiles' centres in level-0 px, as squidpy plots them; ``obsm["features"]`` float32 (N, D);
    ``uns["wsikit"]`` mpp, size, status and provenance (JSON). A call that was withheld has its tiles, and the reason in ``uns``.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    result = store.result
    for name, table in store.tables().items():
        if "probability" not in table:
            continue
        frame = table.to_pandas()
        frame.index = frame.index.astype(str)
        obs = frame[["tissue", "origin_x", "origin_y", "size_w", "size_h"]].copy()
        found = anndata.AnnData(X=table["probability"].astype(np.float32), obs=obs)
        found.var_names = table.attributes["classes"]
        found.obsm["spatial"] = table["origin"] + table["size"] / 2
        found.obsm["features"] = table["feature"].astype(np.float32)
        answer = result["pipelines"][name]
        found.uns["wsikit"] = {
            "statement": RESEARCH_USE_ONLY,
            "slide_id": store.slide_id,
            "mpp": np.array(store.mpp),
            "size": np.array(store.attributes["slide"]["size"]),
            "status": answer["status"],
            "reason": answer["reason"],
            "provenance": json.dumps({"slide": store.attributes["slide"]["digest"], "model": answer["model"]}),
        }
        path = folder / f"{store.slide_id}.{name}.h5ad"
        with atomic_path(path) as tmp:
            found.write_h5ad(tmp)
        yield path
