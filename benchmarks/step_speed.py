"""A training step of the heads beside the papers' forms in plain PyTorch, and beside the machine's limits.

python benchmarks/step_speed.py --threads 1

128 clips of 60 rows of 2048 numbers, 1004 classes, Adam; random numbers. CPU time of the process for one thread, time
on the clock for more. The plain form runs in a process of its own, once as PyTorch is and once with the memory settings
of `longreel train`, which ours has too. Both forms are given the same weights and draws first, and their losses
compared. The ceiling of a head is its largest layer and the Adam of that alone, in the same precision: for MOVE, the
reduction of two views' 131072 numbers to 1024.
"""

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import naive_heads as naive
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longreel.balance import Batch, Known, build_stage
from longreel.balance.methods import Stage
from longreel.balance.mixing import draw_beta
from longreel.balance.move import draw_frames, tail_weight
from longreel.experiments.arithmetic import PRECISIONS, products_in
from longreel.experiments.optimisation import FitSettings
from longreel.heads import build_head
from longreel.memory import keep_freed_memory

CLIPS, FRAMES = 128, 60
WIDTH, CLASSES = naive.WIDTH, naive.CLASSES
SETTINGS = FitSettings(optimiser="adam", learning_rate=1e-4, weight_decay=0.0)
COUNTS = torch.linspace(500, 5, CLASSES).round()
ROWS = CLIPS * FRAMES
#: head -> its largest layer: rows of a step, width, numbers out, and whether a gradient goes through it.
LAYERS = {
    "nonlinear": (ROWS, WIDTH, naive.HIDDEN, False),
    "netvlad": (CLIPS, naive.CLUSTERS * WIDTH, naive.REDUCED, True),
    "aggregated": (2 * CLIPS, naive.CLUSTERS * WIDTH, naive.REDUCED, True),
}


def operations(name: str, frames: int = FRAMES, classes: int = CLASSES) -> int:
    """Floating-point operations that no form of a head's step can do without, for each clip of so many rows."""
    hidden, reduced, clusters = naive.HIDDEN, naive.REDUCED, naive.CLUSTERS
    reduction = 6 * clusters * WIDTH * reduced  # forward and both gradients
    sums = 4 * 2 * frames * WIDTH * clusters  # assignment and sums: forward and one gradient each
    attention = 6 * 4 * WIDTH * WIDTH
    return {
        "nonlinear": 4 * frames * WIDTH * hidden + 6 * hidden * classes,
        "netvlad": reduction + sums + 6 * reduced * classes,
        "aggregated": 2 * (reduction + attention)
        + sums * 3 // 2
        + 6 * (reduced + WIDTH) * hidden
        + 6 * hidden * classes,
    }[name]


class Ours:
    """A step as the training loop makes it."""

    def __init__(self, name: str, batch: Batch) -> None:
        self.head = build_head(name, WIDTH, CLASSES, torch.zeros(WIDTH), torch.ones(WIDTH)).train()
        self.parts = build_stage(Stage("bce", mixer=MIXERS[name]))
        self.optimiser = SETTINGS.make_optimiser(self.head.parameters())
        self.batch = batch
        self.known = Known(COUNTS, torch.zeros(CLASSES), torch.Generator().manual_seed(0))

    def __call__(self, precision: str) -> None:
        with products_in(precision, torch.device("cpu")):
            logits, targets = self.parts.mixer(self.head, self.batch, self.known)
        losses = self.parts.loss(logits.float(), targets, COUNTS)
        self.optimiser.zero_grad(set_to_none=True)
        losses.mean().backward()
        self.optimiser.step()


class Naive:
    """A step of the papers' form."""

    def __init__(self, name: str, batch: Batch) -> None:
        self.head = NAIVE[name]().train()
        self.optimiser = torch.optim.Adam(self.head.parameters(), lr=1e-4)
        self.batch = batch

    def __call__(self) -> None:
        self.optimiser.zero_grad()
        self.loss().backward()
        self.optimiser.step()

    def loss(self) -> Tensor:
        frames, mask, targets = self.batch.frames, self.batch.mask, self.batch.targets
        if not isinstance(self.head, naive.Aggregated):
            return F.binary_cross_entropy_with_logits(self.head(frames, mask), targets)
        masks = naive.draw_masks(targets, COUNTS, FRAMES)
        beyond = torch.tensor([[1 + random.betavariate(2, 2)] for _ in range(CLIPS)])
        share = torch.tensor([[random.betavariate(1, 1)] for _ in range(CLIPS)])
        return naive.move_loss(self.head, frames, targets, COUNTS, masks, beyond, torch.randperm(CLIPS), share)


NAIVE: dict[str, Callable[[], nn.Module]] = {
    "nonlinear": naive.Nonlinear,
    "netvlad": naive.NetVladHead,
    "aggregated": naive.Aggregated,
}
MIXERS = {"nonlinear": "none", "netvlad": "none", "aggregated": "move"}


def make_ceiling(name: str) -> Callable[[str], None]:
    """A head's largest layer and the optimiser over its weights, and nothing else."""
    rows, width, out, through = LAYERS[name]
    layer = nn.Linear(width, out, bias=False)
    given, gradient = torch.randn(rows, width, requires_grad=through), torch.randn(rows, out)
    optimiser = SETTINGS.make_optimiser(layer.parameters())

    def step(precision: str) -> None:
        optimiser.zero_grad(set_to_none=True)
        given.grad = None
        with products_in(precision, torch.device("cpu")):
            made = layer(given)
        made.backward(gradient.to(made.dtype))
        optimiser.step()

    return step


def ceiling_operations(name: str) -> int:
    """Floating-point operations of the ceiling."""
    rows, width, out, through = LAYERS[name]
    return (6 if through else 4) * rows * width * out


def peak(precision: str, threads: int, size: int = 4096) -> float:
    """Floating-point operations a second of a large matrix product, the best of twenty."""
    left, right = (torch.randn(size, size, dtype=PRECISIONS[precision]) for _ in range(2))
    return 2 * size**3 / min(seconds(lambda: left @ right, clock(threads)) for _ in range(20))


def seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Of one call."""
    begun = clock()
    work()
    return clock() - begun


def make_batch() -> Batch:
    """Clips of standardised numbers with one or two labels."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.zeros(CLIPS, CLASSES)
    targets[torch.arange(CLIPS), torch.randint(CLASSES, (CLIPS,), generator=generator)] = 1
    targets[::3, 7] = 1
    frames = torch.randn(CLIPS, FRAMES, WIDTH, generator=generator)
    return Batch(frames, torch.ones(CLIPS, FRAMES, dtype=torch.bool), targets)


def check_losses(name: str) -> None:
    """Stop unless both forms, given the same weights and draws, have the same loss."""
    torch.manual_seed(0)
    batch, mixer = make_batch(), MIXERS[name]
    ours = build_head(name, WIDTH, CLASSES, torch.zeros(WIDTH), torch.ones(WIDTH)).train()
    plain = NAIVE[name]().train()
    weights = {key.removeprefix("head."): tensor for key, tensor in ours.state_dict().items()}
    plain.load_state_dict(weights, strict=False)  # but for the count of batches
    for module in (*ours.modules(), *plain.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    parts, known = build_stage(Stage("bce", mixer=mixer)), Known(COUNTS, torch.zeros(CLASSES), torch.manual_seed(1))
    wanted = parts.loss(*parts.mixer(ours, batch, known), COUNTS).mean()
    if isinstance(plain, naive.Aggregated):
        generator = torch.manual_seed(1)
        tau = tail_weight(COUNTS)
        fewest = (batch.targets * (FRAMES * tau).floor().clamp(min=3)).sum(dim=1) / batch.targets.sum(dim=1)
        masks = draw_frames(batch.mask, fewest.floor().long(), (2, 2), generator)
        beyond = 1 + draw_beta(2.0, (CLIPS, 1), generator)
        partner, share = torch.randperm(CLIPS, generator=generator), draw_beta(1.0, (CLIPS, 1), generator)
        found = naive.move_loss(plain, batch.frames, batch.targets, COUNTS, masks, beyond, partner, share)
    else:
        found = F.binary_cross_entropy_with_logits(plain(batch.frames, batch.mask), batch.targets)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    print(f"{name}: loss {wanted.item():.6f}, plain {found.item():.6f}", flush=True)


STEPS: dict[str, Callable[[], None]] = {}  #: of this process, which was told to prepare them.


def prepare(threads: int, kept: bool) -> None:
    """In a new process: its threads, and the memory settings of `longreel train` or none."""
    if kept:
        keep_freed_memory()
    torch.set_num_threads(threads)


def build(form: str, name: str) -> None:
    """Have the steps of a head ready in this process, and none of another head."""
    STEPS.clear()
    batch = make_batch()
    if form == "plain":
        STEPS["plain"] = Naive(name, batch)
        return
    ours = Ours(name, batch)
    ceiling = make_ceiling(name)
    for precision in PRECISIONS:
        STEPS.update({precision: partial(ours, precision), f"ceiling {precision}": partial(ceiling, precision)})


def step(name: str, threads: int) -> float:
    """Seconds of one of them."""
    return seconds(STEPS[name], clock(threads))


def start_processes(threads: int) -> dict[str, ProcessPoolExecutor]:
    """One for each form; the first as PyTorch is."""
    pools, spawn = {}, get_context("spawn")
    for form, pages in (("plain", "0"), ("plain, memory kept", "1"), ("ours", "1")):
        os.environ["THP_MEM_ALLOC_ENABLE"] = pages  # read by torch as a process starts
        pools[form] = ProcessPoolExecutor(1, spawn, prepare, (threads, form != "plain"))
        pools[form].submit(int).result()
    return pools


def measure(pools: dict[str, ProcessPoolExecutor], name: str, repeats: int, threads: int) -> dict[str, float]:
    """Median seconds of every form, in turn; the first two rounds are left out."""
    ours = [*PRECISIONS, *(f"ceiling {dtype}" for dtype in PRECISIONS)]
    forms = {"plain": ["plain"], "plain, memory kept": ["plain"], "ours": ours}
    for form, pool in pools.items():
        pool.submit(build, form.partition(",")[0], name).result()
    found: dict[str, list[float]] = {}
    for _ in range(repeats + 2):
        for form, pool in pools.items():
            for each in forms[form]:
                took = pool.submit(step, each, threads).result()
                found.setdefault(form if form != "ours" else each, []).append(took)
    return {each: statistics.median(took[2:]) for each, took in found.items()}


def clock(threads: int) -> Callable[[], float]:
    """CPU time says more beside other work, but of several threads it hides how they wait for each other."""
    return time.process_time if threads == 1 else time.perf_counter


def main() -> None:
    """Print the figures of one head after another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--heads", nargs="+", default=list(NAIVE))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    peaks = {precision: peak(precision, options.threads) for precision in PRECISIONS}
    print(*(f"products in {dtype}: {rate / 1e9:.0f} GFLOP/s" for dtype, rate in peaks.items()), sep=", ", flush=True)
    for name in options.heads:
        check_losses(name)
        pools = start_processes(options.threads)
        found = measure(pools, name, options.repeats, options.threads)
        for pool in pools.values():
            pool.shutdown()
        plain, kept = found["plain"], found["plain, memory kept"]
        print(f"  plain {plain:.2f} s; with memory kept {kept:.2f} s")
        for dtype, rate in peaks.items():
            took, limit = found[dtype], found[f"ceiling {dtype}"]
            share, ceiling = (work / rate for work in (CLIPS * operations(name), ceiling_operations(name)))
            print(
                f"  {dtype}: {took:.2f} s, {plain / took:.2f} x ({kept / took:.2f} x), {share / took:.0%} of the peak; "
                f"ceiling {limit:.2f} s, {plain / limit:.2f} x, {ceiling / limit:.0%} of the peak; "
                f"{limit / took:.0%} of it reached",
                flush=True,
            )


if __name__ == "__main__":
    main()
