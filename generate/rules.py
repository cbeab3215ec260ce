"""Scores of generated clips, and rules of which are kept. A rule is recorded and never deletes anything."""

import csv
import io
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ..errors import LongreelError, ManifestError, unknown
from ..manifest import OPTIONAL, REQUIRED

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
TRUTH = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True)
class Scores:
    """What is known of each clip."""

    path: Path
    digest: str  #: SHA-256 of the file.
    columns: tuple[str, ...]
    of: Mapping[str, dict[str, str]]  #: clip id -> column -> cell.

    def of_row(self, clip_id: str) -> dict[str, str]:
        """The clip's cells that a manifest has no column of its own for; empty ones where it has no scores."""
        found = self.of.get(clip_id, {})
        return {column: found.get(column, "") for column in self.columns if column not in ("", *REQUIRED, *OPTIONAL)}


@dataclass(frozen=True)
class Rule:
    """Clips are kept whose ``column`` stands in this relation to the number."""

    column: str
    relation: str
    number: float

    def __str__(self) -> str:
        return f"{self.column}{self.relation}{self.number:.12g}"

    def keeps(self, cells: Mapping[str, str]) -> bool | None:
        """Whether the clip is kept; ``None`` where its column is no number."""
        value = read_number(cells.get(self.column, ""))
        return None if math.isnan(value) else OPERATORS[self.relation](value, self.number)


def read_number(text: str) -> float:
    """The number of a cell, 1 for true and 0 for false; NaN where it is none."""
    word = text.strip().lower()
    try:
        return TRUTH[word] if word in TRUTH else float(word)
    except ValueError:
        return math.nan


def read_rules(texts: Sequence[str], scores: Scores | None) -> list[Rule]:
    """``uncertainty<=0.5`` -> a rule on that column of the scores.

    Raises:
        LongreelError: When a text is no rule, there are no scores, or they have no such column.
    """
    rules = []
    for text in texts:
        match = re.fullmatch(r"\s*(.+?)\s*(<=|>=|==|!=|<|>)\s*([^<>=!]+?)\s*", text, flags=re.DOTALL)
        number = read_number(match[3]) if match else math.nan
        if match is None or not math.isfinite(number):
            raise LongreelError(
                f"--keep {text[:80]!r} is no rule. Write column, one of {' '.join(OPERATORS)}, and a number, such as "
                f"'uncertainty<=0.5'."
            )
        if scores is None:
            raise LongreelError(f"--keep {text[:80]!r} needs scores. Give them with --scores.")
        if match[1] not in scores.columns:
            raise LongreelError(f"{scores.path}: {unknown('column', match[1], scores.columns)}")
        rules.append(Rule(match[1], match[2], number))
    return rules


def read_scores(path: Path) -> Scores:
    """Read a CSV of scores: ``clip_id`` and other columns; ``uncertainty``, where it is there, lies between 0 and 1.

    Raises:
        ManifestError: With the file, the line and the remedy.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise ManifestError(
            f"{path}: cannot be read ({error.strerror}). Make it with `longreel generate inspect`."
        ) from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: is not UTF-8 (byte {error.start}). Save it as UTF-8.") from None
    reader, found, header = csv.reader(io.StringIO(text, newline=""), strict=True), {}, []
    try:
        header = _check_header([name.strip() for name in next(reader, [])], path)
        line = reader.line_num + 1
        for cells in reader:
            if any(cell.strip() for cell in cells):
                row = _read_row(cells, header, path, line)
                if found.setdefault(clip_id := row["clip_id"].strip(), row) is not row:
                    raise ManifestError(f"{path}:{line}: clip {_short(clip_id)} is there twice. Remove one.")
            line = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(f"{path}:{reader.line_num}: is not CSV ({error}).") from None
    return Scores(path, sha256(content).hexdigest(), tuple(name for name in header if name != "clip_id"), found)


def _check_header(header: list[str], path: Path) -> list[str]:
    if "clip_id" not in header:
        raise ManifestError(f"{path}:1: column 'clip_id' is missing. Expected clip_id and scores.")
    if twice := [name for name in header if header.count(name) > 1]:
        raise ManifestError(f"{path}:1: column {_short(twice[0])} stands twice. Remove or rename one.")
    return header


def _read_row(cells: list[str], header: list[str], path: Path, line: int) -> dict[str, str]:
    if len(cells) != len(header):
        raise ManifestError(f"{path}:{line}: has {len(cells)} cells under {len(header)} names. Write one for each.")
    row = dict(zip(header, cells, strict=True))
    if row.get("uncertainty", "").strip() and not 0 <= read_number(row["uncertainty"]) <= 1:
        raise ManifestError(
            f"{path}:{line}: column 'uncertainty': {_short(row['uncertainty'])} is no number between 0 and 1."
        )
    return row


def _short(text: str) -> str:
    return repr(text[:80])
