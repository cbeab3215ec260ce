"""How a thing moves, by the demo's classes: what its real videos and the procedural generator have in common."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Pose = tuple[Floats | float, Floats | float, Floats | float]  #: x to the right, y downwards (in [-1, 1]), scale.

TURN = 2 * np.pi

#: Class -> path: time t in [0, 1], cycles c and phase p -> pose. The first class is the richest of the long tail; the
#: last ones are mirror images of richer ones, which is what a biased head takes them for.
CLASSES: dict[str, Callable[[Floats, float, float], Pose]] = {
    "slide-right": lambda t, c, p: (2 * t - 1, 0, 1),
    "orbit-clockwise": lambda t, c, p: (np.cos(TURN * (p + c * t)), np.sin(TURN * (p + c * t)), 1),  # y points down
    "zigzag": lambda t, c, p: (1 - 2 * t, 3.2 * np.abs((2 * c * t + p) % 1 - 0.5) - 0.8, 1),
    "bounce": lambda t, c, p: (0, 1 - 2 * np.abs(np.sin(TURN * (p + c * t))), 1),
    "fall": lambda t, c, p: (0, 2 * t - 1, 1),
    "grow": lambda t, c, p: (0, 0, 1.8 ** (2 * t - 1)),
    "slide-left": lambda t, c, p: (1 - 2 * t, 0, 1),
    "rise": lambda t, c, p: (0, 1 - 2 * t, 1),
    "orbit-anticlockwise": lambda t, c, p: (np.cos(TURN * (p - c * t)), np.sin(TURN * (p - c * t)), 1),
    "shrink": lambda t, c, p: (0, 0, 1.8 ** (1 - 2 * t)),
}
