"""`sweep`: the search for settings, from a space to a command."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..console import Steps, print_grids, say
from ..errors import LongreelError
from ..memory import keep_freed_memory
from .benches import count_runs
from .options import Device, Json, ManifestFile, Root, StoreFolder, print_json


def sweep(
    store: StoreFolder,
    manifest: ManifestFile,
    space: Annotated[Path, typer.Option(help="TOML file with [settings] and [space].")],
    out: Annotated[Path, typer.Option(help="Folder of the sweep, to make or to go on with.")],
    trials: Annotated[int | None, typer.Option(min=1, help="Configurations to try; a grid's all if not given.")] = None,
    sampler: Annotated[str, typer.Option(help="tpe, random or grid.")] = "tpe",
    pruner: Annotated[str, typer.Option(help="none, median or hyperband: which trials are ended early.")] = "none",
    objective: Annotated[str, typer.Option(help="map, class-average or acc1 on val, or of a group: tail.map.")] = "map",
    pack: Annotated[int, typer.Option(min=1, help="Trials that are trained side by side.")] = 8,
    budget: Annotated[float | None, typer.Option(min=0, help="Minutes after which no pack is begun.")] = None,
    top: Annotated[int, typer.Option(min=0, help="Best trials that are trained again with other seeds.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each of them.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search and of every trial.")] = 0,
    protocol: Annotated[str | None, typer.Option(help="Benchmark whose rules hold unless given otherwise.")] = None,
    groups: Annotated[str | None, typer.Option(help="Group rule in place of the protocol's.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; another number gives other bits.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Of the best trials, trainings at a time; as many as cores by default, one on a GPU."),
    ] = None,
    device: Device = "auto",
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Try settings of a training and keep those with the best figure on val; the same command goes on.

    Trials share what is read of STORE. The best are trained again with other seeds. The test split is not opened.

    Example: longreel sweep videos.store videos.csv --space space.toml --trials 32 --out sweeps/first
    """
    keep_freed_memory()  # before torch is imported
    from ..experiments.figures import check_installed

    check_installed("a sweep", "optuna", "matplotlib", extra="sweep")
    import torch

    from ..devices import choose_device
    from ..durable import make_folder, owned
    from ..experiments.arithmetic import usual_precision
    from ..experiments.render import footnotes, make_grids
    from ..experiments.spaces import read_space
    from ..experiments.sweep import Sweep, check_sweep, claim_sweep, read_objective
    from ..experiments.sweep_report import make_grid, make_results, notes_of, write_report

    if threads is not None:
        torch.set_num_threads(threads)
    if trials is None and sampler != "grid":
        raise LongreelError("--trials: how many configurations are to be tried? Only a grid has an end of its own.")
    asked, objectives, place = read_space(space), read_objective(objective), choose_device(device)
    computing = place.type, usual_precision(place)
    chosen = Sweep(store, manifest, asked, objectives, sampler, pruner, seed, root, protocol, groups, *computing)
    identity = check_sweep(chosen)
    for departure in chosen.settings(next(chosen.space.extremes())).departures:
        if departure.split()[0] not in chosen.space.parameters:
            say(f"warning: departs from {protocol}: {departure}.")
    if pruner != "none" and trials is not None and trials <= pack:
        say("warning: nothing will be pruned, as trials are judged by those of earlier packs. Give a smaller --pack.")
    make_folder(out)
    with owned(out / ".lock", str(out)):
        claim_sweep(out, identity)
        found = _search(chosen, out, trials, pack, budget)
        table = _train_again(chosen, found, out, top, seeds, jobs)
        results = make_results(chosen, found, table, out)
        write_report(chosen, out, results, found, table)
    if as_json:
        print_json(results)
        return
    print_grids([make_grid(chosen, found)], notes_of(results, found))
    if table:
        print_grids(make_grids(table), footnotes(table))
    print(f"{out / 'sweep.md'}, with figures beside it. Trial {results['best']['trial']} again:")
    print(shlex.join(results["best"]["command"]))


def _search(sweep, out: Path, trials: int | None, pack: int, budget: float | None):
    """The trials, with a bar for each pack."""
    import math
    import time

    from ..experiments.search import Watcher, search

    until = math.inf if budget is None else time.monotonic() + 60 * budget
    with Steps() as steps:

        def begin(numbers: Sequence[int], epochs: int) -> None:
            steps.begin(f"trials {numbers[0]} to {numbers[-1]}", epochs)

        watcher = Watcher(begin, steps.reach, _tell)
        return search(sweep, out, trials or 2**31, pack=pack, until=until, watcher=watcher)


def _tell(trial) -> None:
    if trial.state == "failed":
        say(f"trial {trial.number} failed: {trial.reason}")


def _train_again(sweep, trials, out: Path, top: int, seeds: int, jobs: int | None) -> dict | None:
    """The best trials with other seeds."""
    import torch

    from ..experiments.bench import trainings_at_once
    from ..experiments.sweep_report import rank_trials, train_again

    best = rank_trials(trials)[:top]
    if not best:
        return None
    at_once = trainings_at_once(torch.device(sweep.device))
    with Steps() as steps:
        steps.begin(f"the best {len(best)} with {seeds} seeds", len(best) * seeds)

        return train_again(sweep, best, len(trials), out, seeds=seeds, jobs=jobs or at_once, on_run=count_runs(steps))
