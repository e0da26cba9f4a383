"""The exceptions: the tree as drawn, errors that pickle, and texts that are fit to show."""

from __future__ import annotations

import ast
import builtins
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import wsikit
from wsikit import errors

CLASSES = {name: c for name, c in vars(errors).items() if isinstance(c, type)}
LINE = re.compile(r"^    ([│├└─ ]*)(\w+Error)(?: \((\w+)\))?", re.MULTILINE)


def drawn() -> dict[str, tuple[str | None, str | None]]:
    """Parent and built-in base of each class in the docstring's tree."""
    tree: dict[str, tuple[str | None, str | None]] = {}
    path: list[str] = []
    for branch, name, builtin in LINE.findall(errors.__doc__ or ""):
        depth = len(branch) // 4
        path = [*path[:depth], name]
        tree[name] = (path[-2] if depth else None, builtin or None)
    return tree


def test_the_tree_is_as_drawn() -> None:
    tree = drawn()
    assert set(tree) == set(CLASSES)
    for name, (parent, builtin) in tree.items():
        bases = [b.__name__ for b in CLASSES[name].__bases__]
        assert bases == [b for b in (parent or "Exception", builtin) if b], name
        if builtin:
            assert issubclass(getattr(builtins, builtin), Exception)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_an_error_travels_between_processes_with_its_text(name: str) -> None:
    text = "a.svs: 'quoted', µm and\u00a0all"
    error = CLASSES[name](text)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is CLASSES[name]
    assert str(copy) == str(error) == text
    assert str(CLASSES[name]()) == name


def raised() -> Iterator[tuple[str, ast.Call]]:
    """Every place in wsikit that raises one of its own errors."""
    for path in sorted(Path(wsikit.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and getattr(node.exc.func, "id", "") in CLASSES:
                yield f"{path}:{node.lineno}", node.exc


def test_every_error_that_is_raised_has_one_message_of_one_line() -> None:
    places = dict(raised())
    assert len(places) > 50
    for where, call in places.items():
        assert (len(call.args), call.keywords) == (1, []), where
        texts = [n.value for n in ast.walk(call.args[0]) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        assert not any("\n" in t for t in texts), where
