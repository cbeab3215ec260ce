"""Heads: what is trained on top of cached features. Pure modules, chosen from the dict below."""

from collections.abc import Callable

from torch import Tensor

from ..errors import unknown
from .head import Head
from .nonlinear import Nonlinear
from .standardised import Standardised

__all__ = ["HEADS", "Head", "Nonlinear", "Standardised", "build_head"]

#: name -> head, called as ``make(dim, classes)``.
HEADS: dict[str, Callable[[int, int], Head]] = {
    "nonlinear": Nonlinear,
}


def build_head(name: str, dim: int, classes: int, mean: Tensor, deviation: Tensor) -> Standardised:
    """The head of that name behind a standardisation of its input.

    Args:
        name: A key of ``HEADS``.
        dim: Width of a feature row, ``D``.
        classes: Number of classes, ``C``.
        mean, deviation: Of the training rows, each ``(D,)``; zeros and ones leave features as they are.

    Raises:
        LongreelError: When there is no such head.
    """
    if name not in HEADS:
        raise unknown("head", name, HEADS)
    return Standardised(HEADS[name](dim, classes), mean, deviation)
