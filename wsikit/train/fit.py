"""The training loop of every network here: stages, validation, the best epoch kept, and the same result after a kill as without one.

All that is random in an epoch is drawn from the seed and the epoch's number, so an epoch that was cut off is done again as it was.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from wsikit.errors import ModelError, StoreMismatchError
from wsikit.store.durable import atomic_path, disk_errors, write_atomic
from wsikit.train.optimise import RunningMean, cpu_state, freeze_body, layer_groups, make_optimiser, make_schedule
from wsikit.train.parallel import Group
from wsikit.train.recipe import Recipe, Stage

STATE, LOG = "state.pt", "log.csv"
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Learner(Protocol):
    """What is learnt: a network, the units that it learns from, its loss, and how good it is."""

    net: nn.Module
    head: list[nn.Parameter]
    size: int

    def loss(self, net: nn.Module, rows: Tensor, generator: torch.Generator) -> Tensor:
        """The mean loss of some units, by their numbers int64 (B,)."""
        ...

    def validate(self, group: Group) -> Mapping[str, float]:
        """Figures of ``self.net`` on what is held out: ``score``, higher is better, and any others."""
        ...


@dataclass
class _Progress:
    """Where training is: what is saved after each epoch."""

    stage: int = 0
    epoch: int = 0
    stale: int = 0
    best: float = -math.inf
    best_epoch: int = 0
    kept: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


def fit(
    learner: Learner,
    recipe: Recipe,
    folder: Path,
    key: str,
    group: Group | None = None,
    *,
    seed: int = 0,
    log: Callable[[str], None] = print,
    tensorboard: bool = False,
) -> list[dict[str, Any]]:
    """Train; leaves the weights of the best epoch in ``learner.net``, and returns the figures of each epoch.

    Parameters
    ----------
    folder : where ``state.pt`` is kept after each epoch, and ``log.csv``
    key : digest of all that decides the result; training goes on only where it is the same

    Raises
    ------
    StoreMismatchError
        The folder holds an unfinished training of something else.
    ModelError
        The loss is not a number any more.
    OutputError
        The disk is full or cannot be written.
    """
    return _Run(learner, recipe, folder, key, group or Group(), seed, log, tensorboard).run()


@dataclass
class _Run:
    learner: Learner
    recipe: Recipe
    folder: Path
    key: str
    group: Group
    seed: int
    log: Callable[[str], None]
    tensorboard: bool
    at: _Progress = field(default_factory=_Progress)

    def run(self) -> list[dict[str, Any]]:
        saved = self._load()
        net = self.learner.net
        mean = RunningMean(net, self.recipe.average_decay) if self.recipe.average_decay else None
        if saved:
            net.load_state_dict(saved["net"])
            if mean is not None:
                mean.steps, mean.mean = saved["mean_steps"], {k: v.to(self.group.device) for k, v in saved["mean"].items()}
            self.log(f"going on after epoch {len(self.at.history)}")
        for number in range(self.at.stage, len(self.recipe.stages)):
            self._stage(number, mean, saved if saved and saved["stage"] == number and self.at.epoch else None)
            self.at.stage, self.at.epoch, self.at.stale = number + 1, 0, 0
            net.load_state_dict(self.at.kept)  # a stage goes on from the best of those before it
        return self.at.history

    def _done(self) -> bool:
        return self.recipe.patience is not None and self.at.stale >= self.recipe.patience

    def _stage(self, number: int, mean: RunningMean | None, saved: dict[str, Any] | None) -> None:
        stage, net = self.recipe.stages[number], self.learner.net
        for p in net.parameters():
            p.requires_grad_(True)
        if stage.train == "head":
            freeze_body(net, self.learner.head)
        groups = [self.learner.head] if stage.train == "head" else layer_groups(net, self.learner.head)
        optimiser = make_optimiser(groups, self.recipe.optimiser, stage)
        schedule = make_schedule(optimiser, stage, max(1, len(self._chunks(torch.arange(self.learner.size)))))
        scaler = torch.amp.GradScaler(enabled=self.recipe.precision == "fp16" and self.group.device != "cpu")
        if saved is not None:
            optimiser.load_state_dict(saved["optimiser"])
            schedule.load_state_dict(saved["schedule"])
            scaler.load_state_dict(saved["scaler"])
        wrapped = self.group.wrap(net)
        for epoch in range(self.at.epoch, stage.epochs):
            if self._done():
                break
            began = time.monotonic()
            loss = self._epoch(wrapped, stage, optimiser, schedule, scaler, mean)
            with mean.swapped(net) if mean else contextlib.nullcontext():
                self._judge(number, loss, max(g["lr"] for g in optimiser.param_groups), time.monotonic() - began)
            self.at.stage, self.at.epoch = number, epoch + 1
            self._save(optimiser, schedule, scaler, mean)

    def _chunks(self, order: Tensor) -> list[Tensor]:
        """The units of each step, over all processes; batch norm needs two in each."""
        step = self.recipe.batch * self.recipe.accumulate * self.group.size
        return [c for c in order.split(step) if len(c) >= 2 * self.group.size]

    def _epoch(self, net: nn.Module, stage: Stage, optimiser: Any, schedule: Any, scaler: Any, mean: RunningMean | None) -> float:
        number, group = len(self.at.history), self.group
        shared, own = (torch.Generator().manual_seed(int(np.random.SeedSequence([self.seed, number, k]).generate_state(1)[0])) for k in (0, 1 + group.rank))
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=own)))  # dropout
        net.train()
        if stage.train == "head":
            freeze_body(self.learner.net, self.learner.head)
        total = np.zeros(2)
        for chunk in self._chunks(torch.randperm(self.learner.size, generator=shared)):
            mine = chunk[group.rank :: group.size]
            loss = self._step(net, mine, optimiser, scaler, own)
            if not math.isfinite(loss):
                raise ModelError(f"the loss is {loss} in epoch {number + 1}: steps are too large, or {self.recipe.precision} overflows; lower learning_rate")
            schedule.step()
            if mean is not None:
                mean.update(self.learner.net)
            total += (loss * len(mine), len(mine))
        total = group.total(total)
        return float(total[0] / max(1.0, total[1]))

    def _step(self, net: nn.Module, rows: Tensor, optimiser: Any, scaler: Any, generator: torch.Generator) -> float:
        optimiser.zero_grad()
        parts = rows.tensor_split(-(-len(rows) // self.recipe.batch))
        dtype, total = _DTYPES.get(self.recipe.precision), 0.0
        for i, part in enumerate(parts):
            later = i < len(parts) - 1 and self.group.size > 1
            sync: Any = net.no_sync() if later else contextlib.nullcontext()  # type: ignore[operator]
            with sync:
                with torch.autocast(torch.device(self.group.device).type, dtype, enabled=dtype is not None):
                    loss = self.learner.loss(net, part, generator) * (len(part) / len(rows))
                scaler.scale(loss).backward()
            total += float(loss.detach())
        if self.recipe.clip_norm:
            scaler.unscale_(optimiser)
            nn.utils.clip_grad_norm_(net.parameters(), self.recipe.clip_norm)
        scaler.step(optimiser)
        scaler.update()
        return total

    def _judge(self, number: int, loss: float, rate: float, seconds: float) -> None:
        """Validate, log, and keep the weights when they are the best so far (of equal ones, the later)."""
        self.learner.net.eval()
        found = dict(self.learner.validate(self.group))
        epoch = len(self.at.history) + 1
        self.at.history.append({"epoch": epoch, "stage": number + 1, "loss": loss, "learning_rate": rate, **found, "seconds": round(seconds, 2)})
        figures = ", ".join(f"{k} {v:.3f}" for k, v in found.items() if k != "score")
        self.log(f"epoch {epoch}/{self.recipe.epochs}: loss {loss:.3f}, validation {figures}")
        self.at.stale += 1
        if found["score"] >= self.at.best or not self.at.kept:
            self.at.stale = 0 if found["score"] > self.at.best else self.at.stale
            self.at.best, self.at.best_epoch, self.at.kept = found["score"], epoch, cpu_state(self.learner.net)
        if self._done():
            self.log(f"stopped: no better score in {self.recipe.patience} epochs; the best is epoch {self.at.best_epoch}")

    def _save(self, optimiser: Any, schedule: Any, scaler: Any, mean: RunningMean | None) -> None:
        if self.group.first:
            state = {"key": self.key, "net": cpu_state(self.learner.net), "optimiser": optimiser.state_dict(), "scaler": scaler.state_dict()}
            state |= {"schedule": schedule.state_dict(), **vars(self.at)}
            state |= {"mean": mean.mean, "mean_steps": mean.steps} if mean else {}
            with atomic_path(self.folder / STATE) as tmp:
                torch.save(state, tmp)
            write_log(self.folder / LOG, self.at.history)
            if self.tensorboard:
                write_events(self.folder, self.at.history[-1])
        self.group.wait()

    def _load(self) -> dict[str, Any] | None:
        path = self.folder / STATE
        if not path.exists():
            return None
        with disk_errors(path):
            saved: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        if saved["key"] != self.key:
            raise StoreMismatchError(f"{self.folder}: holds an unfinished training with other slides or options; give the same ones again, or a new folder")
        self.at = _Progress(**{k: saved[k] for k in vars(self.at)})
        return saved


def write_log(path: Path, history: list[dict[str, Any]]) -> None:
    """One row an epoch, as CSV."""
    names = list(history[0])
    rows = [",".join(f"{row[n]:.6g}" if isinstance(row[n], float) else str(row[n]) for n in names) for row in history]
    write_atomic(path, ("\n".join([",".join(names), *rows]) + "\n").encode())


def write_events(folder: Path, row: Mapping[str, Any]) -> None:
    """An epoch's figures for TensorBoard, in the folder that ``tensorboard --logdir`` takes."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for name, value in row.items():
            if name not in ("epoch", "stage"):
                writer.add_scalar(name.replace(" ", "_"), value, row["epoch"])
