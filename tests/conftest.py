import ctypes
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

IN_OPEN = 0x20  # <sys/inotify.h>


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The labelled data that lies beside the checkout, or beside the clone that a checkout was unpacked in."""
    for folder in Path(__file__).resolve().parents[1:]:
        if (folder / "shared" / "data" / "videos").is_dir():
            return folder / "shared" / "data"
    pytest.skip("needs the labelled data in ../shared/data")


@pytest.fixture(scope="session")
def make_video() -> Callable[..., Path]:
    """Write a real video: ``make_video(path, frames, fps=25, codec="libx264", format="mp4", options={}, ticks=None)``.

    ``ticks`` are the frames' times in milliseconds, for a variable frame rate.
    """

    def make(
        path: Path,
        frames: Sequence[NDArray[np.uint8]],
        fps: int = 25,
        codec: str = "libx264",
        format: str = "mp4",
        options: Mapping[str, str] | None = None,
        ticks: Sequence[int] | None = None,
    ) -> Path:
        with av.open(str(path), "w", format=format) as container:
            stream = container.add_stream(codec, rate=fps, options=dict(options or {}))
            stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
            if ticks is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            for index, pixels in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                if ticks is not None:
                    frame.pts, frame.time_base = ticks[index], Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return make


@pytest.fixture(scope="session")
def moving_frames() -> Callable[[int], list[NDArray[np.uint8]]]:
    """``moving_frames(n)``: small frames of which no two are alike."""

    def draw(count: int) -> list[NDArray[np.uint8]]:
        y, x = np.mgrid[:48, :64]
        return [
            np.stack([(4 * x + 3 * i) % 256, (5 * y + 7 * i) % 256, np.full_like(x, 4 * i % 256)], -1).astype(np.uint8)
            for i in range(count)
        ]

    return draw


@pytest.fixture
def watch_opens() -> Iterator[Callable[[Path], Callable[[], bool]]]:
    """``opened = watch_opens(path)``: ``opened()`` says whether anything has opened the file since. Linux only."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "inotify_init1"):
        pytest.skip("needs Linux's inotify")
    descriptors = []

    def watch(path: Path) -> Callable[[], bool]:
        descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert libc.inotify_add_watch(descriptor, os.fsencode(path), IN_OPEN) >= 0
        descriptors.append(descriptor)

        def opened() -> bool:
            try:
                return bool(os.read(descriptor, 4096))
            except BlockingIOError:
                return False

        return opened

    yield watch
    for descriptor in descriptors:
        os.close(descriptor)
