"""Chosen rows of many clips, straight from a store's memory maps."""

import subprocess
import sys

import numpy as np
import pytest

from longreel.store import FeatureStore, RowReader


@pytest.fixture
def store(made):
    return FeatureStore(made.store)


def test_every_chosen_row_is_the_row_that_was_written(made, store):
    ids = sorted(made.features)
    reader = RowReader(store, ids)
    generator = np.random.default_rng(0)
    clips = generator.integers(0, len(ids), 50)
    rows = (generator.random((50, 7)) * reader.lengths[clips, None]).astype(np.int64)
    read = reader.read(clips, rows)
    assert (read.shape, read.dtype) == ((50, 7, 6), np.float16)
    for clip, wanted, got in zip(clips, rows, read, strict=True):
        np.testing.assert_array_equal(got, [made.features[ids[clip]][row] for row in wanted])


def test_clips_of_several_shards_are_read_and_the_newest_of_each(made, write_small_store):
    newer = write_small_store(made.store.parent, rows=made.rows[:9], noise=3.0)
    store = FeatureStore(made.store)
    assert len(store.shards) == 2
    ids = list(made.features)
    read = RowReader(store, ids).read(np.arange(len(ids)), np.zeros((len(ids), 1), dtype=np.int64))
    for clip_id, got in zip(ids, read[:, 0], strict=True):
        np.testing.assert_array_equal(got, newer.features.get(clip_id, made.features[clip_id])[0])


def test_lengths_are_the_rows_of_each_clip_in_the_order_asked_for(made, store):
    ids = sorted(made.features, reverse=True)
    assert RowReader(store, ids).lengths.tolist() == [len(made.features[clip_id]) for clip_id in ids]


@pytest.mark.parametrize("row", [-1, 99])
def test_a_row_outside_its_clip_is_refused_and_never_the_neighbours(row, made, store):
    reader = RowReader(store, sorted(made.features))
    with pytest.raises(IndexError, match="outside its clip"):
        reader.read(np.array([3]), np.array([[0, row]]))


def test_the_first_row_behind_a_clip_is_outside_it(made, store):
    reader = RowReader(store, sorted(made.features))
    with pytest.raises(IndexError, match="outside its clip"):
        reader.read(np.array([3]), reader.lengths[[3], None])


def test_a_clip_that_is_not_in_the_store_is_a_key_error(store):
    with pytest.raises(KeyError):
        RowReader(store, ["nobody"])


def test_no_clips_give_no_rows(store):
    reader = RowReader(store, [])
    assert reader.read(np.zeros(0, np.int64), np.zeros((0, 3), np.int64)).shape == (0, 3, 6)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at the page cache")
def test_reading_ahead_brings_clips_into_the_page_cache_before_they_are_read(tmp_path):
    # In a process of its own: pages that are mapped stay in the cache.
    code = """
import ctypes, mmap, os, sys, time
from pathlib import Path
import numpy as np
from longreel.store import ClipFeatures, FeatureStore, Origin, RowReader, ShardWriter, Spec

folder = Path(sys.argv[1])
folder.mkdir()
with ShardWriter(folder, Spec("toy", "0", 512, "all", "none", "auto")) as writer:
    for name in "abcd":
        features = ClipFeatures(np.ones((2000, 512), np.float16), np.arange(2000.0))
        writer.add(name, features, Origin("pyav", 1.0, 1, 1, "00" * 32))
store = FeatureStore(folder)
(shard,) = store.shards
with open(shard.path, "rb") as file:
    os.fsync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

def resident(row):
    page, address = mmap.PAGESIZE, shard.features[row].__array_interface__["data"][0]
    state = ctypes.c_ubyte()
    begin = ctypes.c_void_p(address // page * page)
    assert ctypes.CDLL(None).mincore(begin, ctypes.c_size_t(1), ctypes.byref(state)) == 0
    return state.value & 1

def await_resident(row):
    for _ in range(200):
        if resident(row):
            return True
        time.sleep(0.02)
    return False

before = resident(1 * 2000 + 1000)
RowReader(store, ["a", "b"]).read_ahead(np.array([1]))
print(before, await_resident(1 * 2000 + 1000), resident(3 * 2000 + 1000))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "big.store")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    if done.stdout.startswith("1"):
        pytest.skip("this file system keeps its pages")
    assert done.stdout.split() == ["0", "True", "0"]
