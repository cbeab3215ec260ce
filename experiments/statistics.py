"""How sure a figure is: bootstrap intervals over seeds and clips, sign-flip tests over seeds, Holm's correction.

A run's figure moves with its seed and with the clips the test split happens to hold; both are resampled here.
Axis letters: S seeds, N clips, C classes, W draws, M metrics.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .metrics import Evaluation, evaluate_draws

Floats = NDArray[np.float64]
Groups = Mapping[str, Sequence[int]] | None
Metric = Callable[[Evaluation], float]

EXACT_SEEDS = 16  #: Up to this many seeds the sign-flip test counts all sign patterns.
_FLIPS = 20_000  # random sign patterns above that


@dataclass(frozen=True)
class Interval:
    """A figure with its interval; NaN where it cannot be computed."""

    value: float  #: From the clips as they are, not the mean of the draws.
    low: float
    high: float


def hierarchical_bootstrap(
    scores: Sequence[ArrayLike],
    targets: ArrayLike,
    groups: Groups,
    metrics: Mapping[str, Metric],
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """TODO"""
    values = _metric_draws(scores, targets, groups, metrics, draws, seed)
    return _intervals(values, metrics, seed, level)


def paired_difference(
    scores_a: Sequence[ArrayLike],
    scores_b: Sequence[ArrayLike],
    targets: ArrayLike,
    groups: Groups,
    metrics: Mapping[str, Metric],
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """TODO"""
    if len(scores_a) != len(scores_b):
        raise ValueError(
            f"seeds are compared in pairs: got {len(scores_a)} of one method and {len(scores_b)} of the other"
        )
    ours = _metric_draws(scores_a, targets, groups, metrics, draws, seed)
    theirs = _metric_draws(scores_b, targets, groups, metrics, draws, seed)
    return _intervals(ours - theirs, metrics, seed, level)


def _metric_draws(scores, targets, groups, metrics, draws, seed) -> Floats:
    """``(M, S, 1 + W)`` metrics of each seed: first on the clips as they are, then on each draw of them."""
    counts = clip_draws(np.asarray(targets), draws, np.random.default_rng([seed, 0]))
    counts = np.concatenate([np.ones_like(counts[:1]), counts])
    by_seed = []
    for run in scores:
        evaluations = evaluate_draws(run, targets, groups, counts)
        by_seed.append([[metric(evaluation) for evaluation in evaluations] for metric in metrics.values()])
    return np.array(by_seed).swapaxes(0, 1)


SCALE = None


def _intervals(values, metrics, seed, level):
    seeds, draws = values.shape[1], values.shape[2] - 1
    picks = np.random.default_rng([seed, 1]).integers(seeds, size=(draws, seeds))
    tail = (1 - level) / 2
    result = {}
    for name, table in zip(metrics, values, strict=True):
        plain, drawn = table[:, 0], table[:, 1:]
        resampled = drawn[picks, np.arange(draws)[:, None]].mean(axis=1)
        if SCALE is not None:
            resampled = drawn.mean(axis=0) + SCALE(seeds) * (resampled - drawn.mean(axis=0))
        usable = resampled[~np.isnan(resampled)]
        low, high = np.quantile(usable, [tail, 1 - tail]) if len(usable) else (np.nan, np.nan)
        result[name] = Interval(float(plain.mean()), float(low), float(high))
    return result


def clip_draws(targets, draws, generator):
    counts = np.zeros((draws, len(targets)), np.uint16)
    frequency = targets.sum(axis=0)
    rarest = np.where(targets, frequency, len(targets) + 1).argmin(axis=1)
    stratum = np.where(targets.any(axis=1), rarest, -1)
    for name in np.unique(stratum):
        members = np.flatnonzero(stratum == name)
        picks = generator.integers(len(members), size=(draws, len(members))) + len(members) * np.arange(draws)[:, None]
        counts[:, members] = np.bincount(picks.ravel(), minlength=draws * len(members)).reshape(draws, -1)
    return counts
