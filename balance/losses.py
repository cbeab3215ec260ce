"""Losses that know how many real training clips each class has. Each returns one value a clip; who trains averages."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..errors import LongreelError
from .entropies import binary_cross_entropies, share_of, soft_cross_entropy
from .equalization import Equalization, SoftmaxEqualization
from .margins import Ldam
from .reweighting import ActionAware, ClassBalanced


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

    Args:
        tau: Power of the prior.
        smoothing: Part of the target that is spread evenly over all classes (Szegedy et al., "Rethinking the Inception
            Architecture", CVPR 2016, section 7).
    """

    tau: float = 0.0
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.tau):
            raise LongreelError(f"cross-entropy: tau={self.tau} must be a finite number.")
        _check_smoothing(self.smoothing)

    @property
    def needs_prior(self) -> bool:
        return self.tau != 0.0

    def __call__(self, logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        shift = self.tau * (counts / counts.sum()).log() if self.tau else 0.0  # (C,)
        share = share_of(target)
        if self.smoothing:
            share = torch.lerp(share, torch.full_like(share, 1.0 / share.shape[1]), self.smoothing)
        return soft_cross_entropy(logits + shift, share)


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """One sigmoid a class, averaged over the classes, as VideoLT trains (Zhang et al., ICCV 2021).

    Args:
        smoothing: Draws each target towards 0.5 by this part of the way. With many classes that is a lot: smoothing
            0.1 asks for a chance of 0.05 of every class a clip does not have.
    """

    smoothing: float = 0.0
    needs_prior = False

    def __post_init__(self) -> None:
        _check_smoothing(self.smoothing)

    def __call__(self, logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        if self.smoothing:
            target = torch.lerp(target, torch.full_like(target, 0.5), self.smoothing)
        return binary_cross_entropies(logits, target).mean(dim=1)


@dataclass(frozen=True)
class Focal:
    """Binary cross-entropy that counts less where it is small: ``alpha (1 - e^-bce)^gamma bce``, mean over classes.

    For targets 0 and 1 this is the focal loss of Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017,
    eq. (4), arXiv:1708.02002. Defaults and soft targets are as VideoLT released it for FrameStack.
    Differs from the paper: ``alpha`` is one factor for positives and negatives alike, and the paper trains with
    gamma 2, alpha 0.25. With a soft target ``bce`` has a floor, and what counts less is what lies near 0 or 1.
    """

    gamma: float = 1.0
    alpha: float = 1.0
    needs_prior = False

    def __post_init__(self) -> None:
        if not (0 <= self.gamma < math.inf and 0 < self.alpha < math.inf):
            given = f"gamma={self.gamma:g}, alpha={self.alpha:g}"
            raise LongreelError(f"focal: {given}: give gamma at least 0, alpha above 0.")

    def __call__(self, logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        losses = binary_cross_entropies(logits, target)  # (B, C)
        missed = (-torch.expm1(-losses)).clamp(min=torch.finfo(losses.dtype).tiny)  # 0^gamma has no slope below gamma 1
        return self.alpha * (missed**self.gamma * losses).mean(dim=1)


def _check_smoothing(smoothing: float) -> None:
    if not 0 <= smoothing < 1:
        raise LongreelError(f"smoothing={smoothing:g} must be at least 0 and below 1.")


def _cross_entropy(smoothing: float = 0.0) -> Loss:
    return SoftCrossEntropy(0.0, smoothing)


def _balanced_softmax(smoothing: float = 0.0) -> Loss:
    return SoftCrossEntropy(1.0, smoothing)


def _logit_adjusted(tau: float = 1.0, smoothing: float = 0.0) -> Loss:
    return SoftCrossEntropy(tau, smoothing)


#: name -> loss. docs/losses.md has options, sources and differences.
LOSSES: dict[str, Callable[..., Loss]] = {
    "ce": _cross_entropy,
    "bce": BinaryCrossEntropy,
    "focal": Focal,
    "class-balanced": ClassBalanced,
    "action-aware": ActionAware,
    "ldam": Ldam,
    "eql": Equalization,
    "softmax-eql": SoftmaxEqualization,
    "balanced-softmax": _balanced_softmax,
    "logit-adjusted": _logit_adjusted,
}
