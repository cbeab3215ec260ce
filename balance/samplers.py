"""Which training clips an epoch takes, and in which order."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from ..errors import LongreelError

STEEPEST = 1000.0  #: largest power of a count; far beyond what leaves any chance to more than one class.


class Sampler(Protocol):
    """Clips of one epoch. A clip may come several times or not at all.

    A class's clips are those of the training set, generated ones too: a sampler hands out what there is.

    Shape:
        - targets: ``(N, C)`` of the training clips; above 0 where a clip has a class.
        - output: ``(M,)`` int64 clip numbers on the CPU.
    """

    def __call__(self, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Draw an epoch; all that is random comes from the generator, which is one of the CPU."""
        ...


def _labels(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Clip and class of each label, by class and then by clip: ``(L,)`` and ``(L,)``, on the CPU."""
    clips, classes = (targets > 0).nonzero().cpu().unbind(dim=1)
    classes, order = classes.sort(stable=True)
    return clips[order], classes


@dataclass(frozen=True)
class Instance:
    """Every clip once, in random order."""

    def __call__(self, targets: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randperm(len(targets), generator=generator)


@dataclass(frozen=True)
class Power:
    """N times a class with a chance in proportion to ``n_c^q``, and one of its clips evenly.

    Reference:
        Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020, eq. (1),
        arXiv:1910.09217. ``q=0`` is class-balanced, ``q=0.5`` square-root sampling; ``q=1`` draws clips evenly, with
        repeats, where each has one class. A clip of several classes may come by any of them.
        Differs from the released VideoLT code: that drops the clip's other labels when a class has called it.

    Raises:
        LongreelError: When no clip has a class.
    """

    q: float = 1.0

    def __post_init__(self) -> None:
        if not abs(self.q) <= STEEPEST:
            raise LongreelError(f"power: q={self.q:g} must lie between {-STEEPEST:g} and {STEEPEST:g}.")

    def __call__(self, targets: Tensor, generator: torch.Generator) -> Tensor:
        clips, classes = _labels(targets)  # (L,), (L,)
        if len(clips) == 0:
            raise LongreelError("no training clip has a class to be drawn by. Use --sampler instance.")
        counts = classes.unique_consecutive(return_counts=True)[1]  # of the classes that have clips
        chances = torch.softmax(self.q * counts.double().log(), dim=0)  # n^q for any q, without overflow
        drawn = torch.multinomial(chances, len(targets), replacement=True, generator=generator)  # (N,)
        place = torch.rand(len(targets), dtype=torch.float64, generator=generator) * counts[drawn]  # (N,)
        first = counts.cumsum(dim=0) - counts
        return clips[first[drawn] + place.long()]


@dataclass(frozen=True)
class TailRepetition:
    """The clips of the poorest third of the classes come ``n_max / n_c`` times, all others once, in random order.

    The fraction of a repeat goes to a random part of a class's clips, so that a class of single-label clips ends with
    exactly ``n_max``. A clip of several classes goes by its poorest one. Of C classes with clips the ``2 * (C // 3)``
    richest are no tail; of equally rich classes the first are the richer. The epoch grows: a fair comparison takes
    equally many steps.
    Reference:
        The released code of "Balanced Representation Learning" (BRL) for long-tailed skeleton actions.
        Differs from it: there the last third by class index is the tail, which has to be the poorest.
    """

    def __call__(self, targets: Tensor, generator: torch.Generator) -> Tensor:
        clips, classes = _labels(targets)  # (L,), (L,)
        counts = classes.bincount(minlength=targets.shape[1])  # (C,)
        richest_first = counts.argsort(descending=True, stable=True)
        rank = richest_first.argsort()  # (C,)
        poorest = torch.full((len(targets),), -1).scatter_reduce(0, clips, rank[classes], "amax")  # (N,), -1: no class
        counts = counts[richest_first]  # by rank from here on
        owned = (poorest + 1).bincount(minlength=len(counts) + 1)[1:]  # (C,) clips whose poorest class it is
        tail = torch.arange(len(counts)) >= 2 * ((counts > 0).sum() // 3)
        repeats = torch.where(tail, (2 * counts.max() * owned + counts) // (2 * counts.clamp(min=1)), owned)  # rounded
        return _repeat(poorest, torch.where(owned > 0, repeats, 0), owned, generator)


def _repeat(group: Tensor, wanted: Tensor, owned: Tensor, generator: torch.Generator) -> Tensor:
    """Every clip as often as the others of its group, or once more, so that group g comes ``wanted[g]`` times.

    Args:
        group: Of each clip, -1 for none: ``(N,)``. A clip of no group comes once.
        wanted, owned: Clips of each group, in the epoch and in the training set: ``(G,)``.
        generator: Chooses whom the remainder falls to, and the order.
    """
    shuffled = torch.randperm(len(group), generator=generator)
    order = shuffled[group[shuffled].argsort(stable=True)]  # by group, random inside
    alone = len(group) - owned.sum()
    sizes, wanted = torch.cat([alone[None], owned]), torch.cat([alone[None], wanted])
    place = torch.arange(len(group)) - (sizes.cumsum(dim=0) - sizes).repeat_interleave(sizes)  # inside its group
    least, rest = wanted // sizes.clamp(min=1), wanted % sizes.clamp(min=1)
    times = least.repeat_interleave(sizes) + (place < rest.repeat_interleave(sizes))
    epoch = order.repeat_interleave(times)
    return epoch[torch.randperm(len(epoch), generator=generator)]


#: name -> sampler. docs/losses.md has options, sources and differences.
SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "instance": Instance,
    "class-balanced": partial(Power, 0.0),
    "square-root": partial(Power, 0.5),
    "power": Power,
    "tail-repetition": TailRepetition,
}
