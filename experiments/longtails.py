"""Long-tailed training splits out of balanced ones: how many clips each class keeps, and which."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

from ..errors import LongreelError, unknown
from ..manifest import Clip
from ..parts import build_part


class Shape(Protocol):
    """How many training clips each class shall have, in the order of ``classes``.

    Args:
        classes: Names, ``C``.
        available: Training clips that each has.
    """

    def __call__(self, classes: Sequence[str], available: Sequence[int]) -> list[int]: ...


@dataclass(frozen=True)
class Exponential:
    """``floor(n_max * factor ** (r / (C - 1)))`` for the class of rank r: the last has ``factor`` of the first.

    Reference:
        Cui et al., "Class-Balanced Loss", CVPR 2019, section 5.1 (long-tailed CIFAR); MOVE's
        Imbalanced-MiniKinetics200 has n_max 399 and keeps the first clips of each class.
        Differs: a class keeps at least one clip.
    """

    factor: float = 0.01
    maximum: float | None = None  #: n_max; the largest class's clips if ``None``.

    def __post_init__(self) -> None:
        _check("exponential", "factor", 0.0 < self.factor <= 1.0, "above 0 and up to 1, such as 0.01")
        _check_maximum("exponential", self.maximum)

    def __call__(self, classes: Sequence[str], available: Sequence[int]) -> list[int]:
        most, last = self.maximum or max(available), max(len(classes) - 1, 1)
        # What is whole but for rounding is whole: 1000 * 0.1 ** 2 is 10.000000000000002, others fall short by as much.
        return _by_rank(available, lambda rank: math.floor(most * self.factor ** (rank / last) + 1e-9))


@dataclass(frozen=True)
class Lomax:
    """``round(n_max * (1 + r / scale) ** -(alpha + 1))``, but at least ``minimum``, for the class of rank r.

    Reference:
        The density of a Lomax distribution. With alpha 6 and scale 118.6 it gives 133 of the 174 class counts of
        SSv2-LT (Perrett et al., "Use Your Head", CVPR 2023) exactly and none is off by more than one; that they were
        made by such a formula is our inference.

    Args:
        alpha: How fast the tail falls.
        minimum: Clips of the poorest class.
        maximum: n_max; the largest class's clips if ``None``.
        scale: If ``None``, the one that makes the last class just reach the minimum.
    """

    alpha: float = 6.0
    minimum: int = 5
    maximum: float | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        _check("lomax", "alpha", 0.0 < self.alpha < math.inf, "above 0, such as 6")
        _check("lomax", "minimum", self.minimum >= 1, "a whole number from 1")
        _check("lomax", "scale", self.scale is None or 0.0 < self.scale < math.inf, "above 0")
        _check_maximum("lomax", self.maximum)

    def __call__(self, classes: Sequence[str], available: Sequence[int]) -> list[int]:
        most, power = self.maximum or max(available), self.alpha + 1.0
        if most <= self.minimum:
            raise LongreelError(
                f"shape lomax: the largest class shall have {most:g} clips, which is not above minimum={self.minimum}. "
                f"Give a lower minimum."
            )
        scale = self.scale or (len(classes) - 1) / ((most / self.minimum) ** (1.0 / power) - 1.0) or 1.0
        return _by_rank(available, lambda rank: max(self.minimum, round(most * (1.0 + rank / scale) ** -power)))


@dataclass(frozen=True)
class Explicit:
    """The counts of a JSON file: an object of class -> clips, with every class."""

    file: str = ""

    def __call__(self, classes: Sequence[str], available: Sequence[int]) -> list[int]:
        if not self.file:
            raise LongreelError("shape explicit needs a file of class -> clips. Write explicit:file=counts.json.")
        try:
            counts = json.loads(Path(self.file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise LongreelError(
                f"{self.file}: cannot be read ({error}). Give a JSON object of class -> clips."
            ) from None
        if not isinstance(counts, dict):
            raise LongreelError(f"{self.file}: is no JSON object. Give one of class -> clips.")
        if strange := [name for name in counts if name not in classes]:
            raise LongreelError(f"{self.file}: {unknown('class', strange[0], classes)}")
        for name in classes:
            if name not in counts:
                raise LongreelError(f"{self.file}: has no count for class {name!r}. Add it.")
            if type(counts[name]) is not int or counts[name] < 1:
                raise LongreelError(
                    f"{self.file}: class {name!r}: {counts[name]!r} is no count. Give a whole number from 1."
                )
        return [counts[name] for name in classes]


#: name -> shape; with options behind a colon, as in ``exponential:factor=0.02``.
SHAPES: dict[str, Callable[..., Shape]] = {"exponential": Exponential, "lomax": Lomax, "explicit": Explicit}


def _check(shape: str, option: str, right: bool, expected: str) -> None:
    if not right:
        raise LongreelError(f"shape {shape}: this {option} cannot be used. Give a number {expected}.")


def _check_maximum(shape: str, maximum: float | None) -> None:
    whole = maximum is None or (1 <= maximum < math.inf and maximum == int(maximum))
    _check(shape, "maximum", whole, "that is whole and from 1, or leave it out")


def _by_rank(available: Sequence[int], curve: Callable[[int], int]) -> list[int]:
    """The curve's counts, the largest class first; of equally large ones the first in order."""
    wanted = [0] * len(available)
    for rank, place in enumerate(sorted(range(len(available)), key=lambda place: (-available[place], place))):
        wanted[place] = max(1, curve(rank))
    return wanted


@dataclass(frozen=True)
class Thinned:
    """A long-tailed training split, and where there was not enough for it."""

    clips: list[Clip]  #: in their order; those of other splits, and generated ones, are all there.
    kept: dict[str, int]  #: class -> real training clips.
    short: dict[str, int]  #: class -> clips that it was to have, where it has fewer.


def thin(clips: Sequence[Clip], classes: Sequence[str], shape: str, *, seed: int = 0, keep: str = "drawn") -> Thinned:
    """Leave out training clips until the classes have the counts of a shape.

    Which clips stay depends on the seed and their ids alone: not on the order of the rows, nor on other classes; and
    those of a smaller count are among those of a larger one. Only real training clips are counted and left out.

    Args:
        clips: Of all splits, each of one class.
        classes: The classes in their order, by which equally large ones are ranked.
        shape: A key of ``SHAPES``, with options.
        seed: Of the draw.
        keep: ``drawn`` by the seed, or the ``first`` of each class.

    Raises:
        LongreelError: When the shape cannot be used, or a clip has several classes.
    """
    if keep not in KEEP:
        raise unknown("way to keep clips", keep, KEEP)
    made = build_part("shape", SHAPES, shape)
    by_class: dict[str, list[int]] = {name: [] for name in classes}
    for place, clip in enumerate(clips):
        if clip.split == "train" and clip.source == "real":
            if len(clip.labels) != 1:
                raise LongreelError(
                    f"clip {clip.clip_id!r} has {len(clip.labels)} classes, so that no class's count can be set by "
                    f"itself. Give a manifest with one class a clip."
                )
            by_class[clip.labels[0]].append(place)
    available = [len(by_class[name]) for name in classes]
    if not any(available):
        raise LongreelError("there is no real training clip to make a long tail of. Give rows the split train.")
    wanted = dict(zip(classes, made(classes, available), strict=True))
    dropped: set[int] = set()
    for name, places in by_class.items():
        dropped.update(KEEP[keep](clips, places, seed)[wanted[name] :])
    left = [clip for place, clip in enumerate(clips) if place not in dropped]
    kept = {name: min(wanted[name], len(places)) for name, places in by_class.items()}
    return Thinned(left, kept, {name: wanted[name] for name in classes if kept[name] < wanted[name]})


def _first(clips: Sequence[Clip], places: list[int], seed: int) -> list[int]:
    return places


def _drawn(clips: Sequence[Clip], places: list[int], seed: int) -> list[int]:
    return sorted(places, key=lambda place: blake2b(f"{seed} {clips[place].clip_id}".encode()).digest())


KEEP: dict[str, Callable[[Sequence[Clip], list[int], int], list[int]]] = {"drawn": _drawn, "first": _first}
