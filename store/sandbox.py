"""Reading HDF5 files that others wrote, in a process that may crash, hang or run out of memory without harm."""

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..child import Child, Lost, Overdue
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
        self._reader: Child | None = None
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

    def read(self, name: str, most: int, wanted: str = "float") -> NDArray[Any]:
        """The values of one dataset, of at most ``most`` bytes; ``wanted`` is ``float`` or ``integer``.

        Raises:
            DatasetUnreadable: When they cannot be read; a reader that crashed or hangs is replaced.
        """
        message, content = self._read(name, most, wanted)
        return np.frombuffer(content, message["dtype"]).reshape(message["shape"])

    def read_texts(self, name: str, most: int) -> list[str]:
        """The texts of one dataset ``(N,)``, of at most ``most`` bytes; raises as ``read`` does."""
        return self._read(name, most, "text")[0]["texts"]

    def _read(self, name: str, most: int, wanted: str) -> tuple[dict, bytes]:
        with self._lock:
            try:
                message = self._ask(kind="read", name=name, most=most, wanted=wanted)
                if message["kind"] not in ("array", "texts"):
                    raise DatasetUnreadable(message["reason"])
                return message, self._receive() if message["kind"] == "array" else b""
            except Lost as lost:
                reason = self._describe(lost)
                self.close()
                raise DatasetUnreadable(reason) from None

    def _list(self) -> list[ForeignDataset]:
        found = []
        try:
            message = self._ask(kind="list")
            while message["kind"] == "datasets":
                found += [ForeignDataset(**entry | {"shape": tuple(entry["shape"])}) for entry in message["datasets"]]
                message = json.loads(self._receive())
        except Lost as lost:
            raise self._refusal(self._describe(lost)) from None
        if message["kind"] == "refused":
            raise self._refusal(message["reason"])
        return found

    def _refusal(self, reason: str) -> ForeignRefused:
        return ForeignRefused(
            f"{self.path}: {reason}. Nothing of it was read; write its float datasets to a new file with its own tool."
        )

    def _ask(self, **task: object) -> dict:
        if self._reader is None:
            # "::" is HDF5's word for: load no plugin.
            no_plugins = {"HDF5_PLUGIN_PRELOAD": "::", "HDF5_PLUGIN_PATH": ""}
            self._reader = Child(f"{__package__}.foreign", os.path.abspath(self.path), environment=no_plugins)
        self._reader.send(**task)
        return json.loads(self._receive())

    def _receive(self) -> bytes:
        assert self._reader is not None
        return self._reader.receive(self._patience)[0]

    def _describe(self, lost: Lost) -> str:
        if isinstance(lost, Overdue):
            return f"reading it took more than {self._patience:g} s"
        words = " ".join(self._reader.stderr_tail().split()) if self._reader else ""
        return f"the HDF5 library {lost} on it{': ' if words else ''}{words[-200:]}"
