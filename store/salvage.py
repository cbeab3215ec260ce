"""Reads the clip ids of damaged shards, in a process of its own that may crash: `store/lost.py` starts it.

Reads a JSON list of paths from stdin and prints a JSON list of ids for each, one a line.
"""

import io
import json
import resource
import signal
import sys

import h5py

from .shard import plain_dataset
from .verify import END_ADDRESS

SECONDS = 60
MEMORY_BYTES = 4 << 30
MOST_PADDING = 1 << 30


def read_ids(content: bytes) -> list[str]:
    """The ids of a shard with these bytes. What was cut off is filled up with zeros, without which HDF5 opens nothing.

    Raises:
        Exception: Whatever HDF5 makes of damaged bytes.
    """
    begin = END_ADDRESS[content[8]]
    end = int.from_bytes(content[begin : begin + 8], "little")
    if end - len(content) <= MOST_PADDING:
        content = content.ljust(end, b"\0")
    with h5py.File(io.BytesIO(content)) as file:
        ids = [bytes(text) for text in plain_dataset(file, "ids", kind="S")[:]]
    return [text.decode(errors="replace") for text in ids if text]


def _read_path(path: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            return read_ids(file.read())
    except Exception:  # damage may show as any error, and no ids is the answer to all of them
        return []


def main() -> None:
    """Answer for each path of stdin; the alarm ends the process where HDF5 hangs."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for path in json.load(sys.stdin):
        signal.alarm(SECONDS)
        print(json.dumps(_read_path(path)), flush=True)


if __name__ == "__main__":
    main()
