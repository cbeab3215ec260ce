"""Heads against their naive forms; every head in the dict goes through the contract tests."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from longreel.errors import LongreelError
from longreel.heads import HEADS, Nonlinear, Standardised, build_head
from longreel.heads.nonlinear import masked_mean

LENGTHS = (5, 1, 3)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def clips() -> tuple[Tensor, Tensor]:
    """Three clips of 5, 1 and 3 rows, eight wide, padded with large numbers; and their mask."""
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(3, 5, 8, generator=generator)
    mask = torch.arange(5) < torch.tensor(LENGTHS)[:, None]
    return torch.where(mask[..., None], frames, torch.tensor(1e4)), mask


def score_frame_by_frame(head: Nonlinear, clip: Tensor) -> Tensor:
    """As published: both layers on every row ``(T, D)``, then the mean of the logits."""
    rows = [head.project.weight @ (head.hidden.weight @ row + head.hidden.bias).clamp(min=0) for row in clip]
    return torch.stack([row + head.project.bias for row in rows]).mean(dim=0)


def test_the_late_average_equals_projecting_every_frame_and_averaging_the_logits(clips):
    frames, mask = clips
    head = Nonlinear(8, 5).eval()
    naive = [score_frame_by_frame(head, clip[:length]) for clip, length in zip(frames, LENGTHS, strict=True)]
    torch.testing.assert_close(head(frames, mask), torch.stack(naive), rtol=1e-5, atol=1e-5)


def test_the_late_average_has_the_gradients_of_the_naive_form(clips):
    frames, mask = clips
    head = Nonlinear(8, 5, hidden=16).eval()
    frames = frames.clone().requires_grad_()
    inputs = [frames, *head.parameters()]
    weights = torch.randn(3, 5, generator=torch.Generator().manual_seed(2))  # so that no gradient is trivial
    shortcut = torch.autograd.grad((weights * head(frames, mask)).sum(), inputs)
    naive = [score_frame_by_frame(head, clip[:length]) for clip, length in zip(frames, LENGTHS, strict=True)]
    expected = torch.autograd.grad((weights * torch.stack(naive)).sum(), inputs)
    for found, wanted in zip(shortcut, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_dropout_acts_on_the_hidden_units_of_each_frame_before_the_average(clips):
    frames, mask = clips
    head = Nonlinear(8, 5, hidden=16).train()
    torch.manual_seed(3)
    found = head(frames, mask)
    torch.manual_seed(3)
    kept = F.dropout(torch.ones(3, 5, 16), 0.5)  # the same draws
    hidden = F.linear(frames, head.hidden.weight, head.hidden.bias).relu() * kept
    rows = F.linear(hidden, head.project.weight, head.project.bias)
    naive = [clip[:length].mean(dim=0) for clip, length in zip(rows, LENGTHS, strict=True)]
    torch.testing.assert_close(found, torch.stack(naive), rtol=1e-5, atol=1e-5)


def test_the_released_sizes_give_the_published_number_of_parameters():
    with torch.device("meta"):
        head = Nonlinear(2048, 1004)
    assert sum(parameter.numel() for parameter in head.parameters()) == 6_253_548


def test_the_masked_mean_is_the_mean_of_the_rows_that_exist(clips):
    frames, mask = clips
    naive = [clip[:length].mean(dim=0) for clip, length in zip(frames, LENGTHS, strict=True)]
    torch.testing.assert_close(masked_mean(frames, mask), torch.stack(naive))
    torch.testing.assert_close(masked_mean(frames, None), frames.sum(dim=1) / 5)


def test_a_head_works_in_double_precision(clips):
    frames, mask = clips
    head = Nonlinear(8, 5, hidden=16).double().eval()
    assert head(frames.double(), mask).dtype == torch.float64


@pytest.mark.parametrize("make", HEADS.values(), ids=HEADS)
def test_every_head_gives_one_finite_logit_a_class(make, clips):
    torch.manual_seed(0)
    logits = make(8, 5).eval()(*clips)
    assert logits.shape == (3, 5)
    assert logits.isfinite().all()
    assert logits.std() > 0


@pytest.mark.parametrize("make", HEADS.values(), ids=HEADS)
def test_every_head_ignores_padding(make, clips):
    frames, mask = clips
    head = make(8, 5).eval()
    together = head(frames, mask)
    alone = [head(clip[None, :length]) for clip, length in zip(frames, LENGTHS, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)
    other = torch.where(mask[..., None], frames, torch.tensor(-7.0))
    torch.testing.assert_close(head(other, mask), together, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", HEADS.values(), ids=HEADS)
def test_every_head_takes_a_mask_of_only_true_as_no_mask(make, clips):
    frames = clips[0][:1]
    head = make(8, 5).eval()
    torch.testing.assert_close(head(frames, torch.ones(1, 5, dtype=torch.bool)), head(frames))


@pytest.mark.parametrize("make", HEADS.values(), ids=HEADS)
def test_every_head_is_classify_after_aggregate(make, clips):
    head = make(8, 5).eval()
    torch.testing.assert_close(head.classify(head.aggregate(*clips)), head(*clips))


@pytest.mark.parametrize("make", HEADS.values(), ids=HEADS)
def test_every_parameter_of_every_head_gets_a_gradient(make, clips):
    head = make(8, 5).train()
    head(*clips).square().sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("make", HEADS.values(), ids=HEADS)
def test_every_head_scores_a_clip_alike_wherever_it_stands_in_the_batch(make, clips):
    frames, mask = clips
    head = make(8, 5).eval()
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(head(frames[order], mask[order]), head(frames, mask)[order], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_a_standardised_head_on_raw_features_equals_the_plain_head_on_standardised_ones(name, clips):
    frames, mask = clips
    mean, deviation = torch.arange(8.0), torch.arange(1.0, 9.0)
    head = build_head(name, 8, 5, mean, deviation).eval()
    standardised = torch.stack([torch.stack([(row - mean) / deviation for row in clip]) for clip in frames])
    torch.testing.assert_close(head(frames, mask), head.head.classify(head.head.aggregate(standardised, mask)))


def test_zeros_and_ones_leave_the_features_as_they_are(clips):
    head = build_head("nonlinear", 8, 5, torch.zeros(8), torch.ones(8)).eval()
    assert torch.equal(head(*clips), head.head.classify(head.head.aggregate(*clips)))


def test_mean_and_deviation_are_saved_with_the_head_and_not_trained():
    inner = Nonlinear(3, 2, hidden=4)
    head = Standardised(inner, torch.arange(3.0), torch.ones(3))
    assert set(head.state_dict()) == {"mean", "deviation", *(f"head.{name}" for name in inner.state_dict())}
    assert [id(parameter) for parameter in head.parameters()] == [id(parameter) for parameter in inner.parameters()]


def test_an_unknown_head_is_refused_with_the_nearest_name():
    with pytest.raises(LongreelError, match=r"no head called 'nonlinar'. Did you mean 'nonlinear'"):
        build_head("nonlinar", 8, 5, torch.zeros(8), torch.ones(8))
