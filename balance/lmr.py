"""Long-tail mixed reconstruction: clips of poor classes rebuilt from clips of richer ones, then mixed."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import LongreelError
from .mixing import AnyHead, Batch, Known, Pooling, draw_beta

MARGIN = 5  #: clips added to every count, or the smallest count where that is more.


@dataclass(frozen=True)
class MixedReconstruction(AnyHead):
    """Replace the pooled clips of poor classes by a blend with similar clips of the batch, and mix half of them.

    Reference:
        Perrett et al., "Use Your Head: Improving Long-Tail Video Recognition", CVPR 2023, arXiv:2304.01143; meant for
        the second stage of a training, with class-balanced sampling (preset ``lmr``).
        A clip is ``c W x + (1 - c) x``: ``W`` a softmax over the similarities to the other clips of the batch whose
        class has more than ``omega`` clips, and ``c`` falling from ``most`` for the poorest class to 0 for the richest.
        Differs from the authors' code: the batch alone is searched, without a bank of earlier batches; similarity is
        that of layer-normalised rows without learned factors; a clip that finds no other keeps its own row.

    Args:
        most: The largest ``c``, the authors' l.
        steepness: The authors' d in ``c ~ 1 / log((n + max(5, n_min)) d)``.
        omega: Classes with at most so many clips are never drawn on.
        mixed: Share of the batch that is mixed with a random partner afterwards.
    """

    most: float = 0.6
    steepness: float = 0.25
    omega: int = 20
    mixed: float = 0.5
    needs_running_ap = False

    def __post_init__(self) -> None:
        if not (0.0 <= self.most <= 1.0 and 0.0 <= self.mixed <= 1.0 and 1.0 < self.steepness * MARGIN < math.inf):
            raise LongreelError("lmr: most and mixed lie between 0 and 1, and steepness is above 0.2, and finite.")

    def __call__(self, head: Pooling, batch: Batch, known: Known) -> tuple[Tensor, Tensor]:
        clips = head.aggregate(batch.frames, batch.mask)  # (B, E)
        poorest = torch.where(batch.targets > 0, known.counts, torch.inf).min(dim=1).values  # (B,)
        clips = self.reconstruct(clips, poorest, known.counts)
        mixed = int(self.mixed * len(batch))
        partner = torch.randperm(len(batch), generator=known.generator)[:mixed]
        share = draw_beta(1.0, (mixed, 1), known.generator)
        clips = torch.cat([torch.lerp(clips[partner], clips[:mixed], share), clips[mixed:]])
        own = batch.targets
        return head.classify(clips), torch.cat([torch.lerp(own[partner], own[:mixed], share), own[mixed:]])

    def reconstruct(self, clips: Tensor, counts: Tensor, class_counts: Tensor) -> Tensor:
        """Rebuild ``(B, E)`` clips whose poorest classes have ``counts`` ``(B,)`` clips; classes have ``(C,)``."""
        rows = F.layer_norm(clips, clips.shape[1:])
        allowed = (counts > self.omega).expand(len(clips), -1) & ~torch.eye(len(clips), dtype=torch.bool)  # (B, B)
        likeness = (rows @ rows.T / rows.shape[1]).masked_fill(~allowed, -1e9).softmax(dim=1)
        share = torch.where(allowed.any(dim=1), self.shares(counts, class_counts), 0.0)[:, None]  # (B, 1)
        return torch.lerp(clips, likeness @ clips, share)

    def shares(self, counts: Tensor, class_counts: Tensor) -> Tensor:
        """c for clips whose poorest classes have so many training clips."""
        offset = class_counts.min().clamp(min=MARGIN)

        def fall(n: Tensor) -> Tensor:
            return 1.0 / ((n + offset) * self.steepness).log()

        low, high = fall(class_counts.max()), fall(class_counts.min())
        return self.most * ((fall(counts) - low) / (high - low).clamp(min=1e-12)).clamp(0.0, 1.0)
