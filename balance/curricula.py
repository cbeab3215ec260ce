"""What a training learns from, stage by stage: real and generated clips together, alone, or one after the other.

Counts, and with them every margin, are those of the real clips in every stage.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..errors import LongreelError

KINDS = ("all", "real", "generated")  #: of training clips.


@dataclass(frozen=True)
class Lesson:
    """A part of a training. Behind the first one, each begins from the chosen epoch with a new optimiser."""

    clips: str  #: one of ``KINDS``.
    until: float = 1.0  #: share of all epochs at which it ends.
    rate: float = 1.0  #: what the learning rate is multiplied with.


def two_stage(until: float = 0.5, rate: float = 0.1) -> tuple[Lesson, ...]:
    """All clips, then the real ones alone with a tenth of the learning rate.

    Reference:
        Gatti et al., "Gen2Balance", ECCV 2026, section on training: as many epochs in either stage, the loss the same.
        Differs from it: the second stage begins from the epoch that val chose, not from the last.
    """
    return (Lesson("all", _checked(until)), Lesson("real", rate=_positive(rate)))


def pretrain(until: float = 0.5, rate: float = 1.0) -> tuple[Lesson, ...]:
    """The generated clips, then the real ones.

    Reference:
        Li et al., "The Role of Video Generation in Enhancing Data-Limited Action Understanding", 2025,
        arXiv:2505.19495, which does not give the rates.
    """
    return (Lesson("generated", _checked(until)), Lesson("real", rate=_positive(rate)))


def _one(clips: str) -> tuple[Lesson, ...]:
    return (Lesson(clips),)


def _checked(until: float) -> float:
    if not 0 < until < 1:
        raise LongreelError(f"until={until:g} must lie between 0 and 1: the share of epochs of the first stage.")
    return until


def _positive(rate: float) -> float:
    if not 0 < rate < float("inf"):
        raise LongreelError(f"rate={rate:g} must be above 0: what the learning rate is multiplied with.")
    return rate


#: name -> lessons. docs/generation.md has sources and differences.
CURRICULA: dict[str, Callable[..., tuple[Lesson, ...]]] = {
    "joint": partial(_one, "all"),
    "real": partial(_one, "real"),
    "generated": partial(_one, "generated"),
    "two-stage": two_stage,
    "pretrain": pretrain,
}
