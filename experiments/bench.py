"""Running a suite: every row on every store with every seed, some at a time, none twice."""

import hashlib
import itertools
import json
import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path

import torch

from ..balance.counts import count_training_clips, make_groups
from ..child import end_with_parent
from ..devices import cores
from ..durable import make_folder
from ..errors import EnvironmentFault, LongreelError, ManifestError, unknown
from ..manifest import read_manifest
from ..memory import keep_freed_memory
from ..store import FeatureStore, Spec
from .choices import check_choices
from .clips import CPU
from .draws import Draws, draw_run
from .evaluate import evaluate_run
from .fusion import fuse_runs
from .mixtures import FITTED
from .settings import TrainSettings, describe, make_settings
from .suites import Row, Suite, check_columns
from .train import train_run


@dataclass(frozen=True)
class Run:
    """One training of a suite, or a fusion of some."""

    row: str
    store: str  #: the store's label.
    seed: int
    folder: Path
    settings: TrainSettings  #: of a fused run those of its first part.
    parts: tuple[Path, ...] = ()  #: runs that it is fused of; a run without any is trained.
    weights: str | None = None  #: of the parts.


@dataclass(frozen=True)
class Outcome:
    """What became of a run."""

    run: Run
    fault: str | None  #: why it has no figures.


def plan_runs(
    suite: Suite,
    manifest: Path,
    stores: Mapping[str, Path],
    seeds: Sequence[int],
    out: Path,
    *,
    root: Path | None = None,
    groups: str | None = None,
    precision: str = "float32",
) -> list[Run]:
    """The runs of a suite. A run's folder has a name that its settings give, so that a changed row is another run.

    Args:
        suite: Its rows are trained.
        manifest, root: The clips.
        stores: Label -> store.
        seeds: Of the trainings.
        out: The folder for all runs.
        groups: Group rule in place of the suite's or the protocol's.
        precision: Of products, if neither the suite nor a protocol has one.

    Raises:
        LongreelError: When a setting cannot be used, or two rows or stores are too alike to have folders of their own.
    """
    trained: dict[tuple[str, str, int], Run] = {}
    taken: dict[Path, Run] = {}
    for row, label, seed in itertools.product(suite.rows, stores, seeds):
        if row.is_for(label) and not row.fuse:
            given = {**row.settings, "seed": seed, "groups": groups or suite.groups}
            settings = make_settings(
                stores[label], manifest, given, root=root, protocol=suite.protocol, precision=precision
            )
            run = Run(row.name, label, seed, out / "runs" / _name(row, label, settings), settings)
            trained[row.name, label, seed] = _take(taken, run)
    for row, label, seed in itertools.product(suite.rows, stores, seeds):
        if row.is_for(label) and row.fuse:
            parts = [trained[part, label, seed] for part in row.fuse]
            settings, folders = parts[0].settings, tuple(part.folder for part in parts)
            folder = out / "runs" / _name(row, label, settings, [folder.name for folder in folders])
            _take(taken, Run(row.name, label, seed, folder, settings, folders, row.weights))
    if strange := [label for row in suite.rows for label in row.stores if label not in stores]:
        raise unknown("store", strange[0], stores)
    return list(taken.values())


def _take(taken: dict[Path, Run], run: Run) -> Run:
    """The run, whose folder no other one may have."""
    if (other := taken.setdefault(run.folder, run)) is not run:
        raise LongreelError(
            f"{run.folder}: is the folder of {other.row!r} on {other.store!r} and of {run.row!r} on "
            f"{run.store!r}, whose names differ in signs alone. Give one another name."
        )
    return run


def check_plan(suite: Suite, runs: Sequence[Run], split: str) -> None:
    """Refuse, before anything is trained, what would leave every run or the whole table without figures.

    Raises:
        LongreelError: When the manifest cannot be read or has no clips in the split, a store is none, a column names
            a group that there is not, or a row's head or balance method cannot be used.
    """
    if split not in ("val", "test"):
        raise unknown("split to evaluate on", split, ("val", "test"))
    first = runs[0].settings
    manifest = read_manifest(first.manifest, first.root)
    for needed in ("train", split):
        if not manifest.split(needed):
            raise ManifestError(f"{first.manifest}: has no {needed} clips. Give some rows the split {needed}.")
    counts = count_training_clips(manifest)
    groups = make_groups(first.groups, manifest.classes, counts)
    check_columns(suite, groups.members)
    for run in runs:
        if run.weights == FITTED and not manifest.split("val"):
            raise ManifestError(f"row {run.row!r}: finds its weights on val, and {first.manifest} has no val clips.")
    for store in dict.fromkeys(run.settings.store for run in runs):
        spec = FeatureStore(store).spec  # raises where there is none
        for run in runs:
            if not run.parts and run.settings.store == store and run.settings.fit.seed == first.fit.seed:
                _check_row(run, counts, spec)


def _check_row(run: Run, counts: Sequence[int], spec: Spec) -> None:
    try:
        check_choices(run.settings, counts, spec)
    except LongreelError as error:
        raise type(error)(f"row {run.row!r}: {error}") from None


def _name(row: Row, label: str, settings: TrainSettings, parts: Sequence[str] = ()) -> str:
    """Readable, and another one for other settings or parts; where store and manifest lie is no part of it."""
    facts: dict = describe(settings) | dict.fromkeys(("store", "manifest", "root", "departures"))
    if parts:
        facts = {"parts": parts, "weights": row.weights}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
    words = (label, row.name, f"seed{settings.fit.seed}", digest)
    return "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", word).strip("_.") for word in words)


def run_suite(
    runs: Sequence[Run],
    draws: Draws,
    jobs: int,
    on_run: Callable[[Outcome], None] = lambda outcome: None,
    *,
    device: torch.device = CPU,
    keep_epochs: bool = False,
) -> list[Outcome]:
    """Train, evaluate and draw; what is finished already is only read. Interrupted, the same call goes on.

    Every run trains on one thread, so that its bits do not depend on how many go at a time.

    Args:
        runs: From ``plan_runs``.
        draws: The split to evaluate on, and what the table's intervals are made of.
        jobs: Runs at a time, a process each.
        on_run: Called as each ends.
        device: What trains.
        keep_epochs: Whether runs that are trained now keep the heads of their epochs.

    Returns:
        The outcomes in the order of ``runs``. A run that cannot be trained stops no other one.

    Raises:
        LongreelError: When there is no such split.
        EnvironmentFault: When a process was killed, such as for want of memory.
    """
    if draws.split not in ("val", "test"):
        raise unknown("split to evaluate on", draws.split, ("val", "test"))
    make_folder(runs[0].folder.parent)
    found: dict[Path, Outcome] = {}
    with ProcessPoolExecutor(jobs, get_context("spawn"), _begin_worker) as pool:
        try:
            for some in ([run for run in runs if not run.parts], [run for run in runs if run.parts]):
                waiting = {pool.submit(_train, run, draws, device, keep_epochs): run for run in some}
                for future in as_completed(waiting):
                    run = waiting[future]
                    found[run.folder] = Outcome(run, future.result())
                    on_run(found[run.folder])
        except BrokenProcessPool:
            raise EnvironmentFault(
                f"{runs[0].folder.parent}: a process was killed, often for want of memory. Run the same command again, "
                f"with fewer --jobs than {jobs}; finished runs are kept."
            ) from None
        except KeyboardInterrupt:
            for process in active_children():
                process.kill()  # what it did is checkpointed
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    return [found[run.folder] for run in runs]


def trainings_at_once(device: torch.device) -> int:
    """How many by default: as many as cores, or one on a device that all would share."""
    return cores() if device.type == "cpu" else 1


def _begin_worker() -> None:
    """In each process: one thread, and no life beyond the command's, whose Ctrl-C it leaves to it."""
    keep_freed_memory()
    end_with_parent()
    command = parent_process()
    if command is None or not command.is_alive():  # it was killed before this process had asked to end with it
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _train(run: Run, draws: Draws, device: torch.device, keep_epochs: bool) -> str | None:
    """In a process of its own: the whole run; gives what was wrong."""
    try:
        if run.parts:
            fuse_runs(run.folder, run.parts, run.weights)
        else:
            train_run(run.folder, run.settings, device=device, keep_epochs=keep_epochs)
        evaluate_run(run.folder, draws.split)
        draw_run(run.folder, draws)
    except EnvironmentFault:
        raise
    except LongreelError as error:
        return str(error)
    return None
