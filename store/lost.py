"""Damaged shards: which clips are lost with them, and setting them aside so that the clips are made anew."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


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
        *lines, _torn = done.stdout.split(b"\n")
        found += map(json.loads, lines)
        if len(lines) < len(names):
            found.append([])  # the process ended at this one
    return found
