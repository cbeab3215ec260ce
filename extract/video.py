"""Reading one video file: what its header promises, which frames it shows when, and their pixels.

PyAV reads the header and the packet list of every file; decord or PyAV decodes. Runs in the decode workers, so it
imports neither torch nor anything that does. Files are opened by FFmpeg's file protocol alone, and playlists and
other formats that name further files are not among the formats allowed.
"""

import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass, field

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream
from numpy.typing import NDArray

from .sampling import Sampling, nearest, shown_at

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,flv,asf,ogg,gif,nut,ivf,dv,mxf,rm,"
    "h264,hevc,m4v,mjpeg,jpeg_pipe,png_pipe,webp_pipe,y4m,yuv4mpegpipe"
)
PLAIN_PIXELS = {"yuv420p", "yuv444p", "gray"}  #: 8 bit; with more, or odd sizes, decord's colours are not PyAV's.
MAX_PIXELS = 8192 * 4320  #: a frame beyond this is refused before it is decoded.


class Undecodable(Exception):
    """This file gives no frames; the text is the ledger's reason."""


@dataclass(frozen=True)
class Video:
    """A file's header and its table of shown frames."""

    path: str
    width: int
    height: int
    codec: str
    container: str
    seconds: NDArray[np.float64]  #: begin of each shown frame from the first one on, increasing.
    pts: NDArray[np.int64]  #: the same in stream ticks.
    keyframes: NDArray[np.int64]  #: ticks of the frames at which decoding can begin.
    duration: float  #: seconds that the file promises.
    present: float  #: the part of the promised frames that the file really has.
    steady: bool  #: constant frame rate and no edit list that hides frames.
    closed: bool  #: no frame needs one from before the last keyframe; decord jumps to wrong frames otherwise.
    reordered: bool  #: stored in another order than shown (B-frames): there are frames that no other needs.
    plain: bool  #: 8-bit pixels of even width and height.
    file: InputContainer = field(repr=False)  #: open, left wherever the last reader stopped.


def open_video(path: str) -> Video:
    """Read header and packet list; no frame is decoded. Close ``file`` after use.

    Raises:
        Undecodable: When the file is missing, unreadable, not a video, or too large to decode safely.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise Undecodable("no such file") from None
    except (OSError, ValueError) as error:  # no permission, or a name longer than any file's
        raise Undecodable(one_line(error)) from error
    if not stat.S_ISREG(mode):
        raise Undecodable("a folder, not a file" if stat.S_ISDIR(mode) else "not a file")
    try:
        with ExitStack() as opened:
            container = opened.enter_context(open_container(path))
            stream = video_stream(container)
            video = _tabulate(path, container, stream, _read_packets(container, stream))
            opened.pop_all()
            return video
    except MemoryError:  # FFmpeg's is an FFmpegError too
        raise
    except (FFmpegError, OSError, ValueError) as error:
        raise Undecodable(one_line(error)) from error


def open_container(path: str) -> InputContainer:
    """Open a file with the protocol and the formats that are allowed; each stream is decoded by one thread."""
    container = av.open(path, options={"protocol_whitelist": "file", "format_whitelist": FORMATS})
    for stream in container.streams.video:
        stream.thread_count = 1
    return container


def video_stream(container: InputContainer) -> VideoStream:
    """The first video stream.

    Raises:
        Undecodable: When there is none, or its frames are too large to decode safely.
    """
    if not container.streams.video:
        raise Undecodable("no video stream")
    stream = container.streams.video[0]
    if stream.width * stream.height > MAX_PIXELS:
        raise Undecodable(f"frames of {stream.width}x{stream.height} are too large")
    return stream


@dataclass(frozen=True)
class _Packets:
    """What a file's packets say; the fields without a note are ``Video``'s."""

    shown: list[tuple[int, bool]]  #: tick of each shown frame, in presentation order, and whether it is a keyframe.
    hidden: int  #: frames that an edit list hides.
    closed: bool
    reordered: bool


def _read_packets(container: InputContainer, stream: VideoStream) -> _Packets:
    shown, hidden, closed, reordered = [], 0, True, False
    key = latest = None
    try:
        for packet in container.demux(stream):
            tick = packet.pts if packet.pts is not None else packet.dts
            if packet.size == 0 or tick is None:
                continue
            if packet.is_keyframe:
                key = tick
            closed = closed and (key is None or tick >= key)
            reordered = reordered or (latest is not None and tick < latest)
            latest = tick
            if packet.is_discard:
                hidden += 1
            else:
                shown.append((tick, packet.is_keyframe))
    except FFmpegError:  # a file cut short: what was read so far is what it has
        pass
    if not shown:
        raise Undecodable("no video frames")
    return _Packets(sorted(shown), hidden, closed, reordered)


def _tabulate(path: str, container: InputContainer, stream, packets: _Packets) -> Video:
    context, rows, hidden = stream.codec_context, packets.shown, packets.hidden
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
        width=context.width,
        height=context.height,
        codec=context.codec.canonical_name,
        container=container.format.name,
        seconds=seconds,
        pts=pts,
        keyframes=pts[[rows[index][1] for index in first_of]],
        duration=span / present,
        present=present,
        steady=hidden == 0 and len(pts) == len(rows) and (len(steps) == 0 or int(steps.max() - steps.min()) <= 1),
        closed=packets.closed,
        reordered=packets.reordered,
        plain=_is_plain(context),
        file=container,
    )


def _is_plain(context) -> bool:
    whole = context.pix_fmt != "yuv420p" or (context.width % 2 == 0 and context.height % 2 == 0)
    return context.pix_fmt in PLAIN_PIXELS and whole


def _frame_seconds(stream) -> float:
    return float(1 / stream.average_rate) if stream.average_rate else 0.04


def _promised_seconds(container: InputContainer, stream) -> float:
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else 0.0


def _present(span: float, promised: float, step: float) -> float:
    """For containers without a frame count: sound may outlast the picture a little, a missing tail is longer."""
    return 1.0 if span >= 0.9 * promised - max(1.0, 2 * step) else span / promised


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
    frames = shown_at(video.seconds, times[there])
    if sampling.keyframes:
        whole = np.searchsorted(video.pts, video.keyframes)
        within = whole[(video.seconds[whole] >= begin) & (video.seconds[whole] < finish)]
        if len(within):  # a short span may hold none
            frames = within[nearest(video.seconds[within], times[there])]
    return Wanted(frames, float(there.mean()))


def one_line(error: BaseException) -> str:
    """An FFmpeg error as a reason for the ledger."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:300]
