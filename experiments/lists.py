"""Readers of the list files that benchmarks are published as. Every problem names file and line."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TypeVar

from ..errors import LongreelError, unknown

Document = TypeVar("Document", bound=list | dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """One clip of a list."""

    clip_id: str
    labels: tuple[str, ...]
    line: int  #: from 1; in a JSON file the number of the entry.


def locate(path: Path, line: int) -> str:
    """Where an entry stands, for messages."""
    return f"{path}: entry {line}" if path.suffix == ".json" else f"{path}:{line}"


def read_entries(path: Path, names: Sequence[str], *, multi_label: bool = False) -> list[Entry]:
    """Read a list of clips.

    Args:
        path: Lines ``ID NUMBER``, as VideoLT, MOVE, Gen2Balance and TC-CLIP write them, with several numbers joined by
            commas; an id may hold spaces. Or a ``.json`` file as Something-Something V2 writes it: objects with ``id``
            and ``template``.
        names: The classes' names, in the order of their numbers.
        multi_label: Whether a clip may have several.

    Raises:
        LongreelError: When a line cannot be used, or a clip stands there twice.
    """
    found = _read_objects(path, names) if path.suffix == ".json" else _read_lines(path, names)
    entries, first = [], {}
    for entry in found:
        if len(entry.labels) > 1 and not multi_label:
            raise _refused(path, entry.line, f"has {len(entry.labels)} classes, but this list has one class a clip")
        if len(set(entry.labels)) < len(entry.labels):
            raise _refused(path, entry.line, "names a class twice")
        if not entry.clip_id.isprintable() or entry.clip_id != entry.clip_id.strip() or entry.clip_id[-1:] in ("", ","):
            raise _refused(path, entry.line, f"{entry.clip_id!r} is no clip id")
        if first.setdefault(entry.clip_id, entry.line) != entry.line:
            there = locate(path, first[entry.clip_id])
            raise _refused(path, entry.line, f"clip {entry.clip_id!r} is already there: {there}")
        entries.append(entry)
    if not entries:
        raise LongreelError(f"{path}: has no clips. Fetch it again from its authors.")
    return entries


def read_names(path: Path) -> tuple[str, ...]:
    """The names of the classes, in the order of their numbers.

    Args:
        path: VideoLT's ``.lst`` with ``NAME NUMBER COUNT`` a line; a ``.csv`` with ``id,name``; or a ``.json`` object
            of number -> name, or of name -> number.

    Raises:
        LongreelError: When it is none of these, or the numbers are not 0, 1, 2, ...
    """
    if path.suffix not in NAMES:
        raise LongreelError(f"{path}: is no file of class names. They are read from {', '.join(NAMES)} files.")
    numbered = list(NAMES[path.suffix](path))
    names = tuple(name for name, _, _ in numbered)
    for place, (name, number, line) in enumerate(numbered):
        if number != str(place):
            raise _refused(path, line, f"class {name!r} has the number {number!r}, where {place} was due")
        if not name or not name.isprintable() or name != name.strip() or ";" in name:
            raise _refused(path, line, f"{name!r} is no class name: it is empty, or has ';' or a character of no print")
        if names.index(name) != place:
            raise _refused(path, line, f"class {name!r} is there twice")
    if not names:
        raise LongreelError(f"{path}: names no class. Fetch it again from its authors.")
    return names


def read_counts(path: Path) -> list[int]:
    """Training clips of each class as their authors counted them, in the order of their numbers.

    Args:
        path: VideoLT's ``.lst`` with ``NAME NUMBER COUNT`` a line, or Gen2Balance's ``.json`` list.

    Raises:
        LongreelError: When it is neither.
    """
    if path.suffix == ".json":
        counts = _read_json(path, list)
        if wrong := [count for count in counts if type(count) is not int]:
            raise LongreelError(f"{path}: {wrong[0]!r} is no count. Expected a list of whole numbers.")
        return counts
    counts = []
    for line, cells in _split(path, 3, "NAME NUMBER COUNT"):
        if not cells[2].removesuffix(".0").isdecimal():
            raise _refused(path, line, f"{cells[2]!r} is no count")
        counts.append(int(cells[2].removesuffix(".0")))
    return counts


def check_splits(files: Mapping[str, Path], entries: Mapping[str, Sequence[Entry]], recording: str) -> list[str]:
    """Check the lists of a benchmark against one another.

    Args:
        files: Split -> list; ``train`` among them.
        entries: Split -> what it holds.
        recording: Pattern whose group in a clip's id names the recording it is from; an id without it is its own.

    Returns:
        A line for each two splits that share recordings.

    Raises:
        LongreelError: When a clip is in two splits, or a class has no training clip.
    """
    for split, other in combinations(entries, 2):
        lines = {entry.clip_id: entry.line for entry in entries[split]}
        for entry in entries[other]:
            if entry.clip_id in lines:
                there = locate(files[split], lines[entry.clip_id])
                problem = f"clip {entry.clip_id!r} of {other} is also in {split}: {there}"
                raise _refused(files[other], entry.line, problem)
    trained = {label for entry in entries["train"] for label in entry.labels}
    for split, listed in entries.items():
        for entry in listed:
            if missing := [label for label in entry.labels if label not in trained]:
                raise _refused(files[split], entry.line, f"class {missing[0]!r} has no training clip")
    return _find_shared(entries, re.compile(recording))


def _find_shared(entries: Mapping[str, Sequence[Entry]], pattern: re.Pattern[str]) -> list[str]:
    def name(clip_id: str) -> str:
        match = pattern.fullmatch(clip_id)
        return match[1] if match else clip_id

    found = {split: {name(entry.clip_id) for entry in listed} for split, listed in entries.items()}
    return [
        f"{len(shared)} recordings are in {split} and in {other}, such as {min(shared)!r}: a leak"
        for split, other in combinations(found, 2)
        if (shared := found[split] & found[other])
    ]


def _read_lines(path: Path, names: Sequence[str]) -> Iterator[Entry]:
    by_number = {str(number): name for number, name in enumerate(names)}
    for line, (clip_id, numbers) in _split(path, 2, "ID NUMBER"):
        try:
            yield Entry(clip_id, tuple([by_number[number] for number in numbers.split(",")]), line)
        except KeyError as error:
            number = error.args[0]
            raise _refused(path, line, f"{number!r} is no class number from 0 to {len(names) - 1}") from None


def _read_objects(path: Path, names: Sequence[str]) -> Iterator[Entry]:
    known = set(names)
    for number, entry in enumerate(_read_json(path, list), 1):
        clip_id, template = (entry.get("id"), entry.get("template")) if isinstance(entry, dict) else (None, None)
        if not isinstance(clip_id, str) or not isinstance(template, str):
            raise _refused(path, number, "is no object with the texts id and template")
        label = template.replace("[", "").replace("]", "")
        if label not in known:
            raise LongreelError(f"{locate(path, number)}: {unknown('class', label, known)}")
        yield Entry(clip_id, (label,), number)


def _names_of_list(path: Path) -> Iterator[tuple[str, str, int]]:
    for line, (name, number, _) in _split(path, 3, "NAME NUMBER COUNT"):
        yield name, number, line


def _names_of_table(path: Path) -> Iterator[tuple[str, str, int]]:
    rows = csv.reader(io.StringIO(_read_text(path)))
    for line, cells in enumerate(rows, 1):
        if len(cells) != 2 or (line == 1 and cells != ["id", "name"]):
            raise _refused(path, line, "expected id,name in the first line, and two cells in every other")
        if line > 1:
            yield cells[1], cells[0], line


def _names_of_object(path: Path) -> Iterator[tuple[str, str, int]]:
    found = _read_json(path, dict)
    if not all(number.isdecimal() for number in found):
        found = {str(number): name for name, number in found.items()}
    for entry, number in enumerate(sorted(found, key=lambda text: (len(text), text)), 1):
        yield str(found[number]), number, entry


NAMES: dict[str, Callable[[Path], Iterator[tuple[str, str, int]]]] = {
    ".lst": _names_of_list,
    ".csv": _names_of_table,
    ".json": _names_of_object,
}


def _split(path: Path, cells: int, expected: str) -> Iterator[tuple[int, list[str]]]:
    """The lines' cells, of which only the first may hold spaces."""
    for line, text in enumerate(_read_text(path).split("\n"), 1):
        if text.strip():
            found = text.strip().rsplit(maxsplit=cells - 1)
            if len(found) != cells:
                raise _refused(path, line, f"{text.strip()[:60]!r} is not of the form {expected}")
            yield line, found


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise LongreelError(f"{path}: cannot be read ({error.strerror}). Give the folder that holds it.") from None
    except UnicodeDecodeError as error:
        raise LongreelError(f"{path}: is not UTF-8 (byte {error.start}). Fetch it again from its authors.") from None


def _read_json(path: Path, kind: type[Document]) -> Document:
    try:
        document = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise LongreelError(f"{path}: is not JSON ({error}). Fetch it again from its authors.") from None
    if not isinstance(document, kind):
        raise LongreelError(f"{path}: is no JSON {'list' if kind is list else 'object'}. Give the file of its authors.")
    return document


def _refused(path: Path, line: int, problem: str) -> LongreelError:
    return LongreelError(f"{locate(path, line)}: {problem}. Fetch the list again from its authors, or mend the line.")
