"""Many runs side by side: one row for each way of training, over its seeds, with intervals and paired differences."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import RunMismatch
from .evaluate import evaluate_run, load_scored
from .runs import read_config
from .statistics import Interval, Metric, hierarchical_bootstrap, paired_difference

#: what a run may differ in from others of its row.
WITHIN_A_ROW = {("fit", "seed"), ("threads",), ("fused", "runs")}
#: what makes runs different rows, but says nothing to a reader.
UNNAMED = {
    "store_digest",
    "manifest_digest",
    "counts",
    "classes",
    "groups",
    "root",
    "spec",
    "method",
    "departures",
    "watermark",
    "fused",
}


def compare_runs(folders: Sequence[Path], split: str = "test", *, force: bool = False, draws: int = 1000) -> dict:
    """Evaluate runs on a split and set them side by side.

    Runs that differ in nothing but their seed make one row. Intervals are 95 % hierarchical bootstrap intervals over
    seeds and clips; each row is also set against the first, with the same resampled clips, where the seeds agree.

    Args:
        folders: Finished runs.
        split: ``test``, or ``val`` to leave the test split closed.
        force: Compare runs whose clips, classes or groups differ; the document then says so.
        draws: Bootstrap draws.

    Returns:
        The document that ``longreel compare --json`` prints.

    Raises:
        RunMismatch: When a run has not finished, or the runs were not scored on the same clips.
    """
    documents = [evaluate_run(folder, split) for folder in folders]
    configs = [read_config(folder) for folder in folders]
    scored = [load_scored(folder, split) for folder in folders]
    unlike = _find_unlike(folders, configs, scored)
    if unlike and not force:
        raise RunMismatch(f"{unlike} A table of them would mislead; --force makes it all the same and marks it.")
    rows = name_rows(configs)
    metrics = _metrics(configs)
    table = []
    for name, members in rows.items():
        seeds = [configs[member]["fit"]["seed"] for member in members]
        if len(set(seeds)) < len(seeds):
            raise RunMismatch(f"{name}: two runs have the same seed {max(seeds, key=seeds.count)}. Name each run once.")
        members = [member for _, member in sorted(zip(seeds, members, strict=True))]
        table.append(_make_row(name, members, folders, configs, documents, scored, metrics, draws))
    if not unlike:
        first = next(iter(rows.values()))
        for row, members in zip(table[1:], list(rows.values())[1:], strict=True):
            row["difference"] = _set_against(first, members, configs, scored, metrics, draws)
    return {
        "split": split,
        "clips": documents[0]["clips"],
        "groups_rule": documents[0]["groups_rule"],
        "watermark": next((document["watermark"] for document in documents if document.get("watermark")), None),
        "metrics": list(metrics),
        "warning": unlike,
        "rows": table,
    }


def _find_unlike(folders: Sequence[Path], configs: list[dict], scored: list[tuple]) -> str | None:
    for folder, config, (_, targets, ids) in zip(folders[1:], configs[1:], scored[1:], strict=True):
        pairs = {
            "classes": (config["classes"], configs[0]["classes"]),
            "groups": (config["groups"], configs[0]["groups"]),
            "clips": (ids, scored[0][2]),
        }
        for what, (mine, first) in pairs.items():
            if mine != first:
                return f"{folder} and {folders[0]} have different {what}."
        if not np.array_equal(targets, scored[0][1]):
            return f"{folder} and {folders[0]} have different labels."
    return None


def name_rows(configs: list[dict]) -> dict[str, list[int]]:
    """Row name -> indices of its runs. A name is the head and the method, and beyond them only what differs."""
    flat = [_flatten(config) for config in configs]
    differ = [key for key in flat[0] if key not in WITHIN_A_ROW and len({json.dumps(run.get(key)) for run in flat}) > 1]
    shown = [key for key in differ if key not in {("head",), ("balance",)} and key[0] not in UNNAMED]
    rows: dict[str, tuple[list[int], str]] = {}
    for index, run in enumerate(flat):
        identity = json.dumps([run.get(key) for key in differ])
        extra = [f"{key[-1]} {_short(run[key])}" for key in shown if key in run]
        name = ", ".join([f"{run[('head',)]} {run[('balance',)]}", *extra])
        rows.setdefault(identity, ([], name))[0].append(index)
    named: dict[str, list[int]] = {}
    for indices, name in rows.values():
        number = sum(other.split(" #")[0] == name for other in named)
        named[f"{name} #{number + 1}" if number else name] = indices
    return named


def _flatten(config: dict, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    flat = {}
    for key, value in config.items():
        flat |= _flatten(value, (*prefix, key)) if isinstance(value, dict) else {(*prefix, key): value}
    return flat


def _short(value: object) -> str:
    return Path(value).name if isinstance(value, str) and "/" in value else str(value)


def _metrics(configs: list[dict]) -> dict[str, Metric]:
    """What is compared: overall figures, and each group's class average where all runs have the same groups."""

    def of_group(name: str) -> Metric:
        return lambda evaluation: evaluation.groups[name].class_average

    metrics: dict[str, Metric] = {
        "acc1": lambda evaluation: evaluation.overall.acc1,
        "class_average": lambda evaluation: evaluation.overall.class_average,
        "map": lambda evaluation: evaluation.overall.map,
    }
    groups = configs[0]["groups"]
    if any(config["groups"] != groups for config in configs):
        return metrics
    return metrics | {f"{name}.class_average": of_group(name) for name, members in groups["members"].items() if members}


def _make_row(
    name: str,
    members: list[int],
    folders: Sequence[Path],
    configs: list[dict],
    documents: list[dict],
    scored: list[tuple],
    metrics: dict[str, Metric],
    draws: int,
) -> dict:
    scores = [scored[member][0] for member in members]
    groups = configs[members[0]]["groups"]["members"]
    intervals = hierarchical_bootstrap(scores, scored[members[0]][1], groups, metrics, draws=draws)
    return {
        "name": name,
        "runs": [str(folders[member]) for member in members],
        "seeds": [configs[member]["fit"]["seed"] for member in members],
        "selection": documents[members[0]]["selection"],
        "looks": max(documents[member]["looks"] for member in members),
        "failed": documents[members[0]]["failed"],
        "empty_classes": documents[members[0]]["overall"]["empty_classes"],
        "figures": {metric: _as_json(interval) for metric, interval in intervals.items()},
    }


def _set_against(
    first: list[int],
    members: list[int],
    configs: list[dict],
    scored: list[tuple],
    metrics: dict[str, Metric],
    draws: int,
) -> dict | None:
    """This row minus the first, seed by seed; ``None`` where the seeds are not the same ones."""
    by_seed = [{configs[index]["fit"]["seed"]: scored[index] for index in indices} for indices in (members, first)]
    if by_seed[0].keys() != by_seed[1].keys():
        return None
    seeds = sorted(by_seed[0])
    mine, theirs = ([runs[seed][0] for seed in seeds] for runs in by_seed)
    targets, groups = scored[first[0]][1], configs[first[0]]["groups"]["members"]
    intervals = paired_difference(mine, theirs, targets, groups, metrics, draws=draws)
    return {metric: _as_json(interval) for metric, interval in intervals.items()}


def _as_json(interval: Interval) -> dict[str, float | None]:
    return {key: None if np.isnan(value) else float(value) for key, value in vars(interval).items()}
