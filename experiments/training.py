"""One training under way: its head, optimiser and progress, step by step."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..balance import Batch, Known, Method, Parts, Stage, Trusted, build_stage
from ..devices import send
from ..errors import LongreelError
from ..heads import Standardised
from .arithmetic import products_in
from .checkpoint import Progress, load_checkpoint, save_checkpoint
from .clips import ClipSet
from .compiling import Compiled
from .drawn import Drawn, OnMeans, averages
from .epochs import forget_epochs, keep_epoch
from .optimisation import FitSettings, rate_at
from .stages import Leg, lay_out

SAVING = 20  #: times what writing a checkpoint takes pass before the next, of all that train side by side.


@dataclass(frozen=True)
class Course:
    """One head to be trained, and how."""

    head: Standardised  #: trained in place; ends with the weights of the chosen epoch.
    method: Method
    settings: FitSettings
    checkpoint: Path  #: file that an interrupted training goes on from.
    epochs: Path | None = None  #: folder for the head of each epoch that could be chosen.
    trusted: Trusted | None = None  #: what the training clips count for; ``None``: all, with their labels.


class Training:
    """One training under way."""

    def __init__(self, course: Course, number: int, counts: Tensor, train: ClipSet) -> None:
        self.head, self.settings = course.head, course.settings
        self.checkpoint, self.epochs, self.number, self.device = course.checkpoint, course.epochs, number, train.device
        self.counts, self.trusted = counts.to(self.device), course.trusted or Trusted(train.targets)
        as_labelled = self.trusted.targets is train.targets
        self.targets = train.targets_on_device if as_labelled else self.trusted.targets.to(self.device)
        self.weights = None if self.trusted.weights is None else self.trusted.weights.to(self.device)
        self.legs = lay_out(course.method, self.settings.epochs)
        self.compiled = Compiled(self.head) if self.settings.compiled else None
        self.fault: LongreelError | None = None
        self.stopped = False
        torch.manual_seed(self.settings.seed)
        self.progress = Progress(running_ap=torch.zeros_like(self.counts))
        self.optimiser = self._resume(0)
        if self.checkpoint.exists():
            load_checkpoint(self.checkpoint, self.head, self._resume, self.progress, self.device)
        self._saved, self._saving = time.monotonic(), 0.0

    @property
    def done(self) -> bool:
        return self.stopped or self.fault is not None or self.progress.epoch >= self.settings.epochs

    @property
    def leg(self) -> Leg:
        """The leg of the epoch that comes."""
        return next(leg for leg in self.legs if self.progress.epoch < leg.end)

    @contextmanager
    def own_draws(self, part: float = 0.0) -> Iterator[None]:
        """What PyTorch's generators give in here is this training's, whatever others draw in between.

        Of another device the generator is seeded by run, epoch and part of the epoch, so that it has no state to keep.
        """
        torch.set_rng_state(self.progress.draws)
        if self.device.type != "cpu":
            places = [self.settings.seed, self.progress.epoch, round(part * 2**52)]
            (drawn,) = np.random.SeedSequence(places).generate_state(1, np.uint64)
            torch.get_device_module(self.device).manual_seed(int(drawn) >> 1)
        yield
        self.progress.draws = torch.get_rng_state()

    def _resume(self, epoch: int) -> torch.optim.Optimizer:
        """The optimiser that was at work when so many epochs were done."""
        stage = next(leg.stage for leg in self.legs if max(0, epoch - 1) < leg.end)
        self.optimiser = self.settings.make_optimiser(_choose_parameters(self.head, stage))
        return self.optimiser

    def begin_epoch(self) -> Parts:
        """Get ready for an epoch: a stage may begin with the chosen head, and an output drawn anew."""
        leg, progress = self.leg, self.progress
        if leg.begins_anew(progress.epoch):
            if progress.best:
                self.head.load_state_dict(progress.best)
            if leg.stage.output_only:
                with self.own_draws():
                    self.head.output.reset_parameters()
            progress.best_value = -math.inf
            progress.memory.clear()
            if self.epochs is not None:
                forget_epochs(self.epochs)
            self.head.zero_grad(set_to_none=True)  # also what this stage leaves alone
            self.optimiser = self.settings.make_optimiser(_choose_parameters(self.head, leg.stage))
        self.head.train(not leg.stage.output_only)
        return build_stage(leg.stage)

    def step(self, drawn: Drawn, clips: Tensor, parts: Parts, part: float) -> Tensor:
        """One step, such a part of the epoch behind its beginning; the sum of the clips' losses.

        Args:
            drawn: The batch.
            clips: Which training clips they are, ``(B,)``.
            parts: From ``begin_epoch``.
            part: Of the epoch, 0 to 1.
        """
        settings, progress, weights = self.settings, self.progress, self.weights
        clips = send(clips, self.device)
        batch = Batch(drawn.rows, drawn.mask, self.targets[clips])
        now = rate_at(settings.schedule, progress.epoch + part, *self.leg.span)
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * self.leg.stage.rate * now
        self.optimiser.zero_grad(set_to_none=True)
        if self.compiled is not None:
            self.compiled.begin_step()
        with self.own_draws(part):
            known = Known(self.counts, progress.running_ap, torch.default_generator, progress.memory)
            with products_in(settings.precision, self.device):
                head = self.compiled or self.head
                logits, targets = parts.mixer(OnMeans(head, drawn) if averages(self.head) else head, batch, known)
            losses = parts.loss(logits.float(), targets, self.counts)  # (B,)
            losses = losses if weights is None else losses * weights[clips]
            losses.mean().backward()
        if settings.clip_norm is not None:
            trained = [parameter for parameter in self.head.parameters() if parameter.requires_grad]
            torch.nn.utils.clip_grad_norm_(trained, settings.clip_norm)
        self.optimiser.step()
        return losses.detach().sum()

    @torch.no_grad()
    def score_unmixed(self, drawn: Drawn) -> Tensor:
        """Logits ``(B, C)`` of clips as they were drawn; batch statistics and dropout are left alone."""
        was = self.head.training
        with products_in(self.settings.precision, self.device):
            scores = self.head.eval()(*drawn.for_head(self.head)).float()
        self.head.train(was)
        return scores

    def check_finite(self, *tensors: Tensor) -> None:
        if not all(bool(tensor.isfinite().all()) for tensor in tensors):
            now = f"epoch {self.progress.epoch + 1}, learning rate {self.settings.learning_rate:g}"
            raise LongreelError(f"training diverged ({now}): use a lower learning rate, and another folder.")

    @property
    def looks(self) -> bool:
        """Whether val is looked at behind this epoch."""
        done = self.progress.epoch + 1
        return done % self.settings.validate_every == 0 or done == self.leg.end

    def choose(self, value: float) -> None:
        """Keep the head if it is the best so far; of equals the later one, which has been trained more."""
        progress = self.progress
        if self.epochs is not None:
            keep_epoch(self.epochs, progress.epoch + 1, self.head)
        if value >= progress.best_value:
            progress.best_value, progress.best_epoch = value, progress.epoch + 1
            progress.best = {name: tensor.clone() for name, tensor in self.head.state_dict().items()}

    def save(self, together: int) -> None:
        """Write a checkpoint when the last is old enough: so many trainings take a twentieth of the time for theirs."""
        began, pause = time.monotonic(), self.settings.checkpoint_seconds
        if not self.stopped and began - self._saved >= (max(pause, SAVING * self._saving * together) if pause else 0):
            save_checkpoint(self.checkpoint, self.head, self.optimiser, self.progress)
            self._saved = time.monotonic()
            self._saving = self._saved - began

    def end(self) -> Progress | LongreelError | None:
        """What became of it."""
        if self.fault is not None or self.stopped:
            return self.fault
        self.head.load_state_dict(self.progress.best)
        return self.progress


def _choose_parameters(head: Standardised, stage: Stage) -> list[nn.Parameter]:
    """The parameters that a stage trains; no gradient is computed for the others."""
    head.requires_grad_(not stage.output_only)
    chosen = list(head.output.parameters() if stage.output_only else head.parameters())
    for parameter in chosen:
        parameter.requires_grad_(True)
    return chosen
