"""Trainings of VideoLT's size on one device: seconds an epoch, and the share of what its memory and its products allow.

python benchmarks/device_speed.py --device cuda
python benchmarks/device_speed.py --device cuda --compiled
python benchmarks/device_speed.py --device cpu --clips 512 --classes 100 --epochs 3

Synthetic float16 features, 179 334 clips x 150 x 2048 as VideoLT's train split (103 GiB), made on the device; 60 rows
drawn of each clip and step, as VideoLT does, and 1004 classes. The limits are measured first: products in bfloat16, and
the device's memory, which a step needs for the drawn rows and for the optimiser's weights, gradients and moments.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from step_speed import operations
from torch import Tensor

from longreel.balance import METHODS
from longreel.devices import choose_device
from longreel.experiments.clips import ClipSet
from longreel.experiments.fit import fit_together
from longreel.experiments.optimisation import FitSettings
from longreel.experiments.training import Course
from longreel.heads import build_head

LENGTH, DIM = 150, 2048
ADAM_BYTES = 28  #: that Adam moves for a weight in float32: it and two moments both ways, and its gradient.
#: what is trained: head, method, and how many side by side.
TASKS = {
    "nonlinear": ("nonlinear", "bce", 1),
    "MOVE, aggregated": ("aggregated", "move", 1),
    "nonlinear, 16 side by side": ("nonlinear", "bce", 16),
}


def make_clips(clips: int, classes: int, device: torch.device) -> ClipSet:
    """Random clips, a label each, on the device."""
    features = torch.empty(clips * LENGTH, DIM, dtype=torch.float16, device=device)
    for part in features.split(LENGTH * 1024):
        part.normal_()
    labels = torch.randint(classes, (clips,), generator=torch.Generator().manual_seed(0))
    offsets = torch.arange(0, clips * LENGTH + 1, LENGTH)
    return ClipSet(tuple(map(str, range(clips))), features, offsets, torch.eye(classes)[labels], device=device)


def wait(device: torch.device) -> None:
    """Until the device has done all that was asked of it."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize(device)


def timed(work: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Seconds of the fastest of some rounds, after one that does not count."""
    found = []
    for _ in range(repeats + 1):
        wait(device)
        begun = time.perf_counter()
        work()
        wait(device)
        found.append(time.perf_counter() - begun)
    return min(found[1:])


def limits(features: Tensor, device: torch.device) -> tuple[float, float]:
    """Bytes a second that the device's memory gives, and operations a second in products of bfloat16."""
    part = features[: min(len(features), 2**20)]
    reading = part.numel() * part.element_size() / timed(lambda: part.sum(), device)
    size = 8192 if device.type != "cpu" else 1024
    one, other = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return reading, 2 * size**3 / timed(lambda: one @ other, device)


def train(name: str, clips: ClipSet, given: argparse.Namespace, folder: Path) -> tuple[float, int]:
    """Seconds an epoch of a task from the third one on, and the weights of its heads."""
    head, method, count = TASKS[name]
    classes, courses, ends = clips.targets.shape[1], [], []
    for number in range(count):
        torch.manual_seed(number)
        made = build_head(head, DIM, classes, torch.zeros(DIM), torch.ones(DIM)).to(clips.device)
        rate = 1e-4 * 1.2**number
        fit = FitSettings(
            given.epochs,
            given.batch,
            frames=given.frames,
            learning_rate=rate,
            precision=given.precision,
            compiled=given.compiled,
            checkpoint_seconds=1e9,
        )
        courses.append(Course(made, METHODS[method], fit, folder / str(number)))

    def note(number: int, row: dict) -> bool:
        wait(clips.device)
        ends.append(time.perf_counter())
        return True

    fit_together(courses, clips.targets.sum(dim=0), clips, None, note)
    each = ends[count - 1 :: count][1:]  # when all had ended an epoch; what is compiled is recorded in the second
    weights = sum(each.numel() for course in courses for each in course.head.parameters())
    return (each[-1] - each[0]) / (len(each) - 1), weights


def main(given: argparse.Namespace) -> None:
    """Measure the limits, then each task."""
    device = choose_device(given.device)
    clips = make_clips(given.clips, given.classes, device)
    assert isinstance(clips.features, Tensor)
    size = clips.features.numel() * clips.features.element_size()
    reading, products = limits(clips.features, device)
    print(
        f"{device}: {size / 2**30:.1f} GiB; reads {reading / 1e9:.0f} GB/s, products {products / 1e12:.1f} TFLOP/s",
        flush=True,
    )
    for name in given.tasks or TASKS:
        with tempfile.TemporaryDirectory() as folder:
            seconds, weights = train(name, clips, given, Path(folder))
        head, _, count = TASKS[name]
        multiplying = given.clips * count * operations(head, given.frames, given.classes) / products
        moved = size * given.frames / LENGTH + given.clips / given.batch * weights * ADAM_BYTES
        print(
            f"{name}: {seconds:.2f} s an epoch, {100 * seconds / 60:.1f} min for 100; {multiplying / seconds:.0%} of "
            f"products alone, {moved / reading / seconds:.0%} of memory alone",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--clips", type=int, default=179_334)
    parser.add_argument("--classes", type=int, default=1004)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--compiled", action="store_true", help="train as `longreel train --compiled` does")
    parser.add_argument("--tasks", nargs="*", choices=TASKS)
    given = parser.parse_args()
    if given.epochs < 3:
        parser.error("--epochs must be 3 or more: two are left out")
    main(given)
