"""Small trainings on the store of `write_small_store`, shared by the tests of runs."""

from collections.abc import Callable
from pathlib import Path

from longreel.experiments.optimisation import FitSettings
from longreel.experiments.settings import TrainSettings

RESULTS = ("head.safetensors", "history.json", "scores-val.safetensors")
FILES = {*RESULTS, "config.json", "provenance.json", "result.json", ".lock"}


def settings_of(made, *, balance: str = "ce", groups: str = "5,10", standardise: bool = True, **fit) -> TrainSettings:
    """Four epochs of small batches; ``fit`` replaces what FitSettings holds."""
    chosen = FitSettings(**{"epochs": 4, "batch_size": 8, "learning_rate": 1e-3} | fit)
    return TrainSettings(made.store, made.manifest, balance=balance, groups=groups, standardise=standardise, fit=chosen)


def contents(folder: Path, names=RESULTS) -> dict[str, bytes]:
    """The bytes of those files that a run folder has."""
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


def stop_at(epoch: int) -> Callable[[dict], None]:
    """An ``on_epoch`` that interrupts the training behind an epoch."""

    def interrupt(row: dict) -> None:
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    return interrupt
