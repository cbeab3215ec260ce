"""MOVE: clips beyond and between others, the farther the poorer their class."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..devices import send
from ..errors import LongreelError
from .mixing import Batch, Known, Pooling, draw_beta


@dataclass(frozen=True)
class Move:
    """Pool random frames of each clip twice, step beyond one of the two, and mix clips with calibrated targets.

    Reference:
        Moon et al., "Minority-Oriented Vicinity Expansion with Attentive Aggregation for Video Long-Tailed
        Recognition", AAAI 2023, section 3, eq. (7) to (12).
        The paper speaks of one class a clip. Here a clip of several has the mean of their bounds, rounded down, and T
        is the number of its frames. Where all classes have equally many clips, eq. (7) is 0 / 0 and tau one half.

    The dynamic frame sampler keeps ``n ~ U{max(floor(tau T), sigma), ..., T}`` frames, drawn anew for every view and
    every aggregator of the head. Extrapolation: ``w u + (1 - w) v`` of two views, ``w ~ 1 + Beta``. Interpolation with
    a random other clip: ``l z_i + (1 - l) z_j``, ``l ~ Beta``, targets alike, then times ``1 - tau + gamma`` and at
    most 1. ``w`` and ``l`` are drawn for each clip, as the equations have it.

    With ``released=true`` as in the authors' code, for the aggregated head alone: one ``w`` and one ``l`` a batch, and
    the self-attentive branch drops the frames drawn from its keys, the same ones in both views, in place of keeping
    them. What that code does inside its NetVLAD is an option of the head.

    Args:
        sampler, extrapolation, interpolation, calibration: Each can be left out. Without extrapolation there is one
            view; without calibration the targets of eq. (12) are plain mixup's.
        sigma: The fewest frames kept.
        gamma: Smoothing of the calibrated targets, which keeps those of the richest class above 0.
        beyond: Alpha of the extrapolation's Beta(alpha, alpha).
        between: Alpha of the interpolation's.
        released: Follow the authors' code where it departs from the paper.
    """

    sampler: bool = True
    extrapolation: bool = True
    interpolation: bool = True
    calibration: bool = True
    sigma: int = 3
    gamma: float = 0.5
    beyond: float = 2.0
    between: float = 1.0
    released: bool = False
    needs_running_ap = False

    def __post_init__(self) -> None:
        if self.sigma < 1 or not all(0 < number < math.inf for number in (self.gamma, self.beyond, self.between)):
            raise LongreelError("move: sigma must be 1 or more; gamma, beyond and between above 0, and finite.")

    def check(self, head: Pooling) -> None:
        if self.released and head.branches != 2:
            raise LongreelError("move: released=true is defined for the aggregated head alone. Take --head aggregated.")

    def __call__(self, head: Pooling, batch: Batch, known: Known) -> tuple[Tensor, Tensor]:
        tau = tail_weight(known.counts)  # (C,)
        clips = self._extrapolate(head, batch, tau, known.generator)  # (B, E)
        if not self.interpolation:
            return head.classify(clips), batch.targets
        partner = send(torch.randperm(len(batch), generator=known.generator), batch.device)
        share = self._draw(self.between, batch, known.generator)  # (B, 1)
        targets = torch.lerp(batch.targets[partner], batch.targets, share)
        if self.calibration:
            targets = (targets * (1.0 - tau + self.gamma)).clamp(max=1.0)
        return head.classify(torch.lerp(clips[partner], clips, share)), targets

    def _extrapolate(self, head: Pooling, batch: Batch, tau: Tensor, generator: torch.Generator) -> Tensor:
        """``(B, E)``: the pooled clips, or what lies beyond them."""
        views = 2 if self.extrapolation else 1
        if self.sampler:
            lower = self._fewest(batch, tau)
            pooled = head.aggregate(batch.frames, self._masks(head, batch, lower, views, generator))  # (V, B, E)
        else:
            pooled = head.aggregate(batch.frames, batch.mask).expand(views, -1, -1)
        if not self.extrapolation:
            return pooled[0]
        first, second = pooled
        return torch.lerp(second, first, 1.0 + self._draw(self.beyond, batch, generator))

    def _fewest(self, batch: Batch, tau: Tensor) -> Tensor:
        """``(B,)``: the fewest frames of each clip that the sampler keeps."""
        lengths = batch.mask.sum(dim=1)  # (B,)
        bounds = lengths[:, None] * tau
        bounds = (bounds if self.released else bounds.floor()).clamp(min=self.sigma)  # (B, C)
        mean = (bounds * batch.targets).sum(dim=1) / batch.targets.sum(dim=1)
        return mean.floor().long().minimum(lengths)

    def _masks(self, head: Pooling, batch: Batch, lower: Tensor, views: int, generator: torch.Generator) -> Tensor:
        """``(A, V, B, T)``: the frames that each branch of the head sees in each view."""
        if not self.released:
            return draw_frames(batch.mask, lower, (head.branches, views), generator)
        self.check(head)
        queries = draw_frames(batch.mask, lower, (1, views), generator)
        dropped = draw_frames(batch.mask, lower, (1, 1), generator)
        centres = draw_frames(batch.mask, lower, (1, views), generator)
        keys = (batch.mask & ~dropped).expand(1, views, -1, -1)
        return torch.cat([queries, keys, centres])  # (3, V, B, T)

    def _draw(self, alpha: float, batch: Batch, generator: torch.Generator) -> Tensor:
        """``(B, 1)`` draws, or ``(1, 1)`` for the whole batch."""
        return send(draw_beta(alpha, (1 if self.released else len(batch), 1), generator), batch.device)


def tail_weight(counts: Tensor) -> Tensor:
    """tau of eq. (7): ``(C,)`` from 0 for the poorest class to 1 for the richest; one half where all are equal."""
    low, high = counts.min(), counts.max()
    return torch.where(low == high, 0.5, (counts - low) / (high - low))


def draw_frames(mask: Tensor, fewest: Tensor, views: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Random subsets of each clip's frames, of random sizes (eq. (8) and (9)).

    Args:
        mask: ``(B, T)`` bool, the frames that exist.
        fewest: ``(B,)``, from 1 to the number of the clip's frames.
        views: How many subsets, each drawn by itself.
        generator: Where the draws come from.

    Returns:
        ``(*views, B, T)`` bool.
    """
    lengths = mask.sum(dim=1)  # (B,)
    drawn = send(torch.rand((*views, len(mask)), generator=generator, dtype=torch.float64), mask.device)
    spread = (lengths - fewest + 1) * drawn
    size = (fewest + spread.long()).minimum(lengths)  # (*views, B)
    dice = send(torch.rand((*views, *mask.shape), generator=generator), mask.device)
    order = dice.masked_fill(~mask, 2.0).argsort(dim=-1, stable=True)
    places = torch.arange(mask.shape[1], device=mask.device).expand_as(order).contiguous()
    rank = torch.empty_like(order).scatter_(-1, order, places)
    return rank < size[..., None]
