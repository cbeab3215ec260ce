"""The one training loop: a head, a balance method, a training set and a way to choose the epoch.

The test split has no way in here.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..balance import Loss
from ..errors import LongreelError
from .checkpoint import load_checkpoint, save_checkpoint
from .clips import ClipSet
from .metrics import Evaluation, evaluate_scores

#: what the epoch is selected by -> how it is read from the evaluation on val; higher is better.
SELECTIONS: dict[str, Callable[[Evaluation], float]] = {
    "map": lambda evaluation: evaluation.overall.map,
    "class-average": lambda evaluation: evaluation.overall.class_average,
    "acc1": lambda evaluation: evaluation.overall.acc1,
}

SCORE_CLIPS = 256
SCORE_ROWS = 65536


@dataclass(frozen=True)
class FitSettings:
    """How a head is trained. AdamW, the learning rate falling to zero along a cosine."""

    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 3e-4
    weight_decay: float = 1e-2
    frames: int | None = None  #: rows drawn of each clip and step; all of them if ``None``.
    select: str = "map"
    seed: int = 0
    checkpoint_seconds: float = 10.0  #: an interrupted training repeats at most about this much.

    def __post_init__(self) -> None:
        wrong = {
            "learning rate": not 0 < self.learning_rate < math.inf,
            "weight decay": not 0 <= self.weight_decay < math.inf,
            "seed": not 0 <= self.seed < 2**63,
            "number of epochs": self.epochs < 1,
            "batch size": self.batch_size < 1,
            "number of training frames": self.frames is not None and self.frames < 1,
        }
        for name, is_wrong in wrong.items():
            if is_wrong:
                raise LongreelError(f"this {name} cannot be used. Give a finite number in its range.")


@dataclass
class Progress:
    """Where a training stands; together with head, optimiser and generators this is all of its state."""

    epoch: int = 0  #: epochs done.
    best_epoch: int = 0  #: counted from 1.
    best_value: float = -math.inf
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict] = field(default_factory=list)


def fit(
    head: nn.Module,
    loss: Loss,
    counts: Tensor,
    train: ClipSet,
    val: ClipSet | None,
    settings: FitSettings,
    checkpoint: Path,
    on_epoch: Callable[[dict], None] = lambda row: None,
) -> Progress:
    """Train a head and keep its best epoch on val; without val, the last epoch.

    The head's weights should come from a seeded generator; everything random in here does. Interrupted at any point,
    the same call goes on from the checkpoint and ends in the same bits (same machine and thread count).

    Args:
        head: Trained in place; ends with the weights of the chosen epoch.
        loss: The balance method.
        counts: Real training clips of each class, ``(C,)``.
        train, val: The clips to train on and to select the epoch on.
        settings: How.
        checkpoint: File that an interrupted training goes on from.
        on_epoch: Called with each epoch's row of the history.

    Returns:
        The history and which epoch was chosen.

    Raises:
        LongreelError: When the loss or a weight is no longer finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)  # dropout draws from the global generator
        generator = torch.Generator().manual_seed(settings.seed)
        optimiser = torch.optim.AdamW(head.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
        progress = Progress()
        if checkpoint.exists():
            load_checkpoint(checkpoint, head, optimiser, generator, progress)
        saved = time.monotonic()
        while progress.epoch < settings.epochs:
            value = _train_epoch(head, loss, counts, train, settings, optimiser, generator, progress)
            if not (math.isfinite(value) and all(parameter.isfinite().all() for parameter in head.parameters())):
                now = f"epoch {progress.epoch + 1}, learning rate {settings.learning_rate:g}"
                raise LongreelError(f"training diverged ({now}): use a lower learning rate, and another folder.")
            row = {"epoch": progress.epoch + 1, "loss": value}
            row |= _validate(head, val, settings, progress)
            progress.epoch += 1
            progress.history.append(row)
            on_epoch(row)
            if time.monotonic() - saved >= settings.checkpoint_seconds:
                save_checkpoint(checkpoint, head, optimiser, generator, progress)
                saved = time.monotonic()
    head.load_state_dict(progress.best)
    return progress


def _train_epoch(
    head: nn.Module,
    loss: Loss,
    counts: Tensor,
    train: ClipSet,
    settings: FitSettings,
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    progress: Progress,
) -> float:
    """One pass over the training clips in random order; the mean loss of a clip."""
    head.train()
    order = torch.randperm(len(train), generator=generator)
    batches = order.split(settings.batch_size)
    total = torch.zeros(())
    for number, clips in enumerate(batches):
        share = (progress.epoch + number / len(batches)) / settings.epochs
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * share))
        frames, mask = train.batch(clips, settings.frames, generator)  # (B, T, D), (B, T)
        losses = loss(head(frames, mask), train.targets[clips], counts)  # (B,)
        optimiser.zero_grad(set_to_none=True)
        losses.mean().backward()
        optimiser.step()
        total += losses.detach().sum()
    return float(total) / len(train)


def _validate(head: nn.Module, val: ClipSet | None, settings: FitSettings, progress: Progress) -> dict:
    """Score val and keep the head if it is the best so far; of equals the later one, which has been trained more."""
    if val is None:
        value, row = float(progress.epoch), {}
    else:
        evaluation = evaluate_scores(*val.with_failed(score_clips(head, val)))
        value = SELECTIONS[settings.select](evaluation)
        row = {f"val_{settings.select}": value}
    if value >= progress.best_value:
        progress.best_value, progress.best_epoch = value, progress.epoch + 1
        progress.best = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    return row


@torch.inference_mode()
def score_clips(head: nn.Module, clips: ClipSet) -> np.ndarray:
    """Logits ``(clips, C)`` float32 of a head in evaluation mode, over all rows of each clip.

    A batch holds at most 256 clips and, padded, about 65 536 rows, so that one long clip does not fill the memory.
    """
    head.eval()
    if len(clips) == 0:
        return np.zeros((0, clips.targets.shape[1]), dtype=np.float32)
    longest = int((clips.offsets[1:] - clips.offsets[:-1]).max())
    batches = torch.arange(len(clips)).split(max(1, min(SCORE_CLIPS, SCORE_ROWS // longest)))
    return torch.cat([head(*clips.batch(batch)) for batch in batches]).numpy()
