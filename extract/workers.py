"""Decoding many clips in worker processes that are watched: a deadline for each clip, SIGKILL for what hangs."""

import json
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..child import Child, Lost, Overdue
from .preprocessing import Preprocessing
from .sampling import Sampling

DEADLINE_SECONDS = 60.0  #: for a clip, beside its own duration.
MEMORY_BYTES = 2 << 30
ATTEMPTS = 2  #: of a clip whose decoder hung or died; the second comes after all other clips.
KILLED_ATTEMPTS = 5  #: SIGKILL comes from outside, seldom because of the clip.
QUEUED_CHUNKS = 8


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


@contextmanager
def started_workers(count: int, memory_bytes: int = MEMORY_BYTES) -> Iterator[list[Child]]:
    """Worker processes that get ready while the caller does something else, such as loading a model."""
    with ExitStack() as ends:
        started = []
        for _ in range(count):
            started.append(_start(memory_bytes))
            ends.callback(started[-1].end)
        yield started


def _start(memory_bytes: int) -> Child:
    return Child(f"{__package__}.worker", str(memory_bytes))


def decode_clips(
    tasks: Sequence[DecodeTask], settings: DecodeSettings, workers: int, started: Sequence[Child] = ()
) -> Iterator[Event]:
    """Decode the clips in ``workers`` processes and yield what comes, as it comes.

    Of each clip: any number of ``Frames`` in time order (``Restarted`` voids them), then one ``Decoded`` or
    ``Failed``. Clips are interleaved. Closing the iterator ends all workers at once. The first processes are those
    of ``started_workers``, if given, with the memory that they were given.

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
        threading.Thread(target=_supervise, args=(waiting, settings, events, stop, worker), daemon=True)
        for worker in [*started, *[None] * workers][: min(workers, len(tasks))]
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


def _supervise(
    waiting: _Waiting, settings: DecodeSettings, events: queue.Queue, stop: threading.Event, worker: Child | None
) -> None:
    """One thread for each worker: hand it a clip at a time, watch it, replace it when it is lost."""
    try:
        while not stop.is_set():
            try:
                task, attempt = waiting.get_nowait()
            except queue.Empty:
                break
            if worker is not None and not worker.alive():
                worker.end()
                worker = None
            worker = worker or _start(settings.memory_bytes)
            try:
                _decode_one(worker, task, settings, events, stop)
            except Lost as lost:
                stderr = worker.stderr_tail()
                worker.end()
                worker = None
                if stop.is_set():
                    break
                if attempt < (KILLED_ATTEMPTS if lost.signal_name == "SIGKILL" else ATTEMPTS):
                    events.put(Restarted(task.clip_id))
                    waiting.put((task, attempt + 1))
                else:
                    events.put(Failed(task.clip_id, f"{_describe(lost, settings)}, {attempt} times", stderr))
    except BaseException as error:
        events.put(error)
    finally:
        if worker is not None:
            worker.end()


def _describe(lost: Lost, settings: DecodeSettings) -> str:
    if isinstance(lost, Overdue):
        return f"decoding passed its deadline of {settings.deadline_seconds:g} s beside its duration"
    return f"the decoder {lost}"


def _decode_one(
    worker: Child, task: DecodeTask, settings: DecodeSettings, events: queue.Queue, stop: threading.Event
) -> None:
    """Pass a clip's messages on as events.

    Raises:
        Lost: When the worker has to be given up.
    """
    patience = settings.deadline_seconds
    worker.send(
        path=task.path,
        start=task.start,
        end=task.end,
        sampling=asdict(settings.sampling),
        preprocessing=asdict(settings.preprocessing),
        decoder=settings.decoder,
        window=settings.window,
    )
    while True:
        content, patience = worker.receive(patience, stop.is_set)
        message = json.loads(content)
        match message.pop("kind"):
            case "header":
                patience += message["duration"]
            case "frames":
                content, patience = worker.receive(patience, stop.is_set)
                pixels = np.frombuffer(content, dtype=np.uint8).reshape(message["shape"])
                events.put(Frames(task.clip_id, pixels, np.array(message["seconds"])))
            case "restart":
                events.put(Restarted(task.clip_id))
            case "failed":
                events.put(Failed(task.clip_id, message["reason"], worker.stderr_tail()))
                return
            case "lost":
                raise Lost(message["reason"])
            case "end":
                events.put(Decoded(task.clip_id, **message))
                return
