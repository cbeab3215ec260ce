"""Reading one video file: what its header promises, which frames it shows when, and their pixels.

PyAV reads the header and the packet list of every file; decord or PyAV decodes. Runs in the decode workers, so it
imports neither torch nor anything that does. Files are opened by FFmpeg's file protocol alone, and playlists and
other formats that name further files are not among the formats allowed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from .sampling import Sampling, shown_at

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,flv,asf,ogg,gif,nut,ivf,dv,mxf,rm,"
    "h264,hevc,m4v,mjpeg,jpeg_pipe,png_pipe,webp_pipe,y4m,yuv4mpegpipe"
)
DECORD_CODECS = {"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4"}
DECORD_CONTAINERS = ("mov", "matroska", "avi")  #: in MPEG program streams decord repeats and misplaces frames.
DECORD_PIXELS = {"yuv420p", "yuv444p", "gray"}  #: 8 bit; with more, or odd sizes, its colours are not PyAV's.
MAX_PIXELS = 8192 * 4320  #: a frame beyond this is refused before it is decoded.
SEEK_WORTHWHILE = 12  #: frames that a jump to a keyframe must save.
CHUNK = 32  #: frames decoded at a time.


class Undecodable(Exception):
    """This file gives no frames; the text is the ledger's reason."""


@dataclass(frozen=True)
class Video:
    """A file's header and its table of shown frames."""

    path: str
    codec: str
    container: str
    seconds: NDArray[np.float64]  #: begin of each shown frame from the first one on, increasing.
    pts: NDArray[np.int64]  #: the same in stream ticks.
    keyframes: NDArray[np.int64]  #: ticks of the frames at which decoding can begin.
    duration: float  #: seconds that the file promises.
    present: float  #: the part of the promised frames that the file really has.
    steady: bool  #: constant frame rate and no edit list that hides frames.
    plain: bool  #: 8-bit pixels of even width and height.


def open_video(path: str) -> Video:
    """Read header and packet list; no frame is decoded.

    Raises:
        Undecodable: When the file is missing, unreadable, not a video, or too large to decode safely.
    """
    if not Path(path).is_file():
        raise Undecodable("a folder, not a file" if Path(path).is_dir() else "no such file")
    try:
        with _open(path) as container:
            stream = _video_stream(container)
            context = stream.codec_context
            if context.width * context.height > MAX_PIXELS:
                raise Undecodable(f"frames of {context.width}x{context.height} are too large")
            rows, hidden = _read_packets(container, stream)
            if not rows:
                raise Undecodable("no video frames")
            return _tabulate(path, container, stream, rows, hidden)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise Undecodable(_one_line(error)) from error


def _open(path: str) -> "av.container.InputContainer":
    return av.open(path, options={"protocol_whitelist": "file", "format_whitelist": FORMATS})


def _video_stream(container) -> "av.VideoStream":
    if not container.streams.video:
        raise Undecodable("no video stream")
    stream = container.streams.video[0]
    stream.thread_count = 1
    return stream


def _read_packets(container, stream) -> tuple[list[tuple[int, bool]], int]:
    """``(tick, is keyframe)`` of each shown frame in presentation order, and how many an edit list hides."""
    rows, hidden = [], 0
    try:
        for packet in container.demux(stream):
            tick = packet.pts if packet.pts is not None else packet.dts
            if packet.size == 0 or tick is None:
                continue
            if packet.is_discard:
                hidden += 1
            else:
                rows.append((tick, packet.is_keyframe))
    except av.FFmpegError:  # a file cut short: what was read so far is what it has
        pass
    return sorted(rows), hidden


def _tabulate(path: str, container, stream, rows: list[tuple[int, bool]], hidden: int) -> Video:
    pts = np.array([tick for tick, _ in rows], dtype=np.int64)
    pts, first_of = np.unique(pts, return_index=True)
    seconds = (pts - pts[0]) * float(stream.time_base)
    steps = np.diff(pts)
    step = float(np.median(np.diff(seconds))) if len(pts) > 1 else _frame_seconds(stream)
    span = float(seconds[-1]) + step
    if stream.frames:
        present = min(1.0, (len(rows) + hidden) / stream.frames)
    else:
        present = _present(span, _promised_seconds(container, stream), step)
    return Video(
        path=path,
        codec=stream.codec_context.codec.canonical_name,
        container=container.format.name,
        seconds=seconds,
        pts=pts,
        keyframes=pts[[rows[index][1] for index in first_of]],
        duration=span / present,
        present=present,
        steady=hidden == 0 and len(pts) == len(rows) and (len(steps) == 0 or int(steps.max() - steps.min()) <= 1),
        plain=_is_plain(stream.codec_context),
    )


def _is_plain(context) -> bool:
    whole = context.pix_fmt != "yuv420p" or (context.width % 2 == 0 and context.height % 2 == 0)
    return context.pix_fmt in DECORD_PIXELS and whole


def _frame_seconds(stream) -> float:
    return float(1 / stream.average_rate) if stream.average_rate else 0.04


def _promised_seconds(container, stream) -> float:
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else 0.0


def _present(span: float, promised: float, step: float) -> float:
    """For containers without a frame count: sound may outlast the picture a little, a missing tail is longer."""
    return 1.0 if span >= 0.9 * promised - max(1.0, 2 * step) else span / promised


def choose_decoder(video: Video, wanted: str) -> list[str]:
    """The decoders to try, in order. ``auto`` goes by the file's header alone, so the choice is always the same."""
    if wanted != "auto":
        return [wanted]
    known = video.codec in DECORD_CODECS and video.container.startswith(DECORD_CONTAINERS) and video.plain
    return ["decord", "pyav"] if known and video.steady and video.present == 1.0 and _decord_installed() else ["pyav"]


def _decord_installed() -> bool:
    from importlib.util import find_spec

    return find_spec("decord") is not None


@dataclass(frozen=True)
class Wanted:
    """The frames to decode."""

    frames: NDArray[np.int64]  #: indices into the video's table, increasing.
    present: float  #: the part of the wanted moments that lies before the end of a file cut short.


def choose_frames(video: Video, sampling: Sampling, start: float | None, end: float | None) -> Wanted:
    """The frames that the sampling wants of the span.

    Raises:
        Undecodable: When the span lies past the end of the video.
    """
    begin, finish = start or 0.0, min(video.duration, end if end is not None else video.duration)
    if begin >= finish:
        raise Undecodable(f"the span begins at {begin:g} s, the video ends at {video.duration:.3f} s")
    times = sampling.times(begin, finish)
    step = video.duration / max(1, round(len(video.seconds) / video.present))
    there = times <= video.seconds[-1] + 1.5 * step if video.present < 1.0 else np.ones(len(times), dtype=bool)
    if not there.any():
        raise Undecodable(f"the file is cut short before {begin:g} s")
    return Wanted(shown_at(video.seconds, times[there]), float(there.mean()))


@dataclass(frozen=True)
class Chunk:
    """Some frames of a video in time order. Frames that cannot be decoded at all are in no chunk."""

    indices: list[int]  #: into the video's table.
    frames: list[NDArray[np.uint8]]  #: upright RGB, each ``(H, W, 3)``.
    damaged: int = 0  #: how many of them the decoder had to patch up.


def decode_frames(video: Video, decoder: str, wanted: NDArray[np.int64]) -> Iterator[Chunk]:
    """Yield the wanted frames, 32 at a time.

    Raises:
        Undecodable: When the decoder refuses the file.
    """
    return DECODERS[decoder](video, wanted)


def _decode_decord(video: Video, wanted: NDArray[np.int64]) -> Iterator[Chunk]:
    import decord

    try:
        reader = decord.VideoReader(video.path, ctx=decord.cpu(0), num_threads=1)
        if len(reader) != len(video.seconds):
            raise Undecodable(f"decord counts {len(reader)} frames, the file's packets {len(video.seconds)}")
        begins = reader.get_frame_timestamp(np.arange(len(reader)))[:, 0]
        if np.abs(begins - begins[0] - video.seconds).max() > 0.5 / max(1.0, reader.get_avg_fps()):
            raise Undecodable("decord's times are not the file's")
        for first in range(0, len(wanted), CHUNK):
            indices = wanted[first : first + CHUNK].tolist()
            yield Chunk(indices, list(reader.get_batch(indices).asnumpy()))
    except (decord.DECORDError, RuntimeError) as error:
        raise Undecodable(f"decord: {_one_line(error)}") from error


def _decode_pyav(video: Video, wanted: NDArray[np.int64]) -> Iterator[Chunk]:
    index_of = {int(video.pts[index]): int(index) for index in wanted}
    convert = av.video.reformatter.VideoReformatter()
    indices, frames, damaged = [], [], 0
    with _open(video.path) as container:
        for frame in _walk(container, _video_stream(container), video, video.pts[wanted]):
            index = index_of.pop(_tick(frame), None)
            if index is None:
                continue
            indices.append(index)
            frames.append(_upright(convert.reformat(frame, format="rgb24").to_ndarray(), frame.rotation))
            damaged += frame.is_corrupt
            if len(frames) == CHUNK:
                yield Chunk(indices, frames, damaged)
                indices, frames, damaged = [], [], 0
    if frames:
        yield Chunk(indices, frames, damaged)


def _tick(frame: "av.VideoFrame") -> int:
    return frame.pts if frame.pts is not None else frame.dts or 0


def _upright(pixels: NDArray[np.uint8], rotation: int) -> NDArray[np.uint8]:
    """Turn the frame as its display matrix says; ``rotation`` is in degrees, anticlockwise."""
    return np.ascontiguousarray(np.rot90(pixels, rotation // 90)) if rotation else pixels


def _walk(container, stream, video: Video, targets: NDArray[np.int64]) -> Iterator["av.VideoFrame"]:
    """Decode towards the target ticks, jumping to a keyframe where that saves enough, and past damage."""
    remaining = list(targets[::-1])
    position = int(video.pts[0])
    packets = container.demux(stream)
    while remaining:
        jump = _keyframe_ahead(video, position, int(remaining[-1]))
        if jump is not None:
            container.seek(jump, stream=stream, backward=True)
            packets = container.demux(stream)
            position = jump
        packet = next(packets, None)
        if packet is None:
            return
        try:
            decoded = stream.decode(packet)
        except av.FFmpegError:
            decoded = []
        for frame in decoded:
            position = max(position, _tick(frame))
            while remaining and remaining[-1] <= _tick(frame):
                remaining.pop()
            yield frame


def _keyframe_ahead(video: Video, position: int, target: int) -> int | None:
    """The tick to jump to, if a keyframe lies well ahead of the position and not after the target."""
    if not video.container.startswith(("mov", "matroska")):
        return None
    at = np.searchsorted(video.keyframes, target, side="right") - 1
    if at < 0 or video.keyframes[at] <= position:
        return None
    skipped = np.searchsorted(video.pts, video.keyframes[at]) - np.searchsorted(video.pts, position)
    return int(video.keyframes[at]) if skipped > SEEK_WORTHWHILE else None


def _one_line(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:300]


DECODERS: dict[str, Callable[[Video, NDArray[np.int64]], Iterator[Chunk]]] = {
    "decord": _decode_decord,
    "pyav": _decode_pyav,
}
