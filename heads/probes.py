"""Heads on the plain mean of a clip's frames."""

from .classifiers import CosineClassifier, LinearClassifier, TwoLayerClassifier
from .pooled import Mean, Pooled


def linear(dim: int, classes: int) -> Pooled:
    """One linear layer on the mean: the linear probe."""
    return Pooled(Mean(dim), LinearClassifier(dim, classes))


def cosine(dim: int, classes: int, *, scale: float = 10.0, learned: bool = True) -> Pooled:
    """Cosine similarity of the mean to one direction a class."""
    return Pooled(Mean(dim), CosineClassifier(dim, classes, scale=scale, learned=learned))


def nonlinear_early(dim: int, classes: int, *, hidden: int = 2048, dropout: float = 0.5) -> Pooled:
    """Two layers on the mean: VideoLT's nonlinear head with the average before it, a switch its released code has."""
    return Pooled(Mean(dim), TwoLayerClassifier(dim, classes, hidden=hidden, dropout=dropout))
