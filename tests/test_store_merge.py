"""Merging: the union of the sources in large shards, checked on the way, and nothing lost wherever it is broken off."""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_stores import ORIGIN, SPEC, flip_bit, some_clip, write_shard, write_shards

from longreel.errors import EnvironmentFault, LongreelError, StoreDamaged, StoreMismatch
from longreel.store import (
    Failure,
    FeatureStore,
    Origin,
    SealLimits,
    ShardWriter,
    append_failure,
    merge_stores,
    read_failures,
    verify_store,
)
from longreel.store.shard import read_provenance


def digest_of(clips: dict) -> str:
    """The digest of a store with these clips, from its description in docs/store-format.md alone."""
    singles = []
    for clip_id, clip in clips.items():
        text = json.dumps([clip_id, list(clip.features.shape)]).encode()
        rows = clip.features.astype("<f2").tobytes() + clip.seconds.astype("<f8").tobytes()
        singles.append(hashlib.sha256(text + rows).digest())
    return hashlib.sha256(b"".join(sorted(singles))).hexdigest()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def sources(tmp_path) -> tuple[list[Path], dict]:
    """Two stores of five small shards each, with three clips in common, and all of their clips."""
    clips = {f"clips/{number}": some_clip(number, 1 + number % 4) for number in range(17)}
    names = list(clips)
    for place in range(5):
        write_shard(tmp_path / "a", {name: clips[name] for name in names[2 * place : 2 * place + 2]})
        write_shard(tmp_path / "b", {name: clips[name] for name in names[7 + 2 * place : 9 + 2 * place]})
    return [tmp_path / "a", tmp_path / "b"], clips


def test_the_union_comes_into_one_shard_and_the_sources_stay_as_they_are(sources, tmp_path):
    folders, clips = sources
    before = [contents(folder) for folder in folders]
    merged = merge_stores(folders, tmp_path / "out")
    assert [contents(folder) for folder in folders] == before
    assert (merged.clips, merged.written, merged.shards, merged.replaced) == (17, 17, 1, 0)
    found = verify_store(tmp_path / "out")
    assert (found.clips, found.damaged) == (17, [])
    assert merged.digest == found.digest == digest_of(clips)
    store = FeatureStore(tmp_path / "out")
    for clip_id, clip in clips.items():
        np.testing.assert_array_equal(store[clip_id].features, clip.features)
        np.testing.assert_array_equal(store[clip_id].seconds, clip.seconds)
        assert store.origin(clip_id) == ORIGIN


def test_shards_are_full_at_the_first_of_the_limits(sources, tmp_path):
    folders, clips = sources
    merge_stores(folders, tmp_path / "clips", limits=SealLimits(clips=5))
    assert [len(shard.ids) for shard in FeatureStore(tmp_path / "clips").shards] == [5, 5, 5, 2]
    limit = 100
    merge_stores(folders, tmp_path / "bytes", limits=SealLimits(size=limit))
    sizes = [
        [16 * len(clips[clip_id].seconds) for clip_id in shard.ids] for shard in FeatureStore(tmp_path / "bytes").shards
    ]
    assert all(sum(size) >= limit > sum(size[:-1]) for size in sizes[:-1])
    assert verify_store(tmp_path / "bytes").digest == verify_store(tmp_path / "clips").digest == digest_of(clips)


def test_a_store_with_newer_features_of_a_clip_is_made_compact_with_the_newest(tmp_path):
    write_shards(tmp_path / "a", 9)
    write_shard(tmp_path / "a", {"0a": some_clip(99, 7)})
    before = FeatureStore(tmp_path / "a").digest()
    merged = merge_stores([tmp_path / "a"], tmp_path / "b")
    assert (merged.clips, merged.shards, merged.digest) == (18, 1, before)
    assert len(FeatureStore(tmp_path / "b")["0a"].seconds) == 7


@pytest.mark.parametrize("key", ["backbone", "weights", "dim", "sampling", "preprocessing", "decoder"])
def test_stores_of_another_kind_are_refused_with_the_key_that_differs(tmp_path, key):
    write_shard(tmp_path / "a", {"a": some_clip(1)})
    other = dataclasses.replace(SPEC, **{key: 5 if key == "dim" else "other"})
    write_shard(tmp_path / "b", {"b": some_clip(2, dim=other.dim)}, other)
    with pytest.raises(
        StoreMismatch, match=rf"b: was made otherwise than .*a: {key} is .*, not {other.__dict__[key]!r}"
    ):
        merge_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def quarrel(tmp_path) -> list[Path]:
    """Two stores that agree on a clip and differ in another, which the first one has from later on."""
    first = write_shard(tmp_path / "a", {"same": some_clip(1), "x": some_clip(2)})
    second = write_shard(tmp_path / "b", {"same": some_clip(1), "x": some_clip(3)})
    os.utime(first, (2000, 2000))
    os.utime(second, (1000, 1000))
    return [tmp_path / "a", tmp_path / "b"]


def test_different_features_of_a_clip_are_refused_by_name(quarrel, tmp_path):
    with pytest.raises(StoreMismatch, match=r"1 clips have different features: 'x' in .*/a and .*/b\. --newest"):
        merge_stores(quarrel, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("turned", [False, True])
def test_the_newest_features_are_taken_on_request_whatever_the_order(quarrel, tmp_path, turned):
    merged = merge_stores(quarrel[::-1] if turned else quarrel, tmp_path / "out", newest=True)
    assert (merged.clips, merged.replaced) == (2, 1)
    np.testing.assert_array_equal(FeatureStore(tmp_path / "out")["x"].features, some_clip(2).features)


def test_of_files_of_one_age_the_source_named_last_counts(quarrel, tmp_path):
    for folder in quarrel:
        for shard in folder.glob("*.h5"):
            os.utime(shard, (1000, 1000))
    merge_stores(quarrel, tmp_path / "out", newest=True)
    np.testing.assert_array_equal(FeatureStore(tmp_path / "out")["x"].features, some_clip(3).features)


def test_ledgers_become_one_with_the_latest_failure_of_each_clip_that_nobody_has(sources, tmp_path):
    folders, _ = sources
    append_failure(folders[0], "1of2", Failure("bad", "bad", "early", time=1.0))
    append_failure(folders[1], "2of3", Failure("bad", "bad", "late", start=0.5, time=2.0))
    append_failure(folders[0], "2of2", Failure("worse", "worse", "only", time=9.0))
    append_failure(folders[0], "1of2", Failure("clips/16", "p", "b has it", time=9.0))
    for _ in range(2):
        merged = merge_stores(folders, tmp_path / "out")
        failures = read_failures(tmp_path / "out")
        assert {clip_id: failure.reason for clip_id, failure in failures.items()} == {"bad": "late", "worse": "only"}
        assert failures["bad"].start == 0.5
        assert merged.failed == 2


@pytest.mark.parametrize("column", ["features", "fraction", "file_size"])
def test_nothing_of_a_damaged_shard_is_merged_also_what_no_digest_of_a_clip_covers(sources, tmp_path, column):
    folders, _ = sources
    shard = FeatureStore(folders[1]).shards[4].path
    with h5py.File(shard) as file:
        dataset = file[column]
        assert isinstance(dataset, h5py.Dataset)
        offset = dataset.id.get_offset()
    flip_bit(shard, offset)
    with pytest.raises(StoreDamaged, match=f"{shard.name}: is not a whole shard"):
        merge_stores(folders, tmp_path / "out", limits=SealLimits(clips=4))
    assert not (tmp_path / "out").exists()


def test_a_clip_that_changes_while_it_is_merged_is_never_written(sources, tmp_path):
    folders, _ = sources
    shard = FeatureStore(folders[1]).shards[4]

    def damage(done: int, total: int) -> None:
        if done == 1:
            flip_bit(shard.path, shard.data_offset)

    with pytest.raises(StoreDamaged, match="'clips/15' is damaged"):
        merge_stores(folders, tmp_path / "out", limits=SealLimits(clips=4), on_clip=damage)
    assert verify_store(tmp_path / "out").damaged == []
    assert "clips/15" not in FeatureStore(tmp_path / "out")


def test_a_source_that_is_no_store_and_an_output_that_is_a_source_are_refused(sources, tmp_path):
    folders, _ = sources
    with pytest.raises(StoreMismatch, match="nowhere: is not a store"):
        merge_stores([*folders, tmp_path / "nowhere"], tmp_path / "out")
    (tmp_path / "link").symlink_to(folders[0])
    with pytest.raises(LongreelError, match="is a source too"):
        merge_stores(folders, tmp_path / "link")


def test_an_output_that_holds_something_else_is_refused_and_stays(sources, tmp_path):
    folders, _ = sources
    write_shard(tmp_path / "out", {"foreign": some_clip(1)})
    before = FeatureStore(tmp_path / "out").digest()
    with pytest.raises(StoreMismatch, match="holds 'foreign' otherwise than the sources do"):
        merge_stores(folders, tmp_path / "out")
    assert FeatureStore(tmp_path / "out").digest() == before
    write_shard(tmp_path / "old", {"clips/0": some_clip(1000)})
    with pytest.raises(StoreMismatch, match="holds 'clips/0' otherwise"):
        merge_stores(folders, tmp_path / "old")


def test_shards_say_what_made_their_sources(tmp_path):
    for name, text in (("a", '{"python": "3.11"}'), ("b", '{"python": "3.12"}'), ("c", "x" * 60_000)):
        (tmp_path / name).mkdir()
        with ShardWriter(tmp_path / name, SPEC, provenance=text) as writer:
            writer.add(name, some_clip(1), Origin("pyav", 1.0, 1, 1, "00" * 32))
    merge_stores([tmp_path / name for name in "abc"], tmp_path / "out")
    (shard,) = (tmp_path / "out").glob("*.h5")
    document = json.loads(read_provenance(shard))
    assert [entry["provenance"] for entry in document["merged_from"]] == [{"python": "3.11"}, {"python": "3.12"}]
    assert document["left_out"] == 1


@pytest.mark.parametrize("operation", ["replace", "fsync", "ftruncate", "pwrite"])
def test_broken_off_at_any_operation_the_same_call_ends_in_the_same_digest(sources, tmp_path, monkeypatch, operation):
    """The n-th call of a system function fails, for n = 1, 2, 3, ... until there is no n-th."""
    folders, clips = sources
    append_failure(folders[0], "1of1", Failure("bad", "bad", "why", time=1.0))
    real = getattr(os, operation)
    for failing in range(1, 100):
        calls = 0

        def fail(*arguments, failing=failing, **options):
            nonlocal calls
            calls += 1
            if calls == failing:
                raise OSError(28, "No space left on device")
            return real(*arguments, **options)

        out = tmp_path / f"out-{failing}"
        with monkeypatch.context() as patch:
            patch.setattr(os, operation, fail)
            try:
                merge_stores(folders, out, limits=SealLimits(clips=6))
                broken = False
            except EnvironmentFault:
                broken = True
        if out.exists() and list(out.glob("*.h5")):
            assert verify_store(out).damaged == []
        assert (
            merge_stores(folders, out, limits=SealLimits(clips=6)).digest
            == digest_of(clips)
            == verify_store(out).digest
        )
        assert read_failures(out).keys() == {"bad"}
        if not broken:
            break
    assert failing > {"replace": 3, "fsync": 6, "ftruncate": 1, "pwrite": 1}[operation]


MERGE = [sys.executable, "-P", "-m", "longreel.cli", "store", "merge"]


def test_a_merge_that_is_killed_goes_on_from_its_sealed_shards(tmp_path):
    clips = {f"{number}": some_clip(number, 3) for number in range(240)}
    names = list(clips)
    for place in range(10):
        write_shard(tmp_path / "a", {name: clips[name] for name in names[24 * place : 24 * place + 24]})
    command = [*MERGE, str(tmp_path / "a"), str(tmp_path / "out"), "--clips-per-shard", "3", "--json"]
    killed = 0
    for wanted in (1, 20, 40):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list((tmp_path / "out").glob("*.h5"))) < wanted:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 2
    sealed = len(FeatureStore(tmp_path / "out"))
    assert 120 <= sealed < 240
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["clips"], document["written"]) == (240, 240 - sealed)
    assert document["digest"] == digest_of(clips) == verify_store(tmp_path / "out").digest
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_the_command_merges_several_sources(sources, tmp_path):
    folders, _ = sources
    done = subprocess.run([*MERGE, *folders, tmp_path / "out"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("17 clips in 1 shards, 17 written now -> ")
