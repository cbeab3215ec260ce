"""Skeletons in PYSKL's form: one pickle with the splits and a list of clips, as it publishes NTU RGB+D and others.

The file is a dict of ``split`` (name -> ids) and ``annotations``, each a dict of ``frame_dir``, ``label``,
``total_frames``, ``keypoint`` ``(M, T, V, C)`` and, of poses found in pictures, ``keypoint_score`` ``(M, T, V)``. It is
read whole, so it must fit into memory, by a machine that runs nothing (``plain_pickle``). Of Kinetics the joints are in
files beside it (``kpfiles``).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ForeignRefused, LongreelError
from ..manifest import Clip, Manifest
from .arrays import Unreadable
from .joints import Skeletons, choose_layout, refuse_twice
from .kpfiles import is_folded, unfold
from .plain_pickle import Array, load_plain
from .planning import id_problem

MOST_CLASSES = 100_000
BODIES = 2  #: of a clip that are kept, as PYSKL's own training does.
NTU = re.compile(r"S(?P<setup>\d{3})C(?P<view>\d{3})P(?P<subject>\d{3})R(?P<trial>\d{3})A\d{3}")
#: of a list of ids: ``xsub_train``, ``train``, or of splits that have numbers ``train1``.
LIST = re.compile(r"(?:(?P<split>.+)_)?(?P<half>train|val|test)(?P<number>\d*)")
#: half of a list's name -> our split. The lists called val are the benchmarks' test lists.
HALVES = {"train": "train", "val": "test", "test": "test"}


@contextmanager
def open_pyskl(path: Path, layout: str | None = None) -> Iterator[Skeletons]:
    """Read the pickle at ``path``.

    Raises:
        ForeignRefused: When it holds more than plain data and arrays, is damaged, or is of another form.
        LongreelError: When it cannot be read, or there is no such layout.
    """
    try:
        with open(path, "rb") as file:
            document = load_plain(file, path)
    except OSError as error:
        raise LongreelError(f"{path}: cannot be read ({error.strerror or error}).") from None
    entries = _read_entries(document, path)
    folded = [name for name, entry in entries.items() if is_folded(entry)]
    shapes = [shape for entry in entries.values() if (shape := _shape(entry)) is not None]
    shapes += _first_shape(entries, folded, path.parent)
    if not shapes:
        raise ForeignRefused(f"{path}: none of its {len(entries)} clips has a 'keypoint' of (M, T, V, C).")
    splits, classes = _read_splits(document, entries, path), _read_classes(entries, path)
    in_turn = sorted(entries, key=lambda name: str(entries[name].get("raw_file", "")))  # file by file
    clips = tuple(_to_clip(name, classes[entries[name]["label"]], path) for name in in_turn)
    yield Skeletons(
        Manifest(path, path.parent, clips),
        load=lambda clip: _load(clip.clip_id, entries[clip.clip_id], path.parent),
        layout=choose_layout(layout, shapes[0][2]),
        classes=classes,
        bodies=min(BODIES, max(shape[0] for shape in shapes)),
        splits=splits,
        usual=next(iter(splits)) if len(splits) == 1 else "",
        reader="pyskl",
        notes=_tell(shapes),
    )


def _read_entries(document: object, path: Path) -> dict[str, dict]:
    """Id -> what the file says of the clip."""
    listed = document.get("annotations") if isinstance(document, dict) else None
    if not isinstance(listed, list) or not listed:
        raise ForeignRefused(f"{path}: is not PYSKL's form: a dict with 'split' and a list 'annotations'.")
    entries: dict[str, dict] = {}
    for place, entry in enumerate(listed):
        if not isinstance(entry, dict) or not isinstance(entry.get("frame_dir"), str) or not entry["frame_dir"]:
            raise ForeignRefused(f"{path}: annotation {place} is no dict with a text 'frame_dir'.")
        if problem := id_problem(entry["frame_dir"]):
            raise ForeignRefused(f"{path}: annotation {place}: {problem}.")
        if entries.setdefault(entry["frame_dir"], entry) is not entry:
            raise ForeignRefused(f"{path}: annotation {place}: {entry['frame_dir']!r} stands there twice.")
    return entries


def _read_classes(entries: Mapping[str, dict], path: Path) -> tuple[str, ...]:
    """The numbers of the classes, in as many digits as sort them."""
    for name, entry in entries.items():
        if type(entry.get("label")) is not int or not 0 <= entry["label"] < MOST_CLASSES:
            raise ForeignRefused(f"{path}: {name!r} has no whole number from 0 as 'label'.")
    most = max(entry["label"] for entry in entries.values())
    return tuple(f"{number:0{len(str(most))}}" for number in range(most + 1))


def _read_splits(document: object, entries: Mapping[str, dict], path: Path) -> dict[str, dict[str, tuple[str, ...]]]:
    """``xsub_train`` and ``xsub_val`` are the split xsub, ``train1`` and ``test1`` are 1, ``train`` and ``val`` alone
    are called official."""
    given = document.get("split") if isinstance(document, dict) else None
    lists = given if isinstance(given, dict) else {}
    splits: dict[str, dict[str, tuple[str, ...]]] = {}
    for name, ids in lists.items():
        found = LIST.fullmatch(str(name))
        if found and isinstance(ids, list | tuple):
            if strange := [each for each in ids if not isinstance(each, str) or each not in entries]:
                raise ForeignRefused(f"{path}: split {name!r} names {strange[0]!r:.80}, which is no clip of the file.")
            split = "_".join(filter(None, (found["split"], found["number"]))) or "official"
            splits.setdefault(split, {})[HALVES[found["half"]]] = tuple(ids)
    whole = {name: halves for name, halves in splits.items() if halves.get("train")}
    for name, halves in whole.items():
        refuse_twice(name, halves, path)
    if not whole:
        there = ", ".join(repr(str(name)) for name in lists) or "none"
        raise ForeignRefused(f"{path}: 'split' has no lists such as xsub_train and xsub_val. There are: {there:.200}.")
    return whole


def _to_clip(name: str, label: str, path: Path) -> Clip:
    found = NTU.fullmatch(name)
    extra: dict[str, object] = {key: str(int(value)) for key, value in found.groupdict().items()} if found else {}
    return Clip(name, path.name, (label,), "train", extra=extra)


def _shape(entry: dict) -> tuple[int, ...] | None:
    joints = entry.get("keypoint")
    return joints.values.shape if isinstance(joints, Array) and joints.values.ndim == 4 else None


def _first_shape(entries: Mapping[str, dict], folded: Sequence[str], folder: Path) -> list[tuple[int, ...]]:
    """``(M, T, V, C)`` of the first clip whose joints are in another file that can be read."""
    for name in folded:
        with suppress(Unreadable):
            frames, bodies, *rest = unfold(name, entries[name], folder, BODIES).shape
            return [(bodies, frames, *rest)]
    return []


def _load(name: str, entry: dict, folder: Path) -> NDArray[Any]:
    """``(T, M, V, C)``, with the score as the last number where there is one."""
    if is_folded(entry):
        return unfold(name, entry, folder, BODIES)
    joints, scores = entry.get("keypoint"), entry.get("keypoint_score")
    if not isinstance(joints, Array) or joints.values.ndim != 4:
        raise Unreadable("has no 'keypoint' of (M, T, V, C)")
    values = joints.values
    if isinstance(scores, Array):
        if scores.values.shape != values.shape[:3]:
            raise Unreadable(f"has scores of {scores.values.shape} for joints of {values.shape}")
        values = np.concatenate([values, scores.values[..., None]], axis=-1)
    if (frames := entry.get("total_frames")) != values.shape[1]:
        raise Unreadable(f"has {values.shape[1]} frames, 'total_frames' says {frames!r:.20}")
    return values.transpose(1, 0, 2, 3)


def _tell(shapes: list[tuple[int, ...]]) -> list[str]:
    more = sum(shape[0] > BODIES for shape in shapes)
    return [f"{more} clips have more than {BODIES} bodies: the first {BODIES} are taken"] if more else []
