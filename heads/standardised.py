"""Standardisation as part of a head, so that a saved head works on raw features."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..layouts import Layout
from .head import Head, Output
from .neighbours import Neighbours
from .pooled import Mean, Pooled


class Standardised(nn.Module):
    """A head whose input is shifted and scaled by the statistics of the training rows.

    A head of skeletons gets its rows as they are. Of a trained head that takes the plain mean of the rows, the mean
    is standardised in their place: the same but for rounding, and a T-th of the work.

    Shape:
        - mean, deviation: ``(D,)``; saved with the head, not trained.
        - frames, mask, output: as the inner head's. Half precision becomes single precision here.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, head: Head, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.head = head
        self.branches = head.branches
        self.averages = isinstance(head, Pooled) and isinstance(head.aggregator, Mean)
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    @property
    def layout(self) -> Layout | None:
        return self.head.layout

    @property
    def trainable(self) -> bool:
        return self.head.trainable

    @property
    def output(self) -> Output:
        return self.head.output

    def aggregate(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """The inner head's clip vector, ``(B, E)``, or ``(V, B, E)`` for V views; float32, so that it can be mixed."""
        if self.averages:
            with torch.autocast(frames.device.type, enabled=False):  # a mean far from zero needs all its digits
                return self._standardise(self.head.aggregate(frames.float(), mask))
        pooled = self.head.aggregate(self._standardise(frames), mask)
        return pooled.to(torch.promote_types(pooled.dtype, torch.float32))

    def classify(self, clips: Tensor) -> Tensor:
        """The inner head's logits, ``(..., C)``."""
        return self.head.classify(clips)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.classify(self.aggregate(frames, mask))

    def prepare(self, draw_rows: Callable[[], Tensor], seed: int) -> None:
        """Have the inner head take what it needs from training rows; ``draw_rows`` gives raw ones, ``(N, D)``."""
        self.head.prepare(lambda: self._standardise(draw_rows()), seed)

    def explain(self, frames: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """The inner head's attention and assignments."""
        return self.head.explain(self._standardise(frames), mask)

    def remember(self, clips: Tensor, targets: Tensor) -> None:
        """Give a head that is not trained the training clips ``(N, E)``, from ``aggregate``, and targets ``(N, C)``.

        Raises:
            TypeError: When the head is one to be trained.
        """
        if not isinstance(self.head, Neighbours):
            raise TypeError(f"{type(self.head).__name__} is trained, it remembers no clips")
        self.head.remember(clips, targets)

    def _standardise(self, rows: Tensor) -> Tensor:
        if self.layout is not None:  # joints must keep their units, and all their digits until they are centred
            return rows.float()
        rows = (rows - self.mean) / self.deviation
        if torch.is_autocast_enabled(rows.device.type):  # once, and not for each product that they go into
            return rows.to(torch.get_autocast_dtype(rows.device.type))
        return rows
