"""Answers of language models, kept as they came before anybody looks into them: what was paid for is paid once."""

import contextlib
import hashlib
import json
import os
import threading
from pathlib import Path

from ..durable import naming_faults, sync, write_at
from ..errors import ManifestError

RESPONSES = "responses.jsonl"  #: of a folder of generated clips: one raw answer a line, only ever appended to.


class Responses:
    """The answers kept in a folder, by the hash of what was asked. Several threads may use it, one process at a time.

    Raises:
        ManifestError: When a whole line of the file is no answer.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / RESPONSES
        self._lock = threading.Lock()
        mend_tail(self.path, keep_whole=True)
        self._raw = _read(self.path)

    def __len__(self) -> int:
        return len(self._raw)

    def find(self, key: str) -> str | None:
        """The raw answer to what has this hash, if there is one."""
        return self._raw.get(key)

    def keep(self, key: str, raw: str, about: dict) -> None:
        """Write an answer down; when this returns it is on the disk."""
        line = json.dumps({"key": key, **about, "raw": raw}, ensure_ascii=True) + "\n"
        with self._lock:
            append(self.path, line)
            self._raw[key] = raw


def make_key(document: dict) -> str:
    """The hash of what is asked: model, host, messages with the hashes of their images, parameters, schema, seed."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def append(path: Path, text: str) -> None:
    """Add whole lines to a file, durably; where the disk is full the file is left as it was.

    Raises:
        EnvironmentFault: When the lines cannot be written.
    """
    content = text.encode("ascii")
    with naming_faults(path, len(content)):
        new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            try:
                write_at(descriptor, content, size)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
        if new:
            sync(path.parent)


def mend_tail(path: Path, *, keep_whole: bool = False) -> None:
    """Cut off a last line that a killed writer left unfinished.

    With ``keep_whole``, a line that only lacks its end of line gets that instead, since it was paid for.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    tail = content[content.rfind(b"\n") + 1 :]
    if not tail:
        return
    with naming_faults(path, 0):
        if keep_whole and _is_document(tail):
            append(path, "\n")
            return
        os.truncate(path, len(content) - len(tail))
        sync(path)


def _is_document(line: bytes) -> bool:
    with contextlib.suppress(ValueError, RecursionError):
        return isinstance(json.loads(line), dict)
    return False


def _read(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    found = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                document = json.loads(line)
                found.setdefault(str(document["key"]), str(document["raw"]))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise ManifestError(f"{path}:{number}: is no kept answer ({error!r}). Remove the line.") from None
    return found
