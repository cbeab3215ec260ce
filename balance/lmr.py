"""Long-tail mixed reconstruction: clips of poor classes rebuilt from clips of richer ones, then mixed."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..devices import send
from ..errors import LongreelError
from .mixing import AnyHead, Batch, Known, Pooling, draw_beta

MARGIN = 5  #: clips added to every count, or the smallest count where that is more.


@dataclass(frozen=True)
class MixedReconstruction(AnyHead):
    """Replace the pooled clips of poor classes by a blend with similar clips of the batch, and mix half of them.

    Reference:
        Perrett et al., "Use Your Head: Improving Long-Tail Video Recognition", CVPR 2023, arXiv:2304.01143; meant for
        the second stage of a training, with class-balanced sampling (preset ``lmr``).
        A clip is ``c W x + (1 - c) x``: ``W`` a softmax over the similarities to the other clips of the batch, and
        to those of the batches before, whose class has more than ``omega`` clips; ``c`` falls from ``most`` for the
        poorest class to 0 for the richest.
        Differs from the authors' code: similarity is that of layer-normalised rows without learned factors; a clip
        that finds no other keeps its own row; no gradient flows into clips of earlier batches.

    Args:
        most: The largest ``c``, the authors' l.
        steepness: The authors' d in ``c ~ 1 / log((n + max(5, n_min)) d)``.
        omega: Classes with at most so many clips are never drawn on.
        mixed: Share of the batch that is mixed with a random partner afterwards.
        bank: Earlier batches that are searched too.
    """

    most: float = 0.6
    steepness: float = 0.25
    omega: int = 20
    mixed: float = 0.5
    bank: int = 8
    needs_running_ap = False

    def __post_init__(self) -> None:
        if not (0.0 <= self.most <= 1.0 and 0.0 <= self.mixed <= 1.0 and 1.0 < self.steepness * MARGIN < math.inf):
            raise LongreelError("lmr: most and mixed lie between 0 and 1, and steepness is above 0.2, and finite.")
        if self.bank < 0:
            raise LongreelError(f"lmr: bank={self.bank}: give the number of earlier batches, 0 for none.")

    def __call__(self, head: Pooling, batch: Batch, known: Known) -> tuple[Tensor, Tensor]:
        clips = head.aggregate(batch.frames, batch.mask)  # (B, E)
        poorest = torch.where(batch.targets > 0, known.counts, torch.inf).min(dim=1).values  # (B,)
        own = {"clips": clips.detach(), "counts": poorest, "age": torch.zeros(len(batch), dtype=torch.long)}
        earlier = known.memory or {name: rows[:0] for name, rows in own.items()}
        clips = self.reconstruct(clips, poorest, known.counts, earlier["clips"], earlier["counts"])
        known.memory.update(self._remember(earlier, own))
        mixed = int(self.mixed * len(batch))
        partner = send(torch.randperm(len(batch), generator=known.generator)[:mixed], batch.device)
        share = send(draw_beta(1.0, (mixed, 1), known.generator), batch.device)
        clips = torch.cat([torch.lerp(clips[partner], clips[:mixed], share), clips[mixed:]])
        targets = batch.targets
        targets = torch.cat([torch.lerp(targets[partner], targets[:mixed], share), targets[mixed:]])
        return head.classify(clips), targets

    def _remember(self, earlier: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
        """The bank for the next batch, oldest clips first: this batch, and those before that are not too old.

        Ages are on the CPU, where they say how long the bank is without waiting for a device.
        """
        age = torch.cat([earlier["age"].cpu() + 1, own["age"]])  # a checkpoint brings them to the device, once
        gone = int((age >= self.bank).sum())
        bank = {name: torch.cat([earlier[name], own[name]])[gone:] for name in ("clips", "counts")}
        return bank | {"age": age[gone:]}

    def reconstruct(
        self, clips: Tensor, counts: Tensor, class_counts: Tensor, bank: Tensor, bank_counts: Tensor
    ) -> Tensor:
        """Rebuild clips from each other and from those of earlier batches.

        Args:
            clips: ``(B, E)``.
            counts: Training clips of each clip's poorest class, ``(B,)``.
            class_counts: The same of every class, ``(C,)``.
            bank, bank_counts: Clips of earlier batches ``(M, E)``, and ``(M,)``.
        """
        found, size = torch.cat([clips, bank]), len(clips)  # (B + M, E)
        rows = F.layer_norm(found, found.shape[1:])
        allowed = (torch.cat([counts, bank_counts]) > self.omega).repeat(size, 1)  # (B, B + M)
        allowed[:, :size].fill_diagonal_(False)
        likeness = (rows[:size] @ rows.T / rows.shape[1]).masked_fill(~allowed, -1e9).softmax(dim=1)
        share = torch.where(allowed.any(dim=1), self.shares(counts, class_counts), 0.0)[:, None]  # (B, 1)
        return torch.lerp(clips, (likeness @ found).to(clips.dtype), share)

    def shares(self, counts: Tensor, class_counts: Tensor) -> Tensor:
        """c for clips whose poorest classes have so many training clips."""
        offset = class_counts.min().clamp(min=MARGIN)

        def fall(n: Tensor) -> Tensor:
            return 1.0 / ((n + offset) * self.steepness).log()

        low, high = fall(class_counts.max()), fall(class_counts.min())
        return self.most * ((fall(counts) - low) / (high - low).clamp(min=1e-12)).clamp(0.0, 1.0)
