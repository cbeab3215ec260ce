"""From a decoded frame to what a backbone sees: resize and crop, in one place, the same for every decoder.

numpy only, since it runs in the decode workers. Normalising is the backbone's first layer (it costs nothing there).
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..errors import LongreelError


def _triangle(x: NDArray) -> NDArray:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _cubic(x: NDArray) -> NDArray:
    """Keys' cubic convolution kernel with a = -1/2 (IEEE Trans. ASSP 1981, eq. 15)."""
    x = np.abs(x)
    inner = 1.5 * x**3 - 2.5 * x**2 + 1.0
    outer = -0.5 * x**3 + 2.5 * x**2 - 4.0 * x + 2.0
    return np.where(x < 1.0, inner, np.where(x < 2.0, outer, 0.0))


Band = tuple[slice, NDArray[np.float32]]  #: a part of the line, ``[a, b)``, and its weights ``(8 * channels, b - a)``.
BAND_PIXELS = 8

#: kernel and its half width in output pixels.
FILTERS = {"bilinear": (_triangle, 1.0), "bicubic": (_cubic, 2.0)}


@dataclass(frozen=True)
class Preprocessing:
    """The geometry a backbone asks for: ``(height, width)``, reached by one antialiased resize and a centre crop.

    Without ``short_side`` the whole frame is squashed to the size. With it, the frame's shorter side becomes
    ``short_side``, the longer one follows, and the centre is cut out.
    """

    height: int
    width: int
    short_side: int | None = None
    filter: str = "bilinear"

    def __str__(self) -> str:
        if self.short_side is None:
            return f"{self.filter} to {self.height}x{self.width}"
        return f"{self.filter} to short side {self.short_side}, centre {self.height}x{self.width}"

    def resized(self, short_side: int | None, crop: int | None) -> "Preprocessing":
        """The same with another short side, or another square to cut out, in pixels; ``None`` leaves its own.

        Raises:
            LongreelError: When the square does not fit the short side, or there is none to cut from.
        """
        if short_side is None and crop is None:
            return self
        short = self.short_side if short_side is None else short_side
        height, width = (self.height, self.width) if crop is None else (crop, crop)
        if short is None:
            raise LongreelError(
                f"the model squashes whole frames to {height}x{width}. Give --short-side too, to cut out their centre."
            )
        if not 0 < min(height, width) <= max(height, width) <= short:
            raise LongreelError(
                f"a centre of {height}x{width} cannot be cut out of frames whose shorter side is {short}. "
                f"Give a larger --short-side, or a smaller --crop."
            )
        return replace(self, height=height, width=width, short_side=short)

    def apply(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize and crop one RGB frame, ``(H, W, 3)`` -> ``(height, width, 3)``."""
        height, width = frame.shape[:2]
        full_height, full_width = self._resized(height, width)
        down = _bands(height, full_height, self.height, self.filter)
        across = _bands(width, full_width, self.width, self.filter, channels=3)
        lines = frame.reshape(height, width * 3).astype(np.float32)
        rows = np.concatenate([strip @ lines[used] for used, strip in down])  # (height, W * 3)
        image = np.concatenate([rows[:, used] @ strip.T for used, strip in across], axis=1)  # (height, width * 3)
        return np.clip(np.rint(image), 0, 255).astype(np.uint8).reshape(self.height, self.width, 3)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """The size before the crop; never smaller than the crop."""
        if self.short_side is None:
            return self.height, self.width
        short = min(height, width)
        resized = (self.short_side * height // short, self.short_side * width // short)
        return max(resized[0], self.height), max(resized[1], self.width)


@lru_cache(maxsize=64)
def _bands(size: int, resized: int, cropped: int, filter_name: str, channels: int = 1) -> list[Band]:
    """The matrix that resizes a line of ``size`` pixels to ``resized`` and keeps the ``cropped`` in the middle.

    The kernel is widened by the reduction factor (antialiasing), as Pillow does. The matrix is zero but for a band
    along its diagonal, so it comes as strips of a few pixels, each with the part of the line that it needs. With
    ``channels`` it takes lines of interleaved channels, as frames hold them: no copy has to bring them apart.
    """
    kernel, half_width = FILTERS[filter_name]
    scale = size / resized
    stretch = max(scale, 1.0)
    first = (resized - cropped) // 2
    centres = (np.arange(first, first + cropped) + 0.5) * scale  # (cropped,)
    distance = np.arange(size) + 0.5 - centres[:, None]  # (cropped, size)
    weights = np.where(np.abs(distance) < half_width * stretch, kernel(distance / stretch), 0.0)
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    bands = []
    for strip in np.split(weights, range(BAND_PIXELS, cropped, BAND_PIXELS)):
        used = np.flatnonzero(strip.any(axis=0))
        begin, end = int(used[0]), int(used[-1]) + 1
        interleaved = np.kron(strip[:, begin:end], np.eye(channels, dtype=np.float32))
        bands.append((slice(begin * channels, end * channels), interleaved))
    return bands
