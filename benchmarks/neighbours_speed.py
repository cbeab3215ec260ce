"""Exact nearest neighbours of generated clips among real ones, as `generate inspect` searches them: seconds.

python benchmarks/neighbours_speed.py --generated 10000 --real 50000
"""

import argparse
import time

import numpy as np

from longreel.generate.neighbours import find_nearest

WIDTH = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generated", type=int, default=10_000)
    parser.add_argument("--real", type=int, default=50_000)
    given = parser.parse_args()
    drawn = np.random.default_rng(0)
    made, real = (drawn.standard_normal((count, WIDTH), dtype=np.float32) for count in (given.generated, given.real))
    made, real = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (made, real))
    wall, cpu = time.monotonic(), time.process_time()
    find_nearest(made, real)
    print(f"{time.monotonic() - wall:.1f} s on the clock, {time.process_time() - cpu:.1f} CPU s")


if __name__ == "__main__":
    main()
