"""Setting the damaged shards of a store aside, so that an extraction makes their clips anew."""

import contextlib
from pathlib import Path

from .lost import set_aside
from .shard import is_unchanged, shard_paths
from .verify import verify_store


def set_damaged_aside(folder: Path) -> list[Path]:
    """Read every byte of a store and rename its damaged shards; gives their new paths.

    Raises:
        EnvironmentFault: When a shard may not be read, or the folder not be written.
    """
    if not shard_paths(folder):
        return []
    return set_aside([folder / entry["shard"] for entry in verify_store(folder).damaged])


def set_changed_aside(folder: Path) -> list[Path]:
    """Rename the shards of a store whose bytes are not as their names say; gives their new paths.

    A shard that is as it was written stays, whatever is the matter with it, and so does one that cannot be read now.
    """
    changed = []
    for path in shard_paths(folder):
        with contextlib.suppress(OSError):  # a disk that does not answer proves nothing
            if not is_unchanged(path):
                changed.append(path)
    return set_aside(changed)
