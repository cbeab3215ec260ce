"""Mixup: clips that lie between two others."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..devices import send
from ..errors import LongreelError
from .mixing import AnyHead, Batch, Known, Pooling, draw_beta


@dataclass(frozen=True)
class Mixup(AnyHead):
    """Mix each clip with a random other one of the batch (Zhang et al., "mixup", ICLR 2018, arXiv:1710.09412).

    ``x = g x_i + (1 - g) x_j`` and the targets alike, ``g ~ Beta(alpha, alpha)``, drawn for each pair. With
    ``at="frames"`` frames are mixed one by one, as in VideoLT (section 5.2); a frame that only one of the two has is
    taken as it is. With ``at="clips"`` what the head has pooled is mixed, as MOVE does for its aggregated baselines.
    Differs from the released VideoLT and MOVE code: that draws one ``g`` a batch.
    """

    alpha: float = 1.0
    at: str = "frames"
    needs_running_ap = False

    def __post_init__(self) -> None:
        if self.at not in ("frames", "clips") or not 0 < self.alpha < math.inf:
            raise LongreelError(
                f"mixup: at={self.at}, alpha={self.alpha:g}: give at=frames or at=clips, alpha above 0."
            )

    def __call__(self, head: Pooling, batch: Batch, known: Known) -> tuple[Tensor, Tensor]:
        partner = send(torch.randperm(len(batch), generator=known.generator), batch.device)
        share = send(draw_beta(self.alpha, (len(batch), 1), known.generator), batch.device)  # (B, 1)
        targets = torch.lerp(batch.targets[partner], batch.targets, share)
        if self.at == "clips":
            clips = head.aggregate(batch.frames, batch.mask)  # (B, E)
            return head.classify(torch.lerp(clips[partner], clips, share)), targets
        own = torch.where(batch.mask[partner], share * batch.mask, 1.0)  # (B, T)
        frames = torch.lerp(batch.frames.index_select(0, partner), batch.frames, own[..., None])
        return head.classify(head.aggregate(frames, batch.mask | batch.mask[partner])), targets
