"""Poor classes are spared the push that every clip of another class gives them.

Reference:
    Tan et al., "Equalization Loss for Long-Tailed Object Recognition", CVPR 2020, arXiv:2003.05176.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..devices import send
from ..errors import LongreelError
from .entropies import binary_cross_entropies, share_of

RELEASED_CLIPS = 100
RELEASED_CHANCE = 1.76e-3


def negative_weights(target: Tensor, poor: Tensor, chance: float) -> Tensor:
    """``1 - b T_c (1 - y_c)``, ``b`` being 1 with a chance, drawn for each clip and class: ``(B, C)``.

    Args:
        target: ``(B, C)`` in [0, 1].
        poor: ``T``, the classes that are spared: ``(C,)`` bool.
        chance: Of a negative to be left out. Below 1 it draws from PyTorch's global generator, as the training does.
    """
    spared = poor.to(target.dtype)
    if chance < 1:
        spared = spared * send(torch.rand(target.shape) < chance, target.device)
    return 1.0 - spared * (1.0 - target)


def _check_options(name: str, threshold: float, gamma: float) -> None:
    if not (threshold >= 0 and 0 <= gamma <= 1):
        raise LongreelError(
            f"{name}: threshold={threshold:g}, gamma={gamma:g}: give threshold at least 0, gamma 0 to 1."
        )


@dataclass(frozen=True)
class Equalization:
    """Binary cross-entropy in which classes below a frequency are not taught by clips of other classes (section 3).

    The mean over the classes of ``w_c bce_c``, ``w_c = 1 - b T_c (1 - y_c)``; ``T_c`` is 1 where class c has less than
    ``threshold`` of all labels. In detection, background still teaches what such a class is not. Clips have none, so
    with ``gamma=1`` nothing ever lowers its logits: classes can no longer be compared, though clips can. With less,
    ``b`` is 1 with the chance ``gamma``, as in the paper's section 4 for classification.
    Differs from the paper: a frequency is a class's share of all labels, not of all clips.
    Differs from VideoLT: its code takes 1.76e-3, the paper's threshold, for the chance, and spares classes of at most
    100 clips: in effect plain binary cross-entropy. ``released=true`` does so.

    Args:
        threshold: Frequency below which a class is spared; the paper's, for the 1230 classes of LVIS.
        gamma: Chance that a negative of such a class is left out.
        released: Follow VideoLT's code; the other two do not count then.
    """

    threshold: float = 1.76e-3
    gamma: float = 1.0
    released: bool = False
    needs_prior = False

    def __post_init__(self) -> None:
        _check_options("eql", self.threshold, self.gamma)

    def __call__(self, logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        if self.released:
            weights = negative_weights(target, counts <= RELEASED_CLIPS, RELEASED_CHANCE)
        else:
            weights = negative_weights(target, counts < self.threshold * counts.sum(), self.gamma)
        return (weights * binary_cross_entropies(logits, target)).mean(dim=1)


@dataclass(frozen=True)
class SoftmaxEqualization:
    """Softmax cross-entropy whose sum leaves out classes below a frequency, by chance (section 4).

    ``-sum_c share_c log(e^{z_c} / sum_k w_k e^{z_k})`` with the ``w`` of ``Equalization``. The defaults are those for
    the 1000 classes of ImageNet-LT.
    Differs from the paper: a target row is divided by its sum; a soft target keeps that part of its class in the sum.

    Args:
        threshold: Frequency below which a class is spared.
        gamma: Chance that such a class is left out of the sum of a clip of another class.
    """

    threshold: float = 4.3e-4
    gamma: float = 0.9
    needs_prior = False

    def __post_init__(self) -> None:
        _check_options("softmax-eql", self.threshold, self.gamma)

    def __call__(self, logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        weights = negative_weights(target, counts < self.threshold * counts.sum(), self.gamma)  # (B, C)
        total = (logits + weights.log()).logsumexp(dim=1, keepdim=True)  # (B, 1)
        return (share_of(target) * (total - logits)).sum(dim=1)
