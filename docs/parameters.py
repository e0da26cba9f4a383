"""For the Python reference: in wsikit's docstrings ``name : words`` describes a parameter, whose type stands in the signature."""

from __future__ import annotations

import re
from typing import Any

import griffe

# of attributes, ``name : type`` with words below it is what a numpydoc parser expects, and stays
LISTED = {"Parameters": re.compile(r"^(\w+(?:, \w+)*) : (.+)$", re.M), "Attributes": re.compile(r"^(\w+(?:, \w+)*) : (.+)$(?!\n[ ])", re.M)}


class Described(griffe.Extension):
    """Moves those words from where a numpydoc parser looks for types to where it looks for words."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Of each object's docstring, the sections of parameters and attributes, and the sign for text as it is, which Markdown does not know."""
        if obj.docstring is None:
            return
        text = obj.docstring.value.replace("\n::\n\n", "\n")
        for title, listed in LISTED.items():
            before, line, rest = text.partition(f"{title}\n---")
            section, blank, after = rest.partition("\n\n")
            text = before + line + listed.sub(r"\1\n    \2", section) + blank + after
        obj.docstring.value = text


__all__ = ["Described"]
