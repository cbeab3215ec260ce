"""Samplers: exact multisets where an epoch is determined, binomial bounds where it is drawn."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from longreel.balance.samplers import SAMPLERS
from longreel.errors import LongreelError
from longreel.parts import build_part, options_of

GUIDE = (Path(__file__).parent.parent / "docs" / "losses.md").read_text()
COUNTS = [300, 60, 12, 0, 2]
#: labels of nine clips; the last has none, and no clip has class 3.
SEVERAL = [{0}, {0}, {0, 1}, {1}, {0, 1, 2}, {2, 4}, {0, 4}, {0}, set()]


def single(counts: list[int]) -> Tensor:
    """Targets of so many clips of each class, one class a clip."""
    return F.one_hot(torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)), len(counts)).float()


def several(labels: list[set[int]], classes: int = 5) -> Tensor:
    return torch.tensor([[float(place in clip) for place in range(classes)] for clip in labels])


def draw(text: str, targets: Tensor, seed: int = 0, epochs: int = 1) -> Tensor:
    sampler, generator = build_part("sampler", SAMPLERS, text), torch.Generator().manual_seed(seed)
    return torch.cat([sampler(targets, generator) for _ in range(epochs)])


def times(clips: Tensor, total: int) -> list[int]:
    """How often each clip comes."""
    found = Counter(clips.tolist())
    return [found[clip] for clip in range(total)]


def assert_drawn_with(chances: Sequence[float], found: list[int]) -> None:
    """Each count within five standard deviations of its expectation."""
    draws = sum(found)
    for chance, count in zip(chances, found, strict=True):
        assert abs(count - draws * chance) <= 5 * math.sqrt(draws * chance * (1 - chance)), (chance, count, draws)


@pytest.mark.parametrize("text", [*SAMPLERS, "power:q=-0.5"])
def test_every_sampler_gives_numbers_of_clips_and_draws_from_its_generator_alone(text):
    for targets in (single(COUNTS), several(SEVERAL)):
        before = torch.get_rng_state()
        epoch = draw(text, targets)
        assert epoch.dtype == torch.int64
        assert epoch.ndim == 1
        assert 0 <= epoch.min() <= epoch.max() < len(targets)
        assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("text", SAMPLERS)
def test_a_seed_gives_the_same_epochs_and_every_epoch_is_another(text):
    targets = single(COUNTS)
    generator = torch.Generator().manual_seed(5)
    sampler = build_part("sampler", SAMPLERS, text)
    first = sampler(targets, generator)
    state = generator.get_state()
    second = sampler(targets, generator)
    generator.set_state(state)
    assert torch.equal(sampler(targets, generator), second)  # from a kept state, as a resumed training
    assert torch.equal(draw(text, targets, seed=5), first)
    assert not torch.equal(first, second)
    assert not torch.equal(draw(text, targets, seed=6), first)


def test_instance_takes_every_clip_once_in_random_order():
    epoch = draw("instance", single(COUNTS))
    assert sorted(epoch.tolist()) == list(range(374))
    assert epoch.tolist() != list(range(374))


@pytest.mark.parametrize(
    ("text", "q"),
    [("class-balanced", 0.0), ("square-root", 0.5), ("power:q=1", 1.0), ("power:q=-0.5", -0.5), ("power:q=0.25", 0.25)],
)
def test_a_class_is_drawn_in_proportion_to_a_power_of_its_clips_and_its_clips_evenly(text, q):
    epochs = draw(text, single(COUNTS), epochs=150)
    assert len(epochs) == 150 * 374
    powers = [n**q if n else 0.0 for n in COUNTS]
    found = times(epochs, 374)
    starts = [sum(COUNTS[:place]) for place in range(5)]
    assert_drawn_with(
        [power / sum(powers) for power in powers],
        [sum(found[start : start + n]) for start, n in zip(starts, COUNTS, strict=True)],
    )
    assert_drawn_with(
        [power / sum(powers) / n for power, n in zip(powers, COUNTS, strict=True) for _ in range(n)], found
    )


def test_power_one_draws_single_label_clips_evenly():
    assert_drawn_with([1 / 374] * 374, times(draw("power", single(COUNTS), epochs=150), 374))


@pytest.mark.parametrize(("text", "q"), [("class-balanced", 0.0), ("square-root", 0.5)])
def test_a_clip_of_several_classes_comes_by_any_of_them(text, q):
    counts = [sum(place in clip for clip in SEVERAL) for place in range(5)]
    powers = [n**q if n else 0.0 for n in counts]
    chances = [sum(powers[place] / sum(powers) / counts[place] for place in clip) for clip in SEVERAL]
    assert chances[8] == 0  # no class, never drawn
    assert_drawn_with(chances, times(draw(text, several(SEVERAL), epochs=3000), 9))


def test_extreme_powers_neither_overflow_nor_draw_a_class_without_clips():
    richest = times(draw("power:q=400", single(COUNTS), epochs=5), 374)
    assert sum(richest[:300]) == 5 * 374
    poorest = times(draw("power:q=-400", single(COUNTS), epochs=5), 374)
    assert sum(poorest[372:]) == 5 * 374


@pytest.mark.parametrize("text", ["power:q=1e308", "power:q=-inf", "power:q=nan"])
def test_a_power_that_no_number_can_hold_is_refused(text):
    with pytest.raises(LongreelError, match=r"power: q=.* must lie between -1000 and 1000"):
        draw(text, single(COUNTS))


def test_without_any_label_no_class_can_be_drawn():
    with pytest.raises(LongreelError, match="no training clip has a class to be drawn by"):
        draw("class-balanced", torch.zeros(3, 2))


def test_the_poorest_third_is_repeated_up_to_the_largest_class():
    counts = [3, 100, 60, 4, 30, 10]
    found = times(draw("tail-repetition", single(counts)), 207)
    assert sorted(found[:3]) == [33, 33, 34]  # 100 / 3 times
    assert found[3:163] == [1] * 160
    assert found[163:167] == [25] * 4  # 100 / 4 times
    assert found[167:] == [1] * 40


def test_the_fraction_of_a_repeat_falls_to_a_random_part_of_the_clips():
    extra = [times(draw("tail-repetition", single([100, 60, 8]), seed=seed), 168)[160:] for seed in range(400)]
    assert all(sorted(clips) == [12] * 4 + [13] * 4 for clips in extra)  # 100 / 8 is 12.5
    assert_drawn_with([1 / 8] * 8, [sum(clips[place] == 13 for clips in extra) for place in range(8)])


@pytest.mark.parametrize(
    ("richest", "ratio", "classes", "released"),
    [(600, 100, 60, 98106), (600, 100, 120, 195257), (400, 100, 120, 130103), (100, 10, 10, 3720)],
    ids=["NTU-60", "NTU-120 subject", "NTU-120 set-up", "NW-UCLA"],
)
def test_epochs_are_as_long_as_those_of_the_released_code(richest, ratio, classes, released):
    """Its epochs are five times as long, and it rounds each class in its own way."""
    counts = [int(richest * ratio ** (-place / (classes - 1))) for place in range(classes)]
    assert len(draw("tail-repetition", single(counts))) == pytest.approx(released / 5, abs=classes / 3)


def test_of_equally_rich_classes_the_first_are_the_richer():
    found = times(draw("tail-repetition", single([2, 8, 2])), 12)
    assert found == [1, 1, *[1] * 8, 4, 4]


def test_classes_without_clips_are_no_part_of_the_third():
    found = times(draw("tail-repetition", single([90, 0, 30, 10, 0, 0])), 130)
    assert found == [*[1] * 120, *[9] * 10]


def test_a_clip_of_several_classes_is_repeated_by_its_poorest_one():
    clips = [{0}] * 40 + [{1}] * 20 + [{0, 2}] * 3 + [{1, 2}] + [{0, 1}] * 2 + [{2}] * 2 + [set()]
    found = times(draw("tail-repetition", several(clips, classes=3)), len(clips))
    # n = 45, 23, 6: the six clips with class 2 come 45 / 6 times
    assert found[:60] == [1] * 60
    assert found[64:66] == [1, 1]
    assert sorted(found[60:64] + found[66:68]) == [7, 7, 7, 8, 8, 8]
    assert found[68] == 1


def test_two_tail_classes_share_clips_and_each_clip_goes_by_the_poorer():
    clips = [{0}] * 24 + [{1}] * 20 + [{2}] * 15 + [{3}] * 12 + [{4}] * 4 + [{4, 5}] * 2
    found = times(draw("tail-repetition", several(clips, classes=6)), len(clips))
    # classes 4 and 5 are the tail, n = 6 and 2: 24 / 6 times for class 4, 24 / 2 for class 5
    assert found == [*[1] * 71, *[4] * 4, *[12] * 2]


def test_repeated_clips_are_spread_over_the_epoch():
    epoch = draw("tail-repetition", single([1000, 50, 20]))
    tail = (epoch >= 1050).double()
    thirds = [float(part.mean()) for part in tail.chunk(3)]
    assert thirds == pytest.approx([1000 / 2050] * 3, abs=5 * 0.5 / math.sqrt(2050 / 3))


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_has_its_options_and_defaults_in_the_guide(name):
    rows = [line for line in GUIDE.splitlines() if line.startswith(f"| `{name}` |")]
    assert rows
    for option, default in options_of(SAMPLERS[name]).items():
        assert f"`{option}={default:g}`" in rows[-1]
