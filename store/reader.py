"""Reading a store: eager facts, lazy arrays, nothing is ever written."""

import resource
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..devices import cores
from ..errors import StoreDamaged, StoreMismatch
from .ledger import Failure, read_failures
from .records import ClipFeatures, Origin, Spec, combine_digests
from .shard import Shard, read_shard, shard_paths, some_shard_paths

READ_AT_ONCE = 16  #: clips, each of which may keep a file open.


class FeatureStore:
    """The clips of a store by id; of a clip that was extracted again, the newest.

    ``len``, ``in``, iteration over the ids and ``store[clip_id]`` work as with a dict.

    Raises:
        StoreMismatch: When the folder is no store, or its shards were made in different ways.
        StoreDamaged: When a shard cannot be read.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.shards: tuple[Shard, ...] = tuple(map(read_shard, some_shard_paths(self.folder)))
        self.spec: Spec = self.shards[0].spec
        for shard in self.shards:
            if different := self.spec.differences(shard.spec):
                raise StoreMismatch(
                    f"{shard.path}: was made otherwise than {self.shards[0].path.name}: {different[0]}. "
                    f"Keep one kind a store."
                )
        self._mapped: dict[Path, Shard] = {}
        self._mapped_limit = max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        self._places = {clip_id: (shard, index) for shard in self.shards for index, clip_id in enumerate(shard.ids)}
        self.ids: tuple[str, ...] = tuple(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, clip_id: object) -> bool:
        return clip_id in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __getitem__(self, clip_id: str) -> ClipFeatures:
        return self._clip(*self._places[clip_id])

    def _clip(self, shard: Shard, index: int) -> ClipFeatures:
        self.map_features(shard)
        return shard.clip(index)

    def map_features(self, shard: Shard) -> np.memmap:
        """A shard's rows. Only the shards asked for last stay mapped, since each mapping holds a file open."""
        self._mapped[shard.path] = self._mapped.pop(shard.path, shard)
        if len(self._mapped) > self._mapped_limit:
            self._mapped.pop(next(iter(self._mapped))).__dict__.pop("features", None)
        return shard.features

    def __enter__(self) -> "FeatureStore":
        return self

    def __exit__(self, *_: object) -> None:
        """Drop the memory maps; the operating system frees them with the last array that points into them."""
        for shard in self.shards:
            shard.__dict__.pop("features", None)

    def place(self, clip_id: str) -> tuple[Shard, int]:
        """The shard that holds a clip, and the clip's number in it."""
        return self._places[clip_id]

    def origin(self, clip_id: str) -> Origin:
        """The file and decoder that a clip's features came from."""
        shard, index = self._places[clip_id]
        return shard.origin(index)

    def clip_digest(self, clip_id: str) -> bytes:
        """A clip's digest as written."""
        shard, index = self._places[clip_id]
        return shard.digest(index)

    def failures(self) -> dict[str, Failure]:
        """The clips that could not be extracted and are not in the store."""
        return {clip_id: failure for clip_id, failure in read_failures(self.folder).items() if clip_id not in self}

    def digest(self, clip_ids: Sequence[str] | None = None) -> str:
        """One digest over the given clips (all of them if ``None``), as written; ``verify_store`` checks the bytes."""
        places = self._places.values() if clip_ids is None else [self._places[clip_id] for clip_id in clip_ids]
        return combine_digests(shard.digest(index) for shard, index in places)

    def read(self, clip_ids: Sequence[str]) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
        """All rows of the given clips in one array, checked against their digests.

        Returns:
            Features ``(frames, D)`` in the spec's dtype and offsets ``(clips + 1,)``: clip ``i`` has the rows from
            ``offsets[i]`` up to ``offsets[i + 1]``.

        Raises:
            StoreDamaged: When a clip's bytes are not what was written.
        """
        places = [self._places[clip_id] for clip_id in clip_ids]
        lengths = [int(np.diff(shard.columns["offsets"][index : index + 2])[0]) for shard, index in places]
        offsets = np.cumsum([0, *lengths])
        features = np.empty((offsets[-1], self.spec.dim), dtype=self.spec.row_type)

        def take(place: int, clip: ClipFeatures) -> None:
            clip_id, (shard, index) = clip_ids[place], places[place]
            if clip.digest(clip_id) != shard.digest(index):
                raise StoreDamaged(
                    f"{shard.path}: clip {clip_id!r} is damaged. `longreel store verify {self.folder}` looks for more; "
                    f"the command that made the store, with --repair, makes its clips anew."
                )
            features[offsets[place] : offsets[place + 1]] = clip.features

        with ThreadPoolExecutor(cores()) as threads:  # hashing takes most of the time
            for begin in range(0, len(places), READ_AT_ONCE):
                some = range(begin, min(begin + READ_AT_ONCE, len(places)))
                list(threads.map(take, some, [self._clip(*places[place]) for place in some]))
        return features, offsets


def describe_store(folder: Path) -> dict:
    """The document that ``longreel store info --json`` prints."""
    if not shard_paths(folder) and (failures := read_failures(folder)):
        return {"clips": 0, "failed": {clip_id: failure.reason for clip_id, failure in failures.items()}}
    store = FeatureStore(folder)
    origins = [store.origin(clip_id) for clip_id in store]
    failures = store.failures()
    return {
        "spec": store.spec.as_dict(),
        "clips": len(store),
        "frames": sum(len(store[clip_id].seconds) for clip_id in store),
        "shards": len(store.shards),
        "bytes": sum(shard.path.stat().st_size for shard in store.shards),
        "decoders": dict(Counter(origin.decoder for origin in origins)),
        "partial": {
            clip_id: origin.fraction for clip_id, origin in zip(store, origins, strict=True) if origin.fraction < 1.0
        },
        "failed": {clip_id: failure.reason for clip_id, failure in failures.items()},
        "digest": store.digest(),
    }
