"""Average precision: of one class or of all, in float64, with equal scores as equals.

Axis letters: N clips, C classes, W rows of weights.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_LINE = 16  # float32 that fill a line of the cache
_COLUMNS_AT_ONCE = 4 * _LINE  # of a transposed block
_ENTRIES_AT_ONCE = 1 << 16  # of a bin count over several rows of weights: fits a core's cache


def average_precision(scores: ArrayLike, positives: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Average precision of one class: the sum over thresholds of precision times the gain in recall.

    Clips with equal scores enter together, at one threshold. This equals ``sklearn.metrics.average_precision_score``,
    also with ``sample_weight``, except that infinite scores are allowed and that a class without positives is NaN.

    Args:
        scores: ``(N,)``; higher means more likely. ``-inf`` is allowed.
        positives: ``(N,)`` bool.
        weights: ``(N,)``, finite, not negative; ``None`` is one for each.

    Raises:
        ValueError: For NaN scores, unequal lengths, positives that are not bool, or bad weights.

    >>> average_precision([0.9, 0.8, 0.7], [True, False, True])
    0.8333333333333333
    """
    column, truth = np.asarray(scores), np.asarray(positives)
    if column.ndim != 1:
        raise ValueError(f"scores of one class are one row of numbers, got shape {column.shape}")
    table = None if weights is None else np.asarray(weights)[None]
    return float(average_precisions(column[:, None], truth[..., None], table)[0, 0])


def average_precisions(
    scores: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None, threads: int = 1
) -> Floats:
    """:func:`average_precision` of every class under every row of weights, ``(W, C)``.

    Only the scores of positives are thresholds that count. Without weights a class costs one sort; with them one
    ``searchsorted`` of its N scores among the thresholds, done once, and one bin count per row of weights. VideoLT's
    test split (51 239 clips, 1 004 classes) takes about 1 second on one core without weights, 6 with a row of
    them, and 0.1 for each further one.

    Args:
        scores: ``(N, C)``.
        targets: ``(N, C)`` bool.
        weights: ``(W, N)``, finite, not negative; ``None`` is one row of ones.
        threads: That compute, some classes at a time; no bit depends on it.

    Raises:
        ValueError: As in :func:`average_precision`.
    """
    values, truth = checked(scores, targets)
    table = None if weights is None else checked_weights(weights, len(values))
    size = min(_COLUMNS_AT_ONCE, max(_LINE, -(-values.shape[1] // threads)))

    def compute(start: int) -> list[Floats]:
        """``(W,)`` for each class of a block, transposed as a whole: columns lie far apart."""
        block = slice(start, start + size)
        columns = zip(values[:, block].T.copy(), truth[:, block].T.copy(), strict=True)
        if table is None:
            return [np.array([_plain_precision(*column)]) for column in columns]
        return [_class_precision(*column, table) for column in columns]

    with ThreadPoolExecutor(threads) as pool:
        blocks = pool.map(compute, range(0, values.shape[1], size))
        return np.stack([of_class for block in blocks for of_class in block], axis=1)


def _plain_precision(scores: NDArray, positives: Bools) -> float:
    """Average precision of one class, every clip counting once: scores ``(N,)``, positives ``(N,)``."""
    thresholds, gained = np.unique(scores[positives], return_counts=True)  # ascending
    if len(thresholds) == 0:
        return math.nan
    ranked = np.sort(scores[scores >= thresholds[0]])
    retrieved = len(ranked) - np.searchsorted(ranked, thresholds, side="left")
    found = gained[::-1].cumsum()[::-1]
    return float((gained * found / retrieved).sum() / found[0])


def _class_precision(scores: NDArray, positives: Bools, weights: NDArray) -> Floats:
    """``(W,)`` average precision of one class: scores ``(N,)``, positives ``(N,)``, weights ``(W, N)``."""
    thresholds = np.unique(scores[positives])  # ascending; a threshold without positives adds nothing
    bins = np.searchsorted(thresholds, scores, side="right")  # 0: below the lowest positive
    retrieved = binned_sums(bins, weights, len(thresholds) + 1)[:, :0:-1].cumsum(axis=1)
    gained = binned_sums(bins[positives], weights[:, positives], len(thresholds) + 1)[:, :0:-1]
    found = gained.cumsum(axis=1)
    precision = np.divide(found, retrieved, out=np.zeros_like(found), where=retrieved > 0)
    return ratio((gained * precision).sum(axis=1), gained.sum(axis=1))


def binned_sums(bins: NDArray[np.int64], weights: NDArray, count: int) -> Floats:
    """``(W, count)`` sums of the weights ``(W, M)`` in each bin; ``bins`` ``(M,)`` is the same for all rows."""
    sums = np.zeros((len(weights), count))
    step = max(1, _ENTRIES_AT_ONCE // max(1, len(bins)))
    for start in range(0, len(weights), step):
        block = weights[start : start + step]
        places = bins if len(block) == 1 else (bins + count * np.arange(len(block))[:, None]).ravel()
        sums[start : start + step] = np.bincount(places, block.ravel(), count * len(block)).reshape(-1, count)
    return sums


def ratio(above: Floats, below: Floats) -> Floats:
    """One by the other; NaN where ``below`` is not above 0."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def checked(scores: ArrayLike, targets: ArrayLike) -> tuple[NDArray, Bools]:
    """Scores and targets as arrays ``(N, C)``; a ``ValueError`` says what is wrong with them."""
    values, truth = np.asarray(scores), np.asarray(targets)
    if values.ndim != 2 or values.shape[1] == 0 or values.shape != truth.shape:
        raise ValueError(f"scores and targets must both be (clips, classes): got {values.shape} and {truth.shape}")
    if truth.dtype != np.bool_:
        raise ValueError(f"targets must be bool, one column per class: got {truth.dtype}")
    if np.isnan(values).any():
        rows = np.flatnonzero(np.isnan(values).any(axis=1))
        raise ValueError(f"{len(rows)} of {len(values)} clips have NaN scores, the first in row {rows[0]}")
    return values, truth


def checked_weights(weights: ArrayLike | None, clips: int) -> NDArray:
    """Weights ``(W, N)``, one row of ones for ``None``; a ``ValueError`` says what is wrong with them."""
    table = np.ones((1, clips)) if weights is None else np.asarray(weights)
    if table.ndim != 2 or table.shape[1] != clips:
        raise ValueError(f"one weight per clip: got shape {table.shape[1:]} for {clips} clips")
    if not np.isfinite(table).all() or (table < 0).any():
        raise ValueError("weights must be finite and not negative")
    return table
