"""The manifest: the table of clips with their labels and splits, read from CSV or JSONL and checked as a whole.

Labels and splits live here and never in a store, so that relabelling or a new split needs no new extraction.
"""

import csv
import difflib
import hashlib
import io
import json
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

from .errors import ManifestError

SPLITS = ("train", "val", "test")
SOURCES = ("real", "generated")
REQUIRED = ("path", "label", "split")
OPTIONAL = ("clip_id", "start", "end", "source")
TOLD = ("uncertainty",)  #: of the columns we do not know, what training is told.
PROBLEMS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Clip:
    """One video, or the span ``[start, end)`` of one."""

    clip_id: str
    path: str  #: relative to the manifest's root, with forward slashes.
    labels: tuple[str, ...]
    split: str
    source: str = "real"
    start: float | None = None  #: seconds; ``None`` is the video's first frame.
    end: float | None = None  #: seconds, exclusive; ``None`` is the video's end.
    extra: dict[str, object] = field(default_factory=dict)  #: the columns we do not know, as written.


@dataclass(frozen=True)
class Manifest:
    """A checked table of clips. ``classes`` are sorted by name; a class index is its place there."""

    path: Path
    root: Path
    clips: tuple[Clip, ...]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({label for clip in self.clips for label in clip.labels}))

    @property
    def multi_label(self) -> bool:
        return any(len(clip.labels) > 1 for clip in self.clips)

    def split(self, name: str) -> tuple[Clip, ...]:
        """The clips of one split, in the manifest's order."""
        return tuple(clip for clip in self.clips if clip.split == name)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over what a run depends on: ids, labels, splits, sources and ``TOLD``; not over the row order."""
        told = {c.clip_id: [str(c.extra[key]) for key in TOLD if key in c.extra] for c in self.clips}
        rows = sorted((c.clip_id, c.labels, c.split, c.source, *told[c.clip_id]) for c in self.clips)
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def read_manifest(path: Path, root: Path | None = None) -> Manifest:
    """Read and check a manifest.

    Args:
        path: A ``.csv`` file, or a ``.jsonl`` file with one object a line. Columns ``path``, ``label`` (several joined
            by ``;``, in JSONL also a list) and ``split``; optional ``clip_id``, ``start`` and ``end`` in seconds,
            ``source``. Any other column is kept in ``Clip.extra``.
        root: The folder that paths are relative to; the manifest's own folder if ``None``.

    Raises:
        ManifestError: With one line for each problem, naming file, line, column and remedy.
    """
    path = Path(path)
    given = os.path.abspath(root if root is not None else path.parent)
    root = Path(os.path.realpath(given))
    if not root.is_dir():
        raise ManifestError(
            f"{root}: no such folder. Give the folder that the manifest's paths are relative to with --root."
        )
    _real_folder.cache_clear()  # links may have changed since an earlier reading
    clips, lines, problems = [], [], []
    for line, row in _read_rows(path):
        try:
            clips.append(_read_clip(row, root, given))
            lines.append(line)
        except _Refused as refused:
            problems.append(f"{path}:{line}: {refused}")
    if not clips and not problems:
        raise ManifestError(
            f"{path}: has no clips. Expected a header line with {', '.join(REQUIRED)} and one line a clip."
        )
    problems += [f"{path}:{line}: {text}" for line, text in _check_together(clips, lines)]
    if problems:
        shown, more = problems[:PROBLEMS_SHOWN], len(problems) - PROBLEMS_SHOWN
        raise ManifestError("\n".join(shown) + (f"\n{path}: and {more} more of this kind." if more > 0 else ""))
    return Manifest(path, root, tuple(clips))


class _Refused(ValueError):
    """One row cannot be used; the text names column and remedy."""


def _read_rows(path: Path) -> Iterator[tuple[int, dict]]:
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl}
    if path.suffix.lower() not in readers:
        raise ManifestError(f"{path}: a manifest is a .csv or .jsonl file.")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror}). Give a .csv or .jsonl file.") from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8.") from None
    yield from readers[path.suffix.lower()](io.StringIO(text, newline=""), path)


def _read_csv(file, path: Path) -> Iterator[tuple[int, dict]]:
    reader = csv.reader(file, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(header, path)
        line = reader.line_num + 1
        for cells in reader:
            if len(cells) > len(header):
                raise ManifestError(
                    f"{path}:{line}: has {len(cells)} cells under {len(header)} names. Quote cells that hold a comma."
                )
            if any(cell.strip() for cell in cells):
                yield line, dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(
            f"{path}:{reader.line_num}: is not CSV ({error}). Quote cells that hold quotes or line ends."
        ) from None


def _check_header(header: list[str], path: Path) -> None:
    if not any(header):
        raise ManifestError(f"{path}: is empty. Expected a header line with {', '.join(REQUIRED)} and one line a clip.")
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise ManifestError(f"{path}:1: column {twice[0]!r} stands twice. Remove or rename one.")
    for name in REQUIRED:
        if name not in header:
            near = difflib.get_close_matches(name, [*header, *(h.lower() for h in header)], n=1)
            hint = f" Did you mean it by {near[0]!r}?" if near else ""
            raise ManifestError(f"{path}:1: column {name!r} is missing; there are: {', '.join(header)}.{hint}")


def _read_jsonl(file, path: Path) -> Iterator[tuple[int, dict]]:
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:  # ValueError: also an integer of thousands of digits
            raise ManifestError(f"{path}:{line}: is not JSON ({error}). Write one object a line.") from None
        if not isinstance(row, dict):
            raise ManifestError(
                f"{path}:{line}: is not an object. Write one object a line, with {', '.join(REQUIRED)}."
            )
        yield line, row


def _read_clip(row: dict, root: Path, given: str) -> Clip:
    path = _read_path(_read_text(row, "path"), root, given)
    start, end = _read_seconds(row, "start"), _read_seconds(row, "end")
    if end is not None and end <= (start or 0.0):
        raise _Refused(f"column 'end': {end:g} is not after 'start' {start or 0:g}. Both are seconds from the start.")
    split = _read_choice(row, "split", SPLITS)
    source = _read_choice(row, "source", SOURCES, default="real")
    if source == "generated" and split != "train":
        raise _Refused(
            f"column 'split': a generated clip cannot be in {split}. Put it in train: val and test are real."
        )
    return Clip(
        clip_id=_read_text(row, "clip_id", default=path + _span(start, end)),
        path=path,
        labels=_read_labels(row),
        split=split,
        source=source,
        start=start,
        end=end,
        extra={name: value for name, value in row.items() if name not in REQUIRED + OPTIONAL},
    )


def _span(start: float | None, end: float | None) -> str:
    if start is None and end is None:
        return ""
    return f"#{start or 0:.12g}-{'' if end is None else f'{end:.12g}'}"


def _read_text(row: dict, column: str, default: str | None = None) -> str:
    value = row.get(column)
    if value is None or value == "":
        if default is None:
            raise _Refused(
                f"column {column!r}: is empty. Expected {'a video file' if column == 'path' else 'a value'}."
            )
        return default
    if not isinstance(value, str):
        raise _Refused(f"column {column!r}: {value!r} is not text. Put it in quotes.")
    text = value.strip()
    if not text or not (text.isprintable() or all(unicodedata.category(letter) not in ("Cc", "Cs") for letter in text)):
        raise _Refused(f"column {column!r}: {value!r} is blank or holds control characters. Remove them.")
    return text


def _read_choice(row: dict, column: str, known: tuple[str, ...], default: str | None = None) -> str:
    text = _read_text(row, column, default)
    if text not in known:
        near = difflib.get_close_matches(text.lower(), known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise _Refused(f"column {column!r}: {text!r} is not known. Use {', '.join(known)}.{hint}")
    return text


def _read_labels(row: dict) -> tuple[str, ...]:
    value = row.get("label")
    parts = value if isinstance(value, list) else _read_text(row, "label").split(";")
    labels = tuple(_read_text({"label": part}, "label") for part in parts)
    if not labels or len(set(labels)) < len(labels):
        raise _Refused(f"column 'label': {value!r} is empty or names a class twice. Join distinct classes by ';'.")
    return labels


def _read_seconds(row: dict, column: str) -> float | None:
    value = row.get(column)
    if value is None or value == "":
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = -1.0
    if not 0.0 <= seconds < 1e9:
        raise _Refused(f"column {column!r}: {value!r} is not a time. Give seconds from the start, such as 12.5.")
    return seconds


def _read_path(text: str, root: Path, given: str) -> str:
    """The path relative to the root, refused where it leads outside of it, by ``..``, absolutely or through a link."""
    try:
        plain = os.sep == "/" and not {"", ".", ".."} & set(text.split("/"))  # already as it would be written
        joined = os.path.join(root, text) if plain else os.path.normpath(os.path.join(root, text))
        if not plain and joined.startswith(os.path.join(given, "")):  # absolute, by a link that leads to the root
            joined = os.path.join(root, os.path.relpath(joined, given))
        folder, name = os.path.split(joined)
        real = os.path.join(_real_folder(folder), name)
        if os.path.islink(real):
            real = os.path.realpath(real)
    except (OSError, ValueError) as error:
        raise _Refused(f"column 'path': {text!r} is no path ({error}).") from None
    if not real.startswith(os.path.join(root, "")):
        raise _Refused(f"column 'path': {text!r} lies outside {root}. Give a folder that holds all videos with --root.")
    return text if plain else Path(os.path.relpath(joined, root)).as_posix()


@lru_cache(maxsize=65536)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)


def _check_together(clips: list[Clip], lines: list[int]) -> Iterator[tuple[int, str]]:
    """Yield ``(line, problem)`` for what only shows when all rows are seen."""
    ids: dict[str, int] = {}
    spans: dict[tuple, int] = {}
    for clip, line in zip(clips, lines, strict=True):
        first = ids.setdefault(unicodedata.normalize("NFC", clip.clip_id), line)
        span = spans.setdefault((clip.path, clip.start, clip.end), line)
        if first != line:
            yield (
                line,
                f"column 'clip_id': {clip.clip_id!r} is already on line {first}. Remove one, or give each its own id.",
            )
        elif span != line:
            yield line, f"column 'path': {clip.path!r} with this span is already on line {span}. Remove one."
    trained = {label for clip in clips if clip.split == "train" and clip.source == "real" for label in clip.labels}
    if trained:
        seen, hints = set(trained), PROBLEMS_SHOWN
        for clip, line in zip(clips, lines, strict=True):
            for label in clip.labels:
                if label not in seen:
                    seen.add(label)
                    near = difflib.get_close_matches(label, trained, n=1, cutoff=0.8) if hints > 0 else []
                    hints -= 1  # each costs a look at every trained class
                    hint = f" Did you mean {near[0]!r}?" if near else ""
                    yield (
                        line,
                        f"column 'label': class {label!r} has no real training clip.{hint} Add some, or remove it.",
                    )
