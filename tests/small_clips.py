"""Three clips of a few rows, padded, for the tests of heads."""

import torch
from torch import Tensor

LENGTHS = (5, 1, 3)


def padded_clips(dim: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Three clips of 5, 1 and 3 rows, padded with large numbers, ``(3, 5, D)``; and their mask."""
    frames = torch.randn(3, 5, dim, generator=torch.Generator().manual_seed(1), dtype=dtype)
    mask = torch.arange(5) < torch.tensor(LENGTHS)[:, None]
    return torch.where(mask[..., None], frames, 1e3), mask


def two_views(mask: Tensor) -> Tensor:
    """Two views ``(2, 3, 5)`` of them, each with the first frame."""
    drawn = torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(2)) < 0.5
    drawn[:, :, 0] = True
    return drawn & mask
