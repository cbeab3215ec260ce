"""The trials of a sweep, packs of them trained side by side, each told by its figure on val alone.

The sweep's folder has what was tried in ``sweep.journal`` and the runs in ``trials``.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..errors import EnvironmentFault, InUse, LongreelError, ManifestError, RunMismatch, StoreDamaged, StoreMismatch
from .evaluate import load_scored
from .metrics import evaluate_scores
from .runs import read_config
from .settings import TrainSettings
from .sweep import Objective, Sweep
from .train import Member, Trained, train_together
from .trials import Journal, Judge, Trial, draw, grid_size

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

#: faults of the folder, the data or the machine: no configuration mends them, so they end the sweep.
NOT_OF_A_TRIAL = (EnvironmentFault, InUse, ManifestError, RunMismatch, StoreDamaged, StoreMismatch)


@dataclass(frozen=True)
class Watcher:
    """Who is told how the search gets on."""

    on_pack: Callable[[Sequence[int], int], None] = lambda numbers, epochs: None  #: trials, and their epochs in all.
    on_epoch: Callable[[int], None] = lambda done: None  #: how many of the pack's epochs are done.
    on_trial: Callable[[Trial], None] = lambda trial: None  #: as each ends.


def search(
    sweep: Sweep, folder: Path, wanted: int, *, pack: int, until: float = math.inf, watcher: Watcher | None = None
) -> list[Trial]:
    """Try configurations, a pack of them at a time. Interrupted at any point, the same call goes on.

    Args:
        sweep: Checked, and its folder claimed.
        folder: The sweep's.
        wanted: Trials in all; a grid may have fewer.
        pack: Trials that are drawn, trained and told together.
        until: Of the monotonic clock; no pack is begun behind it.
        watcher: Who is told.

    Returns:
        The trials that have ended, by number.
    """
    watcher = watcher or Watcher()
    journal = Journal(folder / "sweep.journal", sweep.space)
    if sweep.sampler == "grid":
        wanted = min(wanted, grid_size(sweep.space))
    while time.monotonic() < until:
        known = journal.frozen()
        numbers = _next_pack([not trial.state.is_finished() for trial in known], wanted, pack)
        if not numbers:
            break
        for _ in range(len(known), numbers[-1] + 1):
            journal.add(draw(sweep.sampler, sweep.space, sweep.seed, journal.frozen()))
        known, first = journal.frozen(), numbers[0] - numbers[0] % pack
        chosen = [known[number] for number in numbers]
        for trial, judge in _Pack(sweep, folder, journal, chosen, known[:first], watcher).run():
            for left in (folder_of(folder, trial) / "checkpoint.safetensors",) if trial.state != "complete" else ():
                left.unlink(missing_ok=True)
            journal.tell(trial, judge.rungs)
            watcher.on_trial(trial)
    return [trial for trial in journal.trials() if trial.state != "running"]


def _next_pack(unfinished: Sequence[bool], wanted: int, size: int) -> list[int]:
    """The trials up to the next multiple of the size that are not finished, those not drawn yet included."""
    first = unfinished.index(True) if any(unfinished) else len(unfinished)
    end = min(wanted, first - first % size + size)
    return [number for number in range(first, end) if number >= len(unfinished) or unfinished[number]]


def folder_of(folder: Path, trial: Trial) -> Path:
    """The run of a trial."""
    return folder / "trials" / f"{trial.number:04d}"


class _Pack:
    """Some trials that train side by side."""

    def __init__(
        self,
        sweep: Sweep,
        folder: Path,
        journal: Journal,
        chosen: Sequence["FrozenTrial"],
        before: Sequence["FrozenTrial"],
        watcher: Watcher,
    ) -> None:
        self.sweep, self.journal, self.watcher = sweep, journal, watcher
        self.trials = [Trial(each.number, "running", each.params) for each in chosen]
        self.folders = [folder_of(folder, trial) for trial in self.trials]
        self.found: dict[int, Trained | LongreelError | None] = {}  # by place in the pack, as is all below
        self.settings: dict[int, TrainSettings] = {}
        for place, trial in enumerate(self.trials):
            try:
                self.settings[place] = sweep.settings(trial.values)
            except LongreelError as error:
                self.found[place] = error
        longest = max(sweep.settings(values).fit.epochs for values in sweep.space.extremes())
        self.judges = [Judge(sweep.pruner, trial.number, before, longest) for trial in self.trials]
        for judge, each in zip(self.judges, chosen, strict=True):
            for epoch, value in sorted(each.intermediate_values.items()):
                judge.sees(epoch, value)  # before an interruption
        self.done = dict.fromkeys(self.settings, 0)

    def run(self) -> list[tuple[Trial, Judge]]:
        """Train them; how each ended, in their order."""
        going = [place for place in self.settings if not self.judges[place].pruned]
        total = max(1, sum(settings.fit.epochs for settings in self.settings.values()))
        self.watcher.on_pack([trial.number for trial in self.trials], total)
        if going:
            members = [Member(self.folders[place], self.settings[place]) for place in going]
            device = torch.device(self.sweep.device)
            outcomes = train_together(members, lambda number, row: self._goes_on(going[number], row), device=device)
            self.found |= zip(going, outcomes, strict=True)
            for place in going:
                self._catch_up(place)
        self.watcher.on_epoch(total)
        return [(self._end(place), judge) for place, judge in enumerate(self.judges)]

    def _goes_on(self, place: int, row: dict) -> bool:
        judge, fit = self.judges[place], self.settings[place].fit
        epoch, value = row["epoch"], row.get(f"val_{fit.select}")
        if self.sweep.pruner != "none" and value is not None and epoch < fit.epochs:
            if not judge.has_seen(epoch):
                self.journal.report(self.trials[place].number, epoch, value)
            judge.sees(epoch, value)
        self.done[place] = fit.epochs if judge.pruned else max(epoch, self.done[place])
        self.watcher.on_epoch(sum(self.done.values()))
        return not judge.pruned

    def _catch_up(self, place: int) -> None:
        """Judge by epochs of which the journal knows nothing, as when it is older than the runs."""
        history = self.folders[place] / "history.json"
        if self.sweep.pruner != "none" and isinstance(self.found[place], Trained):
            if not all(self._goes_on(place, row) for row in json.loads(history.read_text())):
                self.found[place] = None

    def _end(self, place: int) -> Trial:
        trial, found = self.trials[place], self.found.get(place)
        if isinstance(found, NOT_OF_A_TRIAL):
            raise found
        if isinstance(found, LongreelError):
            return Trial(trial.number, "failed", trial.values, reason=str(found))
        if found is None:
            return Trial(trial.number, "pruned", trial.values)
        value = read_figure(self.folders[place], self.sweep.objective, found)
        if value is None or math.isnan(value):
            return Trial(trial.number, "failed", trial.values, reason=f"has no {self.sweep.objective.column} on val")
        return Trial(trial.number, "complete", trial.values, value, found.epoch)


def read_figure(folder: Path, objective: Objective, trained: Trained) -> float | None:
    """The objective of a finished run, from the scores on val that it has kept."""
    config = read_config(folder)
    if objective.group is None and config["fit"]["select"] == objective.figure:
        return trained.val
    scores, targets, _ = load_scored(folder, "val")
    evaluation = evaluate_scores(scores, targets, config["groups"]["members"])
    summary = evaluation.overall if objective.group is None else evaluation.groups[objective.group]
    return getattr(summary, objective.figure.replace("-", "_"))
