"""The trials of a sweep: kept in a journal, drawn one by one from their own seeds, and judged while they train."""

import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..durable import naming_faults
from ..errors import LongreelError
from .spaces import Choices, Parameter, Space, Value, Values, tidy

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

STUDY = "sweep"  #: the study's name; Hyperband deals its brackets by it.
SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("none", "median", "hyperband")
LARGEST_GRID = 100_000
DIGITS = 4  #: of a drawn number that no step rounds; more would only make commands longer.

State = Literal["running", "complete", "pruned", "failed"]


def _import_optuna():
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what there is to tell, the sweep tells
    return optuna


@dataclass(frozen=True)
class Trial:
    """One configuration and what became of it."""

    number: int
    state: State
    values: Values  #: of the space's keys.
    value: float | None = None  #: the objective of a finished trial; of a pruned one, val at its last epoch.
    epoch: int | None = None  #: the one chosen in a finished trial.
    reason: str | None = None  #: why it failed.


class Journal:
    """The trials in a file that every change is appended to; for one process at a time."""

    def __init__(self, path: Path, space: Space) -> None:
        optuna = _import_optuna()
        from optuna.storages.journal import JournalFileBackend, JournalStorage

        _mend(path)
        with naming_faults(path, 0):
            self._storage = JournalStorage(JournalFileBackend(str(path), lock_obj=_no_lock()))
            self._study = optuna.create_study(
                storage=self._storage, study_name=STUDY, direction="maximize", load_if_exists=True
            )
        self._path = path
        self._distributions = distributions_of(space)

    def frozen(self) -> list["FrozenTrial"]:
        """All trials as Optuna has them, by number."""
        return self._study.get_trials(deepcopy=False)

    def trials(self) -> list[Trial]:
        """All trials by number."""
        return [_read(trial) for trial in self.frozen()]

    def add(self, values: Values) -> None:
        """One more trial to run."""
        from optuna.trial import TrialState, create_trial

        with naming_faults(self._path, 0):
            self._study.add_trial(
                create_trial(state=TrialState.RUNNING, params=dict(values), distributions=self._distributions)
            )

    def report(self, number: int, epoch: int, value: float) -> None:
        """Note the figure of an epoch."""
        with naming_faults(self._path, 0):
            self._storage.set_trial_intermediate_value(self._id(number), epoch, value)

    def tell(self, trial: Trial, rungs: Mapping[str, float]) -> None:
        """Note how a trial ended, and which rungs of Hyperband it reached."""
        from optuna.trial import TrialState

        state = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}[trial.state]
        facts = {"epoch": trial.epoch, "reason": trial.reason, "rungs": dict(rungs)}
        with naming_faults(self._path, 0):
            self._storage.set_trial_user_attr(self._id(trial.number), "facts", facts)
            self._study.tell(trial.number, trial.value if trial.state == "complete" else None, state)

    def _id(self, number: int) -> int:
        study = self._storage.get_study_id_from_name(STUDY)
        return self._storage.get_trial_id_from_study_id_trial_number(study, number)


def _mend(path: Path) -> None:
    """Take off a last line that a crash has cut in two; what it was to say is done again."""
    if path.exists():
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            with naming_faults(path, 0):
                os.truncate(path, content.rfind(b"\n") + 1)


def _no_lock():
    """Optuna's own lock outlives a killed process by half a minute; the sweep's folder has one already."""
    from optuna.storages.journal import JournalFileOpenLock

    class NoLock(JournalFileOpenLock):
        def acquire(self) -> bool:
            return True

        def release(self) -> None:
            pass

    return NoLock("")


def _read(trial: "FrozenTrial") -> Trial:
    states: dict[str, State] = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    facts = trial.user_attrs.get("facts", {})
    value = trial.values[0] if trial.values else None
    state = states.get(trial.state.name, "running")
    return Trial(trial.number, state, trial.params, value, facts.get("epoch"), facts.get("reason"))


def distributions_of(space: Space) -> dict:
    """The space as Optuna has it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    def convert(parameter: Parameter):
        if isinstance(parameter, Choices):
            return CategoricalDistribution(parameter.values)
        if parameter.whole:
            return IntDistribution(int(parameter.low), int(parameter.high), parameter.log, int(parameter.step or 1))
        return FloatDistribution(parameter.low, parameter.high, parameter.log, parameter.step)

    return {key: convert(parameter) for key, parameter in space.parameters.items()}


def grid_size(space: Space) -> int:
    """The number of points of a grid.

    Raises:
        LongreelError: When a range has no steps, or there are too many points.
    """
    for key, parameter in space.parameters.items():
        if parameter.points is None:
            raise LongreelError(
                f"{space.path}: space: {key}: a grid goes through choices and steps. Give a list, or a step."
            )
    size = math.prod(len(parameter.points or ()) for parameter in space.parameters.values())
    if size > LARGEST_GRID:
        raise LongreelError(f"{space.path}: the grid has {size} points. Take --sampler random, or fewer choices.")
    return size


def draw(sampler: str, space: Space, seed: int, before: Sequence["FrozenTrial"]) -> Values:
    """The values of the next trial. They follow from the seed, its number and the trials before it alone.

    Args:
        sampler: One of ``SAMPLERS``; a grid is gone through in an order that the seed gives.
        space: What to draw from.
        seed: The sweep's.
        before: All earlier trials.

    Raises:
        LongreelError: As ``grid_size``, and when the grid has no more points.
    """
    optuna, number = _import_optuna(), len(before)
    if sampler == "grid":
        order = np.random.default_rng(seed).permutation(grid_size(space))
        points = [parameter.points or () for parameter in space.parameters.values()]
        place = next(itertools.islice(itertools.product(*points), int(order[number]), None))
        return dict(zip(space.parameters, place, strict=True))
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    made: BaseSampler
    if sampler == "tpe":
        made = optuna.samplers.TPESampler(seed=own)
    else:
        made, before = optuna.samplers.RandomSampler(seed=own), ()
    study = optuna.create_study(direction="maximize", sampler=made)
    study.add_trials(before)
    drawn = study.ask(distributions_of(space)).params
    return {key: _round(parameter, drawn[key]) for key, parameter in space.parameters.items()}


def _round(parameter: Parameter, value: Value) -> Value:
    if isinstance(parameter, Choices) or not isinstance(value, float):
        return value
    if parameter.step is not None:
        return tidy(value)
    return min(max(float(f"{value:.{DIGITS}g}"), parameter.low), parameter.high)


class Judge:
    """Whether a trial goes on, judged against the finished trials of the packs before it.

    Those beside it have no part in it, as how far they are when it is judged depends on interruptions.

    Args:
        pruner: One of ``PRUNERS``.
        number: The trial's.
        before: The finished trials that it is judged against.
        epochs: The most that a trial of the sweep has.
    """

    def __init__(self, pruner: str, number: int, before: Sequence["FrozenTrial"], epochs: int) -> None:
        optuna = _import_optuna()
        from optuna.trial import TrialState, create_trial

        self.pruned = False
        self._reported: set[int] = set()
        self._number = number
        self._study: Study = optuna.create_study(
            study_name=STUDY,
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(seed=0),
            pruner=_make_pruner(pruner, epochs),
        )
        self._study.add_trials(_with_rungs(trial) for trial in before)
        for _ in range(len(before), number):
            self._study.add_trial(create_trial(state=TrialState.FAIL))  # so that this one gets its number
        self._trial = self._study.ask()

    def has_seen(self, epoch: int) -> bool:
        """Whether it has been told the figure of the epoch."""
        return epoch in self._reported

    def sees(self, epoch: int, value: float) -> bool:
        """Take in an epoch's figure, once; whether the trial is pruned from now on."""
        if epoch not in self._reported and not self.pruned:
            self._reported.add(epoch)
            self._trial.report(value, epoch)
            self.pruned = self._trial.should_prune()
        return self.pruned

    @property
    def rungs(self) -> dict[str, float]:
        """What later trials must know for Hyperband to judge them."""
        return dict(self._study.trials[self._number].system_attrs)


def _make_pruner(name: str, epochs: int) -> "BasePruner":
    import optuna

    makers: dict[str, Callable[[], BasePruner]] = {
        "none": optuna.pruners.NopPruner,
        "median": optuna.pruners.MedianPruner,
        "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs),
    }
    return makers[name]()


def _with_rungs(trial: "FrozenTrial") -> "FrozenTrial":
    from optuna.trial import create_trial

    return create_trial(
        state=trial.state,
        value=trial.value,
        intermediate_values=trial.intermediate_values,
        system_attrs=trial.user_attrs["facts"]["rungs"],
    )
