"""Damaged shards: which clips are lost with them, and setting them aside so that the clips are made anew."""

import contextlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..durable import naming_faults, sync
from .shard import aside_paths, sequence_of


@dataclass(frozen=True)
class Lost:
    """A damaged shard that was set aside and held a certain clip."""

    sequence: int  #: a whole shard with this or a higher sequence has the clip anew.
    time: float  #: when it was set aside, in seconds since 1970; a failure noted before then says nothing.


def read_lost_ids(paths: Sequence[Path]) -> list[list[str]]:
    """The clip ids of each damaged shard, as far as they can be read; an empty list where nothing can.

    A changed bit can crash or hang HDF5, so another process reads them; a new one goes on behind a shard that ended it.
    An id may itself be what was damaged: the list is good for a message and for extracting again, for nothing else.
    """
    found: list[list[str]] = []
    while len(found) < len(paths):
        names = [os.fspath(path.absolute()) for path in paths[len(found) :]]
        command = [sys.executable, "-P", "-m", f"{__package__}.salvage"]
        done = subprocess.run(command, input=json.dumps(names).encode(), capture_output=True)
        if done.returncode > 0:  # a crash ends in a signal; this is no matter of the shard
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.decode()[-500:]}")
        *lines, _torn = done.stdout.split(b"\n")
        found += map(json.loads, lines)
        if len(lines) < len(names):
            found.append([])  # the process ended at this one
    return found


def set_aside(paths: Sequence[Path]) -> list[Path]:
    """Rename damaged shards to `damaged-...`, which no reader takes; gives their new paths. Nothing is deleted.

    Raises:
        EnvironmentFault: When the folder may not be written.
    """
    moved = []
    for path in paths:
        target = path.with_name(f"damaged-{path.name}")
        for number in itertools.count(2):
            if not os.path.lexists(target):
                break
            target = path.with_name(f"damaged-{path.name}.{number}")
        with naming_faults(path, 0), contextlib.suppress(FileNotFoundError):  # another slice may have been faster
            path.rename(target)
            sync(path.parent)
            moved.append(target)
    return moved


def find_lost(folder: Path) -> dict[str, Lost]:
    """The clips of the shards that have been set aside, as far as their ids can be read; nothing in a whole store."""
    paths = aside_paths(folder)
    return {
        clip_id: Lost(sequence_of(path), path.stat().st_ctime)
        for path, ids in zip(paths, read_lost_ids(paths), strict=True)
        for clip_id in ids
    }
