"""NetVLAD: frames summed by how near they are to the entries of a codebook, in the paper's form and VideoLT's."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import LongreelError
from .classifiers import LinearClassifier
from .codebook import cluster_rows, sharpness
from .options import check_at_least, check_choice
from .pooled import Pooled
from .rownorm import RowNorm
from .views import as_asked, views_of

CODEBOOKS = ("random", "kmeans")


class Codebook(Protocol):
    """Sums up a clip's frames for each of K centres."""

    size: int  #: ``K * D``

    def __call__(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Frames ``(B, T, D)`` and mask as in ``Head`` -> ``(B, V, K, D)``; V is 1 where it asks for no views."""
        ...

    def assign(self, frames: Tensor) -> Tensor:
        """``(B, T, D)`` -> ``(B, T, K)``: each frame's shares in the centres, which are the same in all views."""
        ...

    def prepare(self, draw_rows: Callable[[], Tensor], seed: int) -> None: ...


class ResidualCodebook(nn.Module):
    """Sums of residuals to learned centres.

    Reference:
        Arandjelovic et al., "NetVLAD", CVPR 2016, eq. (4), arXiv:1511.07247, which is eq. (2) and (3) of MOVE
        (Moon et al., AAAI 2023); a frame that is masked has weight zero (MOVE's eq. (10)).
        With ``codebook="kmeans"`` centres and assignment begin as in the paper's section 3.1: k-means centres ``c_k``,
        weights ``2 alpha c_k``, biases ``-alpha |c_k|^2``, and ``alpha`` such that a frame's largest share is about
        100 times its second (geometric mean). Otherwise they are drawn as a linear layer's weights are.
        Differs: the paper scales every feature row to length 1 first; here a row stays as it is.

    Args:
        dim: Width of a feature row, ``D``.
        clusters: Number of centres, ``K``.
        codebook: ``random`` or ``kmeans``.
    """

    def __init__(self, dim: int, clusters: int, codebook: str = "random") -> None:
        super().__init__()
        check_at_least(2, "netvlad", clusters=clusters)
        check_choice("netvlad", "codebook", codebook, CODEBOOKS)
        self.size = clusters * dim
        self.codebook = codebook
        self.nearness = nn.Linear(dim, clusters)
        self.centres = nn.Parameter(torch.empty(clusters, dim))
        nn.init.kaiming_uniform_(self.centres, a=math.sqrt(5))

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        sums, mass = add_up(frames, self.assign(frames), views_of(mask))
        return torch.addcmul(sums, mass[..., None], self.centres, value=-1)  # (B, V, K, D)

    def assign(self, frames: Tensor) -> Tensor:
        return self.nearness(frames).softmax(dim=-1)

    @torch.no_grad()
    def prepare(self, draw_rows: Callable[[], Tensor], seed: int) -> None:
        """Take the centres from training rows, if that was asked for."""
        if self.codebook != "kmeans":
            return
        rows = draw_rows()  # (N, D)
        centres = cluster_rows(rows, len(self.centres), seed)
        alpha = sharpness(rows, centres)
        self.centres.copy_(centres)
        self.nearness.weight.copy_(2 * alpha * centres)
        assert self.nearness.bias is not None
        self.nearness.bias.copy_(-alpha * centres.square().sum(dim=1))


class GatedCodebook(nn.Module):
    """Sums of normalised frames, without centres, times a learned gate: what VideoLT and MOVE released as NetVLAD.

    Batch normalisation of the frames, assignment without bias, batch normalisation of that, softmax, sums, sigmoid
    gate. The first normalisation is folded into the assignment and into the sums, so no normalised frame is computed.
    Differs: padding does not enter the statistics, and a frame that several views see counts once for each.

    Args:
        dim: Width of a feature row, ``D``.
        clusters: Number of entries, ``K``.
        released: Training on views as MOVE's code does it: the first normalisation measures all frames and is not
            trained, and a frame that a view does not see counts in the second's statistics as a row of zeros.
    """

    def __init__(self, dim: int, clusters: int, released: bool = False) -> None:
        super().__init__()
        check_at_least(2, "netvlad-gated", clusters=clusters)
        self.size = clusters * dim
        self.released = released
        self.normalise = RowNorm(dim)
        self.nearness = nn.Linear(dim, clusters, bias=False)
        self.normalise_nearness = RowNorm(clusters)
        self.gate = nn.Parameter(torch.empty(clusters, dim))
        nn.init.xavier_normal_(self.gate)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        views = views_of(mask)
        if self.released and mask is not None and views is not None and mask.dim() > 2:
            frames = frames.detach()
            affine = [tensor.detach() for tensor in self.normalise.affine(frames.flatten(0, 1))]
            assignment = self._assign(frames, affine, views, views.numel() - views.sum())
        else:
            affine = self.normalise.affine(frames.flatten(0, 1), _count(views))
            assignment = self._assign(frames, affine, views)
        sums, mass = add_up(frames, assignment, views)
        (scale, shift), gate = affine, self.gate.sigmoid()
        return torch.addcmul(sums * (gate * scale), mass[..., None], gate * shift)  # (B, V, K, D)

    def assign(self, frames: Tensor) -> Tensor:
        return self._assign(frames, self.normalise.affine(frames.flatten(0, 1)), None)

    def prepare(self, draw_rows: Callable[[], Tensor], seed: int) -> None:
        """Nothing comes from the training rows: there are no centres."""

    def _assign(
        self, frames: Tensor, affine: Sequence[Tensor], views: Tensor | None, blanks: int | Tensor = 0
    ) -> Tensor:
        """Shares ``(B, T, K)`` of frames that the first normalisation scales and shifts so."""
        scale, shift = affine
        weight = self.nearness.weight
        nearness = F.linear(frames.flatten(0, 1), weight * scale, weight @ shift)  # (B * T, K)
        stretch, offset = self.normalise_nearness.affine(nearness, _count(views), blanks)
        return (nearness * stretch + offset).softmax(dim=-1).view(*frames.shape[:2], -1)


class NetVlad(nn.Module):
    """A codebook's sums, each scaled to length 1, all together to length 1, and reduced to ``width`` numbers.

    The reduction is that of VideoLT's released code, for either codebook: linear without bias, batch normalisation
    over all clips of all views, ReLU6.
    """

    branches = 1

    def __init__(self, codebook: Codebook, hidden: int) -> None:
        super().__init__()
        self.width = hidden
        self.codebook = codebook
        self.reduce = nn.Linear(codebook.size, hidden, bias=False)
        self.normalise = RowNorm(hidden)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        sums = self.codebook(frames, mask)  # (B, V, K, D)
        reduced = self.reduce(normalise_twice(sums).flatten(2))  # (B, V, E)
        pooled = F.relu6(self.normalise(reduced.flatten(0, 1))).view_as(reduced)
        return as_asked(pooled.transpose(0, 1), mask)

    def prepare(self, draw_rows: Callable[[], Tensor], seed: int) -> None:
        self.codebook.prepare(draw_rows, seed)

    def explain(self, frames: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """``assignment``: each frame's shares in the centres, zero where it is masked."""
        views, shares = views_of(mask), self.codebook.assign(frames)
        return {"assignment": as_asked(shares[None] if views is None else shares * views[..., None], mask)}


def _count(views: Tensor | None) -> Tensor | None:
    """``(B * T,)``: in how many views each frame is seen."""
    return None if views is None else views.sum(dim=0).flatten()


def add_up(frames: Tensor, assignment: Tensor, views: Tensor | None) -> tuple[Tensor, Tensor]:
    """Frames ``(B, T, D)`` summed by their shares ``(B, T, K)``: ``(B, V, K, D)``, and the sums of shares."""
    weights = assignment.transpose(1, 2)[:, None]  # (B, 1, K, T)
    if views is not None:
        weights = weights * views.transpose(0, 1)[:, :, None]  # (B, V, K, T)
    sums = torch.bmm(weights.flatten(1, 2), frames)
    return sums.unflatten(1, weights.shape[1:3]), weights.sum(dim=-1)


class NormaliseTwice(torch.autograd.Function):
    """Length 1 for each centre of ``(..., K, D)``, then length 1 for all of them together.

    Forward in one pass over the sums: the second length follows from the first ones, as an entry of length 1 counts 1
    in it, and where no entry is zero it is a constant. Backward in two: of a gradient, what lies along the entry goes.
    An entry shorter than ``eps``, such as zeros, is divided by ``eps``, as ``F.normalize`` does.
    """

    @staticmethod
    def forward(ctx, sums: Tensor, eps: float = 1e-12) -> Tensor:
        lengths = torch.linalg.vector_norm(sums, dim=-1, keepdim=True)  # (..., K, 1)
        kept = lengths.clamp(min=eps)
        together = torch.linalg.vector_norm(lengths / kept, dim=-2, keepdim=True).clamp(min=eps)  # (..., 1, 1)
        factors = (kept * together).reciprocal()
        made = sums * factors
        ctx.save_for_backward(made, factors, torch.where(lengths > eps, together.square(), 0.0))
        return made

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        made, factors, along = ctx.saved_tensors
        share = dot_rows(gradient, made)[..., None] * along  # (..., K, 1)
        return torch.addcmul(gradient, made, share, value=-1).mul_(factors), None


def dot_rows(one: Tensor, other: Tensor) -> Tensor:
    """The product of each row with its own: ``(..., D)`` twice -> ``(...)``.

    The second factor is a row that is turned, and no column: with a column's strides MKL takes six times as long.
    """
    first, second = (rows.flatten(0, -2)[:, None] for rows in (one, other))  # (N, 1, D)
    return torch.bmm(first, second.transpose(1, 2)).view(one.shape[:-1])


def normalise_twice(sums: Tensor) -> Tensor:
    """Length 1 for each centre of ``(..., K, D)``, then length 1 for all of them together."""
    return NormaliseTwice.apply(sums)


def make_netvlad(form: str, dim: int, clusters: int, hidden: int, codebook: str, released: bool) -> NetVlad:
    """The aggregator in the form ``residual``, which is the papers', or ``gated``, which VideoLT and MOVE released.

    Raises:
        LongreelError: When an option does not belong to the form.
    """
    check_choice("netvlad", "form", form, ("residual", "gated"))
    if form == "residual" and released:
        raise LongreelError("netvlad: released=true is about the gated form. Take the gated one, or leave it out.")
    if form == "gated" and codebook != "random":
        raise LongreelError("netvlad: the gated form has no centres, so codebook must be random.")
    made = ResidualCodebook(dim, clusters, codebook) if form == "residual" else GatedCodebook(dim, clusters, released)
    return NetVlad(made, hidden)


def netvlad(dim: int, classes: int, *, clusters: int = 64, hidden: int = 1024, codebook: str = "random") -> Pooled:
    """NetVLAD of the paper, reduced and classified like VideoLT's."""
    check_at_least(1, "netvlad", hidden=hidden)
    return Pooled(make_netvlad("residual", dim, clusters, hidden, codebook, False), LinearClassifier(hidden, classes))


def netvlad_gated(dim: int, classes: int, *, clusters: int = 64, hidden: int = 1024, released: bool = False) -> Pooled:
    """VideoLT's released ``NetVLADModel``."""
    check_at_least(1, "netvlad-gated", hidden=hidden)
    return Pooled(make_netvlad("gated", dim, clusters, hidden, "random", released), LinearClassifier(hidden, classes))
