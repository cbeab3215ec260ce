"""Losses against PyTorch's and against naive loops of the papers' formulas; every loss goes through the contract."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from longreel.balance.losses import LOSSES, Loss
from longreel.errors import LongreelError
from longreel.parts import build_part, options_of

GUIDE = (Path(__file__).parent.parent / "docs" / "losses.md").read_text()
COUNTS = torch.tensor([100.0, 20.0, 7.0, 1.0])
#: forms of the losses that draw nothing, with the two poorest classes below the threshold where there is one.
VARIANTS = [
    *LOSSES,
    "ce:smoothing=0.1",
    "bce:smoothing=0.1",
    "logit-adjusted:tau=1.5",
    "focal:gamma=2,alpha=0.25",
    "focal:gamma=0.5",
    "class-balanced:form=ce",
    "class-balanced:released=true",
    "ldam:form=ce",
    "ldam:released=true",
    "ldam:weights=class-balanced",
    "ldam:weights=class-balanced,released=true",
    "ldam:form=ce,weights=class-balanced,beta=0.9",
    "eql:threshold=0.1",
    "softmax-eql:threshold=0.1,gamma=1",
]

MULTI_HOT = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 1], [1, 0, 1, 0], [0, 0, 1, 0]]).float()
SOFT = torch.tensor([[0.7, 0.3, 0, 0], [0, 0.9, 0, 0.1], [0.25] * 4, [0, 0, 0, 1], [0.5, 0, 0.5, 0], [0, 0, 0.2, 0.8]])
TARGETS = {"hard": MULTI_HOT[[0, 3, 5, 0, 3, 5]], "multi-hot": MULTI_HOT, "soft": SOFT}


def make(text: str) -> Loss:
    return build_part("loss", LOSSES, text)


@pytest.fixture
def logits() -> Tensor:
    return 3 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels() -> Tensor:
    return torch.tensor([0, 1, 2, 3, 0, 2])


def balanced_softmax(logits: Tensor, label: int, counts: Tensor) -> float:
    """Minus the log of ``n_y e^z_y / sum_j n_j e^z_j`` (Ren et al. 2020, eq. (3)) for one clip, in plain Python."""
    terms = [float(n) * math.exp(float(z)) for n, z in zip(counts, logits, strict=True)]
    return -math.log(terms[label] / sum(terms))


def test_cross_entropy_equals_that_of_pytorch_for_hard_targets(logits, labels):
    found = make("ce")(logits, F.one_hot(labels, 4).float(), COUNTS)
    torch.testing.assert_close(found, F.cross_entropy(logits, labels, reduction="none"))


def test_cross_entropy_equals_that_of_pytorch_for_soft_targets(logits):
    torch.testing.assert_close(make("ce")(logits, SOFT, COUNTS), F.cross_entropy(logits, SOFT, reduction="none"))


def test_smoothed_cross_entropy_equals_that_of_pytorch(logits, labels):
    hard = F.cross_entropy(logits, labels, reduction="none", label_smoothing=0.2)
    torch.testing.assert_close(make("ce:smoothing=0.2")(logits, F.one_hot(labels, 4).float(), COUNTS), hard)
    soft = F.cross_entropy(logits, SOFT, reduction="none", label_smoothing=0.2)
    torch.testing.assert_close(make("ce:smoothing=0.2")(logits, SOFT, COUNTS), soft)


def test_smoothed_balanced_softmax_mixes_the_losses_of_all_classes_evenly(logits, labels):
    naive = []
    for row, label in zip(logits, labels.tolist(), strict=True):
        losses = [balanced_softmax(row, other, COUNTS) for other in range(4)]
        naive.append(0.9 * losses[label] + 0.1 * sum(losses) / 4)
    found = make("balanced-softmax:smoothing=0.1")(logits, F.one_hot(labels, 4).float(), COUNTS)
    torch.testing.assert_close(found, torch.tensor(naive))


def test_cross_entropy_does_not_depend_on_the_counts(logits):
    ce = make("ce")
    assert torch.equal(ce(logits, MULTI_HOT, COUNTS), ce(logits, MULTI_HOT, torch.ones(4)))


@pytest.mark.parametrize("name", ["ce", "balanced-softmax"])
def test_a_clip_of_several_classes_has_the_mean_of_their_losses(name, logits):
    counts = COUNTS if name == "balanced-softmax" else torch.ones(4)
    naive = []
    for row, target in zip(logits, MULTI_HOT, strict=True):
        losses = [balanced_softmax(row, label, counts) for label in range(4) if target[label]]
        naive.append(sum(losses) / len(losses))
    torch.testing.assert_close(make(name)(logits, MULTI_HOT, COUNTS), torch.tensor(naive))


@pytest.mark.parametrize("name", ["balanced-softmax", "logit-adjusted"])
def test_balanced_softmax_equals_the_formula_of_its_paper(name, logits, labels):
    naive = [balanced_softmax(row, int(label), COUNTS) for row, label in zip(logits, labels, strict=True)]
    found = make(name)(logits, F.one_hot(labels, 4).float(), COUNTS)
    torch.testing.assert_close(found, torch.tensor(naive))


@pytest.mark.parametrize("tau", [0.5, 1.5])
def test_tau_is_the_power_of_the_prior(tau, logits, labels):
    naive = [balanced_softmax(row, int(label), COUNTS**tau) for row, label in zip(logits, labels, strict=True)]
    found = make(f"logit-adjusted:tau={tau}")(logits, F.one_hot(labels, 4).float(), COUNTS)
    torch.testing.assert_close(found, torch.tensor(naive))


def test_balanced_softmax_is_cross_entropy_where_all_classes_are_equally_large(logits):
    balanced = make("balanced-softmax")(logits, SOFT, torch.full((4,), 30.0))
    torch.testing.assert_close(balanced, make("ce")(logits, SOFT, COUNTS))


def test_only_the_ratios_of_the_counts_matter_to_balanced_softmax(logits):
    balanced = make("balanced-softmax")
    torch.testing.assert_close(balanced(logits, SOFT, COUNTS), balanced(logits, SOFT, 17 * COUNTS))


def test_a_class_without_training_clips_leaves_the_loss_of_the_others_finite(logits, labels):
    counts = torch.tensor([100.0, 20.0, 7.0, 0.0])
    labels = labels.clamp(max=2)
    naive = [balanced_softmax(row, int(label), counts) for row, label in zip(logits, labels, strict=True)]
    found = make("balanced-softmax")(logits.requires_grad_(), F.one_hot(labels, 4).float(), counts)
    torch.testing.assert_close(found, torch.tensor(naive))
    found.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def binary_terms(logits: Tensor, target: Tensor) -> list[list[float]]:
    """The cross-entropy of each sigmoid, in plain Python."""
    rows = []
    for row, wanted in zip(logits.tolist(), target.tolist(), strict=True):
        chances = [1 / (1 + math.exp(-z)) for z in row]
        terms = [y * math.log(p) + (1 - y) * math.log(1 - p) for p, y in zip(chances, wanted, strict=True)]
        rows.append([-term for term in terms])
    return rows


def test_binary_cross_entropy_equals_a_naive_loop_over_classes(logits):
    naive = [sum(terms) / 4 for terms in binary_terms(logits, SOFT)]
    torch.testing.assert_close(make("bce")(logits, SOFT, COUNTS), torch.tensor(naive))


def test_smoothing_draws_binary_targets_towards_a_half(logits):
    target = torch.tensor([[0.95, 0.05, 0.95, 0.05]]).expand(6, 4)
    naive = [sum(terms) / 4 for terms in binary_terms(logits, target)]
    hard = torch.tensor([[1.0, 0.0, 1.0, 0.0]]).expand(6, 4)
    torch.testing.assert_close(make("bce:smoothing=0.1")(logits, hard, COUNTS), torch.tensor(naive))


def test_focal_loss_equals_the_formula_of_its_paper_for_hard_targets(logits):
    naive = []
    for row, target in zip(logits.tolist(), MULTI_HOT.tolist(), strict=True):
        right = [1 / (1 + math.exp(-z if y else z)) for z, y in zip(row, target, strict=True)]
        naive.append(sum(-0.25 * (1 - p) ** 2 * math.log(p) for p in right) / 4)
    torch.testing.assert_close(make("focal:gamma=2,alpha=0.25")(logits, MULTI_HOT, COUNTS), torch.tensor(naive))


def test_focal_loss_of_soft_targets_weighs_each_term_by_its_own_size(logits):
    naive = [sum((1 - math.exp(-term)) * term for term in terms) / 4 for terms in binary_terms(logits, SOFT)]
    torch.testing.assert_close(make("focal")(logits, SOFT, COUNTS), torch.tensor(naive))


def test_focal_loss_with_gamma_zero_is_binary_cross_entropy(logits):
    torch.testing.assert_close(make("focal:gamma=0")(logits, SOFT, COUNTS), make("bce")(logits, SOFT, COUNTS))


@pytest.mark.parametrize("text", VARIANTS)
@pytest.mark.parametrize("target", [[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.3, 0.0, 0.7]])
def test_no_loss_overflows_on_large_logits(text, target):
    logits = torch.tensor([[1e4, -1e4, 0.0, 50.0]], requires_grad=True)
    value = make(text)(logits, torch.tensor([target]), COUNTS)
    value.sum().backward()
    assert value.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("text", VARIANTS)
def test_every_loss_gives_one_finite_value_a_clip_and_a_gradient(text, target, logits):
    logits.requires_grad_()
    values = make(text)(logits, target, COUNTS)
    assert values.shape == (6,)
    assert values.isfinite().all()
    assert (values >= 0).all()
    gradient = torch.autograd.grad(values.sum(), logits)[0]
    assert gradient.isfinite().all()
    assert (gradient.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("text", VARIANTS)
def test_every_loss_treats_each_clip_on_its_own(text, logits):
    loss = make(text)
    together = loss(logits, SOFT, COUNTS)
    alone = [loss(logits[row : row + 1], SOFT[row : row + 1], COUNTS) for row in range(6)]
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize("text", VARIANTS)
def test_every_loss_has_the_gradient_of_finite_differences(text):
    logits = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    target = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0.4, 0.6]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: make(text)(z, target, COUNTS.double()), (logits,))


@pytest.mark.parametrize("text", VARIANTS)
def test_a_loss_that_needs_no_prior_is_finite_with_a_class_without_clips(text, logits):
    loss, counts = make(text), torch.tensor([100.0, 20.0, 7.0, 0.0])
    assert bool(loss(logits, MULTI_HOT, counts).isfinite().all()) is not loss.needs_prior


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("balanced-sofmax", "no loss called 'balanced-sofmax'. Did you mean 'balanced-softmax'"),
        ("ce:tau=1", "no option of loss ce called 'tau'"),
        ("logit-adjusted:tau=inf", "tau=inf must be a finite number"),
        ("bce:smoothing=1", "smoothing=1 must be at least 0 and below 1"),
        ("ce:smoothing=nan", "smoothing=nan must be"),
        ("focal:gamma=-1", "focal: gamma=-1, alpha=1: give gamma at least 0"),
        ("class-balanced:beta=1", "class-balanced: beta=1 must be at least 0 and below 1"),
        ("class-balanced:form=cee", "no form of class-balanced called 'cee'. Did you mean 'ce'"),
        ("class-balanced:form=ce,released=true", "class-balanced: VideoLT released the form bce alone"),
        ("action-aware:upsilon=0.995", "upsilon=0.995, spread=0.0099: both must be at least 0 and their sum below 1"),
        ("ldam:scale=0", "ldam: margin=0.5, scale=0, beta=0.9999: give"),
        ("ldam:form=softmax", "no form of ldam called 'softmax'"),
        ("ldam:form=ce,released=true", "ldam: VideoLT released the form bce alone"),
        ("ldam:weights=balanced", "no weights of ldam called 'balanced'. Did you mean 'class-balanced'"),
        ("eql:gamma=1.5", "eql: threshold=0.00176, gamma=1.5: give"),
        ("softmax-eql:threshold=-1", "softmax-eql: threshold=-1, gamma=0.9: give"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_with_what_can(text, says):
    with pytest.raises(LongreelError) as caught:
        make(text)
    assert says in str(caught.value)


def shown(default: object) -> str:
    return f"{default:g}" if isinstance(default, float) else str(default).lower()


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_has_its_options_and_defaults_in_the_guide(name):
    row = next(line for line in GUIDE.splitlines() if line.startswith(f"| `{name}` |"))
    for option, default in options_of(LOSSES[name]).items():
        assert f"`{option}={shown(default)}`" in row
