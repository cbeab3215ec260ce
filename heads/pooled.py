"""A head of two parts: an aggregator, which pools frames, and a classifier, which scores what was pooled."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from ..layouts import Layout
from .head import Output
from .views import masked_mean


class Aggregator(Protocol):
    """Pools the frames of each clip into one vector of ``width`` numbers; the rest is as in ``Head``."""

    width: int
    branches: int

    def __call__(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(B, T, D)`` and mask -> ``(B, E)``, or ``(V, B, E)`` for V views."""
        ...

    def prepare(self, draw_rows: Callable[[], Tensor], seed: int) -> None: ...

    def explain(self, frames: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]: ...


class Classifier(Protocol):
    """Scores clips: ``(..., E)`` -> ``(..., C)``."""

    @property
    def output(self) -> Output: ...

    def __call__(self, clips: Tensor) -> Tensor: ...


class Pooled(nn.Module):
    """Pool, then classify.

    Shape:
        - frames: ``(B, T, D)``.
        - mask: as in ``Head``; ``None`` means every frame. What padding holds has no effect as long as it is finite.
        - output: ``(B, C)`` logits.
    """

    layout: Layout | None = None
    trainable = True

    def __init__(self, aggregator: Aggregator, classifier: Classifier) -> None:
        super().__init__()
        self.aggregator = aggregator
        self.classifier = classifier
        self.branches = aggregator.branches

    @property
    def output(self) -> Output:
        return self.classifier.output

    def aggregate(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(B, T, D)`` -> ``(B, E)``, or ``(V, B, E)`` for V views."""
        return self.aggregator(frames, mask)

    def classify(self, clips: Tensor) -> Tensor:
        """``(..., E)`` -> ``(..., C)``."""
        return self.classifier(clips)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.classify(self.aggregate(frames, mask))

    def prepare(self, draw_rows: Callable[[], Tensor], seed: int) -> None:
        """What the aggregator takes from training rows."""
        self.aggregator.prepare(draw_rows, seed)

    @torch.no_grad()
    def explain(self, frames: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """The aggregator's attention and assignments."""
        was = self.training
        self.eval()
        found = self.aggregator.explain(frames, mask)
        self.train(was)
        return found


class Mean(nn.Module):
    """The mean of a clip's frames."""

    branches = 1

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.width = dim

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        return masked_mean(frames, mask)

    def prepare(self, draw_rows: Callable[[], Tensor], seed: int) -> None:
        pass

    def explain(self, frames: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        return {}
