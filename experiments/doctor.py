"""Clips that stand twice in a data set: identical in their features, or nearly so, across splits and inside them.

Identical clips have the same rows, value by value. Near ones are found in two steps: FAISS gives each clip its nearest
one by the mean of its rows, and the rows themselves decide. What is nearer than different clips are is learnt from the
clips of the same store: see ``learn_nearness``.
"""

import hashlib
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import LongreelError, StoreMismatch
from ..generate.neighbours import Floats, find_nearest, find_nearest_others, unit
from ..manifest import SPLITS, Clip, Manifest
from ..store import FeatureStore
from .nearness import Nearness, compare_rows, learn_nearness

CLIPS_AT_ONCE = 64
LOOKED_AT = 4096  #: pairs inside the splits that say what is normal; of more, so many are drawn.
MOST_ROWS = 1024  #: of a clip that are compared one by one; of more, so many evenly spaced ones.
NEAREST = 10  #: pairs that are named though they are not near enough.
MOST_LISTED = 10_000  #: pairs that are named; all are counted.


@dataclass(frozen=True)
class Pair:
    """Two clips that are the same, or nearly."""

    ids: tuple[str, str]
    splits: tuple[str, str]
    labels: tuple[tuple[str, ...], tuple[str, ...]]
    kind: str  #: ``identical`` or ``near``; ``not near`` in ``Diagnosis.nearest``.
    cosine: float  #: of the rows, see ``compare_rows``; 1 where the clips are identical.


@dataclass(frozen=True)
class Diagnosis:
    """What was found in a store and its manifest."""

    clips: dict[str, int]  #: split -> clips.
    without_features: dict[str, list[str]]  #: split -> clips that the store does not have.
    without_direction: list[str]  #: clips whose rows are all zero or not finite, or just their mean; not compared.
    threshold: Nearness
    pairs: dict[str, int]  #: kind -> pairs across splits.
    cross_split: list[Pair]  #: at most ``MOST_LISTED``, identical ones first.
    nearest: list[Pair]  #: the next pairs across splits, which are not near enough, for whoever wants to look.
    inside: dict[str, dict[str, int]]  #: split -> ``identical`` and ``near`` pairs, and how many were ``looked_at``.
    other_labels: list[Pair]  #: pairs whose labels differ: identical ones, and near ones inside a split.
    notes: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether no clip of one split is found again in another."""
        return not any(self.pairs.values())

    def describe(self) -> dict:
        """As a JSON document."""
        return asdict(self)


@dataclass(frozen=True)
class _Clips:
    """The clips that have features, in the manifest's order, and what was read of them."""

    store: FeatureStore
    clips: Sequence[Clip]
    contents: list[bytes]  #: a digest of each clip's rows.
    rows: Floats  #: ``(B, D)`` direction of each clip's mean row from the mean of all; NaN where it has none.
    centre: Floats  #: ``(D,)``

    def places(self, split: str) -> NDArray[np.int64]:
        return np.array([place for place, clip in enumerate(self.clips) if clip.split == split], dtype=np.int64)

    def direct(self, place: int) -> Floats:
        """The directions of one clip's usable rows from the centre, ``(T, D)``; at most ``MOST_ROWS``."""
        features = self.store[self.clips[place].clip_id].features
        kept = np.linspace(0, len(features) - 1, min(len(features), MOST_ROWS)).round().astype(np.int64)
        rows = unit(unit(np.asarray(features[kept])) - self.centre)
        return rows[np.isfinite(rows).all(axis=1)]

    def compare(self, one: int, other: int) -> float:
        return compare_rows(self.direct(one), self.direct(other))

    def pair(self, one: int, other: int, kind: str, cosine: float) -> Pair:
        first, second = sorted(
            (self.clips[one], self.clips[other]), key=lambda clip: (SPLITS.index(clip.split), clip.clip_id)
        )
        return Pair(
            (first.clip_id, second.clip_id), (first.split, second.split), (first.labels, second.labels), kind, cosine
        )


def examine(store: FeatureStore, manifest: Manifest, *, threshold: float | None = None, seed: int = 0) -> Diagnosis:
    """Look for clips that stand twice.

    Args:
        store, manifest: Features, and the splits and labels of their clips.
        threshold: Cosine of the rows from which on two clips are near duplicates; learnt if ``None``.
        seed: Of the draw of pairs, where the store has more than ``LOOKED_AT`` clips.

    Raises:
        LongreelError: When the threshold is no cosine.
        StoreMismatch: When the store has no clip of the manifest.
        StoreDamaged: When a clip's bytes are not what was written.
    """
    if threshold is not None and not 0.0 < threshold <= 1.0:
        raise LongreelError(f"--threshold {threshold:g} is no cosine of near duplicates. Give one above 0, up to 1.")
    there = [clip for clip in manifest.clips if clip.clip_id in store]
    if not there:
        raise StoreMismatch(f"{store.folder}: has no clip of {manifest.path}. Give the manifest that it was made from.")
    known = _read(store, there)
    groups = _group(known)
    inside = _look_inside(known, groups, seed)
    across = _look_across(known, groups)
    near = Nearness(threshold, "given")
    if threshold is None:
        near = learn_nearness([cosine for *_, cosine in inside], len(across))
    crossing = [pair for pair in across if near.cosine is not None and pair.cosine >= near.cosine]
    counts = {"identical": sum(_count(known, members)[0] for members in groups), "near": len(crossing)}
    return Diagnosis(
        clips={split: len(manifest.split(split)) for split in SPLITS if manifest.split(split)},
        without_features=_find_absent(store, manifest),
        without_direction=[there[place].clip_id for place in np.flatnonzero(~np.isfinite(known.rows).all(axis=1))],
        threshold=near,
        pairs=counts,
        cross_split=[*_list(known, groups, _crosses), *crossing][:MOST_LISTED],
        nearest=[replace(pair, kind="not near") for pair in across[len(crossing) : len(crossing) + NEAREST]],
        inside=_count_inside(known, groups, inside, near.cosine),
        other_labels=[*_list(known, groups, _disagrees), *_find_disagreeing(known, inside, near.cosine)],
        notes=_tell(near, sum(counts.values()), len(inside), len(there)),
    )


def _read(store: FeatureStore, clips: Sequence[Clip]) -> _Clips:
    """Every clip's rows, once: their digest, and the mean of their directions."""
    contents, means = [], np.full((len(clips), store.spec.dim), np.nan, dtype=np.float32)
    for begin in range(0, len(clips), CLIPS_AT_ONCE):
        block = clips[begin : begin + CLIPS_AT_ONCE]
        features, offsets = store.read([clip.clip_id for clip in block])
        contents += [hashlib.sha256(features[a:b].tobytes()).digest() for a, b in itertools.pairwise(offsets)]
        rows = unit(features)
        usable = np.add.reduceat(np.isfinite(rows[:, 0]).astype(np.float32), offsets[:-1])[:, None]
        sums = np.add.reduceat(np.nan_to_num(rows, nan=0.0), offsets[:-1], axis=0)
        np.divide(sums, usable, out=means[begin : begin + len(block)], where=usable > 0)
    some = np.isfinite(means).all(axis=1)
    centre = np.zeros(store.spec.dim, dtype=np.float32)
    if some.any():
        centre += means[some].mean(axis=0, dtype=np.float64)
    return _Clips(store, clips, contents, unit(means - centre), centre)


def _group(known: _Clips) -> list[list[int]]:
    """The places of clips that are identical, each group with at least two."""
    groups: dict[bytes, list[int]] = {}
    for place, content in enumerate(known.contents):
        groups.setdefault(content, []).append(place)
    return [members for members in groups.values() if len(members) > 1]


def _crosses(one: Clip, other: Clip) -> bool:
    return one.split != other.split


def _disagrees(one: Clip, other: Clip) -> bool:
    return set(one.labels) != set(other.labels)


def _list(known: _Clips, groups: list[list[int]], wanted: Callable[[Clip, Clip], bool]) -> list[Pair]:
    """The first identical pairs of a kind; thousands of clips that are all the same have millions of pairs."""
    found = (
        known.pair(one, other, "identical", 1.0)
        for members in groups
        if any(wanted(known.clips[members[0]], known.clips[place]) for place in members)
        for one, other in itertools.combinations(members, 2)
        if wanted(known.clips[one], known.clips[other])
    )
    return list(itertools.islice(found, MOST_LISTED))


def _count(known: _Clips, members: list[int]) -> tuple[int, dict[str, int]]:
    """Pairs of a group across splits, and inside each."""
    sizes = Counter(known.clips[place].split for place in members)
    inside = {split: math.comb(size, 2) for split, size in sizes.items()}
    return math.comb(len(members), 2) - sum(inside.values()), inside


def _look_inside(known: _Clips, groups: list[list[int]], seed: int) -> list[tuple[int, int, float]]:
    """Clips and their nearest in the same split with the cosine of their rows; of identical clips only the first."""
    again = {place for members in groups for place in members[1:]}
    splits = [np.array([place for place in known.places(split) if place not in again]) for split in SPLITS]
    _, nearest = find_nearest_others(known.rows, [places for places in splits if len(places) > 1])
    pairs = sorted({(min(a, b), max(a, b)) for a, b in enumerate(nearest.tolist()) if b >= 0})
    if len(pairs) > LOOKED_AT:
        pairs = sorted(random.Random(seed).sample(pairs, LOOKED_AT))
    return [(one, other, known.compare(one, other)) for one, other in pairs]


def _look_across(known: _Clips, groups: list[list[int]]) -> list[Pair]:
    """Each held-out clip with its nearest in every split before its own, the nearest pairs first.

    Left out are clips that have an identical one elsewhere: that says more.
    """
    twins = {place for members in groups for place in members if len({known.clips[m].split for m in members}) > 1}
    found = []
    for held, base in itertools.combinations(reversed(SPLITS), 2):
        asked = np.array([place for place in known.places(held) if place not in twins], dtype=np.int64)
        among = known.places(base)
        _, nearest = find_nearest(known.rows[asked], known.rows[among])
        for one, place in zip(asked[nearest >= 0].tolist(), among[nearest[nearest >= 0]].tolist(), strict=True):
            if not math.isnan(cosine := known.compare(one, place)):
                found.append(known.pair(one, place, "near", cosine))
    return sorted(found, key=lambda pair: (-pair.cosine, pair.ids))


def _count_inside(
    known: _Clips, groups: list[list[int]], inside: Sequence[tuple[int, int, float]], threshold: float | None
) -> dict[str, dict[str, int]]:
    counts = {split: {"identical": 0, "near": 0, "looked_at": 0} for split in SPLITS if len(known.places(split))}
    for members in groups:
        for split, pairs in _count(known, members)[1].items():
            counts[split]["identical"] += pairs
    for one, _, cosine in inside:
        counts[known.clips[one].split]["looked_at"] += 1
        counts[known.clips[one].split]["near"] += threshold is not None and cosine >= threshold
    return counts


def _find_disagreeing(known: _Clips, inside: Sequence[tuple[int, int, float]], threshold: float | None) -> list[Pair]:
    return [
        known.pair(one, other, "near", cosine)
        for one, other, cosine in inside
        if threshold is not None and cosine >= threshold and _disagrees(known.clips[one], known.clips[other])
    ]


def _find_absent(store: FeatureStore, manifest: Manifest) -> dict[str, list[str]]:
    absent: dict[str, list[str]] = {}
    for clip in manifest.clips:
        if clip.clip_id not in store:
            absent.setdefault(clip.split, []).append(clip.clip_id)
    return absent


def _tell(near: Nearness, crossing: int, looked_at: int, clips: int) -> list[str]:
    """What a reader must know of the search."""
    notes = []
    if near.cosine is None:
        notes.append("near duplicates were not looked for: too few clips to learn what is near. Give --threshold")
    if looked_at == LOOKED_AT < clips:
        notes.append(f"near pairs inside splits are counted among {LOOKED_AT} pairs that were drawn")
    if crossing > MOST_LISTED:
        notes.append(f"{MOST_LISTED} of {crossing} pairs across splits are named")
    return notes
