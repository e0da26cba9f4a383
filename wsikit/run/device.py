"""When a GPU fails: its process is of no more use, and no slide is to blame.

After an error every later call in the process fails as well (rapidsai/dask-cuda#725, #859), so a worker ends itself and dask starts another one.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from wsikit.errors import EngineError, WsikitError

_CONTEXT_LOST = ("CUDA error", "CUDNN_STATUS", "CUBLAS_STATUS", "HIP error", "device-side assert")
_may_end = False


def let_process_end() -> None:
    """Say that this process is a worker that is started again when it ends."""
    global _may_end
    _may_end = True


@contextlib.contextmanager
def device_errors() -> Iterator[None]:
    """End the worker on an error of its GPU; in a process that nobody would start again, say so.

    Raises
    ------
    EngineError
        The GPU failed, or its memory is full.
    """
    try:
        yield
    except RuntimeError as e:
        if isinstance(e, WsikitError) or not is_of_device(e):
            raise
        if _may_end:
            os._exit(1)
        why = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise EngineError(
            f"the GPU failed ({why[:160]}); what is done is kept, run the same command again: with --workers 1 it is started again by itself, "
            "and --device cpu needs none"
        ) from e


def is_of_device(error: RuntimeError) -> bool:
    """Whether it is an accelerator's error, or its full memory, and not one of the work itself."""
    torch = sys.modules.get("torch")
    kinds = (torch.AcceleratorError, torch.OutOfMemoryError) if torch else ()
    return isinstance(error, kinds) or any(sign in str(error) for sign in _CONTEXT_LOST)
