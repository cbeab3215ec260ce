"""A light graph convolution over the joints of a body, with a learned graph, and strided convolution over time."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..layouts import Layout
from .dropout import Dropout
from .options import check_at_least, check_share
from .rownorm import RowNorm
from .skeletal import Skeletal, Skeletons

CHANNELS = (32, 48, 64)  #: of the three blocks.
REACH = 5  #: frames that a convolution over time takes together.


def graph_of(layout: Layout) -> Tensor:
    """``(3, V, V)``: each joint itself, its parent, and the mean of its children; ``[k, v, w]`` is what v takes of w.

    As the spatial partition of ST-GCN (Yan et al., AAAI 2018, section 3.3), by the bones in place of the distance to
    the centre, and divided by the number of neighbours.
    """
    count = len(layout.joints)
    parent = torch.zeros(count, count)
    for child, above in enumerate(layout.parents):
        parent[child, above] = float(child != above)
    children = parent.T / parent.T.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.stack([torch.eye(count), parent, children])


class GraphBlock(nn.Module):
    """Graph convolution, then strided convolution over time, each with batch normalisation and what came in added.

    ``y = sum_k A_k x W_k``, where the graphs ``A`` begin as ``graph_of`` has them and are learned, as in PYSKL's
    ST-GCN++ (``gcn_adaptive="init"``).

    Shape:
        - values: ``(N, C_in, T, V)``.
        - output: ``(N, C_out, ceil(T / stride), V)``.
    """

    def __init__(self, graph: Tensor, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.graph = nn.Parameter(graph.clone())
        self.spread = nn.Conv2d(inside, out * len(graph), 1, bias=False)
        self.normalise = nn.BatchNorm2d(out)
        self.around = nn.Conv2d(inside, out, 1, bias=False) if inside != out else nn.Identity()
        self.time = nn.Conv2d(out, out, (REACH, 1), (stride, 1), (REACH // 2, 0), bias=False)
        self.normalise_time = nn.BatchNorm2d(out)
        self.stride = stride

    def forward(self, values: Tensor) -> Tensor:
        spread = self.spread(values).unflatten(1, (len(self.graph), -1))  # (N, K, C, T, V)
        mixed = torch.einsum("nkctw,kvw->nctv", spread, self.graph)
        values = F.relu(self.normalise(mixed) + self.around(values))
        return F.relu(self.normalise_time(self.time(values)) + values[:, :, :: self.stride])


class GraphNetwork(nn.Module):
    """Three blocks on each body that exists, then the mean over frames, joints and bodies.

    Args:
        layout: Of the joints.
        dropout: Of the clip's vector.
    """

    def __init__(self, layout: Layout, dropout: float) -> None:
        super().__init__()
        self.width = CHANNELS[-1]
        self.normalise = RowNorm(layout.size)
        graph = graph_of(layout)
        sizes = (layout.channels, *CHANNELS)
        self.blocks = nn.Sequential(
            *(GraphBlock(graph, a, b, stride) for a, b, stride in zip(sizes, CHANNELS, (1, 2, 2), strict=False))
        )
        self.dropout = Dropout(dropout)

    def forward(self, values: Tensor, bodies: Tensor) -> Tensor:
        """``(B, T', M, V, C)`` and bodies ``(B, M)`` -> ``(B, E)``."""
        if bodies.shape[1] == 1:
            return self.dropout(self._pool(values[:, :, 0]))
        bodies = bodies.clone()
        bodies[:, 0] = True  # a clip without any body is one of zeros
        pooled = self._pool(values.transpose(1, 2)[bodies])  # (N, E); waits for a GPU, which has to say how many
        spread = pooled.new_zeros(*bodies.shape, self.width).index_put((bodies,), pooled)  # (B, M, E)
        return self.dropout(spread.sum(dim=1) / bodies.sum(dim=1, keepdim=True))

    def _pool(self, there: Tensor) -> Tensor:
        """``(N, T', V, C)`` of bodies that exist -> ``(N, E)``."""
        rows = self.normalise(there.flatten(2).flatten(0, 1))  # (N * T', V * C)
        there = rows.view_as(there).permute(0, 3, 1, 2)  # (N, C, T', V)
        return self.blocks(there).mean(dim=(2, 3))


def gcn_lite(
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
    dropout: float = 0.2,
) -> Skeletal:
    """A graph head of 61 thousand numbers for 20 joints and ten classes, which trains in minutes without a GPU."""
    check_at_least(1, "gcn-lite", frames=frames)
    check_share("gcn-lite", dropout=dropout)
    network = GraphNetwork(layout, dropout)
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
