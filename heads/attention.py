"""Attention over frames: MOVE's prototypical self-attention and the ordinary one it is compared with."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .classifiers import TwoLayerClassifier
from .dropout import Dropout
from .options import check_choice, check_divides, check_share
from .pooled import Pooled
from .views import as_asked, mean_of_views, views_of

MASKED = ("drop", "multiply")


def attend(scores: Tensor, keys: Tensor | None) -> Tensor:
    """Softmax over the last axis, frames. Where ``keys`` is false a frame gets nothing; where it is false throughout,
    all get alike.
    """
    # The lowest finite number, as a softmax over minus infinity alone is not a number.
    return (scores if keys is None else scores.masked_fill(~keys, torch.finfo(scores.dtype).min)).softmax(dim=-1)


class SelfAttention(nn.Module):
    """The parts that prototypical and ordinary self-attention share.

    Args:
        dim: Width of a feature row, ``D``.
        heads: Number of attention heads, ``H``; each has ``D / H`` numbers.
        dropout: Of attention weights, and of what is added to the query.
    """

    branches = 1

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.width = dim
        self.heads = heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.project = nn.Linear(dim, dim, bias=False)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def prepare(self, draw_rows: Callable[[], Tensor], seed: int) -> None:
        """Nothing comes from the training rows."""

    def finish(self, heads: Tensor, queries: Tensor) -> Tensor:
        """What the heads found, joined ``(..., D)``, projected and added to the queries, with layer normalisation."""
        return self.norm(self.dropout(self.project(heads)) + queries)


class PrototypicalAttention(SelfAttention):
    """Supplement a clip's mean frame with the frames that are like it.

    Reference:
        Moon et al., "MOVE", AAAI 2023, section 2, PSA, with the sizes of the released code: one query, the mean frame,
        which is also what the result is added to; 4 heads, no biases, dropout 0.1.
        No frame is projected: ``q_h . (K_h x_t) = (K_h^T q_h) . x_t`` and ``sum_t a_t V_h x_t = V_h sum_t a_t x_t``.

    Args:
        dim, heads, dropout: As in ``SelfAttention``.
        masked: ``drop``: a frame that is masked has no part in query or softmax. ``multiply`` is the paper's letter
            for views: such a frame is zero, so it stays in the softmax with score 0, and the mean frame is divided by
            all T frames. A mask ``(B, T)`` is padding, which is dropped in either case; next to views ``multiply``
            takes padding for frames too.
    """

    def __init__(self, dim: int, heads: int = 4, dropout: float = 0.1, masked: str = "drop") -> None:
        check_divides("psa", heads, dim)
        check_share("psa", dropout=dropout)
        check_choice("psa", "masked", masked, MASKED)
        super().__init__(dim, heads, dropout)
        self.masked = masked

    def forward(self, frames: Tensor, mask: Tensor | None = None, keys: Tensor | None = None) -> Tensor:
        """``(B, T, D)`` -> ``(B, D)``, or ``(V, B, D)`` for V views.

        Args:
            frames: ``(B, T, D)``.
            mask: As in ``Head``: the frames of the mean.
            keys: The frames that it is supplemented with, where they are others; of the mask's shape.
        """
        prototypes, weights = self._attend(frames, mask, keys)  # (V, B, D), (V, B, H, T)
        weights = self.dropout(weights)
        found = torch.bmm(weights.transpose(0, 1).flatten(1, 2), frames)  # (B, V * H, D)
        found = found.unflatten(1, (-1, self.heads))
        # Weights come first, as their gradient then has their layout and is not copied into it.
        values = torch.einsum("hde,bvhe->hdbv", self.value.weight.unflatten(0, (self.heads, -1)), found)
        return as_asked(self.finish(values.permute(3, 2, 0, 1).flatten(2), prototypes), mask)

    def explain(self, frames: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """``attention``: what each frame gets of each head."""
        return {"attention": as_asked(self._attend(frames, mask, None)[1], mask)}

    def _attend(self, frames: Tensor, mask: Tensor | None, keys: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean frames ``(V, B, D)`` and attention weights ``(V, B, H, T)``; zeroed frames have weight zero."""
        views = views_of(mask)
        shown = views if keys is None else views_of(keys)
        multiply = self.masked == "multiply" and mask is not None and mask.dim() > 2
        prototypes = mean_of_views(frames, views)
        if multiply and views is not None:
            prototypes = prototypes * views.to(frames.dtype).mean(dim=-1, keepdim=True)
        queries = self.query(prototypes).unflatten(-1, (self.heads, -1))  # (V, B, H, D / H)
        folded = torch.einsum("vbhd,hde->bvhe", queries, self.key.weight.unflatten(0, (self.heads, -1)))
        scores = torch.bmm(folded.flatten(1, 2), frames.transpose(1, 2)) * queries.shape[-1] ** -0.5
        scores = scores.unflatten(1, (-1, self.heads)).transpose(0, 1)  # (V, B, H, T)
        shown = None if shown is None else shown[:, :, None]
        if multiply and shown is not None:
            return prototypes, attend(scores * shown, None) * shown
        return prototypes, attend(scores, shown)


class MultiHeadAttention(SelfAttention):
    """Ordinary self-attention: every frame asks all frames, and the results are averaged.

    What MOVE's Table 5 compares PSA with (MSA). No code of it was released, so all else is taken to be as in PSA:
    sizes, no biases, residual, layer normalisation. A masked frame is neither asked nor averaged.
    """

    def __init__(self, dim: int, heads: int = 4, dropout: float = 0.1) -> None:
        check_divides("msa", heads, dim)
        check_share("msa", dropout=dropout)
        super().__init__(dim, heads, dropout)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(B, T, D)`` -> ``(B, D)``, or ``(V, B, D)`` for V views."""
        views = views_of(mask)
        query, key, value = (self._split(layer(frames)) for layer in (self.query, self.key, self.value))
        chance = self.dropout.p if self.training else 0.0
        heads = [
            F.scaled_dot_product_attention(query, key, value, attn_mask=shown, dropout_p=chance)
            for shown in ([None] if views is None else self._biases(views, frames.dtype))
        ]
        rows = self.finish(torch.stack(heads).transpose(2, 3).flatten(3), frames)  # (V, B, T, D)
        if views is None:
            return rows[0].mean(dim=1)
        weights = views.to(rows.dtype) / views.sum(dim=-1, keepdim=True)  # (V, B, T)
        return as_asked(torch.einsum("vbt,vbtd->vbd", weights, rows), mask)

    def explain(self, frames: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """``attention``: what each frame gets of each head, averaged over the frames that ask."""
        views = views_of(mask)
        query, key = self._split(self.query(frames)), self._split(self.key(frames))
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5  # (B, H, T, T)
        if views is None:
            return {"attention": attend(scores, None).mean(dim=2)}
        weights = attend(scores.expand(len(views), -1, -1, -1, -1), views[:, :, None, None])
        asking = views.to(weights.dtype) / views.sum(dim=-1, keepdim=True)  # (V, B, T)
        return {"attention": as_asked(torch.einsum("vbt,vbhts->vbhs", asking, weights), mask)}

    def _split(self, rows: Tensor) -> Tensor:
        """``(B, T, D)`` -> ``(B, H, T, D / H)``."""
        return rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _biases(self, views: Tensor, dtype: torch.dtype) -> Tensor:
        """``(V, B, 1, 1, T)``: nothing for a frame that is seen, the lowest finite number for one that is not."""
        nothing = torch.zeros(views.shape, dtype=dtype, device=views.device)
        return nothing.masked_fill(~views, torch.finfo(dtype).min)[:, :, None, None]


def psa(
    dim: int, classes: int, *, heads: int = 4, dropout: float = 0.1, masked: str = "drop", hidden: int = 2048
) -> Pooled:
    """Prototypical self-attention, then two layers, as in the rows of MOVE's Table 5."""
    return Pooled(PrototypicalAttention(dim, heads, dropout, masked), TwoLayerClassifier(dim, classes, hidden=hidden))


def msa(dim: int, classes: int, *, heads: int = 4, dropout: float = 0.1, hidden: int = 2048) -> Pooled:
    """Ordinary self-attention, then two layers."""
    return Pooled(MultiHeadAttention(dim, heads, dropout), TwoLayerClassifier(dim, classes, hidden=hidden))
