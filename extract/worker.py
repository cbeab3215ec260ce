"""The decode worker: a process of its own that can be killed, and is handed one clip after another.

A ``frames`` message is followed by the raw pixels.
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from multiprocessing.connection import Connection

import av.logging
import numpy as np

from ..child import send_message, serve
from .decoders import Frame, choose_decoder, decode_frames
from .preprocessing import Preprocessing
from .sampling import Sampling
from .video import Undecodable, Video, choose_frames, open_video

CHUNK = 32  #: frames sent at a time, or a whole window where that is longer.


def answer(connection: Connection, task: dict) -> bool:
    """Decode one clip; false when this process has no memory left for another."""
    try:
        _decode(connection, task)
    except Undecodable as error:
        send_message(connection, kind="failed", reason=str(error))
    except MemoryError:  # of this clip or of those before it: another process will show
        send_message(connection, kind="lost", reason=f"needs more than {int(sys.argv[2]) >> 20} MiB of memory")
        return False
    return True


def _decode(connection: Connection, task: dict) -> None:
    """A header message, frames, and an end message with what was reached."""
    video = open_video(task["path"])
    with video.file:
        decoder, fraction = _send_video(connection, task, video)
    status = os.stat(task["path"])
    with open(task["path"], "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    send_message(
        connection,
        kind="end",
        decoder=decoder,
        fraction=fraction,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        sha256=digest,
    )


def _send_video(connection: Connection, task: dict, video: Video) -> tuple[str, float]:
    """Header and frames; the decoder that gave them, and the undamaged part of what was wanted."""
    wanted = choose_frames(video, Sampling(**task["sampling"]), task["start"], task["end"])
    # The clip's own length adds to its deadline; a lying header must not, nor lying times: a second a frame at most.
    send_message(connection, kind="header", duration=min(float(video.seconds[-1]), len(video.seconds)))
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
            send_message(connection, kind="restart")
    if got == 0:
        raise Undecodable("none of the wanted frames can be decoded")
    return decoder, wanted.present * clean / len(wanted.frames)


def _send_frames(
    connection: Connection, frames: Iterator[Frame], video: Video, preprocessing: Preprocessing, chunk: int
) -> tuple[int, int]:
    """Resize and send the frames, a chunk at a time; how many there were, and how many of them were undamaged."""
    got = clean = 0
    small = (replace(frame, pixels=preprocessing.apply(frame.pixels)) for frame in frames)
    while group := list(islice(small, chunk)):
        pixels = np.stack([frame.pixels for frame in group])
        seconds = video.seconds[[frame.index for frame in group]]
        send_message(connection, kind="frames", seconds=seconds.tolist(), shape=pixels.shape)
        connection.send_bytes(pixels.tobytes())
        got += len(group)
        clean += sum(not frame.damaged for frame in group)
    return got, clean


if __name__ == "__main__":
    av.logging.set_level(av.logging.ERROR)
    serve(answer, memory_bytes=int(sys.argv[2]))
