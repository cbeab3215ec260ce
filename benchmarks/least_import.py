"""The least that any import into float16 does: read each .npy file, convert, hash once, write one file, sync it.

python benchmarks/least_import.py FOLDER FILE
No check of a header, of values or of what was written, and no store: the machine's limit for import_speed.py.
"""

import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

THREADS = 4


def main() -> None:
    """Bring over every file below the folder, in threads, each to a place of its own."""
    folder, target = map(Path, sys.argv[1:])
    paths = sorted(folder.rglob("*.npy"))
    room = max(path.stat().st_size for path in paths) // 2
    with open(target, "wb", buffering=0) as file, ThreadPoolExecutor(THREADS) as pool:

        def bring(number: int) -> bytes:
            rows = np.load(paths[number]).astype(np.float16).data
            os.pwrite(file.fileno(), rows, number * room)
            return hashlib.sha256(rows).digest()

        digests = list(pool.map(bring, range(len(paths))))
        os.fsync(file.fileno())
    print(hashlib.sha256(b"".join(digests)).hexdigest())


if __name__ == "__main__":
    main()
