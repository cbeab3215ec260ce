"""A generator without weights: the demo's motions, drawn as glowing outlines that look nothing like the demo's videos.

It is what a text-to-video model is to real videos: the motion of a class is right, the look is another. Outlined
polygons with a trail, on a dark gradient, in frames of one size and rate, seen by a camera that trembles. It draws the
motion that a prompt's label names; the prompt's words change nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import LongreelError
from .clips import Prompt
from .making import Made, check_frames
from .motions import CLASSES, TURN, Floats

VERSION = 1  #: raised when the same seed would give other frames.
CORNERS = {"triangle": 3, "pentagon": 5, "hexagon": 6, "octagon": 8}
STARS = {"star": 5, "cog": 9}  #: points; between them the outline goes in to ``DENT`` of the radius.
DENT = 0.55
TRAIL = 0.45  #: of its brightness that an outline keeps from frame to frame.


@dataclass(frozen=True)
class Procedural:
    """Draws clips; a ``Maker``."""

    frames: int = 33
    height: int = 128
    width: int = 160
    fps: float = 16.0
    licence: str | None = "Apache-2.0"
    batch: int = 1

    def __post_init__(self) -> None:
        if self.height % 2 or self.width % 2 or not 32 <= min(self.height, self.width):
            raise LongreelError(
                f"frames of {self.height}x{self.width}: procedural clips need even sides of 32 pixels or more."
            )
        if self.frames < 2 or self.fps <= 0 or self.batch != 1:
            raise LongreelError(
                f"{self.frames} frames, {self.fps:g} a second, batch {self.batch}: procedural clips need 2 frames or "
                f"more, a rate over 0, and batch 1."
            )

    @property
    def settings(self) -> dict:
        """All that decides a clip beside its label and seed."""
        size = {"frames": self.frames, "height": self.height, "width": self.width, "fps": self.fps, "batch": 1}
        return {"model": "procedural", "weights": str(VERSION), **size}

    def prepare(self) -> dict:
        """There is nothing to load."""
        return {"pipeline": "procedural", "device": "cpu", "dtype": "float32"}

    def make(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Made]:
        """Draw the clips.

        Raises:
            LongreelError: When a label has no motion.
        """
        return [self._draw(prompt.label, seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    def save_memory(self) -> str | None:
        """It needs next to none."""
        return None

    def _draw(self, label: str, seed: int) -> Made:
        if label not in CLASSES:
            raise LongreelError(
                f"the procedural generator knows no motion {label[:80]!r}. There are: {', '.join(CLASSES)}."
            )
        rng = np.random.default_rng(seed)
        frames = np.stack(list(_draw_frames(rng, label, self.frames, self.height, self.width)))
        return Made(frames, self.fps, check_frames(frames / np.float32(255)))


def _draw_frames(rng: np.random.Generator, label: str, count: int, height: int, width: int) -> Iterator[NDArray]:
    """Yield frames ``(H, W, 3)`` uint8."""
    side = min(height, width)
    ground = _draw_ground(rng, height, width)
    shape = str(rng.choice([*CORNERS, *STARS]))
    outline, colour = _outline(shape), _bright(rng)  # (P,) complex, (3,)
    track = _place(rng, label, count, height / side, width / side)  # (T, 3)
    jitter = 0.006 * rng.standard_normal((count, 2))
    spin, begin = rng.normal(0, 1.5), rng.uniform(0, TURN)
    glow = np.zeros((height, width), np.float32)
    thickness = rng.uniform(0.7, 1.3)
    for index, (x, y, radius) in enumerate(track):
        right, down = jitter[index]
        turned = outline * np.exp(1j * (begin + spin * index / count)) * radius + (x + right) + 1j * (y + down)
        glow *= TRAIL
        _stroke(glow, turned * side, thickness)
        frame = ground + glow[..., None] * (colour - ground)
        yield np.clip(frame + 0.5, 0, 255).astype(np.uint8)


def _place(rng: np.random.Generator, label: str, count: int, height: float, width: float) -> Floats:
    """x, y and radius in shorter frame sides of each frame, ``(T, 3)``; drawn alike for all labels."""
    reach, size, tilt = rng.uniform(0.22, 0.32), rng.uniform(0.09, 0.15), rng.normal(0, 0.12)
    x, y, scale = CLASSES[label](np.linspace(0, 1, count), rng.uniform(0.9, 1.6), rng.uniform())
    margin = reach + size
    left, top = (margin + rng.uniform(0.2, 0.8) * (room - 2 * margin) for room in (width, height))
    cos, sin = np.cos(tilt), np.sin(tilt)
    columns = left + reach * (x * cos - y * sin), top + reach * (x * sin + y * cos), size * scale
    return np.stack(np.broadcast_arrays(*columns), axis=1)


def _draw_ground(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """A dark gradient between two colours, in a random direction, brighter or darker to the middle: ``(H, W, 3)``."""
    angle, bend = rng.uniform(0, TURN), rng.uniform(-0.4, 0.4)
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in (height, width))
    slope = 0.5 + 0.35 * (np.cos(angle) * x + np.sin(angle) * y[:, None]) + bend * x**2 * y[:, None] ** 2
    low, high = rng.uniform(5, 70, (2, 3)).astype(np.float32)
    return (low + slope[..., None] * (high - low)).astype(np.float32)


def _bright(rng: np.random.Generator) -> NDArray[np.float32]:
    """A saturated colour: one channel full, one nearly out."""
    return rng.permutation([255, rng.uniform(80, 255), rng.uniform(0, 60)]).astype(np.float32)


def _outline(shape: str) -> NDArray[np.complexfloating]:
    """The corners of a shape around 0, at distance 1 or less: ``(P,)``, x + i y."""
    if shape in CORNERS:
        return np.exp(1j * TURN * np.arange(CORNERS[shape]) / CORNERS[shape])
    points = 2 * STARS[shape]
    return np.exp(1j * TURN * np.arange(points) / points) * np.where(np.arange(points) % 2, DENT, 1)


def _stroke(glow: NDArray[np.float32], corners: NDArray[np.complexfloating], thickness: float) -> None:
    """Draw a closed line into ``glow`` in place, its edge one pixel soft; only the pixels around it are touched."""
    pad = thickness + 2
    left, top = max(0, int(corners.real.min() - pad)), max(0, int(corners.imag.min() - pad))
    right, bottom = (max(0, int(part.max() + pad) + 1) for part in (corners.real, corners.imag))
    window = glow[top:bottom, left:right]
    y, x = (np.arange(n, dtype=np.float32) for n in window.shape)
    points = ((x + left) + 1j * (y[:, None] + top)).astype(np.complex64)  # (h, w)
    begin, along = corners.astype(np.complex64), (np.roll(corners, -1) - corners).astype(np.complex64)  # (P,)
    offset = points[..., None] - begin  # (h, w, P)
    share = np.clip((offset * along.conj()).real / np.abs(along) ** 2, 0, 1)
    distance = np.abs(offset - share * along).min(axis=-1)  # (h, w) pixels to the nearest edge
    np.maximum(window, np.clip(thickness + 0.5 - distance, 0, 1), out=window)
