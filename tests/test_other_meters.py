"""Our figures against those of other meters: torchmetrics, and the one that VideoLT's code released."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multilabel_average_precision,
)

from longreel.experiments.calibration import Link, calibrate
from longreel.experiments.metrics import count_empty_as_zero, evaluate_scores

CLIPS, CLASSES = 400, 12
EXACT = 1e-9
SINGLE = 1e-6  #: what torchmetrics computes in float32 whatever it is given


@pytest.fixture(autouse=True)
def _in_double():
    """The other meters divide counts in PyTorch's default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(params=range(4))
def generator(request):
    return torch.Generator().manual_seed(request.param)


def draw_scores(generator: torch.Generator, levels: int | None = None) -> Tensor:
    """``(N, C)`` between 0 and 1; of so many different values, all different if not given."""
    scores = torch.rand(CLIPS, CLASSES, generator=generator)
    return scores if levels is None else (scores * levels).floor() / levels


def draw_labels(generator: torch.Generator) -> Tensor:
    """``(N, C)`` bool: at least one label a clip, and every class."""
    targets = torch.rand(CLIPS, CLASSES, generator=generator) < 0.1
    targets[torch.arange(CLIPS), torch.arange(CLIPS) % CLASSES] = True
    return targets


def videolt_meter(scores: Tensor, targets: Tensor) -> list[float]:
    """AP as VideoLT's meter has it: of each class the mean of the precision at the ranks of its clips.

    At a rank stands what a sort happens to put there, and a class without a clip has an AP of 0.
    """
    found = []
    for column, truth in zip(scores.T, targets.double().T, strict=True):
        ranked = truth[column.sort(descending=True).indices]
        precision = ranked.cumsum(0) / torch.arange(1, len(ranked) + 1)
        found.append(float((precision * ranked).sum() / max(float(truth.sum()), 1.0)))
    return found


@pytest.mark.parametrize("levels", [None, 50, 3, 1])
def test_average_precision_is_that_of_torchmetrics_with_ties_and_without(levels, generator):
    scores, targets = draw_scores(generator, levels), draw_labels(generator)
    theirs = multilabel_average_precision(scores, targets.long(), CLASSES, average="none", thresholds=None)
    ours = evaluate_scores(scores.numpy(), targets.numpy()).classes.ap
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=EXACT)


def test_average_precision_is_that_of_videolts_meter_where_no_scores_are_equal(generator):
    scores, targets = draw_scores(generator), draw_labels(generator)
    ours = evaluate_scores(scores.numpy(), targets.numpy())
    np.testing.assert_allclose(ours.classes.ap, videolt_meter(scores, targets), rtol=0, atol=EXACT)
    assert ours.overall.map == pytest.approx(np.mean(videolt_meter(scores, targets)), abs=EXACT)


def test_where_scores_are_equal_videolts_meter_follows_the_order_of_the_clips_and_ours_does_not(generator):
    scores, targets = torch.zeros(CLIPS, 1), torch.arange(CLIPS)[:, None] < 20
    found = {videolt_meter(scores, targets.flip(0) if flip else targets)[0] for flip in (False, True)}
    assert len(found) == 2
    for flipped in (targets, targets.flip(0)):
        assert evaluate_scores(scores.numpy(), flipped.numpy()).classes.ap == pytest.approx(20 / CLIPS, abs=EXACT)


@pytest.mark.filterwarnings("ignore:No positive samples found:UserWarning")
def test_an_empty_class_counted_zero_gives_the_map_of_videolts_meter_and_of_torchmetrics(generator):
    scores, targets = draw_scores(generator), draw_labels(generator)
    targets[:, 3] = False
    summary = evaluate_scores(scores.numpy(), targets.numpy()).overall
    found = count_empty_as_zero(asdict(summary))["map"]
    assert found == pytest.approx(np.mean(videolt_meter(scores, targets)), abs=EXACT)
    theirs = multilabel_average_precision(scores, targets.long(), CLASSES, average="macro", thresholds=None)
    assert found == pytest.approx(float(theirs), abs=EXACT)


@pytest.mark.parametrize("k", [1, 5])
def test_accuracy_of_clips_and_of_classes_is_that_of_torchmetrics(k, generator):
    scores = draw_scores(generator)
    labels = torch.randint(CLASSES, (CLIPS,), generator=generator)
    ours = evaluate_scores(scores.numpy(), torch.nn.functional.one_hot(labels, CLASSES).bool().numpy())
    by_clip = multiclass_accuracy(scores, labels, CLASSES, average="micro", top_k=k)
    assert {1: ours.overall.acc1, 5: ours.overall.acc5}[k] == pytest.approx(float(by_clip), abs=SINGLE)
    by_class = multiclass_accuracy(scores, labels, CLASSES, average="none")
    np.testing.assert_allclose(ours.classes.accuracy, by_class.numpy(), rtol=0, atol=SINGLE)
    assert ours.overall.class_average == pytest.approx(float(by_class.mean()), abs=SINGLE)


def test_the_calibration_error_is_that_of_torchmetrics(generator):
    logits = 6 * draw_scores(generator)
    labels = torch.randint(CLASSES, (CLIPS,), generator=generator)
    targets = torch.nn.functional.one_hot(labels, CLASSES).bool().numpy()
    ours = calibrate(logits.numpy(), targets, {}, Link("softmax"), multi_label=False)
    theirs = multiclass_calibration_error(logits.softmax(dim=1), labels, CLASSES, n_bins=15, norm="l1")
    assert ours.overall.ece == pytest.approx(float(theirs), abs=SINGLE)
