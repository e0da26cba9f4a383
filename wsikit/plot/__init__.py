"""Static pictures for notebooks and papers: each function takes axes (or makes them), draws, and returns them.

Pictures of slides have axes in level-0 px, y down, so that points and shapes of a store plot where they lie. Matplotlib is imported with
the first picture.

>>> import wsikit as wk
>>> store = wk.open_store("out/slides/a.zarr")                   # doctest: +SKIP
>>> ax = wk.plot.heat_map(store, "sts-subtype")                  # doctest: +SKIP
>>> ax.figure.savefig("a.png", dpi=200)                          # doctest: +SKIP
"""

from wsikit.plot.curves import kaplan_meier, reliability, roc
from wsikit.plot.slides import heat_map, hotspot, thumbnail

__all__ = ["heat_map", "hotspot", "kaplan_meier", "reliability", "roc", "thumbnail"]
