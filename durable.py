"""Files that survive a crash: written whole or not at all, and owned by one process at a time."""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from .errors import EnvironmentFault, InUse, LongreelError


def sync(path: Path) -> None:
    """Make a file's bytes or a folder's names durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(temporary: Path, final: Path) -> None:
    """Sync a finished temporary file and give it its final name, in one step that a crash cannot halve."""
    sync(temporary)
    os.replace(temporary, final)
    sync(final.parent)  # a rename is only safe once its folder is synced


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` whole or not at all.

    Raises:
        EnvironmentFault: When the disk is full or the folder cannot be written; the old file is then untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with naming_faults(path, len(content)):
        try:
            temporary.write_bytes(content)
            publish(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, document: object) -> None:
    """Write ``document`` as indented JSON, whole or not at all."""
    write_bytes(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())


def make_folder(folder: Path) -> None:
    """Make ``folder`` and its parents, with a clear error where that is not allowed."""
    with naming_faults(folder, 0):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise LongreelError(f"{folder}: is, or lies in, a file. Give a folder.") from None


@contextlib.contextmanager
def naming_faults(path: Path, needed: int) -> Iterator[None]:
    """Turn an ``OSError`` into an ``EnvironmentFault`` that names the path, the cause and the bytes needed."""
    try:
        yield
    except OSError as error:
        size = f" ({needed} bytes needed)" if needed else ""
        raise EnvironmentFault(
            f"{path}: cannot be written{size}: {error.strerror or error}. Free space or choose another folder, "
            f"then run the same command."
        ) from error


def write_at(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    """Write all of ``content``; a disk that fills up takes a part of it without an error, and refuses the next part."""
    while content:
        done = os.pwrite(descriptor, content, offset)
        content, offset = content[done:], offset + done


@contextlib.contextmanager
def owned(path: Path, what: str, kind: type[InUse] = InUse) -> Iterator[None]:
    """Hold the lock file ``path`` for this process; the kernel lets go of it when the process ends, however it ends.

    A process that is stopped still holds it, so nobody else can have begun to write when it goes on.

    Raises:
        InUse: When another process holds it, as the given ``kind``; the text names that process, its machine, since
            when and for how long.
        EnvironmentFault: When the file cannot be made or its file system knows no locks.
    """
    with naming_faults(path, 0):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with naming_faults(path, 0):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise kind(f"{what} is in use by {_read_owner(descriptor)}. Wait for it to end, or stop it.") from None
        owner = f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}".encode()
        with naming_faults(path, len(owner)):
            os.ftruncate(descriptor, 0)
            write_at(descriptor, owner, 0)
        yield
    finally:
        os.close(descriptor)


def _read_owner(descriptor: int) -> str:
    owner = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
    age = max(0.0, time.time() - os.fstat(descriptor).st_mtime)
    return f"{owner}, for {age:.0f} s"
