"""What makes clips of prompts, and what it hands back."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .clips import Prompt


@dataclass(frozen=True)
class Made:
    """The frames of one clip, and what is known about them."""

    frames: NDArray[np.uint8]  #: ``(T, H, W, 3)`` RGB.
    fps: float
    checks: dict  #: as ``check_frames`` gives them.
    facts: dict = field(default_factory=dict)  #: of this clip's making, for its sidecar.


class Maker(Protocol):
    """A text-to-video model with all that decides how it makes clips."""

    @property
    def settings(self) -> dict:
        """All that decides a clip's frames beside its prompt and its seed; clips of a folder have the same ones."""
        ...

    @property
    def licence(self) -> str | None: ...

    @property
    def batch(self) -> int:
        """Clips of one call."""
        ...

    def prepare(self) -> dict:
        """Load what is needed, once; what the sidecars say about it.

        Raises:
            LongreelError: When it cannot make clips at all.
        """
        ...

    def make(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Made]:
        """One clip for each prompt.

        Raises:
            MemoryError: When memory is out, a GPU's too: fewer clips at once, or ``save_memory``, may help.
            EnvironmentFault: When no later clip can be made either. Anything else is a fault of these clips.
        """
        ...

    def save_memory(self) -> str | None:
        """Take the next step that saves memory, and say which; ``None`` when there is none left."""
        ...


def check_frames(frames: NDArray[np.floating]) -> dict:
    """Whether a clip is plainly broken: figures to be looked at, never a reason to drop it.

    Args:
        frames: ``(T, H, W, 3)`` in [0, 1], as they left the model.

    Returns:
        ``finite``: every number is; ``brightness``: the mean grey level, 0 to 255; ``difference``: the mean absolute
        difference of neighbouring frames in grey levels, 0 for a still clip. What is not finite counts as 0.
    """
    finite = bool(np.isfinite(frames).all())
    clean = frames if finite else np.nan_to_num(frames, nan=0.0, posinf=0.0, neginf=0.0)
    changes = [float(np.abs(after - before).mean()) for before, after in pairwise(clean)]
    difference = sum(changes) / len(changes) if changes else 0.0
    return {
        "finite": finite,
        "brightness": round(255 * float(clean.mean()), 3),
        "difference": round(255 * difference, 3),
    }
