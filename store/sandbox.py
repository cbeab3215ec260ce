"""Reading HDF5 files that others wrote, in a process that may crash, hang or run out of memory without harm."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ForeignRefused

PATIENCE_SECONDS = 60.0  #: for an answer; a reader that takes longer is killed.


@dataclass(frozen=True)
class ForeignDataset:
    """What a dataset of a foreign file says of itself."""

    name: str  #: its path in the file, without the leading slash.
    shape: tuple[int, ...]
    size: int  #: bytes of its values.
    problem: str | None  #: why it gives no array of floats.


class DatasetUnreadable(Exception):
    """One dataset gives no array; the text says why, the others may be read."""


class ForeignFile:
    """A file of others, in a ``with`` block. ``read`` may be called from several threads.

    Args:
        path: The HDF5 file.
        patience: Seconds to wait for an answer.

    Raises:
        ForeignRefused: When it is no HDF5 file, crashes or stops the reader, or anything in it leads out of it; the
            text names the file and the object.
    """

    def __init__(self, path: Path, patience: float = PATIENCE_SECONDS) -> None:
        if not path.is_file():
            raise ForeignRefused(f"{path}: no such file. Give an HDF5 file.")
        self.path = path
        self._patience = patience
        self._lock = threading.Lock()
        self._reader: _Reader | None = None
        self.datasets: tuple[ForeignDataset, ...] = ()
        try:
            self.datasets = tuple(self._list())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "ForeignFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the reading process, whatever it is doing."""
        if self._reader is not None:
            self._reader.end()
            self._reader = None

    def read(self, name: str, most: int) -> NDArray[Any]:
        """The values of one dataset, of at most ``most`` bytes.

        Raises:
            DatasetUnreadable: When they cannot be read; a reader that crashed or hangs is replaced.
        """
        with self._lock:
            try:
                reader = self._ask(kind="read", name=name, most=most)
                message = json.loads(reader.receive())
                if message["kind"] != "array":
                    raise DatasetUnreadable(message["reason"])
                content = reader.receive()
            except _Lost as lost:
                self.close()
                raise DatasetUnreadable(str(lost)) from None
        return np.frombuffer(content, message["dtype"]).reshape(message["shape"])

    def _list(self) -> list[ForeignDataset]:
        found = []
        try:
            reader = self._ask(kind="list")
            while (message := json.loads(reader.receive()))["kind"] == "datasets":
                found += [ForeignDataset(**entry | {"shape": tuple(entry["shape"])}) for entry in message["datasets"]]
        except _Lost as lost:
            raise self._refusal(str(lost)) from None
        if message["kind"] == "refused":
            raise self._refusal(message["reason"])
        return found

    def _refusal(self, reason: str) -> ForeignRefused:
        return ForeignRefused(
            f"{self.path}: {reason}. Nothing of it was read; write its float datasets to a new file with its own tool."
        )

    def _ask(self, **task: object) -> "_Reader":
        self._reader = self._reader or _Reader(self.path, self._patience)
        self._reader.send(task)
        return self._reader


class _Lost(Exception):
    """The reader died or does not answer; the text says how."""


class _Reader:
    """The reading process and the connection to it."""

    def __init__(self, path: Path, patience: float) -> None:
        self._patience = patience
        ours, theirs = socket.socketpair()
        self._stderr = tempfile.TemporaryFile()
        command = [sys.executable, "-P", "-m", f"{__package__}.foreign", str(theirs.fileno()), os.path.abspath(path)]
        quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._stderr,
            stderr=self._stderr,
            # "::" is HDF5's word for: load no plugin.
            env=os.environ | quiet | {"HDF5_PLUGIN_PRELOAD": "::", "HDF5_PLUGIN_PATH": ""},
        )
        theirs.close()
        self._connection = Connection(ours.detach())

    def send(self, task: dict) -> None:
        try:
            self._connection.send_bytes(json.dumps(task).encode())
        except OSError:
            raise _Lost(self._cause_of_death()) from None

    def receive(self) -> bytes:
        begun = time.monotonic()
        try:
            while not self._connection.poll(0.2):
                if time.monotonic() - begun > self._patience:
                    raise _Lost(f"reading it took more than {self._patience:g} s")
            return self._connection.recv_bytes()
        except (EOFError, OSError):
            raise _Lost(self._cause_of_death()) from None

    def _cause_of_death(self) -> str:
        try:
            code = self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            return "the reader closed its connection"
        end = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        self._stderr.seek(0)
        words = " ".join(self._stderr.read().decode(errors="replace").split())
        return f"the HDF5 library {end} on it{': ' if words else ''}{words[-200:]}"

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        self._connection.close()
        self._stderr.close()
