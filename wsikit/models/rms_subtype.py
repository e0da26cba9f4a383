"""Networks for rhabdomyosarcoma subtypes: ARMS, ERMS, other.

Zhang et al., Am J Pathol 2022 (192:917) and Frankel et al., Mod Pathol 2022 use torchvision's InceptionV3 on 299 px. ``other`` (stroma,
background, another entity) is always a class, so that a tile can be neither.
"""

from __future__ import annotations

from wsikit.models.sts_subtype import build, load

PIPELINE = "rms-subtype"
CLASSES = ("ARMS", "ERMS", "other")

__all__ = ["CLASSES", "PIPELINE", "build", "load"]
