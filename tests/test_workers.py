import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from longreel.extract.preprocessing import Preprocessing
from longreel.extract.sampling import Sampling
from longreel.extract.workers import (
    ATTEMPTS,
    KILLED_ATTEMPTS,
    Decoded,
    DecodeSettings,
    DecodeTask,
    Event,
    Failed,
    Frames,
    Restarted,
    decode_clips,
    started_workers,
)

SETTINGS = DecodeSettings(Sampling(fps=1000), Preprocessing(16, 16))
PATIENCE = 120.0  #: seconds; the machine may be busy.


def workers_of(parent: int) -> list[int]:
    """The decode processes that a process has started and that still run."""
    children = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(child) for path in children for child in path.read_text().split() if is_worker(int(child))]


def is_worker(process: int) -> bool:
    try:
        return b"longreel.extract.worker\0" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


def wait_until(condition: Callable[[], object], what: str) -> None:
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < PATIENCE, f"{what} has not come in {PATIENCE:g} s"
        time.sleep(0.05)


def ends(events: Iterator[Event]) -> dict[str, Decoded | Failed]:
    return {event.clip_id: event for event in events if isinstance(event, Decoded | Failed)}


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    if not Path("/proc/self/task").is_dir():
        pytest.skip("needs Linux's /proc")
    yield
    assert workers_of(os.getpid()) == []


@pytest.fixture(scope="module")
def short(tmp_path_factory, make_video, moving_frames) -> Path:
    return make_video(tmp_path_factory.mktemp("v") / "short.mp4", moving_frames(40))


@pytest.fixture(scope="module")
def long(tmp_path_factory, make_video, moving_frames) -> Path:
    """A clip of more frames than fit in the queue, so that its worker still runs when its first frames are here."""
    # Of a high rate, since a clip's duration is added to its deadline.
    frames = moving_frames(100) * 12
    return make_video(tmp_path_factory.mktemp("v") / "long.mp4", frames, fps=1000, options={"preset": "ultrafast"})


@pytest.fixture
def hang(tmp_path) -> Path:
    """A file of the length of an hour-long video that takes its reader an hour: a pipe that nobody writes to."""
    os.mkfifo(tmp_path / "hang.mp4")
    return tmp_path / "hang.mp4"


def tasks_for(*paths: Path) -> Sequence[DecodeTask]:
    return [DecodeTask(f"{number}:{path.name}", str(path)) for number, path in enumerate(paths)]


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


@pytest.mark.parametrize("workers", [1, 3])
def test_every_clip_gets_its_frames_in_time_order_and_one_end(short, tmp_path, workers):
    (tmp_path / "text.mp4").write_text("no video")
    tasks = tasks_for(short, tmp_path / "text.mp4", short, tmp_path / "gone.mp4", short)
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


def test_the_end_tells_where_the_frames_came_from(short):
    (event,) = ends(decode_clips(tasks_for(short), SETTINGS, 1)).values()
    assert isinstance(event, Decoded)
    status = short.stat()
    assert (event.size, event.mtime_ns, event.fraction) == (status.st_size, status.st_mtime_ns, 1.0)
    assert event.sha256 == hashlib.sha256(short.read_bytes()).hexdigest()


def test_no_clips_are_no_events_and_no_workers():
    assert list(decode_clips([], SETTINGS, 4)) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
def test_a_clip_whose_worker_is_lost_once_is_decoded_by_another_after_all_others(short, long, number):
    settings = replace(SETTINGS, deadline_seconds=15.0)
    whole = sum(len(event.frames) for event in decode_clips(tasks_for(long), SETTINGS, 1) if isinstance(event, Frames))
    events = decode_clips(tasks_for(long, short, short), settings, 1)
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


def test_a_clip_that_hangs_at_every_attempt_is_given_up_at_its_deadline_and_the_others_finish(short, long):
    events = decode_clips(tasks_for(long, short, short), replace(SETTINGS, deadline_seconds=6.0), 1)
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
    short, long, number, attempts
):
    events = list(attacked(decode_clips(tasks_for(long, short, short), SETTINGS, 1), "0:long.mp4", number))
    assert sum(isinstance(event, Restarted) for event in events) == attempts - 1
    ended = ends(iter(events))
    failed = ended.pop("0:long.mp4")
    assert isinstance(failed, Failed)
    assert failed.reason == f"the decoder died of {number.name}, {attempts} times"
    assert [type(event) for event in ended.values()] == [Decoded, Decoded]


def test_a_clip_that_needs_too_much_memory_fails_and_the_run_goes_on(tmp_path, short, make_video):
    frames = [np.zeros((1440, 2560, 3), np.uint8)] * 33
    large = make_video(tmp_path / "large.mp4", frames, options={"preset": "ultrafast"})
    # One chunk of 32 such frames is 337 MiB; the worker itself needs less than 250 MiB.
    ended = ends(decode_clips(tasks_for(large, short), replace(SETTINGS, memory_bytes=300 << 20), 1))
    failed = ended["0:large.mp4"]
    assert isinstance(failed, Failed)
    assert "memory" in f"{failed.reason} {failed.stderr}".lower(), failed
    assert isinstance(ended["1:short.mp4"], Decoded)


def test_a_worker_that_leaks_is_replaced_and_the_clips_behind_are_decoded(short, tmp_path):
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
    command = [sys.executable, "-c", script, str(short)]
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)
    assert done.stdout == "10 True 0\n", done.stdout + done.stderr[-500:]


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


def test_workers_started_ahead_do_the_work_and_end_with_their_block(short):
    with started_workers(2) as started:
        ahead = set(workers_of(os.getpid()))
        assert len(ahead) == 2
        seen = set()
        for _ in decode_clips(tasks_for(short, short, short), SETTINGS, 2, started):
            seen |= set(workers_of(os.getpid()))
        assert seen
        assert seen <= ahead
    with started_workers(1):
        assert len(workers_of(os.getpid())) == 1
    assert workers_of(os.getpid()) == []


def test_closing_early_leaves_no_worker(long, short):
    events = decode_clips(tasks_for(long, long, short, short), SETTINGS, 2)
    next(events)
    assert workers_of(os.getpid()) != []
    events.close()  # type: ignore[attr-defined]
    assert workers_of(os.getpid()) == []


def test_closing_early_ends_workers_that_hang(long):
    events = decode_clips(tasks_for(long, long), SETTINGS, 1)
    next(events)
    (worker,) = workers_of(os.getpid())
    os.kill(worker, signal.SIGSTOP)
    events.close()  # type: ignore[attr-defined]
    assert not Path(f"/proc/{worker}").exists()


PARENT = """
import sys, time
from longreel.extract.preprocessing import Preprocessing
from longreel.extract.sampling import Sampling
from longreel.extract.workers import DecodeSettings, DecodeTask, decode_clips
settings = DecodeSettings(Sampling(fps=1000), Preprocessing(16, 16))
events = decode_clips([DecodeTask(str(n), sys.argv[1]) for n in range(4)], settings, 2)
next(events)
print("begun", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("stopped", [False, True], ids=["working", "hanging"])
def test_a_killed_parent_leaves_no_worker(long, stopped):
    with subprocess.Popen([sys.executable, "-c", PARENT, str(long)], stdout=subprocess.PIPE, text=True) as parent:
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


def test_a_pipe_is_no_video_and_does_not_hang(hang):
    (event,) = ends(decode_clips(tasks_for(hang), SETTINGS, 1)).values()
    assert isinstance(event, Failed)
    assert event.reason == "no such file"


@pytest.mark.parametrize("workers", [0, -1])
def test_a_number_of_workers_that_would_never_begin_is_refused(short, workers):
    """In a process of its own with a limit of time: waiting for nobody would take for ever."""
    script = PARENT.replace("settings, 2)", f"settings, {workers})").replace("time.sleep(600)", "")
    try:
        done = subprocess.run([sys.executable, "-c", script, str(short)], capture_output=True, text=True, timeout=40)
    except subprocess.TimeoutExpired:
        pytest.fail(f"{workers} workers are waited for without end")
    assert "at least one worker is needed" in done.stderr, done.stderr[-300:]


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
