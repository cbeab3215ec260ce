"""Batch normalisation of rows that count more than once or not at all."""

import torch
from torch import Tensor, nn


class RowNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy, ICML 2015) whose statistics in training are weighted.

    Padding has weight zero, and a frame that several views of a clip see counts once for each: what it does to a row
    is the same in all views. With equal weights it is ``nn.BatchNorm1d``, running variance included.
    Differs: a single row, with padding beside it or without, is normalised with the running statistics, since it has
    no variance of its own. The last batch of an epoch may be one clip.

    Args:
        dim: Width of a row, ``D``.
        eps: Added to the variance.
        momentum: How far each batch draws the running statistics towards its own.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, dim: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def forward(self, rows: Tensor, weights: Tensor | None = None) -> Tensor:
        """``(N, D)`` -> ``(N, D)``."""
        scale, shift = self.affine(rows, weights)
        return rows * scale + shift

    def affine(self, rows: Tensor, weights: Tensor | None = None, blanks: int | Tensor = 0) -> tuple[Tensor, Tensor]:
        """What the normalisation multiplies a row by and then adds, ``(D,)`` each.

        Args:
            rows: ``(N, D)``; in training their statistics are used, and noted.
            weights: ``(N,)``, how often each row counts; ``None`` is once.
            blanks: How many rows of zeros count besides.
        """
        mean, variance = self.running_mean, self.running_var
        if self.training and len(rows) > 1:
            mean, variance = self._measure(rows, weights, blanks)
        scale = self.weight * (variance + self.eps).rsqrt()
        return scale, self.bias - mean * scale

    def _measure(self, rows: Tensor, weights: Tensor | None, blanks: int | Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the rows, which also go into the running ones; there the variance is unbiased."""
        weights = rows.new_ones(len(rows)) if weights is None else weights.to(rows.dtype)
        total = weights.sum() + blanks
        mean = weights @ rows / total
        variance = (weights @ (rows - mean).square() + blanks * mean.square()) / total
        alone = (weights > 0).sum() + blanks < 2  # decided without waiting for a GPU
        mean = torch.where(alone, self.running_mean, mean)
        unbiased = torch.where(alone, self.running_var, variance * total / (total - 1).clamp(min=1))
        variance = torch.where(alone, self.running_var, variance)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
        return mean, variance
