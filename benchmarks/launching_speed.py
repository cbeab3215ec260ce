"""What a training step costs beside its products: heads as they are, compiled, and stacked into batched products.

python benchmarks/launching_speed.py --device cpu
python benchmarks/launching_speed.py --device cuda --precision bfloat16

Clips of 60 rows of random numbers, binary cross-entropy, AdamW. Frames are there already, and dropout is off so that
all forms compute the same: the losses of all steps are compared. Compiled is torch.compile with mode="reduce-overhead",
which on a GPU replays CUDA graphs. Stacked heads are one set of tensors with a head in front, mapped by
torch.func.vmap. Seconds of the median step, the device waited for; the first step is apart.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from longreel.devices import choose_device
from longreel.experiments.arithmetic import PRECISIONS, products_in
from longreel.heads import Standardised, build_head
from longreel.memory import keep_freed_memory

FRAMES = 60


@dataclass(frozen=True)
class Task:
    """Heads that are trained side by side on the same batches."""

    head: str
    heads: int
    clips: int
    dim: int
    classes: int


TASKS = {
    "nonlinear": Task("nonlinear:dropout=0", 1, 128, 2048, 1004),
    "netvlad": Task("netvlad", 1, 128, 2048, 1004),
    "16 linear probes": Task("linear", 16, 128, 2048, 1004),
    "16 small nonlinear": Task("nonlinear:hidden=128,dropout=0", 16, 128, 128, 20),
    "16 tiny linear probes": Task("linear", 16, 32, 40, 10),
}
Step = Callable[[Tensor, Tensor], Tensor]  #: rows ``(B, T, D)`` and targets ``(B, C)`` -> losses of the heads ``(K,)``


def make_heads(task: Task, device: torch.device) -> list[Standardised]:
    """The task's heads, each with weights of its own."""
    torch.manual_seed(0)
    scale = torch.zeros(task.dim), torch.ones(task.dim)
    made = [build_head(task.head, task.dim, task.classes, *scale) for _ in range(task.heads)]
    return [head.to(device).train() for head in made]


def descend(losses: list[Tensor], optimisers: list[torch.optim.Optimizer]) -> Tensor:
    """One step down the sum of the losses."""
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    torch.stack(losses).sum().backward()
    for optimiser in optimisers:
        optimiser.step()
    return torch.stack(losses).detach()


def one_by_one(heads: list[Standardised], precision: str, compile_heads: bool = False) -> Step:
    """Each head by itself, as `longreel train` does it."""
    optimisers = [torch.optim.AdamW(head.parameters(), lr=1e-4, fused=True) for head in heads]
    calls: list[Callable[[Tensor], Tensor]] = list(heads)
    if compile_heads:
        calls = [torch.compile(head, dynamic=False, mode="reduce-overhead") for head in heads]

    def step(rows: Tensor, targets: Tensor) -> Tensor:
        losses = []
        for call, optimiser in zip(calls, optimisers, strict=True):
            with products_in(precision, rows.device):
                logits = call(rows)
            loss = F.binary_cross_entropy_with_logits(logits.float(), targets)
            losses.append(descend([loss], [optimiser])[0])
        return torch.stack(losses)

    return step


def compiled(heads: list[Standardised], precision: str) -> Step:
    """Each head by itself, compiled."""
    return one_by_one(heads, precision, compile_heads=True)


def stacked(heads: list[Standardised], precision: str) -> Step:
    """All heads as one, with a head in front of every tensor."""
    parameters, buffers = stack_module_state(list[nn.Module](heads))
    optimiser = torch.optim.AdamW(parameters.values(), lr=1e-4, fused=True)

    def step(rows: Tensor, targets: Tensor) -> Tensor:
        def run(own: dict[str, Tensor], kept: dict[str, Tensor]) -> Tensor:
            return functional_call(heads[0], (own, kept), (rows,))

        with products_in(precision, rows.device):
            logits = vmap(run)(parameters, buffers)  # (K, B, C)
        losses = [F.binary_cross_entropy_with_logits(each, targets) for each in logits.float()]
        return descend(losses, [optimiser])

    return step


FORMS = {"one by one": one_by_one, "compiled": compiled, "stacked": stacked}


def wait(device: torch.device) -> None:
    """Until the device has done all that was asked of it."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize(device)


def timed(step: Step, rows: Tensor, targets: Tensor) -> tuple[float, Tensor]:
    """Seconds of a step, and its losses."""
    wait(rows.device)
    begun = time.perf_counter()
    losses = step(rows, targets)
    wait(rows.device)
    return time.perf_counter() - begun, losses


def measure(task: Task, device: torch.device, precision: str, steps: int) -> dict[str, tuple[float, float]]:
    """Seconds of the first step and of the median of those behind it, in turn, of each form."""
    rows = torch.randn(task.clips, FRAMES, task.dim, device=device)
    targets = F.one_hot(torch.randint(task.classes, (task.clips,)), task.classes).float().to(device)
    forms = {name: form for name, form in FORMS.items() if name != "stacked" or task.heads > 1}
    running = {name: form(make_heads(task, device), precision) for name, form in forms.items()}
    spent: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(1 + steps):
        losses = {}
        for name, step in running.items():
            seconds, losses[name] = timed(step, rows, targets)
            spent[name].append(seconds)
        for found in losses.values():
            torch.testing.assert_close(
                found, losses["one by one"], rtol=2e-2 if precision == "bfloat16" else 1e-3, atol=0
            )
    return {name: (each[0], statistics.median(each[1:])) for name, each in spent.items()}


def main(given: argparse.Namespace) -> None:
    """Measure each task."""
    keep_freed_memory()
    if given.threads:
        torch.set_num_threads(given.threads)
    device = choose_device(given.device)
    torch.manual_seed(0)
    for name in given.tasks or TASKS:
        found = measure(TASKS[name], device, given.precision, given.steps)
        plain = found["one by one"][1]
        for form, (first, later) in found.items():
            print(f"{name}, {form}: {1e3 * later:.2f} ms, {plain / later:.2f}x; first {first:.1f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--tasks", nargs="*", choices=TASKS)
    main(parser.parse_args())
