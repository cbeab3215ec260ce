"""A method's stages laid out over the epochs of a training."""

from dataclasses import dataclass

from ..balance import Method, Stage
from ..errors import LongreelError


@dataclass(frozen=True)
class Leg:
    """The epochs of one stage, counted from 0, and those of the learning rate's schedule that it is part of."""

    stage: Stage
    first: int
    end: int
    span: tuple[int, int]

    def begins_anew(self, epoch: int) -> bool:
        """Whether this epoch begins from the chosen one, with a new optimiser."""
        return _anew(self.stage) and epoch == self.first


def lay_out(method: Method, epochs: int) -> list[Leg]:
    """The legs of a training; a schedule runs on through stages until one begins anew.

    Raises:
        LongreelError: When there are fewer epochs than stages, or a stage would train the whole head behind one that
            trained its output alone.
    """
    if epochs < len(method.stages):
        raise LongreelError(f"{epochs} epochs are too few for {len(method.stages)} stages. Give more with --epochs.")
    alone = [stage.output_only for stage in method.stages]
    if alone != sorted(alone):
        raise LongreelError("a stage behind one with output_only=True must have it too: the rest of the head stays.")
    ends = [round(stage.until * epochs) for stage in method.stages[:-1]] + [epochs]
    for place in range(len(ends)):  # every stage has an epoch at least
        least = ends[place - 1] + 1 if place else 1
        ends[place] = min(max(ends[place], least), epochs - (len(ends) - 1 - place))
    firsts = [0, *ends[:-1]]
    anew = [first for first, stage in zip(firsts, method.stages, strict=True) if first == 0 or _anew(stage)]
    return [
        Leg(
            stage, first, end, (max(a for a in anew if a <= first), min([a for a in anew if a > first], default=epochs))
        )
        for stage, first, end in zip(method.stages, firsts, ends, strict=True)
    ]


def _anew(stage: Stage) -> bool:
    return stage.output_only or stage.restart
