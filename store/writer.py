"""Writing a store: clips gather in memory and are sealed, a shard at a time.

A shard is sealed by a thread of its own while the next one gathers, so a crash costs at most these two.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from ..durable import naming_faults, publish
from ..errors import StoreMismatch
from .image import Entry, build_shard, check_image, write_image
from .records import ClipFeatures, Origin, Spec
from .shard import next_sequence, read_shard, shard_paths


@dataclass(frozen=True)
class SealLimits:
    """A shard is sealed when it has so many clips, so many bytes, or is so old; a crash may cost two of them."""

    clips: int = 64
    size: int = 256 << 20
    seconds: float = 60.0


LIMITS = SealLimits()


class ShardWriter:
    """Adds clips to a store folder; use it in a ``with`` block, which seals what is left, also on an interruption.

    A shard that cannot be written is reported by the next ``add`` that fills one, or at the end of the block. Its
    clips are given up: the next run makes them. The block ends when nothing is being written any more.

    Args:
        folder: The store.
        spec: What all clips of the store share.
        slice_name: Tells apart the temporary files of writers that share the folder.
        provenance: JSON text with versions and machine, kept in each shard.
        limits: When a shard is full.
    """

    def __init__(
        self,
        folder: Path,
        spec: Spec,
        *,
        slice_name: str = "1of1",
        provenance: str = "{}",
        limits: SealLimits = LIMITS,
    ) -> None:
        self.folder = folder
        self.spec = spec
        self.provenance = provenance
        self.limits = limits
        self._temporary = folder / f".open-{slice_name}.tmp"
        self._entries: dict[str, Entry] = {}
        self._bytes = 0
        self._begun = time.monotonic()
        self._sealer = ThreadPoolExecutor(1, thread_name_prefix="sealer")
        self._sealing: list[Future[None]] = []

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        interruption, ended = None, False
        while not ended:
            try:
                self._seal()
                wait(self._sealing)
                ended = True
            except KeyboardInterrupt as error:  # a slice's lock must not be free while its writer still writes
                interruption = error
        self._sealer.shutdown()
        self._report()
        if interruption is not None:
            raise interruption

    def add(self, clip_id: str, clip: ClipFeatures, origin: Origin, digest: bytes | None = None) -> None:
        """Take one clip; seals the shard when it is full or old enough.

        ``digest`` is ``clip.digest(clip_id)``, for a caller that has computed it in a thread.

        Raises:
            ValueError: When the id is empty or holds a NUL, or the features are not of the store's width and dtype.
            EnvironmentFault: When a shard cannot be written; no half-written one is ever visible.
            StoreMismatch: When another process has begun to write other features into the folder.
        """
        if not clip_id or "\0" in clip_id:
            raise ValueError(f"{clip_id!r} is no clip id: it must not be empty or hold a NUL")
        if clip.features.shape[1] != self.spec.dim:
            raise ValueError(f"{clip_id}: features are {clip.features.shape[1]} wide, the store holds {self.spec.dim}")
        if clip.features.dtype != self.spec.row_type:
            raise ValueError(f"{clip_id}: features are {clip.features.dtype}, the store holds {self.spec.dtype}")
        if not self._entries:
            self._begun = time.monotonic()
        self._entries[clip_id] = Entry(clip, origin, digest or clip.digest(clip_id))
        self._bytes += clip.features.nbytes + clip.seconds.nbytes
        full = len(self._entries) >= self.limits.clips or self._bytes >= self.limits.size
        if full or time.monotonic() - self._begun > self.limits.seconds:
            wait(self._sealing)
            self._report()
            self._seal()

    def _seal(self) -> None:
        """Hand what has gathered to the sealing thread."""
        if self._entries:
            self._sealing.append(self._sealer.submit(self._write_shard, self._entries))
            self._entries, self._bytes = {}, 0

    def _report(self) -> None:
        """Raise what went wrong with a shard that is no longer being written."""
        while self._sealing:
            self._sealing.pop(0).result()

    def _write_shard(self, entries: dict[str, Entry]) -> None:
        """Temporary file, on the disk; read back, rename, sync the folder."""
        others = shard_paths(self.folder)
        if others and (different := read_shard(others[0]).spec.differences(self.spec)):
            raise StoreMismatch(f"{self.folder}: another process writes features made in another way: {different[0]}.")
        sequence = next_sequence(self.folder)
        image = build_shard(self.spec, entries, self.provenance)
        with naming_faults(self.folder, sum(map(len, image.pieces))):
            try:
                digest = write_image(self._temporary, image)
                check_image(self._temporary, image, entries)
                publish(self._temporary, self.folder / f"{sequence:06d}-{digest}.h5")
            finally:
                self._temporary.unlink(missing_ok=True)
