"""A store that was written once and is kept (tests/fixtures/README.md): it reads as on its first day."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from longreel.store import (
    Failure,
    FeatureStore,
    Origin,
    Spec,
    export_store,
    merge_stores,
    shard_paths,
    verify_store,
)

FIXTURES = Path(__file__).parent / "fixtures"
#: store -> its shards and its spec; both hold the same clips.
STORES = {
    "store-v1": (
        ("000001-78763dafa2b1910cb15b3d85a3e8a517.h5", "000002-6168c5cbae44cc85bf9e5c848bb98911.h5"),
        Spec("motion", "1", 6, "8 fps", "fit 64x48; none", "auto", "pooled", "float32"),
    ),
    "store-v1-embedding": (
        ("000001-aaf1f9989f0d271f86c06c735205ab8c.h5", "000002-1ec5bad4fa1a76b4784a7bfe47f6f4e0.h5"),
        Spec("clip", "1", 6, "8 frames", "fit 64x48; none", "auto", "projected, text 0a1b", "bfloat16"),
    ),
}
LEDGER = "failed-1of1.jsonl"
DIGEST = "c40bd07add293da34c6c86878caf402b901318a42e5897cdb41a7cb8d60e86d6"
A, SPAN, WIDE, OUTSIDE = "clips/a.mp4", "clips/a.mp4#0.5-2.0", "ünï/動画 (1).mp4", "../x"
#: clip -> rows, eight times the first feature, digest, origin. Features count up by an eighth, seconds by a half.
CLIPS = {
    A: (
        *(5, 40, "dc1c4632c4238daf8558a03f4abcfe342bd9b9ec900453c395fd208e8bad489f"),
        Origin("decord", 1.0, 1001, 1_700_000_001_000_000_000, "ef" * 32),
    ),
    SPAN: (
        *(4, -100, "1600b541adb79e5b659bf7c8e07fea11ba66e8c30de7fe343a7d7f6f3ba4638f"),
        Origin("pyav", 0.75, 1000, 1_700_000_000_123_456_789, "ab" * 32, 0.5, 2.0),
    ),
    WIDE: (
        *(1, 500, "d3d76b87444f16f2290645097d5dc02001c532b50aa6d61a084d3a5f9d75c446"),
        Origin("pyav", 1.0, 77, 1, "01" * 32, None, 9.5),
    ),
    OUTSIDE: (
        *(2, 1000, "666c602239a4ac3fb74f83a326a32de030d5b27800e6a7b44a35067bd95c7b88"),
        Origin("pyav", 1.0, 8, 2, "cd" * 32),
    ),
}


@pytest.fixture(params=STORES)
def kept(request) -> Path:
    return FIXTURES / request.param


def test_the_kept_files_are_those_of_the_first_day(kept):
    shards, _ = STORES[kept.name]
    assert {path.name for path in kept.iterdir()} == {*shards, LEDGER}
    for name in shards:
        content = (kept / name).read_bytes()
        assert hashlib.blake2b(content, digest_size=16).hexdigest() == name[7:39]
    ledger = hashlib.sha256((kept / LEDGER).read_bytes()).hexdigest()
    assert ledger == "f516f7936b5973d1a63e4830058bde5f22882093d48876a1c46f14fc81b27634"
    assert sum(path.stat().st_size for path in kept.iterdir()) < 30_000


def test_it_is_read_and_verified_as_a_whole(kept):
    store = FeatureStore(kept)
    assert store.ids == (A, SPAN, WIDE, OUTSIDE)
    assert store.spec == STORES[kept.name][1]
    found = verify_store(kept)
    assert (found.shards, found.clips, found.damaged) == (2, 4, [])
    assert found.digest == store.digest() == DIGEST


@pytest.mark.parametrize("clip_id", CLIPS)
def test_each_clip_has_its_features_seconds_digest_and_origin(kept, clip_id):
    rows, first, digest, origin = CLIPS[clip_id]
    store = FeatureStore(kept)
    clip = store[clip_id]
    assert clip.features.dtype == np.float16
    assert clip.features.tolist() == [[(first + 6 * row + column) / 8 for column in range(6)] for row in range(rows)]
    assert clip.seconds.tolist() == [0.25 + row / 2 for row in range(rows)]
    assert clip.digest(clip_id).hex() == store.clip_digest(clip_id).hex() == digest
    assert store.origin(clip_id) == origin


def test_its_ledger_has_its_line(kept):
    expected = Failure(
        *("clips/bad.mp4", "clips/bad.mp4", "no video stream", "moov atom not found", 8, 3, 1.5, None, 1_700_000_002.5)
    )
    assert FeatureStore(kept).failures() == {"clips/bad.mp4": expected}


def test_it_can_be_copied_exported_and_merged(kept, tmp_path):
    copy = shutil.copytree(kept, tmp_path / "copy")
    assert [path.name for path in shard_paths(copy)] == list(STORES[kept.name][0])
    assert export_store(copy, tmp_path / "all.h5") == 4
    assert merge_stores([copy], tmp_path / "merged").digest == DIGEST
    assert FeatureStore(tmp_path / "merged").failures().keys() == {"clips/bad.mp4"}
