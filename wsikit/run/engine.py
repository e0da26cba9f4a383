"""Who does the work: this process, a local cluster of worker processes, or a dask scheduler elsewhere."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

from wsikit.errors import EngineError, UsageError
from wsikit.threads import cores

# One thread per process: with more, numeric libraries add in another order and results depend on the machine's load.
_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
# glibc otherwise hands every large buffer back to the system at once, and half the time goes into page faults
_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**28), "MALLOC_TRIM_THRESHOLD_": str(2**29)}
# tasks carry no data that could be spilled, so a worker over its limit is ended at once
_MEMORY_RULES = {f"distributed.worker.memory.{name}": value for name, value in (("target", False), ("spill", False), ("pause", False), ("terminate", 1.0))}
_QUIET = {"DASK_LOGGING__DISTRIBUTED": "error"}
_CONNECT_SECONDS = "8s"


class InProcess(Executor):
    """Runs each task when it is submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The finished future of ``fn(*args, **kwargs)``."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as e:
            future.set_exception(e)
        return future


@dataclass(frozen=True)
class Pool:
    """Something that takes tasks, and how many to have under way so that no worker waits."""

    executor: Executor
    window: int
    workers: int


@contextlib.contextmanager
def open_pool(workers: int | None, scheduler: str | None = None, device: str = "cpu", worker_bytes: int = 0) -> Iterator[Pool]:
    """A pool for a run.

    Parameters
    ----------
    workers : worker processes on this machine; 0 works in this process; None takes one per GPU, or per core up to 8
    scheduler : address of a running dask scheduler to use instead
    worker_bytes : a worker process of this machine that grows beyond it is ended, and its slide tried again, alone in the end; 0 sets no limit

    Raises
    ------
    EngineError
        The scheduler cannot be reached, or has no workers.
    UsageError
        ``workers`` is below 0.
    """
    if workers is not None and workers < 0:
        raise UsageError(f"{workers} workers: give 0 to work in this process, or how many processes")
    if scheduler is None and workers == 0:
        yield Pool(InProcess(), 1, 1)
        return
    from distributed import Client

    with contextlib.ExitStack() as stack:
        try:
            target: Any = scheduler or stack.enter_context(_local_cluster(workers or default_workers(device), device, worker_bytes))
            client = stack.enter_context(Client(target, timeout=_CONNECT_SECONDS, set_as_default=False))
            n, threads = _wait_for_workers(client)
        except (OSError, TimeoutError, ValueError) as e:
            raise EngineError(f"no dask cluster at {scheduler or 'this machine'} ({e}); check the address, or leave --scheduler out") from e
        yield Pool(client.get_executor(pure=False), 2 * threads, n)


def _wait_for_workers(client: Any) -> tuple[int, int]:
    """How many workers there are, and how many tasks they take at a time."""
    client.wait_for_workers(1, timeout=60)
    found = client.scheduler_info(n_workers=-1)["workers"].values()
    return len(found), sum(w["nthreads"] for w in found)


def default_workers(device: str) -> int:
    """One worker per GPU for ``cuda``, one for a named GPU; otherwise one per core, at most 8."""
    if device != "cpu":
        return len(visible_gpus(device))
    return max(1, min(8, cores()))


def visible_gpus(device: str) -> list[str]:
    """What ``CUDA_VISIBLE_DEVICES`` calls each GPU that this process may use; on a shared machine these need not start at 0."""
    if device != "cuda":
        return ["0"]
    import torch

    allowed = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return allowed[: torch.cuda.device_count()] or [str(i) for i in range(max(1, torch.cuda.device_count()))]


@contextlib.contextmanager
def _local_cluster(workers: int, device: str, worker_bytes: int) -> Iterator[Any]:
    """Worker processes on this machine, reachable from this machine only."""
    import dask
    from distributed import Nanny, Scheduler, SpecCluster

    nannies = {i: {"cls": Nanny, "options": worker_options(i, device, visible_gpus(device)) | {"memory_limit": worker_bytes}} for i in range(workers)}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0", "port": 0}}
    # only what is set before a process starts reaches its memory allocator and its logging
    environment = _THREADS | _MEMORY | _QUIET | {"WSIKIT_THREADS": str(max(1, cores() // workers))}
    before_start = {"distributed.nanny.pre-spawn-environ": environment, "distributed.scheduler.allowed-failures": 1} | _MEMORY_RULES
    with dask.config.set(before_start), SpecCluster(workers=nannies, scheduler=scheduler, silence_logs=50) as cluster:
        yield cluster


def worker_options(index: int, device: str, gpus: Sequence[str] = ("0",)) -> dict[str, Any]:
    """Options of one worker process: loopback, one task at a time; for ``cuda`` one of the ``gpus``, in turn, and two tasks.

    Of two blocks one is decoded while the other is on the GPU, which they use one after the other.
    """
    env = {"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} if device == "cuda" else {}
    return {"host": "127.0.0.1", "nthreads": 2 if device == "cuda" else 1, "dashboard": False, "env": env, "preload": [__name__]}


def dask_setup(_: Any) -> None:
    """Called by dask in each new worker process: Ctrl-C in a terminal reaches them too, and the run itself ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
