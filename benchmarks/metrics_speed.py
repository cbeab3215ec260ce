"""Speed of the metrics on scores of VideoLT's shape, drawn at random with a signal, beside scikit-learn's.

python benchmarks/metrics_speed.py --repeats 5
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from sklearn.metrics import average_precision_score

from longreel.experiments.metrics import evaluate_scores
from longreel.experiments.precision import average_precisions

CLIPS, CLASSES = 51_239, 1_004


def make_scores() -> tuple[np.ndarray, np.ndarray]:
    """Scores ``(N, C)`` float32 and targets: 517 to 7 clips a class, about 56 170 labels, as in VideoLT."""
    drawn = np.random.default_rng(0)
    counts = np.rint(7 + 510 * np.linspace(1, 0, CLASSES) ** 9.4).astype(int)
    targets = np.zeros((CLIPS, CLASSES), bool)
    for label, count in enumerate(counts):
        targets[drawn.choice(CLIPS, count, replace=False), label] = True
    scores = drawn.standard_normal((CLIPS, CLASSES), dtype=np.float32) + 2.5 * targets
    return scores, targets


def cpu_seconds(work: Callable[[], object], repeats: int) -> str:
    """Median, least and most CPU seconds of some repeats."""
    found = []
    for _ in range(repeats):
        begun = time.process_time()
        work()
        found.append(time.process_time() - begun)
    return f"{statistics.median(found):6.2f} CPU s ({min(found):.2f} to {max(found):.2f})"


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    scores, targets = make_scores()
    print(f"{CLIPS} clips, {CLASSES} classes, {targets.sum()} labels")
    print("average precision of every class:", cpu_seconds(lambda: average_precisions(scores, targets), repeats))
    print("all figures of an evaluation:    ", cpu_seconds(lambda: evaluate_scores(scores, targets), repeats))
    theirs: list[float] = []

    def ask_scikit_learn() -> None:
        theirs.extend(average_precision_score(targets[:, c], scores[:, c]) for c in range(CLASSES))

    print("scikit-learn, once:              ", cpu_seconds(ask_scikit_learn, 1))
    difference = np.abs(average_precisions(scores, targets)[0] - theirs)
    print(f"largest difference to it: {difference.max():.1e}")


if __name__ == "__main__":
    main()
