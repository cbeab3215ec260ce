"""The attentive probe: a learned query reads the frames."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import attend
from .classifiers import LinearClassifier
from .options import check_at_least, check_divides
from .pooled import Pooled
from .views import as_asked, views_of


class AttentivePool(nn.Module):
    """One block of cross-attention from a learned query to a clip's frames.

    Reference:
        Bardes et al., "Revisiting Feature Prediction for Learning Visual Representations from Video" (V-JEPA), 2024,
        arXiv:2404.08471, appendix; after the released block: layer normalisation of the frames, attention, a network
        of two layers with GELU and layer normalisation before it, each added to the query.
        Differs: 8 heads whatever the width (12 or 16 there); keys have no bias, as it cancels in the softmax; weights
        are drawn as PyTorch draws them. As in ``PrototypicalAttention`` no frame is projected.

    Args:
        dim: Width of a feature row, ``D``.
        heads: Number of attention heads, ``H``.
        ratio: Width of the network's hidden layer, in D.
    """

    branches = 1

    def __init__(self, dim: int, heads: int = 8, ratio: int = 4) -> None:
        super().__init__()
        check_divides("attentive", heads, dim)
        check_at_least(1, "attentive", ratio=ratio)
        self.width = dim
        self.heads = heads
        self.token = nn.Parameter(nn.init.trunc_normal_(torch.empty(dim), std=0.02))
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim)
        self.project = nn.Linear(dim, dim)
        self.norm_found = nn.LayerNorm(dim)
        self.widen = nn.Linear(dim, ratio * dim)
        self.narrow = nn.Linear(ratio * dim, dim)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(B, T, D)`` -> ``(B, D)``, or ``(V, B, D)`` for V views."""
        rows = self.norm(frames)
        weights = self._attend(rows, views_of(mask))  # (V, B, H, T)
        found = torch.bmm(weights.transpose(0, 1).flatten(1, 2), rows).unflatten(1, (-1, self.heads))  # (B, V, H, D)
        values = torch.einsum("bvhe,hde->vbhd", found, self.value.weight.unflatten(0, (self.heads, -1))).flatten(2)
        clips = self.token + self.project(values + self.value.bias)  # (V, B, D)
        clips = clips + self.narrow(F.gelu(self.widen(self.norm_found(clips))))
        return as_asked(clips, mask)

    def prepare(self, draw_rows: Callable[[], Tensor], seed: int) -> None:
        """Nothing comes from the training rows."""

    def explain(self, frames: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """``attention``: what each frame gets of each head."""
        return {"attention": as_asked(self._attend(self.norm(frames), views_of(mask)), mask)}

    def _attend(self, rows: Tensor, views: Tensor | None) -> Tensor:
        """Attention weights ``(V, B, H, T)`` of normalised frames ``(B, T, D)``."""
        queries = self.query(self.token).unflatten(0, (self.heads, -1))  # (H, D / H)
        folded = torch.einsum("hd,hde->he", queries, self.key.weight.unflatten(0, (self.heads, -1)))
        scores = (F.linear(rows, folded) * queries.shape[-1] ** -0.5).transpose(1, 2)  # (B, H, T)
        return attend(scores[None], None if views is None else views[:, :, None])


def attentive(dim: int, classes: int, *, heads: int = 8, ratio: int = 4) -> Pooled:
    """The attentive probe: the block, then one linear layer."""
    return Pooled(AttentivePool(dim, heads, ratio), LinearClassifier(dim, classes))
