"""Long tails of skeleton data: counts of the published lists, and NW-UCLA's draw clip by clip."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from longreel.errors import LongreelError
from longreel.experiments.skeleton_splits import TAILS, choose_split, draw_tail, find_twins, tail_counts, write_split
from longreel.extract.skeletons import import_skeletons, open_skeletons
from longreel.manifest import Clip, read_manifest
from longreel.store import FeatureStore

UCLA = Path(__file__).parent.parent.parent / "shared" / "data" / "skeleton" / "nw_ucla.h5"
here = pytest.mark.skipif(not UCLA.exists(), reason=f"{UCLA} is not here")


@pytest.mark.parametrize(
    ("classes", "most", "ratio", "first", "last", "total"),
    [
        (10, 100, 10, 100, 10, 403),  # NW-UCLA-LT
        *((60, 600, 100, 600, 6, 7892), (60, 600, 50, 600, 12, 9150), (60, 600, 10, 600, 60, 14142)),  # NTU60
        *((120, 600, 100, 600, 6, 15600), (120, 600, 50, 600, 12, 18137), (120, 600, 10, 600, 60, 28182)),  # NTU120
        *((120, 400, 100, 400, 4, 10378), (120, 400, 50, 400, 8, 12069), (120, 400, 10, 400, 40, 18771)),  # xset
    ],
)
def test_the_counts_are_those_of_the_published_lists(classes, most, ratio, first, last, total):
    counts = tail_counts(classes, most, ratio)
    assert (len(counts), counts[0], counts[-1], sum(counts)) == (classes, first, last, total)
    assert counts == sorted(counts, reverse=True)


def test_every_tail_has_the_profile_of_its_name():
    assert {name: (tail.split, tail.most, tail.ratio) for name, tail in TAILS.items()} == {
        "lt_if10_train": ("official", 100, 10),
        "lt_if10_train_clean": ("train_clean", 100, 10),
        **{f"{split}-lt{end}": (split, most, ratio)
           for split, most in (("xsub", 600), ("xview", 600), ("xset", 400))
           for end, ratio in (("", 100), ("50", 50), ("10", 10))},
    }  # fmt: skip


def test_one_generator_goes_through_the_classes_in_the_order_of_the_list():
    ids, numbers = [f"{n}" for n in range(30)], [n % 3 for n in range(30)]
    np.random.seed(0)
    expected = []
    for number, count in enumerate((5, 4, 20)):
        members = [clip_id for clip_id, of in zip(ids, numbers, strict=True) if of == number]
        np.random.shuffle(members)
        expected += members[:count]
    assert draw_tail(ids, numbers, (5, 4, 20)) == expected
    assert len(expected) == 5 + 4 + 10
    assert draw_tail(ids, numbers, (5, 4, 20), seed=1) != expected


def some_clips() -> list[Clip]:
    return [Clip(f"c{n:02}", "all.pkl", ("ab"[n % 2],), "train", extra={"subject": str(n)}) for n in range(40)]


def test_a_split_has_its_clips_with_their_ids_as_paths_and_the_rest_is_left_out():
    splits = {"xsub": {"train": tuple(f"c{n:02}" for n in range(30)), "test": ("c39", "c31")}}
    chosen = choose_split(some_clips(), splits, ("a", "b"), "xsub")
    assert [clip.clip_id for clip in chosen if clip.split == "train"] == [f"c{n:02}" for n in range(30)]
    assert [clip.clip_id for clip in chosen if clip.split == "test"] == ["c31", "c39"]
    assert all(clip.path == clip.clip_id for clip in chosen)
    assert chosen[3].extra == {"subject": "3"}
    tail = choose_split(some_clips(), splits, ("a", "b"), "xsub-lt")
    kept = [clip.labels[0] for clip in tail if clip.split == "train"]
    assert (kept.count("a"), kept.count("b")) == (15, 6)  # of 600 and 6; there are 15 of each
    with pytest.raises(LongreelError, match=r"there are several splits\. Name one with --split: xsub, xsub-lt"):
        choose_split(some_clips(), splits, ("a", "b"), "")
    for wrong in ("xview", "xview-lt", "official", "lt_if10_train"):
        with pytest.raises(LongreelError, match="no split called") as refused:
            choose_split(some_clips(), splits, ("a", "b"), wrong)
        assert "xsub, xsub-lt, xsub-lt10, xsub-lt50" in str(refused.value)


def test_the_manifest_reads_back_and_bears_the_leak(tmp_path):
    splits = {"xsub": {"train": ("c00", "c01", "c02"), "test": ("c03",)}}
    chosen = choose_split(some_clips(), splits, ("a", "b"), "xsub")
    made = write_split(tmp_path / "clips.csv", chosen, {"split": "xsub"}, 1)
    table = read_manifest(tmp_path / "clips.csv")
    assert table.digest == made.digest
    assert [(clip.clip_id, clip.labels, clip.split, clip.extra) for clip in table.clips] == [
        (clip.clip_id, clip.labels, clip.split, clip.extra) for clip in chosen
    ]
    assert made.watermark == "1 clips of val and test are training clips, number by number"
    assert (made.clips, made.largest, made.smallest) == ({"train": 3, "test": 1}, 2, 1)
    with pytest.raises(LongreelError, match="is there already, and is not the same"):
        write_split(tmp_path / "clips.csv", chosen[1:], {"split": "xsub"}, 0)


@here
@pytest.mark.parametrize("name", ["lt_if10_train", "lt_if10_train_clean"])
def test_nw_ucla_lt_is_drawn_row_by_row_as_it_is_stored(name):
    with h5py.File(UCLA) as file:
        stored = np.asarray(file[name]).astype(bool)
        names = np.array([bytes(text).decode() for text in np.asarray(file["names"])])
        labels, classes = np.asarray(file["labels"]), [bytes(text).decode() for text in np.asarray(file["class_names"])]
    with open_skeletons(UCLA) as found:
        chosen = choose_split(found.manifest.clips, found.splits, found.classes, name)
    train = {clip.clip_id: clip.labels for clip in chosen if clip.split == "train"}
    assert np.array_equal(stored, [clip_id in train for clip_id in names])
    assert {clip_id: labels for clip_id, labels in train.items()} == {
        clip_id: (classes[label],) for clip_id, label in zip(names[stored], labels[stored], strict=True)
    }
    counts = [sum(labels == (each,) for labels in train.values()) for each in classes]
    second = [100, 77, 59] if name == "lt_if10_train" else [100, 52, 51]
    assert counts == [*second, 46, 35, 27, 21, 16, 12, 10]
    assert sum(clip.split == "test" for clip in chosen) == 464


@here
@pytest.mark.parametrize(
    ("name", "train", "twins"),
    [("official", 1020, 95), ("train_clean", 925, 0), ("lt_if10_train", 403, 71), ("lt_if10_train_clean", 370, 0)],
)
def test_the_leak_of_each_split_of_nw_ucla_is_as_documented(tmp_path, name, train, twins):
    with open_skeletons(UCLA) as found:
        import_skeletons(found, tmp_path / "s")
        chosen = choose_split(found.manifest.clips, found.splits, found.classes, name)
    assert [sum(clip.split == split for clip in chosen) for split in ("train", "val", "test")] == [train, 0, 464]
    pairs = find_twins(FeatureStore(tmp_path / "s"), chosen)
    assert len(pairs) == twins
    assert all((one[:-1], one[-1], other[-1]) == (other[:-1], "2", "3") for one, other in pairs)
