"""Which moments of a clip become frames: asked for in seconds, never in frame numbers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import LongreelError


@dataclass(frozen=True)
class Sampling:
    """Either ``fps`` frames a second, or ``frames`` evenly spaced ones. Exactly one of the two is given.

    With ``at_most``, a clip that has more moments by its ``fps`` keeps that many of them, evenly spaced.

    With ``keyframes``, each wanted moment is moved to the nearest frame that is stored whole, and each such frame is
    taken once: little needs to be decoded where samples are seconds apart, and clips with few keyframes give few rows.
    """

    fps: float | None = None
    frames: int | None = None
    keyframes: bool = False
    at_most: int | None = None

    def __post_init__(self) -> None:
        if self.at_most is not None and (self.fps is None or self.at_most < 1):
            raise LongreelError(f"--max-frames {self.at_most} goes with --fps, and must be above 0.")
        if (self.fps is None) == (self.frames is None):
            raise LongreelError("give either --fps or --frames, not both.")
        value = self.fps if self.fps is not None else self.frames or 0
        if not (value > 0 and (self.fps is None or self.fps <= 1000)):  # "not", so that nan is refused too
            raise LongreelError(f"sampling must be above 0 (and at most 1000 frames a second), got {value}.")

    def __str__(self) -> str:
        density = f"{self.fps:.12g} fps" if self.fps is not None else f"{self.frames} frames"
        density += "" if self.at_most is None else f", at most {self.at_most} frames"
        return f"{density}, at keyframes" if self.keyframes else density

    def times(self, start: float, end: float) -> NDArray[np.float64]:
        """The wanted moments of the span ``[start, end)``, in seconds, increasing.

        By ``fps``: ``start + k / fps``; where that is more than ``at_most``, the one in the middle of each of that many
        equal runs of them. By ``frames``: the middles of that many equal segments.
        """
        span = end - start
        if self.fps is not None:
            count = max(1, int(np.ceil(span * self.fps - 1e-6)))
            kept = np.arange(count)
            if self.at_most is not None and count > self.at_most:
                kept = (2 * np.arange(self.at_most) + 1) * count // (2 * self.at_most)
            return start + kept / self.fps
        assert self.frames is not None
        return start + (np.arange(self.frames) + 0.5) * span / self.frames


def shown_at(seconds: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.int64]:
    """The frame that a player shows at each time: the last one that has begun.

    Args:
        seconds: Begin of every frame, ``(n,)``, increasing.
        times: Wanted moments, increasing.

    Returns:
        Indices into ``seconds``, increasing, each once; a moment before the first frame gives the first.
    """
    last = np.searchsorted(seconds, times + 1e-6, side="right") - 1
    return np.unique(np.maximum(last, 0))


def nearest(moments: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.int64]:
    """Of some moments, increasing, those that are nearest to the wanted times: indices, increasing, each once."""
    between = (moments[1:] + moments[:-1]) / 2
    return np.unique(np.searchsorted(between, times, side="right"))
