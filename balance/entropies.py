"""Cross-entropies for hard, multi-hot and soft targets; the losses are made of these."""

import torch
from torch import Tensor
from torch.nn import functional as F


def share_of(target: Tensor) -> Tensor:
    """Each row ``(B, C)`` divided by its sum, so that a clip of several classes counts as one clip.

    A row of zeros stays one.
    """
    return target / target.sum(dim=1, keepdim=True).clamp(min=torch.finfo(target.dtype).tiny)


def soft_cross_entropy(logits: Tensor, share: Tensor, weights: Tensor | None = None) -> Tensor:
    """``-sum_c w_c share_c log softmax(z)_c``: logits and share ``(B, C)``, weights ``(C,)`` -> ``(B,)``.

    A logit may be -inf where the share is 0.
    """
    terms = share * F.log_softmax(logits, dim=1)  # (B, C)
    terms = terms.where(share > 0, 0.0)
    return -(terms.sum(dim=1) if weights is None else (weights * terms).sum(dim=1))


def binary_cross_entropies(logits: Tensor, target: Tensor) -> Tensor:
    """``-y_c log sigmoid(z_c) - (1 - y_c) log(1 - sigmoid(z_c))``: ``(B, C)`` and ``(B, C)`` -> ``(B, C)``."""
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")
