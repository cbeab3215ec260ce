"""The one training loop: a head, a balance method, a training set and a way to choose the epoch.

The test split has no way in here.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ..balance import Batch, Known, Method, Parts, Stage, build_stage
from ..errors import LongreelError
from ..heads import Standardised
from .arithmetic import products_in
from .checkpoint import load_checkpoint, save_checkpoint
from .clips import ClipSet
from .metrics import evaluate_scores
from .optimisation import SELECTIONS, FitSettings, rate_at
from .precision import average_precisions
from .scoring import score_clips
from .stages import Leg, lay_out


@dataclass
class Progress:
    """Where a training stands; together with head, optimiser and generator this is all of its state."""

    epoch: int = 0  #: epochs done.
    best_epoch: int = 0  #: counted from 1.
    best_value: float = -math.inf
    best: dict[str, Tensor] = field(default_factory=dict)
    running_ap: Tensor = field(default_factory=lambda: torch.zeros(0))  #: ``(C,)`` of the epoch before.
    memory: dict[str, Tensor] = field(default_factory=dict)  #: what the mixer keeps from batch to batch.
    history: list[dict] = field(default_factory=list)


@dataclass
class _Training:
    """What the steps of a training work on."""

    head: Standardised
    legs: list[Leg]
    counts: Tensor  #: ``(C,)``
    train: ClipSet
    val: ClipSet | None
    settings: FitSettings
    generator: torch.Generator
    progress: Progress
    optimiser: torch.optim.Optimizer

    def leg(self, epoch: int) -> Leg:
        """The leg of an epoch, counted from 0."""
        return next(leg for leg in self.legs if epoch < leg.end)


def fit(
    head: Standardised,
    method: Method,
    counts: Tensor,
    train: ClipSet,
    val: ClipSet | None,
    settings: FitSettings,
    checkpoint: Path,
    on_epoch: Callable[[dict], None] = lambda row: None,
) -> Progress:
    """Train a head and keep its best epoch on val; without val, the last epoch.

    A stage that trains the output alone begins with the epoch chosen so far, an output drawn anew and a new
    optimiser, and the epoch is then chosen among its own. The head's weights should come from a seeded generator;
    everything random in here does. Interrupted at any point, the same call goes on from the checkpoint and ends in
    the same bits (same machine and thread count).

    Args:
        head: Trained in place; ends with the weights of the chosen epoch.
        method: The balance method.
        counts: Real training clips of each class, ``(C,)``.
        train, val: The clips to train on and to select the epoch on.
        settings: How.
        checkpoint: File that an interrupted training goes on from.
        on_epoch: Called with each epoch's row of the history.

    Returns:
        The history and which epoch was chosen.

    Raises:
        LongreelError: When the loss, a weight or a score is no longer finite.
    """
    with torch.random.fork_rng(devices=[]):
        generator = torch.manual_seed(settings.seed)  # PyTorch's global one, since dropout takes no other
        progress = Progress(running_ap=torch.zeros_like(counts))
        legs = lay_out(method, settings.epochs)
        optimiser = settings.make_optimiser(_choose_parameters(head, legs[0].stage))
        run = _Training(head, legs, counts, train, val, settings, generator, progress, optimiser)
        if checkpoint.exists():
            load_checkpoint(checkpoint, head, lambda epoch: _resume(run, epoch), progress)
        saved = time.monotonic()
        while progress.epoch < settings.epochs:
            row = _run_epoch(run)
            on_epoch(row)
            if time.monotonic() - saved >= settings.checkpoint_seconds:
                save_checkpoint(checkpoint, head, run.optimiser, progress)
                saved = time.monotonic()
    head.load_state_dict(progress.best)
    return progress


def _choose_parameters(head: Standardised, stage: Stage) -> list[nn.Parameter]:
    """The parameters that a stage trains; no gradient is computed for the others."""
    head.requires_grad_(not stage.output_only)
    chosen = list(head.output.parameters() if stage.output_only else head.parameters())
    for parameter in chosen:
        parameter.requires_grad_(True)
    return chosen


def _resume(run: _Training, epoch: int) -> torch.optim.Optimizer:
    """The optimiser that was at work when so many epochs were done."""
    run.optimiser = run.settings.make_optimiser(_choose_parameters(run.head, run.leg(max(0, epoch - 1)).stage))
    return run.optimiser


def _run_epoch(run: _Training) -> dict:
    """Train for an epoch, validate it, and note both."""
    progress = run.progress
    leg = run.leg(progress.epoch)
    if leg.begins_anew(progress.epoch):
        _begin_anew(run, leg.stage)
    value = _train_epoch(run, leg, build_stage(leg.stage))
    _check_finite(run, torch.tensor(value), *run.head.state_dict().values())
    row = {"epoch": progress.epoch + 1, "loss": value} | _validate(run)
    progress.epoch += 1
    progress.history.append(row)
    return row


def _check_finite(run: _Training, *tensors: Tensor) -> None:
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        now = f"epoch {run.progress.epoch + 1}, learning rate {run.settings.learning_rate:g}"
        raise LongreelError(f"training diverged ({now}): use a lower learning rate, and another folder.")


def _begin_anew(run: _Training, stage: Stage) -> None:
    """The chosen epoch's head with an output drawn anew, which is all that is trained from now on."""
    if run.progress.best:
        run.head.load_state_dict(run.progress.best)
    run.head.output.reset_parameters()
    run.progress.best_value = -math.inf
    run.progress.memory.clear()
    run.optimiser = run.settings.make_optimiser(_choose_parameters(run.head, stage))


def _train_epoch(run: _Training, leg: Leg, parts: Parts) -> float:
    """One epoch of the stage's sampler; the mean loss of a clip."""
    head, settings, progress, train = run.head, run.settings, run.progress, run.train
    head.train(not leg.stage.output_only)
    trained = [parameter for parameter in head.parameters() if parameter.requires_grad]
    known = Known(run.counts, progress.running_ap, run.generator, progress.memory)
    order = parts.sampler(train.targets, run.generator)
    batches = order.split(settings.batch_size)
    total, scores = torch.zeros(()), []
    for number, clips in enumerate(batches):
        rate = rate_at(settings.schedule, progress.epoch + number / len(batches), *leg.span)
        for group in run.optimiser.param_groups:
            group["lr"] = settings.learning_rate * rate
        batch = Batch(*train.batch(clips, settings.frames, run.generator), train.targets[clips])
        with products_in(settings.precision):
            logits, targets = parts.mixer(head, batch, known)
        losses = parts.loss(logits.float(), targets, run.counts)  # (B,)
        run.optimiser.zero_grad(set_to_none=True)
        losses.mean().backward()
        if settings.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(trained, settings.clip_norm)
        run.optimiser.step()
        total += losses.detach().sum()
        if parts.mixer.needs_running_ap:
            with products_in(settings.precision):
                scores.append(_score_unmixed(head, batch).float())
    if scores:
        _check_finite(run, *scores)
        progress.running_ap = _running_ap(torch.cat(scores), train.targets[order])
    return float(total) / len(order)


@torch.no_grad()
def _score_unmixed(head: Standardised, batch: Batch) -> Tensor:
    """Logits ``(B, C)`` of the clips as they were drawn; batch statistics and dropout are left alone."""
    was = head.training
    scores = head.eval()(batch.frames, batch.mask)
    head.train(was)
    return scores


def _running_ap(scores: Tensor, targets: Tensor) -> Tensor:
    """``(C,)`` average precision of an epoch's predictions; 0 for a class that did not come up."""
    found = average_precisions(scores.numpy(), targets.numpy() > 0)[0]
    return torch.from_numpy(found).nan_to_num(0.0).float()


def _validate(run: _Training) -> dict:
    """Score val and keep the head if it is the best so far; of equals the later one, which has been trained more."""
    progress, settings = run.progress, run.settings
    if run.val is None:
        value, row = float(progress.epoch), {}
    else:
        scores = score_clips(run.head, run.val, settings.test_frames)
        _check_finite(run, torch.from_numpy(scores))
        value = SELECTIONS[settings.select](evaluate_scores(*run.val.with_failed(scores)))
        row = {f"val_{settings.select}": value}
    if value >= progress.best_value:
        progress.best_value, progress.best_epoch = value, progress.epoch + 1
        progress.best = {name: tensor.clone() for name, tensor in run.head.state_dict().items()}
    return row
