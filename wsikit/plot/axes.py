"""What all pictures share: axes that are made when none are given, colours, the note below, a scale bar."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")  # Okabe and Ito, which colour-blind eyes can tell apart
NOTE = "Research use only"


def axes_or_new(ax: Axes | None) -> Axes:
    """These axes, or those of a new figure (which pyplot knows, so that notebooks show it)."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]


def note(ax: Axes, *, above: bool = True) -> Axes:
    """Write the statement at the axes' right corner, above or below them."""
    y, offset, va = (1, 2, "bottom") if above else (0, -4, "top")
    ax.annotate(NOTE, (1, y), (0, offset), "axes fraction", "offset points", ha="right", va=va, fontsize=7, color="0.35", annotation_clip=False)
    return ax


def scale_bar(ax: Axes, mpp: float, width_px: float) -> None:
    """A bar of a round length, about a fifth of the picture's width; ``mpp`` is along x."""
    from matplotlib.patches import Rectangle

    length_um = round_length(width_px * mpp / 5)
    share = length_um / mpp / width_px
    text = f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} µm"
    ax.add_patch(Rectangle((0.03, 0.03), share + 0.02, 0.075, transform=ax.transAxes, color="white", alpha=0.8, lw=0))
    ax.add_patch(Rectangle((0.04, 0.04), share, 0.012, transform=ax.transAxes, color="black", lw=0))
    ax.text(0.04 + share / 2, 0.058, text, transform=ax.transAxes, ha="center", va="bottom", fontsize=8, color="black")


def round_length(um: float) -> float:
    """The largest 1, 2 or 5 × 10ⁿ that is not longer.

    >>> round_length(743)
    500.0
    """
    from math import floor, log10

    ten = 10.0 ** floor(log10(um))
    return max(f * ten for f in (1, 2, 5) if f * ten <= um * (1 + 1e-9))
