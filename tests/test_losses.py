"""Losses against PyTorch's and against naive loops of the papers' formulas; every method goes through the contract."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from longreel.balance import METHODS, BinaryCrossEntropy, SoftCrossEntropy, choose_method
from longreel.errors import LongreelError

COUNTS = torch.tensor([100.0, 20.0, 7.0, 1.0])


@pytest.fixture
def logits() -> Tensor:
    return 3 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels() -> Tensor:
    return torch.tensor([0, 1, 2, 3, 0, 2])


MULTI_HOT = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 1], [1, 0, 1, 0], [0, 0, 1, 0]]).float()
SOFT = torch.tensor([[0.7, 0.3, 0, 0], [0, 0.9, 0, 0.1], [0.25] * 4, [0, 0, 0, 1], [0.5, 0, 0.5, 0], [0, 0, 0.2, 0.8]])
TARGETS = {"hard": MULTI_HOT[[0, 3, 5, 0, 3, 5]], "multi-hot": MULTI_HOT, "soft": SOFT}


def balanced_softmax(logits: Tensor, label: int, counts: Tensor) -> float:
    """Minus the log of ``n_y e^z_y / sum_j n_j e^z_j`` (Ren et al. 2020, eq. (3)) for one clip, in plain Python."""
    terms = [float(n) * math.exp(float(z)) for n, z in zip(counts, logits, strict=True)]
    return -math.log(terms[label] / sum(terms))


def test_cross_entropy_equals_that_of_pytorch_for_hard_targets(logits, labels):
    found = METHODS["ce"](logits, F.one_hot(labels, 4).float(), COUNTS)
    torch.testing.assert_close(found, F.cross_entropy(logits, labels, reduction="none"))


def test_cross_entropy_equals_that_of_pytorch_for_soft_targets(logits):
    torch.testing.assert_close(METHODS["ce"](logits, SOFT, COUNTS), F.cross_entropy(logits, SOFT, reduction="none"))


def test_cross_entropy_does_not_depend_on_the_counts(logits):
    ce = METHODS["ce"]
    assert torch.equal(ce(logits, MULTI_HOT, COUNTS), ce(logits, MULTI_HOT, torch.ones(4)))


@pytest.mark.parametrize("name", ["ce", "balanced-softmax"])
def test_a_clip_of_several_classes_has_the_mean_of_their_losses(name, logits):
    counts = COUNTS if name == "balanced-softmax" else torch.ones(4)
    naive = []
    for row, target in zip(logits, MULTI_HOT, strict=True):
        losses = [balanced_softmax(row, label, counts) for label in range(4) if target[label]]
        naive.append(sum(losses) / len(losses))
    torch.testing.assert_close(METHODS[name](logits, MULTI_HOT, COUNTS), torch.tensor(naive))


def test_balanced_softmax_equals_the_formula_of_its_paper(logits, labels):
    naive = [balanced_softmax(row, int(label), COUNTS) for row, label in zip(logits, labels, strict=True)]
    found = METHODS["balanced-softmax"](logits, F.one_hot(labels, 4).float(), COUNTS)
    torch.testing.assert_close(found, torch.tensor(naive))


@pytest.mark.parametrize("tau", [0.5, 1.5])
def test_tau_is_the_power_of_the_prior(tau, logits, labels):
    naive = [balanced_softmax(row, int(label), COUNTS**tau) for row, label in zip(logits, labels, strict=True)]
    found = SoftCrossEntropy(tau)(logits, F.one_hot(labels, 4).float(), COUNTS)
    torch.testing.assert_close(found, torch.tensor(naive))


def test_balanced_softmax_is_cross_entropy_where_all_classes_are_equally_large(logits):
    balanced = METHODS["balanced-softmax"](logits, SOFT, torch.full((4,), 30.0))
    torch.testing.assert_close(balanced, METHODS["ce"](logits, SOFT, COUNTS))


def test_only_the_ratios_of_the_counts_matter(logits):
    balanced = METHODS["balanced-softmax"]
    torch.testing.assert_close(balanced(logits, SOFT, COUNTS), balanced(logits, SOFT, 17 * COUNTS))


def test_a_class_without_training_clips_leaves_the_loss_of_the_others_finite(logits, labels):
    counts = torch.tensor([100.0, 20.0, 7.0, 0.0])
    labels = labels.clamp(max=2)
    naive = [balanced_softmax(row, int(label), counts) for row, label in zip(logits, labels, strict=True)]
    found = METHODS["balanced-softmax"](logits.requires_grad_(), F.one_hot(labels, 4).float(), counts)
    torch.testing.assert_close(found, torch.tensor(naive))
    found.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_binary_cross_entropy_equals_a_naive_loop_over_classes(logits):
    naive = []
    for row, target in zip(logits.tolist(), SOFT.tolist(), strict=True):
        chances = [1 / (1 + math.exp(-z)) for z in row]
        terms = [y * math.log(p) + (1 - y) * math.log(1 - p) for p, y in zip(chances, target, strict=True)]
        naive.append(-sum(terms) / 4)
    torch.testing.assert_close(METHODS["bce"](logits, SOFT, COUNTS), torch.tensor(naive))


@pytest.mark.parametrize("loss", [SoftCrossEntropy(0.0), SoftCrossEntropy(1.0), BinaryCrossEntropy()], ids=repr)
def test_no_loss_overflows_on_large_logits(loss):
    logits = torch.tensor([[1e4, -1e4, 0.0, 50.0]], requires_grad=True)
    value = loss(logits, torch.tensor([[0.0, 1.0, 0.0, 0.0]]), COUNTS)
    value.sum().backward()
    assert value.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("loss", METHODS.values(), ids=METHODS)
def test_every_method_gives_one_finite_value_a_clip_and_a_gradient(loss, target, logits):
    logits.requires_grad_()
    values = loss(logits, target, COUNTS)
    assert values.shape == (6,)
    assert values.isfinite().all()
    assert (values >= 0).all()
    gradient = torch.autograd.grad(values.sum(), logits)[0]
    assert gradient.isfinite().all()
    assert (gradient.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("loss", METHODS.values(), ids=METHODS)
def test_every_method_treats_each_clip_on_its_own(loss, logits):
    together = loss(logits, SOFT, COUNTS)
    alone = [loss(logits[row : row + 1], SOFT[row : row + 1], COUNTS) for row in range(6)]
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize("loss", METHODS.values(), ids=METHODS)
def test_every_method_has_the_gradient_of_finite_differences(loss):
    logits = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    target = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0.4, 0.6]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: loss(z, target, COUNTS.double()), (logits,))


def test_an_unknown_method_is_refused_with_the_nearest_name():
    with pytest.raises(LongreelError, match=r"no balance method called 'balanced-sofmax'. Did you mean"):
        choose_method("balanced-sofmax", [5, 3])
