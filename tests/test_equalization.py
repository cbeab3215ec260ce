"""The equalization losses against naive loops, and their draws against the binomial distribution."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from longreel.balance.losses import LOSSES
from longreel.parts import build_part

FIXTURES = Path(__file__).parent / "fixtures"
COUNTS = torch.tensor([700.0, 250.0, 40.0, 10.0])  # frequencies 0.7, 0.25, 0.04, 0.01
MULTI_HOT = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 1, 0]]).float()
SOFT = torch.tensor([[0.6, 0.4, 0, 0], [0, 0.9, 0, 0.1], [0.25] * 4, [0, 0, 0.5, 0.5]])


@pytest.fixture
def logits() -> Tensor:
    return 2 * torch.randn(4, 4, generator=torch.Generator().manual_seed(0))


def loss(text: str, logits: Tensor, target: Tensor, counts: Tensor = COUNTS) -> Tensor:
    return build_part("loss", LOSSES, text)(logits, target, counts)


def gradient(text: str, logits: Tensor, target: Tensor, counts: Tensor = COUNTS) -> Tensor:
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(text, logits, target, counts).sum(), logits)[0]


@pytest.mark.parametrize("target", [MULTI_HOT, SOFT], ids=["multi-hot", "soft"])
def test_negatives_of_classes_below_the_threshold_do_not_count(target, logits):
    naive = []
    for row, wanted in zip(logits.tolist(), target.tolist(), strict=True):
        total = 0.0
        for n, z, y in zip(COUNTS.tolist(), row, wanted, strict=True):
            chance = 1 / (1 + math.exp(-z))
            weight = y if n / 1000 < 0.05 else 1.0  # 1 - (1 - y)
            total -= weight * (y * math.log(chance) + (1 - y) * math.log(1 - chance))
        naive.append(total / 4)
    torch.testing.assert_close(loss("eql:threshold=0.05", logits, target), torch.tensor(naive))


def test_clips_of_other_classes_give_a_poor_class_no_gradient(logits):
    spared = gradient("eql:threshold=0.05", logits, MULTI_HOT) == 0
    assert torch.equal(spared, torch.tensor([[0, 0, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]]).bool())


def test_a_class_at_the_threshold_is_not_spared(logits):
    counts = torch.tensor([96.0, 16.0, 8.0, 8.0])  # 0.0625 can be told exactly
    found = gradient("eql:threshold=0.0625", logits, MULTI_HOT[:1].expand(4, 4), counts)
    assert (found != 0).all()


@pytest.mark.parametrize("text", ["eql:gamma=0,threshold=0.05", "eql:threshold=0"])
def test_equalization_of_no_class_is_binary_cross_entropy(text, logits):
    torch.testing.assert_close(loss(text, logits, SOFT), loss("bce", logits, SOFT))


@pytest.mark.parametrize("text", ["softmax-eql:gamma=0,threshold=0.05", "softmax-eql:threshold=0"])
def test_softmax_equalization_of_no_class_is_cross_entropy(text, logits):
    torch.testing.assert_close(loss(text, logits, SOFT), loss("ce", logits, SOFT))


def test_softmax_equalization_equals_the_formula_of_its_paper(logits):
    labels = [0, 1, 2, 3]
    naive = []
    for row, label in zip(logits.tolist(), labels, strict=True):
        weights = [0.0 if n / 1000 < 0.05 and c != label else 1.0 for c, n in enumerate(COUNTS.tolist())]
        total = sum(weight * math.exp(z) for weight, z in zip(weights, row, strict=True))
        naive.append(-math.log(math.exp(row[label]) / total))
    found = loss("softmax-eql:threshold=0.05,gamma=1", logits, F.one_hot(torch.tensor(labels), 4).float())
    torch.testing.assert_close(found, torch.tensor(naive))


def test_softmax_equalization_of_soft_targets_keeps_their_part_of_a_class_in_the_sum(logits):
    naive = []
    for row, wanted in zip(logits.tolist(), SOFT.tolist(), strict=True):
        weights = [y if n / 1000 < 0.05 else 1.0 for n, y in zip(COUNTS.tolist(), wanted, strict=True)]
        total = sum(weight * math.exp(z) for weight, z in zip(weights, row, strict=True))
        naive.append(-sum(y * math.log(math.exp(z) / total) for y, z in zip(wanted, row, strict=True)))
    torch.testing.assert_close(loss("softmax-eql:threshold=0.05,gamma=1", logits, SOFT), torch.tensor(naive))


@pytest.mark.parametrize(
    ("text", "counts", "poor", "chance"),
    [
        ("eql:threshold=0.05,gamma=0.9", [700.0, 250.0, 40.0, 10.0], [2, 3], 0.9),
        ("softmax-eql:threshold=0.02,gamma=0.6", [700.0, 250.0, 40.0, 10.0], [3], 0.6),
        ("eql:released=true", [700.0, 101.0, 100.0, 10.0], [2, 3], 1.76e-3),
    ],
)
def test_a_negative_of_a_poor_class_is_left_out_with_the_chance_asked_for(text, counts, poor, chance):
    torch.manual_seed(7)
    logits, target = torch.zeros(100_000, 4), torch.tensor([[1.0, 0, 0, 0]]).expand(100_000, 4)
    left_out = gradient(text, logits, target, torch.tensor(counts)) == 0
    assert not left_out[:, [place for place in range(4) if place not in poor]].any()
    for place in poor:
        bound = 5 * math.sqrt(chance * (1 - chance) / 100_000)
        assert float(left_out[:, place].double().mean()) == pytest.approx(chance, abs=bound)


def test_positives_always_count_as_released():
    torch.manual_seed(7)
    target = torch.tensor([[1.0, 0, 0, 1.0]]).expand(50_000, 4)
    assert (gradient("eql:released=true", torch.zeros(50_000, 4), target)[:, 3] != 0).all()


@pytest.mark.parametrize("text", ["eql:threshold=0.05,gamma=0.5", "softmax-eql:threshold=0.05", "eql:released=true"])
def test_draws_come_from_the_global_generator_alone(text):
    logits, target = torch.zeros(2000, 4), torch.tensor([[1.0, 0, 0, 0]]).expand(2000, 4)
    torch.manual_seed(3)
    first, second = loss(text, logits, target), loss(text, logits, target)
    torch.manual_seed(3)
    assert torch.equal(loss(text, logits, target), first)
    assert not torch.equal(first, second)


def test_without_chance_nothing_is_drawn(logits):
    before = torch.get_rng_state()
    loss("eql:threshold=0.05", logits, MULTI_HOT)
    loss("softmax-eql:threshold=0.05,gamma=1", logits, MULTI_HOT)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("threshold", "classes", "percent"), [("0.00176", 870, 65), ("0.00043", 253, 9)])
def test_of_videolt_as_many_classes_are_spared_as_the_guide_says(threshold, classes, percent):
    counts = torch.tensor([float(n) for n in (FIXTURES / "videolt-train-counts.txt").read_text().split()])
    none = torch.zeros(1, 1004)
    spared = gradient(f"eql:threshold={threshold}", none, none, counts)[0] == 0
    assert int(spared.sum()) == classes
    assert round(100 * float(counts[spared].sum() / counts.sum())) == percent
