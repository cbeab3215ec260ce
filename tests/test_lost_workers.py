"""Decode workers that hang, crash, leak, are killed or stop talking."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_decoding import PARENT, SETTINGS, ends, is_worker, tasks_for, wait_until, workers_of

from longreel.extract.preprocessing import Preprocessing
from longreel.extract.sampling import Sampling
from longreel.extract.workers import (
    ATTEMPTS,
    KILLED_ATTEMPTS,
    Decoded,
    DecodeSettings,
    Event,
    Failed,
    Frames,
    Restarted,
    decode_clips,
    started_workers,
)

pytestmark = pytest.mark.usefixtures("no_worker_left")


def attacked(events: Iterator[Event], clip_id: str, number: signal.Signals) -> Iterator[Event]:
    """The events, while every worker that has given frames of a clip is sent a signal, at each attempt."""
    struck = False
    for event in events:
        if event.clip_id == clip_id:
            if isinstance(event, Frames) and not struck:
                (worker,) = workers_of(os.getpid())
                os.kill(worker, number)
                struck = True
            struck = struck and not isinstance(event, Restarted)
        yield event


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
def test_a_clip_whose_worker_is_lost_once_is_decoded_by_another_after_all_others(short_clip, long_clip, number):
    settings = replace(SETTINGS, deadline_seconds=15.0)
    whole = sum(
        len(event.frames) for event in decode_clips(tasks_for(long_clip), SETTINGS, 1) if isinstance(event, Frames)
    )
    events = decode_clips(tasks_for(long_clip, short_clip, short_clip), settings, 1)
    seen = [next(events)]
    (worker,) = workers_of(os.getpid())
    os.kill(worker, number)
    seen += events
    assert [type(event) for event in seen if not isinstance(event, Frames)] == [Restarted, Decoded, Decoded, Decoded]
    assert seen[-1].clip_id == "0:long.mp4"
    begun = next(place for place, event in enumerate(seen) if isinstance(event, Restarted))
    again = [event for event in seen[begun:] if isinstance(event, Frames) and event.clip_id == "0:long.mp4"]
    assert sum(len(event.frames) for event in again) == whole
    assert not Path(f"/proc/{worker}").exists()


def test_a_worker_that_died_before_it_had_a_clip_costs_none_an_attempt(short_clip):
    with started_workers(1) as started:
        wait_until(lambda: workers_of(os.getpid()), "the worker")
        (idle,) = workers_of(os.getpid())
        os.kill(idle, signal.SIGKILL)
        wait_until(lambda: not started[0].alive(), "its end")
        events = list(decode_clips(tasks_for(short_clip), SETTINGS, 1, started))
    assert [type(event) for event in events if not isinstance(event, Frames)] == [Decoded]


def test_a_clip_that_hangs_at_every_attempt_is_given_up_at_its_deadline_and_the_others_finish(short_clip, long_clip):
    events = decode_clips(tasks_for(long_clip, short_clip, short_clip), replace(SETTINGS, deadline_seconds=6.0), 1)
    ended = ends(attacked(events, "0:long.mp4", signal.SIGSTOP))
    failed = ended.pop("0:long.mp4")
    assert isinstance(failed, Failed)
    assert "deadline of 6 s" in failed.reason
    assert failed.reason.endswith(", 2 times")
    assert [type(event) for event in ended.values()] == [Decoded, Decoded]


def test_a_header_that_promises_a_day_does_not_lengthen_the_deadline(tmp_path, make_video, moving_frames):
    path = make_video(tmp_path / "liar.mkv", moving_frames(100) * 3, fps=100, format="matroska")
    content = path.read_bytes()
    at = content.index(b"\x44\x89\x88") + 3  # Matroska's Duration, a big-endian float64 in ms
    path.write_bytes(content[:at] + np.array(86_400_000.0, dtype=">f8").tobytes() + content[at + 8 :])
    settings = DecodeSettings(Sampling(fps=100), Preprocessing(160, 160), deadline_seconds=6.0)
    # The next frames do not fit into the connection, so the worker waits.
    events = attacked(decode_clips(tasks_for(path), settings, 1), "0:liar.mkv", signal.SIGSTOP)
    begun = time.monotonic()
    (failed,) = ends(events).values()
    assert isinstance(failed, Failed)
    assert "deadline of 6 s" in failed.reason
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize(
    ("number", "attempts"), [(signal.SIGKILL, KILLED_ATTEMPTS), (signal.SIGSEGV, ATTEMPTS), (signal.SIGABRT, ATTEMPTS)]
)
def test_a_clip_that_always_kills_its_worker_fails_by_the_signals_name_and_the_others_finish(
    short_clip, long_clip, number, attempts
):
    events = list(
        attacked(decode_clips(tasks_for(long_clip, short_clip, short_clip), SETTINGS, 1), "0:long.mp4", number)
    )
    assert sum(isinstance(event, Restarted) for event in events) == attempts - 1
    ended = ends(iter(events))
    failed = ended.pop("0:long.mp4")
    assert isinstance(failed, Failed)
    assert failed.reason == f"the decoder died of {number.name}, {attempts} times"
    assert [type(event) for event in ended.values()] == [Decoded, Decoded]


def test_a_clip_that_needs_too_much_memory_fails_and_the_run_goes_on(tmp_path, short_clip, make_video):
    frames = [np.zeros((1440, 2560, 3), np.uint8)] * 33
    large = make_video(tmp_path / "large.mp4", frames, options={"preset": "ultrafast"})
    # One chunk of 32 such frames is 337 MiB; the worker itself needs less than 250 MiB.
    ended = ends(decode_clips(tasks_for(large, short_clip), replace(SETTINGS, memory_bytes=300 << 20), 1))
    failed = ended["0:large.mp4"]
    assert isinstance(failed, Failed)
    assert "memory" in f"{failed.reason} {failed.stderr}".lower(), failed
    assert isinstance(ended["1:short.mp4"], Decoded)


def test_a_worker_that_leaks_is_replaced_and_the_clips_behind_are_decoded(short_clip, tmp_path):
    """Ten clips of which each leaves 60 MiB behind, in workers that may have 400."""
    leak = tmp_path / "sitecustomize.py"
    leak.write_text(
        "import sys\n"
        "if sys.orig_argv[-4:-2] == ['-m', 'longreel.extract.worker']:\n"
        "    import hashlib\n"
        "    digest, kept = hashlib.file_digest, []\n"
        "    def leaking(*arguments):\n"
        "        kept.append(b'x' * (60 << 20))\n"
        "        return digest(*arguments)\n"
        "    hashlib.file_digest = leaking\n"
    )
    script = (
        "import sys; from pathlib import Path\n"
        "from longreel.extract.preprocessing import Preprocessing\n"
        "from longreel.extract.sampling import Sampling\n"
        "from longreel.extract.workers import *\n"
        "settings = DecodeSettings(Sampling(fps=5), Preprocessing(16, 16), memory_bytes=400 << 20)\n"
        "tasks = [DecodeTask(str(number), sys.argv[1]) for number in range(10)]\n"
        "names = [type(event).__name__ for event in decode_clips(tasks, settings, 1)]\n"
        "print(names.count('Decoded'), names.count('Restarted') > 0, names.count('Failed'))"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", script, str(short_clip)]
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)
    assert done.stdout == "10 True 0\n", done.stdout + done.stderr[-500:]


def test_closing_early_ends_workers_that_hang(long_clip):
    events = decode_clips(tasks_for(long_clip, long_clip), SETTINGS, 1)
    next(events)
    (worker,) = workers_of(os.getpid())
    os.kill(worker, signal.SIGSTOP)
    events.close()  # type: ignore[attr-defined]
    assert not Path(f"/proc/{worker}").exists()


@pytest.mark.parametrize("stopped", [False, True], ids=["working", "hanging"])
def test_a_killed_parent_leaves_no_worker(long_clip, stopped):
    with subprocess.Popen([sys.executable, "-c", PARENT, str(long_clip)], stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == "begun\n"
            wait_until(lambda: len(workers_of(parent.pid)) == 2, "the second worker")
            time.sleep(1.0 if stopped else 0.0)  # past its start, when it asks to die with its parent
            workers = workers_of(parent.pid)
            for worker in workers if stopped else []:
                os.kill(worker, signal.SIGSTOP)
        finally:
            parent.kill()
    wait_until(lambda: not any(map(is_worker, workers)), "the workers' end")


def test_a_worker_that_stops_in_the_middle_of_a_message_is_lost_too(tmp_path, monkeypatch):
    """A module that announces a hundred bytes, sends ten, and sleeps."""
    from longreel import child

    (tmp_path / "stalls.py").write_text(
        "import os, sys, time\nos.write(int(sys.argv[1]), bytes([0, 0, 0, 100]) + b'x' * 10)\ntime.sleep(600)\n"
    )
    monkeypatch.setattr(child, "STALL_SECONDS", 1)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    stalled = child.Child("stalls", environment={"PYTHONPATH": path})
    try:
        with pytest.raises(child.Lost, match="stopped in the middle of a message"):
            stalled.receive(patience=30.0)
    finally:
        stalled.end()
