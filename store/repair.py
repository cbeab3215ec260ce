"""Setting the damaged shards of a store aside, so that an extraction makes their clips anew."""

import contextlib
from pathlib import Path

from ..errors import StoreDamaged
from .lost import set_aside
from .shard import is_unchanged, read_shard, shard_paths
from .verify import verify_store


def set_damaged_aside(folder: Path) -> list[Path]:
    """Read every byte of a store and rename its damaged shards; gives their new paths.

    Raises:
        EnvironmentFault: When a shard may not be read, or the folder not be written.
    """
    if not shard_paths(folder):
        return []
    return set_aside([folder / entry["shard"] for entry in verify_store(folder).damaged])


def set_unreadable_aside(folder: Path) -> list[Path]:
    """Rename the shards of a store that cannot be opened; gives their new paths. Reads the headers of the others.

    A shard whose bytes are all as they were written stays, whatever is the matter with it.
    """
    unreadable = []
    for path in shard_paths(folder):
        try:
            read_shard(path)
        except StoreDamaged:
            with contextlib.suppress(OSError):  # a disk that does not answer proves nothing
                if not is_unchanged(path):
                    unreadable.append(path)
    return set_aside(unreadable)
