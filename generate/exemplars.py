"""Real training clips that a language model is shown: which ones, and some frames of each as JPEG.

Only clips of the train split that are real are ever drawn. Frames are decoded in a process of its own, which may hang,
crash or run out of memory; PyAV both decodes and writes the JPEGs.
"""

import hashlib
import json
import threading
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ..child import Child, Lost, send_message, serve
from ..errors import LongreelError, ManifestError
from ..manifest import Clip, Manifest
from .clips import Prompt

FRAMES = 8  #: of each clip.
LONGEST_SIDE = 448  #: pixels of a frame.
MEMORY_BYTES = 2 << 30
PATIENCE_SECONDS = 120.0
MAX_PIXELS = 8192 * 4320
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,flv,asf,ogg,gif,nut,ivf,dv,mxf,h264,hevc,m4v"


def draw_exemplars(manifest: Manifest, label: str, profile: int, count: int, seed: int) -> list[Clip]:
    """The clips that a class's ``profile``-th profile is made from: a draw of its own, in a random order.

    A class with fewer real training clips gives all it has. A clip that joins the manifest changes few draws.
    """

    def rank(clip: Clip) -> bytes:
        text = f"{seed}:{label}:{profile}:{clip.clip_id}"
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()

    fit = [clip for clip in manifest.split("train") if clip.source == "real" and label in clip.labels]
    return sorted(fit, key=rank)[:count]


def check_exemplars(manifest: Manifest, prompts: Iterable[Prompt], where: Path) -> None:
    """What a model was shown for a prompt must not be in val or test, nor be generated.

    Raises:
        ManifestError: Naming the first prompt and clip that are.
    """
    barred = {clip.clip_id: clip for clip in manifest.clips if clip.split != "train" or clip.source != "real"}
    for prompt in prompts:
        for clip_id in prompt.origin.get("exemplars", ()):
            if (clip := barred.get(clip_id)) is not None:
                raise ManifestError(
                    f"{where}: {prompt.clip_id!r} was written from {clip_id!r}, which {manifest.path} has as a "
                    f"{clip.source} clip in {clip.split}. Exemplars are real training clips: use another folder for "
                    "this manifest."
                )


class FrameReader:
    """Frames of clips as JPEG files, in a ``with`` block. ``read`` may be called from several threads."""

    def __init__(self, manifest: Manifest, *, frames: int = FRAMES) -> None:
        self.frames = frames
        self._manifest, self._lock = manifest, threading.Lock()
        self._child: Child | None = None

    def __enter__(self) -> "FrameReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def read(self, clip: Clip) -> list[bytes]:
        """JPEG files of evenly spaced frames, in time order.

        Raises:
            LongreelError: When the clip gives none; the text says why.
        """
        assert clip.split == "train" and clip.source == "real", clip.clip_id  # noqa: PT018
        path = str(self._manifest.root / clip.path)
        with self._lock:
            if self._child is None:
                self._child = Child(f"{__package__}.exemplars", str(MEMORY_BYTES))
            try:
                self._child.send(path=path, start=clip.start, end=clip.end, frames=self.frames)
                return self._receive(self._child)
            except Lost as error:
                self._end()
                raise LongreelError(f"{clip.clip_id}: its decoder {error}") from None

    def _receive(self, child: Child) -> list[bytes]:
        message, patience = child.receive(PATIENCE_SECONDS)
        header = json.loads(message)
        if "failed" in header:
            raise LongreelError(header["failed"])
        images = []
        for _ in range(header["images"]):
            image, patience = child.receive(patience)
            images.append(image)
        return images

    def _end(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None


# The child's side.


def answer(connection: Connection, task: dict) -> bool:
    """Send the frames of one clip."""
    from av.error import FFmpegError

    try:
        images = decode_images(task["path"], task["start"], task["end"], task["frames"])
    except (FFmpegError, OSError, ValueError) as error:
        send_message(connection, failed=" ".join(str(error).split()) or type(error).__name__)
        return True
    send_message(connection, images=len(images))
    for image in images:
        connection.send_bytes(image)
    return True


def decode_images(path: str, start: float | None, end: float | None, count: int) -> list[bytes]:
    """JPEG files of ``count`` frames of a video, at the middles of ``count`` equal parts of its span.

    A video with fewer frames gives each of them once.

    Raises:
        OSError, ValueError, av.error.FFmpegError: When there is none.
    """
    import av

    with av.open(path, options={"protocol_whitelist": "file", "format_whitelist": FORMATS}) as container:
        if not container.streams.video:
            raise ValueError("no video stream")
        stream = container.streams.video[0]
        if stream.width * stream.height > MAX_PIXELS:
            raise ValueError(f"frames of {stream.width}x{stream.height} are too large")
        begin = start or 0.0
        offset = float((stream.start_time or 0) * (stream.time_base or 0))
        until = end if end is not None else float(container.duration or 0) / av.time_base
        length = max(0.0, until - begin)  # none where the header names no duration; the first frame is shown then
        wanted = [offset + begin + length * (place + 0.5) / count for place in range(count)]
        chosen = _choose(container, stream, wanted, offset + begin, offset + begin + (length or 1e9))
        if not chosen:
            raise ValueError("no frame in its span")
        return [_write_jpeg(frame) for frame in chosen]


def _choose(container: Any, stream: Any, wanted: list[float], begin: float, until: float) -> list[Any]:
    """The first frame at or behind each wanted time, or else the last one of the span; none twice."""
    from av.error import FFmpegError

    container.seek(max(0, int(begin / stream.time_base)), stream=stream)
    chosen, last, place = [], None, 0
    try:
        for frame in container.decode(stream):
            if frame.time is None or frame.time < begin - 1e-3:
                continue
            if frame.time >= until or place == len(wanted):
                break
            last = frame
            if frame.time >= wanted[place]:
                chosen.append(frame)
                place = sum(time <= frame.time for time in wanted)
    except FFmpegError:
        if last is None:
            raise
    if last is not None and place < len(wanted) and (not chosen or chosen[-1] is not last):
        chosen.append(last)
    return chosen


def _write_jpeg(frame: Any) -> bytes:
    """The frame as a JPEG file, its longer side at most ``LONGEST_SIDE``."""
    import av

    scale = min(1.0, LONGEST_SIDE / max(frame.width, frame.height))
    width, height = max(2, round(frame.width * scale)), max(2, round(frame.height * scale))
    small = frame.reformat(width=width, height=height, format="yuvj420p")
    codec: Any = av.CodecContext.create("mjpeg", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, "yuvj420p"
    codec.time_base = frame.time_base or 1
    codec.options = {"qmin": "3", "qmax": "3"}
    small.pts, small.time_base = 0, codec.time_base
    return b"".join(bytes(packet) for part in (small, None) for packet in codec.encode(part))


if __name__ == "__main__":
    import sys

    serve(answer, int(sys.argv[2]))
