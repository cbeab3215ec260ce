"""Writing a store: clips gather in memory and are sealed, a shard at a time, so a crash costs at most the open one."""

import time
from pathlib import Path

from ..durable import naming_faults, publish, sync
from ..errors import StoreDamaged, StoreMismatch
from .records import ClipFeatures, Origin, Spec
from .shard import hash_file, next_sequence, read_shard, shard_paths, write_shard_file

SHARD_CLIPS = 64
SHARD_SECONDS = 60.0
SHARD_BYTES = 512 << 20


class ShardWriter:
    """Adds clips to a store folder; use it in a ``with`` block, which seals what is left, also on an interruption.

    Args:
        folder: The store.
        spec: What all clips of the store share.
        slice_name: Tells apart the temporary files of writers that share the folder.
        provenance: JSON text with versions and machine, kept in each shard.
        clips_per_shard, seconds_per_shard, bytes_per_shard: A shard is sealed when it has so many clips, is that old,
            or has so many bytes of features, whichever is first.
    """

    def __init__(
        self,
        folder: Path,
        spec: Spec,
        *,
        slice_name: str = "1of1",
        provenance: str = "{}",
        clips_per_shard: int = SHARD_CLIPS,
        seconds_per_shard: float = SHARD_SECONDS,
        bytes_per_shard: int = SHARD_BYTES,
    ) -> None:
        self.folder = folder
        self.spec = spec
        self.provenance = provenance
        self.sealed = 0
        self._clips_per_shard, self._seconds_per_shard = clips_per_shard, seconds_per_shard
        self._bytes_per_shard = bytes_per_shard
        self._temporary = folder / f".open-{slice_name}.tmp"
        self._clips: dict[str, tuple[ClipFeatures, Origin]] = {}
        self._begun, self._bytes = time.monotonic(), 0

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.seal()

    def add(self, clip_id: str, clip: ClipFeatures, origin: Origin) -> None:
        """Take one clip; seals the shard when it has reached one of the limits.

        Raises:
            ValueError: When the id is empty or holds a NUL, or the features are not of the store's width.
            EnvironmentFault: When the shard cannot be written.
        """
        if not clip_id or "\0" in clip_id:
            raise ValueError(f"{clip_id!r} is no clip id: it must not be empty or hold a NUL")
        if clip.features.shape[1] != self.spec.dim:
            raise ValueError(f"{clip_id}: features are {clip.features.shape[1]} wide, the store holds {self.spec.dim}")
        if not self._clips:
            self._begun, self._bytes = time.monotonic(), 0
        self._clips[clip_id] = (clip, origin)
        self._bytes += clip.features.nbytes + clip.seconds.nbytes
        if (
            len(self._clips) >= self._clips_per_shard
            or self._bytes >= self._bytes_per_shard
            or time.monotonic() - self._begun > self._seconds_per_shard
        ):
            self.seal()

    def seal(self) -> None:
        """Write the gathered clips as one shard: temporary file, sync, read back, rename, sync the folder.

        Raises:
            EnvironmentFault: When it cannot be written; no half-written shard is ever visible.
        """
        if not self._clips:
            return
        others = shard_paths(self.folder)
        if others and (different := read_shard(others[0]).spec.differences(self.spec)):
            raise StoreMismatch(f"{self.folder}: another process writes features made in another way: {different[0]}.")
        sequence = next_sequence(self.folder)
        with naming_faults(self.folder, self._bytes):
            try:
                write_shard_file(self._temporary, self.spec, self._clips, self.provenance)
                self._check_written(sequence)
                publish(self._temporary, self.folder / f"{sequence:06d}-{hash_file(self._temporary)}.h5")
            finally:
                self._temporary.unlink(missing_ok=True)
        self._clips = {}
        self.sealed += 1

    def _check_written(self, sequence: int) -> None:
        sync(self._temporary)
        shard = read_shard(self._temporary, sequence)
        for index, clip_id in enumerate(shard.ids):
            if shard.clip(index).digest(clip_id) != self._clips[clip_id][0].digest(clip_id):
                raise StoreDamaged(f"{self._temporary}: {clip_id!r} reads back otherwise than written. Check the disk.")
