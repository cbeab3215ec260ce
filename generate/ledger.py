"""The clips that could not be made: one line for each attempt, shared by all processes that make clips."""

import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from ..durable import naming_faults, write_at

FAILURES = "failures.jsonl"  #: of a folder of generated clips.


@dataclass(frozen=True)
class Failure:
    """A clip that could not be made."""

    clip_id: str
    error: str
    attempts: int


def read_failures(folder: Path) -> dict[str, Failure]:
    """The last failure of each clip; a clip that was made since is still listed. Torn lines are left out."""
    found: dict[str, Failure] = {}
    try:
        text = (folder / FAILURES).read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return found
    for line in text.split("\n"):
        try:
            row = json.loads(line)
            failure = Failure(str(row["clip_id"]), str(row["error"]), int(row["attempts"]))
        except (ValueError, TypeError, KeyError):
            continue
        found[failure.clip_id] = failure
    return found


def append_failure(folder: Path, failure: Failure) -> None:
    """Add a line, durably. A line that a killed process left unfinished is ended first.

    Raises:
        EnvironmentFault: When it cannot be written.
    """
    line = json.dumps(vars(failure) | {"time": time.strftime("%FT%T%z")}).encode() + b"\n"
    path = folder / FAILURES
    with naming_faults(path, len(line)):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # until it is closed
            end = os.fstat(descriptor).st_size
            if end and os.pread(descriptor, 1, end - 1) != b"\n":
                line = b"\n" + line
            write_at(descriptor, line, end)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
