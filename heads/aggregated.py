"""MOVE's aggregated head: codebook and self-attention side by side."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .attention import PrototypicalAttention
from .classifiers import TwoLayerClassifier
from .netvlad import NetVlad, make_netvlad
from .options import check_at_least, check_choice
from .pooled import Pooled

ORDERS = ("vlad-psa", "psa-vlad")


class SideBySide(nn.Module):
    """NetVLAD and prototypical self-attention of the same frames, one behind the other.

    A mask ``(A, V, B, T)`` gives each its own frames: the first is for the self-attention, the second for NetVLAD. With
    A = 3, as in MOVE's released code, they are the self-attention's query, its keys, and NetVLAD.

    Args:
        vlad, attention: The two.
        order: Which comes first in the clip's vector: MOVE's code has NetVLAD first where it trains baselines, and
            the self-attention first where it trains MOVE.
    """

    branches = 2

    def __init__(self, vlad: NetVlad, attention: PrototypicalAttention, order: str = "vlad-psa") -> None:
        super().__init__()
        check_choice("aggregated", "order", order, ORDERS)
        self.width = vlad.width + attention.width
        self.vlad = vlad
        self.attention = attention
        self.order = order

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(B, T, D)`` -> ``(B, E)``, or ``(V, B, E)`` for V views."""
        query, keys, centres = self._masks(mask)
        parts = [self.vlad(frames, centres), self.attention(frames, query, keys)]
        return torch.cat(parts if self.order == "vlad-psa" else parts[::-1], dim=-1)

    def prepare(self, draw_rows: Callable[[], Tensor], seed: int) -> None:
        self.vlad.prepare(draw_rows, seed)

    def explain(self, frames: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """``attention`` and ``assignment``."""
        query, _, centres = self._masks(mask)
        return self.attention.explain(frames, query) | self.vlad.explain(frames, centres)

    def _masks(self, mask: Tensor | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Masks of the self-attention's query, its keys where they are others, and NetVLAD."""
        if mask is None or mask.dim() < 4:
            return mask, None, mask
        if len(mask) not in (2, 3):
            raise ValueError(f"this head has two branches, and its mask {tuple(mask.shape)} is for {len(mask)}")
        return mask[0], mask[1] if len(mask) == 3 else None, mask[-1]


def aggregated(
    dim: int,
    classes: int,
    *,
    vlad: str = "residual",
    clusters: int = 64,
    reduced: int = 1024,
    codebook: str = "random",
    heads: int = 4,
    dropout: float = 0.1,
    masked: str = "drop",
    order: str = "vlad-psa",
    hidden: int = 2048,
    released: bool = False,
) -> Pooled:
    """NetVLAD of ``reduced`` numbers and self-attention of D, then two layers (Moon et al., AAAI 2023, eq. (4)).

    The paper reduces both parts; the released code reduces NetVLAD alone, and so do we. ``vlad`` is ``residual``, as
    the paper has it, or ``gated``, as the code has it.
    """
    check_at_least(1, "aggregated", reduced=reduced)
    attention = PrototypicalAttention(dim, heads, dropout, masked)
    both = SideBySide(make_netvlad(vlad, dim, clusters, reduced, codebook, released), attention, order)
    return Pooled(both, TwoLayerClassifier(both.width, classes, hidden=hidden))
