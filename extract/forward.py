"""The forward pass: windows of several clips in one batch, several batches at a time."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import numpy as np
from numpy.typing import NDArray

from .backbones import Backbone
from .threads import one_torch_thread

QUEUED = 2  #: batches a thread, one under way and one ready.


class ClipRows:
    """The feature rows of one clip, filled in as its batches come back."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.float32]] = []  # ``(n, D)`` each
        self._kept: list[slice] = []  # of each part
        self._missing = 0
        self._latest: NDArray[np.uint8] | None = None  # frames that the next ones must be seen with

    @property
    def complete(self) -> bool:
        """No row is under way."""
        return self._missing == 0

    def stacked(self) -> NDArray[np.float32]:
        """``(T, D)``, once complete."""
        return np.concatenate([part[kept] for part, kept in zip(self._parts, self._kept, strict=True)])

    def _reserve(self, kept: slice = slice(None)) -> int:
        self._parts.append(np.empty((0, 0), dtype=np.float32))
        self._kept.append(kept)
        self._missing += 1
        return len(self._parts) - 1

    def _extend(self, frames: NDArray[np.uint8], reach: int) -> tuple[int, NDArray[np.uint8]]:
        """A place for the rows of the clip's next frames, and those frames with what they must be seen with.

        The last ``reach`` rows so far have not seen what comes behind them, so they are made anew; for that, as many
        frames again before them are needed.
        """
        first = 0
        if self._latest is not None:
            first = len(self._latest) - reach
            self._kept[-1] = slice(self._kept[-1].start, -reach)
            frames = np.concatenate([self._latest, frames])
        self._latest = frames[max(0, len(frames) - 2 * reach) :].copy()  # a view would keep them all
        return self._reserve(slice(first, None)), frames

    def _fill(self, place: int, rows: NDArray[np.float32]) -> None:
        # A view would keep its whole batch, or all tokens that a model computed.
        self._parts[place] = np.atleast_2d(rows).copy()
        self._missing -= 1


Slot = tuple[ClipRows, int]  #: where a window's rows go.


class Forward:
    """Runs a backbone on whole batches, each by one thread, so that no number of cores changes a bit.

    A batch has the backbone's one shape. It is filled with windows of whatever clips come next; a backbone promises
    that a row depends on its own window alone, and zeros stand in for what is missing at the end. With a reach, a
    batch is one window of as many frames as there are.
    """

    def __init__(self, backbone: Backbone, threads: int) -> None:
        self._backbone = backbone
        self._limit = QUEUED * threads
        self._pool = ThreadPoolExecutor(threads)
        self._waiting: deque[tuple[Slot, NDArray[np.uint8]]] = deque()
        self._running: dict[Future[NDArray[np.float32]], list[Slot]] = {}

    def __enter__(self) -> "Forward":
        self._threads = one_torch_thread()
        self._threads.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._threads.__exit__(None, None, None)

    def add(self, rows: ClipRows, frames: NDArray[np.uint8]) -> None:
        """Take a run of a clip's frames, ``(T, H, W, 3)``.

        Runs hold whole windows but at the clip's end. A short last window repeats its last frame; a backbone with a
        reach takes it as it is.

        Raises:
            ValueError: Frames of another shape or dtype than the backbone takes, or none at all.
        """
        size = self._backbone.preprocessing
        if frames.dtype != np.uint8 or frames.shape[1:] != (size.height, size.width, 3) or len(frames) == 0:
            expected = f"(T >= 1, {size.height}, {size.width}, 3) uint8"
            raise ValueError(f"{self._backbone.name} takes {expected}, got {frames.shape} {frames.dtype}")
        length, reach = self._backbone.window, self._backbone.reach
        if reach is None:
            self._waiting.extend(((rows, rows._reserve()), window) for window in windows(frames, length))
        else:
            for begin in range(0, len(frames), length):
                place, window = rows._extend(frames[begin : begin + length], reach)
                self._waiting.append(((rows, place), window))
        while len(self._waiting) >= self._backbone.batch:
            while len(self._running) >= self._limit:
                self._collect(block=True)
            self._start()
        self._collect(block=False)

    def finish(self) -> None:
        """Run what waits for a full batch, and wait for everything."""
        while self._waiting:
            self._start()
        while self._running:
            self._collect(block=True)

    def _start(self) -> None:
        backbone = self._backbone
        taken = [self._waiting.popleft() for _ in range(min(backbone.batch, len(self._waiting)))]
        batch = np.zeros((backbone.batch, *taken[0][1].shape), dtype=np.uint8)
        for place, (_, window) in enumerate(taken):
            batch[place] = window
        self._running[self._pool.submit(backbone, batch)] = [slot for slot, _ in taken]

    def _collect(self, block: bool) -> None:
        done = (
            wait(self._running, return_when=FIRST_COMPLETED).done if block else {f for f in self._running if f.done()}
        )
        for future in done:
            for (rows, place), made in zip(self._running.pop(future), future.result(), strict=False):
                rows._fill(place, made)


def embed(backbone: Backbone, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The rows of one clip: ``(T, height, width, 3)`` uint8, preprocessed -> ``(ceil(T / window), dim)``.

    With a reach ``(T, dim)``.
    """
    rows = ClipRows()
    with Forward(backbone, 1) as forward:
        forward.add(rows, frames)
        forward.finish()
    return rows.stacked()


def windows(frames: NDArray[np.uint8], length: int) -> Iterator[NDArray[np.uint8]]:
    """``(T, H, W, 3)`` in pieces ``(length, H, W, 3)``."""
    missing = -len(frames) % length
    whole = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)]) if missing else frames
    yield from np.split(whole, len(whole) // length)
