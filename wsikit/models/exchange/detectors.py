"""What the card of a detector from elsewhere must say: what is told, over what the file says."""

from __future__ import annotations

from typing import Any

from wsikit.errors import UsageError
from wsikit.models.exchange import OF_DETECTORS
from wsikit.models.exchange.state import card_fields

THRESHOLD, NMS_IOU = 0.5, 0.45
_NEEDED = ("mpp",)


def detector_fields(where: str, known: dict[str, Any], told: dict[str, Any], architecture: dict[str, Any]) -> dict[str, Any]:
    """`Card` fields of a detector of mitoses: ``told`` may have its ``threshold`` and ``nms_iou`` beside the fields of every card.

    Raises
    ------
    UsageError
        The µm/px was not told, or a share is none.
    """
    shares = {k: float(told.get(k, default)) for k, default in (("threshold", THRESHOLD), ("nms_iou", NMS_IOU))}
    for name, value in shares.items():
        if not 0 < value < 1:
            raise UsageError(f"{where}: {name.replace('_', ' ')} {value:g} must lie between 0 and 1")
    plain = {k: v for k, v in told.items() if k not in (*OF_DETECTORS, "architecture")}
    usual = {"pipeline": "mitosis", "task": "detect", "classes": ["mitosis"], "min_tissue": 0.0, "batch": 4}
    usual |= {"scaling": {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}}
    fields = card_fields(where, usual | known, plain, _NEEDED)
    fields.setdefault("overlap_px", min(64, fields["tile_px"] // 8 * 2))  # so that a figure on an edge is whole in one tile
    fields["architecture"] = architecture | {"nms_iou": shares["nms_iou"]}
    fields["detection"] = {"threshold": shares["threshold"], "keep_above": min(0.1, shares["threshold"])}
    return fields
