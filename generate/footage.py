"""What can be seen of a video without any model: whether it is black, stands still, or cannot be decoded at all."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BLACK = 8.0  #: mean brightness below which a clip is black, of 255.
STATIC = 0.5  #: mean absolute difference of successive frames below which a clip stands still, of 255.
FRAMES = 16  #: decoded from the beginning, where no sidecar says more.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"


@dataclass(frozen=True)
class Footage:
    """Numbers of a video; ``None`` is not known."""

    finite: bool | None = None  #: whether the pixels were numbers before they were encoded.
    brightness: float | None = None  #: mean, from 0 to 255.
    difference: float | None = None  #: mean absolute difference of successive frames, from 0 to 255.
    fault: str | None = None  #: why it could not be decoded.

    def columns(self) -> dict[str, object]:
        """What is known, by its column of the table of scores."""
        found = {
            "finite": self.finite,
            "brightness": self.brightness,
            "difference": self.difference,
            "black": None if self.brightness is None else self.brightness < BLACK,
            "static": None if self.difference is None else self.difference < STATIC,
            "decodes": self.fault is None,
        }
        return {name: value for name, value in found.items() if value is not None}


def look_at(video: Path) -> Footage | None:
    """What the sidecar of a video that is there says, or else its first 16 frames; ``None`` without a video.

    A video of another size than its sidecar has is decoded: it is broken, or another one.
    """
    if not video.exists():
        return None
    try:
        return _read_checks(video.with_suffix(".json"), video.stat().st_size)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # none, or none of ours
        return _decode(video)


def _read_checks(sidecar: Path, size: int) -> Footage:
    document = json.loads(sidecar.read_text(encoding="utf-8"))
    if document.get("bytes", size) != size:
        raise ValueError("another video's")
    checks = document["checks"]
    return Footage(bool(checks["finite"]), _number(checks["brightness"]), _number(checks["difference"]))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _decode(video: Path) -> Footage:
    import av
    from av.error import FFmpegError

    frames = []
    try:
        with av.open(str(video), options={"protocol_whitelist": "file", "format_whitelist": FORMATS}) as container:
            for frame in container.decode(video=0):
                frames.append(frame.to_ndarray(format="rgb24").astype(np.float32))  # (H, W, 3)
                if len(frames) == FRAMES:
                    break
        if not frames:
            raise ValueError("no frames")
        pixels = np.stack(frames)  # (T, H, W, 3)
    except (FFmpegError, OSError, ValueError, IndexError) as error:
        return Footage(fault=" ".join(str(error).split())[:200])
    difference = float(np.abs(np.diff(pixels, axis=0)).mean()) if len(pixels) > 1 else None
    return Footage(brightness=float(pixels.mean()), difference=difference)
