"""Splits of skeleton data: as published, and the long tails that BRL draws of them.

Reference:
    BRL, github firework8/BRL: a class keeps ``int(n_max * ratio ** (-c / (C - 1)))`` clips, c being its number in the
    data set, not its rank; the clips of a class in the order of the published list are shuffled by one legacy NumPy
    generator that goes on from class to class, and the first are kept.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..balance.counts import count_training_clips, make_groups
from ..errors import LongreelError, unknown
from ..manifest import SPLITS, Clip, Manifest
from ..store import FeatureStore
from .manifests import Made, write_manifest


@dataclass(frozen=True)
class Tail:
    """A long tail of a split."""

    split: str
    most: int  #: clips of class 0, n_max.
    ratio: int  #: times that of the last class.
    classes: int | None = None  #: of the data that it is for; ``None``: any.


RATIOS = (100, 50, 10)
#: name -> long tail; of a name without a number the ratio is 100. Counts of NTU60 and NTU120 differ by their classes.
TAILS: dict[str, Tail] = {
    "lt_if10_train": Tail("official", 100, 10, 10),
    "lt_if10_train_clean": Tail("train_clean", 100, 10, 10),
    **{
        f"{split}-lt{'' if ratio == 100 else ratio}": Tail(split, most, ratio)
        for split, most in (("xsub", 600), ("xview", 600), ("xset", 400))
        for ratio in RATIOS
    },
}


def tail_counts(classes: int, most: int, ratio: float) -> list[int]:
    """Clips that each class shall have, ``(C,)``, the first the most.

    >>> tail_counts(10, 100, 10)
    [100, 77, 59, 46, 35, 27, 21, 16, 12, 10]
    """
    return [int(most * (1.0 / ratio) ** (number / max(classes - 1, 1))) for number in range(classes)]


def draw_tail(ids: Sequence[str], numbers: Sequence[int], counts: Sequence[int], seed: int = 0) -> list[str]:
    """The clips that stay, class by class; a class with fewer keeps them all.

    Args:
        ids: In the order of the published list.
        numbers: The class of each, from 0.
        counts: Clips that each class shall have, ``(C,)``.
        seed: Of the legacy generator; the published draw is that of 0.
    """
    generator = np.random.RandomState(seed)
    members: list[list[str]] = [[] for _ in counts]
    for clip_id, number in zip(ids, numbers, strict=True):
        members[number].append(clip_id)
    for each in members:
        generator.shuffle(each)
    return [clip_id for each, count in zip(members, counts, strict=True) for clip_id in each[:count]]


def choose_split(
    clips: Sequence[Clip],
    splits: Mapping[str, Mapping[str, Sequence[str]]],
    classes: Sequence[str],
    name: str,
    *,
    seed: int = 0,
) -> list[Clip]:
    """The clips of a split, in the order of their ids. Those that lie in one file have their id as their path.

    Args:
        clips: All of them.
        splits: Name -> our split -> ids, as the data has them.
        classes: Their names in the order of the data set's own numbers.
        name: One of ``splits``, or of ``TAILS`` where its split is one.
        seed: Of the draw.

    Raises:
        LongreelError: When there is no such split.
    """
    tails = {key: tail for key, tail in TAILS.items() if tail.split in splits and tail.classes in (None, len(classes))}
    if not name:
        raise LongreelError(f"there are several splits. Name one with --split: {', '.join([*splits, *tails])}.")
    if name not in splits and name not in tails:
        raise unknown("split", name, [*splits, *tails])
    chosen = dict(splits[tails[name].split if name in tails else name])
    by_id = {clip.clip_id: clip for clip in clips}
    if name in tails:
        trained = [classes.index(by_id[clip_id].labels[0]) for clip_id in chosen["train"]]
        counts = tail_counts(len(classes), tails[name].most, tails[name].ratio)
        chosen["train"] = draw_tail(chosen["train"], trained, counts, seed)
    shared = len({clip.path for clip in clips}) < len(clips)
    return [
        replace(by_id[clip_id], path=clip_id if shared else by_id[clip_id].path, split=split)
        for split in SPLITS
        for clip_id in sorted(chosen.get(split, ()))
    ]


def write_split(out: Path, clips: Sequence[Clip], recipe: dict[str, object], twins: int) -> Made:
    """Write a split's manifest and its figures; what is there already stays if it is the same.

    Args:
        out: A ``.csv`` file.
        clips: Of ``choose_split``.
        recipe: What decided them.
        twins: Clips of val and test that are training clips; where there are any, every table says so.

    Raises:
        LongreelError: When other content is there.
    """
    table = Manifest(out, out.parent, tuple(clips))
    counts = count_training_clips(table)
    groups = make_groups("gen2balance", table.classes, counts)
    of_split = {split: len(table.split(split)) for split in SPLITS if table.split(split)}
    figures = Made(
        recipe,
        table.digest,
        len(table.classes),
        of_split,
        of_split,
        0.0,
        max(counts),
        min(counts),
        groups.rule,
        {group: len(members) for group, members in groups.members.items()},
        watermark=f"{twins} clips of val and test are training clips, number by number" if twins else None,
    )
    write_manifest(out, clips, figures)
    return figures


def find_twins(store: FeatureStore, clips: Iterable[Clip]) -> list[tuple[str, str]]:
    """Pairs of a training clip and one of val or test with the same joints, number by number."""
    trained: dict[bytes, str] = {}
    twins = []
    for clip in sorted(clips, key=lambda clip: clip.split != "train"):  # training clips first
        if clip.clip_id in store:
            content = hashlib.sha256(store[clip.clip_id].features.tobytes()).digest()
            if clip.split == "train":
                trained.setdefault(content, clip.clip_id)
            elif content in trained:
                twins.append((trained[content], clip.clip_id))
    return twins
