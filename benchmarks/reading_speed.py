"""Random batches of 128 clips x 60 rows x 2048 from a store, against a plain numpy memory map of the same numbers.

python benchmarks/reading_speed.py build/reading-speed

Warm: CPU seconds, everything in the page cache. Cold: wall seconds, the page cache emptied before each batch, and each
batch in a process of its own, since pages that are mapped stay.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from longreel.memory import keep_freed_memory
from longreel.store import ClipFeatures, FeatureStore, Origin, RowReader, ShardWriter, Spec

CLIPS, LENGTH, DIM = 600, 150, 2048
BATCH, DRAWN = 128, 60
Draw = tuple[NDArray[np.int64], NDArray[np.int64]]


def write_both(folder: Path) -> None:
    """The same 369 MB as a store and as one .npy file."""
    (folder / "store").mkdir(parents=True)
    plain = np.lib.format.open_memmap(folder / "all.npy", "w+", "<f2", (CLIPS * LENGTH, DIM))
    generator = np.random.default_rng(0)
    seconds = np.arange(LENGTH, dtype=np.float64)
    with ShardWriter(folder / "store", Spec("random", "0", DIM, "given", "none", "none")) as writer:
        for clip in range(CLIPS):
            rows = generator.random((LENGTH, DIM), dtype=np.float32).astype(np.float16)
            plain[clip * LENGTH : (clip + 1) * LENGTH] = rows
            writer.add(name(clip), ClipFeatures(rows, seconds), Origin("none", 1.0, 0, 0, "00" * 32))
    plain.flush()


def name(clip: int) -> str:
    """A clip's id."""
    return f"{clip:04d}"


def draw(seed: int) -> Draw:
    """A batch: ``(B,)`` clips, ``(B, T)`` rows in time order."""
    generator = np.random.default_rng(seed)
    clips = generator.choice(CLIPS, BATCH, replace=False)
    return clips, np.sort(generator.integers(0, LENGTH, (BATCH, DRAWN)), axis=1)


def readers(folder: Path) -> dict[str, Callable[[Draw], NDArray]]:
    """name -> what reads a batch."""
    plain = np.load(folder / "all.npy", mmap_mode="r")
    store = RowReader(FeatureStore(folder / "store"), [name(clip) for clip in range(CLIPS)])

    def ahead(batch: Draw) -> NDArray:
        store.read_ahead(batch[0])
        return store.read(*batch)

    return {
        "numpy memory map": lambda batch: plain[(batch[0] * LENGTH)[:, None] + batch[1]],
        "store": lambda batch: store.read(*batch),
        "store, read ahead": ahead,
    }


def warm(folder: Path, repeats: int) -> dict[str, float]:
    """Median CPU milliseconds a batch, the readers taking turns."""
    keep_freed_memory()  # as training does
    read = readers(folder)
    for path in folder.rglob("*.*"):
        path.read_bytes()
    spent: dict[str, list[float]] = {which: [] for which in read}
    for seed in range(repeats):
        for place, (which, function) in enumerate(read.items()):
            batch = draw(len(read) * seed + place)  # rows that another has just read are in the processor's cache
            begun = time.process_time()
            got = function(batch)
            spent[which].append(time.process_time() - begun)
            assert np.array_equal(got, read["numpy memory map"](batch))
            del got  # each begins with as much memory in use
    return {which: 1e3 * statistics.median(values) for which, values in spent.items()}


def cold(folder: Path, repeats: int) -> dict[str, float]:
    """Median wall milliseconds a batch from an empty page cache, the readers taking turns."""
    spent: dict[str, list[float]] = {"numpy memory map": [], "store": [], "store, read ahead": []}
    for seed in range(repeats):
        for which in spent:
            for path in folder.rglob("*.*"):
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            command = [sys.executable, __file__, str(folder), "--once", which, "--seed", str(seed)]
            spent[which].append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return {which: 1e3 * statistics.median(values) for which, values in spent.items()}


def once(folder: Path, which: str, seed: int) -> None:
    """Print the seconds of one batch."""
    read, batch = readers(folder)[which], draw(seed)
    begun = time.perf_counter()
    read(batch)
    print(time.perf_counter() - begun)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--once")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.once:
        once(given.folder, given.once, given.seed)
    else:
        if not given.folder.exists():
            write_both(given.folder)
        for title, measured in (("warm, CPU", warm), ("cold, wall", cold)):
            print(title, {which: f"{value:.1f} ms" for which, value in measured(given.folder, given.repeats).items()})
