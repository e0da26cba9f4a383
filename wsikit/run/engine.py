"""Who does the work: this process, a local cluster of worker processes, or a dask scheduler elsewhere."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsikit.errors import EngineError, UsageError
from wsikit.run.cluster import ClusterConfig, start_cluster
from wsikit.run.device import let_process_end
from wsikit.run.tls import tls_files
from wsikit.threads import cores

# One thread per process: with more, numeric libraries add in another order and results depend on the machine's load.
_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
# glibc otherwise hands every large buffer back to the system at once, and half the time goes into page faults
_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**28), "MALLOC_TRIM_THRESHOLD_": str(2**29)}
# tasks carry no data that could be spilled, so a worker over its limit is ended at once
_MEMORY_RULES = {f"distributed.worker.memory.{name}": value for name, value in (("target", False), ("spill", False), ("pause", False), ("terminate", 1.0))}
# with a window that never runs empty, dask takes the whole archive for one computation, and remembers every task of it
_SHORT_MEMORY = {"distributed.diagnostics.computations.max-history": 0}
_QUIET = {"DASK_LOGGING__DISTRIBUTED": "critical"}  # errors come to the run; a worker would print them once more, with what libraries quote from files
_ENVIRONMENT = _THREADS | _MEMORY | _QUIET
_CONNECT_SECONDS = "8s"
# dask's resources: a worker with a GPU takes two blocks at a time, and one beside it a task that needs none
GPU, BESIDE = "gpu", "beside"
_BESIDE_OPTIONS = {
    "host": "127.0.0.1", "nthreads": 1, "resources": {BESIDE: 1}, "dashboard": False, "preload": [__name__],
    "env": {"CUDA_VISIBLE_DEVICES": "", "WSIKIT_THREADS": "1"},
}  # fmt: skip
_GUARD = "a script of your own must begin its work below if __name__ == '__main__':, or take workers=0"
_ADVICE = "check the address, or leave --scheduler out"


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
    """Something that takes tasks, and how many to have under way so that no worker waits.

    Where there are processes ``beside`` those with a GPU, they take what needs none: the first look at a slide, and putting it together.
    """

    executor: Executor
    window: int
    workers: int
    client: Any = None
    beside: Executor | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, of_block: bool) -> Future[Any]:
        """The future of ``fn(*args)``."""
        chosen = self.executor if of_block or self.beside is None else self.beside
        return chosen.submit(fn, *args)

    def end_stuck(self, seconds: float) -> None:
        """End the worker processes that have been at one task for longer: a reader that hangs is like one that crashes.

        A task in this process cannot be ended; who wants that takes a worker.
        """
        if self.client is None:
            return
        ages = self.client.run(_age_of_task, on_error="return")
        stuck = [worker for worker, age in ages.items() if isinstance(age, float) and age > seconds]
        if stuck:
            self.client.run(_end_process, workers=stuck, on_error="return")


def _end_process() -> None:
    """In a worker whose task hangs: its event loop still answers, and its nanny starts another one."""
    os._exit(1)


def _age_of_task(dask_worker: Any) -> float:
    """Seconds that a worker has been at its oldest task; dask's clock is that of its own metrics module."""
    from distributed.metrics import time

    return max((float(time() - task.start_time) for task in dask_worker.state.executing if task.start_time), default=0.0)


@dataclass(frozen=True)
class Where:
    """Where a run's work is done.

    Attributes
    ----------
    workers : worker processes on this machine; 0 works in this process; None takes one per GPU, or per core up to 8
    worker_bytes : one of these that grows beyond it is ended, and its slide tried again, alone in the end; 0 sets no limit
    scheduler : address of a running dask scheduler to use instead
    cluster : a batch system that starts the workers instead
    tls : the folder of ``wsikit cluster init`` that the ``scheduler`` was started with
    task_seconds : a worker that is at one block for longer is ended, and its slide tried again, alone in the end
    """

    workers: int | None = 0
    worker_bytes: int = 0
    scheduler: str | None = None
    cluster: ClusterConfig | None = None
    tls: Path | None = None
    task_seconds: float = 1800.0


@contextlib.contextmanager
def open_pool(where: Where, device: str = "cpu") -> Iterator[Pool]:
    """A pool for a run.

    Raises
    ------
    EngineError
        Workers do not start; the scheduler cannot be reached, or has no workers; the batch system refuses.
    UsageError
        ``workers`` is below 0, a scheduler and a cluster are both given, or ``tls`` has no keys.
    """
    if where.workers is not None and where.workers < 0:
        raise UsageError(f"{where.workers} workers: give 0 to work in this process, or how many processes")
    if where.scheduler is not None and where.cluster is not None:
        raise UsageError("a scheduler and a cluster: give the one that is to do the work")
    if (where.scheduler or "").startswith("tls://") and where.tls is None:
        raise UsageError(f"{where.scheduler}: name the folder with its key and certificate with --tls, see wsikit cluster init")
    keys = {"security": _security(where.tls)} if where.tls else {}
    if where.cluster is not None:
        with start_cluster(where.cluster, _ENVIRONMENT) as target, _client(target) as client:
            n = where.cluster.most  # they come as there is work, so there is none yet to wait for
            yield Pool(client.get_executor(pure=False), 2 * n * where.cluster.tasks, n, client)
    elif where.scheduler is not None:
        with _client(where.scheduler, **keys) as client:
            yield _pool(client, where.scheduler)
    elif where.workers == 0:
        yield Pool(InProcess(), 1, 1)
    else:
        with _local_cluster(where.workers or default_workers(device), device, where.worker_bytes) as target, _client(target) as client:
            yield _pool(client, "this machine", len(target.worker_spec))


@contextlib.contextmanager
def _client(target: Any, **keys: Any) -> Iterator[Any]:
    from distributed import Client

    try:
        client = Client(target, timeout=_CONNECT_SECONDS, set_as_default=False, **keys)
    except (OSError, TimeoutError, ValueError) as e:
        raise EngineError(f"no dask cluster at {target if isinstance(target, str) else 'this machine'} ({e}); {_ADVICE}") from e
    with client:
        yield client


def _pool(client: Any, name: str, least: int = 1) -> Pool:
    """All workers that there are, once there are so many."""
    try:
        client.wait_for_workers(least, timeout=60)
    except TimeoutError as e:
        raise EngineError(f"no worker at {name} ({e}); {_ADVICE}") from e
    found = client.scheduler_info(n_workers=-1)["workers"].values()
    window = 2 * sum(w["nthreads"] for w in found)
    if not all(any(kind in w["resources"] for w in found) for kind in (GPU, BESIDE)):
        return Pool(client.get_executor(pure=False), window, len(found), client)
    with_gpu, beside = (client.get_executor(pure=False, resources={kind: 1}) for kind in (GPU, BESIDE))
    return Pool(with_gpu, window, sum(GPU in w["resources"] for w in found), client, beside)


def _security(tls: Path) -> Any:
    from distributed.security import Security

    return Security(**tls_files(tls), require_encryption=True)


def job_script(cluster: ClusterConfig) -> str:
    """What a job of a cluster runs.

    Raises
    ------
    EngineError
        The library of the batch system is not installed, or refuses the options.
    """
    if cluster.kind == "kubernetes":
        return "Kubernetes starts workers from an image, not from a script"
    with start_cluster(cluster.model_copy(update={"least": 0}), _ENVIRONMENT) as made:
        return str(made.job_script())


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
    """Worker processes on this machine, reachable from this machine only.

    Raises
    ------
    EngineError
        They do not start.
    """
    import dask
    from distributed import Nanny, Scheduler, SpecCluster

    options = [worker_options(i, device, visible_gpus(device)) for i in range(workers)]
    options += [_BESIDE_OPTIONS] * (0 if worker_bytes else beside_gpus(workers, device))
    nannies = {i: {"cls": Nanny, "options": o | {"memory_limit": worker_bytes}} for i, o in enumerate(options)}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0", "port": 0}}
    # only what is set before a process starts reaches its memory allocator and its logging
    environment = _ENVIRONMENT | {"WSIKIT_THREADS": str(max(1, cores() // workers))}
    rules = {"distributed.nanny.pre-spawn-environ": {}, "distributed.scheduler.allowed-failures": 1} | _MEMORY_RULES | _SHORT_MEMORY
    with _inherited(environment), dask.config.set(rules):
        try:
            made = SpecCluster(workers=nannies, scheduler=scheduler, silence_logs=50)
        except RuntimeError as e:  # each worker process imports the script that starts it, and without the guard starts it again
            raise EngineError(f"worker processes do not start ({e}); {_GUARD}") from e
        with made as cluster:
            yield cluster


@contextlib.contextmanager
def _inherited(environment: dict[str, str]) -> Iterator[None]:
    """What worker processes start with, as long as there are any.

    dask's own way to say so yields to what the shell has set (``OMP_NUM_THREADS=16``), and stays in this process for the next run.
    """
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def worker_options(index: int, device: str, gpus: Sequence[str] = ("0",)) -> dict[str, Any]:
    """Options of one worker process: loopback, one task at a time; for ``cuda`` one of the ``gpus``, in turn, and two tasks.

    Of two blocks one is decoded while the other is on the GPU, which they use one after the other.
    """
    env = {"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} if device == "cuda" else {}
    on_gpu = {"nthreads": 2, "resources": {GPU: 2}} if device == "cuda" else {"nthreads": 1}
    return {"host": "127.0.0.1", "dashboard": False, "env": env, "preload": [__name__]} | on_gpu


def beside_gpus(workers: int, device: str) -> int:
    """Processes without a GPU beside those with one: as many, where there are cores that decoding leaves over.

    >>> beside_gpus(1, "cpu")
    0
    """
    return min(workers, max(0, cores() - 2 * workers)) if device == "cuda" else 0


def dask_setup(_: Any) -> None:
    """Called by dask in each new worker process: Ctrl-C in a terminal reaches them too, and the run itself ends them; a nanny starts them again."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    let_process_end()
