"""Class weights and margins against the figures of their papers and data sets, and against naive loops."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from longreel.balance.losses import LOSSES
from longreel.balance.margins import class_margins
from longreel.balance.reweighting import action_aware_weights, class_balanced_weights
from longreel.parts import build_part

VIDEOLT = torch.tensor(
    [float(n) for n in (Path(__file__).parent / "fixtures" / "videolt-train-counts.txt").read_text().split()]
)
COUNTS = torch.tensor([900.0, 300.0, 40.0, 5.0])
LABELS = torch.tensor([0, 1, 2, 3, 3])
HARD = F.one_hot(LABELS, 4).float()
MULTI_HOT = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]]).float()
SOFT = torch.tensor([[0.7, 0, 0, 0.3], [0, 0.9, 0, 0.1], [0.25] * 4, [0, 0, 0, 1], [0.5, 0, 0.5, 0]])


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


def loss(text: str, logits: Tensor, target: Tensor, counts: Tensor = COUNTS) -> Tensor:
    return build_part("loss", LOSSES, text)(logits, target, counts)


def naive_weights(counts: list[float], beta: float) -> list[float]:
    """(1 - beta) / (1 - beta^n), scaled to sum C, in plain Python."""
    raw = [(1 - beta) / (1 - beta**n) for n in counts]
    return [weight * len(raw) / sum(raw) for weight in raw]


def binary_term(logit: float, target: float) -> float:
    chance = 1 / (1 + math.exp(-logit))
    return -target * math.log(chance) - (1 - target) * math.log(1 - chance)


def test_class_balanced_weights_of_videolt_have_their_known_range():
    weights = class_balanced_weights(VIDEOLT)
    assert round(float(weights.min()), 4) == 0.0698
    assert round(float(weights.max()), 3) == 2.767
    assert (VIDEOLT[weights.argmin()], VIDEOLT[weights.argmax()]) == (1912, 44)
    torch.testing.assert_close(weights.sum(), torch.tensor(1004.0))


def test_class_balanced_weights_keep_their_digits_for_classes_of_one_clip():
    counts = [1.0, 2.0, 3.0, 1e6]
    weights = class_balanced_weights(torch.tensor(counts), 0.999999)
    torch.testing.assert_close(weights, torch.tensor(naive_weights(counts, 0.999999)), rtol=1e-6, atol=0)


def test_beta_goes_from_equal_weights_to_inverse_frequency():
    torch.testing.assert_close(class_balanced_weights(COUNTS, 0.0), torch.ones(4))
    inverse = 1 / COUNTS
    torch.testing.assert_close(class_balanced_weights(COUNTS, 1 - 1e-9), inverse * 4 / inverse.sum())


def test_action_aware_weights_of_the_long_tailed_nw_ucla_set_are_the_known_ones():
    counts = torch.tensor([100, 77, 59, 46, 35, 27, 21, 16, 12, 10.0])
    known = [0.2217, 0.3161, 0.4262, 0.5478, 0.7114, 0.9067, 1.1458, 1.4779, 1.9393, 2.3071]
    assert [round(weight, 4) for weight in action_aware_weights(counts).tolist()] == known


def test_action_aware_weights_of_the_long_tailed_ntu_60_set_have_their_known_range():
    counts = torch.tensor([float(int(600 * 0.01 ** (place / 59))) for place in range(60)])
    weights = action_aware_weights(counts)
    assert (round(float(weights.min()), 3), round(float(weights.max()), 2)) == (0.041, 4.08)


def test_action_aware_weights_are_one_where_all_classes_are_equally_large():
    torch.testing.assert_close(action_aware_weights(torch.full((4,), 30.0)), torch.ones(4))


@pytest.mark.parametrize("target", [MULTI_HOT, SOFT], ids=["multi-hot", "soft"])
def test_the_released_class_balanced_loss_is_that_of_pytorch_with_class_weights(target, logits):
    weights = torch.tensor(naive_weights(COUNTS.tolist(), 0.9999))
    expected = F.binary_cross_entropy_with_logits(logits, target, weight=weights, reduction="none").mean(dim=1)
    torch.testing.assert_close(loss("class-balanced:released=true", logits, target), expected)


def test_class_balanced_loss_of_a_clip_weighs_all_its_terms_by_its_class(logits):
    weights = naive_weights(COUNTS.tolist(), 0.99)
    naive = []
    for row, label in zip(logits.tolist(), LABELS.tolist(), strict=True):
        terms = [binary_term(z, float(place == label)) for place, z in enumerate(row)]
        naive.append(weights[label] * sum(terms) / 4)
    torch.testing.assert_close(loss("class-balanced:beta=0.99", logits, HARD), torch.tensor(naive))


def test_a_clip_of_several_classes_has_their_mean_weight(logits):
    weights = torch.tensor(naive_weights(COUNTS.tolist(), 0.9999))
    shares = torch.tensor([(weights[0] + weights[3]) / 2, weights[1], weights.mean(), weights[2:].mean(), weights[3]])
    expected = shares * loss("bce", logits, MULTI_HOT)
    torch.testing.assert_close(loss("class-balanced", logits, MULTI_HOT), expected)


def test_weighted_softmax_losses_are_those_of_pytorch_with_class_weights(logits):
    for text, weights in {
        "class-balanced:form=ce": torch.tensor(naive_weights(COUNTS.tolist(), 0.9999)),
        "action-aware": action_aware_weights(COUNTS),
    }.items():
        hard = F.cross_entropy(logits, LABELS, weight=weights, reduction="none")
        torch.testing.assert_close(loss(text, logits, HARD), hard)
        soft = F.cross_entropy(logits, SOFT, weight=weights, reduction="none")
        torch.testing.assert_close(loss(text, logits, SOFT), soft)


@pytest.mark.parametrize("options", ["form=bce", "form=ce", "released=true"])
def test_equally_large_classes_make_the_class_balanced_loss_the_plain_one(options, logits):
    even = torch.full((4,), 60.0)
    plain = loss("ce" if options == "form=ce" else "bce", logits, MULTI_HOT)
    torch.testing.assert_close(loss(f"class-balanced:{options}", logits, MULTI_HOT, even), plain)


def test_margins_of_videolt_have_their_known_range():
    margins = class_margins(VIDEOLT)
    assert (round(float(margins.min()), 3), float(margins.max())) == (0.195, 0.5)
    assert (VIDEOLT[margins.argmin()], VIDEOLT[margins.argmax()]) == (1912, 44)


def test_sixteen_times_the_clips_halve_the_margin():
    torch.testing.assert_close(class_margins(torch.tensor([10.0, 160.0]), 0.8), torch.tensor([0.8, 0.4]))


def naive_margins() -> list[float]:
    roots = [float(n) ** -0.25 for n in COUNTS]
    return [0.5 * root / max(roots) for root in roots]


def naive_ldam(logits: Tensor, target: Tensor, held: list[list[float]], scale: float = 30.0) -> Tensor:
    """Mean over the classes of the binary terms of scaled logits, each less what it has held."""
    rows = []
    for row, wanted, less in zip(logits.tolist(), target.tolist(), held, strict=True):
        terms = [binary_term(scale * (z - m), y) for z, y, m in zip(row, wanted, less, strict=True)]
        rows.append(sum(terms) / 4)
    return torch.tensor(rows)


def test_each_label_loses_its_own_margin(logits):
    logits = logits / 10  # so that the naive exponentials stay in range
    held = [[m if y else 0.0 for m, y in zip(naive_margins(), row, strict=True)] for row in MULTI_HOT.tolist()]
    torch.testing.assert_close(loss("ldam", logits, MULTI_HOT), naive_ldam(logits, MULTI_HOT, held))


def test_a_soft_target_loses_its_part_of_the_margin(logits):
    logits = logits / 10
    held = [[m * y for m, y in zip(naive_margins(), row, strict=True)] for row in SOFT.tolist()]
    torch.testing.assert_close(loss("ldam:scale=5", logits, SOFT), naive_ldam(logits, SOFT, held, 5.0))


def test_as_released_each_label_loses_the_margins_of_all_labels_of_its_clip(logits):
    logits = logits / 10
    held = []
    for row in MULTI_HOT.tolist():
        total = sum(m for m, y in zip(naive_margins(), row, strict=True) if y)
        held.append([total if y else 0.0 for y in row])
    released = loss("ldam:released=true", logits, MULTI_HOT)
    torch.testing.assert_close(released, naive_ldam(logits, MULTI_HOT, held))
    own = loss("ldam", logits, MULTI_HOT)
    several = MULTI_HOT.sum(dim=1) > 1
    assert (released > own)[several].all()
    torch.testing.assert_close(released[~several], own[~several])


def test_as_released_a_target_below_one_loses_no_margin(logits):
    held = [[0.0] * 4 for _ in range(5)]
    held[3][3] = 0.5
    released = loss("ldam:released=true", logits / 10, SOFT)
    torch.testing.assert_close(released, naive_ldam(logits / 10, SOFT, held))


def test_softmax_margins_equal_the_formula_of_the_paper(logits):
    naive = []
    for row, label in zip(logits.tolist(), LABELS.tolist(), strict=True):
        top = math.exp(10 * (row[label] - naive_margins()[label]))
        naive.append(-math.log(top / (top + sum(math.exp(10 * z) for c, z in enumerate(row) if c != label))))
    torch.testing.assert_close(loss("ldam:form=ce,scale=10", logits, HARD), torch.tensor(naive))


@pytest.mark.parametrize("options", ["form=bce", "form=ce", "released=true"])
def test_without_margin_and_scale_ldam_is_the_loss_it_is_made_of(options, logits):
    plain = loss("ce" if options == "form=ce" else "bce", logits, SOFT)
    torch.testing.assert_close(loss(f"ldam:margin=0,scale=1,{options}", logits, SOFT), plain)
    weighted = loss(f"ldam:margin=0,scale=1,weights=class-balanced,{options}", logits, SOFT)
    torch.testing.assert_close(weighted, loss(f"class-balanced:{options}", logits, SOFT))
