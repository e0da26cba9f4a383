"""Every error that wsikit raises on purpose.

::

    WsikitError
    ├── UsageError (ValueError)              wrong arguments: nothing was started
    ├── SlideError (OSError)                 this slide cannot be used; others can
    │   ├── SlideNotFoundError (FileNotFoundError)
    │   ├── UnsupportedFormatError (ValueError)
    │   ├── DamagedSlideError
    │   ├── UnsafeSlideError                 opening it crashes, hangs or takes all memory
    │   ├── DigestMismatchError              not the file that was promised
    │   ├── MissingResolutionError           no believable mpp
    │   └── ResolutionMismatchError          the slide is coarser than a model needs
    ├── RegionError (ValueError)             a region that cannot be read
    ├── ModelError (ValueError)
    │   ├── UnknownModelError (KeyError)     lists what there is
    │   ├── CardError                        a model card that does not parse
    │   ├── LicenceError                     terms that nobody has accepted here
    │   └── WeightsMismatchError             weights that are not the card's
    ├── LabelsError (ValueError)             a labels or cases CSV that cannot be used
    ├── StoreError (OSError)
    │   ├── StoreMismatchError               not a wsikit store, or one of another slide
    │   └── DamagedStoreError                bytes that differ from their receipt
    ├── OutputError (OSError)                the output folder cannot be written
    └── EngineError (RuntimeError)           scheduler or workers cannot be reached

Each message is one line and says what, where, and what would make it work.
Errors carry nothing but that message, so they travel between processes unharmed.
"""

from __future__ import annotations


def how_to_install(extra: str) -> str:
    """How to get one of wsikit's extras, for messages: wsikit is on no package index, so it is installed from a clone.

    >>> how_to_install("dicom")
    "install wsikit's extra 'dicom': in its clone, uv sync --extra dicom, or pip install '.[dicom]'"
    """
    alone = " --no-dev" if extra == "tia" else ""  # the development group asks for newer libraries than TIAToolbox takes
    return f"install wsikit's extra '{extra}': in its clone, uv sync --extra {extra}{alone}, or pip install '.[{extra}]'"


class WsikitError(Exception):
    """Base of all errors raised on purpose; its text is fit to show to a user.

    >>> str(SlideNotFoundError("a.svs: no such file; check the path"))
    'a.svs: no such file; check the path'
    """

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else type(self).__name__


class UsageError(WsikitError, ValueError):
    """Arguments that cannot mean anything; raised before any work starts."""


class SlideError(WsikitError, OSError):
    """A slide that cannot be used."""


class SlideNotFoundError(SlideError, FileNotFoundError):
    """There is no slide at this path."""


class UnsupportedFormatError(SlideError, ValueError):
    """No reader knows this file."""


class DamagedSlideError(SlideError):
    """The file opened, but some of it cannot be decoded."""


class UnsafeSlideError(SlideError):
    """A file on which the process that looked at it first died, hung or ran out of memory."""


class DigestMismatchError(SlideError):
    """A file whose SHA-256 is not the one that was expected."""


class MissingResolutionError(SlideError):
    """The slide states no believable micrometres per pixel."""


class ResolutionMismatchError(SlideError):
    """The slide is coarser than what was asked for."""


class RegionError(WsikitError, ValueError):
    """A region that is empty, too large to hold, or at no level of the slide."""


class ModelError(WsikitError, ValueError):
    """A model that cannot be used."""


class UnknownModelError(ModelError, KeyError):
    """A model or pipeline name that nobody registered."""


class CardError(ModelError):
    """A model card that is missing or says something impossible."""


class LicenceError(ModelError):
    """Weights whose licence is to be read and accepted first."""


class WeightsMismatchError(ModelError):
    """Weights whose digest or tensors are not what the card promises."""


class LabelsError(WsikitError, ValueError):
    """A CSV of labels or cases that cannot be used."""


class StoreError(WsikitError, OSError):
    """A slide store or run folder that cannot be used."""


class StoreMismatchError(StoreError):
    """The folder is something else, or belongs to another slide or run."""


class DamagedStoreError(StoreError):
    """Stored bytes that differ from their receipt, or are missing."""


class OutputError(WsikitError, OSError):
    """The output folder cannot be created, written, or is full."""


class EngineError(WsikitError, RuntimeError):
    """The scheduler or its workers cannot be reached."""
