"""Heads: what is trained on top of cached features. Pure modules, chosen from the dict below."""

from collections.abc import Callable

from torch import Tensor

from ..parts import build_part
from .aggregated import aggregated
from .attention import msa, psa
from .attentive import attentive
from .head import Head
from .neighbours import Neighbours
from .netvlad import netvlad, netvlad_gated
from .nonlinear import Nonlinear
from .pooled import Pooled
from .probes import cosine, linear, nonlinear_early
from .standardised import Standardised

__all__ = ["HEADS", "Head", "Neighbours", "Nonlinear", "Pooled", "Standardised", "build_head"]

#: name -> head, called as ``make(dim, classes)`` with options of its own. docs/heads.md has options and sources.
HEADS: dict[str, Callable[..., Head]] = {
    "nonlinear": Nonlinear,
    "nonlinear-early": nonlinear_early,
    "linear": linear,
    "cosine": cosine,
    "netvlad": netvlad,
    "netvlad-gated": netvlad_gated,
    "psa": psa,
    "msa": msa,
    "aggregated": aggregated,
    "attentive": attentive,
    "knn": Neighbours,
}


def build_head(text: str, dim: int, classes: int, mean: Tensor, deviation: Tensor) -> Standardised:
    """The head that a text names, such as ``netvlad:clusters=32``, behind a standardisation of its input.

    Args:
        text: A key of ``HEADS``, and options behind a colon.
        dim: Width of a feature row, ``D``.
        classes: Number of classes, ``C``.
        mean, deviation: Of the training rows, each ``(D,)``; zeros and ones leave features as they are.

    Raises:
        LongreelError: When there is no such head or option, or a value cannot be used.
    """
    return Standardised(build_part("head", HEADS, text, dim, classes), mean, deviation)
