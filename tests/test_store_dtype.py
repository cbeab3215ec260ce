"""Rows of float32 beside those of float16: written, read, checked, merged, exported and trained on as they are."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from small_stores import ORIGIN, SPEC, flip_bit, some_clip, write_shard

from longreel.errors import StoreDamaged, StoreMismatch
from longreel.experiments.clips import load_clips
from longreel.experiments.disk import DiskRows
from longreel.manifest import read_manifest
from longreel.store import (
    ClipFeatures,
    FeatureStore,
    RowReader,
    ShardWriter,
    Spec,
    describe_store,
    export_store,
    merge_stores,
    verify_store,
)

JOINTS = replace(SPEC, dtype="float32", layout='{"name": "two"}')


def exact_clip(seed: int, frames: int = 3) -> ClipFeatures:
    """Numbers that float16 cannot hold."""
    drawn = np.random.default_rng(seed)
    return ClipFeatures(drawn.normal(size=(frames, 4)).astype(np.float32) / 3, np.arange(frames) / 2)


@pytest.fixture
def clips() -> dict[str, ClipFeatures]:
    return {f"clip {number}": exact_clip(number, 1 + number % 4) for number in range(9)}


@pytest.fixture
def folder(tmp_path, clips) -> Path:
    halves = list(clips.items())
    write_shard(tmp_path / "store", dict(halves[:5]), JOINTS)
    write_shard(tmp_path / "store", dict(halves[5:]), JOINTS)
    return tmp_path / "store"


def test_every_number_comes_back_as_it_was(folder, clips):
    store = FeatureStore(folder)
    assert store.spec == JOINTS
    for clip_id, clip in clips.items():
        assert store[clip_id].features.dtype == np.float32
        np.testing.assert_array_equal(store[clip_id].features, clip.features)
    features, offsets = store.read(list(clips))
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, np.concatenate([clip.features for clip in clips.values()]))
    assert offsets.tolist() == np.cumsum([0, *(len(clip.seconds) for clip in clips.values())]).tolist()


def test_the_digest_is_over_the_bytes_that_are_stored(folder, clips):
    store = FeatureStore(folder)
    for clip_id, clip in clips.items():
        rows = clip.features.astype("<f4").tobytes() + clip.seconds.astype("<f8").tobytes()
        head = json.dumps([clip_id, list(clip.features.shape)]).encode()
        assert store.clip_digest(clip_id) == hashlib.sha256(head + rows).digest()
    assert verify_store(folder).digest == store.digest()


def test_a_changed_bit_shows(folder):
    shard = FeatureStore(folder).shards[0]
    flip_bit(shard.path, shard.data_offset + 5)
    (found,) = verify_store(folder).damaged
    assert found["shard"] == shard.path.name
    with pytest.raises(StoreDamaged, match="is damaged"):
        FeatureStore(folder).read(list(shard.ids))


def test_plain_h5py_sees_float32_and_a_store_of_float16_has_no_new_key(folder, tmp_path):
    old = write_shard(tmp_path / "old", {"a": some_clip(0)})
    for path, kind in ((old, "<f2"), (FeatureStore(folder).shards[0].path, "<f4")):
        with h5py.File(path) as file:
            features, spec = file["features"], json.loads(bytes(file.attrs["spec"]))  # pyright: ignore
            assert isinstance(features, h5py.Dataset)
            assert (file.attrs["version"], features.dtype) == (1, np.dtype(kind))
            assert {"dtype", "layout"} & spec.keys() == ({"dtype", "layout"} if kind == "<f4" else set())


def test_single_rows_are_read_from_the_right_place(folder, clips):
    reader, drawn = RowReader(FeatureStore(folder), list(clips)), np.random.default_rng(0)
    wanted = drawn.integers(0, len(clips), 40)
    rows = (drawn.random((40, 3)) * reader.lengths[wanted, None]).astype(np.int64)
    reader.read_ahead(wanted)
    found = reader.read(wanted, rows)
    assert found.dtype == np.float32
    for place, clip in enumerate(wanted.tolist()):
        np.testing.assert_array_equal(found[place], clips[f"clip {clip}"].features[rows[place]])


def test_training_sees_the_same_numbers_from_memory_and_from_disk(folder, clips, tmp_path):
    lines = [f"{clip_id},a,train" for clip_id in clips]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,split", *lines]) + "\n")
    manifest, store = read_manifest(tmp_path / "clips.csv"), FeatureStore(folder)
    memory, disk = (load_clips(store, manifest, "train", place) for place in ("memory", "disk"))
    wanted = torch.arange(len(clips))
    for found in (memory, disk):
        features, mask = found.batch(wanted)
        assert features.dtype == torch.float32
        for row, clip_id in enumerate(found.ids):
            np.testing.assert_array_equal(features[row][mask[row]].numpy(), clips[clip_id].features)
    assert isinstance(disk.features, DiskRows)
    assert disk.features.size == sum(clip.features.nbytes for clip in clips.values())
    assert torch.equal(disk.features[torch.arange(len(disk.features))], torch.as_tensor(memory.features))


def test_it_is_merged_and_exported_as_it_is(folder, clips, tmp_path):
    merged = merge_stores([folder], tmp_path / "merged")
    assert merged.digest == FeatureStore(folder).digest()
    assert FeatureStore(tmp_path / "merged").spec == JOINTS
    export_store(folder, tmp_path / "all.h5")
    with h5py.File(tmp_path / "all.h5") as file:
        ids, offsets = file["ids"][:], file["offsets"][:]  # pyright: ignore
        for number, clip_id in enumerate(ids):  # pyright: ignore
            rows = file["features"][offsets[number] : offsets[number + 1]]  # pyright: ignore
            np.testing.assert_array_equal(rows, clips[clip_id.decode()].features)
        assert file.attrs["layout"] == JOINTS.layout.encode()
    export_store(folder, tmp_path / "npy", "npy")
    found = np.load(tmp_path / "npy" / "clips" / "clip 3.npy")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, clips["clip 3"].features)
    assert json.loads((tmp_path / "npy" / "spec.json").read_text())["dtype"] == "float32"


@pytest.mark.parametrize(("spec", "clip"), [(JOINTS, some_clip(0)), (SPEC, exact_clip(0))])
def test_a_clip_of_the_other_kind_is_not_written(tmp_path, spec, clip):
    (tmp_path / "store").mkdir()
    with ShardWriter(tmp_path / "store", spec) as writer, pytest.raises(ValueError, match="the store holds float"):
        writer.add("a", clip, ORIGIN)
    assert not list((tmp_path / "store").glob("*.h5"))


def test_the_two_kinds_do_not_go_into_one_store(folder, tmp_path):
    write_shard(tmp_path / "other", {"a": some_clip(0)})
    with pytest.raises(StoreMismatch, match="dtype is 'float32', not 'float16'"):
        merge_stores([folder, tmp_path / "other"], tmp_path / "merged")


@pytest.mark.parametrize("kind", ["float64", "int8", "<f4", ""])
def test_rows_of_no_known_kind_are_refused(kind):
    with pytest.raises(ValueError, match=r"rows are .*, not float16 or float32"):
        replace(SPEC, dtype=kind)


def test_a_shard_whose_rows_are_not_what_its_spec_says_is_refused(folder):
    shard = FeatureStore(folder).shards[0].path
    with h5py.File(shard, "r+") as file:
        file.attrs["spec"] = np.bytes_(SPEC.as_json().encode())
    with pytest.raises(StoreDamaged, match=r"features is .* of float32"):
        FeatureStore(folder)


def test_a_spec_with_a_fact_that_nobody_knows_is_refused(folder):
    with h5py.File(FeatureStore(folder).shards[0].path, "r+") as file:
        file.attrs["spec"] = np.bytes_(json.dumps(JOINTS.as_dict() | {"later": 1}).encode())
    with pytest.raises(StoreDamaged, match="unexpected keyword argument 'later'"):
        FeatureStore(folder)


def test_what_a_store_says_of_itself_has_the_new_facts_only_where_they_matter(folder, tmp_path):
    write_shard(tmp_path / "old", {"a": some_clip(0)})
    assert describe_store(folder)["spec"].items() >= {"dtype": "float32", "layout": JOINTS.layout}.items()
    assert not {"dtype", "layout"} & describe_store(tmp_path / "old")["spec"].keys()
    assert Spec.from_json(JOINTS.as_json()) == JOINTS
    assert Spec.from_json(SPEC.as_json()) == SPEC


def test_the_space_an_export_needs_is_that_of_its_numbers(folder, clips, tmp_path):
    export_store(folder, tmp_path / "all.h5")
    assert os.path.getsize(tmp_path / "all.h5") >= sum(c.features.nbytes + c.seconds.nbytes for c in clips.values())
