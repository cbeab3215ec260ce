"""Manifests made from published lists, or from other manifests: put together, counted, checked, written."""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from string import Formatter

from ..balance.counts import count_training_clips, make_groups
from ..durable import make_folder, write_bytes
from ..errors import LongreelError
from ..manifest import Clip, Manifest
from .lists import Entry, check_splits, read_counts, read_entries, read_names
from .longtails import thin
from .protocols import Protocol, Published, choose_protocol

FIELDS = ("id", "stem", "label", "split")  #: what a template of paths may hold.
NOTHING: dict[str, object] = {}  #: one for all clips: there are hundreds of thousands.


@dataclass(frozen=True)
class Made:
    """A manifest's figures. They are kept beside it, as ``NAME.made.json`` beside ``NAME.csv``."""

    recipe: dict[str, object]  #: the protocol or the long tail that it is, and everything that decided it.
    digest: str  #: the manifest's.
    classes: int
    clips: dict[str, int]  #: split -> clips.
    labels: dict[str, int]  #: split -> labels of all its clips.
    multi_label: float  #: share of the clips with several labels.
    largest: int  #: real training clips of the richest class.
    smallest: int
    groups_rule: str
    groups: dict[str, int]  #: group -> classes.
    departures: list[str] = field(default_factory=list)  #: where the counts are not the published or the wanted ones.
    notes: list[str] = field(default_factory=list)
    watermark: str | None = None  #: stands on every table of it.


def make_protocol(
    name: str,
    folder: Path,
    out: Path,
    *,
    options: Mapping[str, float | None] | None = None,
    path: str | None = None,
    seed: int | None = None,
) -> Made:
    """Write a protocol's manifest from the lists of its authors. The id of a clip is that of the list.

    Args:
        name: A key of ``PROTOCOLS``.
        folder: The lists, as their authors publish them.
        out: The manifest, a ``.csv`` file.
        options: The protocol's option and its value.
        path: Where a clip's video lies, relative to the root: a text with ``{id}``, ``{stem}`` (the id without folders
            and extension), ``{label}`` (the first) and ``{split}``. The protocol's own if ``None``.
        seed: Of the draw, where the protocol draws clips; 0 if ``None``.

    Raises:
        LongreelError: When a list cannot be used, a clip is in two of them, or ``out`` is there with other content.
    """
    protocol, value = choose_protocol(name, options or {})
    if seed is not None and (protocol.shape is None or protocol.keep != "drawn"):
        raise LongreelError(f"protocol {name} draws nothing. Leave --seed out.")
    option = {} if protocol.option is None else {protocol.option: value}
    files = _find_lists(name, protocol, folder, option)
    names = _read_classes(protocol, folder)
    entries = {split: read_entries(file, names, multi_label=protocol.multi_label) for split, file in files.items()}
    departures = check_splits(files, entries, protocol.recording)
    departures += _check_counts(protocol, folder, names, entries["train"])
    clips = _to_clips(entries, path or protocol.path)
    recipe: dict[str, object] = {"protocol": name, **option}
    if protocol.shape is not None:
        thinned = thin(clips, names, protocol.shape.format(**option), seed=seed or 0, keep=protocol.keep)
        clips, departures = thinned.clips, departures + _say_short(thinned.short)
        recipe |= {"seed": seed or 0} if protocol.keep == "drawn" else {}
    recipe["lists"] = {file.relative_to(folder).as_posix(): _hash(file) for file in files.values()}
    mapping = folder / protocol.groups if protocol.groups.endswith(".json") else None
    figures = _count(Manifest(out, out.parent, tuple(clips)), recipe, str(mapping or protocol.groups))
    departures += _compare(protocol.published[value], figures)
    figures = replace(figures, departures=departures, notes=list(protocol.notes), watermark=protocol.watermark)
    write_manifest(out, clips, figures, mapping)
    return figures


def make_tail(
    manifest: Manifest, out: Path, shape: str, *, seed: int = 0, keep: str = "drawn", groups: str = "gen2balance"
) -> Made:
    """Write a manifest with a long-tailed training split out of another; its other splits stay as they are.

    Args:
        manifest: One class a clip.
        out: The manifest to write, a ``.csv`` file.
        shape: A key of ``SHAPES``, with options.
        seed, keep: Which clips stay; see ``thin``.
        groups: The rule of the groups that are counted.

    Raises:
        LongreelError: When the shape does not fit, or ``out`` is there with other content.
    """
    thinned = thin(manifest.clips, manifest.classes, shape, seed=seed, keep=keep)
    recipe: dict[str, object] = {"tail_of": manifest.digest, "shape": shape, "keep": keep}
    recipe |= {"seed": seed} if keep == "drawn" else {}
    table = Manifest(out, manifest.root, tuple(thinned.clips))
    figures = replace(_count(table, recipe, groups), departures=_say_short(thinned.short))
    write_manifest(out, thinned.clips, figures)
    return figures


def write_manifest(out: Path, clips: Sequence[Clip], figures: Made, mapping: Path | None = None) -> None:
    """Write a manifest and its figures; what is there already stays if it is the same, and is never overwritten.

    Args:
        out: The ``.csv`` file to write; what belongs to it stands beside it.
        clips, figures: The rows, and what was counted.
        mapping: The JSON file of the classes' groups, to be kept as ``NAME.groups.json``.

    Raises:
        LongreelError: When other content is there, or a label cannot be written.
    """
    check_place(out, clips)
    record = json.dumps(asdict(figures), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    contents = {out: _to_csv(clips).encode(), out.with_suffix(".made.json"): record.encode()}
    if mapping is not None:
        contents[out.with_suffix(".groups.json")] = mapping.read_bytes()
    for path, content in contents.items():
        _refuse_other(path, content)
    make_folder(out.parent)
    for path, content in contents.items():
        if not path.exists():
            write_bytes(path, content)


def check_place(out: Path, clips: Sequence[Clip]) -> None:
    """Refuse, before long work, a place where a manifest of these clips could not be written.

    Raises:
        LongreelError: When it is no ``.csv`` file, or other content is there.
    """
    if out.suffix.lower() != ".csv":
        raise LongreelError(f"{out}: the manifest is written as CSV. Give a name that ends in .csv.")
    _refuse_other(out, _to_csv(clips).encode())


def _refuse_other(path: Path, content: bytes) -> None:
    if path.exists() and (path.is_dir() or path.read_bytes() != content):
        raise LongreelError(f"{path}: is there already, and is not the same. Give another file, or remove it.")


def _find_lists(name: str, protocol: Protocol, folder: Path, option: Mapping[str, object]) -> dict[str, Path]:
    """Split -> file; all files that the protocol reads must be there."""
    lists = {split: folder / file.format(**option) for split, file in protocol.lists.items()}
    others = [file for file in (protocol.names, protocol.counts) if file]
    others += [protocol.groups] if protocol.groups.endswith(".json") else []
    needed = dict.fromkeys([*lists.values(), *(folder / file for file in others)])
    if missing := [path.relative_to(folder).as_posix() for path in needed if not path.is_file()]:
        raise LongreelError(
            f"{folder}: has no {', no '.join(missing)}. Give the folder of the lists of {name} ({protocol.source})."
        )
    return lists


def _read_classes(protocol: Protocol, folder: Path) -> tuple[str, ...]:
    """Names in the order of the lists' numbers; without names, the numbers in as many digits as sort them."""
    if protocol.names is not None:
        return read_names(folder / protocol.names)
    classes = next(iter(protocol.published.values())).classes
    return tuple(f"{number:0{len(str(classes - 1))}}" for number in range(classes))


def _check_counts(protocol: Protocol, folder: Path, names: Sequence[str], train: list[Entry]) -> list[str]:
    """A line where the training list has not the clips that its authors counted."""
    if protocol.counts is None:
        return []
    stated = read_counts(folder / protocol.counts)
    if len(stated) != len(names):
        return [f"{protocol.counts} counts {len(stated)} classes, there are {len(names)}"]
    found = Counter(label for entry in train for label in entry.labels)
    wrong = [(name, found[name], count) for name, count in zip(names, stated, strict=True) if found[name] != count]
    if not wrong:
        return []
    name, here, there = wrong[0]
    return [f"{len(wrong)} classes have other counts than {protocol.counts}: {name!r} has {here} clips, not {there}"]


def _to_clips(entries: Mapping[str, list[Entry]], template: str) -> list[Clip]:
    try:
        for _, name, form, conversion in Formatter().parse(template):
            if name is not None and (name not in FIELDS or form or conversion):
                how = (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
                raise ValueError(f"it holds {{{name}{how}}}")
        clips = [
            Clip(entry.clip_id, _fill(template, entry, split), entry.labels, split, extra=NOTHING)
            for split, listed in entries.items()
            for entry in listed
        ]
    except ValueError as error:
        known = ", ".join(f"{{{name}}}" for name in FIELDS)
        raise LongreelError(f"--path {template!r} cannot be used: {error}. Its fields are {known}.") from None
    seen: dict[str, str] = {}
    for clip in clips:
        if clip.path.startswith("/") or ".." in clip.path.split("/"):
            raise LongreelError(f"--path {template!r} leads out of the root: {clip.path!r}. Give a path inside it.")
        if (other := seen.setdefault(clip.path, clip.clip_id)) != clip.clip_id:
            raise LongreelError(
                f"--path {template!r} gives {clip.path!r} for both {other!r} and {clip.clip_id!r}. Put {{id}} into it."
            )
    return clips


def _fill(template: str, entry: Entry, split: str) -> str:
    name = entry.clip_id.rpartition("/")[2]
    stem = name.rpartition(".")[0] or name
    return template.format(id=entry.clip_id, stem=stem, label=entry.labels[0], split=split)


def _say_short(short: Mapping[str, int]) -> list[str]:
    if not short:
        return []
    name = max(short, key=lambda name: short[name])
    return [f"{len(short)} classes have fewer training clips than the shape asks for, such as {name!r} ({short[name]})"]


def _count(table: Manifest, recipe: dict[str, object], rule: str) -> Made:
    counts = count_training_clips(table)
    groups = make_groups(rule, table.classes, counts)
    several = sum(len(clip.labels) > 1 for clip in table.clips)
    splits = dict.fromkeys(clip.split for clip in table.clips)
    return Made(
        recipe,
        table.digest,
        len(table.classes),
        {split: len(table.split(split)) for split in splits},
        {split: sum(len(clip.labels) for clip in table.split(split)) for split in splits},
        round(several / len(table.clips), 4),
        max(counts),
        min(counts),
        groups.rule,
        {group: len(members) for group, members in groups.members.items()},
    )


def _compare(published: Published, figures: Made) -> list[str]:
    """A line for each count that is not the published one."""
    pairs = [("classes", figures.classes, published.classes)]
    pairs += [(f"{split} clips", figures.clips.get(split, 0), n) for split, n in published.clips.items()]
    pairs += [(f"{split} labels", figures.labels.get(split, 0), n) for split, n in published.labels.items()]
    pairs += [(f"{group} classes", figures.groups.get(group, 0), n) for group, n in published.groups.items()]
    return [f"{here} {what}, published are {there}" for what, here, there in pairs if here != there]


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _to_csv(clips: Sequence[Clip]) -> str:
    """The clips as CSV, with the columns that they need."""
    extra = list(dict.fromkeys(name for clip in clips for name in clip.extra))
    given = [name for name in ("start", "end") if any(getattr(clip, name) is not None for clip in clips)]
    given += ["source"] if any(clip.source != "real" for clip in clips) else []
    text = io.StringIO()
    # Others' columns may hold anything, a bare carriage return too, which is only quoted if all is.
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if extra else csv.QUOTE_MINIMAL)
    writer.writerow(["clip_id", "path", "label", "split", *given, *extra])
    for clip in clips:
        if any(";" in label for label in clip.labels):
            raise LongreelError(
                f"clip {clip.clip_id!r}: its label {clip.labels[0]!r} has a ';', which CSV splits it at."
            )
        row = [clip.clip_id, clip.path, ";".join(clip.labels), clip.split]
        row += ["" if (value := getattr(clip, name)) is None else value for name in given]
        writer.writerow(row + [_to_cell(clip.extra.get(name)) for name in extra])
    return text.getvalue()


def _to_cell(value: object) -> object:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def read_watermark(manifest: Manifest) -> str | None:
    """What must stand on every table of a manifest that longreel made, if anything must."""
    for ending in (".made.json", ".rules.json"):
        beside = manifest.path.with_suffix(ending)
        try:
            made = json.loads(beside.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise LongreelError(f"{beside}: cannot be read ({error}). Make the manifest again, or remove it.") from None
        if isinstance(made, dict) and made.get("digest") == manifest.digest:
            return made.get("watermark")
    return None
