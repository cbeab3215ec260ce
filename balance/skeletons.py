"""Exploration of skeletons: clips with the lower body of another clip, and clips played backwards."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..devices import send
from ..errors import LongreelError
from ..layouts import Layout
from ..poses import (
    as_joints,
    as_rows,
    find_axes,
    find_origin,
    found_joints,
    joint_index,
    move,
    take_frames,
    take_joints,
    turn,
    valid_first,
)
from .mixing import Batch, Known, Pooling, mean_over_labels
from .move import tail_weight

RELEASED_ALPHA = 0.64  #: 16 of the 25 joints of NTU, whatever the layout.


@dataclass(frozen=True)
class Exploration:
    """Rebalanced partial mixup, then temporal reverse: BRL's spatial-temporal action exploration.

    Reference:
        "Balanced Representation Learning" (BRL) for long-tailed skeleton actions, as released
        (github.com/firework8/BRL), and its paper where the code lacks a part.
        A mixed clip has the joints of its own upper body and the lower body of another clip of the batch. Its own
        label counts ``alpha``; but 0 where its class has more than ``kappa`` times the other's clips, and 1 where the
        other's has more than ``kappa`` times its own, so that the label goes to the rarer.
        Differs from the code: joints keep their slots, there the lower body's come behind the upper's; each clip has
        an ``alpha`` of its own, there one holds for all mixed clips, that of the last; each clip is mixed with chance
        ``rate``, there a fixed number is. ``released=true`` gives the code's behaviour in these three, and its
        ``alpha`` of 0.64 for every layout. Always different: joints are mixed here, and the stream there, which is
        another thing for bones between the two parts. Frames of the other clip are those at the same part of its
        time. Its body is moved to the same spine and turned the same way; that code has centred all clips before, and
        turned those of NTU. Any other clip of the batch can be the partner; there one that was mixed itself cannot.
        The code has no reverse. Here a clip's frames that exist change their order with chance ``reverse``.

    Args:
        rate: Share of the clips that are mixed.
        kappa: Ratio of real training clips from which on one label counts alone.
        alpha: What the upper body counts; by itself its share of the joints.
        reverse: Chance of being reversed.
        tail_weighted: Whether that chance falls with the class's clips, from ``reverse`` for the poorest class to 0.
        released: Follow the authors' code where it departs from the above.
    """

    rate: float = 1 / 16
    kappa: float = 3.0
    alpha: float | None = None
    reverse: float = 0.5
    tail_weighted: bool = False
    released: bool = False
    needs_running_ap = False

    def __post_init__(self) -> None:
        shares = {"rate": self.rate, "alpha": self.alpha or 0.0, "reverse": self.reverse}
        for name, value in shares.items():
            if not 0.0 <= value <= 1.0:
                raise LongreelError(f"exploration: {name}={value:g} must lie between 0 and 1.")
        if not 1.0 <= self.kappa < math.inf:
            raise LongreelError(f"exploration: kappa={self.kappa:g} must be 1 or more, and finite.")

    def check(self, head: Pooling) -> None:
        layout_of(head)

    def __call__(self, head: Pooling, batch: Batch, known: Known) -> tuple[Tensor, Tensor]:
        batch = self._mix(batch, layout_of(head), known)
        chances = 1.0 - tail_weight(known.counts) if self.tail_weighted else torch.ones_like(known.counts)
        chances = self.reverse * mean_over_labels(chances, batch.targets)  # (B,)
        reversed_ = send(torch.rand(len(batch), generator=known.generator), batch.device) < chances
        frames = torch.where(reversed_[:, None, None], reverse_frames(batch.frames, batch.mask), batch.frames)
        return head.classify(head.aggregate(frames, batch.mask)), batch.targets

    def _mix(self, batch: Batch, layout: Layout, known: Known) -> Batch:
        """The batch with some of its clips mixed."""
        clips = len(batch)
        drawn = torch.rand(clips, generator=known.generator)
        others = torch.randint(1, max(clips, 2), (clips,), generator=known.generator)
        if self.released:
            mixed = drawn.argsort()[: math.floor(self.rate * clips + 1e-9)]  # (N,)
        else:
            mixed = (drawn < self.rate).nonzero()[:, 0]
        if len(mixed) == 0 or clips == 1:
            return batch
        partner = send((mixed + others[mixed]) % clips, batch.device)  # any other clip
        mixed = send(mixed, batch.device)
        counts = mean_over_labels(known.counts, batch.targets)
        usual = RELEASED_ALPHA if self.released else len(layout.upper) / len(layout.joints)
        alpha = usual if self.alpha is None else self.alpha
        share = own_shares(counts[mixed], counts[partner], self.kappa, alpha)
        share = share[-1:].expand_as(share) if self.released else share
        frames, targets = batch.frames.clone(), batch.targets.clone()
        frames[mixed] = mix_parts(batch, mixed, partner, layout, in_order=not self.released)
        targets[mixed] = torch.lerp(batch.targets[partner], batch.targets[mixed], share[:, None])
        return Batch(frames, batch.mask, targets)


def partial_mixup(
    rate: float = 1 / 16, kappa: float = 3.0, alpha: float | None = None, released: bool = False
) -> Exploration:
    """The mixing alone."""
    return Exploration(rate, kappa, alpha, reverse=0.0, released=released)


def temporal_reverse(reverse: float = 0.5, tail_weighted: bool = False) -> Exploration:
    """The reversing alone."""
    return Exploration(rate=0.0, reverse=reverse, tail_weighted=tail_weighted)


def own_shares(own: Tensor, other: Tensor, kappa: float, alpha: float) -> Tensor:
    """What a mixed clip's own label counts, by the clips of its class and of the other's: ``(N,)`` each.

    ``alpha``; but 0 where its own are more than ``kappa`` times the other's, and 1 where the other's are.
    """
    share = torch.full_like(own, alpha)
    return share.masked_fill(own > kappa * other, 0.0).masked_fill(other > kappa * own, 1.0)


def layout_of(head: Pooling) -> Layout:
    """The layout of the skeletons that a head takes.

    Raises:
        LongreelError: When it takes none.
    """
    layout = getattr(head, "layout", None)
    if layout is None:
        raise LongreelError(
            "partial mixup and temporal reverse are for skeletons. Take a head of those, such as gcn-lite."
        )
    return layout


def mix_parts(batch: Batch, own: Tensor, other: Tensor, layout: Layout, *, in_order: bool = True) -> Tensor:
    """Clips with their own upper body and the others' lower body, as long as they are themselves.

    Args:
        batch: Frames ``(B, T, D)``.
        own, other: Clip indices, ``(N,)`` each.
        layout: Of the joints.
        in_order: Whether joints keep their slots; else the upper body's come first.

    Returns:
        Frames ``(N, T, D)``.
    """
    mine, theirs = (as_joints(batch.frames[clips], layout) for clips in (own, other))  # (N, T, M, V, C)
    places = matching_frames(batch.mask[own], batch.mask[other])
    mine_at, theirs_at = find_origin(mine, batch.mask[own], layout), find_origin(theirs, batch.mask[other], layout)
    found = found_joints(theirs)
    theirs = turn(move(theirs, -theirs_at, found), _axes(theirs, batch.mask[other], layout), layout)
    theirs = turn(theirs, _axes(mine, batch.mask[own], layout).mT, layout)  # as the others' bodies would stand there
    theirs = take_frames(move(theirs, mine_at, found), places)
    lower = take_joints(theirs, layout.lower)
    if not in_order:
        return as_rows(torch.cat([take_joints(mine, layout.upper), lower], dim=-2))
    return as_rows(mine.index_copy_(-2, joint_index(layout.lower, mine.device), lower))


def _axes(joints: Tensor, mask: Tensor, layout: Layout) -> Tensor:
    return find_axes(joints, found_joints(joints) & mask[..., None, None, None], layout)


def matching_frames(own: Tensor, other: Tensor) -> Tensor:
    """For each frame of clips, the one of others at the same part of their time: masks ``(N, T)`` -> ``(N, T)``.

    First goes to first and last to last. Where a clip has no frame, any may be named.
    """
    place = (own.long().cumsum(dim=1) - 1).clamp(min=0)  # (N, T)
    last, other_last = own.sum(dim=1, keepdim=True) - 1, other.sum(dim=1, keepdim=True) - 1
    return valid_first(other).gather(1, place * other_last // last.clamp(min=1))


def reverse_frames(frames: Tensor, mask: Tensor) -> Tensor:
    """Clips backwards: ``(B, T, D)``; frames that do not exist stay where they are."""
    place = mask.long().cumsum(dim=1) - 1
    mirrored = (mask.sum(dim=1, keepdim=True) - 1 - place).clamp(min=0)
    return torch.where(mask[..., None], take_frames(frames, valid_first(mask).gather(1, mirrored)), frames)
