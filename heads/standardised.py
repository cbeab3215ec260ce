"""Standardisation as part of a head, so that a saved head works on raw features."""

from torch import Tensor, nn

from .head import Head


class Standardised(nn.Module):
    """A head whose input is shifted and scaled by the statistics of the training rows.

    Shape:
        - mean, deviation: ``(D,)``; saved with the head, not trained.
        - frames, mask, output: as the inner head's.
    """

    def __init__(self, head: Head, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.head = head
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    def aggregate(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """The inner head's clip vector, ``(B, E)``."""
        return self.head.aggregate((frames - self.mean) / self.deviation, mask)

    def classify(self, clips: Tensor) -> Tensor:
        """The inner head's logits, ``(B, C)``."""
        return self.head.classify(clips)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.classify(self.aggregate(frames, mask))
