"""Decode workers whose clips are as they should be, and what closing them early leaves."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_decoding import PARENT, SETTINGS, ends, tasks_for, wait_until, workers_of

from longreel.extract.workers import (
    Decoded,
    Failed,
    Frames,
    Restarted,
    decode_clips,
    started_workers,
)

pytestmark = pytest.mark.usefixtures("no_worker_left")


@pytest.fixture
def hang(tmp_path) -> Path:
    """A file of the length of an hour-long video that takes its reader an hour: a pipe that nobody writes to."""
    os.mkfifo(tmp_path / "hang.mp4")
    return tmp_path / "hang.mp4"


@pytest.mark.parametrize("workers", [1, 3])
def test_every_clip_gets_its_frames_in_time_order_and_one_end(short_clip, tmp_path, workers):
    (tmp_path / "text.mp4").write_text("no video")
    tasks = tasks_for(short_clip, tmp_path / "text.mp4", short_clip, tmp_path / "gone.mp4", short_clip)
    seconds: dict[str, list[float]] = {}
    ended: dict[str, Decoded | Failed] = {}
    for event in decode_clips(tasks, SETTINGS, workers):
        assert event.clip_id not in ended
        match event:
            case Frames(clip_id, frames, times):
                assert frames.shape == (len(times), 16, 16, 3)
                assert len(times) <= 32
                seconds.setdefault(clip_id, []).extend(times)
            case Restarted():
                pytest.fail("a good file was begun again")
            case _:
                ended[event.clip_id] = event
    good = {"0:short.mp4", "2:short.mp4", "4:short.mp4"}
    assert {clip_id for clip_id, event in ended.items() if isinstance(event, Decoded)} == good == seconds.keys()
    for clip_id in good:
        np.testing.assert_allclose(seconds[clip_id], np.arange(40) / 25, atol=1e-3)
    gone = ended["3:gone.mp4"]
    assert isinstance(gone, Failed)
    assert gone.reason == "no such file"


def test_the_end_tells_where_the_frames_came_from(short_clip):
    (event,) = ends(decode_clips(tasks_for(short_clip), SETTINGS, 1)).values()
    assert isinstance(event, Decoded)
    status = short_clip.stat()
    assert (event.size, event.mtime_ns, event.fraction) == (status.st_size, status.st_mtime_ns, 1.0)
    assert event.sha256 == hashlib.sha256(short_clip.read_bytes()).hexdigest()


def test_no_clips_are_no_events_and_no_workers():
    assert list(decode_clips([], SETTINGS, 4)) == []


def test_what_the_decoder_wrote_is_kept_with_the_failure(awkward_file):
    (event,) = ends(decode_clips(tasks_for(awkward_file("truncated_no_moov.mp4")), SETTINGS, 1)).values()
    assert isinstance(event, Failed)
    assert "moov atom not found" in event.stderr


@pytest.fixture
def awkward_file(shared_data) -> Callable[[str], Path]:
    return lambda name: shared_data / "videos" / "awkward" / name


def test_frames_of_a_decoder_that_gave_up_are_declared_void(tmp_path, make_video, moving_frames):
    path = make_video(tmp_path / "clip.mp4", moving_frames(60), options={"bf": "0"})  # decord is first
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = np.random.default_rng(0).bytes(2000)
    path.write_bytes(content)
    events = list(decode_clips(tasks_for(path), SETTINGS, 1))
    voids = [number for number, event in enumerate(events) if isinstance(event, Restarted)]
    assert len(voids) == 1
    seconds = [time for event in events[voids[0] :] if isinstance(event, Frames) for time in event.seconds]
    assert seconds == sorted(set(seconds))
    end = events[-1]
    assert isinstance(end, Decoded)
    assert (end.decoder, end.fraction) == ("pyav", pytest.approx(len(seconds) / 60))


def test_workers_started_ahead_do_the_work_and_end_with_their_block(short_clip):
    with started_workers(2) as started:
        wait_until(lambda: len(workers_of(os.getpid())) == 2, "the second worker")
        ahead = set(workers_of(os.getpid()))
        seen = set()
        for _ in decode_clips(tasks_for(short_clip, short_clip, short_clip), SETTINGS, 2, started):
            seen |= set(workers_of(os.getpid()))
        assert seen
        assert seen <= ahead
    with started_workers(1):
        wait_until(lambda: len(workers_of(os.getpid())) == 1, "the worker")
    assert workers_of(os.getpid()) == []


def test_closing_early_leaves_no_worker(long_clip, short_clip):
    events = decode_clips(tasks_for(long_clip, long_clip, short_clip, short_clip), SETTINGS, 2)
    next(events)
    assert workers_of(os.getpid()) != []
    events.close()  # type: ignore[attr-defined]
    assert workers_of(os.getpid()) == []


def test_a_pipe_is_no_video_and_does_not_hang(hang):
    (event,) = ends(decode_clips(tasks_for(hang), SETTINGS, 1)).values()
    assert isinstance(event, Failed)
    assert event.reason == "not a file"


@pytest.mark.parametrize("workers", [0, -1])
def test_a_number_of_workers_that_would_never_begin_is_refused(short_clip, workers):
    """In a process of its own with a limit of time: waiting for nobody would take for ever."""
    script = PARENT.replace("settings, 2)", f"settings, {workers})").replace("time.sleep(600)", "")
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, str(short_clip)], capture_output=True, text=True, timeout=40
        )
    except subprocess.TimeoutExpired:
        pytest.fail(f"{workers} workers are waited for without end")
    assert "at least one worker is needed" in done.stderr, done.stderr[-300:]
