"""Test figures of heads trained by our loop and by a plain one, over seeds: do the shortcuts change what is learnt?

python benchmarks/paths.py ../shared/data/videos/manifest_all9.csv build/real/all9.store --seeds 10

The plain path is that of naive_heads.py: a DataLoader, PyTorch's own dropout, unfused AdamW, loops over clips. Weights
begin alike; clips, dropout and masks are drawn otherwise. Ours runs in float32 and in bfloat16. Last epoch, test split.
"""

import argparse
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import naive_heads as naive
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from longreel.balance import METHODS, count_training_clips
from longreel.experiments.clips import ClipSet, load_clips
from longreel.experiments.fit import fit
from longreel.experiments.metrics import evaluate_scores
from longreel.experiments.optimisation import FitSettings
from longreel.experiments.scoring import score_clips
from longreel.heads import Standardised, build_head
from longreel.manifest import read_manifest
from longreel.store import FeatureStore

EPOCHS, BATCH, RATE, DECAY = 30, 128, 3e-4, 1e-2
naive.CLUSTERS, naive.REDUCED, naive.HIDDEN = 8, 256, 512
#: name -> our head, our method, the plain head.
PATHS: dict[str, tuple[str, str, Callable[[], nn.Module]]] = {
    "nonlinear": ("nonlinear:hidden=512", "bce", lambda: naive.Nonlinear()),
    "netvlad": ("netvlad:clusters=8,hidden=256", "bce", lambda: naive.NetVladHead()),
    "MOVE, aggregated": ("aggregated:clusters=8,reduced=256,hidden=512", "move", lambda: naive.Aggregated()),
}


def make_head(text: str, train: ClipSet, classes: int, seed: int) -> Standardised:
    """Our head with the weights of a seed."""
    torch.manual_seed(seed)
    return build_head(text, naive.WIDTH, classes, *train.scales["all"])


def train_plainly(head: nn.Module, frames: Tensor, targets: Tensor, counts: Tensor, seed: int) -> None:
    """The loop that one writes first."""
    torch.manual_seed(seed)
    random.seed(seed)
    optimiser = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=DECAY)
    loader = DataLoader(TensorDataset(frames, targets), batch_size=BATCH, shuffle=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS * len(loader))
    head.train()
    for _ in range(EPOCHS):
        for batch, wanted in loader:
            optimiser.zero_grad()
            plain_loss(head, batch, wanted, counts).backward()
            optimiser.step()
            schedule.step()


def plain_loss(head: nn.Module, batch: Tensor, wanted: Tensor, counts: Tensor) -> Tensor:
    """Binary cross-entropy, or MOVE's loss."""
    clips, length = batch.shape[:2]
    if not isinstance(head, naive.Aggregated):
        return F.binary_cross_entropy_with_logits(head(batch, torch.ones(clips, length, dtype=torch.bool)), wanted)
    masks = naive.draw_masks(wanted, counts, length)
    beyond = torch.tensor([[1 + random.betavariate(2, 2)] for _ in range(clips)])
    share = torch.tensor([[random.betavariate(1, 1)] for _ in range(clips)])
    return naive.move_loss(head, batch, wanted, counts, masks, beyond, torch.randperm(clips), share)


@torch.no_grad()
def score_plainly(head: nn.Module, frames: Tensor) -> np.ndarray:
    """Logits of all clips at once."""
    mask = torch.ones(frames.shape[:2], dtype=torch.bool)
    head.eval()
    if isinstance(head, naive.Aggregated):
        return head.classifier(head.pool(frames, torch.stack([mask, mask]))).numpy()
    return head(frames, mask).numpy()


def figures(scores: np.ndarray, test: ClipSet) -> tuple[float, float]:
    """Class average and mAP."""
    overall = evaluate_scores(scores, test.targets.numpy() > 0).overall
    return overall.class_average, overall.map


def compare(name: str, train: ClipSet, test: ClipSet, counts: Tensor, seed: int) -> dict[str, tuple[float, float]]:
    """Figures of one seed, by path."""
    text, method, make = PATHS[name]
    ours = make_head(text, train, len(counts), seed)
    plain = make()
    weights = {key.removeprefix("head."): tensor.clone() for key, tensor in ours.state_dict().items()}
    plain.load_state_dict({key: weights[key] for key in plain.state_dict() if key in weights}, strict=False)
    rows, tests = ((each.batch(torch.arange(len(each)))[0] - ours.mean) / ours.deviation for each in (train, test))
    train_plainly(plain, rows, train.targets, counts, seed)
    found = {"plain": figures(score_plainly(plain, tests), test)}
    for precision in ("float32", "bfloat16"):
        head = make_head(text, train, len(counts), seed)
        settings = FitSettings(
            epochs=EPOCHS, batch_size=BATCH, learning_rate=RATE, weight_decay=DECAY, precision=precision, seed=seed
        )
        with tempfile.TemporaryDirectory() as folder:
            fit(head, METHODS[method], counts, train, None, settings, Path(folder) / "checkpoint")
        found[precision] = figures(score_clips(head, test), test)
    return found


def main() -> None:
    """Print mean and standard deviation over the seeds, and of the paired differences from the plain path."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    given = parser.parse_args()
    manifest, store = read_manifest(given.manifest), FeatureStore(given.store)
    train, test = (load_clips(store, manifest, split, "memory", kinds=["all"]) for split in ("train", "test"))
    naive.WIDTH, naive.CLASSES = store.spec.dim, len(manifest.classes)
    counts = torch.tensor(count_training_clips(manifest), dtype=torch.float32)
    for name in PATHS:
        runs = [compare(name, train, test, counts, seed) for seed in range(given.seeds)]
        for path in runs[0]:
            values = np.array([run[path] for run in runs])  # (seeds, 2)
            change = values - np.array([run["plain"] for run in runs])
            line = [
                f"{what} {mean:.3f} ± {spread:.3f} ({shift:+.3f} ± {noise:.3f})"
                for what, mean, spread, shift, noise in zip(
                    ("class average", "mAP"),
                    values.mean(axis=0),
                    values.std(axis=0, ddof=1),
                    change.mean(axis=0),
                    change.std(axis=0, ddof=1) / len(runs) ** 0.5,
                    strict=True,
                )
            ]
            print(f"{name:18}{path:10}{', '.join(line)}", flush=True)


if __name__ == "__main__":
    main()
