"""The shape that every head has."""

from collections.abc import Callable, Iterator
from typing import Protocol

from torch import Tensor, nn

from ..layouts import Layout


class Output(Protocol):
    """A head's last layer, which turns a clip's vector into one logit a class."""

    @property
    def weight(self) -> Tensor:
        """``(C, E)``"""
        ...

    @property
    def bias(self) -> Tensor:
        """``(C,)``, added to the logits."""
        ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """What a stage trains that trains this layer alone."""
        ...

    def reset_parameters(self) -> None:
        """Draw new weights, as a second stage of training does."""
        ...


class Head(Protocol):
    """What every head can do: pool a clip's frames into one vector, and score the vector.

    A mask is ``(B, T)`` bool, true where a frame counts. ``(V, B, T)`` asks for V views of the batch in one pass, and
    ``(A, V, B, T)`` for views in which each of the head's A ``branches`` sees frames of its own.
    """

    branches: int  #: how many aggregators stand side by side; 1 for most heads.
    trainable: bool  #: false for a head that remembers the training clips in place of learning from them.

    @property
    def layout(self) -> Layout | None:
        """Of the skeletons that it takes, which it normalises itself; most heads take none."""
        ...

    @property
    def output(self) -> Output: ...

    def aggregate(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(B, T, D)`` and mask -> ``(B, E)``, or ``(V, B, E)`` for V views."""
        ...

    def classify(self, clips: Tensor) -> Tensor:
        """``(..., E)`` -> ``(..., C)``."""
        ...

    def __call__(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """``aggregate`` and ``classify`` in a row: ``(B, T, D)`` -> ``(B, C)``."""
        ...

    def prepare(self, draw_rows: Callable[[], Tensor], seed: int) -> None:
        """Set what comes from training rows, before training; nothing for most heads.

        Args:
            draw_rows: Gives some of them, ``(N, D)``, standardised; not called where none are needed.
            seed: Of what is drawn among them.
        """
        ...

    def explain(self, frames: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """What decides how much each frame counts, for plots: name -> tensor; empty for heads that take the mean.

        ``attention`` is ``(B, H, T)`` and ``assignment`` ``(B, T, K)``, with V views in front where the mask has them.
        It is that of evaluation: without dropout, and no batch statistics are noted.
        """
        ...
