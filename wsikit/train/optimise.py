"""Optimisers, learning rates by layer and step, and running means of weights: what a recipe's numbers stand for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from wsikit.train.recipe import Optimiser, Stage

_GROUPS = 3  # fastai v1 splits a network into two halves of its body, and the head
_WARM_DIVISOR, _END_DIVISOR, _WARM_SHARE = 25.0, 1e4, 0.3  # fastai v1's one-cycle


def make_optimiser(groups: list[list[nn.Parameter]], how: Optimiser, stage: Stage) -> torch.optim.Optimizer:
    """The optimiser of a stage. ``groups`` go from the first layers to the last; see `layer_groups`."""
    rates = spread(stage.lowest_rate or stage.learning_rate, stage.learning_rate, len(groups))
    parts = [{"params": g, "lr": rate} for g, rate in zip(groups, rates, strict=True) if g]
    if how.name == "adamw":
        return torch.optim.AdamW(parts, betas=how.betas, eps=how.epsilon, weight_decay=stage.weight_decay)
    from timm.optim import RMSpropTF

    return RMSpropTF(parts, alpha=how.smoothing, momentum=how.momentum, eps=how.epsilon, weight_decay=stage.weight_decay)


def make_schedule(optimiser: torch.optim.Optimizer, stage: Stage, steps_per_epoch: int) -> LRScheduler:
    """How the learning rates change, one call per step."""
    steps = stage.epochs * steps_per_epoch
    if stage.schedule == "one-cycle":
        rates = [g["lr"] for g in optimiser.param_groups]
        has_momentum = isinstance(optimiser, torch.optim.AdamW)
        return OneCycleLR(
            optimiser, rates, total_steps=steps, pct_start=_WARM_SHARE, div_factor=_WARM_DIVISOR, final_div_factor=_END_DIVISOR, cycle_momentum=has_momentum
        )
    if stage.schedule == "cosine":
        return CosineAnnealingLR(optimiser, steps)
    if stage.schedule == "step":
        return LambdaLR(optimiser, lambda step: stage.decay ** (step // (stage.decay_every * steps_per_epoch)))
    return LambdaLR(optimiser, lambda _: 1.0)


def spread(low: float, high: float, count: int) -> list[float]:
    """``count`` rates from low to high, by a constant factor.

    >>> [round(r, 6) for r in spread(1e-4, 1e-2, 3)]
    [0.0001, 0.001, 0.01]
    """
    return [high * (low / high) ** ((count - 1 - i) / max(1, count - 1)) for i in range(count)]


def layer_groups(net: nn.Module, head: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """The parameters in three groups: the first and the second half of the body by number of weights, and the head."""
    last = {id(p) for p in head}
    body = [p for p in net.parameters() if id(p) not in last]
    whole, seen = sum(p.numel() for p in body), 0
    groups: list[list[nn.Parameter]] = [[] for _ in range(_GROUPS - 1)]
    for p in body:
        groups[min(_GROUPS - 2, seen * (_GROUPS - 1) // max(1, whole))].append(p)
        seen += p.numel()
    return [*groups, head]


def freeze_body(net: nn.Module, head: list[nn.Parameter]) -> None:
    """Only the head learns, and batch norms of the body keep their statistics. Call it after each ``net.train()``."""
    last = {id(p) for p in head}
    for p in net.parameters():
        p.requires_grad_(id(p) in last)
    for module in net.modules():
        mine = list(module.parameters(recurse=False))
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and mine and not any(id(p) in last for p in mine):
            module.eval()


class RunningMean:
    """A running mean of weights: ``mean ← d·mean + (1 − d)·weights``, with d = min(decay, (1 + n) / (10 + n)) after n steps, as TensorFlow has it."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.mean = {k: v.detach().clone() for k, v in net.state_dict().items()}

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """After a step."""
        d = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for k, v in net.state_dict().items():
            self.mean[k] = d * self.mean[k] + (1 - d) * v if v.is_floating_point() else v.clone()

    @contextlib.contextmanager
    def swapped(self, net: nn.Module) -> Iterator[None]:
        """The mean in the network's place, until the block ends."""
        own = {k: v.clone() for k, v in net.state_dict().items()}
        net.load_state_dict(self.mean)
        yield
        net.load_state_dict(own)


def cpu_state(net: nn.Module) -> dict[str, Tensor]:
    """A copy of a network's weights."""
    return {k: v.detach().cpu().clone() for k, v in net.state_dict().items()}
