"""Where is a slide: a path on this machine, or an address of an object store or web server?"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from wsikit.errors import SlideNotFoundError, UsageError, how_to_install

_ADDRESS = re.compile(r"^(https?|s3|gs|memory):/+(.+)$")  # pathlib makes one slash of two

ReadAt = Callable[[int, int], bytes]  # offset, count → bytes


def locate(given: str | Path) -> Path:
    """A path, or something that behaves like one for ``s3://``, ``gs://``, ``https://`` (extra ``cloud``).

    Raises
    ------
    UsageError
        It is an address, and the extra that reads those is not installed.

    Examples
    --------
    >>> locate("slides/a.svs").name, is_remote(Path("a.svs"))
    ('a.svs', False)
    """
    found = _ADDRESS.match(str(given))
    if not found or (isinstance(given, Path) and given.exists()):
        return Path(given)
    try:
        from upath import UPath
    except ImportError as e:
        raise UsageError(f"{given}: to read from {found[1]}://, {how_to_install('cloud')}; or copy the file here") from e
    try:
        place = UPath(f"{found[1]}://{found[2]}")
        place.fs  # noqa: B018 - names what is missing (gcsfs, s3fs) now
    except ImportError as e:
        raise UsageError(f"{given}: {e}; {how_to_install('cloud')}; or copy the file here") from e
    return cast(Path, place)


def is_remote(path: Path) -> bool:
    """Whether it is an address rather than a file here."""
    return not isinstance(path, Path)


def read_at(path: Path) -> ReadAt:
    """Bytes of a remote file by offset and count, fewer at its end; several threads may ask at once.

    Raises
    ------
    SlideNotFoundError
        The server does not answer, or not with the part that was asked for.
    """
    place: Any = path

    def fetch(offset: int, count: int) -> bytes:
        try:
            data = bytes(place.fs.cat_file(place.path, start=offset, end=offset + count))
        except Exception as e:  # each protocol has exceptions of its own
            raise SlideNotFoundError(f"{path}: the server does not give bytes {offset} to {offset + count} ({e}); try again, or copy the slide here") from e
        return data if len(data) <= count else data[offset : offset + count]  # a server without ranges sends all of it

    return fetch
