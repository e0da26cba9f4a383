"""Cards of models that need no weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from wsikit.models import Card


def card(**fields: Any) -> Card:
    """A classifier's card of three classes, with other fields as given."""
    about = {"domain": "histology", "description": "nothing"}
    given = {"name": "a-model", "pipeline": "sts-subtype", "task": "classify", "classes": ["A", "B", "C"], "licence": "none", "trained_on": about}
    return Card(**given | fields | {"weights": {"sha256": "0" * 64}})


@pytest.fixture(scope="session")
def make_card() -> Callable[..., Card]:
    return card
