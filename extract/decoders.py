"""From a video's wanted frames to their pixels, by decord or PyAV. Runs in the decode workers, without torch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from .video import Undecodable, Video, one_line, open_container, video_stream

CODECS = {"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4"}
INDEXED = ("mov", "matroska")  #: containers in which a jump lands where it was aimed.
FIRST_TICK = -(2**40)  #: before every packet.
CONTAINERS = ("mov", "matroska", "avi")  #: in MPEG program streams decord repeats and misplaces frames.
DECORD_SECONDS = 600.0  #: decord's memory grows with what it has decoded, by half a gigabyte an hour of 720p.
SEEK_WORTHWHILE = 12  #: frames that a jump to a keyframe must save.
GROUP_BYTES = 64 << 20  #: decord gives frames in groups of about this size.


def choose_decoder(video: Video, wanted: str) -> list[str]:
    """The decoders to try, in order. ``auto`` goes by the file's header alone, so the choice is always the same.

    decord is one of them for what it decodes right: 8-bit H.264, HEVC and MPEG of constant rate without an edit list,
    of at most ten minutes. It is first unless the file has B-frames, as far as its packets tell (AVI's do not): PyAV
    leaves out those that no wanted frame needs.
    """
    if wanted != "auto":
        return [wanted]
    known = video.codec in CODECS and video.container.startswith(CONTAINERS) and video.plain
    whole = video.steady and video.closed and video.present == 1.0
    short = video.duration <= DECORD_SECONDS
    if not (known and whole and short and find_spec("decord") is not None):
        return ["pyav"]
    return ["pyav", "decord"] if video.reordered else ["decord", "pyav"]


@dataclass(frozen=True)
class Frame:
    """One decoded frame, upright."""

    index: int  #: in the video's table.
    pixels: NDArray[np.uint8]  #: RGB, ``(H, W, 3)``.
    damaged: bool = False  #: the decoder had to patch it up.


def decode_frames(video: Video, decoder: str, wanted: NDArray[np.int64]) -> Iterator[Frame]:
    """Yield the wanted frames in time order; those that cannot be decoded are left out.

    Raises:
        Undecodable: When the decoder refuses the file.
    """
    return DECODERS[decoder](video, wanted)


def _decode_decord(video: Video, wanted: NDArray[np.int64]) -> Iterator[Frame]:
    try:
        import decord
    except ImportError:
        raise Undecodable("decord is not installed (it has no package for this machine); use --decoder pyav") from None
    try:
        reader = decord.VideoReader(video.path, ctx=decord.cpu(0), num_threads=1)
        if len(reader) != len(video.seconds):
            raise Undecodable(f"decord counts {len(reader)} frames, the file's packets {len(video.seconds)}")
        begins = reader.get_frame_timestamp(np.arange(len(reader)))[:, 0]
        if np.abs(begins - begins[0] - video.seconds).max() > 0.5 / max(1.0, reader.get_avg_fps()):
            raise Undecodable("decord's times are not the file's")
        if not video.closed:
            raise Undecodable("decord jumps to wrong frames where groups of pictures are open; use --decoder pyav")
        size = max(1, GROUP_BYTES // (3 * video.width * video.height))
        for group in np.split(wanted, range(size, len(wanted), size)):
            pixels = reader.get_batch(group.tolist()).asnumpy()
            yield from (Frame(int(index), frame) for index, frame in zip(group, pixels, strict=True))
    except (decord.DECORDError, RuntimeError) as error:
        raise Undecodable(f"decord: {one_line(error)}") from error


def _decode_pyav(video: Video, wanted: NDArray[np.int64]) -> Iterator[Frame]:
    index_of = {int(video.pts[index]): int(index) for index in wanted}
    reformat = VideoReformatter().reformat
    try:
        with _from_the_start(video) as container:
            for frame in _walk(container, video, video.pts[wanted], jumps=container is video.file):
                index = index_of.pop(_tick(frame), None)
                if index is not None:
                    pixels = np.asarray(reformat(frame, format="rgb24").to_ndarray(), dtype=np.uint8)
                    yield Frame(index, _upright(pixels, frame.rotation), frame.is_corrupt)
    except MemoryError:
        raise
    except (FFmpegError, OSError, ValueError) as error:
        raise Undecodable(f"pyav: {one_line(error)}") from error


@contextmanager
def _from_the_start(video: Video) -> Iterator[InputContainer]:
    """The file before its first packet. Opened anew where it cannot be rewound: that costs as much as ten frames."""
    if _rewind(video):
        yield video.file
    else:
        with open_container(video.path) as container:
            yield container


def _rewind(video: Video) -> bool:
    if not video.container.startswith(INDEXED):
        return False
    try:
        video.file.seek(FIRST_TICK, stream=video_stream(video.file), backward=True)
    except FFmpegError:  # its index is empty
        return False
    return True


def _tick(frame: VideoFrame) -> int:
    return frame.pts if frame.pts is not None else frame.dts or 0


def _upright(pixels: NDArray[np.uint8], rotation: int) -> NDArray[np.uint8]:
    """Turn the frame as its display matrix says; ``rotation`` is in degrees, anticlockwise."""
    return np.ascontiguousarray(np.rot90(pixels, rotation // 90)) if rotation else pixels


def _walk(container: InputContainer, video: Video, targets: NDArray[np.int64], jumps: bool) -> Iterator[VideoFrame]:
    """Decode towards the target ticks, past damage; with ``jumps`` to a keyframe where that saves enough."""
    stream = video_stream(container)
    remaining = list(targets[::-1])
    # AVI stores no presentation times and FFmpeg guesses wrongly for H.264 with B-frames; the order is right.
    in_order = iter(video.pts.tolist()) if (video.container, video.codec) == ("avi", "h264") else None
    wanted = set(targets.tolist())
    position, target = int(video.pts[0]), None
    packets = container.demux(stream)
    while remaining:
        if target != remaining[-1]:
            target = remaining[-1]
            jump = _keyframe_ahead(video, position, int(target)) if jumps else None
            if jump is not None:
                container.seek(jump, stream=stream, backward=True)
                packets = container.demux(stream)
                position = jump
        try:
            packet = next(packets, None)
        except FFmpegError:  # the file is cut short here
            packet = None
        # A frame that no other needs is decoded only if it is wanted: that changes no pixel of the others.
        unwanted = packet is not None and packet.pts is not None and in_order is None and packet.pts not in wanted
        stream.codec_context.skip_frame = "NONREF" if unwanted else "DEFAULT"
        for frame in _decode_packet(stream, packet):
            if in_order is not None:
                frame.pts = next(in_order, _tick(frame))
            position = max(position, _tick(frame))
            while remaining and remaining[-1] <= _tick(frame):
                remaining.pop()
            yield frame
        if packet is None:
            return


def _decode_packet(stream, packet) -> list[VideoFrame]:
    """The frames that a packet completes; ``None`` gives those that the decoder still holds. Damage gives none."""
    try:
        return stream.decode(packet)
    except MemoryError:  # FFmpeg's is an FFmpegError too
        raise
    except (FFmpegError, EOFError):
        return []


def _keyframe_ahead(video: Video, position: int, target: int) -> int | None:
    """The tick to jump to, if a keyframe lies well ahead of the position and not after the target."""
    at = np.searchsorted(video.keyframes, target, side="right") - 1
    if at < 0 or video.keyframes[at] <= position:
        return None
    skipped = np.searchsorted(video.pts, video.keyframes[at]) - np.searchsorted(video.pts, position)
    return int(video.keyframes[at]) if skipped > SEEK_WORTHWHILE else None


#: decoder -> how it yields frames.
DECODERS: dict[str, Callable[[Video, NDArray[np.int64]], Iterator[Frame]]] = {
    "decord": _decode_decord,
    "pyav": _decode_pyav,
}
