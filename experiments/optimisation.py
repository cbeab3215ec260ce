"""How a head is trained: its settings, the optimisers and the schedules of the learning rate."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import LongreelError, unknown
from .arithmetic import PRECISIONS
from .metrics import evaluate_scores, mean_average_precision
from .precision import Bools

#: what the epoch is selected by -> how it comes from scores on val ``(N, C)`` and targets; higher is better.
SELECTIONS: dict[str, Callable[[NDArray, Bools], float]] = {
    "map": lambda scores, targets: mean_average_precision(scores, targets, torch.get_num_threads()),
    "class-average": lambda scores, targets: evaluate_scores(scores, targets).overall.class_average,
    "acc1": lambda scores, targets: evaluate_scores(scores, targets).overall.acc1,
}

MOST = 2**31  #: clips, frames and epochs stay below it.

OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


@dataclass(frozen=True)
class FitSettings:
    """How a head is trained."""

    epochs: int = 30
    batch_size: int = 128
    optimiser: str = "adamw"
    learning_rate: float = 3e-4
    weight_decay: float = 1e-2
    schedule: str = "cosine"  #: or ``constant``, or ``steps:30,60``: a tenth behind each so many epochs.
    precision: str = "float32"  #: of products in training, or ``bfloat16``.
    compiled: bool = False  #: whether steps run through ``torch.compile``: other bits, and fewer launches.
    clip_norm: float | None = None  #: largest L2 norm of the gradients.
    frames: int | None = None  #: rows drawn of each clip and step; all of them if ``None``.
    test_frames: int | None = None  #: rows spread evenly over a clip that is scored; all of them if ``None``.
    select: str = "map"
    validate_every: int = 1  #: epochs from one look at val to the next; behind the last one there always is one.
    seed: int = 0
    checkpoint_seconds: float = 10.0  #: an interrupted training repeats about this much, or 20 times what saving takes.

    def __post_init__(self) -> None:
        wrong = {
            "learning rate": not 0 < self.learning_rate < math.inf,
            "weight decay": not 0 <= self.weight_decay < math.inf,
            "clip norm": self.clip_norm is not None and not 0 < self.clip_norm < math.inf,
            "seed": not 0 <= self.seed < 2**63,
            "number of epochs": not 1 <= self.epochs < MOST,
            "batch size": not 1 <= self.batch_size < MOST,
            "number of epochs between looks at val": not 1 <= self.validate_every < MOST,
            "number of training frames": self.frames is not None and not 1 <= self.frames < MOST,
            "number of test frames": self.test_frames is not None and not 1 <= self.test_frames < MOST,
        }
        for name, is_wrong in wrong.items():
            if is_wrong:
                raise LongreelError(f"this {name} cannot be used. Give a finite number in its range.")
        for kind, name, known in (
            ("optimiser", self.optimiser, OPTIMISERS),
            ("precision", self.precision, PRECISIONS),
            ("selection metric", self.select, SELECTIONS),
        ):
            if name not in known:
                raise unknown(kind, name, known)
        rate_at(self.schedule, 0.0, 0, self.epochs)

    def make_optimiser(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimiser over these parameters."""
        make = OPTIMISERS[self.optimiser]
        return make(list(parameters), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True)


def rate_at(schedule: str, epoch: float, first: int, end: int) -> float:
    """What the learning rate is multiplied with at a time between epochs ``first`` and ``end``.

    Steps count from ``first``, so that an output drawn anew begins at the full rate.

    Raises:
        LongreelError: When there is no such schedule.
    """
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * (epoch - first) / (end - first)))
    if schedule == "constant":
        return 1.0
    name, _, steps = schedule.partition(":")
    try:
        if name != "steps":
            raise ValueError
        behind = [int(step) for step in steps.split(",")]
        if min(behind) < 1:
            raise ValueError
        return 0.1 ** sum(epoch - first >= step for step in behind)
    except ValueError:
        raise LongreelError(
            f"schedule {schedule!r} is not known. Give cosine, constant, or steps with their epochs: steps:30,60."
        ) from None
