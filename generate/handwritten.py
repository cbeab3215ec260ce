"""Prompts that somebody wrote into a file."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ManifestError
from .templates import in_words, tidy, write_template

if TYPE_CHECKING:
    from .llm import Talk

PLACE = "{class}"  #: of the class's words in a line of a .txt file.
SUFFIXES = (".txt", ".csv", ".jsonl")


@dataclass(frozen=True)
class Templates:
    """The source ``templates``: built-in sentences, which need no language model."""

    seed: int = 0

    distinct = False
    needs_model = False

    def propose(self, label: str, missing: Sequence[int], talk: "Talk | None") -> Iterator[tuple[str, dict]]:
        """A prompt for each missing index, in their order."""
        for index in missing:
            yield write_template(label, index, self.seed), {"kind": "template", "source": "templates"}


@dataclass(frozen=True)
class Handwritten:
    """The source that is a file: templates for every class, or prompts of each."""

    name: str
    everywhere: tuple[tuple[int, str], ...] = ()  #: line and text with ``{class}``.
    by_class: dict[str, list[tuple[int, str]]] | None = None

    distinct = True
    needs_model = False

    def propose(self, label: str, missing: Sequence[int], talk: "Talk | None") -> Iterator[tuple[str, dict]]:
        """The file's prompts for the class, in its order."""
        lines = self.everywhere if self.by_class is None else self.by_class.get(label, [])
        for line, text in lines:
            written = text.replace(PLACE, in_words(label)) if self.by_class is None else text
            yield tidy(written), {"kind": "file", "source": self.name, "line": line}


def read_handwritten(path: Path) -> Handwritten:
    """Prompts from a file: ``.txt`` with a template a line, ``.csv`` or ``.jsonl`` with ``label`` and ``prompt``.

    Raises:
        ManifestError: Naming file, line and column.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ManifestError(f"{path}: hand-written prompts are a {', '.join(SUFFIXES)} file.")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror}). Give a file of prompts.") from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8.") from None
    if suffix == ".txt":
        return Handwritten(path.name, everywhere=tuple(_read_lines(path, text)))
    by_class: dict[str, list[tuple[int, str]]] = {}
    for line, row in _read_csv(path, text) if suffix == ".csv" else _read_jsonl(path, text):
        label, prompt = row.get("label"), row.get("prompt")
        for column, value in (("label", label), ("prompt", prompt)):
            if not isinstance(value, str) or not tidy(value):
                raise ManifestError(f"{path}:{line}: column {column!r}: {value!r} is no text. Write one.")
        by_class.setdefault(str(label).strip(), []).append((line, str(prompt)))
    return Handwritten(path.name, by_class=by_class)


def _read_lines(path: Path, text: str) -> Iterator[tuple[int, str]]:
    for line, words in enumerate(text.split("\n"), 1):
        if not tidy(words) or words.startswith("#"):
            continue
        if PLACE not in words:
            raise ManifestError(f"{path}:{line}: lacks {PLACE}, where the class's name is to stand. Write it there.")
        yield line, words


def _read_csv(path: Path, text: str) -> Iterator[tuple[int, dict]]:
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if not {"label", "prompt"} <= set(reader.fieldnames or ()):
            raise ManifestError(f"{path}:1: expected a header line with label and prompt.")
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise ManifestError(f"{path}: is not CSV ({error}). Quote cells that hold quotes or line ends.") from None


def _read_jsonl(path: Path, text: str) -> Iterator[tuple[int, dict]]:
    for line, words in enumerate(text.split("\n"), 1):
        if not words.strip():
            continue
        try:
            row = json.loads(words)
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"{path}:{line}: is not JSON ({error}). Write one object a line.") from None
        if not isinstance(row, dict):
            raise ManifestError(f"{path}:{line}: is not an object. Write one a line, with label and prompt.")
        yield line, row
