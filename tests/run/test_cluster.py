"""Batch systems and encrypted schedulers: a SLURM whose sbatch starts the job here, real dask-jobqueue, real TLS."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import wsikit as wk
from wsikit.errors import EngineError, UsageError
from wsikit.run.cluster import _kubernetes, read_cluster
from wsikit.run.engine import job_script
from wsikit.run.tls import make_tls, tls_files

Differences = Callable[[Path, Path], set[str]]
SBATCH = """#!/bin/sh
job=$(mktemp "$WSIKIT_FAKE_SLURM/job.XXXXXX")
cp "$1" "$job"
setsid sh "$job" >>"$WSIKIT_FAKE_SLURM/log" 2>&1 &
echo $! >>"$WSIKIT_FAKE_SLURM/jobs"
echo $!
"""
SCANCEL = """#!/bin/sh
kill -TERM -- -"$1" 2>/dev/null
exit 0
"""
CONFIG = """
kind = "slurm"
most = 2
host = "127.0.0.1"
tls = "tls"
[options]
cores = 1
memory = "4GB"
worker_extra_args = ["--host", "127.0.0.1"]
"""


@pytest.fixture
def tls(tmp_path: Path) -> Path:
    make_tls(tmp_path / "tls")
    return tmp_path / "tls"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A batch system of this machine: ``sbatch`` starts the script in the background, ``scancel`` ends it. Yields the file of its jobs."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, script in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("WSIKIT_FAKE_SLURM", str(folder))
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    yield folder / "jobs"
    for job in (folder / "jobs").read_text().split() if (folder / "jobs").exists() else ():
        try:
            os.killpg(int(job), signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_a_run_on_a_batch_system_gives_the_same_bytes(slurm: Path, tls: Path, score: Any, undisturbed: Path, differences: Differences, tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text(CONFIG)
    run = score(tmp_path / "run", keep_tiles=True, cluster=tmp_path / "cluster.toml")
    assert slurm.read_text().split(), "jobs were submitted"
    assert differences(run.folder, undisturbed) == {"run.json"}


def test_the_jobs_script_has_one_task_a_worker_and_the_keys(tls: Path, tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text(CONFIG.replace("cores = 1", "cores = 6") + 'queue = "gpu"\n')
    script = job_script(read_cluster(tmp_path / "cluster.toml"))
    assert "#SBATCH -p gpu" in script
    assert "export OMP_NUM_THREADS=1" in script
    assert "export WSIKIT_THREADS=6" in script
    assert script.index("--nthreads 6") < script.index("--nthreads 1 --no-dashboard --preload wsikit.run.engine")
    assert "tls://127.0.0.1:" in script


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('kind = "slurm"\nmany = 3', "many: there is no key 'many' here; there are: host, interface, kind, least, most"),
        ('kind = "cloud"', "kind: Input should be 'slurm'"),
        ('kind = "slurm"\nhost = "127.0.0.1"\nleast = 4\nmost = 2', "most: 2 workers are fewer than the least, 4"),
        ('kind = "slurm"\nmost = 0', "most: Input should be greater than or equal to 1"),
        ("kind = slurm", "cannot be read"),
        ('kind = "pbs"\ninterface = "ib0"', "wsikit cluster init"),
        ('kind = "pbs"\nhost = "0.0.0.0"', "would listen beyond this machine in the open"),
        ('kind = "pbs"\nhost = "node1.example"', "would listen beyond this machine in the open"),
        ('kind = "kubernetes"', "options.image: name an image with wsikit"),
        ('kind = "kubernetes"\n[options]\nimage = "a"\nscheduler_service_type = "LoadBalancer"', "LoadBalancer would open the scheduler beyond the cluster"),
    ],
)
def test_a_wrong_file_names_its_key(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_cluster(tmp_path / "c.toml")


def test_pods_are_workers_as_elsewhere(tmp_path: Path) -> None:
    text = 'kind = "kubernetes"\ntasks = 2\n[options]\nimage = "wsikit:1"\nenv = {A = "1"}\nresources = {limits = {cpu = "4"}}\n'
    (tmp_path / "c.toml").write_text(text)
    found = _kubernetes(read_cluster(tmp_path / "c.toml"), {"OMP_NUM_THREADS": "1"})
    assert found["worker_command"] == ["dask", "worker", "--nthreads", "2", "--preload", "wsikit.run.engine"]
    assert found["env"] == {"OMP_NUM_THREADS": "1", "WSIKIT_THREADS": "4", "A": "1"}
    assert found["image"] == "wsikit:1"


def test_the_shipped_file_is_right() -> None:
    config = read_cluster(Path(__file__).parents[2] / "pipelines/archive_slurm.toml")
    assert (config.kind, config.tasks, config.options["job_extra_directives"]) == ("slurm", 2, ["--gres=gpu:1"])


def test_a_batch_system_that_is_not_there_is_named(tls: Path, slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.toml").write_text(CONFIG.replace("cores = 1", "cores = 1\nnonsense = 1"))
    with pytest.raises(EngineError, match=r"no slurm cluster \(.*nonsense"):
        wk.score([slide], tmp_path / "run", ["mitosis"], cluster=tmp_path / "c.toml")


def test_the_key_is_its_owners_and_never_written_over(tls: Path) -> None:
    assert stat.S_IMODE((tls / "key.pem").stat().st_mode) == 0o600
    before = (tls / "key.pem").read_bytes()
    with pytest.raises(UsageError, match="there already"):
        make_tls(tls)
    assert (tls / "key.pem").read_bytes() == before


def test_a_folder_without_keys_is_refused(slide: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="wsikit cluster init"):
        wk.score([slide], tmp_path / "run", ["mitosis"], scheduler="tls://127.0.0.1:1", tls=tmp_path)


@pytest.fixture
def encrypted(tls: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a scheduler with one worker that take nobody without the key."""
    files = tls_files(tls)
    keys = ["--tls-ca-file", files["tls_ca_file"], "--tls-key", files["tls_worker_key"], "--tls-cert", files["tls_worker_cert"]]
    dask = [sys.executable, "-m", "distributed.cli"]
    file = tmp_path / "scheduler.json"
    common = ["--scheduler-file", str(file), *keys]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen([*dask[:2], "distributed.cli.dask_scheduler", "--host", "tls://127.0.0.1", "--port", "0", "--no-dashboard", *common], **quiet)  # type: ignore[call-overload]
    try:
        until = time.monotonic() + 60
        while not file.exists() and time.monotonic() < until:
            time.sleep(0.1)
        import json

        address = json.loads(file.read_text())["address"]
        worker = subprocess.Popen([*dask[:2], "distributed.cli.dask_worker", "--nthreads", "1", "--no-dashboard", "--no-nanny", *common], **quiet)  # type: ignore[call-overload]
        try:
            yield address
        finally:
            worker.kill()
            worker.wait()
    finally:
        scheduler.kill()
        scheduler.wait()


def test_an_encrypted_scheduler_serves_who_has_the_key_and_nobody_else(
    encrypted: str, tls: Path, score: Any, undisturbed: Path, differences: Differences, slide: Path, tmp_path: Path
) -> None:
    assert encrypted.startswith("tls://")
    run = score(tmp_path / "run", keep_tiles=True, scheduler=encrypted, tls=tls)
    assert differences(run.folder, undisturbed) == {"run.json"}
    make_tls(tmp_path / "other")
    for wrong in ({"tls": tmp_path / "other"}, {}):
        with pytest.raises((EngineError, UsageError)):
            wk.score([slide], tmp_path / "refused", ["mitosis"], scheduler=encrypted, **wrong)
