"""The light graph head on NW-UCLA-LT: accuracy of balance methods, and the CPU seconds of a training.

python benchmarks/nw_ucla.py ../shared/data/skeleton/nw_ucla.h5 --balance ce brl --seeds 1

The leak-free training set of imbalance 10 (370 clips), the test split of view 3 (464 clips), the last epoch. A method
whose sampler makes longer epochs gets fewer of them, so that all make as many steps as 30 epochs of plain training;
--unmatched gives each 30 epochs. head, mid and tail are the mean accuracies of classes 0-2, 3-5 and 6-9.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import torch

from longreel.balance import METHODS, Method, build_stage
from longreel.experiments.clips import ClipSet
from longreel.experiments.fit import fit
from longreel.experiments.optimisation import FitSettings
from longreel.experiments.scoring import score_clips
from longreel.heads import build_head

CLASSES = 10
SETTINGS = FitSettings(epochs=30, batch_size=32, learning_rate=1e-2, weight_decay=1e-2)


def read_clips(path: Path, chosen: str) -> ClipSet:
    """The clips of a training list of the file, or of its test split."""
    with h5py.File(path) as file:
        found: dict[str, np.ndarray] = {
            name: np.asarray(file[name]) for name in ("split", "lengths", "labels", "joints")
        }
        listed = found["split"] == 1 if chosen == "test" else np.asarray(file[chosen]) > 0
    lengths, joints = found["lengths"][listed], found["joints"][listed]
    joints = joints.reshape(*joints.shape[:2], -1)  # (N, T, D)
    exists = np.arange(joints.shape[1]) < lengths[:, None]
    return ClipSet(
        ids=tuple(map(str, np.flatnonzero(listed))),
        features=torch.from_numpy(joints[exists]),
        offsets=torch.from_numpy(np.concatenate([[0], lengths.cumsum()])),
        targets=torch.eye(CLASSES)[found["labels"][listed]],
    )


def matched(method: Method, train: ClipSet, epochs: int) -> int:
    """Epochs in which a method makes as many steps as plain training does in so many."""
    generator = torch.Generator().manual_seed(0)
    drawn = len(build_stage(method.stages[0]).sampler(train.targets, generator))
    return max(len(method.stages), round(epochs * -(-len(train) // 32) / -(-drawn // 32)))


def main(given: argparse.Namespace) -> None:
    """Train each method with each seed and print what came of it."""
    train, test = read_clips(given.data, given.train), read_clips(given.data, "test")
    labels = test.targets.argmax(dim=1).numpy()
    for name in given.balance:
        method = METHODS[name]
        if given.mixer:
            method = replace(method, stages=tuple(replace(stage, mixer=given.mixer) for stage in method.stages))
        epochs = given.epochs if given.unmatched else matched(method, train, given.epochs)
        found = []
        for seed in range(given.seeds):
            settings = replace(SETTINGS, epochs=epochs, seed=seed, learning_rate=given.rate)
            torch.manual_seed(seed)
            head = build_head(given.head, 60, CLASSES, torch.zeros(60), torch.ones(60))
            begun, clock = time.process_time(), time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                fit(head, method, train.targets.sum(dim=0), train, None, settings, Path(folder) / "c.safetensors")
            spent, waited = time.process_time() - begun, time.monotonic() - clock
            right = score_clips(head, test).argmax(axis=1) == labels
            classes = np.array([right[labels == label].mean() for label in range(CLASSES)])
            groups = [part.mean() for part in np.split(classes, [3, 6])]
            found.append([right.mean(), classes.mean(), *groups])
            shown = " ".join(f"{100 * figure:5.1f}" for figure in found[-1])
            print(f"{name} seed {seed} ({epochs} epochs): {shown}  {spent:.1f} CPU s, {waited:.1f} s", flush=True)
        mean, deviation = 100 * np.mean(found, axis=0), 100 * np.std(found, axis=0)
        pairs = ", ".join(f"{a:.1f} ± {b:.1f}" for a, b in zip(mean, deviation, strict=True))
        print(f"{name}: top-1, mean class, head, mid, tail: {pairs}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--head", default="gcn-lite:layout=kinect20")
    parser.add_argument("--balance", nargs="+", default=["ce", "brl"])
    parser.add_argument("--mixer", help="in place of the methods' own")
    parser.add_argument("--train", default="lt_if10_train_clean")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rate", type=float, default=SETTINGS.learning_rate)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--unmatched", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    main(chosen)
