"""A synthetic benchmark with the labels of VideoLT: which clip has which labels is real, the features are drawn.

python benchmarks/synthetic_videolt.py LISTS FOLDER
longreel bench FOLDER/synthetic.toml FOLDER/clips.csv --store synthetic=FOLDER/synthetic.store --out FOLDER/table
longreel bench FOLDER/longer.toml FOLDER/clips.csv --store synthetic=FOLDER/synthetic.store --out FOLDER/table-longer

Of VideoLT's 1004 classes every tenth in the order of their training counts is taken, 100 in all. A class keeps a
quarter of its training clips, at least 3; val and test keep a quarter of theirs. A clip has 10 to 30 frames of 512
numbers. In 30 to 70 % of them its class shows, in the rest a scene that many classes share; a clip of several classes
has some frames of each.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from longreel.store import ClipFeatures, Origin, ShardWriter, Spec

WIDTH, SCENES, CLASSES = 512, 40, 100
NOISE = 1.0  #: of every number.
SIGNAL = 0.25  #: length of a class in each number, so that frames of it are found by many clips and not by one.
ORIGIN = Origin("npy", 1.0, 0, 0, "00" * 32)
SUITE = """title = "Synthetic features with VideoLT's labels"
source = "drawn"
groups = "{low},{high}"
baseline = "baseline"
columns = ["map", "{rich}.map", "{middle}.map", "{poor}.map", "acc1", "acc5"]

[settings]
optimiser = "adam"
learning_rate = 1e-3
weight_decay = 0.0
schedule = "steps:25,35"
clip_norm = 20.0
epochs = 40
frames = 12
test_frames = 30
standardise = false

[[rows]]
name = "baseline"
head = "nonlinear:hidden=512"
balance = "bce"

[[rows]]
name = "FrameStack"
head = "nonlinear:hidden=512"
balance = "framestack"

[[rows]]
name = "baseline, Agg"
head = "{aggregated}"
balance = "bce"

[[rows]]
name = "mixup, Agg"
head = "{aggregated}"
balance = "mixup"
mixer = "mixup:at=clips"

[[rows]]
name = "FrameStack, Agg"
head = "{aggregated}"
balance = "framestack"

[[rows]]
name = "MOVE, Agg"
head = "{aggregated}"
balance = "move"
"""
#: what the second suite has otherwise: epochs enough for MOVE, and the aggregated head as the baseline.
LONGER = {
    "epochs = 40": "epochs = 100",
    "steps:25,35": "steps:60,85",
    'baseline = "baseline"': 'baseline = "baseline, Agg"',
}
AGGREGATED = "aggregated:clusters=16,reduced=256,hidden=512"


def read_list(path: Path) -> list[tuple[str, tuple[int, ...]]]:
    """``id l1,l2`` in each line."""
    rows = (line.split() for line in path.read_text().splitlines() if line.strip())
    return [(clip, tuple(int(label) for label in labels.split(",") if label)) for clip, labels in rows]


def choose_classes(train: list[tuple[str, tuple[int, ...]]]) -> list[int]:
    """100 classes, evenly spread over their order by training clips."""
    counts = np.bincount([label for _, labels in train for label in labels])
    return np.argsort(-counts, kind="stable")[np.linspace(0, len(counts) - 1, CLASSES).astype(int)].tolist()


def thin(
    clips: list[tuple[str, tuple[int, ...]]], classes: list[int], least: int, drawn: np.random.Generator
) -> list[tuple[str, tuple[int, ...]]]:
    """A quarter of the clips of each class, in random order until every class has its share."""
    known = set(classes)
    clips = [(clip, tuple(label for label in labels if label in known)) for clip, labels in clips]
    clips = [clips[place] for place in drawn.permutation(len(clips)) if clips[place][1]]
    counts = np.bincount([label for _, labels in clips for label in labels], minlength=max(classes) + 1)
    left = {label: max(least, round(counts[label] / 4)) for label in classes}
    kept = []
    for clip, labels in clips:
        if any(left[label] > 0 for label in labels):
            kept.append((clip, labels))
            for label in labels:
                left[label] -= 1
    return kept


def draw_features(labels: list[int], signs: np.ndarray, scenes: np.ndarray, drawn: np.random.Generator) -> np.ndarray:
    """Frames ``(T, 512)``: runs of each class between runs of scenes, all under noise."""
    frames = int(drawn.integers(10, 31))
    shown = max(len(labels), round(frames * drawn.uniform(0.3, 0.7)))
    what = np.concatenate([np.resize(labels, shown), np.full(frames - shown, -1)])
    what = drawn.permutation(what)
    scene = scenes[drawn.integers(len(scenes), size=2)][drawn.integers(2, size=frames)]  # two scenes a clip
    rows = scene + np.where(what[:, None] >= 0, signs[what], 0.0) + NOISE * drawn.standard_normal((frames, WIDTH))
    return np.maximum(rows, 0.0).astype(np.float16)  # as behind a ReLU


def main() -> None:
    """Write manifest, store and suite."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lists", type=Path, help="folder with VideoLT's train.lst, validate.lst and test.lst")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    drawn = np.random.default_rng(0)
    read = {split: read_list(given.lists / f"{name}.lst") for split, name in
            {"train": "train", "val": "validate", "test": "test"}.items()}  # fmt: skip
    classes = choose_classes(read["train"])
    kept = {split: thin(clips, classes, 3 if split == "train" else 1, drawn) for split, clips in read.items()}
    place = {label: index for index, label in enumerate(classes)}
    signs = SIGNAL * drawn.standard_normal((CLASSES, WIDTH))
    scenes = 0.5 * drawn.standard_normal((SCENES, WIDTH))
    (given.folder / "synthetic.store").mkdir(parents=True)
    with open(given.folder / "clips.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for split, clips in kept.items():
            writer.writerows([clip, ";".join(f"c{label:04}" for label in labels), split] for clip, labels in clips)
    spec = Spec("synthetic", "0", WIDTH, "10 to 30 frames", "none", "none")
    with ShardWriter(given.folder / "synthetic.store", spec) as store:
        for clip, labels in (entry for clips in kept.values() for entry in clips):
            rows = draw_features([place[label] for label in labels], signs, scenes, drawn)
            store.add(clip, ClipFeatures(rows, np.arange(len(rows), dtype=np.float64)), ORIGIN)
    low, high = 25, 125  # VideoLT's 100 and 500, a quarter each
    names = {"poor": f"<={low}", "middle": f"{low + 1}-{high}", "rich": f">{high}"}
    suite = SUITE.format(low=low, high=high, aggregated=AGGREGATED, **names)
    (given.folder / "synthetic.toml").write_text(suite)
    for old, new in LONGER.items():
        suite = suite.replace(old, new)
    (given.folder / "longer.toml").write_text(suite)
    counts = np.bincount([place[label] for _, labels in kept["train"] for label in labels], minlength=CLASSES)
    print({split: len(clips) for split, clips in kept.items()}, "training clips a class:", counts.max(), counts.min())


if __name__ == "__main__":
    main()
