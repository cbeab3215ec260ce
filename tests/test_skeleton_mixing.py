"""Partial mixup and temporal reverse against loops over clips, frames and joints."""

import math

import pytest
import torch
from small_skeletons import COUNTS, KINECT, NTU, Watching, make_batch, make_known, naive_axes
from torch import Tensor
from torch.nn import functional as F

from longreel.balance import METHODS, SKELETON_MIXERS, Batch
from longreel.balance.skeletons import (
    Exploration,
    matching_frames,
    mix_parts,
    own_shares,
    partial_mixup,
    temporal_reverse,
)
from longreel.errors import LongreelError
from longreel.experiments.stages import lay_out
from longreel.heads import Nonlinear
from longreel.heads.graph import gcn_lite
from longreel.layouts import Layout
from longreel.parts import build_part


def run(mixer: Exploration, batch: Batch, seed: int = 0, layout: Layout = KINECT) -> tuple[Tensor, Tensor]:
    """The frames that the head is shown, and the targets."""
    head = Watching(layout)
    _, targets = mixer(head, batch, make_known(seed))
    assert torch.equal(head.mask, batch.mask)
    return head.frames, targets


def naive_mix(batch: Batch, own: int, other: int, layout: Layout, in_order: bool) -> list[Tensor]:
    """The frames of one mixed clip, joint by joint."""
    mine, theirs = (batch.frames[clip].unflatten(-1, (-1, len(layout.joints), 3)) for clip in (own, other))
    length, other_length = int(batch.mask[own].sum()), int(batch.mask[other].sum())
    mine_axes, their_axes = (
        naive_axes(joints, batch.mask[clip], layout) for joints, clip in ((mine, own), (theirs, other))
    )
    frames = []
    for frame in range(length):
        there = frame * (other_length - 1) // max(length - 1, 1)
        bodies = []
        for body in range(mine.shape[1]):
            upper = {joint: mine[frame, body, joint] for joint in layout.upper}
            lower = {}
            for joint in layout.lower:
                point = theirs[there, body, joint]
                inside = their_axes @ (point - theirs[0, 0, layout.spine])
                moved = mine_axes.T @ inside + mine[0, 0, layout.spine]
                lower[joint] = moved if bool((point != 0).any()) else torch.zeros(3)
            joints = sorted(upper | lower) if in_order else [*upper, *lower]
            bodies.append(torch.stack([(upper | lower)[joint] for joint in joints]))
        frames.append(torch.stack(bodies).flatten())
    return frames


def pair_of(mixed: Tensor, batch: Batch, clip: int, layout: Layout = KINECT, in_order: bool = True) -> int | None:
    """Whose lower body a clip got, or none where it was not mixed."""
    length = int(batch.mask[clip].sum())
    if torch.equal(mixed[clip, :length], batch.frames[clip, :length]):
        return None
    for other in range(len(batch)):
        naive = torch.stack(naive_mix(batch, clip, other, layout, in_order))
        if other != clip and torch.allclose(mixed[clip, :length], naive, atol=1e-4):
            return other
    raise AssertionError(f"clip {clip} is no mixture of two clips")


def naive_share(own: float, other: float, kappa: float, alpha: float) -> float:
    if own > kappa * other:
        return 0.0
    return 1.0 if other > kappa * own else alpha


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize(("layout", "bodies"), [(KINECT, 1), (NTU, 2)], ids=["kinect20", "ntu25"])
def test_mixed_clips_and_their_gradients_are_those_of_a_loop(layout, bodies, in_order):
    batch = make_batch(layout, bodies=bodies)
    own, other = torch.tensor([0, 3, 5, 1, 6]), torch.tensor([2, 1, 4, 7, 0])
    found = []
    for naive in (False, True):
        leaf = batch.frames.clone().requires_grad_()
        given = Batch(leaf, batch.mask, batch.targets)
        if naive:
            rows = [
                torch.stack(naive_mix(given, int(a), int(b), layout, in_order)) for a, b in zip(own, other, strict=True)
            ]
        else:
            mixed = mix_parts(given, own, other, layout, in_order=in_order)
            rows = [clip[: int(batch.mask[number].sum())] for clip, number in zip(mixed, own, strict=True)]
        weights = [torch.linspace(-1, 1, each.numel()).view_as(each) for each in rows]
        torch.stack([(a * b).sum() for a, b in zip(rows, weights, strict=True)]).sum().backward()
        assert leaf.grad is not None
        found.append([*(each.detach() for each in rows), leaf.grad * batch.mask[..., None]])
    for mine, naive in zip(*found, strict=True):
        torch.testing.assert_close(mine, naive, rtol=1e-4, atol=1e-4)


def test_frames_match_at_the_same_part_of_the_time_wherever_they_stand():
    own = torch.tensor([[True, False, True, True, False, True], [True, True, False, False, False, False]])
    other = torch.tensor([[False, True, True, False, False, False], [True, True, True, False, True, True]])
    assert matching_frames(own, other)[0][own[0]].tolist() == [1, 1, 1, 2]
    assert matching_frames(own, other)[1][own[1]].tolist() == [0, 5]
    assert torch.equal(matching_frames(other, other)[other], torch.arange(6).expand(2, 6)[other])


@pytest.mark.parametrize(("layout", "alpha"), [(KINECT, 11 / 20), (NTU, 16 / 25)], ids=["kinect20", "ntu25"])
def test_every_clip_can_be_mixed_and_its_target_is_that_of_the_two_classes_counts(layout, alpha):
    batch, shares = make_batch(layout), set()
    for seed in range(6):
        frames, targets = run(partial_mixup(rate=1.0), batch, seed, layout)
        for clip in range(8):
            other = pair_of(frames, batch, clip, layout)
            assert other is not None
            share = naive_share(float(COUNTS[clip % 4]), float(COUNTS[other % 4]), 3.0, alpha)
            expected = share * batch.targets[clip] + (1 - share) * batch.targets[other]
            torch.testing.assert_close(targets[clip], expected)
            shares.add(share)
    assert shares == {0.0, alpha, 1.0}


def test_the_label_goes_to_the_rarer_class_beyond_kappa_and_not_at_it():
    own, other = torch.tensor([100.0, 99.0, 10.0, 30.0, 10.0]), torch.tensor([33.0, 33.0, 31.0, 10.0, 10.0])
    expected = [naive_share(a, b, 3.0, 0.64) for a, b in zip(own.tolist(), other.tolist(), strict=True)]
    assert own_shares(own, other, 3.0, 0.64).tolist() == pytest.approx(expected)
    assert expected == [0.0, 0.64, 1.0, 0.64, 0.64]


def test_so_many_clips_are_mixed_and_the_others_stay_as_they_are():
    batch, times = make_batch(), 0
    for seed in range(60):
        frames, targets = run(partial_mixup(rate=0.25), batch, seed)
        for clip in range(8):
            if pair_of(frames, batch, clip) is None:
                assert torch.equal(targets[clip], batch.targets[clip])
                assert torch.equal(frames[clip], batch.frames[clip])
            else:
                times += 1
    assert abs(times - 480 * 0.25) < 5 * math.sqrt(480 * 0.25 * 0.75)
    frames, targets = run(partial_mixup(rate=0.0), batch)
    assert torch.equal(frames, batch.frames)
    assert torch.equal(targets, batch.targets)


def test_released_mixes_a_fixed_number_puts_lower_joints_last_and_has_one_share_a_batch():
    batch = make_batch(clips=16)
    for seed in range(8):
        frames, targets = run(partial_mixup(rate=0.25, released=True), batch, seed)
        pairs = {clip: pair_of(frames, batch, clip, in_order=False) for clip in range(16)}
        mixed = {clip: other for clip, other in pairs.items() if other is not None}
        assert len(mixed) == 4
        last = int(torch.rand(16, generator=torch.Generator().manual_seed(seed)).argsort()[3])  # of those drawn
        share = naive_share(float(COUNTS[last % 4]), float(COUNTS[mixed[last] % 4]), 3.0, 0.64)
        for clip, other in mixed.items():
            torch.testing.assert_close(targets[clip], torch.lerp(batch.targets[other], batch.targets[clip], share))


@pytest.mark.parametrize(("chance", "expected"), [(0.0, 0.0), (1.0, 1.0), (0.5, 0.5)])
def test_clips_are_reversed_with_the_chance_given_and_only_in_their_frames(chance, expected):
    batch = make_batch(clips=200)
    frames, targets = run(temporal_reverse(reverse=chance), batch)
    assert torch.equal(targets, batch.targets)
    times = many = 0
    for clip in range(200):
        length = int(batch.mask[clip].sum())
        backwards = torch.cat([batch.frames[clip, :length].flip(0), batch.frames[clip, length:]])
        if length > 1:
            many += 1
            times += int(torch.equal(frames[clip], backwards))
            assert torch.equal(frames[clip], backwards) or torch.equal(frames[clip], batch.frames[clip])
    assert abs(times - many * expected) <= 5 * math.sqrt(many * expected * (1 - expected))


def test_a_seeded_half_is_the_half_that_the_generator_names():
    batch = make_batch(clips=12)
    frames, _ = run(temporal_reverse(), batch, seed=4)
    generator = torch.Generator().manual_seed(4)
    torch.rand(12, generator=generator)  # who is mixed
    torch.randint(1, 12, (12,), generator=generator)  # with whom
    drawn = torch.rand(12, generator=generator) < 0.5
    for clip in range(12):
        length = int(batch.mask[clip].sum())
        own = batch.frames[clip, :length]
        assert torch.equal(frames[clip, :length], own.flip(0) if drawn[clip] else own)


def test_scattered_frames_are_reversed_in_their_places():
    frames = torch.arange(6.0)[None, :, None].expand(1, 6, 60).contiguous()
    mask = torch.tensor([[True, False, True, True, False, True]])
    found, _ = run(temporal_reverse(reverse=1.0), Batch(frames, mask, torch.eye(4)[:1]))
    assert found[0, :, 0].tolist() == [5, 1, 3, 2, 4, 0]


def test_weighted_by_the_tail_the_richest_class_is_never_reversed_and_the_poorest_most():
    batch = make_batch(clips=400)
    batch = Batch(
        torch.arange(9.0)[None, :, None].expand(400, 9, 60).contiguous(), torch.ones_like(batch.mask), batch.targets
    )
    frames, _ = run(temporal_reverse(reverse=0.8, tail_weighted=True), batch)
    backwards = frames[:, 0, 0] == 8
    for label, count in enumerate(COUNTS.tolist()):
        chance = 0.8 * (1 - (count - 10) / 90)
        times = int(backwards[batch.targets[:, label] > 0].sum())
        assert abs(times - 100 * chance) <= 5 * math.sqrt(100 * chance * (1 - chance))


def test_both_together_reverse_what_was_mixed():
    batch = make_batch()
    forward, targets = run(partial_mixup(rate=1.0), batch, seed=3)
    backward, same = run(Exploration(rate=1.0, reverse=1.0), batch, seed=3)
    assert torch.equal(targets, same)
    for clip in range(8):
        length = int(batch.mask[clip].sum())
        assert torch.equal(backward[clip, :length], forward[clip, :length].flip(0))


@pytest.mark.parametrize("make", SKELETON_MIXERS.values(), ids=SKELETON_MIXERS)
def test_what_every_mixer_promises(make):
    batch = make_batch()
    frames, targets = run(make(), batch, seed=1)
    again, same = run(make(), batch, seed=1)
    assert torch.equal(frames, again)
    assert torch.equal(targets, same)
    assert torch.equal(batch.frames, make_batch().frames)  # what was drawn is left as it was
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(8))
    alone = make_batch(clips=2)
    frames, targets = run(make(), Batch(*(each[:1] for each in vars(alone).values())))
    assert frames.shape == (1, 9, 60)
    assert torch.equal(targets, alone.targets[:1])


@pytest.mark.parametrize("make", SKELETON_MIXERS.values(), ids=SKELETON_MIXERS)
def test_heads_without_a_layout_are_refused(make):
    make().check(gcn_lite(KINECT, 60, 4))
    with pytest.raises(LongreelError, match=r"are for skeletons\. Take a head of those, such as gcn-lite"):
        make().check(Nonlinear(60, 4, hidden=4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 1.5}, r"rate=1.5 must lie between 0 and 1"),
        ({"alpha": -0.1}, r"alpha=-0.1 must lie"),
        ({"reverse": math.nan}, r"reverse=nan must lie"),
        ({"kappa": 0.5}, r"kappa=0.5 must be 1 or more"),
        ({"kappa": math.inf}, r"kappa=inf must be 1 or more"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(options, message):
    with pytest.raises(LongreelError, match=message):
        Exploration(**options)


def test_brl_and_its_parts_are_what_the_page_says():
    resampled, mixup = "tail-repetition", "partial-mixup"
    weighted = {
        "brl": (resampled, mixup),
        "brl-reverse": (resampled, "exploration"),
        "brl-tail-reverse": (resampled, "exploration:tail_weighted=true"),
        "brl-no-mixup": (resampled, "none"),
        "brl-no-resampling": ("instance", mixup),
        "action-aware-deferred": ("instance", "none"),
    }
    for name, (sampler, mixer) in weighted.items():
        stages = [(stage.loss, stage.sampler, stage.mixer) for stage in METHODS[name].stages]
        assert stages == [("ce", sampler, mixer), ("action-aware", sampler, mixer)], name
        assert [(leg.first, leg.end) for leg in lay_out(METHODS[name], 24)] == [(0, 19), (19, 24)]
    plain = {"brl-no-action-aware": (resampled, mixup), "partial-mixup": ("instance", mixup)}
    for name, (sampler, mixer) in plain.items():
        (stage,) = METHODS[name].stages
        assert (stage.loss, stage.sampler, stage.mixer) == ("ce", sampler, mixer)


def test_options_can_be_given_as_text():
    made = build_part("mixer", SKELETON_MIXERS, "partial-mixup:rate=0.25,alpha=0.5,released=true")
    assert made == Exploration(rate=0.25, alpha=0.5, reverse=0.0, released=True)


def test_a_mixed_batch_trains_the_graph_head():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    head, batch = gcn_lite(KINECT, 60, 4), make_batch()
    logits, targets = Exploration(rate=1.0)(head, batch, make_known())
    F.cross_entropy(logits, targets).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
