"""Survival networks: DeepSurv-like, discrete hazards, and attention over bags of tiles; small, seeded, stopped early on held-out patients."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from wsikit.survival.follow_up import FollowUp

HIDDEN = (32, 32)
DROPOUT = 0.2
RATE = 3e-3
DECAY = 1e-3
EPOCHS = 300
PATIENCE = 20
BINS = 10
TILES_PER_BAG = 512

Tensors = dict[str, np.ndarray]
Net = TypeVar("Net", bound=nn.Module)


def cox_loss(log_risk: Tensor, time: Tensor, event: Tensor) -> Tensor:
    """Minus the mean partial log likelihood over events, Efron's ties: scalar.

    Parameters
    ----------
    log_risk, time : float (n,)
    event : bool (n,), at least one True
    """
    order = torch.argsort(time, descending=True, stable=True)
    risk, time, event = log_risk[order], time[order], event[order]
    last = torch.searchsorted(-time, -time, right=True) - 1  # everybody at risk at a time comes up to here
    at_risk = torch.logcumsumexp(risk, 0)[last]
    times, which = torch.unique(time[event], return_inverse=True)
    deaths = torch.bincount(which, minlength=len(times))
    starts = torch.cumsum(deaths, 0) - deaths
    by_time = torch.argsort(which, stable=True)
    rank = torch.empty_like(which)
    rank[by_time] = torch.arange(len(which)) - starts[which[by_time]]
    share = rank / deaths[which]  # Efron: of the tied, a growing share has left
    tied = torch.zeros(len(times), dtype=risk.dtype).scatter_add(0, which, torch.exp(risk[event] - at_risk[event]))[which]
    return -(risk[event] - at_risk[event] - torch.log(1 - share * tied)).mean()


def hazard_bins(follow: FollowUp, n: int = BINS) -> np.ndarray:
    """Ends of the intervals: quantiles of the times of events; float64 (K,), K at most n."""
    return np.unique(np.quantile(follow.time_months[follow.event], np.linspace(0, 1, n + 1)[1:]))


def hazard_loss(logits: Tensor, bin_: Tensor, event: Tensor) -> Tensor:
    """Minus the mean log likelihood of discrete hazards (Brown 1975; Gensheimer & Narasimhan 2019): scalar.

    Parameters
    ----------
    logits : float (n, K)
    bin_ : int64 (n,), how many intervals were survived whole; of an event, the one that it was in
    event : bool (n,)
    """
    k = torch.arange(logits.shape[1])[None]
    survived = (nn.functional.logsigmoid(-logits) * (k < bin_[:, None])).sum(1)
    died = nn.functional.logsigmoid(logits).gather(1, bin_.clamp(max=logits.shape[1] - 1)[:, None])[:, 0]
    return -(survived + torch.where(event, died, 0.0)).mean()


def bins_of(follow: FollowUp, edges: np.ndarray) -> np.ndarray:
    """For `hazard_loss`: the interval of each event; of others, how many were survived (at least half of the last counts as survived)."""
    starts = np.concatenate([[0.0], edges[:-1]])
    event = np.minimum(np.searchsorted(edges, follow.time_months, side="left"), len(edges) - 1)
    censored = np.searchsorted((starts + edges) / 2, follow.time_months, side="right")
    return np.where(follow.event, event, censored).astype(np.int64)


class Perceptron(nn.Module):
    """Linear, batch norm, ReLU, dropout, …; the last layer without bias where ``bias`` is False."""

    def __init__(self, n_in: int, n_out: int, *, bias: bool) -> None:
        super().__init__()
        sizes = [n_in, *HIDDEN]
        blocks = [[nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU(), nn.Dropout(DROPOUT)] for a, b in itertools.pairwise(sizes)]
        self.layers = nn.Sequential(*(layer for block in blocks for layer in block), nn.Linear(sizes[-1], n_out, bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        """(n, n_in) → (n, n_out)."""
        out: Tensor = self.layers(x)
        return out

    def tensors(self) -> Tensors:
        """For `wsikit.survival.forward.mlp`: batch norm folded into the layer before it."""
        out: Tensors = {}
        layers, number = list(self.layers), 0
        for i, layer in enumerate(layers):
            if not isinstance(layer, nn.Linear):
                continue
            weight, bias = _array(layer.weight), np.zeros(layer.out_features) if layer.bias is None else _array(layer.bias)  # type: ignore[redundant-expr]
            after = layers[i + 1] if i + 1 < len(layers) else None
            if isinstance(after, nn.BatchNorm1d):
                mean, variance = _array(after.running_mean), _array(after.running_var)
                scale = _array(after.weight) / np.sqrt(variance + after.eps)
                weight, bias = weight * scale[:, None], (bias - mean) * scale + _array(after.bias)
            out |= {f"{number}.weight": weight, f"{number}.bias": bias}
            number += 1
        return out


def _array(tensor: Tensor | None) -> np.ndarray:
    assert tensor is not None
    return np.asarray(tensor.detach().double().numpy())


class GatedAttention(nn.Module):
    """Project, gated attention, sum, head: the log risk of each bag of tiles."""

    def __init__(self, n_in: int, width: int = 32, gate: int = 16) -> None:
        super().__init__()
        self.project, self.drop = nn.Linear(n_in, width), nn.Dropout(DROPOUT)
        self.v, self.u = nn.Linear(width, gate), nn.Linear(width, gate)
        self.w, self.head = nn.Linear(gate, 1, bias=False), nn.Linear(width, 1, bias=False)

    def forward(self, tiles: Tensor, bag: Tensor, n: int) -> Tensor:
        """Tiles (N, D), the bag of each (N,), how many bags → (n,)."""
        h = self.drop(torch.relu(self.project(tiles)))
        logit = self.w(torch.tanh(self.v(h)) * torch.sigmoid(self.u(h)))[:, 0]
        top = torch.full((n,), -torch.inf).scatter_reduce(0, bag, logit, "amax")
        a = torch.exp(logit - top[bag])
        score = self.head(h)[:, 0]
        zero = torch.zeros(n)
        return zero.scatter_add(0, bag, a * score) / zero.scatter_add(0, bag, a)

    def tensors(self, mean: np.ndarray, sd: np.ndarray) -> Tensors:
        """For `wsikit.survival.forward.attention`."""
        return {k: v.detach().double().numpy() for k, v in self.state_dict().items()} | {"mean": mean, "sd": sd}


def fit_deepsurv(x: np.ndarray, follow: FollowUp, held: np.ndarray, seed: int) -> Tensors:
    """A network of the log risk (Katzman et al. 2018), stopped at the best partial likelihood of the ``held`` patients (bool (n,))."""
    return _fit_rows(x, follow, held, seed, 1, lambda out, time, event, _: cox_loss(out[:, 0], time, event))


def fit_discrete(x: np.ndarray, follow: FollowUp, held: np.ndarray, seed: int, edges: np.ndarray) -> Tensors:
    """A network of the hazards of intervals that end at ``edges``; one logit each."""
    return _fit_rows(x, follow, held, seed, len(edges), lambda out, _, event, bin_: hazard_loss(out, bin_, event), bins_of(follow, edges))


def _fit_rows(x: np.ndarray, follow: FollowUp, held: np.ndarray, seed: int, n_out: int, loss: Callable[..., Tensor], bins: np.ndarray | None = None) -> Tensors:
    inputs = torch.from_numpy(x).float()
    time, event, bin_ = _tensor(follow.time_months), _tensor(follow.event), _tensor(np.zeros(len(x), np.int64) if bins is None else bins)
    train, val = torch.from_numpy(np.flatnonzero(~held)), torch.from_numpy(np.flatnonzero(held))
    with _seeded(seed):
        net = Perceptron(x.shape[1], n_out, bias=n_out > 1)
        best = _early(
            net,
            lambda: loss(net(inputs[train]), time[train], event[train], bin_[train]),
            lambda: loss(net(inputs[val]), time[val], event[val], bin_[val]),
        )
    best.eval()
    return best.tensors()


def fit_attention(bags: Sequence[np.ndarray], follow: FollowUp, held: np.ndarray, seed: int) -> Tensors:
    """Gated attention over tile features (N_i, D) of each bag, with the Cox loss over all bags at once: at most 512 tiles a bag and step, drawn anew."""
    inside = np.flatnonzero(~held).tolist()
    rng = np.random.default_rng(seed)
    sample = np.concatenate([_drawn(bags[i], rng, 64) for i in inside]).astype(np.float64)
    mean, sd = sample.mean(0), sample.std(0) + 1e-6
    scaled = [((bag - mean) / sd).astype(np.float32) for bag in bags]
    time, event = _tensor(follow.time_months), _tensor(follow.event)

    def loss(rows: Iterable[int], *, drawn: bool) -> Tensor:
        chosen = list(rows)
        tiles = [_drawn(scaled[i], rng, TILES_PER_BAG) if drawn else scaled[i] for i in chosen]
        bag = torch.from_numpy(np.repeat(np.arange(len(chosen)), [len(t) for t in tiles]))
        return cox_loss(net(torch.from_numpy(np.concatenate(tiles)), bag, len(chosen)), time[chosen], event[chosen])

    with _seeded(seed):
        net = GatedAttention(bags[0].shape[1])
        best = _early(net, lambda: loss(inside, drawn=True), lambda: loss(np.flatnonzero(held).tolist(), drawn=False))
    return best.tensors(mean, sd)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random numbers of one's own, and one thread: small matrices are faster so, and sums come in one order."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))


def _drawn(tiles: np.ndarray, rng: np.random.Generator, most: int) -> np.ndarray:
    return tiles if len(tiles) <= most else tiles[rng.choice(len(tiles), most, replace=False)]


def _early(net: Net, train_loss: Callable[[], Tensor], val_loss: Callable[[], Tensor]) -> Net:
    """The net as it was at its lowest validation loss; training ends when that has not fallen for a while."""
    optimiser = torch.optim.AdamW(net.parameters(), RATE, weight_decay=DECAY)
    best, kept, since = float("inf"), copy.deepcopy(net.state_dict()), 0
    for _ in range(EPOCHS):
        net.train()
        optimiser.zero_grad()
        train_loss().backward()
        optimiser.step()
        net.eval()
        with torch.no_grad():
            now = float(val_loss())
        if now < best - 1e-5:
            best, kept, since = now, copy.deepcopy(net.state_dict()), 0
        else:
            since += 1
        if since >= PATIENCE:
            break
    net.load_state_dict(kept)
    return net
