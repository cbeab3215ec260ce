"""A split's features and targets, batched by index operations; features are in memory, or on disk where they must."""

import math
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..errors import StoreMismatch, unknown
from ..manifest import Clip, Manifest
from ..store import FeatureStore
from .disk import DiskRows, fits_in_memory

PLACES = ("auto", "memory", "disk")
CHECKED_CLIPS = 64  #: of features on disk, checked at a time.
AHEAD = 2  #: batches that are read from disk before they are needed.
STATISTICS_ROWS = 65536  #: rows taken at a time, so that no second copy of the features is made in float64.


@dataclass(frozen=True)
class ClipSet:
    """The clips of one split, those that have features in the order of their ids."""

    ids: tuple[str, ...]
    features: Tensor | DiskRows  #: ``(frames, D)`` float16, all clips behind one another.
    offsets: Tensor  #: ``(clips + 1,)`` int64: clip ``i`` has the rows ``offsets[i]`` up to ``offsets[i + 1]``.
    targets: Tensor  #: ``(clips, C)`` float32 multi-hot.
    failed: tuple[Clip, ...] = ()  #: clips of the split that could not be extracted.
    failed_targets: Tensor = field(default_factory=lambda: torch.zeros(0))  #: ``(failed, C)``
    partial: int = 0  #: how many of the clips could be decoded in part only.

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def place(self) -> str:
        """Where its features are: ``memory`` or ``disk``."""
        return "memory" if isinstance(self.features, Tensor) else "disk"

    def batch(
        self, clips: Tensor, frames: int | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """The rows of some clips, padded to the longest.

        Args:
            clips: Indices ``(B,)``.
            frames: Rows to take of each clip, in time order; ``None`` takes all rows.
            generator: They are drawn at random from it, with replacement. Without it they are spread evenly: row
                ``floor(i (T - 1) / (frames - 1))`` of a clip's T, so that a shorter clip has some twice.

        Returns:
            Features ``(B, T, D)`` float32 and mask ``(B, T)`` bool, true where a row exists.
        """
        first, lengths = self.offsets[clips], (self.offsets[1:] - self.offsets[:-1])[clips]
        if frames is None:
            places = torch.arange(int(lengths.max())).expand(len(clips), -1)
            mask = places < lengths[:, None]
            places = places.minimum(lengths[:, None] - 1)
        elif generator is None:
            places = torch.arange(frames) * (lengths[:, None] - 1) // max(frames - 1, 1)
            mask = torch.ones_like(places, dtype=torch.bool)
        else:
            draws = torch.rand((len(clips), frames), generator=generator)
            places = (draws * lengths[:, None]).long().minimum(lengths[:, None] - 1).sort(dim=1).values
            mask = torch.ones_like(places, dtype=torch.bool)
        return self.features[first[:, None] + places].float(), mask

    def batches(
        self, clips: Sequence[Tensor], frames: int | None = None, generator: torch.Generator | None = None
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """``batch`` of each in turn. From disk, the next one is read while this one is used."""
        if isinstance(self.features, Tensor):
            yield from (self.batch(each, frames, generator) for each in clips)
            return
        with ThreadPoolExecutor(1) as pool:  # one thread, so that draws come in turn
            waiting = deque()
            for number, each in enumerate(clips):
                self.features.read_ahead(each)
                waiting.append(pool.submit(self.batch, each, frames, generator))
                if number >= AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def with_failed(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores and targets of the whole split: clips without features come last and are scored lowest.

        Args:
            scores: ``(clips, C)`` of the clips that have features.

        Returns:
            Scores and bool targets, each ``(clips + failed, C)``.
        """
        classes = self.targets.shape[1]
        lowest = np.full((len(self.failed), classes), -np.inf, dtype=scores.dtype)
        targets = torch.cat([self.targets, self.failed_targets.reshape(-1, classes)]).numpy() > 0
        return np.concatenate([scores, lowest]), targets

    @property
    def all_ids(self) -> list[str]:
        """The ids of the whole split, in the order of ``with_failed``."""
        return [*self.ids, *(clip.clip_id for clip in self.failed)]

    def draw_rows(self, most: int, seed: int) -> Tensor:
        """At most so many rows of all clips, drawn at random without replacement, ``(N, D)`` float32."""
        drawn = torch.randperm(len(self.features), generator=torch.Generator().manual_seed(seed))[:most]
        return self.features[drawn.sort().values].float()

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over all rows, each ``(D,)`` float32; a constant column has deviation 1."""
        rows = self.features
        mean = torch.stack([part.double().sum(dim=0) for part in rows.split(STATISTICS_ROWS)]).sum(dim=0) / len(rows)
        squares = torch.stack([(part.double() - mean).square().sum(dim=0) for part in rows.split(STATISTICS_ROWS)]).sum(
            dim=0
        )
        deviation = (squares / len(rows)).sqrt()
        return mean.float(), torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)).float()


def load_clips(store: FeatureStore, manifest: Manifest, split: str, place: str = "auto") -> ClipSet:
    """One split of a store.

    Args:
        store, manifest, split: Which clips.
        place: ``memory``: features are read at once, and every clip's bytes checked against their digest. ``disk``:
            they are read and checked once, and then read again as they are asked for; training gives the same bits.
            ``auto``: memory where they fit in.

    Raises:
        StoreMismatch: When clips of the split were never extracted.
        StoreDamaged: When a clip's bytes are not what was written.
    """
    clips = sorted(manifest.split(split), key=lambda clip: clip.clip_id)  # a manifest's row order is no part of a run
    present = [clip for clip in clips if clip.clip_id in store]
    absent = [clip for clip in clips if clip.clip_id not in store]
    failures = store.failures() if absent else {}
    if unknown := [clip for clip in absent if clip.clip_id not in failures]:
        raise StoreMismatch(
            f"{store.folder}: lacks {len(unknown)} of the {len(clips)} {split} clips of {manifest.path}, such as "
            f"{unknown[0].clip_id!r}. Run `longreel extract {manifest.path} {store.folder}` with the store's options."
        )
    features, offsets = _read(store, [clip.clip_id for clip in present], place)
    return ClipSet(
        ids=tuple(clip.clip_id for clip in present),
        features=features,
        offsets=offsets,
        targets=multi_hot(present, manifest.classes),
        failed=tuple(absent),
        failed_targets=multi_hot(absent, manifest.classes),
        partial=sum(store.origin(clip.clip_id).fraction < 1.0 for clip in present),
    )


def _read(store: FeatureStore, clip_ids: Sequence[str], place: str) -> tuple[Tensor | DiskRows, Tensor]:
    """Features and offsets of clips, as ``ClipSet`` has them."""
    if place not in PLACES:
        raise unknown("place for features", place, PLACES)
    if place != "memory":
        rows = DiskRows(store, clip_ids)
        if place == "disk" or not fits_in_memory(2 * math.prod(rows.shape)):
            for begin in range(0, len(clip_ids), CHECKED_CLIPS):
                store.read(clip_ids[begin : begin + CHECKED_CLIPS])  # for its checks
            return rows, torch.from_numpy(rows.offsets)
    features, offsets = store.read(clip_ids)
    return torch.from_numpy(features), torch.from_numpy(offsets)


def multi_hot(clips: Sequence[Clip], classes: Sequence[str]) -> Tensor:
    """Targets ``(clips, C)`` float32: one for each label of a clip, else zero."""
    place = {name: index for index, name in enumerate(classes)}
    targets = torch.zeros((len(clips), len(classes)))
    for row, clip in enumerate(clips):
        targets[row, [place[label] for label in clip.labels]] = 1.0
    return targets
