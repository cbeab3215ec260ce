"""Nearest neighbours among the training clips: a baseline that is not trained."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import LongreelError
from .head import Output
from .options import check_above_zero, check_at_least
from .views import masked_mean

QUERIES_AT_ONCE = 16  #: always so many, as FAISS computes one alone in another way, and the last bits then differ.
NO_BLAS = 2**31 - 1  #: queries from which on FAISS multiplies matrices, whose last bits depend on a row's place.


class Neighbours(nn.Module):
    """Score a clip by the votes of its nearest training clips, in cosine similarity of the mean frames.

    Reference:
        Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018, section 3.4,
        with the numbers of DINO's evaluation (Caron et al., ICCV 2021): 20 neighbours, each with a vote of
        ``exp(similarity / 0.07)``.
        Differs: the votes of a clip are divided by their sum, so that scores also compare between clips, as average
        precision does; the order of a clip's classes is the same. A clip of several classes votes for each.

    The search is FAISS's exact one by inner product, and a clip's scores do not depend on the rest of its batch.

    Args:
        dim: Width of a feature row, ``D``.
        classes: Number of classes, ``C``.
        neighbours: How many vote; all training clips where there are fewer.
        temperature: The lower, the more the nearest count.
        balanced: Divide the votes for a class by its number of training clips.
    """

    branches = 1
    layout = None
    trainable = False
    clips: Tensor
    targets: Tensor

    def __init__(
        self, dim: int, classes: int, *, neighbours: int = 20, temperature: float = 0.07, balanced: bool = False
    ) -> None:
        super().__init__()
        check_at_least(1, "knn", neighbours=neighbours)
        check_above_zero("knn", temperature=temperature)
        self.neighbours = neighbours
        self.temperature = temperature
        self.balanced = balanced
        self.register_buffer("clips", torch.zeros(0, dim))  #: ``(N, D)``, each of length 1.
        self.register_buffer("targets", torch.zeros(0, classes))  #: ``(N, C)``

    @property
    def output(self) -> Output:
        raise LongreelError("knn has no last layer to adjust or train anew. Take another head for this method.")

    def remember(self, clips: Tensor, targets: Tensor) -> None:
        """Take the training clips ``(N, D)``, as ``aggregate`` gives them, and their targets ``(N, C)``."""
        self.clips = F.normalize(clips, dim=-1).to(self.clips)
        self.targets = targets.to(self.targets)

    def aggregate(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(B, T, D)`` -> ``(B, D)``: the mean frame; ``(V, B, D)`` for V views."""
        return masked_mean(frames, mask)

    @torch.no_grad()
    def classify(self, clips: Tensor) -> Tensor:
        """``(..., D)`` -> ``(..., C)``: each class's part of the votes.

        Raises:
            LongreelError: When there are no training clips to compare with, or a clip is not finite.
        """
        if len(self.clips) == 0:
            raise LongreelError("knn remembers no training clips yet, so it has nothing to compare with.")
        similarities, nearest = self._search(F.normalize(clips.flatten(0, -2), dim=-1))
        votes = (similarities / self.temperature).softmax(dim=-1)  # (B, k)
        scores = torch.bmm(votes[:, None], self.targets[nearest])[:, 0]
        if self.balanced:
            scores = scores / self.targets.sum(dim=0).clamp(min=1)
        return scores.view(*clips.shape[:-1], -1)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.classify(self.aggregate(frames, mask))

    def prepare(self, draw_rows: Callable[[], Tensor], seed: int) -> None:
        """Nothing comes from rows without their targets."""

    def explain(self, frames: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Empty: every frame counts alike."""
        return {}

    def _search(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Similarities and places of the nearest training clips, ``(B, k)`` each, the nearest first."""
        import faiss  # slow to load, and for this head alone

        base, most = self.clips.float().cpu().numpy(), min(self.neighbours, len(self.clips))
        padded = F.pad(clips.float().cpu(), (0, 0, 0, -len(clips) % QUERIES_AT_ONCE))
        before, faiss.cvar.distance_compute_blas_threshold = faiss.cvar.distance_compute_blas_threshold, NO_BLAS
        try:
            found = [
                faiss.knn(block.numpy(), base, most, metric=faiss.METRIC_INNER_PRODUCT)
                for block in padded.split(QUERIES_AT_ONCE)
            ]
        finally:
            faiss.cvar.distance_compute_blas_threshold = before
        similarities, nearest = (torch.cat([torch.from_numpy(pair[side]) for pair in found]) for side in (0, 1))
        if (nearest[: len(clips)] < 0).any():
            raise LongreelError("knn: a clip has features that are not finite numbers. Extract it anew.")
        return similarities[: len(clips)].to(clips), nearest[: len(clips)].to(clips.device)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest) -> None:
        """Make room for however many clips the saved head remembers."""
        for name in ("clips", "targets"):
            if (saved := state_dict.get(prefix + name)) is not None:
                buffer = getattr(self, name)
                setattr(self, name, buffer.new_zeros((len(saved), *buffer.shape[1:])))
        super()._load_from_state_dict(state_dict, prefix, *rest)
