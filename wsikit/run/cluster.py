"""Workers that a batch system starts: SLURM, PBS, LSF or SGE through dask-jobqueue, Kubernetes through dask-kubernetes (extra ``cluster``).

A TOML file says which, how many and what the batch system is to be asked for; see ``pipelines/archive_slurm.toml``.
"""

from __future__ import annotations

import contextlib
import importlib
import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from wsikit.errors import EngineError, UsageError, how_to_install
from wsikit.run.settings import read_toml
from wsikit.run.tls import tls_files

_CLASSES = {
    "slurm": ("dask_jobqueue", "SLURMCluster"),
    "pbs": ("dask_jobqueue", "PBSCluster"),
    "lsf": ("dask_jobqueue", "LSFCluster"),
    "sge": ("dask_jobqueue", "SGECluster"),
    "kubernetes": ("dask_kubernetes.operator", "KubeCluster"),
}


class ClusterConfig(BaseModel):
    """A cluster as its TOML file describes it.

    Attributes
    ----------
    kind : slurm, pbs, lsf, sge or kubernetes
    least, most : worker processes; their number follows the work between these
    host, interface : what the scheduler listens on, here, so that the jobs reach it
    tls : the folder of ``wsikit cluster init``; needed unless ``host`` is this machine's loopback
    tasks : blocks that a worker has under way; 2 lets it decode one while another is on its GPU
    options : for the class of dask-jobqueue or dask-kubernetes, as its documentation has them
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["slurm", "pbs", "lsf", "sge", "kubernetes"]
    least: int = Field(0, ge=0)
    most: int = Field(1, ge=1)
    host: str | None = None
    interface: str | None = None
    tls: Path | None = None
    tasks: int = Field(1, ge=1, le=2)
    options: dict[str, Any] = {}


def read_cluster(path: Path) -> ClusterConfig:
    """The cluster that a TOML file describes.

    Raises
    ------
    UsageError
        It is no TOML, or a key is wrong; the message names it.
    """
    config = read_toml(path, ClusterConfig, "pipelines/archive_slurm.toml")
    if config.most < config.least:
        raise UsageError(f"{path}: most: {config.most} workers are fewer than the least, {config.least}")
    if config.tls is not None:
        config = config.model_copy(update={"tls": (path.parent / config.tls.expanduser()).resolve()})
    if config.kind == "kubernetes":
        _require_closed_pods(config, path)
    elif config.tls is None and not _is_loopback(config.host):
        raise UsageError(
            f"{path}: tls: without it the scheduler would listen beyond this machine in the open; run wsikit cluster init DIR and name that folder"
        )
    return config


def _require_closed_pods(config: ClusterConfig, path: Path) -> None:
    """Pods of an image with wsikit, whose scheduler only the cluster's own network sees: dask-kubernetes has no keys to give."""
    if "image" not in config.options:
        raise UsageError(f"{path}: options.image: name an image with wsikit in it (containers/Dockerfile); dask's own has none")
    if (service := config.options.get("scheduler_service_type", "ClusterIP")) != "ClusterIP":
        raise UsageError(f"{path}: options.scheduler_service_type: {service} would open the scheduler beyond the cluster without keys; leave it at ClusterIP")


def _is_loopback(host: str | None) -> bool:
    try:
        return host is not None and ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextlib.contextmanager
def start_cluster(config: ClusterConfig, environment: dict[str, str]) -> Iterator[Any]:
    """A dask cluster whose workers the batch system starts as there is work, and which ends with the run.

    Raises
    ------
    EngineError
        The library is not installed, or the batch system refuses.
    """
    module, name = _CLASSES[config.kind]
    try:
        made = getattr(importlib.import_module(module), name)
    except ImportError as e:
        raise EngineError(f"{module} is not installed; {how_to_install('cluster')}") from e
    try:
        cluster = made(**(_kubernetes(config, environment) if config.kind == "kubernetes" else _jobqueue(config, environment)))
    except Exception as e:  # each library raises its own
        raise EngineError(f"no {config.kind} cluster ({e}); check the options of the cluster's file") from e
    try:
        cluster.adapt(minimum=config.least, maximum=config.most)
        yield cluster
    finally:
        cluster.close()


def _jobqueue(config: ClusterConfig, environment: dict[str, str]) -> dict[str, Any]:
    """Options of a dask-jobqueue class: ours beside those of the file."""
    listen = {k: v for k, v in (("host", config.host), ("interface", config.interface)) if v}
    options = {"processes": 1, **config.options}
    threads = max(1, int(options.get("cores", 1)) // int(options["processes"]))
    exports = [f"export {k}={v}" for k, v in {**environment, "WSIKIT_THREADS": str(threads)}.items()]
    # the last --nthreads holds: the cores are for the threads of one block
    extra = ["--nthreads", str(config.tasks), "--no-dashboard", "--preload", "wsikit.run.engine"]
    options |= {
        "job_script_prologue": [*exports, *options.get("job_script_prologue", [])],
        "worker_extra_args": [*options.get("worker_extra_args", []), *extra],
        "scheduler_options": {"dashboard": False, "dashboard_address": "127.0.0.1:0", **listen, **options.get("scheduler_options", {})},
    }
    if config.tls is not None:
        from distributed.security import Security

        options |= {"protocol": "tls://", "security": Security(**tls_files(config.tls), require_encryption=True)}
    return options


def _kubernetes(config: ClusterConfig, environment: dict[str, str]) -> dict[str, Any]:
    """Options of dask-kubernetes' class: pods of the image that the file names, each a worker as elsewhere."""
    cores = config.options.get("resources", {}).get("limits", {}).get("cpu", 1)
    env = {**environment, "WSIKIT_THREADS": str(max(1, int(float(cores)))), **config.options.get("env", {})}
    command = ["dask", "worker", "--nthreads", str(config.tasks), "--preload", "wsikit.run.engine"]
    return {"name": "wsikit", "n_workers": config.least, "worker_command": command, **config.options, "env": env}
