"""What the calls of a training step cost whatever the sizes: the least that a step takes where a GPU waits for them.

python benchmarks/calls_speed.py
python benchmarks/calls_speed.py --compiled

Clips of 3 rows of 8 numbers, so that nothing is left to compute; drawing frames, mixing, loss and optimiser included.
CPU milliseconds of a step on one thread, median of 5 rounds of 200 steps, and what that makes of 100 epochs of the
train split of VideoLT in batches of 128. Compiled as on a CPU, which has no graphs to replay.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from longreel.balance import METHODS
from longreel.experiments.clips import ClipSet
from longreel.experiments.compiling import compiling
from longreel.experiments.drawn import Drawn
from longreel.experiments.optimisation import FitSettings
from longreel.experiments.training import Course, Training
from longreel.heads import build_head

CLIPS, LENGTH, FRAMES, DIM, CLASSES, BATCH = 400, 6, 3, 8, 16, 4
ROUNDS, STEPS, STEPS_OF_VIDEOLT = 5, 200, 100 * 1402
#: head and method.
TASKS = {
    "linear": ("linear", "bce"),
    "nonlinear": ("nonlinear:hidden=8", "bce"),
    "NetVLAD": ("netvlad:clusters=2,hidden=8", "bce"),
    "FrameStack, nonlinear": ("nonlinear:hidden=8", "framestack"),
    "MOVE, aggregated": ("aggregated:clusters=2,reduced=8,heads=2,hidden=8", "move"),
}


def measure(head: str, method: str, compiled: bool) -> float:
    """CPU seconds of a step."""
    torch.manual_seed(0)
    offsets, labels = torch.arange(0, CLIPS * LENGTH + 1, LENGTH), torch.arange(CLIPS) % CLASSES
    features = torch.randn(CLIPS * LENGTH, DIM).half()
    clips = ClipSet(tuple(map(str, range(CLIPS))), features, offsets, torch.eye(CLASSES)[labels])
    made = build_head(head, DIM, CLASSES, torch.zeros(DIM), torch.ones(DIM))
    course = Course(made, METHODS[method], FitSettings(precision="bfloat16", compiled=compiled), Path("none"))
    training, generator = Training(course, 0, clips.targets.sum(dim=0), clips), torch.Generator()
    parts, spent = training.begin_epoch(), []
    with compiling(compiled):
        for _ in range(1 + ROUNDS):
            begun = time.process_time()
            for first in range(STEPS):
                batch = torch.arange(first, first + BATCH)
                training.step(Drawn(*clips.batch(batch, FRAMES, generator)), batch, parts, 0.0)
            spent.append((time.process_time() - begun) / STEPS)
    return statistics.median(spent[1:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiled", action="store_true")
    compiled = parser.parse_args().compiled
    torch.set_num_threads(1)
    for name, task in TASKS.items():
        seconds = measure(*task, compiled)
        print(f"{name}: {1e3 * seconds:.2f} ms a step, {STEPS_OF_VIDEOLT * seconds / 60:.1f} min for 100 epochs")
