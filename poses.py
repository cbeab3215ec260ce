"""Rows of joints as tensors: ``(B, T, D)`` and ``(B, T, M, V, C)``, where a clip's body stands and how it is turned."""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from .devices import send
from .layouts import Layout

SLIGHT = 1e-3  #: what is left of lines that cancel out, as a part of their lengths.


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


@torch.no_grad()
def find_axes(joints: Tensor, found: Tensor, layout: Layout) -> Tensor:
    """``(B, C', C')``, a rotation of the C' coordinates: its rows point to the left of a clip's first body, up it, and
    to its front or back.

    Up is the layout's line up the body, and left the part at right angles to it of that across the body, each in the
    mean of the frames that have all four joints. Where these cancel out or lie in one line, or the layout has none,
    nothing is turned.

    Args:
        joints: ``(B, T, M, V, C)``.
        found: ``(B, T, M, V, 1)`` bool, false in frames that do not exist.
        layout: Of the joints.
    """
    same = torch.eye(layout.coordinates, device=joints.device, dtype=joints.dtype).expand(len(joints), -1, -1)
    if layout.upright is None:
        return same
    there = take_joints(found[:, :, 0], layout.upright).all(dim=2)  # (B, T, 1)
    ends = take_joints(joints[:, :, 0], layout.upright)[..., : layout.coordinates]  # (B, T, 4, 3)
    lower, upper, right, left = ends.unbind(dim=2)
    lines = torch.stack([upper - lower, left - right], dim=1) * there[:, None]  # (B, 2, T, 3)
    least = SLIGHT * lines.norm(dim=3).sum(dim=2)  # (B, 2)
    up, across = lines.sum(dim=2).unbind(dim=1)  # (B, 3) each
    sound = up.norm(dim=1) > least[:, 0]
    up = F.normalize(up, dim=1)
    across = across - (across * up).sum(dim=1, keepdim=True) * up
    sound = sound & (across.norm(dim=1) > least[:, 1])
    across = F.normalize(across, dim=1)
    axes = torch.stack([across, up, torch.linalg.cross(across, up)], dim=1)
    return torch.where(sound[:, None, None], axes, same)


def turn(joints: Tensor, change: Tensor, layout: Layout) -> Tensor:
    """Joints ``(B, T, M, V, C)`` with coordinates multiplied by ``(B, C', C')``; scores stay what they are.

    Written out, as a product of matrices would be rounded where training is in half precision.
    """
    own, rest = joints[..., : layout.coordinates], joints[..., layout.coordinates :]
    columns = change[:, None, None, None].unbind(dim=-1)  # (B, 1, 1, 1, C') each
    parts = [axis[..., None] * column for axis, column in zip(own.unbind(dim=-1), columns, strict=True)]
    return torch.cat([sum(parts, start=torch.zeros_like(own)), rest], dim=-1)


def valid_first(mask: Tensor) -> Tensor:
    """``(B, T)`` int64: the frames of each clip that exist, in time order, and behind them the others."""
    return (~mask).int().argsort(dim=1, stable=True)


@cache
def joint_index(joints: tuple[int, ...], device: torch.device) -> Tensor:
    """Numbers of joints on a device, ``(N,)``; made once, as a list of numbers would be sent there at each use."""
    with torch.inference_mode(False):  # whoever asks first: a tensor made in that mode is of no use for gradients
        return send(torch.tensor(joints), device)


def take_joints(values: Tensor, joints: tuple[int, ...]) -> Tensor:
    """``(..., V, C)`` at some joints -> ``(..., N, C)``."""
    return values.index_select(-2, joint_index(joints, values.device))


def take_frames(values: Tensor, frames: Tensor) -> Tensor:
    """``(B, T, ...)`` at frames ``(B, S)`` -> ``(B, S, ...)``."""
    return values[torch.arange(len(values), device=values.device)[:, None], frames]
