"""A batch that several heads are given, and what those that average frames share of it."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..balance.mixing import Pooling
from ..heads import Standardised
from ..heads.views import masked_mean


@dataclass(frozen=True)
class Drawn:
    """A batch as it was drawn."""

    rows: Tensor  #: ``(B, T, D)`` float32
    mask: Tensor  #: ``(B, T)`` bool, true where a row exists.

    @cached_property
    def means(self) -> tuple[Tensor, Tensor]:
        """The same clips with their mean as their one row, ``(B, 1, D)``, and its mask; taken once, when asked for.

        A head that averages rows pools the same bits from either, as the mean of one row is that row. In float32,
        whatever the head that asks first computes in.
        """
        with torch.autocast(self.rows.device.type, enabled=False):
            return masked_mean(self.rows, self.mask)[:, None], torch.ones_like(self.mask[:, :1])

    def for_head(self, head: object) -> tuple[Tensor, Tensor]:
        """What a head has to be given: rows and mask, or the means where they are all that it looks at."""
        return self.means if averages(head) else (self.rows, self.mask)


@dataclass(frozen=True)
class OnMeans:
    """A head that averages: given a batch as it was drawn, and not one that was mixed, it looks at the means."""

    head: Pooling
    drawn: Drawn

    @property
    def branches(self) -> int:
        return self.head.branches

    def aggregate(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """As the head's."""
        if frames is self.drawn.rows and mask is self.drawn.mask:
            frames, mask = self.drawn.means
        return self.head.aggregate(frames, mask)

    def classify(self, clips: Tensor) -> Tensor:
        """As the head's."""
        return self.head.classify(clips)


def averages(head: object) -> bool:
    """Whether a head takes the plain mean of a clip's rows before anything else."""
    return isinstance(head, Standardised) and head.averages
