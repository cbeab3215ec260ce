"""The nonlinear head against both layers on every frame."""

import pytest
import torch
from small_clips import LENGTHS, padded_clips
from torch import Tensor
from torch.nn import functional as F

from longreel.heads import Nonlinear

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def clips() -> tuple[Tensor, Tensor]:
    return padded_clips(8)


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
    kept = head.dropout(torch.ones(3, 5, 16))  # the same draws
    hidden = F.linear(frames, head.hidden.weight, head.hidden.bias).relu() * kept
    rows = F.linear(hidden, head.project.weight, head.project.bias)
    naive = [clip[:length].mean(dim=0) for clip, length in zip(rows, LENGTHS, strict=True)]
    torch.testing.assert_close(found, torch.stack(naive), rtol=1e-5, atol=1e-5)


def test_the_released_sizes_give_the_published_number_of_parameters():
    with torch.device("meta"):
        head = Nonlinear(2048, 1004)
    assert sum(parameter.numel() for parameter in head.parameters()) == 6_253_548


def test_a_head_works_in_double_precision(clips):
    frames, mask = clips
    head = Nonlinear(8, 5, hidden=16).double().eval()
    assert head(frames.double(), mask).dtype == torch.float64
