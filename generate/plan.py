"""The plan: how many generated clips fill each class up, and what making them costs, before anything is made."""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ..errors import LongreelError
from ..manifest import Manifest
from .clips import MOST_CLIPS, make_clip_id

#: of one clip, 65 frames of 480 x 832 by Wan 2.1 14B in 50 steps on an H100: Gen2Balance's GPU-hours / its clips.
SECONDS_PER_CLIP = 393.7
SOURCE = "Gen2Balance (ECCV 2026): Wan 2.1 14B on an H100, 9248 GPU-hours for 84561 clips"


@dataclass(frozen=True)
class ClassPlan:
    """What filling does to one class."""

    label: str
    real: int  #: real training clips.
    generated: int  #: clips to generate.
    group: str | None = None

    @property
    def total(self) -> int:
        return self.real + self.generated


@dataclass(frozen=True)
class Plan:
    """What filling every class up to ``fill`` training clips takes."""

    fill: int
    classes: tuple[ClassPlan, ...]  #: in the manifest's order.
    seconds_per_clip: float = SECONDS_PER_CLIP
    cost_per_hour: float | None = None

    @property
    def real(self) -> int:
        return sum(each.real for each in self.classes)

    @property
    def generated(self) -> int:
        return sum(each.generated for each in self.classes)

    @property
    def gpu_hours(self) -> float:
        return self.generated * self.seconds_per_clip / 3600

    @property
    def cost(self) -> float | None:
        return None if self.cost_per_hour is None else self.gpu_hours * self.cost_per_hour

    def clip_ids(self) -> dict[str, list[str]]:
        """Class -> ids of its clips to generate; those of a higher ``fill`` begin with the same."""
        return {each.label: [make_clip_id(each.label, i) for i in range(each.generated)] for each in self.classes}


def count_real(manifest: Manifest) -> dict[str, int]:
    """Real training clips of each class, in the manifest's order; a clip of several classes counts for each."""
    found = Counter(label for clip in manifest.split("train") if clip.source == "real" for label in clip.labels)
    return {label: found[label] for label in manifest.classes}


def count_missing(real: Mapping[str, int], fill: int) -> dict[str, int]:
    """Class -> clips to generate, ``max(0, B - n_real)``.

    Reference:
        Gen2Balance (ECCV 2026), the filling threshold B. With K100-LT's counts it gives every published number of
        clips, and so do UCF-LT at 121 and RareAct at 330. B at the richest class's count is full balance.
    """
    return {label: max(0, fill - count) for label, count in real.items()}


def read_fill(text: str, real: Collection[int]) -> int:
    """The filling number of a text: a whole number, or ``33%`` of the richest class's count, or ``max``: all of that.

    Args:
        text: What was given.
        real: Real training clips of each class.

    Raises:
        LongreelError: When it is none of these, or a share of no real training clip.
    """
    number, share = ("100", True) if text == "max" else (text.removesuffix("%"), text.endswith("%"))
    if not (number.isascii() and number.isdecimal() and len(number) < 10 and int(number) <= MOST_CLIPS):
        raise LongreelError(
            f"fill {text[:40]!r} is no number of clips. Give a whole number up to {MOST_CLIPS}, max for as many as the "
            f"richest class has, or a share of that: 33%."
        )
    if not share:
        return int(number)
    if not any(real):
        raise LongreelError(f"fill {text}: there is no real training clip to take the count of. Give a number.")
    return round(int(number) * max(real) / 100)


def plan_fill(
    manifest: Manifest,
    fill: str,
    *,
    seconds_per_clip: float = SECONDS_PER_CLIP,
    cost_per_hour: float | None = None,
    groups: Mapping[str, str] | None = None,
) -> Plan:
    """Count what is missing for ``fill`` training clips a class.

    Args:
        manifest: Its real training clips are counted; generated ones never are.
        fill: A number, or ``max``.
        seconds_per_clip: Of one GPU.
        cost_per_hour: Of one GPU, in whatever money.
        groups: Class -> its group, to be told with it.

    Raises:
        LongreelError: When the filling number, the seconds or the cost cannot be used.
    """
    if not 0 < seconds_per_clip < math.inf:
        raise LongreelError(f"--seconds-per-clip {seconds_per_clip:g} is no duration. Give seconds above 0.")
    if cost_per_hour is not None and not 0 <= cost_per_hour < math.inf:
        raise LongreelError(f"--cost-per-hour {cost_per_hour:g} is no price. Give a number from 0.")
    real = count_real(manifest)
    number = read_fill(fill, real.values())
    missing = count_missing(real, number)
    classes = [ClassPlan(label, real[label], missing[label], (groups or {}).get(label)) for label in real]
    return Plan(number, tuple(classes), seconds_per_clip, cost_per_hour)
