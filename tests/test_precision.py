"""Average precision against scikit-learn, against its definition in fractions, and by hand."""

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from test_metrics import tied_case

from longreel.experiments.precision import average_precision, average_precisions

INF = np.inf


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("levels", [1, 2, 5, 10**6])
def test_average_precision_equals_scikit_learn_with_few_and_many_ties(seed, levels):
    scores, targets = tied_case(seed, clips=60, levels=levels)
    ours = average_precisions(scores, targets)[0]
    theirs = [average_precision_score(targets[:, c], scores[:, c]) for c in range(targets.shape[1])]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def precision_by_definition(scores: Sequence[int], positives: Sequence[bool]) -> Fraction:
    """The sum over thresholds, highest first, of the gain in recall times the precision there, without rounding."""
    found, before = Fraction(0), Fraction(0)
    for threshold in sorted(set(scores), reverse=True):
        retrieved = [positive for score, positive in zip(scores, positives, strict=True) if score >= threshold]
        recall = Fraction(sum(retrieved), sum(positives))
        found += (recall - before) * Fraction(sum(retrieved), len(retrieved))
        before = recall
    return found


def few_clips(clips: int) -> Iterator[tuple[tuple[int, ...], tuple[bool, ...]]]:
    """Up to four clips all scores of as many levels with all choices of positives, above that 1500 random ones."""
    choices = list(itertools.product([False, True], repeat=clips))[1:]
    if clips < 5:
        yield from itertools.product(itertools.product(range(clips), repeat=clips), choices)
        return
    drawn = random.Random(clips)
    for _ in range(1500):
        levels = drawn.randint(1, clips)
        yield tuple(drawn.randrange(levels) for _ in range(clips)), drawn.choice(choices)


@pytest.mark.parametrize("clips", range(1, 8))
def test_average_precision_of_few_clips_is_its_definition_in_fractions_whatever_the_ties(clips):
    cases = list(few_clips(clips))
    scores, targets = (np.array(side).T for side in zip(*cases, strict=True))  # (N, cases)
    expected = [float(precision_by_definition(*case)) for case in cases]
    np.testing.assert_allclose(average_precisions(scores, targets)[0], expected, rtol=0, atol=1e-9)
    weighted = average_precisions(scores, targets, np.full((1, clips), 3))[0]
    np.testing.assert_allclose(weighted, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_weighted_average_precision_equals_scikit_learn_even_with_clips_of_weight_zero(seed):
    scores, targets = tied_case(seed)
    weights = np.random.default_rng(seed).random(len(scores)) * (np.arange(len(scores)) % 3)
    for c in range(targets.shape[1]):
        theirs = average_precision_score(targets[:, c], scores[:, c], sample_weight=weights)
        assert average_precision(scores[:, c], targets[:, c], weights) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("threads", [2, 5])
@pytest.mark.parametrize("rows", [None, 3])
def test_threads_change_no_bit(threads, rows):
    generator = np.random.default_rng(0)
    scores, targets = generator.integers(9, size=(50, 300)) / 4, generator.random((50, 300)) < 0.05
    weights = None if rows is None else generator.integers(3, size=(rows, 50))
    alone = average_precisions(scores, targets, weights)
    assert alone.shape == (rows or 1, 300)
    np.testing.assert_array_equal(average_precisions(scores, targets, weights, threads), alone)
    each = [average_precision(scores[:, c], targets[:, c]) for c in range(300)]
    np.testing.assert_array_equal(average_precisions(scores, targets, threads=threads)[0], each)


def test_average_precision_by_hand():
    # Positives enter at ranks 1 and 4 of 5: precision 1/1, then 2/4.
    assert average_precision([9, 7, 6, 5, 1], [True, False, False, True, False]) == pytest.approx((1 + 2 / 4) / 2)
    # One positive shares its score with three others: one threshold, precision 1/4.
    assert average_precision([1, 1, 1, 1, 0], [False, True, False, False, False]) == 0.25


def test_average_precision_of_constant_scores_is_the_share_of_positives():
    positives = np.arange(50) < 3
    assert average_precision(np.full(50, 0.7), positives) == pytest.approx(3 / 50, abs=1e-15)
    assert average_precision(np.full(50, 0.7), positives[::-1]) == pytest.approx(3 / 50, abs=1e-15)


def test_saturated_scores_are_ties_and_not_an_accident_of_order():
    logits = np.random.default_rng(0).normal(60, 5, size=400).astype(np.float32)
    saturated = (1 / (1 + np.exp(-logits))).astype(np.float32)
    assert (saturated == 1).all()
    positives = np.arange(400) < 8
    assert average_precision(saturated, positives) == pytest.approx(8 / 400, abs=1e-15)


def test_average_precision_without_positives_is_nan():
    assert math.isnan(average_precision([1.0, 2.0], [False, False]))
    assert math.isnan(average_precision([1.0, 2.0], [True, False], [0.0, 1.0]))


def test_average_precision_takes_infinite_scores_in_their_order():
    finite = average_precision([3.0, 2.0, 1.0, 0.0], [True, False, True, True])
    assert average_precision([INF, 2.0, 1.0, -INF], [True, False, True, True]) == finite


def test_average_precision_does_not_depend_on_the_float_width_of_exact_scores():
    scores, targets = tied_case(3)
    wide = average_precisions(scores, targets)
    for dtype in (np.float16, np.float32, np.int64):
        np.testing.assert_array_equal(average_precisions(scores.astype(dtype), targets), wide)
