"""What losses, samplers and adjustments do to a linear head on made-up data: the table of docs/losses.md.

python benchmarks/toy_losses.py

50 classes with 200 to 2 training clips, 32 numbers a clip: a class mean of deviation 0.8 and noise of deviation 1. 600
steps of 128 clips with AdamW at 0.01, 40 test clips a class, mean of 3 seeds. Poor: the 16 poorest classes.
"""

import numpy as np
import torch
from torch import Tensor, nn

from longreel.balance import ADJUSTMENTS, LOSSES, SAMPLERS
from longreel.experiments.metrics import evaluate_scores
from longreel.parts import build_part

CLASSES, WIDTH, TESTED, STEPS, BATCH, SEEDS = 50, 32, 40, 600, 128, 3
SPARED = "threshold=0.0068"  #: spares 22 classes.
#: loss, sampler, adjustment.
ROWS = [
    ("ce", "instance", ""),
    ("ce", "instance", "logit-adjustment"),
    ("ce", "instance", "tau-norm"),
    ("ce", "instance", "tau-norm:bias=scale"),
    ("ce", "instance", "tau-norm:bias=keep"),
    ("ce", "class-balanced", ""),
    ("ce", "square-root", ""),
    ("ce", "tail-repetition", ""),
    ("balanced-softmax", "instance", ""),
    ("class-balanced:form=ce", "instance", ""),
    ("action-aware", "instance", ""),
    (f"softmax-eql:{SPARED}", "instance", ""),
    ("bce", "instance", ""),
    ("bce", "class-balanced", ""),
    ("focal", "instance", ""),
    ("class-balanced", "instance", ""),
    ("class-balanced:released=true", "instance", ""),
    ("ldam", "instance", ""),
    ("ldam:weights=class-balanced", "instance", ""),
    ("ldam:weights=class-balanced,released=true", "instance", ""),
    (f"eql:{SPARED}", "instance", ""),
    (f"eql:{SPARED},gamma=0.9", "instance", ""),
    ("eql:released=true", "instance", ""),
]


def draw(means: Tensor, counts: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Clips ``(N, 32)`` and targets ``(N, 50)``."""
    labels = torch.arange(CLASSES).repeat_interleave(counts)
    noise = torch.randn(len(labels), WIDTH, generator=generator)
    return means[labels] + noise, nn.functional.one_hot(labels, CLASSES).float()


def train(loss: str, sampler: str, adjustment: str, seed: int) -> list[float]:
    """Accuracy and mAP on test, each of all classes and of the poor ones."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    means = 0.8 * torch.randn(CLASSES, WIDTH, generator=generator)
    counts = torch.from_numpy(np.rint(np.geomspace(200, 2, CLASSES))).long()
    clips, targets = draw(means, counts, generator)
    tested, truth = draw(means, torch.full((CLASSES,), TESTED), generator)
    head = nn.Linear(WIDTH, CLASSES)
    optimiser = torch.optim.AdamW(head.parameters(), lr=0.01)
    weigh, choose = build_part("loss", LOSSES, loss), build_part("sampler", SAMPLERS, sampler)
    order = torch.zeros(0, dtype=torch.long)
    for _ in range(STEPS):
        while len(order) < BATCH:
            order = torch.cat([order, choose(targets, generator)])
        batch, order = order[:BATCH], order[BATCH:]
        optimiser.zero_grad()
        weigh(head(clips[batch]), targets[batch], counts.float()).mean().backward()
        optimiser.step()
    if adjustment:
        with torch.no_grad():
            build_part("adjustment", ADJUSTMENTS, adjustment)(head, counts.float())
    with torch.no_grad():
        found = evaluate_scores(head(tested).numpy(), truth.numpy() > 0, {"poor": range(CLASSES - 16, CLASSES)})
    poor = found.groups["poor"]
    return [found.overall.class_average, poor.class_average, found.overall.map, poor.map]


def main() -> None:
    """Print the table in Markdown."""
    torch.set_num_threads(1)
    print("| loss, sampler, adjustment | accuracy | of poor | mAP | of poor |\n| --- | --- | --- | --- | --- |")
    for loss, sampler, adjustment in ROWS:
        figures = np.mean([train(loss, sampler, adjustment, seed) for seed in range(SEEDS)], axis=0)
        name = f"`{loss}`".replace(f":{SPARED}`", "`").replace(f"{SPARED},", "")
        name += f", `{sampler}` sampler" if sampler != "instance" else ""
        name += f", `{adjustment}`" if adjustment else ""
        print(f"| {name} | " + " | ".join(f"{figure:.3f}" for figure in figures) + " |", flush=True)


if __name__ == "__main__":
    main()
