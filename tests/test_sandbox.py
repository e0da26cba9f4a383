"""The process that looks at files first: it dies of everything that a file can do, and whoever asked learns of what."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from wsikit import sandbox as sandbox_module
from wsikit.errors import DamagedSlideError
from wsikit.sandbox import Sandbox, SandboxDiedError

HARM = """
import ctypes, os, sys, time
from wsikit import sandbox as sandbox_module
from wsikit.errors import DamagedSlideError
def do(what, more=None):
    print("Jane Roe", flush=True); print("Jane Roe", file=sys.stderr, flush=True); os.write(1, b"Jane Roe\\n")
    if what == "segfault": ctypes.string_at(0)
    if what == "abort": os.abort()
    if what == "leave": os._exit(3)
    if what == "sleep": time.sleep(60)
    if what == "spin":
        while True: pass
    if what == "memory": return len(bytearray(more))
    if what == "refuse": raise DamagedSlideError("a.svs: cut off")
    if what == "surprise": raise ZeroDivisionError("Jane Roe")
    if what == "pid": return os.getpid()
    if what == "folder": return os.getcwd()
    return what
"""


@pytest.fixture
def harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    (tmp_path / "harm.py").write_text(HARM)
    monkeypatch.syspath_prepend(str(tmp_path))
    with Sandbox("harm:do", seconds=20, memory_bytes=2**28) as sandbox:
        yield sandbox


@pytest.mark.parametrize(("what", "says"), [("segfault", "crash: SIGSEGV"), ("abort", "crash: SIGABRT"), ("leave", "crash: exit code 3")])
def test_a_crash_is_named_and_the_next_call_works(harm: Sandbox, what: str, says: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SandboxDiedError, match=says):
        harm.call(what)
    assert harm.call("fine") == "fine"
    assert harm.starts == 2
    assert capfd.readouterr() == ("", ""), "what libraries print may quote the file"


@pytest.mark.parametrize("what", ["sleep", "spin"])
def test_a_hang_ends_in_time(harm: Sandbox, what: str) -> None:
    pid = harm.call("pid")
    harm.seconds = 0.4
    begun = time.monotonic()
    with pytest.raises(SandboxDiedError, match="hang: no answer in"):
        harm.call(what)
    assert time.monotonic() - begun < 5
    assert not psutil.pid_exists(pid)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux limits the memory of a process")
def test_memory_is_limited(harm: Sandbox) -> None:
    assert harm.call("memory", 2**27) == 2**27
    with pytest.raises(SandboxDiedError, match="memory: MemoryError"):
        harm.call("memory", 2**30)
    assert harm.call("fine") == "fine"


def test_errors_of_ours_keep_their_class_and_text_and_others_tell_nothing(harm: Sandbox) -> None:
    with pytest.raises(DamagedSlideError, match=r"^a\.svs: cut off$"):
        harm.call("refuse")
    with pytest.raises(SandboxDiedError) as surprise:
        harm.call("surprise")
    assert str(surprise.value) == "error: ZeroDivisionError"
    assert harm.starts == 1


def test_it_follows_its_caller(harm: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert harm.call("folder") == str(tmp_path / name)


def test_threads_get_their_own_answers(harm: Sandbox) -> None:
    found: dict[int, object] = {}
    threads = [threading.Thread(target=lambda i=i: found.__setitem__(i, harm.call(f"{i}"))) for i in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert found == {i: f"{i}" for i in range(20)}
    assert harm.starts == 1


def test_an_interrupted_call_does_not_answer_the_next(harm: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    harm.call("fine")
    exchange = sandbox_module._exchange

    def interrupted(process: Any, line: bytes) -> bytes:
        exchange(process, line)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sandbox_module, "_exchange", interrupted)
        harm.call("first")
    assert harm.call("second") == "second"


def test_a_forked_child_starts_its_own(harm: Sandbox) -> None:
    mine = harm.call("pid")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, str(harm.call("pid")).encode())
            harm.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(read, 100)) != mine
    assert harm.call("pid") == mine


def test_it_ends_with_the_process_that_started_it(harm: Sandbox, tmp_path: Path) -> None:
    import subprocess
    import sys

    start = f"import os, sys; sys.path.insert(0, {str(tmp_path)!r}); from wsikit.sandbox import Sandbox; s = Sandbox('harm:do')"
    code = f"{start}; print(s.call('pid'), flush=True); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    pid, until = int(done.stdout), time.monotonic() + 5
    while psutil.pid_exists(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid)
