"""What every mixer promises; mixup and mixed reconstruction against loops."""

import math

import pytest
import torch
from small_mixing import COUNTS, MeanHead, make_batch, make_known
from torch.nn import functional as F

from longreel.balance import MIXERS, Batch
from longreel.balance.lmr import MixedReconstruction
from longreel.balance.mixing import draw_beta
from longreel.balance.mixup import Mixup
from longreel.errors import LongreelError
from longreel.heads import HEADS, build_head
from longreel.parts import build_part


@pytest.mark.parametrize("name", MIXERS)
def test_one_generator_decides_everything(name):
    mixer = build_part("mixer", MIXERS, name)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(found))  # the global generator has no say
        found.append(mixer(MeanHead(), make_batch(), make_known(seed)))
    (logits, targets), (again, same), (others, _) = found
    assert torch.equal(logits, again)
    assert torch.equal(targets, same)
    assert torch.equal(logits, others) == (name == "none")


@pytest.mark.parametrize("name", MIXERS)
def test_what_was_drawn_is_left_as_it_was_and_padding_never_shows(name):
    batch, padded = make_batch(), make_batch()
    padded.frames[~padded.mask] = -777.0
    mixer = build_part("mixer", MIXERS, name)
    logits, targets = mixer(MeanHead(), batch, make_known())
    other, same = mixer(MeanHead(), padded, make_known())
    torch.testing.assert_close(logits, other)
    assert torch.equal(targets, same)
    for mine, fresh in zip(vars(batch).values(), vars(make_batch()).values(), strict=True):
        assert torch.equal(mine, fresh)


@pytest.mark.parametrize("name", MIXERS)
def test_targets_stay_targets(name):
    _, targets = build_part("mixer", MIXERS, name)(MeanHead(), make_batch(), make_known())
    assert targets.shape == (9, 3)
    assert 0.0 <= float(targets.min()) <= float(targets.max()) <= 1.0
    assert (targets.sum(dim=1) > 0).all()


@pytest.mark.parametrize("name", MIXERS)
def test_a_batch_of_one_clip_is_no_matter(name):
    batch = make_batch(clips=1)
    logits, targets = build_part("mixer", MIXERS, name)(MeanHead(), batch, make_known())
    assert logits.isfinite().all()
    assert targets.shape == (1, 3)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", MIXERS)
def test_every_mixer_goes_with_every_head(name, head):
    module = build_head(head, 16, 3, torch.zeros(16), torch.ones(16))
    if not module.trainable:
        pytest.skip("is not trained")
    batch = make_batch(dim=16)
    batch.frames[~batch.mask] = 0.0
    logits, targets = build_part("mixer", MIXERS, name)(module, batch, make_known())
    F.binary_cross_entropy_with_logits(logits, targets).backward()
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    assert logits.shape == (9, 3)
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_mixup_mixes_frame_by_frame_and_takes_a_frame_alone_where_the_other_has_none():
    batch, head = make_batch(3), MeanHead()
    _, targets = Mixup()(head, batch, make_known(3))
    generator = make_known(3).generator
    partner, shares = torch.randperm(9, generator=generator).tolist(), draw_beta(1.0, (9, 1), generator)
    for i, j in enumerate(partner):
        share = float(shares[i])
        for t in range(12):
            there = bool(batch.mask[i, t]), bool(batch.mask[j, t])
            assert bool(head.mask[i, t]) == any(there)
            if any(there):
                own, other = share * there[0], (1 - share) * there[1]
                expected = (own * batch.frames[i, t] + other * batch.frames[j, t]) / (own + other)
                torch.testing.assert_close(head.frames[i, t], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(targets[i], share * batch.targets[i] + (1 - share) * batch.targets[j])


def test_mixup_shows_no_padding_where_a_share_is_so_small_that_it_is_zero():
    assert set(draw_beta(1e-9, (20,), make_known().generator).tolist()) == {0.0, 1.0}
    batch, head = make_batch(), MeanHead()
    for seed in range(20):
        Mixup(alpha=1e-9)(head, batch, make_known(seed))
        assert float(head.frames[head.mask].abs().max()) < 100  # padding is 1e4


def test_mixup_at_clips_mixes_what_was_pooled():
    batch, head = make_batch(3), MeanHead()
    logits, _ = Mixup(at="clips")(head, batch, make_known(3))
    generator = make_known(3).generator
    partner, share = torch.randperm(9, generator=generator), draw_beta(1.0, (9, 1), generator)
    pooled = head.aggregate(batch.frames, batch.mask)
    torch.testing.assert_close(logits, share * pooled + (1 - share) * pooled[partner])


def rebuild_one_by_one(
    clips: torch.Tensor, counts: list[float], lmr: MixedReconstruction, rebuilt_first: int
) -> torch.Tensor:
    """Section 2 of the paper in plain Python: similar clips of classes with more than omega clips, but not itself.

    The clips behind the first ones are those of earlier batches.
    """
    low, high = float(COUNTS.min()), float(COUNTS.max())
    falls = {n: 1 / math.log((n + max(5.0, low)) * lmr.steepness) for n in (*counts, low, high)}
    rows = [(row - row.mean()) / (row.var(unbiased=False) + 1e-5).sqrt() for row in clips]
    rebuilt = []
    for i, clip in enumerate(clips[:rebuilt_first]):
        others = [j for j in range(len(clips)) if j != i and counts[j] > lmr.omega]
        share = lmr.most * (falls[counts[i]] - falls[high]) / (falls[low] - falls[high])
        weights = [math.exp(float(rows[i] @ rows[j]) / len(clip)) for j in others]
        blend = sum((w / sum(weights) * clips[j] for w, j in zip(weights, others, strict=True)), torch.zeros(len(clip)))
        rebuilt.append(share * blend + (1 - share) * clip if others else clip)
    return torch.stack(rebuilt)


@pytest.mark.parametrize("omega", [5, 20, 1000])
@pytest.mark.parametrize("size", [9, 4], ids=["no bank", "bank"])
def test_reconstruction_is_that_of_a_loop_over_clips(size, omega):
    lmr = MixedReconstruction(omega=omega)
    clips = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    counts = [40.0, 12.0, 3.0] * 3
    numbers = torch.tensor(counts)
    found = lmr.reconstruct(clips[:size], numbers[:size], COUNTS, clips[size:], numbers[size:])
    torch.testing.assert_close(found, rebuild_one_by_one(clips, counts, lmr, size), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bank", [0, 1, 3])
def test_the_bank_holds_the_clips_of_the_batches_before(bank):
    lmr, head, known, seen = MixedReconstruction(bank=bank, mixed=0.0), MeanHead(), make_known(), []
    for seed in range(5):
        batch = make_batch(seed, clips=9 - seed)
        clips = head.aggregate(batch.frames, batch.mask)
        earlier = seen[len(seen) - min(bank, len(seen)) :]
        poorest = [min(float(COUNTS[c]) for c in range(3) if row[c]) for row in batch.targets]
        pool = torch.cat([clips, *(clips for clips, _ in earlier)])
        counts = poorest + [count for _, counts in earlier for count in counts]
        lmr(head, batch, known)
        torch.testing.assert_close(head.clips, rebuild_one_by_one(pool, counts, lmr, len(batch)), rtol=1e-5, atol=1e-5)
        seen.append((clips, poorest))


def test_reconstruction_leaves_the_richest_class_alone_and_takes_the_poorest_label():
    shares = MixedReconstruction().shares(COUNTS, COUNTS)
    assert shares.tolist() == pytest.approx([0.0, float(shares[1]), 0.6])
    assert 0.0 < float(shares[1]) < 0.6
    head, batch = MeanHead(), make_batch()
    batch = Batch(batch.frames, batch.mask, torch.tensor([[1.0, 0, 1.0]] * 4 + [[1.0, 0, 0]] * 5))
    MixedReconstruction(mixed=0.0)(head, batch, make_known())
    moved = (head.clips - head.aggregate(batch.frames, batch.mask)).abs().sum(dim=1) > 1e-6
    assert moved.tolist() == [True] * 4 + [False] * 5


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("mixup", {"at": "rows"}, "at=frames or at=clips"),
        ("mixup", {"alpha": 0.0}, "alpha above 0"),
        ("mixup", {"alpha": math.inf}, "alpha above 0"),
        ("lmr", {"most": 1.5}, "between 0 and 1"),
        ("lmr", {"steepness": 0.2}, r"steepness is above 0\.2"),
        ("lmr", {"steepness": math.inf}, "and finite"),
        ("lmr", {"bank": -1}, "number of earlier batches"),
    ],
)
def test_options_that_mean_nothing_are_refused(name, options, text):
    with pytest.raises(LongreelError, match=text):
        MIXERS[name](**options)
