"""How sure a CLIP model is of what a clip shows: entropy over the class names, and agreement with its label."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import unknown

Floats = NDArray[np.float64]
RULES = {
    "min-max": "(H - lo) / (hi - lo), lo and hi being the least and largest of the generated clips",
    "log-classes": "H / log C",
}


@dataclass(frozen=True)
class Bounds:
    """The entropies, in nats, that become uncertainty 0 and 1."""

    lo: float
    hi: float


def log_probabilities(clips: NDArray, texts: NDArray, scale: float) -> Floats:
    """The logarithm of each class's probability: log-softmax over the class names of ``scale`` times the cosine.

    Reference:
        The ``S`` of Li et al., "The Role of Video Generation in Enhancing Data-Limited Action Understanding", 2025,
        section 3.4, arXiv:2505.19495, which leaves the temperature open; here it is the model's own,
        ``exp(logit_scale)`` (Radford et al., "CLIP", ICML 2021, figure 3): without it every clip has nearly the
        entropy ``log C``.

    Shape:
        - clips: ``(B, D)``, texts: ``(C, D)``, all of length 1.
        - output: ``(B, C)``.
    """
    logits = scale * (clips.astype(np.float64) @ texts.astype(np.float64).T)  # (B, C)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def entropies(logs: Floats) -> Floats:
    """``H = -sum S log S`` in nats (Li et al., eq. (3)), from log-probabilities: ``(B, C)`` -> ``(B,)``."""
    return np.abs(np.einsum("bc,bc->b", np.exp(logs), logs))  # no minus zero


def agreements(logs: Floats, labels: NDArray[np.bool_]) -> Floats:
    """The probability of a clip's own classes together: ``(B, C)``, ``(B, C)`` -> ``(B,)``."""
    return np.where(labels, np.exp(logs), 0.0).sum(axis=1)


def margins(logs: Floats) -> Floats:
    """The largest probability minus the one behind it: ``(B, C)`` -> ``(B,)``; 1 where there is a single class."""
    if logs.shape[1] == 1:
        return np.ones(len(logs))
    two = np.exp(np.partition(logs, -2, axis=1)[:, -2:])  # (B, 2)
    return two[:, 1] - two[:, 0]


def find_bounds(entropy: Floats, rule: str, classes: int) -> Bounds:
    """What a rule of ``RULES`` takes for 0 and 1.

    The paper normalises "after calculating the uncertainty of all samples" and does not say how; min-max over the data
    set is what that says most literally. It depends on which clips there are, so keep the bounds that were found first.

    Raises:
        LongreelError: When there is no such rule.
    """
    if rule not in RULES:
        raise unknown("way to normalise", rule, RULES)
    if rule == "log-classes":
        return Bounds(0.0, math.log(classes))
    return Bounds(float(entropy.min()), float(entropy.max()))


def normalise(entropy: Floats, bounds: Bounds) -> Floats:
    """Uncertainty in [0, 1]: ``(H - lo) / (hi - lo)``, clipped; ``(B,)`` -> ``(B,)``.

    Where ``hi`` is not above ``lo`` no clip is known to be less sure than another, and all are 0.
    """
    if not bounds.hi > bounds.lo:
        return np.zeros_like(entropy)
    return np.clip((entropy - bounds.lo) / (bounds.hi - bounds.lo), 0.0, 1.0)
