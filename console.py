"""What a person sees: progress on stderr, tables on stdout. No text of users is ever markup or drives the terminal."""

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from .experiments.render import Grid


def printable(text: str) -> str:
    """The text with its control characters, which could drive the terminal, escaped."""
    return "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text)


def say(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(printable(text) + "\n")


class Steps:
    """Progress of some work on stderr: a bar with ETA on a terminal, else a line for every tenth."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._what, self._total, self._done, self._begun = "", 0, 0, 0.0

    def __enter__(self) -> "Steps":
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, what: str, total: int) -> None:
        """Begin a stage of ``total`` steps."""
        self._what, self._total, self._done, self._begun = what, total, 0, time.monotonic()
        if self._bar is not None:
            self._task = self._bar.add_task(what, total=total)

    def reach(self, done: int) -> None:
        """So many steps of the stage are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done)
        elif done * 10 // self._total > self._done * 10 // self._total:
            left = (time.monotonic() - self._begun) / done * (self._total - done)
            say(f"{self._what}: {done} of {self._total}, {left:.0f} s left")
        self._done = done

    def advance(self) -> None:
        """One more step is done."""
        self.reach(self._done + 1)


def print_evaluation(document: dict) -> None:
    """The figures of one run, overall and by group."""
    columns = ("classes", "clips", "acc1", "acc5", "class_average", "map")
    table = _table(_title(document), columns)
    for name, summary in {"overall": document["overall"], **document["groups"]}.items():
        if summary["classes"]:
            table.add_row(Text(printable(name)), *(Text(_figure(summary[column])) for column in columns))
    notes = _footnotes([document | document["overall"]], document)
    if calibration := document.get("calibration"):  # earlier versions kept none
        found = calibration["overall"]
        figures = ", ".join(f"{name} {_short(found[key])}" for name, key in (("ECE", "ece"), ("Brier", "brier")))
        how = f"{calibration['of']}, by {calibration['probabilities']}, {calibration['bins']} bins"
        notes.append(f"calibration: {figures} ({how}, {found['positives']} labels); by group: --json")
    _print(table, notes)


def print_comparison(document: dict) -> None:
    """One row a way of training, each figure with its 95 % interval; below it the differences from the first row."""
    names = [metric.removesuffix(".class_average") for metric in document["metrics"]]
    table = _table(Text(f"{document['split']} split"), ["seeds", *names])
    for row in document["rows"]:
        seeds = str(len(row["seeds"]))
        table.add_row(
            Text(printable(row["name"])), seeds, *(_interval(row["figures"][metric]) for metric in document["metrics"])
        )
        if row.get("difference"):
            cells = [_interval(row["difference"][metric], signed=True) for metric in document["metrics"]]
            table.add_row(Text("  minus the first row", style="dim"), "", *cells)
    notes = _footnotes(document["rows"], document)
    if grouped := [name for name, metric in zip(names, document["metrics"], strict=True) if name != metric]:
        notes.insert(0, f"{', '.join(grouped)}: class average of that group")
    over = "seeds and clips; a difference that may be 0 is no evidence"
    if any(len(row["seeds"]) == 1 for row in document["rows"]):
        over = "clips alone where there is one seed: no ground to prefer a method. Train several seeds"
    notes.append(f"[low, high]: 95 % bootstrap interval over {over}.")
    if document["warning"]:
        notes.insert(0, f"NOT COMPARABLE: {document['warning']}")
    _print(table, notes)


def print_oracle(runs: Sequence[dict]) -> None:
    """What choosing the epoch elsewhere cost each run on a split."""
    table = _table(Text(f"{runs[0]['split']} split, epoch by epoch"), ["figure", "chosen", "best", "gap"])
    for run in runs:
        cells = [f"{run[which]['value']:.3f} (epoch {run[which]['epoch']})" for which in ("chosen", "best")]
        table.add_row(Text(printable(run["run"])), run["figure"], *cells, f"{run['gap']:.3f}")
    looks = max(len(run["epochs"]) for run in runs)
    _print(table, [f"A diagnostic, never a result: the split was opened once for each epoch, {looks} times a run."])


def print_grids(grids: Sequence["Grid"], notes: Sequence[str]) -> None:
    """A suite's tables one below the other, then what a reader must know."""
    for grid in grids:
        table = Table(title=Text(printable(grid.title)))
        for place, name in enumerate(grid.header):
            table.add_column(Text(printable(name)), justify="right" if place else "left")
        for cells in grid.rows:
            table.add_row(*(Text(printable(cell)) for cell in cells))
        _print(table, [])
    _print(None, notes)


def _table(title: Text, columns: Sequence[str]) -> Table:
    table = Table("", title=title)
    for name in columns:
        table.add_column(Text(printable(name)), justify="right")
    return table


def _title(document: dict) -> Text:
    epoch = "fused" if document["epoch"] is None else f"epoch {document['epoch']}"
    how = f"{document['head']} {document['balance']}, seed {document['seed']}, {epoch}"
    return Text(f"{how}, {document['split']} split")


def _footnotes(rows: Sequence[dict], document: dict) -> list[str]:
    """What a reader must know to trust the figures."""
    notes = [f"NOT A FAIR TEST: {document['watermark']}"] if document.get("watermark") else []
    notes += [f"groups: {document['groups_rule']}", f"epoch: {', '.join(sorted({row['selection'] for row in rows}))}"]
    failed, looks = (max(row[key] for row in rows) for key in ("failed", "looks"))
    if failed:
        notes.append(f"{failed} of {document['clips']} clips have no features and are scored lowest")
    if empty := max(row.get("empty_classes", 0) for row in rows):
        zero = document.get("empty_class") == "zero"
        done = "count 0 in" if zero else "are left out of"
        notes.append(f"{empty} classes have no clip in this split and {done} class average and mAP")
    notes.append(
        f"{document['split']} split opened {looks} time{'s' if looks > 1 else ''} a run, {document['clips']} clips"
    )
    return notes


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _interval(figure: dict, signed: bool = False) -> Text:
    if figure["value"] is None:
        return Text("-")
    sign = "+" if signed else ""
    text = f"{figure['value']:{sign}.3f}"
    return Text(text if figure["low"] is None else f"{text}\n[{figure['low']:{sign}.3f}, {figure['high']:{sign}.3f}]")


def _print(table: Table | None, notes: Sequence[str]) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    if table is not None:
        console.print(table)
    for note in notes:
        console.print(Text(printable(note)))
