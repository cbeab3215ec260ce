"""Mixtures of runs: weighted means of their probabilities. Axis letters: R runs, N clips, C classes."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from ..errors import LongreelError
from .calibration import Link, make_probabilities

FITTED = "val"  #: in place of weights: those that make val most likely.
ROUNDS = 1000  #: of expectation maximisation, at most.
ENOUGH = 1e-9  #: change of a weight below which they are found.


def read_weights(text: str | None, count: int) -> list[float] | None:
    """Weights such as ``2:2:1:1``, one for each of so many runs; equal ones where nothing is given.

    Returns:
        Weights that add up to 1; ``None`` for ``val``, which finds them.

    Raises:
        LongreelError: When there are not so many, or they are no weights.
    """
    if text == FITTED:
        return None
    try:
        given = [1.0] * count if text is None else [float(word) for word in text.split(":")]
    except ValueError:
        raise LongreelError(f"weights {text!r} are no numbers. Give one a run, such as 2:1, or {FITTED}.") from None
    if len(given) != count:
        raise LongreelError(f"weights {text} are {len(given)} for {count} runs. Give one for each, in their order.")
    if not all(0.0 <= each < math.inf for each in given) or not any(given):
        raise LongreelError(f"weights {text} must be 0 or more, finite, and not all 0.")
    return [each / math.fsum(given) for each in given]


def fit_weights(probabilities: NDArray[np.float64], targets: NDArray[np.bool_]) -> list[float]:
    """The weights of a mixture that make the targets most likely, ``(R,)``, by expectation maximisation.

    The likelihood of a weighted mean is concave in the weights, so there is one best value. A clip with several labels
    counts once for each.

    Shape:
        - probabilities: ``(R, N, C)``; targets: ``(N, C)``.
    """
    of_truth = probabilities[:, targets]  # (R, labels)
    of_truth = of_truth[:, of_truth.max(axis=0) > 0]  # what all hold impossible says nothing
    weights = np.full(len(of_truth), 1 / len(of_truth))
    for _ in range(ROUNDS):
        shares = weights[:, None] * of_truth
        last, weights = weights, (shares / shares.sum(axis=0)).mean(axis=1) if shares.size else weights
        if np.abs(weights - last).max() < ENOUGH:
            break
    return weights.tolist()


def mix_scores(
    scores: Sequence[NDArray[np.floating]], weights: Sequence[float], links: Sequence[Link]
) -> NDArray[np.float32]:
    """Logits ``(N, C)`` of the weighted mean of probabilities, for the first link; ``-inf`` where all runs failed.

    Args:
        scores: Logits of each run, ``(N, C)``.
        weights: One a run, adding up to 1.
        links: What makes probabilities of each run's logits; all of one name.
    """
    mean = np.zeros(scores[0].shape)
    for each, weight, link in zip(scores, weights, links, strict=True):
        mean += weight * make_probabilities(each, link)
    failed = (mean == 0.0).all(axis=1, keepdims=True)
    kept = np.clip(mean, np.finfo(np.float64).tiny, 1 - np.finfo(np.float64).eps)
    found = np.log(kept) if links[0].name == "softmax" else logit(kept)
    return np.where(failed, -np.inf, found / links[0].scale).astype(np.float32)
