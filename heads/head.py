"""The shape that every head has."""

from typing import Protocol

from torch import Tensor


class Head(Protocol):
    """What every head can do: pool a clip's frames into one vector, and score the vector."""

    def aggregate(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(B, T, D)`` and mask ``(B, T)`` -> ``(B, E)``."""
        ...

    def classify(self, clips: Tensor) -> Tensor:
        """``(B, E)`` -> ``(B, C)``."""
        ...
