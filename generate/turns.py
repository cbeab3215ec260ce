"""Who makes which clips of a folder, and that all of them are made in one way."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from ..durable import naming_faults, owned, write_json
from ..errors import LongreelError, RunMismatch
from ..slices import Slice

CLAIM = "videos.json"  #: of a folder of generated clips: how its videos are made.


@contextlib.contextmanager
def take_turn(folder: Path, part: Slice, settings: dict) -> Iterator[None]:
    """Hold a slice of the folder's clips for this process, after the folder was claimed for these settings.

    Slices of one count share no clip and go side by side; those of another count would, and are refused while one of
    them is being worked on.

    Raises:
        InUse: When another process works on the slice, or on one of another count.
        RunMismatch: When the folder's clips are made in another way.
        EnvironmentFault: When the folder cannot be written.
    """
    with contextlib.ExitStack() as held:
        with _alone(folder / ".videos.lock"):
            for other in sorted(folder.glob(".videos-*of*.lock")):
                if other.stem.partition("of")[2] != str(part.count):
                    with owned(other, f"{folder}, {other.stem.removeprefix('.videos-')},"):
                        pass
            name = f"shard {part.number}/{part.count} of {folder}"
            held.enter_context(owned(folder / f".videos-{part}.lock", name))
            _claim(folder / CLAIM, settings)
        yield


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process is in here; processes that start together come one by one."""
    with naming_faults(path, 0):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with naming_faults(path, 0):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _claim(path: Path, settings: dict) -> None:
    """Write the settings where there are none; the model's name is not compared, its weights are."""
    wanted = json.loads(json.dumps(settings))
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        write_json(path, wanted)
        return
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise LongreelError(f"{path}: cannot be read. It says how the videos beside it are made: restore it.")
    keys = [key for key in sorted({*found, *wanted} - {"model"}) if found.get(key) != wanted.get(key)]
    if keys:
        differences = ", ".join(f"{key} {found.get(key)!s:.40} there and {wanted.get(key)!s:.40} here" for key in keys)
        raise RunMismatch(
            f"{path}: its videos are made in another way: {differences}. Give the same, or another folder."
        )
