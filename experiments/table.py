"""The table of a suite: figures over seeds, differences from the baseline, and what was published."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from ..errors import LongreelError
from ..manifest import read_manifest
from ..store import FeatureStore
from .bench import Outcome
from .draws import Draws, draw_run, metrics_of
from .evaluate import evaluate_run
from .fill_curve import measure_fillings
from .leaks import find_copies
from .protocols import PROTOCOLS
from .runs import read_config, read_document
from .statistics import holm, interval_of, seed_spread, sign_flip_p
from .suites import Row, Suite, check_columns

LEVEL = 0.95


def make_table(suite: Suite, outcomes: Sequence[Outcome], draws: Draws) -> dict:
    """Set the rows of a suite side by side, store by store.

    A row's difference is its figure minus the baseline's on the same store, over the seeds that both have: a 95 %
    hierarchical bootstrap interval over seeds and clips, and the sign-flip p over seeds, corrected by Holm over the
    rows of the store.

    Args:
        suite: Whose runs they are.
        outcomes: From ``run_suite``.
        draws: As given to ``run_suite``.

    Returns:
        The document that ``longreel bench --json`` prints.

    Raises:
        LongreelError: When not one run has figures.
    """
    done = [outcome for outcome in outcomes if outcome.fault is None]
    if not done:
        raise LongreelError(f"not one run of {suite.name} has figures; the first: {outcomes[0].fault}")
    config, split = read_config(done[0].run.folder), draws.split
    check_columns(suite, config["groups"]["members"])
    evaluations = [evaluate_run(outcome.run.folder, split) for outcome in done]
    columns = list(metrics_of(suite.columns, config["groups"]["members"]))
    sizes = {name: len(members) for name, members in config["groups"]["members"].items()}
    departures = sorted({text for outcome in outcomes for text in outcome.run.settings.departures})
    rows, stores = [], list(dict.fromkeys(outcome.run.store for outcome in outcomes))
    for store in stores:
        here = [outcome for outcome in outcomes if outcome.run.store == store]
        rows += _store_rows(suite, store, here, columns, draws)
    shown = {store for store in stores if is_published(suite, store, split, evaluations[0]["clips"], sizes)}
    fillings = _fillings(suite, outcomes[0])
    rows = [row | {"filling": fillings.get(row["name"])} for row in rows]
    rows = [row if row["store"] in shown and not departures else row | {"published": {}} for row in rows]
    protocol = None if suite.protocol is None else PROTOCOLS[suite.protocol]
    return {
        "suite": suite.name,
        "title": suite.title,
        "source": suite.source,
        "protocol": suite.protocol,
        "watermark": config["watermark"] or (protocol and protocol.watermark),
        "departures": departures,
        "split": split,
        "clips": evaluations[0]["clips"],
        "failed": max(evaluation["failed"] for evaluation in evaluations),
        "empty_classes": evaluations[0]["overall"]["empty_classes"],
        "selection": sorted({evaluation["selection"] for evaluation in evaluations}),
        "looks": max(evaluation["looks"] for evaluation in evaluations),
        "budget": "one training for each row, store and seed; nothing is tuned",
        "training_seconds": sum(_training_seconds([outcome for outcome in done if not outcome.run.parts])),
        "groups_rule": config["groups"]["rule"],
        "groups": sizes,
        "columns": columns,
        "baseline": suite.baseline,
        "draws": draws.count,
        "stores": {store: _spec_of(store, done) for store in stores},
        "leaks": {store: _count_leaks(store, outcomes) for store in stores},
        "notes": [*suite.notes, *(protocol.notes if protocol else ())],
        "rows": rows,
    }


def _fillings(suite: Suite, outcome: Outcome) -> dict[str, dict]:
    """Row -> what it takes of the generated clips, for rows that say up to how many."""
    fills = {row.name: row.settings["fill"] for row in suite.rows if "fill" in row.settings}
    if not fills:
        return {}
    settings = outcome.run.settings
    found = measure_fillings(read_manifest(settings.manifest, settings.root), fills)
    return {name: asdict(filling) for name, filling in found.items()}


def is_published(suite: Suite, store: str, split: str, clips: int, sizes: Mapping[str, int]) -> bool:
    """Whether the runs were on the clips and groups of the published figures; without a protocol the suite decides.

    Where a protocol comes in several forms, the label must name the one that the manifest has: ``resnet50@0.01``.
    """
    if suite.protocol is None:
        return True
    published = PROTOCOLS[suite.protocol].published
    if split != ("test" if any("test" in each.clips for each in published.values()) else "val"):
        return False  # those were measured on the other one
    form = store.rpartition("@")[2] if "@" in store else None
    return any(
        form == (None if value is None else f"{value:g}")
        for value, each in published.items()
        if dict(each.groups) == dict(sizes) and each.clips.get(split) == clips
    )


def _count_leaks(store: str, outcomes: Sequence[Outcome]) -> int:
    """How many clips of val and test are copies of training clips."""
    settings = next(outcome.run.settings for outcome in outcomes if outcome.run.store == store)
    return len(find_copies(FeatureStore(settings.store), read_manifest(settings.manifest, settings.root)))


def _spec_of(store: str, done: Sequence[Outcome]) -> dict | None:
    folders = [outcome.run.folder for outcome in done if outcome.run.store == store and not outcome.run.parts]
    return read_config(folders[0])["spec"] if folders else None


def _store_rows(
    suite: Suite, store: str, outcomes: Sequence[Outcome], columns: Sequence[str], draws: Draws
) -> list[dict]:
    """The rows of one store; differences of all of them share one Holm correction a column."""
    tables: dict[str, dict[int, np.ndarray]] = {}  # row -> seed -> (M, 1 + W)
    for outcome in outcomes:
        if outcome.fault is None:
            tables.setdefault(outcome.run.row, {})[outcome.run.seed] = draw_run(outcome.run.folder, draws)
    there = [row for row in suite.rows if row.is_for(store)]
    found = [tables.get(row.name, {}) for row in there]
    rows = [_make_row(row, store, outcomes, mine, columns, draws.seed) for row, mine in zip(there, found, strict=True)]
    baseline = tables.get(suite.baseline, {})
    for row, mine in zip(rows, found, strict=True):
        if row["name"] != suite.baseline:
            row["difference"] = _difference(mine, baseline, columns, draws.seed)
    for column in columns:
        with_p = [row["difference"][column] for row in rows if row["difference"]]
        for entry, corrected in zip(with_p, holm([_nan(entry["p"]) for entry in with_p]), strict=True):
            entry["p_holm"] = _number(corrected)
    return rows


def _make_row(
    row: Row,
    store: str,
    outcomes: Sequence[Outcome],
    tables: Mapping[int, np.ndarray],
    columns: Sequence[str],
    seed: int,
) -> dict:
    mine = [outcome for outcome in outcomes if outcome.run.row == row.name]
    seconds, figures = _training_seconds([outcome for outcome in mine if outcome.fault is None]), {}
    for place, column in enumerate(columns):
        if tables:
            stacked = np.stack([tables[number][place] for number in sorted(tables)])  # (S, 1 + W)
            mean, deviation = seed_spread(stacked[:, 0])
            interval = interval_of(stacked, seed, LEVEL)
            low, high = _number(interval.low), _number(interval.high)
            figures[column] = {"mean": _number(mean), "sd": _number(deviation), "low": low, "high": high}
    return {
        "name": row.name,
        "store": store,
        "settings": dict(row.settings),
        "fused": list(row.fuse),
        "seeds": sorted(tables),
        "runs": [outcome.run.folder.name for outcome in mine],
        "faults": {outcome.run.seed: outcome.fault for outcome in mine if outcome.fault is not None},
        "figures": figures,
        "training_seconds": float(np.mean(seconds)) if seconds else None,
        "difference": None,
        "published": dict(row.published.get(store, {})),
    }


def _training_seconds(done: Sequence[Outcome]) -> list[float]:
    """How long each training took, on the clock; runs of earlier versions do not say."""
    noted = [read_document(outcome.run.folder / "provenance.json") for outcome in done]
    return [facts["training_seconds"] for facts in noted if "training_seconds" in facts]


def _difference(
    mine: Mapping[int, np.ndarray], baseline: Mapping[int, np.ndarray], columns: Sequence[str], seed: int
) -> dict | None:
    """A row minus the baseline, seed by seed; ``None`` where they share no seed."""
    shared = sorted(mine.keys() & baseline.keys())
    if not shared:
        return None
    stacked = np.stack([mine[number] - baseline[number] for number in shared])  # (S, M, 1 + W)
    found = {}
    for place, column in enumerate(columns):
        interval = {key: _number(value) for key, value in asdict(interval_of(stacked[:, place], seed, LEVEL)).items()}
        found[column] = interval | {"p": _number(sign_flip_p(stacked[:, place, 0])), "p_holm": None}
    return found


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _nan(value: float | None) -> float:
    return np.nan if value is None else value
