"""Clips in memory: batches against naive loops, kinds of rows, and clips that are not there."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from longreel.errors import StoreDamaged, StoreMismatch
from longreel.experiments.clips import ClipSet, load_clips, multi_hot
from longreel.manifest import Clip, read_manifest
from longreel.store import Failure, FeatureStore, append_failure

LENGTHS = (4, 1, 7, 2)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def clips() -> ClipSet:
    """Four clips of 4, 1, 7 and 2 rows; row ``r`` of all rows holds ``(r, 100 + r, 3)``."""
    numbers = torch.arange(sum(LENGTHS))
    return ClipSet(
        ids=("a", "b", "c", "d"),
        features=torch.stack([numbers, numbers + 100, torch.full_like(numbers, 3)], dim=1).half(),
        offsets=torch.tensor([0, 4, 5, 12, 14]),
        targets=torch.eye(4),
        failed=(),
    )


def first_column(frames: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    """The numbers of the rows that each clip of a batch got."""
    return [
        [int(row[0]) for row, there in zip(clip, real, strict=True) if there]
        for clip, real in zip(frames, mask, strict=True)
    ]


def test_a_batch_has_exactly_the_rows_of_its_clips_in_order(clips):
    frames, mask = clips.batch(torch.tensor([3, 0, 2, 0]))
    assert frames.dtype == torch.float32
    assert frames.shape == (4, 7, 3)
    assert first_column(frames, mask) == [[12, 13], [0, 1, 2, 3], [5, 6, 7, 8, 9, 10, 11], [0, 1, 2, 3]]
    assert torch.equal(frames[..., 1], frames[..., 0] + 100)


def test_the_mask_is_true_for_the_first_rows_and_as_many_as_the_clip_has(clips):
    _, mask = clips.batch(torch.arange(4))
    assert mask.tolist() == [[place < length for place in range(7)] for length in LENGTHS]


def test_padding_repeats_rows_of_the_same_clip(clips):
    frames, mask = clips.batch(torch.arange(4))
    for clip, real in zip(frames, mask, strict=True):
        assert {int(row[0]) for row in clip} == {int(row[0]) for row in clip[real]}


def test_a_batch_is_as_long_as_its_own_longest_clip(clips):
    assert clips.batch(torch.tensor([1, 3]))[0].shape == (2, 2, 3)
    assert clips.batch(torch.tensor([1]))[0].shape == (1, 1, 3)


def test_drawn_rows_lie_within_their_clip_and_in_time_order(clips):
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        frames, mask = clips.batch(torch.arange(4), 5, generator)
        assert frames.shape == (4, 5, 3)
        assert mask.all()
        for index, rows in enumerate(first_column(frames, mask)):
            assert rows == sorted(rows)
            assert int(clips.offsets[index]) <= rows[0]
            assert rows[-1] < int(clips.offsets[index + 1])


def test_every_row_of_a_clip_is_drawn_equally_often(clips):
    frames, mask = clips.batch(torch.full((1000,), 2), 7, torch.Generator().manual_seed(0))
    drawn = np.bincount(np.concatenate(first_column(frames, mask)), minlength=12)[5:]
    chi_square = ((drawn - 1000) ** 2 / 1000).sum()
    assert chi_square < 22.5  # the 0.1 % point with 6 degrees of freedom


def test_draws_repeat_with_the_seed_and_differ_without_it(clips):
    def draw(seed: int) -> torch.Tensor:
        return clips.batch(torch.arange(4), 6, torch.Generator().manual_seed(seed))[0]

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_draws_leave_the_global_generator_alone(clips):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    clips.batch(torch.arange(4), 6, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["real", "generated", "all"])
def test_rows_of_a_kind_are_those_of_its_clips(kind, clips):
    chosen = replace(clips, generated=torch.tensor([True, False, False, True]))
    found = chosen.rows_of_kind(kind)
    wanted = {"real": set(range(4, 12)), "generated": {0, 1, 2, 3, 12, 13}, "all": set(range(14))}[kind]
    assert set(range(14) if found is None else found.nonzero()[:, 0].tolist()) == wanted


def test_where_no_clip_is_of_the_kind_all_rows_count(clips):
    assert clips.rows_of_kind("generated") is None


def test_targets_have_a_one_for_each_label():
    labels = [("cat",), ("ant", "dog"), ("dog",)]
    clips = [Clip(str(number), str(number), names, "train") for number, names in enumerate(labels)]
    assert multi_hot(clips, ("ant", "cat", "dog")).tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 1]]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_loaded_split_has_each_of_its_clips_with_its_own_features_and_labels(split, tmp_path, write_small_store):
    made = write_small_store(tmp_path)
    manifest = read_manifest(made.manifest)
    clips = load_clips(FeatureStore(made.store), manifest, split)
    rows = {row["path"]: row for row in made.rows if row["split"] == split}
    assert sorted(clips.ids) == sorted(rows)
    assert len(clips) == len(rows)
    assert isinstance(clips.features, torch.Tensor)
    for index, clip_id in enumerate(clips.ids):
        stored = clips.features[clips.offsets[index] : clips.offsets[index + 1]]
        np.testing.assert_array_equal(stored.numpy(), made.features[clip_id])
        labels = {manifest.classes[place] for place in clips.targets[index].nonzero()[:, 0]}
        assert labels == set(rows[clip_id]["label"].split(";"))


def test_a_clip_in_the_ledger_is_failed_and_the_others_are_loaded(tmp_path, write_small_store):
    made = write_small_store(tmp_path, failed=["train/boat3.mp4", "val/car0.mp4"])
    clips = load_clips(FeatureStore(made.store), read_manifest(made.manifest), "train")
    assert [clip.clip_id for clip in clips.failed] == ["train/boat3.mp4"]
    assert "train/boat3.mp4" not in clips.ids
    assert len(clips) == sum(row["split"] == "train" for row in made.rows) - 1


def test_a_clip_that_was_extracted_after_it_had_failed_is_not_failed(tmp_path, write_small_store):
    made = write_small_store(tmp_path)
    append_failure(made.store, "1of1", Failure("train/boat3.mp4", "train/boat3.mp4", "once"))
    clips = load_clips(FeatureStore(made.store), read_manifest(made.manifest), "train")
    assert clips.failed == ()
    assert "train/boat3.mp4" in clips.ids


def test_a_clip_that_was_never_extracted_is_refused_by_name(tmp_path, write_small_store):
    made = write_small_store(tmp_path, left_out=["train/yak1.mp4"], failed=["train/boat3.mp4"])
    with pytest.raises(StoreMismatch, match=r"lacks 1 of the 28 train clips .*'train/yak1.mp4'.*longreel extract"):
        load_clips(FeatureStore(made.store), read_manifest(made.manifest), "train")


def test_a_split_of_which_every_clip_failed_is_empty(tmp_path, write_small_store):
    made = write_small_store(tmp_path)
    rows = [row for row in made.rows if row["split"] == "val"]
    other = write_small_store(tmp_path / "other", failed=[row["path"] for row in rows])
    clips = load_clips(FeatureStore(other.store), read_manifest(other.manifest), "val")
    assert len(clips) == 0
    assert len(clips.failed) == len(rows)


def test_changed_bytes_of_a_clip_are_noticed_and_only_when_it_is_read(tmp_path, write_small_store):
    made = write_small_store(tmp_path)
    shard = next(made.store.glob("*.h5"))
    content = bytearray(shard.read_bytes())
    content[content.find(made.features["val/dog0.mp4"].tobytes())] ^= 1
    shard.write_bytes(content)
    store, manifest = FeatureStore(made.store), read_manifest(made.manifest)
    load_clips(store, manifest, "train")
    with pytest.raises(StoreDamaged, match=r"clip 'val/dog0.mp4' is damaged"):
        load_clips(store, manifest, "val")
