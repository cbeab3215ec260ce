"""What a skeleton head sees of joints: streams, normalisation, random views and frames. All on ``(B, T, M, V, C)``.

A mask ``(B, T)`` bool is true where a frame exists, wherever those frames stand. All that is random comes from
PyTorch's default generator, which in training is the run's own, and is drawn for each clip.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..devices import send
from ..errors import LongreelError
from ..layouts import Layout
from ..poses import take_frames, take_joints, turn, valid_first


def joint(joints: Tensor, layout: Layout) -> Tensor:
    """The joints themselves."""
    return joints


def bone(joints: Tensor, layout: Layout) -> Tensor:
    """Each joint less its parent; the root is zero. A score becomes the mean of the two, as in PYSKL."""
    return _less(joints, layout.parents, layout)


def skip(joints: Tensor, layout: Layout) -> Tensor:
    """Each joint less the one about two bones away, BRL's skip-modal stream.

    Raises:
        LongreelError: When the layout has no such table.
    """
    if layout.skip is None:
        raise LongreelError(f"layout {layout.name} has no skip table. Take another stream than skip and skip-motion.")
    return _less(joints, layout.skip, layout)


#: name -> stream. Each also has its motion: ``joint-motion``.
SPATIAL: dict[str, Callable[[Tensor, Layout], Tensor]] = {"joint": joint, "bone": bone, "skip": skip}
MOTION = "-motion"
STREAMS = (*SPATIAL, *(name + MOTION for name in SPATIAL))


def derive(joints: Tensor, mask: Tensor, layout: Layout, stream: str) -> Tensor:
    """A stream of ``STREAMS``, in the shape of the joints."""
    values = SPATIAL[stream.removesuffix(MOTION)](joints, layout)
    return motion(values, mask, layout) if stream.endswith(MOTION) else values


def motion(values: Tensor, mask: Tensor, layout: Layout) -> Tensor:
    """The next frame that exists less this one; zero in a clip's last frame and where there is no frame.

    A score becomes the mean of the two frames', as in PYSKL.
    """
    frames = mask.shape[1]
    places = torch.where(mask, torch.arange(frames, device=mask.device), frames)  # (B, T), T where there is no frame
    following = places.flip(1).cummin(dim=1).values.flip(1)[:, 1:]
    following = torch.cat([following, torch.full_like(places[:, :1], frames)], dim=1)
    moves = (mask & (following < frames))[..., None, None, None]
    later = take_frames(values, following.clamp(max=frames - 1))
    return torch.where(moves, _difference(later, values, layout), 0.0)


def _less(joints: Tensor, others: tuple[int, ...], layout: Layout) -> Tensor:
    return _difference(joints, take_joints(joints, others), layout)


def _difference(left: Tensor, right: Tensor, layout: Layout) -> Tensor:
    if not layout.scored:
        return left - right
    cut = layout.coordinates
    return torch.cat([left[..., :cut] - right[..., :cut], (left[..., cut:] + right[..., cut:]) / 2], dim=-1)


def min_max(joints: Tensor, found: Tensor, layout: Layout) -> Tensor:
    """Each axis of a clip stretched to [-1, 1] over the joints that were found; the others are zero.

    An axis without extent becomes zero. Scores stay what they are.

    Args:
        joints: ``(B, T, M, V, C)``.
        found: ``(B, T, M, V, 1)`` bool, false in frames that do not exist.
        layout: Of the joints.
    """
    own = joints[..., : layout.coordinates]
    low = own.masked_fill(~found, math.inf).amin(dim=(1, 2, 3), keepdim=True)
    high = own.masked_fill(~found, -math.inf).amax(dim=(1, 2, 3), keepdim=True)
    flat = high <= low  # none found: minus infinity
    scaled = 2 * (own - low) / torch.where(flat, 1.0, high - low) - 1
    return torch.cat([torch.where(found & ~flat, scaled, 0.0), joints[..., layout.coordinates :]], dim=-1)


@dataclass(frozen=True)
class Jitter:
    """How far a clip is turned, stretched and mirrored in training, around the origin."""

    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)  #: largest angles about x, y and z, degrees.
    stretch: float = 0.0  #: largest part that its size gains or loses.
    each_axis: bool = False  #: whether each axis is stretched by itself.
    flip: float = 0.0  #: chance of being mirrored.


#: layout -> how clips of it are varied: as in PYSKL's and BRL's pipelines of NTU and Kinetics, and NW-UCLA's loader
#: (CTR-GCN, BRL). Differs: that loader turns up to 60 degrees about x and y, mirrors nothing, and makes one view of
#: each clip for good; smaller angles, and the mirror, were chosen on a view left out of training (docs/skeletons.md).
JITTERS = {
    "kinect20": Jitter(turn=(15.0, 45.0, 0.0), stretch=0.5, flip=0.5),
    "ntu25": Jitter(turn=(17.2, 17.2, 17.2), stretch=0.1, each_axis=True, flip=0.5),  # 0.3 rad
    "coco17": Jitter(flip=0.5),
}


def jitter(joints: Tensor, layout: Layout, by: Jitter) -> Tensor:
    """A random view of each clip, the same for all its frames: turned, stretched and mirrored around the origin.

    In two dimensions the angle about z counts alone. Scores are not touched, but change places in a mirror.
    """
    clips, axes = len(joints), layout.coordinates
    largest = torch.tensor(by.turn).deg2rad() * torch.tensor([axes == 3, axes == 3, True])
    angles = largest * (2 * torch.rand(clips, 3) - 1)
    sizes = 1 + by.stretch * (2 * torch.rand(clips, axes if by.each_axis else 1) - 1)
    mirrored = send(torch.rand(clips) < by.flip, joints.device)
    change = rotation(angles)[:, :axes, :axes] * sizes[:, None]  # (B, C, C), stretched first
    change = send(change.to(joints.dtype), joints.device)
    joints = turn(joints, change, layout)
    return torch.where(mirrored[:, None, None, None, None], mirror(joints, layout), joints)


def rotation(angles: Tensor) -> Tensor:
    """Rotations about x, then y, then z, by angles in radians: ``(B, 3)`` -> ``(B, 3, 3)``."""
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(1), angles.sin().unbind(1)
    rows = [
        *(cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx),
        *(sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx),
        *(-sy, cy * sx, cy * cx),
    ]
    return torch.stack(rows, dim=1).unflatten(1, (3, 3))


def mirror(joints: Tensor, layout: Layout) -> Tensor:
    """Left for right: joints change places and x its sign.

    Differs from BRL's code for NTU, which leaves x as it is, so that no body is left that could stand so.
    """
    swapped = take_joints(joints, layout.flip)
    return torch.cat([-swapped[..., :1], swapped[..., 1:]], dim=-1)


def draw_places(mask: Tensor, frames: int) -> Tensor:
    """One random frame of each of ``frames`` equal parts of the time of each clip: ``(B, T)`` -> ``(B, frames)``."""
    lengths = mask.sum(dim=1, keepdim=True)  # (B, 1)
    drawn = send(torch.rand(len(mask), frames, dtype=torch.float64), mask.device)
    places = (torch.arange(frames, device=mask.device) + drawn) * lengths / frames
    return valid_first(mask).gather(1, places.long().minimum((lengths - 1).clamp(min=0)))


def spread_places(mask: Tensor, frames: int, spreads: int) -> tuple[Tensor, ...]:
    """``spreads`` times one frame of each of ``frames`` equal parts of the time of each clip, each ``(B, frames)``.

    Each part is cut into ``spreads`` again, and the frames in the middle of those are dealt out in turn.
    """
    lengths = mask.sum(dim=1, keepdim=True)
    parts = frames * spreads
    middles = (2 * torch.arange(parts, device=mask.device) + 1) * lengths // (2 * parts)
    return valid_first(mask).gather(1, middles).unflatten(1, (frames, spreads)).unbind(dim=2)
