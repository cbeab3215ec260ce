"""The nonlinear head: two layers on every frame, averaged late."""

from collections.abc import Callable

from torch import Tensor, nn

from .dropout import Dropout
from .head import Output
from .options import check_at_least, check_share
from .views import masked_mean


class Nonlinear(nn.Module):
    """Score a clip by the mean over its frames of a two-layer network's logits.

    Reference:
        Zhang et al., "VideoLT", ICCV 2021, section 5.1: the nonlinear classifier, with late average.
        Released as fc 2048 -> ReLU -> dropout 0.5 -> fc; sizes and defaults here are the same.
        The second layer is applied once, to the mean of the hidden rows: it is linear, so the logits are equal.

    Args:
        dim: Width of one feature row, ``D``.
        classes: Number of classes, ``C``.
        hidden: Width of the hidden layer, ``E``.
        dropout: Chance that a hidden unit of a frame is dropped in training; views share the draw.

    Shape:
        - frames: ``(B, T, D)``.
        - mask: ``(B, T)`` bool, true where a frame exists; ``None`` means everywhere.
        - output: ``(B, C)`` logits.
    """

    branches = 1
    layout = None
    trainable = True

    def __init__(self, dim: int, classes: int, *, hidden: int = 2048, dropout: float = 0.5) -> None:
        super().__init__()
        check_at_least(1, "nonlinear", hidden=hidden)
        check_share("nonlinear", dropout=dropout)
        self.hidden = nn.Linear(dim, hidden)
        self.dropout = Dropout(dropout)
        self.project = nn.Linear(hidden, classes)

    @property
    def output(self) -> Output:
        return self.project

    def aggregate(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(B, T, D)`` -> ``(B, E)``: the mean hidden row of each clip; ``(V, B, E)`` for V views."""
        return masked_mean(self.dropout(self.hidden(frames).relu()), mask)

    def classify(self, clips: Tensor) -> Tensor:
        """``(..., E)`` -> ``(..., C)``."""
        return self.project(clips)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.classify(self.aggregate(frames, mask))

    def prepare(self, draw_rows: Callable[[], Tensor], seed: int) -> None:
        """Nothing comes from the training rows."""

    def explain(self, frames: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Empty: every frame counts alike."""
        return {}
