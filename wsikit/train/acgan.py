"""Synthetic tiles of a class: a generator that is told the class, against a network that tells real from synthetic, and the classes apart.

ACGAN, Odena, Olah and Shlens, ICML 2017: D learns L_S + L_C (real or synthetic, and the class, of both kinds), G learns L_C − L_S, in the non-saturating form
of Goodfellow et al. 2014. Spectral norm in D (Miyato et al., ICLR 2018), nearest-neighbour enlargement in G, widths and steps are our defaults.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from wsikit.errors import ModelError, UsageError
from wsikit.train.augment import turn_and_flip

SIDES = (16, 32, 64, 128)  # px
LATENT, WIDTH, BATCH = 100, 32, 64
RATE, BETAS = 2e-4, (0.5, 0.999)
_FIRST, _WIDEST = 4, 8  # px of the first maps; times WIDTH channels there at most


class Generator(nn.Module):
    """Noise (B, LATENT) and classes int64 (B,) → tiles float32 (B, 3, side, side), −1 to 1.

    Raises
    ------
    UsageError
        There is no such side.
    """

    def __init__(self, classes: int, side: int, width: int = WIDTH) -> None:
        super().__init__()
        channels = _channels(side, width)[::-1]
        self.side = side
        self.embed = nn.Embedding(classes, LATENT)
        self.first = nn.Linear(LATENT, channels[0] * _FIRST**2)
        layers: list[nn.Module] = [nn.BatchNorm2d(channels[0]), nn.ReLU()]
        for a, b in zip(channels, [*channels[1:], width], strict=True):
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        self.rest = nn.Sequential(*layers, nn.Conv2d(width, 3, 3, padding=1), nn.Tanh())

    def forward(self, noise: Tensor, label: Tensor) -> Tensor:
        """Tiles."""
        h = self.first(noise * self.embed(label))
        return torch.as_tensor(self.rest(h.view(len(h), -1, _FIRST, _FIRST)))


class Discriminator(nn.Module):
    """Tiles (B, 3, side, side) → logits of being real (B,), and of the classes (B, K)."""

    def __init__(self, classes: int, side: int, width: int = WIDTH) -> None:
        super().__init__()
        channels = _channels(side, width)
        layers: list[nn.Module] = []
        for a, b in zip([3, *channels], channels, strict=False):
            layers += [spectral_norm(nn.Conv2d(a, b, 4, 2, 1)), nn.LeakyReLU(0.2)]
        self.classes = classes
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.25))
        self.source, self.label = (spectral_norm(nn.Linear(channels[-1] * _FIRST**2, n)) for n in (1, classes))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the source, and of the classes."""
        h = self.body(images)
        return self.source(h)[:, 0], self.label(h)


def check_side(side: int) -> None:
    """It can make tiles of this side.

    Raises
    ------
    UsageError
        It cannot: enlarged ones would be known by their blur.
    """
    if side not in SIDES:
        raise UsageError(f"ACGAN makes tiles of {', '.join(map(str, SIDES))} px, and these have {side}; give --tile 64 or --tile 128")


def _channels(side: int, width: int) -> list[int]:
    """Of the maps of each halving, from the tile down to 4 px."""
    check_side(side)
    return [width * min(_WIDEST, 2**i) for i in range(int(math.log2(side // _FIRST)))]


def train_acgan(
    images: np.ndarray,
    label: np.ndarray,
    classes: int,
    epochs: int,
    *,
    turns: bool = True,
    seed: int = 0,
    device: str = "cpu",
    width: int = WIDTH,
    log: Callable[[str], None] = print,
) -> Generator:
    """Train on tiles, every class drawn as often as any other; returns the generator. The same seed gives the same one.

    Parameters
    ----------
    images : uint8 (N, side, side, 3), perhaps on the disk
    label : int64 (N,), each of ``classes`` occurs
    epochs : an epoch draws as many tiles as there are
    turns : show real tiles turned by quarters and mirrored

    Raises
    ------
    UsageError
        The tiles have a side that it cannot make.
    ModelError
        The loss is not a number any more.
    """
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        g, d = Generator(classes, images.shape[1], width).to(device), Discriminator(classes, images.shape[1], width).to(device)
        steps = [torch.optim.Adam(net.parameters(), RATE, BETAS) for net in (g, d)]
        rows = [torch.from_numpy(np.flatnonzero(label == k)) for k in range(classes)]
        for epoch in range(epochs):
            total = np.zeros(2)
            for _ in range(max(1, len(label) // BATCH)):
                real_label = torch.randint(classes, (min(BATCH, len(label)),), generator=draw)
                chosen = torch.stack([rows[k][int(torch.randint(len(rows[k]), (1,), generator=draw))] for k in real_label.tolist()])
                real = torch.from_numpy(np.ascontiguousarray(images[chosen.numpy()]))
                real = turn_and_flip(real, draw) if turns else real
                total += _step(g, d, steps, _as_input(real).to(device), real_label.to(device), draw)
            if not np.isfinite(total).all():
                raise ModelError(f"ACGAN: the loss is no number in epoch {epoch + 1}; train without --acgan")
            told = total / max(1, len(label) // BATCH)
            log(f"ACGAN epoch {epoch + 1}/{epochs}: loss of the generator {told[0]:.3f}, of its critic {told[1]:.3f}")
    return g.eval()


def _step(g: Generator, d: Discriminator, steps: list[torch.optim.Adam], real: Tensor, label: Tensor, draw: torch.Generator) -> tuple[float, float]:
    """A step of the critic, then one of the generator; their losses."""
    n, device = len(real), real.device
    noise = torch.randn(n, LATENT, generator=draw).to(device)
    wanted = torch.randint(d.classes, (n,), generator=draw).to(device)
    fake = g(noise, wanted)
    ones = torch.ones(n, device=device)
    (source, said), (fake_source, fake_said) = d(real), d(fake.detach())
    critic = functional.binary_cross_entropy_with_logits(source, ones) + functional.binary_cross_entropy_with_logits(fake_source, 0 * ones)
    critic = critic + functional.cross_entropy(said, label) + functional.cross_entropy(fake_said, wanted)
    steps[1].zero_grad()
    critic.backward()
    steps[1].step()
    source, said = d(fake)
    loss = functional.binary_cross_entropy_with_logits(source, ones) + functional.cross_entropy(said, wanted)
    steps[0].zero_grad()
    loss.backward()
    steps[0].step()
    return float(loss.detach()), float(critic.detach())


def _as_input(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.inference_mode()
def synthesise(generator: Generator, label: np.ndarray, seed: int = 0) -> np.ndarray:
    """A tile of each of these classes, int64 (M,): uint8 (M, side, side, 3)."""
    draw, device = torch.Generator().manual_seed(seed), next(generator.parameters()).device
    out = np.empty((len(label), generator.side, generator.side, 3), np.uint8)
    for start in range(0, len(label), BATCH):
        some = torch.from_numpy(label[start : start + BATCH])
        made = generator(torch.randn(len(some), LATENT, generator=draw).to(device), some.to(device))
        out[start : start + BATCH] = ((made + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return out
