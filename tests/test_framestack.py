"""FrameStack against a loop over clips and frames, and against the paper's equations by hand."""

import pytest
import torch
from small_mixing import COUNTS, MeanHead, make_batch, make_known

from longreel.balance.framestack import FrameStack, stack_frames
from longreel.balance.mixing import Batch
from longreel.errors import LongreelError


def stack_one_by_one(batch: Batch, partner: list[int], beta: list[float]) -> torch.Tensor:
    """Own frames, then the partner's, each evenly spread: the whole part of ``k (n - 1) / (m - 1)``."""
    length = batch.frames.shape[1]
    made = []
    for own, (other, share) in enumerate(zip(partner, beta, strict=True)):
        theirs = int(share * length)
        rows = []
        for clip, number in ((own, length - theirs), (other, theirs)):
            there = int(batch.mask[clip].sum())
            for k in range(number):
                rows.append(batch.frames[clip, k * (there - 1) // (number - 1) if number > 1 else 0])
        made.append(torch.stack(rows))
    return torch.stack(made)


@pytest.mark.parametrize("seed", range(5))
def test_frames_are_those_of_a_loop_over_clips_and_frames(seed):
    batch = make_batch(seed)
    generator = torch.Generator().manual_seed(seed)
    partner = torch.randperm(9, generator=generator)[:6]
    beta = torch.cat([torch.tensor([0.0, 1.0]), torch.rand(4, generator=generator)])
    frames, mask = stack_frames(batch, partner, beta)
    assert torch.equal(frames, stack_one_by_one(batch, partner.tolist(), beta.tolist()))
    assert mask.all()
    assert frames.abs().max() < 100  # no padding among them


def mix(mixer: FrameStack, running_ap=(0.9, 0.5, 0.1), seed: int = 0):
    """What the head saw, the targets, and the shares of the partners, read from the frames themselves."""
    batch, head, known = make_batch(seed), MeanHead(), make_known(seed, running_ap)
    _, targets = mixer(head, batch, known)
    return batch, head, targets


def test_a_share_of_the_batch_is_mixed_and_the_rest_stays_as_it_is():
    batch, head, targets = mix(FrameStack(eta=0.5))
    assert torch.equal(head.frames[4:], batch.frames[4:])
    assert torch.equal(targets[4:], batch.targets[4:])
    assert not torch.equal(head.frames[:4], batch.frames[:4])


def test_without_a_share_it_is_the_baseline():
    batch, head, targets = mix(FrameStack(eta=0.0))
    assert torch.equal(head.frames, batch.frames)
    assert torch.equal(targets, batch.targets)


@pytest.mark.parametrize(("by", "figures"), [("ap", torch.tensor([0.9, 0.5, 0.1])), ("counts", COUNTS)])
def test_the_target_is_shared_out_as_equation_4_has_it(by, figures):
    batch, known = make_batch(1), make_known(1)
    _, targets = FrameStack(by=by, eta=1.0)(MeanHead(), batch, known)
    partner = torch.randperm(9, generator=torch.Generator().manual_seed(1)).tolist()
    for i, j in enumerate(partner):
        own, other = (
            sum(float(figures[c]) for c in range(3) if batch.targets[k, c]) / float(batch.targets[k].sum())
            for k in (i, j)
        )
        beta = own / (own + other)
        expected = (1 - beta) * batch.targets[i] + beta * batch.targets[j]
        torch.testing.assert_close(targets[i], expected)


def test_while_the_running_ap_is_unknown_half_of_each_is_taken():
    batch, _, targets = mix(FrameStack(eta=1.0), running_ap=(0.0, 0.0, 0.0))
    partner = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(targets, 0.5 * batch.targets + 0.5 * batch.targets[partner])


def test_a_constant_share_is_a_half_whatever_the_classes():
    batch, _, targets = mix(FrameStack(by="constant", eta=1.0))
    partner = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(targets, 0.5 * batch.targets + 0.5 * batch.targets[partner])


def test_as_released_the_first_epoch_is_plain_and_partners_are_mixed_clips():
    batch, head, targets = mix(FrameStack(released=True), running_ap=(0.0, 0.0, 0.0))
    assert torch.equal(head.frames, batch.frames)
    assert torch.equal(targets, batch.targets)
    batch, _, targets = mix(FrameStack(released=True))
    partner = torch.randperm(4, generator=torch.Generator().manual_seed(0)).tolist()
    figures = batch.targets @ torch.tensor([0.9, 0.5, 0.1]) / 3  # the sum over labels, by the number of classes
    for i, j in enumerate(partner):
        beta = figures[i] / (figures[i] + figures[j])
        torch.testing.assert_close(targets[i], (1 - beta) * batch.targets[i] + beta * batch.targets[j])


def test_as_released_a_share_of_zero_mixes_everything():
    batch, _, targets = mix(FrameStack(released=True, eta=0.0))
    assert not torch.equal(targets[4:], batch.targets[4:])


@pytest.mark.parametrize("options", [{"by": "rap"}, {"eta": 1.5}, {"eta": float("nan")}])
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(LongreelError, match=r"framestack: by=.* give by=ap"):
        FrameStack(**options)
