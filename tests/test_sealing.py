"""Shards are sealed by a thread of their own: what is gathered meanwhile, what fails, and who waits for whom."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from small_stores import ORIGIN, SPEC, some_clip

from longreel.durable import publish
from longreel.errors import EnvironmentFault
from longreel.store import FeatureStore, SealLimits, ShardWriter, writer
from longreel.store.shard import read_shard, shard_paths


class Gate:
    """Stands where a sealed shard gets its name, and holds it back until it is opened."""

    def __init__(self, monkeypatch) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        monkeypatch.setattr(writer, "publish", self._publish)

    def _publish(self, temporary: Path, final: Path) -> None:
        self.reached.set()
        assert self.open.wait(60)
        publish(temporary, final)


def fail_once(monkeypatch) -> None:
    """The first shard finds the disk full."""
    calls = iter([OSError(28, os.strerror(28))])

    def publishing(temporary: Path, final: Path) -> None:
        if error := next(calls, None):
            raise error
        publish(temporary, final)

    monkeypatch.setattr(writer, "publish", publishing)


def test_clips_gather_while_a_shard_is_sealed(tmp_path, monkeypatch):
    gate = Gate(monkeypatch)
    with ShardWriter(tmp_path, SPEC, limits=SealLimits(clips=2)) as shards:
        for name in "abc":
            shards.add(name, some_clip(1), ORIGIN)
        assert gate.reached.wait(60)
        assert list(tmp_path.glob("*.h5")) == []
        gate.open.set()
    assert set(FeatureStore(tmp_path)) == set("abc")


@pytest.mark.parametrize(("full", "clips", "kept"), [(1, "ab", ["b"]), (2, "abc", ["c"]), (2, "ab", [])])
def test_a_shard_that_cannot_be_written_is_reported_and_the_clips_behind_it_are_kept(
    tmp_path, monkeypatch, full, clips, kept
):
    fail_once(monkeypatch)

    def write() -> None:
        with ShardWriter(tmp_path, SPEC, limits=SealLimits(clips=full)) as shards:
            for name in clips:
                shards.add(name, some_clip(1), ORIGIN)

    with pytest.raises(EnvironmentFault, match="No space left"):
        write()
    assert [clip_id for path in shard_paths(tmp_path) for clip_id in read_shard(path).ids] == kept


def test_the_block_ends_when_nothing_is_written_any_more_however_often_it_is_interrupted(tmp_path, monkeypatch):
    gate, sealed = Gate(monkeypatch), []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts behind itself ignores it

    def interrupt() -> None:
        gate.reached.wait(60)
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)
        gate.open.set()

    def write() -> None:
        try:
            with ShardWriter(tmp_path, SPEC) as shards:
                shards.add("a", some_clip(1), ORIGIN)
        finally:
            sealed.extend(shard_paths(tmp_path))

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            write()
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert len(sealed) == 1
