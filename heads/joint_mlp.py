"""Joint-MLP: two layers on all joints of all frames at once."""

from torch import Tensor, nn

from ..layouts import Layout
from .dropout import Dropout
from .options import check_at_least, check_share
from .rownorm import RowNorm
from .skeletal import Skeletal, Skeletons


class JointMlp(nn.Module):
    """Batch normalisation, linear, ReLU, dropout, of a clip's joints one behind the other.

    Args:
        size: Numbers of a clip, ``T' * M * V * C``.
        hidden: Width of the hidden layer, ``E``.
        dropout: Chance that a hidden unit is dropped in training.
    """

    def __init__(self, size: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.width = hidden
        self.normalise = RowNorm(size)
        self.hidden = nn.Linear(size, hidden)
        self.dropout = Dropout(dropout)

    def forward(self, values: Tensor, bodies: Tensor) -> Tensor:
        return self.dropout(self.hidden(self.normalise(values.flatten(1))).relu())


def joint_mlp(
    layout: Layout,
    dim: int,
    classes: int,
    *,
    stream: str = "joint",
    frames: int = 24,
    spreads: int = 4,
    upright: bool = True,
    augment: bool = True,
    normalise: str = "min-max",
    hidden: int = 128,
    dropout: float = 0.5,
) -> Skeletal:
    """A hidden layer on the joints of all frames, then a linear one: what a graph has to be better than."""
    check_at_least(1, "joint-mlp", hidden=hidden, frames=frames)
    check_share("joint-mlp", dropout=dropout)
    network = JointMlp(frames * dim, hidden, dropout)
    seen = Skeletons(
        layout,
        network,
        stream=stream,
        frames=frames,
        spreads=spreads,
        upright=upright,
        augment=augment,
        normalise=normalise,
    )
    return Skeletal(seen, classes)
