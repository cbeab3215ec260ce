"""MOVE against a loop over clips and views written from the paper's equations."""

import math

import pytest
import torch
from scipy import stats
from small_mixing import COUNTS, MeanHead, make_batch, make_known

from longreel.balance.mixing import Batch, Known, draw_beta
from longreel.balance.move import Move, draw_frames, tail_weight
from longreel.errors import LongreelError


def test_tau_is_equation_7():
    assert tail_weight(COUNTS).tolist() == pytest.approx([1.0, 9 / 37, 0.0])
    assert tail_weight(torch.full((3,), 7.0)).tolist() == [0.5] * 3


def test_subsets_hold_frames_that_exist_and_are_of_every_allowed_size_equally_often():
    mask = torch.arange(10) < torch.tensor([10, 6, 3])[:, None]
    fewest = torch.tensor([4, 3, 3])
    drawn = draw_frames(mask, fewest, (4000,), torch.Generator().manual_seed(0))  # (4000, 3, 10)
    assert not (drawn & ~mask).any()
    sizes = drawn.sum(dim=-1)
    for clip, (low, high) in enumerate([(4, 10), (3, 6), (3, 3)]):
        counted = torch.bincount(sizes[:, clip], minlength=11)
        assert counted[:low].sum() == counted[high + 1 :].sum() == 0
        assert high == low or stats.chisquare(counted[low : high + 1].numpy()).pvalue > 1e-4


def test_every_frame_is_drawn_equally_often():
    mask = torch.arange(8) < torch.tensor([8, 5])[:, None]
    drawn = draw_frames(mask, torch.tensor([2, 2]), (4000,), torch.Generator().manual_seed(1))
    for clip, there in enumerate((8, 5)):
        assert stats.chisquare(drawn[:, clip, :there].sum(dim=0).numpy()).pvalue > 1e-4


def test_views_and_branches_see_frames_of_their_own():
    head, batch = MeanHead(branches=2), make_batch()
    Move()(head, batch, make_known())
    assert head.mask.shape == (2, 2, 9, 12)
    views = head.mask.flatten(0, 1)
    assert all(not torch.equal(views[a], views[b]) for a in range(4) for b in range(a))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0])
def test_beta_draws_follow_their_distribution(alpha):
    drawn = draw_beta(alpha, (3000,), torch.Generator().manual_seed(0)).numpy()
    assert stats.kstest(drawn, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def mean_of(frames, mask) -> torch.Tensor:
    return torch.stack([frame for frame, there in zip(frames, mask, strict=True) if there]).mean(dim=0)


def test_clips_and_targets_are_those_of_a_loop_over_the_equations():
    """The draws are read from what the head saw and from a second generator in the same state."""
    batch, head, known = make_batch(2), MeanHead(), make_known(2)
    logits, targets = Move()(head, batch, known)
    generator = make_known(2).generator
    sizes = head.mask[0].sum(dim=-1)
    draw_frames(batch.mask, sizes[0], (1, 2), generator)  # takes as many draws whatever the bounds are
    beyond = 1.0 + draw_beta(2.0, (9, 1), generator)
    partner = torch.randperm(9, generator=generator).tolist()
    between = draw_beta(1.0, (9, 1), generator)
    outside = []
    for clip in range(9):
        u, v = (mean_of(batch.frames[clip], head.mask[0, view, clip]) for view in (0, 1))
        outside.append(float(beyond[clip]) * u + (1 - float(beyond[clip])) * v)
    tau = [(float(n) - 3.0) / 37.0 for n in COUNTS]
    for i, j in enumerate(partner):
        share = float(between[i])
        torch.testing.assert_close(logits[i], share * outside[i] + (1 - share) * outside[j], rtol=1e-5, atol=1e-5)
        for c in range(3):
            mixed = share * float(batch.targets[i, c]) + (1 - share) * float(batch.targets[j, c])
            assert float(targets[i, c]) == pytest.approx(min(1.0, mixed * (1 - tau[c] + 0.5)), abs=1e-6)


def test_no_view_has_fewer_frames_than_equation_9_allows():
    batch = make_batch(3)
    tau = [1.0, 9 / 37, 0.0]
    sizes = []
    for seed in range(300):
        head = MeanHead()
        Move()(head, batch, make_known(seed))
        sizes.append(head.mask[0].sum(dim=-1))
    fewest = torch.stack(sizes).amin(dim=(0, 1)).tolist()
    for clip in range(9):
        length = int(batch.mask[clip].sum())
        bounds = [max(math.floor(tau[c] * length), 3) for c in range(3) if batch.targets[clip, c]]
        assert fewest[clip] == min(length, math.floor(sum(bounds) / len(bounds)))


def test_bounds_of_several_classes_are_rounded_down_one_by_one():
    """Of 8 frames floor(5.8) and floor(4.8), 4.5 in the mean, hence 4; without rounding each it is 5.3."""
    counts = torch.tensor([40.0, 30.0, 25.0, 3.0])
    batch = Batch(torch.ones(1, 8, 5), torch.ones(1, 8, dtype=torch.bool), torch.tensor([[0.0, 1.0, 1.0, 0.0]]))
    sizes = []
    for seed in range(50):
        head = MeanHead()
        Move()(head, batch, Known(counts, torch.zeros(4), torch.Generator().manual_seed(seed)))
        sizes.append(int(head.mask.sum(dim=-1).amin()))
    assert min(sizes) == 4


def test_each_part_can_be_left_out():
    batch = make_batch()
    head = MeanHead()
    logits, targets = Move(sampler=False, extrapolation=False, interpolation=False)(head, batch, make_known())
    torch.testing.assert_close(logits, head.aggregate(batch.frames, batch.mask))
    assert torch.equal(targets, batch.targets)
    Move(extrapolation=False, interpolation=False)(head, batch, make_known())
    assert head.mask.shape == (1, 1, 9, 12)
    _, plain = Move(sampler=False, extrapolation=False, calibration=False)(head, batch, make_known(5))
    generator = make_known(5).generator
    partner, share = torch.randperm(9, generator=generator), draw_beta(1.0, (9, 1), generator)
    torch.testing.assert_close(plain, share * batch.targets + (1 - share) * batch.targets[partner])


def test_two_equal_views_leave_the_clip_where_it_is():
    batch, head = make_batch(), MeanHead()
    logits, _ = Move(sampler=False, interpolation=False)(head, batch, make_known())
    torch.testing.assert_close(logits, head.aggregate(batch.frames, batch.mask))


def test_as_released_keys_are_dropped_alike_in_both_views_and_draws_are_one_a_batch():
    batch, head = make_batch(4), MeanHead(branches=2)
    Move(released=True, interpolation=False)(head, batch, make_known(4))
    assert head.mask.shape == (3, 2, 9, 12)
    queries, keys, centres = head.mask
    assert torch.equal(keys[0], keys[1])
    assert not torch.equal(queries[0], queries[1])
    assert not torch.equal(centres[0], centres[1])
    assert not (head.mask & ~batch.mask).any()
    u, v = (torch.stack([mean_of(batch.frames[c], queries[k, c]) for c in range(9)]) for k in (0, 1))
    steps = ((head.clips - v) / (u - v)).flatten()  # w of every clip and number
    steps = steps[(u - v).flatten().abs() > 0.1]
    assert float(steps.std()) < 1e-3
    assert 1.0 <= float(steps.mean()) <= 2.0


def test_as_released_it_is_for_the_aggregated_head_alone():
    with pytest.raises(LongreelError, match="aggregated head alone"):
        Move(released=True)(MeanHead(), make_batch(), make_known())


@pytest.mark.parametrize(
    "options", [{"sigma": 0}, {"gamma": 0.0}, {"beyond": 0.0}, {"between": float("nan")}, {"gamma": math.inf}]
)
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(LongreelError, match="move: sigma"):
        Move(**options)
