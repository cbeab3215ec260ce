"""Decoding in workers as the tests watch it."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from longreel.extract.preprocessing import Preprocessing
from longreel.extract.sampling import Sampling
from longreel.extract.workers import Decoded, DecodeSettings, DecodeTask, Event, Failed

SETTINGS = DecodeSettings(Sampling(fps=1000), Preprocessing(16, 16))
PATIENCE = 120.0  #: seconds; the machine may be busy.

#: A process that decodes a clip four times in two workers, says so, and waits.
PARENT = """
import sys, time
from longreel.extract.preprocessing import Preprocessing
from longreel.extract.sampling import Sampling
from longreel.extract.workers import DecodeSettings, DecodeTask, decode_clips
settings = DecodeSettings(Sampling(fps=1000), Preprocessing(16, 16))
events = decode_clips([DecodeTask(str(n), sys.argv[1]) for n in range(4)], settings, 2)
next(events)
print("begun", flush=True)
time.sleep(600)
"""


def workers_of(parent: int) -> list[int]:
    """The decode processes that a process has started and that still run."""
    children = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(child) for path in children for child in path.read_text().split() if is_worker(int(child))]


def is_worker(process: int) -> bool:
    try:
        return b"longreel.extract.worker\0" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


def wait_until(condition: Callable[[], object], what: str) -> None:
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < PATIENCE, f"{what} has not come in {PATIENCE:g} s"
        time.sleep(0.05)


def ends(events: Iterator[Event]) -> dict[str, Decoded | Failed]:
    return {event.clip_id: event for event in events if isinstance(event, Decoded | Failed)}


def tasks_for(*paths: Path) -> Sequence[DecodeTask]:
    return [DecodeTask(f"{number}:{path.name}", str(path)) for number, path in enumerate(paths)]
