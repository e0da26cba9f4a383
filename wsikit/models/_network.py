"""What all networks share: safe weights, fixed batches, one thread, outputs as arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from wsikit.errors import CardError, ModelError, WeightsMismatchError
from wsikit.models._card import Card, check_weights
from wsikit.models._distance import Known


@dataclass(frozen=True)
class Detections:
    """Objects in one image.

    ``position`` float32 (M, 2) x, y px of centres; ``score`` float32 (M,); ``label`` int64 (M,);
    ``size`` float32 (M, 2) width, height px; ``atypical`` float32 (M,), from models that tell: the probability of being atypical.
    """

    position: np.ndarray
    score: np.ndarray
    label: np.ndarray
    size: np.ndarray
    atypical: np.ndarray | None = None


class Network(ABC):
    """A network with its card, on a device."""

    def __init__(self, card: Card, net: nn.Module, device: str = "cpu") -> None:
        self.card = card
        self.batch = card.batch  # tiles of a forward pass, always
        self.device = torch.device(device)
        self.net: nn.Module = net.eval().requires_grad_(False).to(self.device).to(memory_format=torch.channels_last)
        self._mean = torch.tensor(card.scaling.mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(card.scaling.std, device=self.device).view(1, 3, 1, 1)

    @property
    def digest(self) -> str:
        """What makes two models the same."""
        return self.card.digest

    def _scaled(self, images: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) → float32 (B, 3, H, W), channels last."""
        x = images.to(self.device).permute(0, 3, 1, 2).float() / 255.0
        return ((x - self._mean) / self._std).contiguous(memory_format=torch.channels_last)

    def _batches(self, images: np.ndarray | Tensor) -> Iterator[tuple[Tensor, int]]:
        """Scaled batches of always the same size, and how many rows of each are real.

        Kernels are chosen by shape, and different kernels add in a different order: with a fixed shape the
        same tile gives the same bits whichever tiles are beside it.
        """
        tensor = torch.as_tensor(images)
        if tensor.ndim != 4 or tensor.shape[3] != 3 or tensor.dtype != torch.uint8:
            found = f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
            raise ModelError(f"model {self.card.name}: images must be uint8 (B, H, W, 3), not {found}")
        for start in range(0, len(tensor), self.batch):
            part = tensor[start : start + self.batch]
            real = len(part)
            if real < self.batch:
                part = torch.cat([part, part[-1:].expand(self.batch - real, -1, -1, -1)])
            yield self._scaled(part), real

    @abstractmethod
    def predict(self, images: np.ndarray | Tensor) -> Any:
        """What the model says of uint8 (B, H, W, 3) images at the card's mpp: see `wsikit.models.load_model`."""


class TileClassifier(Network):
    """A network that gives each tile the probabilities of classes, and features.

    ``known`` is tissue that it knows by what its ``body`` gives beyond these features, see `wsikit.models._known`; None where its card has no such rules.
    """

    known: Known | None = None

    def __init__(self, card: Card, net: nn.Module, device: str = "cpu") -> None:
        super().__init__(card, net, device)
        if card.task != "classify":
            raise CardError(f"model {card.name}: pipeline '{card.pipeline}' needs task 'classify', the card says '{card.task}'")

    @abstractmethod
    def _forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (B, K) of a scaled batch, and features (B, D) with what its body gives beyond these."""

    def logits(self, batch: Tensor) -> Tensor:
        """Logits (B, K) of a scaled batch, which gradients can be taken of.

        Raises
        ------
        ModelError
            What runs the network knows no gradients.
        """
        raise ModelError(f"model {self.card.name}: what runs it has no gradients")

    @torch.inference_mode()
    def predict(self, images: np.ndarray | Tensor) -> dict[str, np.ndarray]:
        """``probability`` float32 (B, K), rows sum to 1, and ``feature`` float32 (B, D); from models that tell, ``outlying`` uint8 (B,): like nothing known.

        Raises
        ------
        ModelError
            The images are not uint8 (B, H, W, 3).
        """
        probability, feature = [torch.empty(0, len(self.card.classes))], []
        for batch, real in self._batches(images):
            p, f = self._forward(batch)
            probability.append(p[:real].float().cpu())
            feature.append(f[:real].float().cpu())
        return {"probability": torch.cat(probability).numpy()} | self._split(torch.cat(feature) if feature else torch.empty(0, self.feature_size))

    def _split(self, feature: Tensor) -> dict[str, np.ndarray]:
        """The columns of what the body gave, float32 (B, D and more)."""
        own, beyond = feature[:, : self.feature_size], feature[:, self.feature_size :]
        told = {} if self.known is None else {"outlying": self.known.outlying(beyond.cpu().numpy())}
        return {"feature": np.ascontiguousarray(own.cpu().numpy())} | told

    @property
    def body(self) -> nn.Module:
        """The part of the network that gives features."""
        return self.net

    @property
    @abstractmethod
    def feature_size(self) -> int:
        """Features of a tile."""

    @property
    def last_layer(self) -> tuple[np.ndarray, np.ndarray] | None:
        """What turns features into logits: weight float32 (K, D) and bias (K,); None where it is not known."""
        return None


class Classifier(TileClassifier):
    """A network whose last layer, ``head`` (dotted where it lies deeper), is a linear one over features."""

    def __init__(self, card: Card, net: nn.Module, head: str, device: str = "cpu") -> None:
        super().__init__(card, net, device)
        above, _, name = head.rpartition(".")
        parent = net.get_submodule(above)
        self._head: Any = getattr(parent, name)
        setattr(parent, name, nn.Identity())

    def features(self, batch: Tensor) -> Tensor:
        """Features (B, D) of a scaled batch, their mean over the card's views. The last layer is linear, so the logits are then the mean too."""
        views = [self.net(seen) for seen in views_of(batch, self.card.views)]
        return views[0] if len(views) == 1 else torch.stack(views).mean(0)

    def _forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        f = self.features(batch)
        return torch.softmax(self._head(f[:, : self.feature_size].contiguous()).float(), 1), f

    def logits(self, batch: Tensor) -> Tensor:
        """Logits (B, K) of a scaled batch as it is, whatever the views, so that what explains them lies where it is in the tile."""
        found: Tensor = self._head(self.net(batch)[:, : self.feature_size])
        return found

    @property
    def feature_size(self) -> int:
        """Features of a tile: what the last layer takes."""
        return int(self._head.in_features)

    @property
    def last_layer(self) -> tuple[np.ndarray, np.ndarray] | None:
        """What turns features into logits: weight float32 (K, D) and bias (K,); None where it is not one linear layer."""
        if not isinstance(self._head, nn.Linear):
            return None
        named = dict(self._head.named_parameters())  # some have no bias
        weight = named["weight"].float().cpu().numpy()
        return weight, named["bias"].float().cpu().numpy() if "bias" in named else np.zeros(len(weight), np.float32)


def views_of(batch: Tensor, count: int) -> Iterator[Tensor]:
    """The first ``count`` of the eight positions of square tiles (B, C, S, S): turned by quarters, then mirrored and turned.

    >>> [v.flatten().tolist() for v in views_of(torch.tensor([[[[1, 2], [3, 4]]]]), 4)]
    [[1, 2, 3, 4], [2, 4, 1, 3], [4, 3, 2, 1], [3, 1, 4, 2]]
    """
    for position in range(count):
        seen = batch.flip(3) if position >= 4 else batch
        if position % 2:
            seen = seen.transpose(2, 3)  # with a mirror image a quarter turn; torch.rot90 has no counterpart in ONNX
        mirrored = ((), (2,), (2, 3), (3,))[position % 4]
        yield (seen.flip(mirrored) if mirrored else seen).contiguous(memory_format=torch.channels_last)


def load_weights(net: nn.Module, card: Card, folder: Path) -> nn.Module:
    """Put a model folder's weights into a network, by name, all of them.

    Raises
    ------
    WeightsMismatchError
        The file's digest, format or tensors are not what card and architecture say.
    """
    path = check_weights(card, folder)
    try:
        net.load_state_dict(load_file(path), strict=True)
    except (SafetensorError, RuntimeError) as e:
        reason = str(e).strip().splitlines()
        raise WeightsMismatchError(
            f"{path}: these weights do not fit architecture {card.architecture}: {' '.join(reason[1:2] or reason[:1]).strip()[:200]}"
        ) from e
    return net
