"""Where is tissue, and which of it is fit to be scored? Arrays in, arrays out."""

from wsikit.tissue.mask import TissueMask, find_tissue

__all__ = ["TissueMask", "find_tissue"]
