"""Checking that every byte of a store is what was written."""

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import StoreDamaged, StoreMismatch
from .records import combine_digests
from .shard import Shard, hash_file, read_shard, shard_paths


@dataclass(frozen=True)
class Verification:
    """What a check of all shards found."""

    shards: int
    clips: int  #: whole clips, each counted once.
    digest: str  #: over the whole clips, computed from their bytes as they are now.
    damaged: list[dict] = field(
        default_factory=list
    )  #: ``shard``, ``problem`` and the ``clips`` it touches, where known.


def verify_store(folder: Path) -> Verification:
    """Read every shard: the digest of all its bytes against its name, and each clip against its own digest.

    Raises:
        StoreMismatch: When the folder holds no shard.
    """
    paths = shard_paths(folder)
    if not paths:
        raise StoreMismatch(
            f"{folder}: is not a store, or has no clip yet. Make it with `longreel extract MANIFEST {folder}`."
        )
    digests: dict[str, bytes] = {}
    damaged = []
    for path in paths:
        if hash_file(path) != path.stem.split("-")[1]:  # HDF5 can crash on one changed bit, so this is not opened
            damaged.append({"shard": path.name, "problem": "its bytes are not what was written", "clips": []})
            continue
        try:
            whole, broken = _check_clips(read_shard(path))
        except StoreDamaged as error:
            damaged.append({"shard": path.name, "problem": str(error), "clips": []})
            continue
        digests.update(whole)
        if broken:
            damaged.append({"shard": path.name, "problem": "clips are not what was written", "clips": broken})
    return Verification(len(paths), len(digests), combine_digests(digests.values()), damaged)


def _check_clips(shard: Shard) -> tuple[dict[str, bytes], list[str]]:
    """The digests of the whole clips, and the ids of the others."""
    found = {clip_id: shard.clip(index).digest(clip_id) for index, clip_id in enumerate(shard.ids)}
    broken = [clip_id for index, clip_id in enumerate(shard.ids) if found[clip_id] != shard.digest(index)]
    return {clip_id: digest for clip_id, digest in found.items() if clip_id not in broken}, broken
