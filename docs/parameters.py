"""For the Python reference: in wsikit's docstrings ``name : words`` describes a parameter, whose type stands in the signature."""

from __future__ import annotations

import re
from typing import Any

import griffe

LISTED = re.compile(r"^(\w+(?:, \w+)*) : (.+)$(?!\n[ ])", re.M)


class Described(griffe.Extension):
    """Moves those words from where a numpydoc parser looks for types to where it looks for words."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Of each object's docstring, the section of parameters, and the sign for text as it is, which Markdown does not know."""
        if obj.docstring is None:
            return
        obj.docstring.value = obj.docstring.value.replace("\n::\n\n", "\n")
        if "Parameters\n---" not in obj.docstring.value:
            return
        before, title, rest = obj.docstring.value.partition("Parameters\n---")
        section, blank, after = rest.partition("\n\n")
        obj.docstring.value = before + title + LISTED.sub(r"\1\n    \2", section) + blank + after


__all__ = ["Described"]
