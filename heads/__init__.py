"""Heads: what is trained on top of cached features. Pure modules, chosen from the dict below."""

from collections.abc import Callable

from torch import Tensor

from ..errors import LongreelError
from ..layouts import Layout
from ..parts import build_part
from .aggregated import aggregated
from .attention import msa, psa
from .attentive import attentive
from .graph import gcn_lite
from .head import Head
from .joint_mlp import joint_mlp
from .neighbours import Neighbours
from .netvlad import netvlad, netvlad_gated
from .nonlinear import Nonlinear
from .pooled import Pooled
from .probes import cosine, linear, nonlinear_early
from .standardised import Standardised

__all__ = ["HEADS", "SKELETON_HEADS", "Head", "Neighbours", "Nonlinear", "Pooled", "Standardised", "build_head"]

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
#: name -> head of skeletons, called as ``make(layout, dim, classes)``.
SKELETON_HEADS: dict[str, Callable[..., Head]] = {"joint-mlp": joint_mlp, "gcn-lite": gcn_lite}


def build_head(
    text: str, dim: int, classes: int, mean: Tensor, deviation: Tensor, layout: Layout | None = None
) -> Standardised:
    """The head that a text names, such as ``netvlad:clusters=32``, behind a standardisation of its input.

    Args:
        text: A key of ``HEADS``, and options behind a colon.
        dim: Width of a feature row, ``D``.
        classes: Number of classes, ``C``.
        mean, deviation: Of the training rows, each ``(D,)``; zeros and ones leave features as they are.
        layout: Of the joints, where rows are skeletons.

    Raises:
        LongreelError: When there is no such head or option, a value cannot be used, or a head of skeletons is asked for
            and rows are none.
    """
    name = text.partition(":")[0]
    if name not in SKELETON_HEADS:
        head = build_part("head", HEADS | SKELETON_HEADS, text, dim, classes)
    elif layout is not None:
        head = build_part("head", SKELETON_HEADS, text, layout, dim, classes)
    else:
        raise LongreelError(f"{name} takes skeletons, and the store has none. `longreel import-skeletons` makes one.")
    return Standardised(head, mean, deviation)
