"""Margins that are wider for poorer classes."""

import math
from dataclasses import dataclass

from torch import Tensor

from ..errors import LongreelError, unknown
from .entropies import binary_cross_entropies, share_of, soft_cross_entropy
from .reweighting import check_form, class_balanced_weights, weighted_mean

WEIGHTS = ("none", "class-balanced")


def class_margins(counts: Tensor, largest: float = 0.5) -> Tensor:
    """Margins in proportion to ``n_c^(-1/4)``, that of the poorest class being ``largest``: ``(C,)`` -> ``(C,)``."""
    return largest * (counts / counts.min()) ** -0.25


@dataclass(frozen=True)
class Ldam:
    """Label-distribution-aware margins: a label's logit counts less by its class's margin while training.

    Reference:
        Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019, eqs. (12)
        and (13), arXiv:1906.07413; largest margin and scale as in its released code. ``form="ce"`` is the paper's,
        ``form="bce"`` VideoLT's, averaged over the classes. ``weights=class-balanced`` is the second stage of the
        paper's deferred re-weighting, with the weights of ``ClassBalanced``.
        Differs from the paper: features and class vectors are not scaled to length 1, which is up to the head. All
        labels of a clip have their margins at once, and a soft target has that part of its margin.
        Differs from VideoLT: there each label loses the sum of the margins of all labels of its clip, a target below 1
        none, and weights go with each class's term. ``released=true`` does so.

    Args:
        margin: The largest margin.
        scale: What the logits are multiplied with, behind the margin.
        form: ``bce`` or ``ce``.
        weights: ``none`` or ``class-balanced``.
        beta: Of the class-balanced weights.
        released: Take margins and weights as VideoLT's code does.
    """

    margin: float = 0.5
    scale: float = 30.0
    form: str = "bce"
    weights: str = "none"
    beta: float = 0.9999
    released: bool = False
    needs_prior = True

    def __post_init__(self) -> None:
        if not (0 <= self.margin < math.inf and 0 < self.scale < math.inf and 0 <= self.beta < 1):
            given = f"margin={self.margin:g}, scale={self.scale:g}, beta={self.beta:g}"
            raise LongreelError(f"ldam: {given}: give margin at least 0, scale above 0, beta at least 0 and below 1.")
        check_form("ldam", self.form, self.released)
        if self.weights not in WEIGHTS:
            raise unknown("weights of ldam", self.weights, WEIGHTS)

    def __call__(self, logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        margins = class_margins(counts, self.margin)  # (C,)
        if self.released:
            held = (target @ margins)[:, None] * (target >= 1)  # (B, C)
        else:
            held = target * margins
        scaled = self.scale * (logits - held)
        weights = class_balanced_weights(counts, self.beta) if self.weights == "class-balanced" else None
        if self.form == "ce":
            return soft_cross_entropy(scaled, share_of(target), weights)
        losses = binary_cross_entropies(scaled, target)  # (B, C)
        if weights is None:
            return losses.mean(dim=1)
        return weighted_mean(losses, target, weights, per_class=self.released)
