"""What libraries say, without what they quote of the file: names of patients are in there."""

from __future__ import annotations

import logging
import re
import warnings

from wsikit.errors import WsikitError

_LIBRARIES = ("tifffile", "pydicom", "PIL", "wsidicom", "openslide")
_QUOTED = re.compile(r"'[^']*'?|\"[^\"]*\"?|<[^>]*>?|`[^`]*`?|\[[^\]]*\]?")
_NUMBERS = re.compile(r"[0-9 .,×x-]*")


def quiet_libraries() -> None:
    """Keep libraries from printing what they find odd in a file: they quote it."""
    for name in _LIBRARIES:
        logger = logging.getLogger(name)
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
    for name in _LIBRARIES:
        warnings.filterwarnings("ignore", module=rf"{name}(\.|$)")


def said(error: BaseException) -> str:
    """What a library says of an error, without what it quotes from the file.

    >>> said(ValueError("cannot parse 'Jane Roe' at byte 7")), said(ValueError("bad value: Jane Roe")), said(ValueError("compression: 52479"))
    ('cannot parse … at byte 7', 'bad value: …', 'compression: 52479')
    """
    if isinstance(error, WsikitError):
        return str(error)
    text = _QUOTED.sub("…", " ".join(str(error).split()))
    head, colon, tail = text.partition(": ")
    if colon and not _NUMBERS.fullmatch(tail):
        text = f"{head}: …"
    return text[:120] or type(error).__name__
