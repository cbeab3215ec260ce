"""What a mixer is: it takes a batch through the head, and may make new clips of it on the way."""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor


class Pooling(Protocol):
    """What a mixer needs of a head: pooling in one or several views, and scoring what was pooled."""

    @property
    def branches(self) -> int:
        """Aggregators that stand side by side; each can be given views of its own."""
        ...

    def aggregate(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(B, T, D)``, mask ``(B, T)``, ``(V, B, T)`` or ``(A, V, B, T)`` -> float32 ``(B, E)`` or ``(V, B, E)``."""
        ...

    def classify(self, clips: Tensor) -> Tensor:
        """``(B, E)`` -> ``(B, C)``."""
        ...


@dataclass(frozen=True)
class Batch:
    """Clips as they were drawn."""

    frames: Tensor  #: ``(B, T, D)``
    mask: Tensor  #: ``(B, T)`` bool, true where a frame exists.
    targets: Tensor  #: ``(B, C)`` multi-hot.

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def device(self) -> torch.device:
        """Where the clips are; what is drawn at random is drawn on the CPU, alike for all devices, and moved there."""
        return self.frames.device


@dataclass(frozen=True)
class Known:
    """What a mixer is told beside the batch."""

    counts: Tensor  #: ``(C,)`` real training clips.
    running_ap: Tensor  #: ``(C,)`` average precision on the training clips of the epoch before; zeros at first.
    generator: torch.Generator  #: where all draws come from.
    memory: dict[str, Tensor] = field(default_factory=dict)  #: its own from batch to batch; part of the checkpoint.


class Mixer(Protocol):
    """Logits and targets of a batch, ``(B, C)`` each; the targets are soft where clips were mixed."""

    @property
    def needs_running_ap(self) -> bool:
        """Whether the training loop has to keep the running average precision."""
        ...

    def check(self, head: Pooling) -> None:
        """Refuse a head that it cannot train, with a ``LongreelError``; before anything is trained."""
        ...

    def __call__(self, head: Pooling, batch: Batch, known: Known) -> tuple[Tensor, Tensor]: ...


class AnyHead:
    """A mixer that goes with every head."""

    def check(self, head: Pooling) -> None:
        """Every head will do."""


@dataclass(frozen=True)
class NoMixing(AnyHead):
    """The batch as it is."""

    needs_running_ap = False

    def __call__(self, head: Pooling, batch: Batch, known: Known) -> tuple[Tensor, Tensor]:
        return head.classify(head.aggregate(batch.frames, batch.mask)), batch.targets


def mean_over_labels(values: Tensor, targets: Tensor) -> Tensor:
    """Mean of a figure of each class ``(C,)`` over the labels of each clip ``(B, C)`` -> ``(B,)``.

    Written out, as a product of matrices would be rounded where training is in half precision.
    """
    return (targets * values).sum(dim=1) / targets.sum(dim=1)


def draw_beta(alpha: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draws from Beta(alpha, alpha), float32: uniform ones through the inverse of its distribution function."""
    from scipy.special import betaincinv

    uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
    return torch.from_numpy(betaincinv(alpha, alpha, uniform.numpy())).float()
