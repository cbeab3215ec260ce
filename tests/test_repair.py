"""A damaged store and the same extraction again: exactly the lost clips are made anew, and nothing is deleted."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_stores import flip_bit

from longreel.errors import StoreDamaged, StoreMismatch
from longreel.extract import Given, extract_clips, import_features, load_backbone, open_source
from longreel.extract import pipeline as pipeline_module
from longreel.manifest import read_manifest
from longreel.store import Failure, FeatureStore, SealLimits, append_failure, find_lost, shard_paths, verify_store

CLIPS = [f"{number}.mp4" for number in range(6)]


@pytest.fixture(scope="module")
def videos(tmp_path_factory, make_video, moving_frames) -> Path:
    """A folder of six videos, with manifests of the first two, the first four and all of them."""
    folder = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(CLIPS):
        make_video(folder / name, moving_frames(12 + number), fps=12)
    for count in (2, 4, 6):
        rows = [f"{name},x,train" for name in CLIPS[:count]]
        (folder / f"{count}.csv").write_text("\n".join(["path,label,split", *rows]))
    return folder


@pytest.fixture(scope="module")
def whole(videos, tmp_path_factory) -> Path:
    """Three shards of two clips each."""
    folder = tmp_path_factory.mktemp("whole")
    for count in (2, 4, 6):
        extract(videos, folder, count)
    assert [shard.ids for shard in FeatureStore(folder).shards] == [
        ("0.mp4", "1.mp4"),
        ("2.mp4", "3.mp4"),
        ("4.mp4", "5.mp4"),
    ]
    return folder


@pytest.fixture
def store(whole, tmp_path) -> Path:
    """A copy of the whole store, for the test to damage."""
    return shutil.copytree(whole, tmp_path / "store")


def extract(videos: Path, store: Path, count: int = 6, **options):
    """What the extraction planned to do, and its report."""
    plans = []
    manifest = read_manifest(videos / f"{count}.csv")
    report = extract_clips(manifest, store, load_backbone("motion"), on_plan=plans.append, workers=1, **options)
    return [clip.clip_id for clip in plans[0].todo], report


def cut(path: Path, part: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])


DAMAGE = {
    "a bit of a feature": lambda path: flip_bit(path, FeatureStore(path.parent).shards[0].data_offset),
    "the last bit": lambda path: flip_bit(path, path.stat().st_size - 1),
    "a bit of a type at which HDF5 crashes": lambda path: flip_bit(path, 1161),
    "cut in the middle": lambda path: cut(path, 0.5),
    "cut to nothing": lambda path: cut(path, 0),
    "overwritten": lambda path: path.write_bytes(b"x" * path.stat().st_size),
    "deleted": Path.unlink,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_repair_makes_exactly_the_damaged_clips_anew(videos, store, name):
    damage, place = DAMAGE[name], list(DAMAGE).index(name) % 3
    digest = verify_store(store).digest
    paths = shard_paths(store)
    lost = FeatureStore(store).shards[place].ids
    damage(paths[place])
    content = paths[place].read_bytes() if paths[place].exists() else None
    todo, report = extract(videos, store, repair=True)
    assert tuple(todo) == lost
    assert (report.written, report.already) == (2, 4)
    found = verify_store(store)
    assert (found.damaged, found.digest) == ([], digest)
    if content is not None:
        assert report.set_aside == found.ignored == [f"damaged-{paths[place].name}"]
        assert (store / report.set_aside[0]).read_bytes() == content
    assert extract(videos, store, repair=True)[0] == [], "once is enough"


@pytest.mark.parametrize("damage", ["cut in the middle", "cut to nothing", "overwritten", "deleted"])
def test_without_asking_an_extraction_mends_what_shows_in_a_header(videos, store, damage):
    digest = verify_store(store).digest
    DAMAGE[damage](shard_paths(store)[1])
    todo, report = extract(videos, store)
    assert todo == ["2.mp4", "3.mp4"]
    assert len(report.set_aside) == (damage != "deleted")
    assert (verify_store(store).damaged, verify_store(store).digest) == ([], digest)


def test_a_changed_bit_that_looks_like_another_kind_of_store_is_mended_too(videos, store):
    digest = verify_store(store).digest
    shard = shard_paths(store)[1]
    flip_bit(shard, shard.read_bytes().index(b'"motion"') + 3)
    with pytest.raises(StoreMismatch, match="was made otherwise"):
        FeatureStore(store)
    assert extract(videos, store)[0] == ["2.mp4", "3.mp4"]
    assert (verify_store(store).damaged, verify_store(store).digest) == ([], digest)


def test_an_undamaged_store_is_not_read_through_unless_asked_for(videos, store, monkeypatch):
    from longreel.store import shard

    hashed = []
    hash_file = shard.hash_file
    monkeypatch.setattr(shard, "hash_file", lambda path: hashed.append(path) or hash_file(path))
    started = []
    monkeypatch.setattr("longreel.store.lost.subprocess.run", lambda *_, **__: started.append(1))
    assert extract(videos, store)[0] == []
    assert hashed == []
    assert extract(videos, store, repair=True)[0] == []
    assert hashed == shard_paths(store)
    assert started == []


def test_a_shard_that_is_as_it_was_written_is_never_set_aside_unasked(videos, store):
    (store / f"000009-{'0' * 32}.h5").write_bytes(b"")
    from longreel.store.shard import hash_file

    foreign = store / f"000009-{'0' * 32}.h5"
    foreign = foreign.rename(store / f"000009-{hash_file(foreign)}.h5")
    with pytest.raises(StoreDamaged, match=foreign.name):
        extract(videos, store)
    assert foreign.exists()
    assert extract(videos, store, repair=True)[1].set_aside == [f"damaged-{foreign.name}"]


def test_the_newer_features_of_a_clip_are_made_anew_though_older_ones_are_there(
    videos, store, make_video, moving_frames, tmp_path
):
    other = tmp_path / "videos"
    other.mkdir()
    for path in videos.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    make_video(other / "0.mp4", moving_frames(30)[::-1], fps=12)
    assert extract(other, store, refresh=True)[0] == ["0.mp4"]
    digest = verify_store(store).digest
    newest = shard_paths(store)[-1]
    flip_bit(newest, newest.stat().st_size - 1)
    assert extract(other, store, repair=True)[0] == ["0.mp4"]
    assert verify_store(store).digest == digest


def test_a_clip_that_failed_before_it_was_extracted_is_made_anew_and_left_alone_when_it_fails_again(
    videos, store, tmp_path
):
    status = (videos / "2.mp4").stat()
    append_failure(store, "1of1", Failure("2.mp4", "2.mp4", "old", size=status.st_size, mtime_ns=status.st_mtime_ns))
    shard = shard_paths(store)[1]
    flip_bit(shard, shard.stat().st_size - 1)
    broken = tmp_path / "videos"
    broken.mkdir()
    for path in videos.iterdir():
        (broken / path.name).write_bytes(b"no video" if path.name == "3.mp4" else path.read_bytes())
        os.utime(broken / path.name, ns=(status.st_atime_ns, path.stat().st_mtime_ns))
    todo, report = extract(broken, store, repair=True)
    assert todo == ["2.mp4", "3.mp4"]
    assert [failure.clip_id for failure in report.failures] == ["3.mp4"]
    assert extract(broken, store)[0] == []


def test_a_second_damage_of_the_same_shard_overwrites_nothing(videos, store):
    contents = []
    for turn in range(3):
        shard = shard_paths(store)[0]
        flip_bit(shard, shard.stat().st_size - 1 - turn)
        contents.append(shard.read_bytes())
        twin = shard.rename(store / f"000001-{'a' * 32}.h5")
        contents[-1] = twin.read_bytes()
        extract(videos, store, repair=True)
    aside = sorted(store.glob("damaged-*"))
    assert [path.name for path in aside] == [f"damaged-000001-{'a' * 32}.h5{end}" for end in ("", ".2", ".3")]
    assert {path.read_bytes() for path in aside} == set(contents)
    assert verify_store(store).damaged == []


def test_a_repair_that_is_interrupted_goes_on(videos, store, monkeypatch):
    digest = verify_store(store).digest
    for shard in shard_paths(store)[:2]:
        flip_bit(shard, shard.stat().st_size - 1)

    def break_off(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline_module, "decode_clips", break_off)
        with pytest.raises(KeyboardInterrupt):
            extract(videos, store, repair=True)
    assert set(find_lost(store)) == {"0.mp4", "1.mp4", "2.mp4", "3.mp4"}
    assert extract(videos, store)[0] == ["0.mp4", "1.mp4", "2.mp4", "3.mp4"]
    assert verify_store(store).digest == digest


def test_the_command_says_what_it_set_aside(videos, store):
    shard = shard_paths(store)[0]
    flip_bit(shard, shard.stat().st_size - 1)
    command = [
        sys.executable,
        "-P",
        "-m",
        "longreel.cli",
        "extract",
        "6.csv",
        store,
        "--backbone",
        "motion",
        "--repair",
    ]
    done = subprocess.run(command, cwd=videos, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"damaged: a shard is now damaged-{shard.name}, and its clips are made anew" in done.stderr
    assert "2 written (0 partial), 4 already there" in done.stdout


@pytest.mark.parametrize("repair", [False, True], ids=["header", "feature"])
def test_an_imported_store_is_mended_by_the_import(tmp_path, monkeypatch, repair):
    from longreel.extract import importing

    monkeypatch.setattr(importing, "LIMITS", SealLimits(clips=2))
    (tmp_path / "npy").mkdir()
    for number in range(6):
        np.save(tmp_path / "npy" / f"{number}.npy", np.full((3, 4), number, dtype=np.float16))

    def bring(**options):
        with open_source(tmp_path / "npy", "") as source:
            return import_features(source, tmp_path / "store", Given("b", "w", None), **options)

    bring()
    digest = verify_store(tmp_path / "store").digest
    shard = FeatureStore(tmp_path / "store").shards[1]
    if repair:
        flip_bit(shard.path, shard.data_offset)
        assert bring().written == 0, "without --repair features are not read"
    else:
        os.truncate(shard.path, 100)
    report = bring(repair=repair)
    assert (report.written, report.already) == (2, 4)
    assert report.set_aside == [f"damaged-{shard.path.name}"]
    assert verify_store(tmp_path / "store").digest == digest
