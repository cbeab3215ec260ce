"""What keyframes change in features: the same clips in two stores of one backbone, with and without --keyframes.

python benchmarks/keyframes_change.py PLAIN_STORE KEYFRAME_STORE
"""

import argparse
from pathlib import Path

import numpy as np

from longreel.store import FeatureStore


def mean_directions(store: FeatureStore, clip_ids: list[str]) -> np.ndarray:
    """``(N, D)``: the mean row of each clip, of length 1."""
    means = np.stack([store[clip_id].features.astype(np.float64).mean(axis=0) for clip_id in clip_ids])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plain", type=Path)
    parser.add_argument("keyframes", type=Path)
    given = parser.parse_args()
    plain, keyed = FeatureStore(given.plain), FeatureStore(given.keyframes)
    shared = sorted(set(plain.ids) & set(keyed.ids))
    rows = [sum(len(store[clip_id].seconds) for clip_id in shared) for store in (plain, keyed)]
    print(f"{len(shared)} clips, {rows[0]} and {rows[1]} rows")
    a, b = mean_directions(plain, shared), mean_directions(keyed, shared)
    same = (a * b).sum(axis=1)
    other = (a * np.roll(a, 1, axis=0)).sum(axis=1)
    for name, cosines in (("the same clip by keyframes", same), ("the clip before it in the list, plain", other)):
        low, middle, high = np.quantile(cosines, [0.05, 0.5, 0.95])
        print(f"cosine of a clip's mean with {name}: median {middle:.3f}, 5 % {low:.3f}, 95 % {high:.3f}")


if __name__ == "__main__":
    main()
