"""A real SLURM: its controller and one node started here for the test, jobs that it schedules, and one that an administrator cancels."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wsikit.run.tls import make_tls

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not (shutil.which("slurmctld") and shutil.which("slurmd")), reason="no SLURM here (Debian: slurm-wlm)")]

CONF = """
ClusterName=wsikit
SlurmctldHost={node}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
SlurmctldPort={ctld_port}
SlurmdPort={d_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/d.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
NodeName={node} NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000 State=UNKNOWN
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
CLUSTER = """
kind = "slurm"
most = 2
host = "127.0.0.1"
tls = "tls"
[options]
queue = "gpu"
cores = 1
memory = "2GB"
walltime = "00:20:00"
worker_extra_args = ["--host", "127.0.0.1"]
"""


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _ask(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A controller and a node with two CPUs; yields the file of a cluster that asks it for workers."""
    folder = tmp_path / "slurm"
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    values = {"node": socket.gethostname().split(".")[0], "user": getpass.getuser(), "ctld_port": _free_port(), "d_port": _free_port(), "folder": folder}
    (folder / "slurm.conf").write_text(CONF.format(**values))
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    monkeypatch.chdir(tmp_path)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    daemons = [subprocess.Popen([name, "-D"], env={**os.environ}, **quiet) for name in ("slurmctld", "slurmd")]  # type: ignore[call-overload]
    make_tls(tmp_path / "tls")
    (tmp_path / "cluster.toml").write_text(CLUSTER)
    try:
        until = time.monotonic() + 60
        while "idle" not in _ask("sinfo", "-h", "-o", "%T") and time.monotonic() < until:
            time.sleep(0.2)
        yield tmp_path / "cluster.toml"
        _ask("scancel", "--user", values["user"], "--signal=KILL")  # type: ignore[arg-type]
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)


def test_its_jobs_give_the_same_bytes_also_when_one_is_cancelled(
    slurm: Path, score: Any, undisturbed: Path, differences: Callable[[Path, Path], set[str]], tmp_path: Path
) -> None:
    cancelled: list[str] = []

    def cancel_one(event: Any) -> None:
        if event.kind == "block" and not cancelled:
            cancelled.extend(_ask("squeue", "-h", "-t", "RUNNING", "-o", "%i").split()[:1])
            _ask("scancel", *cancelled)

    run = score(tmp_path / "run", cancel_one, keep_tiles=True, cluster=slurm)
    assert cancelled
    assert "CANCELLED" in _ask("scontrol", "show", "job", cancelled[0])
    assert differences(run.folder, undisturbed) == {"run.json"}
    until = time.monotonic() + 30
    while (left := _ask("squeue", "-h", "-o", "%i %T")) and time.monotonic() < until:
        time.sleep(0.5)
    assert not left, "no job outlives the run"
