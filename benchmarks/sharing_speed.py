"""Several trainings side by side on a store larger than memory, against one after another, and the wait for data.

python benchmarks/sharing_speed.py build/sharing-speed --heads linear nonlinear-early:hidden=512
python benchmarks/sharing_speed.py build/sharing-speed --heads nonlinear --waiting
python benchmarks/sharing_speed.py build/sharing-speed --heads linear --whole --epochs 20

Makes a store of 6000 clips x 150 x 2048 (3.7 GB). Everything is measured in processes of their own whose control group
(version 1 or 2; as root) may take 2.5 GB of memory, cached files included, so that a pass over the clips finds little
of the one before. Own compute is that of the same trainings on 600 of the clips in memory, per clip, without a limit:
of one by itself times their number, and, in brackets, of all side by side, where they share what they have in common.
Warm is one training without a limit, whose clips have all been read before. The sweep is a whole `longreel sweep` of
as many learning rates, with 128 of the clips as val: start, checks, validation and report included.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

CLIPS, LENGTH, DIM, CLASSES, FRAMES, BATCH = 6000, 150, 2048, 100, 60, 128
LIMIT = 2_500_000_000
SINGLY = 2  #: trainings by themselves that stand for all of a pack.
#: what is trained: head, and how many of it.
PACKS = {"linear": 16, "nonlinear-early:hidden=512": 16, "nonlinear": 4}


def write_store(folder: Path) -> None:
    """Random features; clips in the order of their names."""
    from longreel.store import ClipFeatures, Origin, ShardWriter, Spec

    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    seconds = np.arange(LENGTH, dtype=np.float64)
    with ShardWriter(folder, Spec("random", "0", DIM, "given", "none", "none")) as writer:
        for clip in range(CLIPS):
            rows = generator.random((LENGTH, DIM), dtype=np.float32).astype(np.float16)
            writer.add(f"{clip:05}", ClipFeatures(rows, seconds), Origin("none", 1.0, 0, 0, "00" * 32))


def run(folder: Path, head: str, numbers: list[int], place: str, clips: int, epochs: int) -> dict[str, float]:
    """In this process: trainings with other learning rates side by side; seconds, and those of waiting for batches."""
    from longreel.memory import keep_freed_memory

    keep_freed_memory()
    import torch

    from longreel.balance import METHODS
    from longreel.experiments.clips import ClipSet, load_clips
    from longreel.experiments.fit import fit_together
    from longreel.experiments.optimisation import FitSettings
    from longreel.experiments.training import Course
    from longreel.heads import build_head
    from longreel.manifest import read_manifest
    from longreel.store import FeatureStore

    table = folder / f"clips-{clips}.csv"
    names = (f"{clip:05},c{clip % CLASSES},train\n" for clip in range(clips))
    table.write_text("path,label,split\n" + "".join(names))
    begun = time.perf_counter()
    train = load_clips(FeatureStore(folder / "store"), read_manifest(table), "train", place)
    courses = []
    for number in numbers:
        settings = FitSettings(
            epochs=epochs, batch_size=BATCH, frames=FRAMES, learning_rate=1e-4 * (number + 1), checkpoint_seconds=1e9
        )
        torch.manual_seed(0)
        made = build_head(head, DIM, CLASSES, torch.zeros(DIM), torch.ones(DIM))
        courses.append(Course(made, METHODS["ce"], settings, folder / "none.safetensors"))
    waited, plain = 0.0, ClipSet.batches

    def timed(self: ClipSet, *more: object) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        nonlocal waited
        batches = plain(self, *more)  # pyright: ignore[reportArgumentType]
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    ClipSet.batches = timed  # pyright: ignore[reportAttributeAccessIssue]
    torch.optim.AdamW([torch.zeros(1)])  # imports the rest of torch, which is no part of a training
    trained = time.perf_counter()
    fit_together(courses, torch.full((CLASSES,), clips / CLASSES), train, None)
    return {"all": time.perf_counter() - begun, "training": time.perf_counter() - trained, "waiting": waited}


def one_pass(folder: Path) -> dict[str, float]:
    """In this process: the seconds of reading every clip's drawn rows once, fetched ahead, and nothing else."""
    from longreel.store import FeatureStore, RowReader

    reader = RowReader(FeatureStore(folder / "store"), [f"{clip:05}" for clip in range(CLIPS)])
    drawn = np.random.default_rng(1)
    batches = np.array_split(drawn.permutation(CLIPS), CLIPS // BATCH)
    begun = time.perf_counter()
    for number, clips in enumerate(batches):
        for ahead in batches[number : number + 3] if number == 0 else batches[number + 2 : number + 3]:
            reader.read_ahead(ahead)
        reader.read(clips, np.sort(drawn.integers(0, LENGTH, (len(clips), FRAMES)), axis=1))
    return {"all": time.perf_counter() - begun}


@contextmanager
def limited() -> Iterator[Path]:
    """The file of a new control group that takes processes in, with its limit."""
    first = Path("/sys/fs/cgroup/memory")
    root, name = (first, "memory.limit_in_bytes") if first.exists() else (first.parent, "memory.max")
    group = root / f"longreel-{os.getpid()}"
    group.mkdir()
    try:
        (group / name).write_text(str(LIMIT))
        yield group / "cgroup.procs"
    finally:
        time.sleep(1)
        group.rmdir()


def forget(folder: Path) -> None:
    """Have nothing of the store in the page cache."""
    for path in (folder / "store").glob("*.h5"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(folder: Path, what: dict, group: Path | None = None, warm: bool = False) -> dict[str, float]:
    """One measurement in a process of its own, with nothing of the store in the page cache, or all of it."""
    forget(folder)
    for path in (folder / "store").glob("*.h5"):
        with open(path, "rb") as file:
            while warm and file.read(2**24):
                pass
    return json.loads(run_in(group, [sys.executable, __file__, str(folder), "--once", json.dumps(what)]))


def run_in(group: Path | None, command: list[str]) -> str:
    """What a command prints that is begun in a control group."""
    waiting = ["sh", "-c", 'read go; exec "$@"', "sh", *command]
    process = subprocess.Popen(waiting, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if group is not None:
        group.write_text(str(process.pid))
    out, _ = process.communicate("go\n")
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return out


def sweep(folder: Path, head: str, count: int, epochs: int, group: Path) -> float:
    """Seconds of a whole sweep, from a cold store."""
    table, space, out = folder / "sweep.csv", folder / "space.toml", folder / "sweep"
    splits = ["train"] * (CLIPS - BATCH) + ["val"] * BATCH
    rows = (f"{clip:05},c{clip % CLASSES},{split}\n" for clip, split in enumerate(splits))
    table.write_text("path,label,split\n" + "".join(rows))
    rates = [1e-4 * (number + 1) for number in range(count)]
    settings = f'head = "{head}"\nepochs = {epochs}\nbatch_size = {BATCH}\nframes = {FRAMES}\ntest_frames = {FRAMES}'
    space.write_text(f"[settings]\n{settings}\n[space]\nlearning_rate = {rates}\n")
    shutil.rmtree(out, ignore_errors=True)
    words = ["sweep", folder / "store", table, "--space", space, "--sampler", "grid", "--pack", count, "--top", 0]
    forget(folder)
    begun = time.perf_counter()
    run_in(group, [sys.executable, "-m", "longreel.cli", *map(str, words), "--out", str(out)])
    return time.perf_counter() - begun


def share(found: dict[str, float]) -> float:
    """Of a training that waits for batches."""
    return found["waiting"] / found["training"]


def report(folder: Path, head: str, count: int, epochs: int, group: Path) -> None:
    """Print the lines of one head."""
    common = {"head": head, "epochs": epochs, "clips": CLIPS, "place": "disk"}
    together = measure(folder, common | {"numbers": list(range(count))}, group)
    singly = [measure(folder, common | {"numbers": [number]}, group) for number in range(min(count, SINGLY))]
    warm = measure(folder, common | {"numbers": [0]}, warm=True)
    least = apart, shared, passes = least_seconds(folder, head, count, epochs, group)
    whole = sweep(folder, head, count, epochs, group)
    in_turn = sum(each["all"] for each in singly) / len(singly) * count
    print(
        f"{head}: {count} side by side {together['all']:.1f} s, of training {together['training']:.1f} s "
        f"{share(together):.0%} waiting; one after another {in_turn:.1f} s "
        f"({in_turn / together['all']:.1f} x); own compute {apart:.1f} s (side by side {shared:.1f} s) + {epochs} "
        f"passes {passes:.1f} s: {against(together['training'], *least)}; one by itself waits {share(singly[0]):.1%} "
        f"cold, {share(warm):.1%} warm; the whole sweep {whole:.1f} s: {against(whole, *least)}",
        flush=True,
    )


def least_seconds(folder: Path, head: str, count: int, epochs: int, group: Path) -> tuple[float, float, float]:
    """The heads' own compute, each by itself and side by side, and a pass over the drawn rows for each epoch."""

    def compute(numbers: list[int]) -> float:
        small = {"head": head, "epochs": 5 * epochs, "clips": CLIPS // 10, "place": "memory", "numbers": numbers}
        own = measure(folder, small)
        return (own["training"] - own["waiting"]) * 2  # a tenth of the clips, five times as many epochs

    passes = epochs * measure(folder, {}, group)["all"]
    return compute([0]) * count, compute(list(range(count))), passes


def against(took: float, apart: float, shared: float, passes: float) -> str:
    """A time in parts of the heads' own compute and the passes."""
    return f"{took / (apart + passes):.2f} ({took / (shared + passes):.2f}) of it"


def report_whole(folder: Path, head: str, count: int, epochs: int, group: Path) -> None:
    """Print how long a whole sweep takes, against compute and passes, and nothing else."""
    least = apart, shared, passes = least_seconds(folder, head, count, epochs, group)
    whole = sweep(folder, head, count, epochs, group)
    print(
        f"{head}: a whole sweep of {count}, {epochs} epochs, {whole:.1f} s; own compute {apart:.1f} s (side by side "
        f"{shared:.1f} s) + {epochs} passes {passes:.1f} s: {against(whole, *least)}",
        flush=True,
    )


def report_waiting(folder: Path, head: str, epochs: int, group: Path) -> None:
    """Print how long one head by itself waits, and nothing else."""
    what = {"head": head, "epochs": epochs, "clips": CLIPS, "place": "disk", "numbers": [0]}
    cold, warm = measure(folder, what, group), measure(folder, what, warm=True)
    print(
        f"{head}: one by itself waits {share(cold):.1%} of {cold['training']:.0f} s cold, "
        f"{share(warm):.1%} of {warm['training']:.0f} s warm",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--heads", nargs="+", default=list(PACKS))
    parser.add_argument("--epochs", type=int, default=2)
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--waiting", action="store_true", help="only how long one head by itself waits")
    part.add_argument("--whole", action="store_true", help="only a whole sweep against compute and passes")
    parser.add_argument("--once")
    given = parser.parse_args()
    if given.once is not None:
        what = json.loads(given.once)
        print(json.dumps(run(given.folder, **what) if what else one_pass(given.folder)))
    else:
        if not (given.folder / "store").exists():
            write_store(given.folder / "store")
        with limited() as processes:
            for head in given.heads:
                if given.waiting:
                    report_waiting(given.folder, head, given.epochs, processes)
                elif given.whole:
                    report_whole(given.folder, head, PACKS[head], given.epochs, processes)
                else:
                    report(given.folder, head, PACKS[head], given.epochs, processes)
