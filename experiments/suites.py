"""Suites: named grids of runs, read from TOML. The published tables are such files beside this module.

A suite has a ``title``, a ``baseline`` (the name of a row) and ``[[rows]]``, each with a ``name`` and any setting of a
training; ``protocol``, ``columns``, ``source`` and ``[settings]`` for all rows may stand above them. ``published``
figures belong to a row: a list in the order of the columns for each backbone. A row with ``fuse``, a list of other
rows, is not trained: it is their fusion, with ``weights`` such as ``2:1``. ``stores`` are the labels of those that a
row is for.
"""

import math
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ..errors import LongreelError, unknown
from .mixtures import read_weights
from .optimisation import FitSettings
from .protocols import PROTOCOLS
from .settings import FIT, OWN, TrainSettings

BUILT_IN = Path(__file__).with_name("tables")
FIGURES = ("map", "class_average", "acc1", "acc5")
SUITE_KEYS = {"title", "source", "protocol", "baseline", "columns", "settings", "rows", "notes"}
ROW_KEYS = {"name", "published", "stores", "fuse", "weights"}
FREE = (FIT | OWN) - {"seed", "checkpoint_seconds", "groups"}  #: what a row or ``[settings]`` may set.
KINDS = get_type_hints(TrainSettings) | get_type_hints(FitSettings)  #: setting -> type.
WORDS = {str: "a text in quotes", bool: "true or false", float: "a number", int: "a whole number"}


@dataclass(frozen=True)
class Row:
    """One way of training; its runs differ in store and seed alone."""

    name: str
    settings: Mapping[str, Any]  #: of ``TrainSettings`` and ``FitSettings``, the suite's included.
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  #: backbone -> column -> figure.
    stores: tuple[str, ...] = ()  #: labels of those that it is for; all if there is none.
    fuse: tuple[str, ...] = ()  #: rows whose runs of the same store and seed are fused, in place of a training.
    weights: str | None = None  #: of those, as for ``read_weights``.

    def is_for(self, store: str) -> bool:
        """Whether there is such a row on the store of that label."""
        return not self.stores or store in self.stores


@dataclass(frozen=True)
class Suite:
    """A grid of runs and the table that is made of it."""

    name: str
    title: str
    baseline: str  #: the row that the others are set against.
    columns: tuple[str, ...]  #: a figure, or a group and a figure: ``tail.map``; none: overall figures, each group's.
    rows: tuple[Row, ...]
    source: str | None = None
    protocol: str | None = None
    groups: str | None = None
    notes: tuple[str, ...] = ()


def suite_names() -> list[str]:
    """The built-in suites."""
    return sorted(path.stem for path in BUILT_IN.glob("*.toml"))


def suite_path(name: str) -> Path:
    """The TOML file of a built-in suite, or the file itself.

    Raises:
        LongreelError: When there is neither.
    """
    if name in suite_names():
        return BUILT_IN / f"{name}.toml"
    if name.endswith(".toml") or "/" in name:
        return Path(name)
    error = unknown("suite", name, suite_names())
    raise type(error)(f"{error} A TOML file of your own works too.")


def read_text(name: str) -> str:
    """The TOML of a suite.

    Raises:
        LongreelError: When there is no such suite or file.
    """
    path = suite_path(name)
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise LongreelError(f"{path}: cannot be read ({error.strerror}). Give the path of a TOML file.") from None
    except UnicodeDecodeError as error:
        raise LongreelError(f"{path}: is not TOML ({error}).") from None


def under_protocol(suite: Suite, name: str) -> Suite:
    """The suite under a protocol of the caller's. Of another benchmark's, the published figures are left out.

    Raises:
        LongreelError: When there is no such protocol.
    """
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    same = suite.protocol is None or PROTOCOLS[suite.protocol].source == PROTOCOLS[name].source
    rows = suite.rows if same else tuple(replace(row, published={}) for row in suite.rows)
    return replace(suite, protocol=name, rows=rows)


def read_suite(name: str) -> Suite:
    """Read a built-in suite, or one from a file.

    Raises:
        LongreelError: With the file, and the row and key that cannot be used.
    """
    path = suite_path(name)
    try:
        document = tomllib.loads(read_text(name))
    except tomllib.TOMLDecodeError as error:
        raise LongreelError(f"{path}: is not TOML ({error}).") from None
    _check_keys(path, "", document, SUITE_KEYS | {"groups"})
    rows = document.get("rows")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise LongreelError(f"{path}: has no rows. Put [[rows]] with a name and settings below the title.")
    columns = _read_texts(path, document, "columns", [])
    if len(set(columns)) < len(columns):
        raise LongreelError(f"{path}: a column stands there twice. Give each once.")
    for column in columns:
        if column.split(".")[-1] not in FIGURES:
            raise LongreelError(f"{path}: column {column!r} is no figure. Give one of {', '.join(FIGURES)}.")
    shared = document.get("settings", {})
    _check_keys(path, "settings: ", shared, FREE)
    _check_values(path, "settings: ", shared)
    read = tuple(_read_row(path, row, shared, columns) for row in rows)
    names = [row.name for row in read]
    _check_fused(path, read)
    baseline = document.get("baseline", names[0])
    if len(set(names)) < len(names) or baseline not in names:
        raise LongreelError(f"{path}: every row needs a name of its own, and the baseline must be one of them.")
    texts = {key: _read_text(path, document, key) for key in ("title", "source", "protocol", "groups")}
    notes = tuple(_read_texts(path, document, "notes", []))
    title = texts.pop("title") or path.stem
    return Suite(path.stem, title, baseline, tuple(columns), read, notes=notes, **texts)


def check_columns(suite: Suite, groups: Collection[str]) -> None:
    """Refuse columns of groups that there are not.

    Raises:
        LongreelError: With the first of them.
    """
    for column in suite.columns:
        group = column.rpartition(".")[0]
        if group and group not in groups:
            raise LongreelError(f"suite {suite.name}: there is no group {group!r}. There are: {', '.join(groups)}.")


def _read_row(path: Path, row: dict, shared: dict, columns: list[str]) -> Row:
    name = row.get("name")
    if not isinstance(name, str) or not name:
        raise LongreelError(f"{path}: a row has no name. Give each one.")
    _check_keys(path, f"row {name!r}: ", row, FREE | ROW_KEYS)
    _check_values(path, f"row {name!r}: ", row)
    published = row.get("published", {})
    if not isinstance(published, dict):
        raise LongreelError(f"{path}: row {name!r}: published is no table. Write published.BACKBONE = [figures].")
    for backbone, figures in published.items():
        numbers = isinstance(figures, list) and all(type(figure) in (int, float) for figure in figures)
        if not numbers or not all(map(math.isfinite, figures)) or len(figures) != len(columns):
            raise LongreelError(f"{path}: row {name!r}: published {backbone} needs {len(columns)} figures, as columns.")
    own = {key: value for key, value in row.items() if key not in ROW_KEYS}
    fuse, weights = _read_texts(path, row, "fuse", []), _read_text(path, row, "weights")
    if own and fuse:
        raise LongreelError(f"{path}: row {name!r} is fused of others, so {next(iter(own))} has no part in it.")
    settings = {} if fuse else {**shared, **own}
    found = {
        backbone: {column: figure for column, figure in zip(columns, figures, strict=True) if figure >= 0}
        for backbone, figures in published.items()
    }
    return Row(name, settings, found, tuple(_read_texts(path, row, "stores", [])), tuple(fuse), weights)


def _check_fused(path: Path, rows: Collection[Row]) -> None:
    """Refuse rows that are fused of what is not trained."""
    trained = {row.name: row for row in rows if not row.fuse}
    for row in rows:
        for part in row.fuse:
            if part not in trained:
                error = unknown("row that is trained", part, trained)
                raise type(error)(f"{path}: row {row.name!r}: {error}")
            if trained[part].stores not in ((), row.stores):
                raise LongreelError(
                    f"{path}: row {row.name!r} is for other stores than its part {part!r}. Give both the same."
                )
        if row.fuse and len(set(row.fuse)) < max(2, len(row.fuse)):
            raise LongreelError(f"{path}: row {row.name!r} must be fused of two or more rows, each named once.")
        if row.weights is not None and not row.fuse:
            raise LongreelError(f"{path}: row {row.name!r} has weights of nothing. Name rows with fuse.")
        if row.fuse:
            read_weights(row.weights, len(row.fuse))


def _check_keys(path: Path, where: str, document: object, known: set[str]) -> None:
    if not isinstance(document, dict):
        raise LongreelError(f"{path}: {where}is no table of settings.")
    for key in document:
        if key not in known:
            error = unknown("key", key, known)
            raise type(error)(f"{path}: {where}{error}")


def _check_values(path: Path, where: str, settings: Mapping[str, object]) -> None:
    """Refuse a text where a number is due, and the like."""
    for key in FREE & settings.keys():
        value, kinds = settings[key], {KINDS[key], *get_args(KINDS[key])}
        if type(value) not in kinds and not (type(value) is int and float in kinds):
            due = next(word for kind, word in WORDS.items() if kind in kinds)
            raise LongreelError(f"{path}: {where}{key} is {value!r}, where {due} is due.")


def _read_text(path: Path, document: dict, key: str) -> str | None:
    value = document.get(key)
    if value is not None and not isinstance(value, str):
        raise LongreelError(f"{path}: {key} is no text. Put it in quotes.")
    return value


def _read_texts(path: Path, document: dict, key: str, default: list[str]) -> list[str]:
    value = document.get(key, default)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise LongreelError(f"{path}: {key} is no list of texts.")
    return value
