"""The ledger of clips that could not be extracted: one JSON line each, appended and synced."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..durable import naming_faults, write_at
from ..errors import StoreDamaged

TAIL = 4096


@dataclass(frozen=True)
class Failure:
    """Why one clip has no features."""

    clip_id: str
    path: str
    reason: str
    stderr: str = ""  #: the last lines that the decoder wrote.
    size: int = -1  #: of the video file, so that a mended file is tried again; -1 when there was none.
    mtime_ns: int = -1
    start: float | None = None  #: the span that was asked for, in seconds.
    end: float | None = None
    time: float = 0.0  #: seconds since 1970.


def append_failure(folder: Path, slice_name: str, failure: Failure) -> None:
    """Add one line to the slice's ledger, durably. A line torn by a crash is cut off first."""
    append_failures(folder, slice_name, [failure])


def append_failures(folder: Path, slice_name: str, failures: Sequence[Failure]) -> None:
    """Add a line for each failure, with one sync for all; nothing is touched where there is none."""
    if not failures:
        return
    path = folder / f"failed-{slice_name}.jsonl"
    lines = b"".join(json.dumps(asdict(failure)).encode() + b"\n" for failure in failures)
    with naming_faults(path, len(lines)):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            whole = _whole_lines(descriptor)
            os.ftruncate(descriptor, whole)
            write_at(descriptor, lines, whole)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _whole_lines(descriptor: int) -> int:
    """Bytes of the file up to its last line end, found from behind: a ledger may have a million lines."""
    end = os.fstat(descriptor).st_size
    while end:
        begin = max(0, end - TAIL)
        if place := os.pread(descriptor, end - begin, begin).rfind(b"\n") + 1:
            return begin + place
        end = begin
    return 0


def read_failures(folder: Path) -> dict[str, Failure]:
    """The latest failure of each clip, over all slices. A clip that was extracted since is still listed here."""
    failures = {}
    for path in sorted(folder.glob("failed-*.jsonl")):
        *lines, _torn = path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                failure = Failure(**json.loads(line))
                if failure.clip_id not in failures or failures[failure.clip_id].time <= failure.time:
                    failures[failure.clip_id] = failure
            except (ValueError, TypeError) as error:
                raise StoreDamaged(
                    f"{path}:{number}: is not a ledger line ({error}). Remove the line; its clip is tried again."
                ) from None
    return failures
