"""A suite's table as Markdown, LaTeX, CSV and JSON. The text of users is never markup."""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SPECIAL = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": r"\textless{}",  # in TeX's first font encoding these three are other signs
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}
NAMES = {"map": "mAP", "acc1": "Acc@1", "acc5": "Acc@5", "class_average": "class avg."}


@dataclass(frozen=True)
class Grid:
    """One table of text."""

    title: str
    header: list[str]
    rows: list[list[str]]


def column_name(column: str) -> str:
    """``tail.map`` -> ``tail mAP``."""
    group, _, figure = column.rpartition(".")
    return f"{group} {NAMES[figure]}".strip()


def make_grids(document: dict) -> list[Grid]:
    """Two grids for each store: figures, and differences from the baseline where there is another row."""
    grids = []
    for store in document["stores"]:
        rows = [row for row in document["rows"] if row["store"] == store]
        header = [column_name(column) for column in document["columns"]]
        body = [[row["name"], str(len(row["seeds"])), *_figures(row, document["columns"]), _time(row)] for row in rows]
        whole = ["method", "seeds", *header, "time"]
        if any(row["filling"] for row in rows):
            whole += ["generated", "GPU-hours"]
            body = [cells + _filling(row) for cells, row in zip(body, rows, strict=True)]
        grids.append(Grid(f"{document['title']}: {store}", whole, body))
        compared = [row for row in rows if row["difference"]]
        if compared:
            body = [[row["name"], *_differences(row, document["columns"])] for row in compared]
            grids.append(Grid(f"{store}: difference from {document['baseline']}", ["method", *header], body))
    return grids


def _figures(row: dict, columns: Sequence[str]) -> list[str]:
    cells = []
    for column in columns:
        figure = row["figures"].get(column)
        if figure is None or figure["mean"] is None:
            text = "-"
        else:
            spread = "" if figure["sd"] is None else f" ± {figure['sd']:.3f}"
            text = f"{figure['mean']:.3f}{spread}"
        published = row["published"].get(column)
        cells.append(text if published is None else f"{text} ({published:.3f})")
    return cells


def _time(row: dict) -> str:
    """Seconds on the clock of a training."""
    seconds = row["training_seconds"]
    return "-" if seconds is None else _seconds(seconds)


def _seconds(seconds: float) -> str:
    """With a decimal below 100."""
    return f"{seconds:.{1 if seconds < 100 else 0}f} s"


def _time_of_all(document: dict) -> str:
    """Seconds on the clock of all trainings; from an hour on, hours."""
    seconds = document["training_seconds"]
    hours = seconds / 3600
    return _seconds(seconds) if hours < 1 else f"{hours:.{1 if hours < 100 else 0}f} hours"


def _filling(row: dict) -> list[str]:
    """Generated clips that a row takes, and what they cost."""
    filling = row["filling"]
    return [str(filling["generated"]), f"{filling['gpu_hours']:.1f}"] if filling else ["-", "-"]


def _differences(row: dict, columns: Sequence[str]) -> list[str]:
    cells = []
    for column in columns:
        found = row["difference"][column]
        if found["value"] is None:
            cells.append("-")
            continue
        interval = "" if found["low"] is None else f" [{found['low']:+z.3f}, {found['high']:+z.3f}]"
        chance = "" if found["p_holm"] is None else f" p {found['p_holm']:.2g}"
        cells.append(f"{found['value']:+z.3f}{interval}{chance}")
    return cells


def footnotes(document: dict) -> list[str]:
    """What a reader must know to trust the figures."""
    notes = []
    if document["watermark"]:
        notes.append(f"NOT A FAIR TEST: {document['watermark']}")
    notes += [
        f"LEAK: {count} clips of val and test are the same videos as training clips of {store}."
        for store, count in document["leaks"].items()
        if count
    ]
    notes += [f"{row['store']}, {row['name']}, seed {s}: FAILED: {why}" for row, s, why in _faults(document)]
    sizes = ", ".join(f"{name} {count}" for name, count in document["groups"].items())
    notes += [
        f"{document['split']} split, {document['clips']} clips. Groups: {document['groups_rule']} (classes: {sizes}).",
        f"Epoch: {', '.join(document['selection'])}. The split was opened {document['looks']} time(s) a run. "
        f"Budget: {document['budget']}.",
        "Mean ± standard deviation over seeds; time: mean on the clock of a training on one thread, as busy as the "
        f"machine was, {_time_of_all(document)} in all.",
        *_of_differences(document),
    ]
    if any(row["published"] for row in document["rows"]):
        notes.append(f"In parentheses: as published, one seed ({document['source']}).")
    if document["split"] == "val" and any(how.startswith("best") for how in document["selection"]):
        notes.append("The epoch was chosen on this split: its figures are too high.")
    notes += [
        f"{row['store']}, {row['name']}: {row['filling']['missing']} generated clips fewer than it asks for."
        for row in document["rows"]
        if row["filling"] and row["filling"]["missing"]
    ]
    if document["departures"]:
        notes.append(f"Departs from {document['protocol']}: {'; '.join(document['departures'])}.")
    if document["failed"]:
        notes.append(f"{document['failed']} of {document['clips']} clips have no features and are scored lowest.")
    if document["empty_classes"]:
        notes.append(f"{document['empty_classes']} classes have no clip in this split and are left out of the means.")
    return notes + document["notes"]


def _of_differences(document: dict) -> list[str]:
    """What intervals and p values mean; with one seed there is little that they can."""
    if not any(row["difference"] for row in document["rows"]):
        return []
    seeds = max(len(row["seeds"]) for row in document["rows"])
    what = f"[low, high]: 95 % interval of the paired difference, {document['draws']} draws of the bootstrap over"
    if seeds == 1:
        return [f"{what} clips alone, as there is one seed: no ground to prefer a method. Train several seeds."]
    return [
        f"{what} seeds and clips; one that holds 0 is no evidence of a difference. p: sign flips over seeds, "
        f"Holm-corrected over the rows of a store for each figure by itself; {seeds} seeds can give no p below "
        f"{2.0 ** (1 - seeds):.2g}."
    ]


def _faults(document: dict) -> list[tuple[dict, str, str]]:
    return [(row, seed, why) for row in document["rows"] for seed, why in row["faults"].items()]


def escape_markdown(text: str) -> str:
    """Text that Markdown takes for nothing else."""
    return re.sub(r"[\\`*_|<>&#~$]|\](?=[(:\[])", r"\\\g<0>", " ".join(text.split()))


def as_markdown(document: dict) -> str:
    """Tables for a README."""
    parts = []
    for grid in make_grids(document):
        lines = [grid.header, ["---", *["---:"] * (len(grid.header) - 1)], *grid.rows]
        table = "\n".join("| " + " | ".join(map(escape_markdown, cells)) + " |" for cells in lines)
        parts.append(f"### {escape_markdown(grid.title)}\n\n{table}\n")
    parts.append("\n".join(f"- {escape_markdown(note)}" for note in footnotes(document)) + "\n")
    return "\n".join(parts)


def as_latex(document: dict) -> str:
    """Tables that need booktabs alone. The notes are comments below them, a watermark stands in the tables."""

    def escape(text: str) -> str:
        plain = " ".join(text.split())
        guard = "{}" if plain[:1] in ("[", "*") else ""  # a line's end would take them for its options
        typed = "".join(SPECIAL.get(letter, letter) for letter in plain)
        return guard + re.sub(r"(?<![\w.-])-(?=\d)", "$-$", typed)

    parts = []
    for grid in make_grids(document):
        lines = [" & ".join(map(escape, cells)) + r" \\" for cells in (grid.header, *grid.rows)]
        if document["watermark"]:
            mark = escape(f"NOT A FAIR TEST: {document['watermark']}")
            lines += [r"\midrule", rf"\multicolumn{{{len(grid.header)}}}{{l}}{{{mark}}} \\"]
        body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
        columns = "l" + "r" * (len(grid.header) - 1)
        title = " ".join(grid.title.split())
        parts.append(f"% {title}\n\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}\n")
    notes = "\n".join(f"% {' '.join(note.split())}" for note in footnotes(document) if note.strip())
    return "\n".join(parts) + f"\n{notes}\n"


def as_csv(document: dict) -> str:
    """One line for each store, row and column."""
    out = io.StringIO()
    figures, difference = ("mean", "sd", "low", "high"), ("value", "low", "high", "p", "p_holm")
    named = [f"difference_{key}".replace("difference_value", "difference") for key in difference]
    writer = csv.writer(out, lineterminator="\n")
    last = ["published", "split", "watermark", "training_seconds"]
    writer.writerow(["store", "method", "seeds", "figure", *figures, *named, *last])
    for row in document["rows"]:
        for column in document["columns"]:
            found, against = row["figures"].get(column, {}), (row["difference"] or {}).get(column, {})
            cells = [*(found.get(key) for key in figures), *(against.get(key) for key in difference)]
            plain = [row["store"], row["name"], len(row["seeds"]), column, *cells, row["published"].get(column)]
            plain += [document["split"], document["watermark"], row["training_seconds"]]
            writer.writerow(["" if cell is None else cell for cell in plain])
    return out.getvalue()


def as_json(document: dict) -> str:
    """The document itself."""
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


#: file ending -> how the table is written.
FORMS: dict[str, Callable[[dict], str]] = {"md": as_markdown, "tex": as_latex, "csv": as_csv, "json": as_json}
