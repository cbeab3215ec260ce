"""Masks of one view of a batch or of several, and the mean over the frames of each."""

import torch
from torch import Tensor


def views_of(mask: Tensor | None) -> Tensor | None:
    """The mask with an axis of views: ``(B, T)``, ``(V, B, T)`` or ``(1, V, B, T)`` -> ``(V, B, T)``.

    Raises:
        ValueError: When the mask is for more branches than one.
    """
    if mask is None or mask.dim() == 3:
        return mask
    if mask.dim() == 4 and len(mask) != 1:
        raise ValueError(f"this head has one branch, and its mask {tuple(mask.shape)} is for {len(mask)}")
    return mask[None] if mask.dim() == 2 else mask[0]


def as_asked(pooled: Tensor, mask: Tensor | None) -> Tensor:
    """``(V, B, E)``, or the one view ``(B, E)`` where the mask asked for no views."""
    return pooled[0] if mask is None or mask.dim() == 2 else pooled


def mean_of_views(rows: Tensor, views: Tensor | None) -> Tensor:
    """Mean of each view over the frames that exist: rows ``(B, T, E)``, views ``(V, B, T)`` bool -> ``(V, B, E)``."""
    if views is None:
        return rows.mean(dim=1)[None]
    weights = views.to(rows.dtype) / views.sum(dim=-1, keepdim=True)  # (V, B, T)
    return torch.bmm(weights.transpose(0, 1), rows).transpose(0, 1)


def masked_mean(rows: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the frames that exist: rows ``(B, T, E)`` -> ``(B, E)``, or ``(V, B, E)`` for a mask of V views."""
    return as_asked(mean_of_views(rows, views_of(mask)), mask)
