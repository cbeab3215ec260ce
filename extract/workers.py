"""Decoding many clips in worker processes that are watched: a deadline for each clip, SIGKILL for what hangs."""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from .preprocessing import Preprocessing
from .sampling import Sampling

DEADLINE_SECONDS = 60.0  #: for a clip, beside its own duration.
MEMORY_BYTES = 2 << 30
ATTEMPTS = 2  #: of a clip whose decoder hung or died; the second comes after all other clips.
KILLED_ATTEMPTS = 5  #: SIGKILL comes from outside, seldom because of the clip.
QUEUED_CHUNKS = 8
STDERR_KEPT = 2000


@dataclass(frozen=True)
class DecodeTask:
    """One clip to decode."""

    clip_id: str
    path: str
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class DecodeSettings:
    """What holds for every clip of a run."""

    sampling: Sampling
    preprocessing: Preprocessing
    decoder: str = "auto"
    window: int = 1  #: frames that belong together; chunks hold whole ones.
    deadline_seconds: float = DEADLINE_SECONDS
    memory_bytes: int = MEMORY_BYTES


@dataclass(frozen=True)
class Frames:
    """Frames of a clip, ``(T, H, W, 3)`` uint8, and their seconds ``(T,)``; whole windows but at the clip's end."""

    clip_id: str
    frames: NDArray[np.uint8] = field(repr=False)
    seconds: NDArray[np.float64] = field(repr=False)


@dataclass(frozen=True)
class Restarted:
    """The decoder gave up or was lost and the clip begins anew; its frames so far are void."""

    clip_id: str


@dataclass(frozen=True)
class Decoded:
    """A clip's last frame has been given."""

    clip_id: str
    decoder: str
    fraction: float
    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class Failed:
    """A clip has no frames, and why."""

    clip_id: str
    reason: str
    stderr: str


Event = Frames | Restarted | Decoded | Failed
_Waiting = queue.SimpleQueue[tuple[DecodeTask, int]]  #: clips, and which attempt each will be.


def decode_clips(tasks: Sequence[DecodeTask], settings: DecodeSettings, workers: int) -> Iterator[Event]:
    """Decode the clips in ``workers`` processes and yield what comes, as it comes.

    Of each clip: any number of ``Frames`` in time order (``Restarted`` voids them), then one ``Decoded`` or
    ``Failed``. Clips are interleaved. Closing the iterator ends all workers at once.

    Raises:
        ValueError: When there is not at least one worker.
    """
    if workers < 1:
        raise ValueError(f"at least one worker is needed, got {workers}")
    waiting: _Waiting = queue.SimpleQueue()
    for task in tasks:
        waiting.put((task, 1))
    events: queue.Queue[Event | BaseException] = queue.Queue(maxsize=QUEUED_CHUNKS)
    stop = threading.Event()
    threads = [
        threading.Thread(target=_supervise, args=(waiting, settings, events, stop), daemon=True)
        for _ in range(min(workers, len(tasks)))
    ]
    for thread in threads:
        thread.start()
    try:
        finished = 0
        while finished < len(tasks):
            event = events.get()
            if isinstance(event, BaseException):
                raise event
            finished += isinstance(event, Decoded | Failed)
            yield event
    finally:
        stop.set()
        while any(thread.is_alive() for thread in threads):
            _drain(events)
            threads[0].join(0.01)
            threads = [thread for thread in threads if thread.is_alive()] or threads[:1]


def _drain(events: queue.Queue) -> None:
    try:
        while True:
            events.get_nowait()
    except queue.Empty:
        pass


def _supervise(waiting: _Waiting, settings: DecodeSettings, events: queue.Queue, stop: threading.Event) -> None:
    """One thread for each worker: hand it a clip at a time, watch it, replace it when it is lost."""
    worker: _Worker | None = None
    try:
        while not stop.is_set():
            try:
                task, attempt = waiting.get_nowait()
            except queue.Empty:
                break
            worker = worker or _Worker(settings)
            try:
                _decode_one(worker, task, events, stop)
            except _Lost as lost:
                reason, limit = (str(lost), ATTEMPTS) if str(lost) else worker.cause_of_death()
                stderr = worker.stderr_tail()
                worker.end()
                worker = None
                if stop.is_set():
                    break
                if attempt < limit:
                    events.put(Restarted(task.clip_id))
                    waiting.put((task, attempt + 1))
                else:
                    events.put(Failed(task.clip_id, f"{reason}, {attempt} times", stderr))
    except BaseException as error:
        events.put(error)
    finally:
        if worker is not None:
            worker.end()


def _decode_one(worker: "_Worker", task: DecodeTask, events: queue.Queue, stop: threading.Event) -> None:
    """Pass a clip's messages on as events.

    Raises:
        _Lost: When the worker has to be given up.
    """
    patience = worker.settings.deadline_seconds
    worker.begin(task)
    while True:
        message, patience = worker.receive(patience, stop)
        match message["kind"]:
            case "header":
                patience += message["duration"]
            case "frames":
                pixels, patience = worker.receive_pixels(message["shape"], patience, stop)
                events.put(Frames(task.clip_id, pixels, np.array(message["seconds"])))
            case "restart":
                events.put(Restarted(task.clip_id))
            case "failed":
                events.put(Failed(task.clip_id, message["reason"], worker.stderr_tail()))
                return
            case "lost":
                raise _Lost(message["reason"])
            case "end":
                del message["kind"]
                events.put(Decoded(task.clip_id, **message))
                return


class _Lost(Exception):
    """The worker died or is past its deadline."""


class _Worker:
    """A decode process and the connection to it."""

    def __init__(self, settings: DecodeSettings) -> None:
        self.settings = settings
        ours, theirs = socket.socketpair()
        self._stderr = tempfile.TemporaryFile()
        command = [
            sys.executable,
            "-P",
            "-m",
            f"{__package__}.worker",
            str(theirs.fileno()),
            str(settings.memory_bytes),
        ]
        self._process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._stderr,
            stderr=self._stderr,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )
        theirs.close()
        self._connection = Connection(ours.detach())

    def begin(self, task: DecodeTask) -> None:
        self._stderr.seek(0)
        self._stderr.truncate()
        settings = self.settings
        message = {
            "path": task.path,
            "start": task.start,
            "end": task.end,
            "sampling": asdict(settings.sampling),
            "preprocessing": asdict(settings.preprocessing),
            "decoder": settings.decoder,
            "window": settings.window,
        }
        try:
            self._connection.send_bytes(json.dumps(message).encode())
        except OSError:
            raise _Lost from None

    def receive(self, patience: float, stop: threading.Event) -> tuple[dict, float]:
        """The next message, and the patience left: only the time spent waiting for the worker counts."""
        content, patience = self._receive_bytes(patience, stop)
        return json.loads(content), patience

    def receive_pixels(
        self, shape: list[int], patience: float, stop: threading.Event
    ) -> tuple[NDArray[np.uint8], float]:
        content, patience = self._receive_bytes(patience, stop)
        return np.frombuffer(content, dtype=np.uint8).reshape(shape), patience

    def _receive_bytes(self, patience: float, stop: threading.Event) -> tuple[bytes, float]:
        begun = time.monotonic()
        try:
            while not self._connection.poll(0.2):
                if stop.is_set():
                    raise _Lost("stopped")
                if time.monotonic() - begun > patience:
                    raise _Lost(
                        f"decoding passed its deadline of {self.settings.deadline_seconds:g} s beside its duration"
                    )
            return self._connection.recv_bytes(), patience - (time.monotonic() - begun)
        except (EOFError, OSError):
            raise _Lost from None

    def cause_of_death(self) -> tuple[str, int]:
        """Why the connection closed (the worker is ending or has ended by itself), and how often to try its clip."""
        try:
            code = self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            return "the decoder closed its connection", ATTEMPTS
        if code >= 0:
            return f"the decoder ended with status {code}", ATTEMPTS
        name = signal.Signals(-code).name
        return f"the decoder died of {name}", KILLED_ATTEMPTS if name == "SIGKILL" else ATTEMPTS

    def stderr_tail(self) -> str:
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - STDERR_KEPT))
        return self._stderr.read().decode(errors="replace").strip()

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        self._connection.close()
        self._stderr.close()
