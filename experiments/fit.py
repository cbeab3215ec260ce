"""The one training loop: heads, their balance methods, a training set and a way to choose the epoch.

Several heads can be trained side by side on every batch that is read. The test split has no way in here.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ..balance import Method, Parts
from ..errors import LongreelError
from ..heads import Standardised
from .checkpoint import Progress
from .clips import ClipSet
from .compiling import compiling
from .drawn import Drawn
from .optimisation import SELECTIONS, FitSettings
from .precision import average_precisions
from .scoring import score_together
from .training import Course, Training

Outcome = TypeVar("Outcome")


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
    """Train one head, as ``fit_together`` does.

    Raises:
        LongreelError: When the loss, a weight or a score is no longer finite.
    """

    course = Course(head, method, settings, checkpoint)
    return only(fit_together([course], counts, train, val, to_the_end(on_epoch)))


def to_the_end(on_epoch: Callable[[dict], None]) -> Callable[[int, dict], bool]:
    """For a training by itself, which nothing stops: tell of each epoch, and go on."""

    def tell(number: int, row: dict) -> bool:
        on_epoch(row)
        return True

    return tell


def only(outcomes: Sequence[Outcome | LongreelError | None]) -> Outcome:
    """The outcome of a training by itself; what went wrong is raised."""
    (outcome,) = outcomes
    if isinstance(outcome, LongreelError):
        raise outcome
    assert outcome is not None, "nothing stops it"
    return outcome


def fit_together(
    courses: Sequence[Course],
    counts: Tensor,
    train: ClipSet,
    val: ClipSet | None,
    on_epoch: Callable[[int, dict], bool] = lambda number, row: True,
) -> list[Progress | LongreelError | None]:
    """Train heads and keep the best epoch of each on val; without val, the last epoch.

    In each epoch, trainings of one seed, batch size, number of frames, sampler and kind of clips get the same batches,
    each of which is read once. Clips and frames are drawn from a generator that seed and epoch alone decide, all else
    from one of the training's own; so a training ends in the same bits alone and beside others, and, interrupted at
    any point, with the same call again (same machine and thread count). The weights a head begins with should come
    from a seeded generator.

    A stage that trains the output alone begins with the epoch chosen so far, an output drawn anew and a new
    optimiser, and the epoch is then chosen among its own.

    Args:
        courses: The trainings.
        counts: Real training clips of each class, ``(C,)``.
        train, val: The clips to train on and to select the epoch on.
        on_epoch: Called with a training's number and the row of its history behind each of its epochs; where it gives
            false, that training goes no further.

    Returns:
        For each training its history and which epoch was chosen; what went wrong, where loss, weights or scores were
        no longer finite; or nothing, where it was stopped.
    """
    with torch.random.fork_rng(devices=[]), compiling(any(course.settings.compiled for course in courses)):
        trainings = [Training(course, number, counts, train) for number, course in enumerate(courses)]
        going = [training for training in trainings if not training.done]
        while going:
            epoch = min(training.progress.epoch for training in going)
            due = [training for training in going if training.progress.epoch == epoch]
            for group in _sharing(due):
                for training, row in _run_epoch(group, train, val):
                    training.stopped = not on_epoch(training.number, row)
                    training.save(len(going))
            going = [training for training in going if not training.done]
    return [training.end() for training in trainings]


def _sharing(due: Sequence[Training]) -> list[list[Training]]:
    """Trainings at the same epoch, those together that get the same batches and are scored on the same rows."""
    groups: dict[tuple, list[Training]] = defaultdict(list)
    for training in due:
        fit, stage = training.settings, training.leg.stage
        kept, in_one_shape = training.trusted.kept, fit.compiled and fit.frames is None
        drawn = (stage.sampler, stage.clips, None if kept is None else kept.numpy().tobytes())
        groups[fit.seed, fit.batch_size, fit.frames, fit.test_frames, in_one_shape, drawn].append(training)
    return list(groups.values())


def _run_epoch(group: list[Training], train: ClipSet, val: ClipSet | None) -> list[tuple[Training, dict]]:
    """Train a group for an epoch and validate it; the row of each one's history that has not failed."""
    began, rows = time.monotonic(), {}
    losses = _train_epoch(group, train)
    for training in group:
        with _noting(training):
            training.check_finite(torch.tensor(losses[training.number]), *training.head.state_dict().values())
            rows[training.number] = {"epoch": training.progress.epoch + 1, "loss": losses[training.number]}
    _validate([training for training in group if training.fault is None], val, rows)
    sound = [training for training in group if training.fault is None]
    for training in sound:
        training.progress.epoch += 1
        training.progress.history.append(rows[training.number])
        training.progress.seconds += (time.monotonic() - began) / len(group)
    return [(training, rows[training.number]) for training in sound]


@contextmanager
def _noting(training: Training) -> Iterator[None]:
    """What goes wrong in here ends this training and no other."""
    try:
        yield
    except LongreelError as error:
        training.fault = error


def _train_epoch(group: list[Training], train: ClipSet) -> dict[int, float]:
    """One epoch of the stage's sampler; the mean loss of a clip of each training."""
    parts = {training.number: training.begin_epoch() for training in group}
    first = group[0]
    generator = epoch_generator(first.settings.seed, first.progress.epoch)
    order = _draw_order(first, parts[first.number], train, generator)
    batches = order.split(first.settings.batch_size)
    totals, scores = defaultdict(lambda: torch.zeros(())), defaultdict(list)
    shaped = train.in_one_shape() if first.settings.compiled else train  # each shape is compiled by itself
    read = shaped.batches(batches, first.settings.frames, generator)
    for number, (clips, found) in enumerate(zip(batches, read, strict=True)):
        drawn = Drawn(*found)
        for training in group:
            own, part = parts[training.number], number / len(batches)
            totals[training.number] = totals[training.number] + training.step(drawn, clips, own, part)
            if own.mixer.needs_running_ap:
                scores[training.number].append(training.score_unmixed(drawn))
    for training in group:
        if seen := scores[training.number]:
            predicted = torch.cat(seen).cpu()
            with _noting(training):
                training.check_finite(predicted)
                training.progress.running_ap = _running_ap(predicted, train.targets[order]).to(training.device)
    return {training.number: float(totals[training.number]) / len(order) for training in group}


def _draw_order(training: Training, parts: Parts, train: ClipSet, generator: torch.Generator) -> Tensor:
    """The clips of an epoch: the sampler's draw of those that the stage learns from."""
    pool = train.pool(training.leg.stage.clips, training.trusted.kept)
    if pool is None:
        return parts.sampler(train.targets, generator)
    return pool[parts.sampler(train.targets[pool], generator)]


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """Where the clips and frames of an epoch are drawn from."""
    (drawn,) = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(drawn) >> 1)


def _running_ap(scores: Tensor, targets: Tensor) -> Tensor:
    """``(C,)`` average precision of an epoch's predictions; 0 for a class that did not come up."""
    found = average_precisions(scores.numpy(), targets.numpy() > 0, threads=torch.get_num_threads())[0]
    return torch.from_numpy(found).nan_to_num(0.0).float()


def _validate(group: list[Training], val: ClipSet | None, rows: dict[int, dict]) -> None:
    """Score val with those that look at it now; without val the last epoch is the best."""
    looking = [training for training in group if training.looks]
    if val is None:
        for training in looking:
            training.choose(float(training.progress.epoch))
        return
    if not looking:
        return
    found = score_together([training.head for training in looking], val, looking[0].settings.test_frames)
    for training, scores in zip(looking, found, strict=True):
        with _noting(training):
            training.check_finite(torch.from_numpy(scores))
            select = training.settings.select
            value = SELECTIONS[select](*val.with_failed(scores))
            rows[training.number][f"val_{select}"] = value
            training.choose(value)
