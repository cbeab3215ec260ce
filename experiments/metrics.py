"""From scores and true labels to figures: average precision, hit rates, class averages, each overall and per group.

Everything is computed in float64, ignores the order of the clips, and treats equal scores as equal: no figure depends
on how a sort happens to break a tie. Axis letters: N clips, C classes, W rows of weights.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .precision import Bools, Floats, average_precisions, binned_sums, checked, checked_weights, ratio

_ROWS_AT_ONCE = 2048  # bounds the working memory of hits_at


@dataclass(frozen=True)
class Summary:
    """The figures of all classes, or of one group of them. A figure that cannot be computed is NaN."""

    acc1: float  #: Share of clips with a true label as the highest score.
    acc5: float  #: Share of clips with a true label among the five highest scores.
    class_average: float  #: Mean of the classes' accuracies.
    map: float  #: Mean of the classes' average precisions.
    classes: int  #: Classes in the group, with or without a positive clip.
    clips: int  #: Clips with at least one label in the group: those behind ``acc1`` and ``acc5``.
    empty_classes: int  #: Classes without a positive clip: left out of ``class_average`` and ``map``.


@dataclass(frozen=True)
class ClassFigures:
    """One entry per class, NaN where the class has no positive clip."""

    ap: Floats  #: ``(C,)`` average precision.
    accuracy: Floats  #: ``(C,)`` share of the class's clips whose highest score is one of their true labels.
    positives: NDArray[np.int64]  #: ``(C,)`` clips that have the label.


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate_scores` finds."""

    overall: Summary
    groups: dict[str, Summary]
    classes: ClassFigures


def hits_at(scores: ArrayLike, targets: ArrayLike, k: int) -> Floats:
    """For each clip, the chance that one of its true labels is among its ``k`` highest scores, ``(N,)``.

    Ties at the boundary are broken at random, each way alike, and the chance is exact: with ``n`` equal scores for
    the last ``s`` places and ``m`` true labels among them, the miss has the hypergeometric probability ``C(n - m, s)
    / C(n, s)``. Constant scores thus earn what guessing earns. With ``k`` of C or more every labelled clip is a hit.
    A row that is ``-inf`` throughout stands for a clip that could not be decoded: never a hit. Nor is a clip without
    labels.

    Args:
        scores: ``(N, C)``.
        targets: ``(N, C)`` bool.
        k: Places, at least 1.

    Raises:
        ValueError: For NaN scores, unequal shapes, targets that are not bool, or ``k`` below 1.

    >>> hits_at([[2.0, 1.0, 1.0]], [[False, True, False]], k=2)
    array([0.5])
    """
    values, truth = checked(scores, targets)
    if k < 1:
        raise ValueError(f"hits at k need k of 1 or more, got {k}")
    hits = np.zeros(len(values))
    for start in range(0, len(values), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        hits[rows] = _row_hits(values[rows], truth[rows], min(k, values.shape[1]))
    return hits


def mean_average_precision(scores: ArrayLike, targets: ArrayLike, threads: int = 1) -> float:
    """``overall.map`` of :func:`evaluate_scores` by itself, in half the time.

    Args:
        scores: ``(N, C)``.
        targets: ``(N, C)`` bool.
        threads: That compute; no bit depends on it.

    Raises:
        ValueError: As in :func:`evaluate_scores`.
    """
    found = average_precisions(scores, targets, threads=threads)  # (1, C)
    return float(_mean_where(found, ~np.isnan(found))[0])


def evaluate_scores(
    scores: ArrayLike,
    targets: ArrayLike,
    groups: Mapping[str, Sequence[int]] | None = None,
    weights: ArrayLike | None = None,
) -> Evaluation:
    """All figures of one set of scores.

    ``acc1`` and ``acc5`` are means over clips: over those with any label, and in a group over those with a label in
    it. A clip counts as a hit by any of its true labels, in the group or not. A class's accuracy is the mean ``acc1``
    hit of its clips: its recall where each clip has one label. ``class_average`` and ``map`` are means over the
    classes that have positives.

    Differs from the meter of the VideoLT code, which gives a class without positives an AP of 0 and leaves ties to
    the sort.

    Args:
        scores: ``(N, C)``; a row of ``-inf`` for a clip that could not be decoded.
        targets: ``(N, C)`` bool.
        groups: Class indices by group name; groups may overlap and need not cover all classes.
        weights: ``(N,)`` how often each clip counts: whole numbers, not negative. The same as repeating the rows.

    Raises:
        ValueError: For NaN scores, unequal shapes, targets that are not bool, bad weights, or bad class indices.
    """
    table = None if weights is None else np.asarray(weights)[None]
    return evaluate_draws(scores, targets, groups, table)[0]


def evaluate_draws(
    scores: ArrayLike,
    targets: ArrayLike,
    groups: Mapping[str, Sequence[int]] | None = None,
    weights: ArrayLike | None = None,
) -> list[Evaluation]:
    """:func:`evaluate_scores` under each row of ``weights`` ``(W, N)``, for much less than W times its cost.

    Sorting and ranking are done once for all rows. Integer weights may be of any width and are never widened as a
    whole.

    Raises:
        ValueError: As in :func:`evaluate_scores`.
    """
    values, truth = checked(scores, targets)
    table = checked_weights(weights, len(values))
    if table.dtype.kind == "f" and (table % 1).any():
        raise ValueError("clip weights say how often a clip counts: they must be whole numbers")
    everything = np.arange(values.shape[1])
    parts = {name: _checked_group(name, ids, values.shape[1]) for name, ids in (groups or {}).items()}

    hits = np.stack([hits_at(values, truth, 1), hits_at(values, truth, 5)], axis=1)  # (N, 2)
    clips, labels = np.nonzero(truth)
    positives = binned_sums(labels, table[:, clips], len(everything))  # (W, C)
    hit = np.stack([np.bincount(labels, row[clips] * hits[clips, 0], len(everything)) for row in table])
    accuracy, counts = ratio(hit.astype(np.float64), positives), positives.astype(np.int64)
    classes = ClassFigures(average_precisions(values, truth, weights), accuracy, counts)  # each (W, C)
    overall = _summaries(everything, truth, table, hits, classes)
    by_group = {name: _summaries(ids, truth, table, hits, classes) for name, ids in parts.items()}
    return [
        Evaluation(
            overall[w],
            {name: rows[w] for name, rows in by_group.items()},
            ClassFigures(classes.ap[w], accuracy[w], counts[w]),
        )
        for w in range(len(table))
    ]


def as_json(evaluation: Evaluation) -> dict[str, object]:
    """The overall and group figures as plain values for a JSON file; NaN becomes ``None``."""
    return {
        "overall": _plain(evaluation.overall),
        "groups": {name: _plain(summary) for name, summary in evaluation.groups.items()},
    }


def count_empty_as_zero(summary: Mapping[str, float | int | None]) -> dict[str, float | int | None]:
    """A summary of :func:`as_json` in which a class without a positive clip counts 0 in ``class_average`` and ``map``.

    So do the meters that VideoLT and MOVE released, and the macro averages of scikit-learn and torchmetrics. A perfect
    classifier then scores the share of classes that have a clip. A group without classes keeps ``None``.
    """
    classes, empty = summary["classes"], summary["empty_classes"]
    if not classes or not empty:
        return dict(summary)
    figures = {name: (summary[name] or 0.0) * (classes - empty) / classes for name in ("class_average", "map")}
    return {**summary, **figures}


def _plain(summary: Summary) -> dict[str, float | int | None]:
    return {name: None if math.isnan(value) else value for name, value in asdict(summary).items()}


def _summaries(
    ids: NDArray[np.int64], targets: Bools, weights: NDArray, hits: Floats, classes: ClassFigures
) -> list[Summary]:
    """One summary of ``ids`` per row of weights; ``hits`` is ``(N, 2)``, each field of ``classes`` ``(W, C)``."""
    member = targets[:, ids].any(axis=1, keepdims=True)
    columns = np.concatenate([member, member * hits], axis=1)  # (N, 3)
    sums = np.stack([row @ columns for row in weights])  # (W, 3); by rows, so that the weights are not widened at once
    present = classes.positives[:, ids] > 0  # (W, len(ids))
    figures = [
        ratio(sums[:, 1], sums[:, 0]),
        ratio(sums[:, 2], sums[:, 0]),
        _mean_where(classes.accuracy[:, ids], present),
        _mean_where(classes.ap[:, ids], present),
        np.full(len(weights), len(ids)),
        sums[:, 0].astype(np.int64),
        (~present).sum(axis=1),
    ]
    return [Summary(*row) for row in zip(*(column.tolist() for column in figures), strict=True)]


def _row_hits(scores: NDArray, targets: Bools, k: int) -> Floats:
    boundary = np.partition(scores, -k, axis=1)[:, -k, None]  # (N, 1), the k-th highest
    above, tied = scores > boundary, scores == boundary
    ties, places = tied.sum(axis=1), k - above.sum(axis=1)
    labels = (tied & targets).sum(axis=1)
    missed = np.ones(len(scores))
    for j in range(labels.max(initial=0)):  # C(n - m, s) / C(n, s) as a product over the m labels
        factor = np.maximum(ties - places - j, 0) / np.maximum(ties - j, 1)
        missed = np.where(j < labels, missed * factor, missed)
    hits = np.where((above & targets).any(axis=1), 1.0, 1.0 - missed)
    return np.where((scores == -np.inf).all(axis=1), 0.0, hits)


def _mean_where(values: Floats, present: Bools) -> Floats:
    """``(W,)`` mean of each row over the entries that are present."""
    return ratio(np.where(present, values, 0.0).sum(axis=1), present.sum(axis=1).astype(np.float64))


def _checked_group(name: str, ids: Sequence[int], classes: int) -> NDArray[np.int64]:
    indices = np.asarray(ids, dtype=np.int64).reshape(-1)
    if len(np.unique(indices)) != len(indices) or ((indices < 0) | (indices >= classes)).any():
        raise ValueError(f"group {name!r} must hold different class indices from 0 to {classes - 1}: got {list(ids)}")
    return indices
