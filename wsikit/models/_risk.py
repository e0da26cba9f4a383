"""The numbers of a survival model's folder, compared with its card before they are believed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from wsikit.errors import WeightsMismatchError
from wsikit.models._card import Card, check_weights

TENSORS = ("beta", "mean", "sd", "time_months", "cumulative_hazard")
INTERVAL = ("covariance", "horizon_variance", "horizon_slope")
INTERCEPT = "intercept"
NETWORK = "signature."
PRECISION = 5.1e-5  # the card states coefficients to 4 decimals


def read_coefficients(card: Card, folder: Path) -> dict[str, np.ndarray]:
    """The tensors of a survival model: float64, by name.

    ``beta``, ``mean``, ``sd`` (F,); of a time to an event ``time_months`` and ``cumulative_hazard`` (T,), and perhaps, at the card's horizons,
    what intervals need: ``covariance`` (F, F), ``horizon_variance`` (H,), ``horizon_slope`` (H, F); of a yes or no ``intercept`` (1,), and
    perhaps ``covariance`` (F + 1, F + 1); of networks ``signature.<number>.<tensor>``.

    Raises
    ------
    WeightsMismatchError
        The file is not the card's, not of safetensors, or its tensors are not of the features or not the coefficients that the card states.
    """
    assert card.risk is not None
    try:
        found = {k: v.astype(np.float64) for k, v in load_file(check_weights(card, folder)).items()}
    except SafetensorError as e:
        raise WeightsMismatchError(f"{folder}: the coefficients are not a safetensors file ({e})") from e
    n, h = len(card.risk.features), len(card.risk.horizons_months)
    shapes: dict[str, tuple[int, ...]] = {"beta": (n,), "mean": (n,), "sd": (n,)}
    if card.risk.outcome == "yes-no":
        shapes |= {INTERCEPT: (1,), "covariance": (n + 1, n + 1)}
    else:
        t = len(found.get("time_months", ()))
        shapes |= {"time_months": (t,), "cumulative_hazard": (t,)}
        if any(k in found for k in INTERVAL):
            shapes |= dict(zip(INTERVAL, ((n, n), (h,), (h, n)), strict=True))
    of_model = {k: v.shape for k, v in found.items() if not k.startswith(NETWORK)}
    if of_model != shapes:
        raise WeightsMismatchError(f"{folder}: the coefficients are not those of the {n} features that the card names")
    if not all(np.isfinite(v).all() for v in found.values()) or not (found["sd"] > 0).all():
        raise WeightsMismatchError(f"{folder}: some coefficients are no numbers, or a standard deviation is not above 0")
    _compare(card, folder, found)
    return found


def _compare(card: Card, folder: Path, found: dict[str, np.ndarray]) -> None:
    """The card prints its coefficients for people, who must not read other ones than are applied."""
    assert card.risk is not None
    stated = card.metrics.get("coefficients", {})
    for name, beta in zip(card.risk.features, found["beta"], strict=True):
        said = stated.get(name, {}).get("beta") if isinstance(stated, dict) else None
        if said is not None and abs(said - beta) > PRECISION:
            raise WeightsMismatchError(f"{folder}: the card says that the coefficient of {name} is {said:g}, the weights say {beta:.4f}")
    networks = {k.split(".")[1] for k in found if k.startswith(NETWORK)}
    wanted = card.risk.signature.networks if card.risk.signature else 0
    if len(networks) != wanted:
        raise WeightsMismatchError(f"{folder}: the card names {wanted} networks, the weights hold {len(networks)}")


def networks_of(tensors: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The tensors of each network, by their own names."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, values in sorted(tensors.items()):
        if name.startswith(NETWORK):
            _, number, own = name.split(".", 2)
            found.setdefault(number, {})[own] = values
    return [found[k] for k in sorted(found, key=int)]
