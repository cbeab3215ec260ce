"""Rows of joints as tensors: ``(B, T, D)`` and ``(B, T, M, V, C)``, and where a clip's body stands."""

import torch
from torch import Tensor

from .layouts import Layout


def as_joints(rows: Tensor, layout: Layout) -> Tensor:
    """``(B, T, D)`` -> ``(B, T, M, V, C)``, a view."""
    return rows.unflatten(-1, (-1, len(layout.joints), layout.channels))


def as_rows(joints: Tensor) -> Tensor:
    """``(B, T, M, V, C)`` -> ``(B, T, D)``."""
    return joints.flatten(2)


def found_joints(joints: Tensor) -> Tensor:
    """``(B, T, M, V, 1)`` bool: false for a joint that is all zeros, which is how one that was not found is stored."""
    return (joints != 0).any(dim=-1, keepdim=True)


def find_origin(joints: Tensor, mask: Tensor, layout: Layout) -> Tensor:
    """``(B, 1, 1, 1, C)``: the first body's spine in the first frame that has it; zeros where none has, and of a score.

    Args:
        joints: ``(B, T, M, V, C)``.
        mask: ``(B, T)`` bool, true where a frame exists.
        layout: Of the joints.
    """
    there = (joints[:, :, 0, layout.spine] != 0).any(dim=-1) & mask  # (B, T)
    first = there.int().argmax(dim=1)  # (B,), the first of equals
    origin = joints[torch.arange(len(joints), device=joints.device), first, 0, layout.spine]  # (B, C)
    origin = torch.where(there.any(dim=1, keepdim=True), origin, 0.0)
    if layout.scored:
        origin = torch.cat([origin[:, : layout.coordinates], torch.zeros_like(origin[:, layout.coordinates :])], dim=1)
    return origin[:, None, None, None]


def move(joints: Tensor, by: Tensor, found: Tensor) -> Tensor:
    """Joints moved by ``(B, 1, 1, 1, C)``; those that were not found stay zero."""
    return torch.where(found, joints + by, 0.0)


def valid_first(mask: Tensor) -> Tensor:
    """``(B, T)`` int64: the frames of each clip that exist, in time order, and behind them the others."""
    return (~mask).int().argsort(dim=1, stable=True)


def take_frames(values: Tensor, frames: Tensor) -> Tensor:
    """``(B, T, ...)`` at frames ``(B, S)`` -> ``(B, S, ...)``."""
    return values[torch.arange(len(values), device=values.device)[:, None], frames]
