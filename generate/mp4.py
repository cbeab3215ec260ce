"""Generated clips as H.264 files: the same frames give the same bytes, and a file says that it was generated."""

import json
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from ..durable import naming_faults
from ..errors import EnvironmentFault

CRF = 18  #: of x264: hardly visible losses. A clip that cost minutes of a GPU shall not be spoilt by its file.


def write_mp4(path: Path, frames: Iterable[NDArray[np.uint8]], fps: float, clip_id: str) -> None:
    """Write frames ``(H, W, 3)`` RGB as a video of constant frame rate, straight to ``path``.

    Its ``comment`` is JSON with ``synthetic: true`` and the clip's id. The bytes are the same for the same frames and
    the same versions on the same kind of processor.

    Raises:
        EnvironmentFault: When the disk is full, the folder cannot be written, or PyAV lacks an H.264 encoder.
    """
    if "libx264" not in av.codecs_available:
        raise EnvironmentFault("this PyAV cannot write H.264 (no libx264). Install the 'av' wheel from PyPI.")
    # As in the demo's videos: no B-frames and so no edit list; mbtree=0, since that part of x264 reads memory that
    # it never wrote, and bytes would depend on what was there before.
    options = {"preset": "veryfast", "crf": str(CRF), "bf": "0", "threads": "1", "x264-params": "mbtree=0"}
    with naming_faults(path, 0), av.open(str(path), "w", format="mp4", container_options={"use_editlist": "0"}) as file:
        file.metadata["comment"] = json.dumps({"synthetic": True, "clip_id": clip_id})
        stream = file.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=options)
        for index, pixels in enumerate(frames):
            if index == 0:
                stream.height, stream.width, stream.pix_fmt = *pixels.shape[:2], "yuv420p"
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())


def count_frames(path: Path) -> int:
    """The frames of a video, each of them decoded; 0 when it is no video or breaks off.

    Raises:
        OSError: When the file cannot be opened.
    """
    with open(path, "rb") as file:
        try:
            with av.open(file, "r", options={"err_detect": "explode"}) as container:
                return sum(1 for _ in container.decode(video=0))
        except (FFmpegError, IndexError, OSError):  # an empty file cannot be sought in
            return 0


def read_comment(path: Path) -> dict:
    """What a generated clip says about itself; empty when it says nothing.

    Raises:
        OSError: When the file cannot be opened.
    """
    with open(path, "rb") as file:
        try:
            with av.open(file, "r") as container:
                found = json.loads(container.metadata.get("comment", "{}"))
        except (FFmpegError, ValueError, OSError, RecursionError):
            return {}
    return found if isinstance(found, dict) else {}
