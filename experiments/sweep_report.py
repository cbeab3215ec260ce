"""What comes of a sweep: the best trials trained again with other seeds, what mattered, and the command to use."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..durable import write_bytes, write_json
from ..errors import LongreelError
from .bench import Outcome, plan_runs, run_suite
from .draws import Draws
from .render import Grid, as_markdown, column_name, escape_markdown
from .spaces import Space
from .suites import Row, Suite
from .sweep import Sweep
from .sweep_figures import draw_importance, draw_parallel
from .table import make_table
from .trials import Trial

FIGURES = ("map", "class_average", "acc1")  #: beside the objective.
FEWEST = 4  #: finished trials that say something about importances.
SHOWN = 10  #: trials in the table of the search; all of them are in ``results.json``.
OPTIONS = {"frames": "train-frames"}  #: setting -> option of `longreel train`, where it has another name.


def rank_trials(trials: Sequence[Trial]) -> list[Trial]:
    """The complete ones, best first; of those with the same values the first."""
    ranked = sorted((trial for trial in trials if trial.value is not None and trial.state == "complete"), key=_order)
    found: dict[tuple, Trial] = {}
    for trial in ranked:
        found.setdefault(tuple(map(repr, trial.values.items())), trial)
    return list(found.values())


def _order(trial: Trial) -> tuple[float, int]:
    return -(trial.value or 0.0), trial.number


def train_again(
    sweep: Sweep,
    best: Sequence[Trial],
    count: int,
    folder: Path,
    *,
    seeds: int,
    jobs: int,
    on_run: Callable[[Outcome], None] = lambda outcome: None,
) -> dict | None:
    """A suite of the best trials on val, with seeds that the search has not seen.

    Args:
        sweep: What was searched.
        best: Its rows, best first.
        count: How many trials they were chosen from.
        folder: The sweep's; the runs go into ``top``.
        seeds: Trainings of each.
        jobs: Trainings at a time.
        on_run: Called as each ends.

    Returns:
        The document that ``longreel bench --json`` prints; ``None`` where not one training succeeded.

    Raises:
        EnvironmentFault: As ``run_suite``.
    """
    columns = tuple(dict.fromkeys((sweep.objective.column, *FIGURES)))
    label = sweep.store.name.removesuffix(".store") or sweep.store.resolve().name
    suite = Suite(
        name="sweep",
        title=f"Best trials of {sweep.space.path.stem}",
        baseline=_name(best[0]),
        columns=columns,
        rows=tuple(Row(_name(trial), sweep.given(trial.values)) for trial in best),
        protocol=sweep.protocol,
        notes=("Trials were chosen on this split too, with another seed: a test split knows nothing of the choice.",),
    )
    numbers = range(sweep.seed + 1, sweep.seed + 1 + seeds)
    rules = {"root": sweep.root, "groups": sweep.groups, "precision": sweep.precision}
    runs = plan_runs(suite, sweep.manifest, {label: sweep.store}, numbers, folder / "top", **rules)
    draws = Draws("val", columns)
    outcomes = run_suite(runs, draws, min(jobs, len(runs)), on_run, device=torch.device(sweep.device))
    if all(outcome.fault is not None for outcome in outcomes):
        return None
    budget = f"the best {len(best)} of {count} trials of a search with seed {sweep.seed}, trained again"
    return make_table(suite, outcomes, draws) | {"budget": budget}


def _name(trial: Trial) -> str:
    return f"trial {trial.number}"


def measure_importance(space: Space, trials: Sequence[Trial]) -> tuple[dict[str, float], str | None]:
    """Each key's share of the variance of the figure, by fANOVA (Hutter et al., ICML 2014) on the complete trials.

    Returns:
        The shares, largest first; or none, and why there are none.
    """
    done = [trial for trial in trials if trial.state == "complete"]
    if len(space.parameters) == 1:
        return {}, "only one key was searched"
    if len(done) < FEWEST:
        return {}, f"{len(done)} trials have ended with a figure, and {FEWEST} are the fewest to compare"
    if len({trial.value for trial in done}) == 1:
        return {}, "all trials have the same figure"
    import optuna

    from .trials import distributions_of

    study = optuna.create_study(direction="maximize")
    kinds = distributions_of(space)
    for trial in done:
        study.add_trial(optuna.trial.create_trial(params=dict(trial.values), distributions=kinds, value=trial.value))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    try:
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except RuntimeError:  # not one tree of its forest could be split
        return {}, "the figures of the trials differ too little"
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0]))), None


def make_results(
    sweep: Sweep, trials: Sequence[Trial], table: dict | None, folder: Path, threads: int | None = None
) -> dict:
    """Everything that the sweep has found, as JSON; interrupted or not, the same.

    Args:
        sweep: What was searched.
        trials: All that have ended.
        table: From ``train_again``.
        folder: The sweep's.
        threads: Of the trainings; PyTorch's own number if not given.

    Raises:
        LongreelError: When no trial has a figure.
    """
    ranked = rank_trials(trials)
    if not ranked:
        reason = next((trial.reason for trial in trials if trial.reason), "none was trained to its end")
        raise LongreelError(f"{folder}: no trial has a figure; the first: {reason}")
    best = _choose(ranked, table, sweep.objective.column)
    shares, why = measure_importance(sweep.space, trials)
    given = sweep.given(best.values) | {"seed": sweep.seed}
    command = train_command(sweep, given, threads or torch.get_num_threads(), folder / "best")
    states = [trial.state for trial in trials]
    return {
        "objective": sweep.objective.column,
        "split": "val",
        "sampler": sweep.sampler,
        "pruner": sweep.pruner,
        "seed": sweep.seed,
        "counts": {state: states.count(state) for state in ("complete", "pruned", "failed")},
        "best": {"trial": best.number, "value": best.value, "settings": given, "command": command},
        "importance": shares,
        "importance_missing": why,
        "top": table and _same_again(table),
        "trials": [asdict(trial) for trial in trials],
    }


def _same_again(table: dict) -> dict:
    """The table without what depends on interruptions: how often val was opened, and how long trainings took."""
    kept = {key: value for key, value in table.items() if key not in ("looks", "training_seconds")}
    rows = [{key: value for key, value in row.items() if key != "training_seconds"} for row in table["rows"]]
    return kept | {"rows": rows}


def _choose(ranked: Sequence[Trial], table: dict | None, column: str) -> Trial:
    """The trial with the highest mean over the other seeds; without any, the best of the search."""
    means = {}
    for row in table["rows"] if table else []:
        mean = row["figures"].get(column, {}).get("mean")
        if mean is not None:
            means[row["name"]] = mean
    return max(ranked, key=lambda trial: means.get(_name(trial), float("-inf"))) if means else ranked[0]


def train_command(sweep: Sweep, given: Mapping[str, Any], threads: int, out: Path) -> list[str]:
    """The words of the `longreel train` that makes a trial's run again, to the same figure."""
    words = ["longreel", "train", str(sweep.store), str(sweep.manifest)]
    for name, value in {"root": sweep.root, "protocol": sweep.protocol}.items():
        words += [] if value is None else [f"--{name}", str(value)]
    for key, value in given.items():
        option = OPTIONS.get(key, key.replace("_", "-"))
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", str(value)]
    return [*words, "--device", sweep.device, "--threads", str(threads), "--out", str(out)]


def make_grid(sweep: Sweep, trials: Sequence[Trial]) -> Grid:
    """The best trials of the search."""
    keys = list(sweep.space.parameters)
    rows = [
        [str(trial.number), f"{trial.value:.3f}", str(trial.epoch), *(str(trial.values[key]) for key in keys)]
        for trial in rank_trials(trials)[:SHOWN]
    ]
    title = f"Search: val {column_name(sweep.objective.column)}, seed {sweep.seed}"
    return Grid(title, ["trial", column_name(sweep.objective.column), "epoch", *keys], rows)


def notes_of(results: dict, trials: Sequence[Trial]) -> list[str]:
    """What a reader must know of the search."""
    counts = results["counts"]
    notes = [
        f"{sum(counts.values())} trials: {counts['complete']} complete, {counts['pruned']} pruned, {counts['failed']} "
        f"failed. Sampler {results['sampler']}, pruner {results['pruner']}."
    ]
    notes += [f"trial {trial.number} failed: {trial.reason}" for trial in trials if trial.state == "failed"]
    if results["importance"]:
        shares = ", ".join(f"{key} {100 * share:.0f} %" for key, share in results["importance"].items())
        notes.append(f"Share of the figure's variance (fANOVA): {shares}.")
    else:
        notes.append(f"No importances: {results['importance_missing']}.")
    return notes


def write_report(sweep: Sweep, folder: Path, results: dict, trials: Sequence[Trial], table: dict | None) -> None:
    """Write ``results.json``, ``sweep.md``, ``parallel.svg`` and, where there are importances, ``importance.svg``."""
    shares, best = results["importance"], results["best"]
    if shares:
        write_bytes(folder / "importance.svg", draw_importance(shares, results["objective"]))
    else:
        (folder / "importance.svg").unlink(missing_ok=True)  # of a call with other trials
    write_bytes(folder / "parallel.svg", draw_parallel(sweep.space, trials, results["objective"]))
    grid = make_grid(sweep, trials)
    lines = [grid.header, ["---", *["---:"] * (len(grid.header) - 1)], *grid.rows]
    body = "\n".join("| " + " | ".join(map(escape_markdown, cells)) + " |" for cells in lines)
    notes = "\n".join(f"- {escape_markdown(note)}" for note in notes_of(results, trials))
    parts = [f"### {escape_markdown(grid.title)}\n\n{body}\n", f"{notes}\n"]
    figures = ["importance", "parallel"] if shares else ["parallel"]
    parts.append("\n".join(f"![{name}]({name}.svg)" for name in figures) + "\n")
    parts += [as_markdown(table)] if table else []
    parts.append(f"Trial {best['trial']} again:\n\n```bash\n{shlex.join(best['command'])}\n```\n")
    write_bytes(folder / "sweep.md", "\n".join(parts).encode())
    write_json(folder / "results.json", results)  # last: it says that the sweep has ended
