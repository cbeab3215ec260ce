"""The decode worker: a process of its own that can be killed, fed with clips over a socket.

Messages are JSON, a ``frames`` message is followed by the raw pixels. Nothing is pickled.
"""

import ctypes
import hashlib
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from multiprocessing.connection import Connection

import av.logging
import numpy as np

from .decoders import Frame, choose_decoder, decode_frames
from .preprocessing import Preprocessing
from .sampling import Sampling
from .video import Undecodable, Video, choose_frames, open_video

PR_SET_PDEATHSIG = 1
CHUNK = 32  #: frames sent at a time, or a whole window where that is longer.


def serve(descriptor: int, memory_bytes: int) -> None:
    """Answer tasks from the parent until it closes the connection."""
    if sys.platform == "linux":  # a worker hung inside a decoder must not outlive its parent
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    av.logging.set_level(av.logging.ERROR)
    connection = Connection(descriptor)
    while True:
        try:
            task = json.loads(connection.recv_bytes())
        except EOFError:
            return
        try:
            _answer(connection, task)
        except Undecodable as error:
            _send(connection, kind="failed", reason=str(error))
        except MemoryError:  # of this clip or of those before it: another process will show
            _send(connection, kind="lost", reason=f"needs more than {memory_bytes >> 20} MiB of memory")
            return


def _answer(connection: Connection, task: dict) -> None:
    """Decode one clip: a header message, frames, and an end message with what was reached."""
    video = open_video(task["path"])
    wanted = choose_frames(video, Sampling(**task["sampling"]), task["start"], task["end"])
    # The clip's own length adds to its deadline; a lying header must not, nor lying times: a second a frame at most.
    _send(connection, kind="header", duration=min(float(video.seconds[-1]), len(video.seconds)))
    preprocessing = Preprocessing(**task["preprocessing"])
    chunk = max(1, CHUNK // task["window"]) * task["window"]
    decoders = choose_decoder(video, task["decoder"])
    for decoder in decoders:
        try:
            frames = decode_frames(video, decoder, wanted.frames)
            got, clean = _send_frames(connection, frames, video, preprocessing, chunk)
            break
        except Undecodable:
            if decoder == decoders[-1]:
                raise
            _send(connection, kind="restart")
    if got == 0:
        raise Undecodable("none of the wanted frames can be decoded")
    status = os.stat(task["path"])
    with open(task["path"], "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _send(
        connection,
        kind="end",
        decoder=decoder,
        fraction=wanted.present * clean / len(wanted.frames),
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        sha256=digest,
    )


def _send_frames(
    connection: Connection, frames: Iterator[Frame], video: Video, preprocessing: Preprocessing, chunk: int
) -> tuple[int, int]:
    """Resize and send the frames, a chunk at a time; how many there were, and how many of them were undamaged."""
    got = clean = 0
    small = (replace(frame, pixels=preprocessing.apply(frame.pixels)) for frame in frames)
    while group := list(islice(small, chunk)):
        pixels = np.stack([frame.pixels for frame in group])
        seconds = video.seconds[[frame.index for frame in group]]
        _send(connection, kind="frames", seconds=seconds.tolist(), shape=pixels.shape)
        connection.send_bytes(pixels.tobytes())
        got += len(group)
        clean += sum(not frame.damaged for frame in group)
    return got, clean


def _send(connection: Connection, **message: object) -> None:
    connection.send_bytes(json.dumps(message).encode())


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
