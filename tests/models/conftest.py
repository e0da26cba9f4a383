"""Model folders to break."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wsikit.models import BUNDLED


class Folder:
    """A copy of a bundled model whose card and weights can be changed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def change(self, **fields: Any) -> Path:
        """Overwrite fields of the card."""
        card = json.loads((self.path / "card.json").read_text()) | fields
        (self.path / "card.json").write_text(json.dumps(card))
        return self.path

    def weights(self, data: bytes) -> Path:
        """Other weights, with their digest in the card."""
        (self.path / "model.safetensors").write_bytes(data)
        return self.change(weights={"file": "model.safetensors", "sha256": hashlib.sha256(data).hexdigest()})


@pytest.fixture
def copy_model(tmp_path: Path) -> Callable[[str], Folder]:
    def copy(name: str) -> Folder:
        return Folder(Path(shutil.copytree(BUNDLED / name, tmp_path / name)))

    return copy
