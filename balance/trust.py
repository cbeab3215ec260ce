"""How far the labels of generated clips are trusted; real clips always are.

The uncertainty of a generated clip lies between 0 and 1: the entropy over the class names that a model of pictures and
text gives it, normalised over the data set (``longreel generate inspect``). Axis letters: N clips, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..errors import LongreelError


@dataclass(frozen=True)
class Trusted:
    """What training clips count for."""

    targets: Tensor  #: ``(N, C)``, soft where a label is not wholly trusted.
    weights: Tensor | None = None  #: ``(N,)`` of the losses; ``None``: all 1.
    kept: Tensor | None = None  #: ``(N,)`` bool, whether the clip is drawn at all; ``None``: all.


class Trust(Protocol):
    """Shape: targets ``(N, C)`` multi-hot, generated ``(N,)`` bool, uncertainty ``(N,)``, NaN where it is not known."""

    @property
    def needs_uncertainty(self) -> bool:
        """Whether every generated clip must have one."""
        ...

    def __call__(self, targets: Tensor, generated: Tensor, uncertainty: Tensor) -> Trusted: ...


@dataclass(frozen=True)
class Full:
    """Generated clips count like real ones."""

    needs_uncertainty = False

    def __call__(self, targets: Tensor, generated: Tensor, uncertainty: Tensor) -> Trusted:
        return Trusted(targets)


@dataclass(frozen=True)
class Smoothing:
    """A label is worth ``1 - eps``, and each other class ``eps / (C - 1)``; on generated clips alone.

    Reference:
        The constant label smoothing (LS) that Li et al., arXiv:2505.19495, compare with. Theirs is not the usual
        ``eps / C`` for all classes.
    """

    eps: float = 0.1
    needs_uncertainty = False

    def __post_init__(self) -> None:
        _check_share("smoothing", "eps", self.eps)

    def __call__(self, targets: Tensor, generated: Tensor, uncertainty: Tensor) -> Trusted:
        return Trusted(_smooth(targets, self.eps * generated.float()))


@dataclass(frozen=True)
class UncertaintySmoothing:
    """``Smoothing`` with ``eps = w u`` by each clip's uncertainty.

    Reference:
        Li et al., arXiv:2505.19495, eq. (3) to (5): uncertainty-based label smoothing (UL), ``w = 0.3``.
    """

    w: float = 0.3
    needs_uncertainty = True

    def __post_init__(self) -> None:
        _check_share("uncertainty-smoothing", "w", self.w)

    def __call__(self, targets: Tensor, generated: Tensor, uncertainty: Tensor) -> Trusted:
        return Trusted(_smooth(targets, self.w * torch.where(generated, uncertainty, 0.0)))


@dataclass(frozen=True)
class UncertaintyWeighting:
    """The loss of a generated clip counts ``1 - w u``.

    Reference:
        The weighting (UW) that Li et al., arXiv:2505.19495, compare with; they give no formula.
    """

    w: float = 1.0
    needs_uncertainty = True

    def __post_init__(self) -> None:
        _check_share("uncertainty-weighting", "w", self.w)

    def __call__(self, targets: Tensor, generated: Tensor, uncertainty: Tensor) -> Trusted:
        return Trusted(targets, weights=1.0 - self.w * torch.where(generated, uncertainty, 0.0))


@dataclass(frozen=True)
class UncertaintyFilter:
    """Generated clips of an uncertainty above ``most`` are not drawn.

    Reference:
        The filtering (UF) that Li et al., arXiv:2505.19495, compare with; they give no threshold.
    """

    most: float = 0.5
    needs_uncertainty = True

    def __post_init__(self) -> None:
        _check_share("uncertainty-filter", "most", self.most)

    def __call__(self, targets: Tensor, generated: Tensor, uncertainty: Tensor) -> Trusted:
        return Trusted(targets, kept=~generated | (uncertainty <= self.most))


def _smooth(targets: Tensor, eps: Tensor) -> Tensor:
    """``(N, C)`` labels and ``(N,)`` shares -> soft labels."""
    share = eps[:, None]
    return torch.where(targets > 0, targets * (1.0 - share), share / max(targets.shape[1] - 1, 1))


def _check_share(name: str, key: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise LongreelError(f"{name}: {key}={value:g} must lie between 0 and 1.")


#: name -> trust. docs/generation.md has sources and differences.
TRUSTS: dict[str, Callable[..., Trust]] = {
    "full": Full,
    "smoothing": Smoothing,
    "uncertainty-smoothing": UncertaintySmoothing,
    "uncertainty-weighting": UncertaintyWeighting,
    "uncertainty-filter": UncertaintyFilter,
}
