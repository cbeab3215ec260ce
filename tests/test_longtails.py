"""Makers of long tails: the formulas against published counts, and which clips stay."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from longreel.errors import LongreelError
from longreel.experiments.longtails import SHAPES, Exponential, Lomax, thin
from longreel.manifest import Clip

CLASSES = ("ant", "bee", "cat", "dog")


def clips_of(*counts: int, split: str = "train") -> list[Clip]:
    """Clips of as many classes, in an order that mixes them."""
    every = [
        Clip(f"{split}-{name}{number}", f"{split}/{name}{number}.mp4", (name,), split)
        for name, count in zip(CLASSES, counts, strict=False)
        for number in range(count)
    ]
    return sorted(every, key=lambda clip: clip.clip_id[::-1])


def kept_ids(clips: list[Clip]) -> set[str]:
    return {clip.clip_id for clip in clips if clip.split == "train"}


def test_exponential_gives_the_published_counts_of_long_tailed_cifar_10():
    # n_max 5000, imbalance 100: Cao et al., LDAM, NeurIPS 2019, as in its released split.
    published = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert Exponential(0.01)([str(n) for n in range(10)], [5000] * 10) == published


def test_exponential_gives_exact_counts_where_the_formula_is_whole():
    assert Exponential(0.01)(["a", "b", "c"], [1000] * 3) == [1000, 100, 10]
    assert Exponential(0.001)(["a", "b", "c", "d"], [1000] * 4) == [1000, 100, 10, 1]


def test_exponential_leaves_every_class_a_clip():
    assert Exponential(0.001)(["a", "b", "c"], [20] * 3) == [20, 1, 1]


def test_lomax_gives_the_head_of_ssv2_lt_within_one_clip_and_its_groups():
    # TRAIN_COUNTS of the released configuration of Perrett et al., CVPR 2023: the 14 head classes, 50 418 clips in all.
    published = [2500, 2357, 2224, 2099, 1982, 1872, 1769, 1673, 1582, 1498, 1418, 1343, 1273, 1206]
    counts = Lomax(alpha=6, minimum=5, maximum=2500, scale=118.6)([str(n) for n in range(174)], [4000] * 174)
    assert max(abs(mine - theirs) for mine, theirs in zip(counts, published, strict=False)) <= 1
    assert abs(sum(counts) - 50418) == 41
    assert (sum(n >= 1206 for n in counts), sum(20 < n < 1206 for n in counts), sum(n <= 20 for n in counts)) == (
        14,
        103,
        57,
    )


def test_lomax_reaches_its_minimum_with_the_last_class_and_no_sooner():
    counts = Lomax(alpha=6, minimum=5)([str(n) for n in range(174)], [2500] * 174)
    assert counts[0] == 2500
    assert counts[-1] == 5
    assert counts[-5] > 5
    assert counts == sorted(counts, reverse=True)


def test_the_largest_class_comes_first_and_of_equals_the_first_in_order():
    assert Exponential(0.1)(CLASSES, [50, 100, 100, 10]) == [21, 100, 46, 10]


def test_a_file_gives_counts_by_class(tmp_path):
    path = tmp_path / "counts.json"
    path.write_text(json.dumps({"bee": 2, "ant": 1, "cat": 3, "dog": 9}))
    thinned = thin(clips_of(5, 5, 5, 5), CLASSES, f"explicit:file={path}")
    assert thinned.kept == {"ant": 1, "bee": 2, "cat": 3, "dog": 5}
    assert thinned.short == {"dog": 9}


@pytest.mark.parametrize(
    ("document", "answer"),
    [
        ('{"ant": 1, "bee": 2, "cat": 3}', "has no count for class 'dog'"),
        ('{"ant": 1, "bee": 2, "cat": 3, "dgo": 4}', "no class called 'dgo'. Did you mean 'dog'"),
        ('{"ant": 1, "bee": 2, "cat": 3, "dog": 0}', "class 'dog': 0 is no count"),
        ('{"ant": 1, "bee": 2, "cat": 3, "dog": true}', "class 'dog': True is no count"),
        ("[1, 2, 3, 4]", "is no JSON object"),
        ("{", "cannot be read"),
    ],
)
def test_a_file_of_counts_that_cannot_be_used_is_named(document, answer, tmp_path):
    (tmp_path / "counts.json").write_text(document)
    with pytest.raises(LongreelError, match=rf"counts.json: {answer}"):
        thin(clips_of(5, 5, 5, 5), CLASSES, f"explicit:file={tmp_path / 'counts.json'}")


@pytest.mark.parametrize("shape", ["exponential:factor=0.1", "lomax:minimum=2"])
@pytest.mark.parametrize("keep", ["drawn", "first"])
def test_every_class_keeps_what_the_shape_says_and_the_other_splits_stay(shape, keep):
    val, test = clips_of(3, 3, 3, 3, split="val"), clips_of(2, 2, 2, 2, split="test")
    train = clips_of(40, 40, 40, 40)
    thinned = thin([*test, *train, *val], CLASSES, shape, keep=keep)
    assert [clip for clip in thinned.clips if clip.split != "train"] == [*test, *val]
    found = Counter(clip.labels[0] for clip in thinned.clips if clip.split == "train")
    assert found == thinned.kept
    assert found["ant"] == 40
    assert 2 <= found["dog"] <= 4
    assert sorted(found.values(), reverse=True) == [found[name] for name in CLASSES]
    order = {clip.clip_id: place for place, clip in enumerate([*test, *train, *val])}
    places = [order[clip.clip_id] for clip in thinned.clips]
    assert places == sorted(places)


def test_the_first_are_those_that_come_first():
    train = clips_of(4, 4)
    thinned = thin(train, CLASSES[:2], "exponential:factor=0.5", keep="first")
    expected = [clip for clip in train if clip.labels == ("ant",)] + [c for c in train if c.labels == ("bee",)][:2]
    assert kept_ids(thinned.clips) == {clip.clip_id for clip in expected}


def test_the_draw_depends_on_the_seed_and_the_ids_alone():
    train = clips_of(30, 30, 30, 30)
    drawn = kept_ids(thin(train, CLASSES, "exponential:factor=0.1", seed=3).clips)
    assert drawn == kept_ids(thin(train[::-1], CLASSES, "exponential:factor=0.1", seed=3).clips)
    assert drawn != kept_ids(thin(train, CLASSES, "exponential:factor=0.1", seed=4).clips)
    assert drawn != kept_ids(thin(train, CLASSES, "exponential:factor=0.1", keep="first").clips)


def test_a_steeper_tail_is_a_part_of_a_flatter_one():
    train = clips_of(30, 30, 30, 30)
    steep, flat = (kept_ids(thin(train, CLASSES, f"exponential:factor={f}", seed=1).clips) for f in (0.1, 0.5))
    assert steep < flat


def test_a_draw_takes_each_clip_equally_often():
    train = clips_of(10, 10)
    taken = Counter()
    for seed in range(400):
        taken.update(
            i for i in kept_ids(thin(train, CLASSES[:2], "exponential:factor=0.5", seed=seed).clips) if "bee" in i
        )
    assert len(taken) == 10
    assert all(150 < count < 250 for count in taken.values())  # 200 each, five standard deviations of 10


def test_generated_clips_are_neither_counted_nor_left_out():
    generated = [replace(clip, clip_id=f"g{clip.clip_id}", source="generated") for clip in clips_of(0, 9)]
    thinned = thin([*generated, *clips_of(8, 6)], CLASSES[:2], "exponential:factor=0.25")
    assert thinned.kept == {"ant": 8, "bee": 2}
    assert [clip for clip in thinned.clips if clip.source == "generated"] == generated


def test_a_class_with_too_few_clips_keeps_them_all_and_is_told():
    thinned = thin(clips_of(100, 30, 3, 20), CLASSES, "exponential:factor=0.1")
    assert thinned.kept == {"ant": 100, "bee": 30, "cat": 3, "dog": 20}
    assert thinned.short == {"bee": 46, "dog": 21, "cat": 10}


BAD = {
    "exponential:factor=0": "shape exponential: this factor cannot be used. Give a number above 0",
    "exponential:factor=1.5": "this factor",
    "exponential:factor=nan": "this factor",
    "exponential:maximum=2.5": "this maximum",
    "exponential:maximum=inf": "this maximum",
    "exponential:ratio=2": "no option of shape exponential called 'ratio'",
    "lomax:alpha=0": "shape lomax: this alpha",
    "lomax:minimum=0": "this minimum",
    "lomax:scale=-1": "this scale",
    "lomax:minimum=5": "the largest class shall have 5 clips, which is not above minimum=5",
    "explicit": "needs a file",
    "expnential": "no shape called 'expnential'. Did you mean 'exponential'",
}


@pytest.mark.parametrize("shape", BAD)
def test_a_shape_that_cannot_be_used_is_refused(shape):
    with pytest.raises(LongreelError, match=BAD[shape]):
        thin(clips_of(5, 5, 5, 5), CLASSES, shape)


def test_clips_of_several_classes_are_refused():
    both = Clip("both", "both.mp4", ("ant", "bee"), "train")
    with pytest.raises(LongreelError, match="clip 'both' has 2 classes"):
        thin([*clips_of(5, 5), both], CLASSES[:2], "exponential")


def test_a_manifest_without_training_clips_is_refused():
    with pytest.raises(LongreelError, match="no real training clip"):
        thin(clips_of(5, 5, split="test"), CLASSES[:2], "exponential")


def test_another_way_to_keep_is_refused():
    with pytest.raises(LongreelError, match="no way to keep clips called 'last'"):
        thin(clips_of(5, 5), CLASSES[:2], "exponential", keep="last")


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_is_documented(name):
    text = (Path(__file__).parent.parent / "docs" / "protocols.md").read_text()
    assert f"`{name}" in text
