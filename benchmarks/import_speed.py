"""Speed of import-features beside `cp -r` of the same folder, alternating, everything in the page cache.

python benchmarks/import_speed.py build/import-speed --kind float32

With --hdf5, one HDF5 file with a dataset for each of them is imported instead, by itself.
"""

import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

WIDTH = 2048


@dataclass(frozen=True)
class Run:
    """One command."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


def make_files(folder: Path, count: int, mib: float, kind: str) -> int:
    """Write ``count`` files of about ``mib`` MiB each, all different; their bytes together."""
    drawn, total = np.random.default_rng(0), 0
    frames = max(1, round(mib * 2**20 / WIDTH / np.dtype(kind).itemsize))
    for number in range(count):
        path = folder / f"{number % 20:02}" / f"{number:06}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, drawn.random((frames, WIDTH), dtype=np.float32).astype(kind))
        total += path.stat().st_size
    return total


def make_hdf5(source: Path, path: Path) -> None:
    """One HDF5 file with every array of a folder as a dataset."""
    with h5py.File(path, "w") as file:
        for each in sorted(source.rglob("*.npy")):
            file[each.stem] = np.load(each)


def measure(command: list[str], then: Callable[[], None] = lambda: None) -> Run:
    """Run a command after all earlier writes have reached the disk."""
    os.sync()
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    then()
    return Run(time.monotonic() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def sync_files(folder: Path) -> None:
    """fsync every file below the folder."""
    for path in folder.rglob("*.npy"):
        with open(path, "rb") as file:
            os.fsync(file)


def hash_seconds(size: int) -> float:
    """What SHA-256 and BLAKE2b of so many bytes take in one thread: the digests of a store's format."""
    content = np.random.default_rng(0).bytes(64 << 20)
    begun = time.process_time()
    hashlib.sha256(content).digest()
    hashlib.blake2b(content, digest_size=16).digest()
    return (time.process_time() - begun) * size / len(content)


def show(name: str, runs: list[Run], total: int) -> float:
    """Print the median of some runs; its seconds."""
    seconds = statistics.median(run.seconds for run in runs)
    spread = f"{min(run.seconds for run in runs):.2f} to {max(run.seconds for run in runs):.2f}"
    cpu = statistics.median(run.cpu_seconds for run in runs)
    peak = max(run.peak_mib for run in runs)
    rate = total / 1e6 / seconds
    print(f"{name:24}{seconds:6.2f} s ({spread}), {rate:5.0f} MB/s, {cpu:5.2f} CPU s, peak {peak:.0f} MiB", flush=True)
    return seconds


def _import_anew(command: list[str], store: Path) -> Run:
    shutil.rmtree(store, ignore_errors=True)
    return measure(command)


def main() -> None:
    """Make the files, measure both in turn, print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--mib", type=float, default=1.0, help="of each file")
    parser.add_argument("--kind", default="float32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--hdf5", action="store_true")
    given = parser.parse_args()
    source, copy, store = (given.work / name for name in ("npy", "copy", "store"))
    shutil.rmtree(given.work, ignore_errors=True)
    total = make_files(source, given.count, given.mib, given.kind)
    if given.hdf5:
        make_hdf5(source, given.work / "all.h5")
        source = given.work / "all.h5"
    importing = [sys.executable, "-P", "-m", "longreel.cli", "import-features", str(source), str(store)]
    importing += ["--backbone", "drawn", "--workers", str(given.workers)]
    least = [sys.executable, str(Path(__file__).with_name("least_import.py")), str(source), str(given.work / "least")]
    if given.hdf5:
        show("import-features", [_import_anew(importing, store) for _ in range(given.repeats)], total)
        return
    runs: dict[str, list[Run]] = {"import-features": [], "the least work": [], "cp -r": [], "cp -r, then fsync": []}
    for _ in range(given.repeats):
        runs["import-features"].append(_import_anew(importing, store))
        runs["the least work"].append(measure(least))
        for name in ("cp -r", "cp -r, then fsync"):
            shutil.rmtree(copy, ignore_errors=True)
            then = sync_files if "fsync" in name else lambda folder: None
            runs[name].append(measure(["cp", "-r", str(source), str(copy)], lambda then=then: then(copy)))
    stored = sum(path.stat().st_size for path in store.glob("*.h5"))
    print(f"{given.count} files of {given.kind}, {total / 1e6:.0f} MB; the store has {stored / 1e6:.0f} MB")
    ours, fastest, plain, synced = (show(name, found, total) for name, found in runs.items())
    for name, seconds in {"cp -r": plain, "cp -r with fsync": synced, "the least work": fastest}.items():
        print(f"of {name}: import-features {seconds / ours:.0%}, the least work {seconds / fastest:.0%}")
    print(f"SHA-256 and BLAKE2b of the stored bytes alone, in one thread: {hash_seconds(stored):.2f} s")
    shutil.rmtree(given.work)


if __name__ == "__main__":
    main()
