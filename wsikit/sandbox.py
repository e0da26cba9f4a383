"""A process of its own for a look at a file that nobody has looked at: limited in time and memory, and thrown away when it dies.

One such process serves many calls, since starting an interpreter takes longer than opening a slide. Arguments and answers are JSON, so a
process that a file has taken over can tell lies and no more. What libraries print there goes nowhere: it may quote the file.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wsikit import errors

SECONDS = 60.0
MEMORY_BYTES = 4 * 1024**3  # beyond what the process has when it is ready
_START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from wsikit.sandbox import serve; serve(sys.argv[2], int(sys.argv[3]))"
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "WSIKIT_THREADS"), "1")


class SandboxDiedError(Exception):
    """The process ended, or had to be ended, before it answered: ``kind`` is ``crash``, ``hang``, ``memory`` or ``error``."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail = kind, detail


class Sandbox:
    """Calls one function, ``module:name``, in a process of its own, which starts with the first call and again after it died.

    Safe to use from several threads, which take turns.

    Examples
    --------
    >>> with Sandbox("math:sqrt") as sandbox:
    ...     sandbox.call(9.0)
    3.0
    """

    def __init__(self, function: str, *, seconds: float = SECONDS, memory_bytes: int = MEMORY_BYTES) -> None:
        self._function, self._memory_bytes = function, memory_bytes
        self.seconds = seconds
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._turn = threading.Lock()
        atexit.register(self.close)

    def call(self, *arguments: Any) -> Any:
        """The function's answer.

        Raises
        ------
        WsikitError
            Of the class and with the message that the function raised.
        SandboxDiedError
            It crashed, took too long or too much memory, or raised something else.
        """
        with self._turn:
            process = self._running()
            late = threading.Event()
            timer = threading.Timer(self.seconds, _end_late, (process, late))
            timer.start()
            try:
                line = _exchange(process, json.dumps([self.seconds, _here(), arguments]).encode() + b"\n")
            except BaseException:  # Ctrl-C: an answer that comes later must not be taken for the next one
                self._end()
                raise
            finally:
                timer.cancel()
            try:
                answer = json.loads(line) if line and not late.is_set() else None
            except ValueError:
                answer = None
            if answer is None:
                raise self._death(late.is_set())
            if answer.get("kind") == "memory":
                self._end()  # what it still holds is anybody's guess
        return _value(answer)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():  # a forked child must not talk to its parent's process
            self._process, self._owner = None, os.getpid()
        if self._process is None or self._process.poll() is not None:
            self._end()
            command = [sys.executable, "-c", _START, json.dumps(sys.path), self._function, str(self._memory_bytes)]
            pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere, env=os.environ | _ONE_THREAD)
            self.starts += 1
        return self._process

    def _death(self, late: bool) -> SandboxDiedError:
        process = self._process
        assert process is not None
        code = process.wait()
        self._end()
        if late:
            return SandboxDiedError("hang", f"no answer in {self.seconds:g} s")
        with contextlib.suppress(ValueError):
            return SandboxDiedError("crash", signal.Signals(-code).name)
        return SandboxDiedError("crash", f"exit code {code}")

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    stream and stream.close()

    def close(self) -> None:
        """End the process; a later call starts another."""
        if self._owner == os.getpid():
            self._end()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _here() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # somebody removed it
        return os.sep


def _end_late(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    process.kill()


def _exchange(process: subprocess.Popen[bytes], line: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(OSError):  # it is dead already; so is its answer
        process.stdin.write(line)
        process.stdin.flush()
    return process.stdout.readline()


def _value(answer: dict[str, Any]) -> Any:
    if "value" in answer:
        return answer["value"]
    kind = answer.get("kind")
    if kind == "typed":
        raised = getattr(errors, str(answer.get("name")), None)
        if isinstance(raised, type) and issubclass(raised, errors.WsikitError):
            raise raised(str(answer.get("message")))
    raise SandboxDiedError("memory" if kind == "memory" else "error", str(answer.get("name")))


def serve(function: str, memory_bytes: int) -> None:
    """The other side: answer calls until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches this process too; whoever started it ends it
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "r+b") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
    module, _, name = function.partition(":")
    work: Callable[..., Any] = getattr(importlib.import_module(module), name)
    _limit_memory(memory_bytes)
    for line in questions:
        seconds, folder, arguments = json.loads(line)
        _limit_time(seconds)
        with contextlib.suppress(OSError):  # paths are relative to where the caller is now
            os.chdir(folder)
        answers.write(json.dumps(_answer(work, arguments)).encode() + b"\n")
        answers.flush()


def _answer(work: Callable[..., Any], arguments: list[Any]) -> dict[str, Any]:
    try:
        return {"value": work(*arguments)}
    except errors.WsikitError as e:
        return {"kind": "typed", "name": type(e).__name__, "message": str(e)}
    except MemoryError:
        return {"kind": "memory", "name": "MemoryError"}
    except Exception as e:  # its text may quote the file
        return {"kind": "error", "name": type(e).__name__}


def _limit_memory(allowed: int) -> None:
    """Where the system can: own memory (not files that are mapped), and no core dumps, which would hold the file."""
    try:
        import resource

        status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines() if ":" in line)  # noqa: SIM115, PTH123
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        limit = int(status["VmData"].split()[0]) * 1024 + allowed
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    except (ImportError, OSError, ValueError, KeyError):
        return


def _limit_time(seconds: float) -> None:
    """So that it ends also when whoever waits for it is gone."""
    try:
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime + 2 * seconds) + 1, resource.RLIM_INFINITY))
    except (ImportError, OSError, ValueError):
        return
