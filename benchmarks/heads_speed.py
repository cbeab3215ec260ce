"""CPU seconds of one step, forward and backward, of every trainable head: the cost table of docs/heads.md.

python benchmarks/heads_speed.py --repeats 5
"""

import argparse
import statistics
import time

import torch

from longreel.heads import HEADS, build_head

CLIPS, FRAMES, WIDTH, CLASSES = 32, 60, 2048, 200


def step_seconds(name: str, repeats: int) -> float:
    """Median CPU seconds of some steps, the first left out."""
    head = build_head(name, WIDTH, CLASSES, torch.zeros(WIDTH), torch.ones(WIDTH)).train()
    frames, mask = torch.randn(CLIPS, FRAMES, WIDTH), torch.ones(CLIPS, FRAMES, dtype=torch.bool)
    found = []
    for _ in range(repeats + 1):
        head.zero_grad(set_to_none=True)
        begun = time.process_time()
        head(frames, mask).square().mean().backward()
        found.append(time.process_time() - begun)
    return statistics.median(found[1:])


def main() -> None:
    """Print a line for each head, the fastest first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    seconds = {name: step_seconds(name, repeats) for name in HEADS if name != "knn"}
    for name in sorted(seconds, key=lambda name: seconds[name]):
        print(f"{name:16}{1000 * seconds[name]:7.0f} ms", flush=True)


if __name__ == "__main__":
    main()
