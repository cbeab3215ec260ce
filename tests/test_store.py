import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_stores import ORIGIN, SPEC, some_clip, write_shard

from longreel.errors import EnvironmentFault, StoreDamaged, StoreMismatch
from longreel.store import (
    ClipFeatures,
    Failure,
    FeatureStore,
    ShardWriter,
    Spec,
    append_failure,
    append_failures,
    describe_store,
    read_failures,
    verify_store,
)

IDS = ("clips/a.mp4", "ünï/動画 ß (1).mp4", "../../x", "a b#1-2", "=cmd|'/c calc'!A0", "\N{FAMILY}" * 70)


def three_clips(folder: Path) -> Path:
    return write_shard(folder, {f"clip-{seed}": some_clip(seed) for seed in range(3)})


def test_clips_come_back_as_they_were_written(tmp_path):
    clips = {clip_id: some_clip(seed, frames=seed + 1) for seed, clip_id in enumerate(IDS)}
    write_shard(tmp_path / "s", clips)
    with FeatureStore(tmp_path / "s") as store:
        assert store.spec == SPEC
        assert store.ids == tuple(store) == IDS
        assert len(store) == len(IDS)
        assert "clips/b.mp4" not in store
        for clip_id, clip in clips.items():
            np.testing.assert_array_equal(store[clip_id].features, clip.features)
            np.testing.assert_array_equal(store[clip_id].seconds, clip.seconds)
            assert store.origin(clip_id) == ORIGIN


def test_many_clips_of_several_shards_are_read_in_the_order_asked_for(tmp_path):
    clips = {f"clip-{seed}": some_clip(seed, frames=1 + seed % 5) for seed in range(100)}
    for part in range(4):
        write_shard(tmp_path / "s", {name: clips[name] for name in list(clips)[part::4]})
    order = sorted(clips, reverse=True)
    features, offsets = FeatureStore(tmp_path / "s").read(order)
    for name, begin, end in zip(order, offsets[:-1], offsets[1:], strict=True):
        np.testing.assert_array_equal(features[begin:end], clips[name].features)


def test_ids_never_become_names_of_files_or_hdf5_objects(tmp_path):
    shard = write_shard(tmp_path / "s", {clip_id: some_clip(1) for clip_id in IDS})
    assert [path.name for path in tmp_path.rglob("*")] == ["s", shard.name]
    with h5py.File(shard) as file:
        names: list[str] = []
        file.visit(names.append)
    assert not any(part in name for name in names for part in ("clip", "x", "cmd", "動画", "/"))


def test_plain_h5py_opens_a_shard_and_sees_one_contiguous_float16_dataset(tmp_path):
    clips = {"a": some_clip(1, 5), "b": some_clip(2, 2)}
    shard = write_shard(tmp_path, clips)
    with h5py.File(shard) as file:
        features = file["features"]
        assert isinstance(features, h5py.Dataset)
        assert (features.dtype, features.shape, features.chunks) == (np.float16, (7, 4), None)
        np.testing.assert_array_equal(features[:], np.concatenate([clip.features for clip in clips.values()]))
        assert json.loads(file.attrs["spec"])["backbone"] == "b"  # pyright: ignore[reportArgumentType]
        rows = features[:]
    with FeatureStore(tmp_path) as store:
        mapped = store.shards[0].features
        assert isinstance(mapped, np.memmap)
        np.testing.assert_array_equal(mapped, rows)


def test_rows_begin_at_a_page_where_there_are_some(tmp_path):
    shard = write_shard(tmp_path, {"a": some_clip(1, 5000)})
    with h5py.File(shard) as file:
        assert file["features"].id.get_offset() % 4096 == 0  # pyright: ignore[reportAttributeAccessIssue]


def test_a_shard_that_is_open_elsewhere_in_the_process_can_be_read_too(tmp_path):
    shard = write_shard(tmp_path, {"a": some_clip(1)})
    with h5py.File(shard):
        np.testing.assert_array_equal(FeatureStore(tmp_path)["a"].features, some_clip(1).features)


def test_reading_many_clips_at_once_gives_their_rows_in_the_order_asked_for(tmp_path):
    clips = {name: some_clip(seed, seed + 1) for seed, name in enumerate("abcd")}
    write_shard(tmp_path, clips)
    rows, offsets = FeatureStore(tmp_path).read(["d", "a", "c"])
    assert offsets.tolist() == [0, 4, 5, 8]
    np.testing.assert_array_equal(rows, np.concatenate([clips[name].features for name in "dac"]))


def test_the_digest_depends_neither_on_the_order_nor_on_the_shards(tmp_path):
    clips = {name: some_clip(seed) for seed, name in enumerate("abcde")}
    write_shard(tmp_path / "one", clips)
    for name in "ecadb":
        write_shard(tmp_path / "five", {name: clips[name]})
    one, five = FeatureStore(tmp_path / "one"), FeatureStore(tmp_path / "five")
    assert (len(one.shards), len(five.shards)) == (1, 5)
    assert one.digest() == five.digest() == verify_store(tmp_path / "five").digest
    assert one.digest(["b", "a"]) == five.digest(["a", "b"]) != one.digest()


@pytest.mark.parametrize("change", ["id", "feature", "time"])
def test_the_digest_changes_with_the_id_a_feature_or_a_time(tmp_path, change):
    clip = some_clip(1)
    features, seconds = clip.features.copy(), clip.seconds.copy()
    features[2, 3] += change == "feature"
    seconds[2] += change == "time"
    other = ClipFeatures(features, seconds).digest("b" if change == "id" else "a")
    assert other != clip.digest("a") == ClipFeatures(clip.features.copy(), clip.seconds.copy()).digest("a")


def test_of_a_clip_written_twice_the_newest_counts(tmp_path):
    write_shard(tmp_path, {"a": some_clip(1), "b": some_clip(2)})
    write_shard(tmp_path, {"a": some_clip(3, frames=6)})
    store = FeatureStore(tmp_path)
    assert len(store) == 2
    np.testing.assert_array_equal(store["a"].features, some_clip(3, frames=6).features)
    assert verify_store(tmp_path).digest == store.digest()


def test_the_tenth_shard_comes_after_the_ninth_and_the_millionth_after_all(tmp_path):
    for sequence, seed in ((999_999, 1), (1_000_000, 2)):
        shard = write_shard(tmp_path, {"a": some_clip(seed)})
        shard.rename(shard.with_name(f"{sequence:06d}-{shard.name.split('-')[1]}"))
    np.testing.assert_array_equal(FeatureStore(tmp_path)["a"].features, some_clip(2).features)


def test_a_whole_store_passes_verification(tmp_path):
    three_clips(tmp_path)
    found = verify_store(tmp_path)
    assert (found.shards, found.clips, found.damaged) == (1, 3, [])
    assert found.digest == FeatureStore(tmp_path).digest() == describe_store(tmp_path)["digest"]


def test_a_damaged_clip_is_never_given_and_the_others_are(tmp_path):
    shard = write_shard(tmp_path, {f"clip-{seed}": some_clip(seed) for seed in range(3)})
    begin = FeatureStore(tmp_path).shards[0].data_offset
    content = bytearray(shard.read_bytes())
    content[begin + 3 * 4 * 2] ^= 1  # the second clip's first feature
    shard.write_bytes(content)
    assert [entry["shard"] for entry in verify_store(tmp_path).damaged] == [shard.name]
    store = FeatureStore(tmp_path)
    np.testing.assert_array_equal(store.read(["clip-2"])[0], some_clip(2).features)
    with pytest.raises(StoreDamaged, match="clip-1"):
        store.read(["clip-0", "clip-1"])


def test_a_folder_without_shards_is_no_store(tmp_path):
    (tmp_path / ".open-1of1.tmp").write_bytes(b"half")
    (tmp_path / "notes.h5").write_bytes(b"not a shard")
    for check in (FeatureStore, verify_store):
        with pytest.raises(StoreMismatch, match="longreel extract MANIFEST"):
            check(tmp_path)


def test_two_ways_of_extraction_in_one_folder_are_refused(tmp_path):
    write_shard(tmp_path, {"a": some_clip(1)})
    other = Spec("b", "w", 4, "2 fps", "none", "auto")
    with pytest.raises(StoreMismatch, match="sampling is '3 frames', not '2 fps'"):
        write_shard(tmp_path, {"b": some_clip(2)}, other)  # refused when its shard is sealed
    assert FeatureStore(tmp_path).ids == ("a",)
    write_shard(tmp_path / "elsewhere", {"b": some_clip(2)}, other)
    shard = next((tmp_path / "elsewhere").glob("*.h5"))
    (tmp_path / shard.name.replace("000001", "000002")).write_bytes(shard.read_bytes())
    with pytest.raises(StoreMismatch, match="sampling is '3 frames', not '2 fps'"):
        FeatureStore(tmp_path)


def test_a_clip_of_another_width_is_refused_when_it_is_added(tmp_path):
    with ShardWriter(tmp_path, SPEC) as writer, pytest.raises(ValueError, match="5 wide"):
        writer.add("a", some_clip(1, dim=5), ORIGIN)
    assert list(tmp_path.iterdir()) == []


def test_a_store_in_a_place_that_is_no_folder_is_an_environment_fault(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EnvironmentFault, match="cannot be written"), ShardWriter(tmp_path / "file", SPEC) as writer:
        writer.add("a", some_clip(1), ORIGIN)


def test_the_last_failure_of_a_clip_counts_and_an_extracted_clip_is_no_failure(tmp_path):
    write_shard(tmp_path, {"a": some_clip(1)})
    for clip_id, reason in (("a", "old"), ("b", "old"), ("b", "new")):
        append_failure(tmp_path, "1of2", Failure(clip_id, clip_id, reason))
    append_failure(tmp_path, "2of2", Failure("c\u2028\n", "c", "why"))
    assert {clip_id: failure.reason for clip_id, failure in FeatureStore(tmp_path).failures().items()} == {
        "b": "new",
        "c\u2028\n": "why",
    }


@pytest.mark.parametrize("torn", [1, 4095, 4096, 4097, 20000])
def test_a_line_torn_by_a_crash_is_cut_off_before_the_next_ones(tmp_path, torn):
    for names in (["a"], ["b" * 5000, "c"]):
        append_failures(tmp_path, "1of1", [Failure(name, name, "why") for name in names])
        with open(tmp_path / "failed-1of1.jsonl", "ab") as file:
            file.write(b"x" * torn)
    append_failures(tmp_path, "1of1", [Failure("d", "d", "why")])
    append_failures(tmp_path, "1of1", [])
    assert list(read_failures(tmp_path)) == ["a", "b" * 5000, "c", "d"]
