"""The nonlinear head: two layers on every frame, averaged late."""

import torch
from torch import Tensor, nn


def masked_mean(rows: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the frames that exist: rows ``(B, T, E)``, mask ``(B, T)`` bool -> ``(B, E)``."""
    if mask is None:
        return rows.mean(dim=1)
    weights = mask.to(rows.dtype) / mask.sum(dim=1, keepdim=True)  # (B, T)
    return torch.bmm(weights[:, None], rows)[:, 0]


class Nonlinear(nn.Module):
    """Score a clip by the mean over its frames of a two-layer network's logits.

    Reference:
        Zhang et al., "VideoLT", ICCV 2021, section 5.1: the nonlinear classifier, with late average.
        Released as fc 2048 -> ReLU -> dropout 0.5 -> fc; sizes and defaults here are the same.
        The second layer is applied once, to the mean of the hidden rows: it is linear, so the logits are equal.

    Args:
        dim: Width of one feature row, ``D``.
        classes: Number of classes, ``C``.
        hidden: Width of the hidden layer, ``E``.
        dropout: Chance that a hidden unit of a frame is dropped in training.

    Shape:
        - frames: ``(B, T, D)``.
        - mask: ``(B, T)`` bool, true where a frame exists; ``None`` means everywhere.
        - output: ``(B, C)`` logits.
    """

    def __init__(self, dim: int, classes: int, *, hidden: int = 2048, dropout: float = 0.5) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, hidden)
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(hidden, classes)

    def aggregate(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(B, T, D)`` -> ``(B, E)``: the mean hidden row of each clip."""
        return masked_mean(self.dropout(self.hidden(frames).relu()), mask)

    def classify(self, clips: Tensor) -> Tensor:
        """``(B, E)`` -> ``(B, C)``."""
        return self.project(clips)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.classify(self.aggregate(frames, mask))
