"""A split's features and targets, batched by index operations; features are in memory, or on disk where they must."""

import math
from collections.abc import Callable, Collection, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..devices import send, send_beside
from ..errors import ManifestError, StoreMismatch
from ..manifest import Clip, Manifest
from ..store import FeatureStore
from .ahead import results_of
from .disk import DiskRows
from .moments import Scale, measure
from .places import read_features

CPU = torch.device("cpu")
AHEAD = 2  #: batches that are read from disk before they are needed.


@dataclass(frozen=True)
class ClipSet:
    """The clips of one split, those that have features in the order of their ids."""

    ids: tuple[str, ...]
    features: Tensor | DiskRows  #: ``(frames, D)`` in the store's dtype, all clips behind one another.
    offsets: Tensor  #: ``(clips + 1,)`` int64: clip ``i`` has the rows ``offsets[i]`` up to ``offsets[i + 1]``.
    targets: Tensor  #: ``(clips, C)`` float32 multi-hot.
    failed: tuple[Clip, ...] = ()  #: clips of the split that could not be extracted.
    failed_targets: Tensor = field(default_factory=lambda: torch.zeros(0))  #: ``(failed, C)``
    partial: int = 0  #: how many of the clips could be decoded in part only.
    generated: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))  #: ``(clips,)``; empty: none.
    uncertainty: Tensor = field(default_factory=lambda: torch.zeros(0))  #: ``(clips,)``, NaN where it is not known.
    device: torch.device = CPU  #: where batches are wanted; features may be there too. All else is on the CPU.
    least: int = 0  #: rows that each clip of a batch is padded to at least, where all of its rows are taken.
    scales: dict[str, Scale] = field(default_factory=dict)  #: of the rows of those kinds of clips that were asked for.

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def lengths(self) -> Tensor:
        """Rows of each clip, ``(clips,)``."""
        return self.offsets[1:] - self.offsets[:-1]

    @cached_property
    def targets_on_device(self) -> Tensor:
        """The targets on the device, the same tensor for all who ask."""
        return self.targets.to(self.device)

    @property
    def place(self) -> str:
        """Where its features are: ``memory``, ``disk``, or the device, such as ``cuda``."""
        if isinstance(self.features, DiskRows):
            return "disk"
        return "memory" if self.features.device.type == "cpu" else self.features.device.type

    def pool(self, kind: str, kept: Tensor | None = None) -> Tensor | None:
        """Indices of the clips that are ``real`` or ``generated``, and kept ``(clips,)``; ``None`` for all of them."""
        if kind == "all" and kept is None:
            return None
        generated = self.generated if len(self.generated) else torch.zeros(len(self), dtype=torch.bool)
        chosen = {"all": torch.ones_like(generated), "real": ~generated, "generated": generated}[kind]
        chosen = chosen if kept is None else chosen & kept
        return None if chosen.all() else chosen.nonzero()[:, 0]

    def filled(self, fill: int, counts: Tensor) -> Tensor:
        """``(clips,)`` bool: the real clips, and the first ``fill - n_c`` generated ones of each class, by their ids.

        Args:
            fill: Clips up to which classes are filled.
            counts: Real training clips ``n_c``, ``(C,)``.
        """
        kept, classes = ~self.generated, self.targets.argmax(dim=1)
        for index, count in enumerate(counts.long().tolist()):
            mine = (self.generated & (classes == index)).nonzero()[:, 0]  # clips are in the order of their ids
            kept[mine[: max(0, fill - count)]] = True
        return kept

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
        where = self._rows_device
        chosen = send(clips, where)
        first, lengths = (each[chosen][:, None] for each in self._firsts_and_lengths)  # (B, 1)
        if frames is None:
            longest = max(int(self.lengths[clips].max()), self.least)
            places = torch.arange(longest, device=where).expand(len(clips), -1)  # (B, T)
        elif generator is None:
            places = torch.arange(frames, device=where) * (lengths - 1) // max(frames - 1, 1)
        else:
            draws = send(torch.rand((len(clips), frames), generator=generator), where)
            places = (draws * lengths).long().minimum(lengths - 1).sort(dim=1).values
        mask = places < lengths
        found = self._take(first + places.minimum(lengths - 1))
        return send(found, self.device).float(), send(mask, self.device)

    def _take(self, rows: Tensor) -> Tensor:
        """Rows by number, ``(N,)`` or ``(B, T)`` -> ``(..., D)``; in memory row by row."""
        if isinstance(self.features, Tensor):
            # an index would go number by number: four times as long in float16
            return self.features.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        return self.features[rows]

    @property
    def _rows_device(self) -> torch.device:
        """Where rows are asked for by number."""
        return self.features.device if isinstance(self.features, Tensor) else CPU

    @cached_property
    def _firsts_and_lengths(self) -> tuple[Tensor, Tensor]:
        """The first row of each clip and how many it has, there, ``(clips,)`` each."""
        return send(self.offsets[:-1], self._rows_device), send(self.lengths, self._rows_device)

    def batches(
        self, clips: Sequence[Tensor], frames: int | None = None, generator: torch.Generator | None = None
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """``batch`` of each in turn. From disk or to a device, the next ones are read while this one is used.

        A device computes while they are sent to it. From disk, whole clips are fetched first, in a thread of their own:
        asking the system for them takes as long as its disk is busy.
        """
        if isinstance(self.features, Tensor) and self.features.device.type == self.device.type:
            yield from (self.batch(each, frames, generator) for each in clips)
            return

        def read(fetched: Future[None], each: Tensor) -> Callable[[], tuple[Tensor, ...]]:
            fetched.result()
            return send_beside(lambda: self.batch(each, frames, generator), self.device)

        # one thread reads, so that draws come in turn
        with ThreadPoolExecutor(1) as fetcher, ThreadPoolExecutor(1) as reader:
            submitted = (reader.submit(read, fetcher.submit(self._fetch, each), each) for each in clips)
            for take in results_of(submitted, AHEAD):
                rows, mask = take()
                yield rows, mask

    def _fetch(self, clips: Tensor) -> None:
        """Have what lies on disk brought into memory."""
        if isinstance(self.features, DiskRows):
            self.features.read_ahead(clips)

    def in_one_shape(self) -> "ClipSet":
        """The same clips, where batches of whole clips are all padded to the longest clip of the set."""
        return replace(self, least=int(self.lengths.max()))

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

    def draw_rows(self, most: int, seed: int, clips: Tensor | None = None) -> Tensor:
        """At most so many rows of some clips, or of all, drawn at random without replacement, ``(N, D)`` float32."""
        rows = None if clips is None else self._rows_of(clips).nonzero()[:, 0]
        count = len(self.features) if rows is None else len(rows)
        drawn = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most].sort().values
        return self._take(send(drawn if rows is None else rows[drawn], self._rows_device)).float().cpu()

    def rows_of_kind(self, kind: str) -> Tensor | None:
        """``(frames,)`` bool: the rows of ``pool(kind)``; ``None`` for all of them, also where there are none of it."""
        pool = self.pool(kind)
        return None if pool is None or len(pool) == 0 else self._rows_of(pool)

    def _rows_of(self, clips: Tensor) -> Tensor:
        chosen = torch.zeros(len(self), dtype=torch.bool)
        chosen[clips] = True
        return chosen.repeat_interleave(self.lengths)


def load_clips(
    store: FeatureStore,
    manifest: Manifest,
    split: str,
    place: str = "auto",
    device: torch.device = CPU,
    kinds: Collection[str] = (),
) -> ClipSet:
    """One split of a store.

    Args:
        store, manifest, split: Which clips.
        place: ``memory``: features are read at once, and every clip's bytes checked against their digest. ``disk``:
            they are read and checked once, and then read again as they are asked for; training gives the same bits.
            ``auto``: the device where they fit in, else memory where they do.
        device: Where batches are wanted.
        kinds: Of clips, such as ``real``, the scales of whose rows are wanted; that of all clips where there are none
            of the kind.

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
    features, offsets, parts = read_features(store, [clip.clip_id for clip in present], place, device)
    found = ClipSet(
        ids=tuple(clip.clip_id for clip in present),
        features=features,
        offsets=offsets,
        targets=multi_hot(present, manifest.classes),
        failed=tuple(absent),
        failed_targets=multi_hot(absent, manifest.classes),
        partial=sum(store.origin(clip.clip_id).fraction < 1.0 for clip in present),
        generated=torch.tensor([clip.source == "generated" for clip in present], dtype=torch.bool),
        uncertainty=torch.tensor([read_uncertainty(clip, manifest.path) for clip in present]),
        device=device,
    )
    wanted = {kind: found.rows_of_kind(kind) for kind in sorted(kinds)}
    return replace(found, scales=measure(parts, store.spec.dim, wanted))


def read_uncertainty(clip: Clip, path: Path) -> float:
    """What the manifest's column ``uncertainty`` says of a generated clip, 0 to 1; NaN where it says nothing.

    Raises:
        ManifestError: When it is no such number.
    """
    value = clip.extra.get("uncertainty")
    if clip.source == "real" or value in (None, ""):
        return math.nan
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not 0.0 <= number <= 1.0:
        raise ManifestError(f"{path}: clip {clip.clip_id!r}: uncertainty {value!r} is no number between 0 and 1.")
    return number


def multi_hot(clips: Sequence[Clip], classes: Sequence[str]) -> Tensor:
    """Targets ``(clips, C)`` float32: one for each label of a clip, else zero."""
    place = {name: index for index, name in enumerate(classes)}
    targets = torch.zeros((len(clips), len(classes)))
    for row, clip in enumerate(clips):
        targets[row, [place[label] for label in clip.labels]] = 1.0
    return targets
