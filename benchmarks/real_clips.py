"""Accuracy on real clips: head against logistic regression, Balanced Softmax against cross-entropy, `motion`.

    python benchmarks/real_clips.py ../shared/data build/real-clips

Makes its stores and runs in the second folder, and goes on there when it is run again.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from longreel.manifest import Manifest, read_manifest
from longreel.store import FeatureStore

MOBILENET = "weights/mobilenet_v2_1.0_224"


def longreel(*arguments: object) -> str:
    """Run a command as a user would; its standard output."""
    return subprocess.run(["longreel", *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True).stdout


def train_seeds(store: Path, manifest: Path, balance: str, seeds: int, runs: Path) -> list[Path]:
    """Train one run a seed with the defaults; their folders."""
    folders = [runs / f"{balance}-{seed}" for seed in range(seeds)]
    for seed, folder in enumerate(folders):
        longreel("train", store, manifest, "--balance", balance, "--seed", seed, "--out", folder)
    return folders


def mean_features(store: FeatureStore, manifest: Manifest, split: str) -> tuple[np.ndarray, list[str]]:
    """The mean row of each clip of a split, and its label."""
    clips = manifest.split(split)
    rows = np.stack([store[clip.clip_id].features.astype(np.float32).mean(axis=0) for clip in clips])
    return rows, [clip.labels[0] for clip in clips]


def logistic_regression(store: Path, manifest: Path) -> float:
    """Test accuracy of the reference: standardised mean features, C = 0.01, fitted on the training split alone."""
    table, features = read_manifest(manifest), FeatureStore(store)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=5000))
    model.fit(*mean_features(features, table, "train"))
    return model.score(*mean_features(features, table, "test"))


def report_accuracy(name: str, store: Path, manifest: Path, work: Path) -> None:
    """The head's test accuracy over five seeds beside the reference's on the same features."""
    runs = train_seeds(store, manifest, "ce", 5, work / f"runs-{name}")
    figures = [json.loads(longreel("evaluate", run, "--json"))["overall"] for run in runs]
    accuracies = [figure["acc1"] for figure in figures]
    reference = logistic_regression(store, manifest)
    print(
        f"{name}: nonlinear head {np.mean(accuracies):.3f} (sd {np.std(accuracies, ddof=1):.3f}, 5 seeds), "
        f"class average {np.mean([figure['class_average'] for figure in figures]):.3f}; "
        f"logistic regression {reference:.3f}; difference {np.mean(accuracies) - reference:+.3f}"
    )


def report_long_tail(store: Path, manifest: Path, work: Path) -> None:
    """Balanced Softmax minus cross-entropy over ten paired seeds, with its interval."""
    folder = work / "runs-lt9"
    runs = [run for balance in ("ce", "balanced-softmax") for run in train_seeds(store, manifest, balance, 10, folder)]
    print(longreel("compare", *runs))
    difference = json.loads(longreel("compare", *runs, "--json"))["rows"][1]["difference"]["class_average"]
    low, high = difference["low"], difference["high"]
    print(f"lt9 macro recall, difference: {difference['value']:+.3f} [{low:+.3f}, {high:+.3f}]")


def main(data: Path, work: Path) -> None:
    """All three, on the data folder's manifests."""
    videos = data / "videos"
    mobilenet, motion = work / "mobilenet.store", work / "motion.store"
    longreel("extract", videos / "manifest_all9.csv", mobilenet, "--backbone", data / MOBILENET, "--frames", 8)
    longreel("extract", videos / "manifest_all9.csv", motion, "--backbone", "motion")
    report_accuracy("mobilenet", mobilenet, videos / "manifest_all9.csv", work)
    report_accuracy("motion", motion, videos / "manifest_all9.csv", work)
    report_long_tail(mobilenet, videos / "manifest_lt9.csv", work)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
