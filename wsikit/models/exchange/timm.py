"""timm's pretrained networks by name."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from wsikit.errors import UnknownModelError
from wsikit.models.exchange.state import card_fields, write_fitted

IMAGENET = 1000
DEFAULT_MPP = 0.5


def timm_folder(name: str, told: dict[str, Any]) -> Path:
    """The model folder of a pretrained network of timm, fetched by timm on first use (its cache is the hub's).

    Trained on photographs, it has no call for tissue; its features are the point.

    Raises
    ------
    UnknownModelError
        timm has no such network or no weights for it, or they cannot be fetched.
    """
    import timm

    if not timm.is_model(name):
        near = ", ".join(get_close_matches(name, timm.list_models(), 5))
        raise UnknownModelError(f"timm:{name}: timm has no such network{'; near: ' + near if near else ''}")
    if not timm.models.is_model_pretrained(name):
        raise UnknownModelError(f"timm:{name}: timm has no weights for it")
    try:
        net: Any = timm.create_model(name, pretrained=True)
    except Exception as e:  # whatever the hub's client and the operating system raise
        raise UnknownModelError(
            f"timm:{name}: its weights cannot be fetched ({' '.join(str(e).split())[:160]}); fetch them once where the hub can be reached"
        ) from e
    cfg = net.pretrained_cfg
    known = {
        "name": f"timm-{name}",
        "pipeline": "tissue-type",
        "classes": _classes(cfg, net.num_classes),
        "architecture": {"name": "timm", "model": name},
        "mpp": DEFAULT_MPP,
        "tile_px": cfg["input_size"][1],
        "scaling": {"mean": cfg["mean"], "std": cfg["std"]},
        "licence": str(cfg.get("license") or "not stated"),
        "source": f"timm:{name} ({cfg.get('hf_hub_id') or cfg.get('url') or 'no address'})",
        "trained_on": {"domain": "photographs", "description": f"{net.num_classes} kinds of things in photographs ({cfg.get('tag') or 'no tag'})"},
        "limitations": "Its features may serve tissue; its classes do not. The µm/px is our default.",
    }
    return write_fitted(card_fields(f"timm:{name}", known, told), net.state_dict(), f"timm:{name}")


def _classes(cfg: dict[str, Any], count: int) -> list[str]:
    """The names that the network's makers gave, ImageNet's synsets, or numbers."""
    if names := cfg.get("label_names"):
        return [str(n) for n in names]
    if count == IMAGENET:
        from timm.data import ImageNetInfo

        return list(ImageNetInfo().label_names())
    return [f"class-{i}" for i in range(count)]
