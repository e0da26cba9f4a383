"""One process, or several that ``torchrun`` started: each sees its part of every batch, and all have the same weights."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from wsikit.errors import UsageError


@dataclass(frozen=True)
class Group:
    """Which of how many processes this is, and its device."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        """Whether this process writes and logs."""
        return self.rank == 0

    def wrap(self, net: nn.Module) -> nn.Module:
        """The network, its gradients averaged over all processes."""
        return DistributedDataParallel(net) if self.size > 1 else net

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            distributed.barrier()

    def total(self, rows: np.ndarray) -> np.ndarray:
        """The sum over all processes of an array, such as rows that each has filled in its own part of."""
        if self.size == 1:
            return rows
        tensor = torch.from_numpy(np.ascontiguousarray(rows)).to(self.device)
        distributed.all_reduce(tensor)
        return np.asarray(tensor.cpu().numpy())


@contextlib.contextmanager
def join_group(device: str) -> Iterator[Group]:
    """A process among those of ``torchrun``, until the block ends; the only one where there is no torchrun.

    With ``cuda`` each process takes the GPU of its local rank.

    Raises
    ------
    UsageError
        The processes do not find each other.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group(device=device)
        return
    rank, on_gpu = int(os.environ["RANK"]), device.startswith("cuda")
    options: dict[str, Any] = {}
    if on_gpu:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
        options["device_id"] = torch.device(device)
    try:
        distributed.init_process_group("nccl" if on_gpu else "gloo", **options)
    except (RuntimeError, ValueError) as e:
        raise UsageError(f"the {size} processes of torchrun do not find each other: {str(e).splitlines()[0][:200]}") from e
    try:
        yield Group(rank, size, device)
    finally:
        distributed.destroy_process_group()
