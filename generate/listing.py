"""A manifest as a CSV or JSONL file, every id written out, and known to be read back as it is."""

import csv
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

from ..durable import naming_faults, write_bytes, write_json
from ..errors import LongreelError, ManifestError
from ..manifest import Clip, Manifest, read_manifest


def to_csv(clips: Sequence[Clip]) -> str:
    """The clips as CSV; cells of unknown columns that are no text as JSON, as elsewhere in longreel.

    Raises:
        LongreelError: When a label has a ``;``, at which CSV would split it.
    """
    extra = list(dict.fromkeys(name for clip in clips for name in clip.extra))
    spans = [name for name in ("start", "end") if any(getattr(clip, name) is not None for clip in clips)]
    text = io.StringIO()
    # Others' columns may hold anything, a bare carriage return too, which is only quoted if all is.
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if extra else csv.QUOTE_MINIMAL)
    writer.writerow(["clip_id", "path", "label", "split", "source", *spans, *extra])
    for clip in clips:
        if any(";" in label for label in clip.labels):
            raise LongreelError(
                f"clip {clip.clip_id[:80]!r}: its label {clip.labels[0][:80]!r} has a ';', which CSV splits it at. "
                f"Write a .jsonl file."
            )
        row = [clip.clip_id, clip.path, ";".join(clip.labels), clip.split, clip.source]
        row += [_to_cell(getattr(clip, name)) for name in spans]
        writer.writerow(row + [_to_cell(clip.extra.get(name)) for name in extra])
    return text.getvalue()


def to_jsonl(clips: Sequence[Clip]) -> str:
    """The clips as one JSON object a line."""
    lines = []
    for clip in clips:
        spans = {name: value for name in ("start", "end") if (value := getattr(clip, name)) is not None}
        row = {"clip_id": clip.clip_id, "path": clip.path, "label": list(clip.labels), "split": clip.split}
        lines.append(json.dumps({**row, "source": clip.source, **spans, **clip.extra}) + "\n")
    return "".join(lines)


#: ending of a file's name -> how it is written.
FORMS: dict[str, Callable[[Sequence[Clip]], str]] = {".csv": to_csv, ".jsonl": to_jsonl}


def publish_manifest(out: Path, root: Path, rows: Sequence[Clip], made: dict) -> None:
    """Write a manifest and what it is made of, once it is known to be read back as it is.

    Args:
        out: The file, whose ending is one of ``FORMS``. ``NAME.rules.json`` is written beside it.
        root: Its real folder.
        rows: Its clips.
        made: What decided them; the manifest's digest and the file's are added.

    Raises:
        LongreelError: When it would not be read back, or ``out`` is there and was not written so.
    """
    text = FORMS[out.suffix.lower()](rows)
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        raise LongreelError(
            f"{out}: {text[error.start]!r} cannot be written as UTF-8. Remove it from the manifest, or write .jsonl."
        ) from None
    back = _read_back(content, out, root)
    if FORMS[out.suffix.lower()](back.clips) != text:
        raise LongreelError(
            f"{out}: would not be read back as it is. Remove blanks around names of columns and folders."
        )
    record = made | {"digest": back.digest, "sha256": sha256(content).hexdigest()}
    beside = out.with_suffix(".rules.json")
    if out.exists() and not _is_ours(out, beside, content):
        raise LongreelError(
            f"{out}: is there already, and not as `generate fill` wrote it. Give another --out, or remove it."
        )
    if out.exists() and (replaced := sha256(out.read_bytes()).hexdigest()) != record["sha256"]:
        write_json(beside, record | {"replaces": replaced})  # a crash leaves either file known as ours
    write_bytes(out, content)
    write_json(beside, record)


def _read_back(content: bytes, out: Path, root: Path) -> Manifest:
    with naming_faults(Path(tempfile.gettempdir()), len(content)), tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / f"filled{out.suffix}"
        trial.write_bytes(content)
        try:
            return read_manifest(trial, root)
        except ManifestError as error:
            first = str(error).split("\n")[0].replace(f"{trial}:", "line ")
            form = out.suffix[1:].upper()
            raise LongreelError(f"{out}: written as {form} it could not be read back: {first}") from None


def _is_ours(out: Path, beside: Path, content: bytes) -> bool:
    """Whether the file has this content already, or is still what an earlier filling wrote."""
    if not out.is_file():
        return False
    found = out.read_bytes()
    try:
        record = json.loads(beside.read_bytes())
        return found == content or sha256(found).hexdigest() in (record["sha256"], record.get("replaces"))
    except (OSError, ValueError, RecursionError, TypeError, KeyError):
        return False


def _to_cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
