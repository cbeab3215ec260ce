"""Metrics against scikit-learn, against every order of the ties, and against figures worked out by hand."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, recall_score

from longreel.experiments.metrics import (
    Evaluation,
    as_json,
    evaluate_draws,
    evaluate_scores,
    hits_at,
    mean_average_precision,
)
from longreel.experiments.precision import average_precision

INF = np.inf


def tied_case(seed: int, clips: int = 40, classes: int = 7, levels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Scores of few levels, hence full of ties, and one to three labels per clip."""
    generator = np.random.default_rng(seed)
    targets = generator.random((clips, classes)) < 0.15
    targets[np.arange(clips), generator.integers(classes, size=clips)] = True
    return generator.integers(levels, size=(clips, classes)).astype(float), targets


def assert_same(left: Evaluation, right: Evaluation) -> None:
    for name in dataclasses.asdict(left.overall):
        for a, b in [(left.overall, right.overall), *((left.groups[key], right.groups[key]) for key in left.groups)]:
            assert getattr(a, name) == pytest.approx(getattr(b, name), abs=1e-12, nan_ok=True), name
    for name in ("ap", "accuracy", "positives"):
        np.testing.assert_allclose(getattr(left.classes, name), getattr(right.classes, name), rtol=0, atol=1e-12)


def hits_by_every_order(scores: np.ndarray, truth: np.ndarray, k: int) -> float:
    """Mean over all orders of the classes of a stable sort that breaks ties by that order."""
    orders = list(itertools.permutations(range(len(scores))))
    found = [truth[sorted(order, key=lambda c: -scores[c])[:k]].any() for order in orders]
    return sum(found) / len(orders)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("k", [1, 2, 3, 5, 9])
def test_hits_are_the_mean_over_every_way_to_break_the_ties(seed, k):
    scores, targets = tied_case(seed, clips=6, classes=5, levels=3)
    expected = [hits_by_every_order(row, truth, k) for row, truth in zip(scores, targets, strict=True)]
    np.testing.assert_allclose(hits_at(scores, targets, k), expected, rtol=0, atol=1e-12)


def test_hits_without_ties_are_plain_membership_of_the_top_k():
    scores = np.random.default_rng(1).standard_normal((200, 11))
    targets = np.random.default_rng(2).random((200, 11)) < 0.2
    for k in (1, 5):
        top = np.argsort(-scores, axis=1)[:, :k]
        expected = np.take_along_axis(targets, top, axis=1).any(axis=1)
        np.testing.assert_array_equal(hits_at(scores, targets, k), expected)


def test_constant_scores_earn_what_guessing_earns():
    targets = np.zeros((2, 10), bool)
    targets[0, 0] = targets[1, [0, 9]] = True
    np.testing.assert_allclose(hits_at(np.zeros((2, 10)), targets, 1), [1 / 10, 2 / 10])
    two_of_ten_missed = math.comb(8, 5) / math.comb(10, 5)
    np.testing.assert_allclose(hits_at(np.zeros((2, 10)), targets, 5), [5 / 10, 1 - two_of_ten_missed])


def test_as_many_places_as_classes_make_every_labelled_clip_a_hit():
    scores, targets = tied_case(0, classes=4)
    targets[0] = False
    for k in (4, 5, 100):
        np.testing.assert_array_equal(hits_at(scores, targets, k), targets.any(axis=1))


def test_a_clip_that_could_not_be_decoded_is_never_a_hit():
    scores = np.array([[-INF, -INF, -INF], [-INF, -INF, 0.0]])
    targets = np.array([[True, True, True], [True, False, False]])
    np.testing.assert_array_equal(hits_at(scores, targets, 1), [0, 0])
    np.testing.assert_allclose(hits_at(scores, targets, 2), [0, 0.5])
    np.testing.assert_array_equal(hits_at(scores, targets, 3), [0, 1])


def test_hits_are_the_same_across_the_blocks_they_are_computed_in():
    scores, targets = tied_case(4, clips=5000, classes=3)
    pieces = [hits_at(scores[i : i + 7], targets[i : i + 7], 2) for i in range(0, 5000, 7)]
    np.testing.assert_array_equal(hits_at(scores, targets, 2), np.concatenate(pieces))


def test_an_evaluation_by_hand():
    scores = np.array([[3, 2, 1, 0], [2, 3, 1, 0], [1, 2, 3, 0], [1, 2, 3, 0]])
    targets = np.eye(4, dtype=bool)[[0, 0, 2, 1]]
    found = evaluate_scores(scores, targets, {"head": [0], "rest": [1, 2], "none": [3]})
    np.testing.assert_allclose(found.classes.accuracy, [1 / 2, 0, 1, np.nan])
    # Class 1: scores 2 3 2 2, its clip among three with score 2. Class 2: 1 1 3 3, its clip among the two highest.
    np.testing.assert_allclose(found.classes.ap, [1, 1 / 4, 1 / 2, np.nan])
    np.testing.assert_array_equal(found.classes.positives, [2, 1, 1, 0])
    assert found.overall.acc1 == 0.5
    assert found.overall.acc5 == 1
    assert found.overall.class_average == pytest.approx(1.5 / 3)
    assert found.overall.map == pytest.approx(1.75 / 3)
    assert (found.overall.classes, found.overall.clips, found.overall.empty_classes) == (4, 4, 1)
    rest = found.groups["rest"]
    assert (rest.acc1, rest.class_average, rest.map) == pytest.approx((0.5, 0.5, 3 / 8))
    assert (rest.classes, rest.clips, rest.empty_classes) == (2, 2, 0)
    none = found.groups["none"]
    assert all(math.isnan(value) for value in (none.acc1, none.acc5, none.class_average, none.map))
    assert (none.classes, none.clips, none.empty_classes) == (1, 0, 1)


@pytest.mark.parametrize("seed", range(4))
def test_the_mean_average_precision_by_itself_is_that_of_an_evaluation(seed):
    scores, targets = tied_case(seed)
    targets[:, 0] = False  # a class without clips
    assert mean_average_precision(scores, targets, threads=2) == evaluate_scores(scores, targets).overall.map
    assert math.isnan(mean_average_precision(scores, np.zeros_like(targets)))


def test_class_accuracy_of_single_labels_is_recall():
    generator = np.random.default_rng(5)
    labels = generator.integers(6, size=90)
    scores = generator.standard_normal((90, 6)) + np.eye(6)[labels]
    found = evaluate_scores(scores, np.eye(6, dtype=bool)[labels])
    recalls = [(scores[labels == c].argmax(axis=1) == c).mean() for c in range(6)]
    np.testing.assert_allclose(found.classes.accuracy, recalls)
    assert found.overall.class_average == pytest.approx(recall_score(labels, scores.argmax(axis=1), average="macro"))
    assert found.overall.map == pytest.approx(average_precision_score(np.eye(6)[labels], scores, average="macro"))


def test_a_clip_counts_in_a_group_by_any_label_in_it_and_is_hit_by_any_true_label():
    targets = np.array([[True, False, True], [False, True, False]])
    scores = np.array([[5.0, 1.0, 0.0], [5.0, 1.0, 0.0]])  # the first clip is hit by class 0, outside the group
    found = evaluate_scores(scores, targets, {"tail": [2]}).groups["tail"]
    assert (found.acc1, found.class_average, found.clips) == (1, 1, 1)


def test_clips_without_any_label_are_negatives_but_no_misses():
    scores, targets = np.array([[2.0, 0.0], [3.0, 0.0]]), np.array([[True, False], [False, False]])
    found = evaluate_scores(scores, targets)
    assert (found.overall.acc1, found.overall.clips) == (1, 1)
    assert found.classes.ap[0] == 0.5


def test_a_perfect_classifier_scores_one_though_a_class_has_no_clips():
    targets = np.eye(5, dtype=bool)[[0, 1, 2, 3, 0, 1]]
    found = evaluate_scores(targets.astype(float), targets)
    assert (found.overall.map, found.overall.class_average, found.overall.empty_classes) == (1, 1, 1)


def test_an_undecoded_clip_stays_in_every_denominator():
    targets = np.eye(2, dtype=bool)[[0, 0, 1, 1]]
    scores = np.where(targets, 1.0, 0.0)
    scores[3] = -INF
    found = evaluate_scores(scores, targets)
    assert found.overall.acc1 == found.overall.acc5 == 3 / 4
    np.testing.assert_allclose(found.classes.accuracy, [1, 1 / 2])
    np.testing.assert_allclose(found.classes.ap, [1, (1 + 2 / 4) / 2])  # retrieved last, at precision 2 of 4


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_clips_changes_nothing(seed):
    scores, targets = tied_case(seed)
    weights = np.random.default_rng(seed).integers(4, size=len(scores))
    groups = {"a": [0, 1], "b": [2, 3, 4, 5, 6]}
    order = np.random.default_rng(seed + 100).permutation(len(scores))
    left = evaluate_scores(scores, targets, groups, weights)
    assert_same(evaluate_scores(scores[order], targets[order], groups, weights[order]), left)


@pytest.mark.parametrize("seed", range(5))
def test_weights_are_the_same_as_repeated_rows(seed):
    scores, targets = tied_case(seed, clips=25)
    weights = np.random.default_rng(seed).integers(4, size=len(scores))
    weights[targets[:, 3]] = 0  # a class that loses all its clips
    groups = {"a": [0, 3], "b": [1, 2, 4, 5, 6], "gone": [3]}
    repeated = evaluate_scores(scores.repeat(weights, axis=0), targets.repeat(weights, axis=0), groups)
    assert_same(evaluate_scores(scores, targets, groups, weights), repeated)


def test_rows_of_weights_give_what_each_row_gives_alone():
    scores, targets = tied_case(9, clips=300)
    weights = np.random.default_rng(9).integers(3, size=(450, 300)).astype(np.uint16)  # more than one block
    together = evaluate_draws(scores, targets, {"a": [1, 2]}, weights)
    assert len(together) == 450
    for row in (0, 217, 218, 449):
        assert_same(together[row], evaluate_scores(scores, targets, {"a": [1, 2]}, weights[row]))


def test_json_has_none_where_nothing_could_be_computed():
    targets = np.eye(3, dtype=bool)[[0, 1]]
    document = as_json(evaluate_scores(targets.astype(float), targets, {"empty": [2], "full": [0, 1]}))
    right = dict.fromkeys(["acc1", "acc5", "class_average", "map"], 1.0)
    assert json.loads(json.dumps(document, allow_nan=False)) == {
        "overall": right | {"classes": 3, "clips": 2, "empty_classes": 1},
        "groups": {
            "empty": dict.fromkeys(right) | {"classes": 1, "clips": 0, "empty_classes": 1},
            "full": right | {"classes": 2, "clips": 2, "empty_classes": 0},
        },
    }


def test_no_clips_at_all_give_nan_figures_and_no_crash():
    found = evaluate_scores(np.zeros((0, 3)), np.zeros((0, 3), bool), {"a": [0], "no classes": []})
    assert math.isnan(found.overall.acc1)
    assert (found.overall.clips, found.overall.empty_classes) == (0, 3)
    assert (found.groups["no classes"].classes, found.groups["no classes"].empty_classes) == (0, 0)


def test_nan_scores_are_refused_with_their_row():
    scores, targets = tied_case(0)
    scores[17, 2] = np.nan
    for call in (lambda: evaluate_scores(scores, targets), lambda: hits_at(scores, targets, 1)):
        with pytest.raises(ValueError, match=r"1 of 40 clips have NaN scores, the first in row 17"):
            call()
    with pytest.raises(ValueError, match="NaN"):
        average_precision(scores[:, 2], targets[:, 2])


@pytest.mark.parametrize(
    ("weights", "text"),
    [([1, 1], "one weight per clip"), ([1, -1, 1], "not negative"), ([1, INF, 1], "finite"), ([1, 0.5, 1], "whole")],
)
def test_weights_that_are_no_multiplicities_are_refused(weights, text):
    with pytest.raises(ValueError, match=text):
        evaluate_scores(np.zeros((3, 2)), np.ones((3, 2), bool), None, weights)


@pytest.mark.parametrize("ids", [[2], [-1], [0, 0]])
def test_a_group_with_class_indices_that_do_not_exist_or_repeat_is_refused(ids):
    with pytest.raises(ValueError, match="group 'tail' must hold different class indices from 0 to 1"):
        evaluate_scores(np.zeros((3, 2)), np.ones((3, 2), bool), {"tail": ids})


def test_shapes_and_kinds_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"got \(3, 2\) and \(3, 1\)"):
        evaluate_scores(np.zeros((3, 2)), np.ones((3, 1), bool))
    with pytest.raises(ValueError, match="must be bool"):
        evaluate_scores(np.zeros((3, 2)), np.ones((3, 2)))
    with pytest.raises(ValueError, match="k of 1 or more"):
        hits_at(np.zeros((3, 2)), np.ones((3, 2), bool), 0)
    with pytest.raises(ValueError, match="one row of numbers"):
        average_precision(np.zeros((3, 2)), np.ones((3, 2), bool))
