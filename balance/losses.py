"""Losses that know how many real training clips each class has. Each returns one value a clip; who trains averages."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F


class Loss(Protocol):
    """Per-clip loss.

    Shape:
        - logits: ``(B, C)``.
        - target: ``(B, C)`` in [0, 1]: multi-hot, or soft after mixing or smoothing.
        - counts: ``(C,)`` real training clips of each class; generated clips never count.
        - output: ``(B,)``.
    """

    @property
    def needs_prior(self) -> bool:
        """Whether a class without real training clips makes it undefined."""
        ...

    def __call__(self, logits: Tensor, target: Tensor, counts: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class SoftCrossEntropy:
    """Softmax cross-entropy on ``logits + tau * log(prior)`` for hard, multi-hot or soft targets.

    ``tau=0`` is plain cross-entropy. ``tau=1`` is Balanced Softmax (Ren et al., "Balanced Meta-Softmax", NeurIPS 2020,
    eq. (3), arXiv:2007.10740), which is also the logit-adjusted loss of Menon et al. (ICLR 2021, eq. (10)).
    Differs from both: a target row is divided by its sum, so a clip of several classes counts as one clip.
    """

    tau: float = 0.0

    @property
    def needs_prior(self) -> bool:
        return self.tau != 0.0

    def __call__(self, logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        shift = self.tau * (counts / counts.sum()).log() if self.tau else 0.0  # (C,)
        share = target / target.sum(dim=1, keepdim=True)
        losses = share * F.log_softmax(logits + shift, dim=1)  # (B, C)
        return -losses.where(share > 0, 0.0).sum(dim=1)  # a class without training clips has log prior -inf


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """One sigmoid a class, averaged over the classes, as VideoLT trains (Zhang et al., ICCV 2021)."""

    needs_prior: bool = False

    def __call__(self, logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=1)
