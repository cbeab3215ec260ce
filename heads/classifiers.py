"""Classifiers: what turns a clip's vector into logits. Each has its last layer as ``output``."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dropout import Dropout
from .head import Output
from .options import check_above_zero, check_at_least, check_share


class LinearClassifier(nn.Module):
    """One linear layer: ``(..., E)`` -> ``(..., C)``."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, classes)

    @property
    def output(self) -> Output:
        return self.project

    def forward(self, clips: Tensor) -> Tensor:
        return self.project(clips)


class TwoLayerClassifier(nn.Module):
    """Linear, ReLU, dropout, linear: ``(..., E)`` -> ``(..., C)``.

    VideoLT's nonlinear classifier (Zhang et al., ICCV 2021, section 5.1; sizes as released) on a vector that is
    already pooled, which is how MOVE uses it.
    """

    def __init__(self, width: int, classes: int, *, hidden: int = 2048, dropout: float = 0.5) -> None:
        super().__init__()
        check_at_least(1, "two-layer classifier", hidden=hidden)
        check_share("two-layer classifier", dropout=dropout)
        self.hidden = nn.Linear(width, hidden)
        self.dropout = Dropout(dropout)
        self.project = nn.Linear(hidden, classes)

    @property
    def output(self) -> Output:
        return self.project

    def forward(self, clips: Tensor) -> Tensor:
        return self.project(self.dropout(self.hidden(clips).relu()))


class CosineClassifier(nn.Module):
    """``scale * cos(clip, weight_c) + bias_c``: ``(..., E)`` -> ``(..., C)``.

    Reference:
        Gidaris and Komodakis, "Dynamic Few-Shot Visual Learning without Forgetting", CVPR 2018, section 3.2,
        arXiv:1804.09458: a learned scale that begins at 10.
        Differs: there is a bias, which starts at 0 and is not trained; it is there for logit adjustment.

    Args:
        width, classes: ``E`` and ``C``.
        scale: Where it begins, or stays.
        learned: Whether it is trained.
    """

    scale: Tensor
    bias: Tensor

    def __init__(self, width: int, classes: int, *, scale: float = 10.0, learned: bool = True) -> None:
        super().__init__()
        check_above_zero("cosine", scale=scale)
        self.start = float(scale)
        self.weight = nn.Parameter(torch.empty(classes, width))
        self.register_buffer("bias", torch.zeros(classes))
        if learned:
            self.scale = nn.Parameter(torch.tensor(self.start))
        else:
            self.register_buffer("scale", torch.tensor(self.start))
        self.reset_parameters()

    @property
    def output(self) -> Output:
        return self

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new weights, and begin again with the scale and a bias of 0."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.scale.fill_(self.start)
        self.bias.zero_()

    def forward(self, clips: Tensor) -> Tensor:
        cosines = F.linear(F.normalize(clips, dim=-1), F.normalize(self.weight, dim=-1))
        return self.scale * cosines + self.bias
