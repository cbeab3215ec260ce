"""FrameStack: clips made of frames of two others, more of them from the class that is learnt worse."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..devices import send
from ..errors import LongreelError
from .mixing import AnyHead, Batch, Known, Pooling, mean_over_labels

UNKNOWN = 1e-5  #: where two running APs sum to less, they say nothing yet.


@dataclass(frozen=True)
class FrameStack(AnyHead):
    """Replace the frames of some clips by frames of their own and of a partner's, and their targets alike.

    Reference:
        Zhang et al., "VideoLT: Large-scale Long-tailed Video Recognition", ICCV 2021, section 4, eq. (1) to (4) and
        algorithm 1. ``beta = m_i / (m_i + m_j)``; the new clip has ``floor(beta L)`` frames of the partner, evenly
        spread over its frames, and its target is ``(1 - beta) y_i + beta y_j``.
        Differs from the paper: the clip keeps all ``L`` frames, ``L - floor(beta L)`` of its own, where eq. (2)
        rounds both down and may lose one; as the authors' code does.
        Differs from the authors' code: a clip of several labels has the mean of their running APs, not their sum over
        all classes; partners come from the whole batch; and the first epoch, whose running APs are not known yet, is
        mixed with ``beta = 0.5`` (algorithm 1). ``released=true`` gives the code's behaviour in these three.

    Args:
        by: What ``m`` is: ``ap``, the running average precision of the clip's classes on the training clips;
            ``counts``, their real training clips (table 3, "w/CF"); or ``constant``, which makes ``beta`` a half.
        eta: Share of the batch that is mixed.
        released: Follow the authors' code where it departs from the paper.
    """

    by: str = "ap"
    eta: float = 0.5
    released: bool = False

    def __post_init__(self) -> None:
        if self.by not in ("ap", "counts", "constant") or not 0.0 <= self.eta <= 1.0:
            raise LongreelError(
                f"framestack: by={self.by}, eta={self.eta:g}: give by=ap, by=counts or by=constant, eta from 0 to 1."
            )

    @property
    def needs_running_ap(self) -> bool:
        return self.by == "ap"

    def __call__(self, head: Pooling, batch: Batch, known: Known) -> tuple[Tensor, Tensor]:
        mixed = self._number(len(batch), known)
        if mixed > 0:
            batch = self._mix(batch, mixed, known)
        return head.classify(head.aggregate(batch.frames, batch.mask)), batch.targets

    def _number(self, clips: int, known: Known) -> int:
        """How many clips of the batch are mixed."""
        if self.released and self.by == "ap" and not known.running_ap.any():
            return 0
        if self.released and self.eta == 0.0:
            return clips  # so it is in the code; the paper's eta = 0 is the baseline
        return math.floor(self.eta * clips + 1e-9)  # 0.29 of 100 clips are 29

    def _mix(self, batch: Batch, mixed: int, known: Known) -> Batch:
        among = mixed if self.released else len(batch)
        partner = send(torch.randperm(among, generator=known.generator)[:mixed], batch.device)  # (M,)
        beta = self._beta(batch.targets, partner, known)  # (M,)
        frames, mask = stack_frames(batch, partner, beta)
        targets = torch.lerp(batch.targets[:mixed], batch.targets[partner], beta[:, None])
        return Batch(
            torch.cat([frames, batch.frames[mixed:]]),
            torch.cat([mask, batch.mask[mixed:]]),
            torch.cat([targets, batch.targets[mixed:]]),
        )

    def _beta(self, targets: Tensor, partner: Tensor, known: Known) -> Tensor:
        """``(M,)``: the partner's share of each new clip."""
        if self.by == "constant":
            return torch.full((len(partner),), 0.5, device=partner.device)
        if self.released and self.by == "ap":
            figures = (targets * known.running_ap).mean(dim=1)
        else:
            figures = mean_over_labels(known.running_ap if self.by == "ap" else known.counts, targets)
        own, other = figures[: len(partner)], figures[partner]
        return torch.where(own + other < UNKNOWN, 0.5, own / (own + other).clamp(min=UNKNOWN))


def stack_frames(batch: Batch, partner: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """The first M clips of a batch with some of their frames replaced by a partner's.

    Both parts are spread evenly over the frames that exist, which come first in a row of the mask, and the clip's own
    come first.

    Args:
        batch: Frames ``(B, T, D)``.
        partner: ``(M,)`` clip indices.
        beta: ``(M,)`` in [0, 1], the partner's share.

    Returns:
        Frames ``(M, T, D)`` and mask ``(M, T)``, true throughout.
    """
    places = torch.arange(batch.mask.shape[1], device=batch.device)  # (T,)
    lengths = batch.mask.sum(dim=1)  # (B,)
    theirs = (beta.double() * len(places)).floor().long()  # (M,)
    own = len(places) - theirs
    is_own = places < own[:, None]  # (M, T)
    clip = torch.where(is_own, torch.arange(len(partner), device=batch.device)[:, None], partner[:, None])
    place = torch.where(is_own, places, places - own[:, None])
    size = torch.where(is_own, own[:, None], theirs[:, None])
    row = place * (lengths[clip] - 1) // (size - 1).clamp(min=1)  # evenly spread from the first frame to the last
    rows = batch.frames.flatten(0, 1).index_select(0, (clip * len(places) + row).flatten())
    return rows.unflatten(0, is_own.shape), torch.ones_like(is_own)
