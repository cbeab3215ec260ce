"""Skeletons in one HDF5 file, in the form in which NW-UCLA is repacked: all clips padded into one array of joints.

Datasets: ``joints`` ``(N, T, M, V, C)`` floats, ``lengths``, ``labels`` and ``split`` (0 train, 1 test) ``(N,)`` whole
numbers, ``names`` ``(N,)`` and ``class_names`` ``(C,)`` texts. There may be ``subject``, ``view`` and ``trial``;
``train_order``, the training clips by number in the order of the published list; and ``train_clean``, 1 for the
training clips that are in no other split.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import ForeignRefused, LongreelError
from ..manifest import Clip, Manifest
from ..store import DatasetUnreadable, ForeignFile
from .joints import Skeletons, choose_layout

MOST_JOINTS = 512 << 20  #: bytes of all joints.
MOST_FACTS = 64 << 20  #: bytes of any other dataset.
TOLD = ("subject", "view", "trial")
NUMBERS = ("lengths", "labels", "split")
TEXTS = ("names", "class_names")


@dataclass(frozen=True)
class _Content:
    joints: NDArray[Any]  #: ``(N, T, M, V, C)``
    numbers: dict[str, list[int]]  #: dataset -> ``(N,)``, and ``train_order``.
    names: list[str]
    classes: list[str]


@contextmanager
def open_hdf5(path: Path, layout: str | None = None) -> Iterator[Skeletons]:
    """Read the file at ``path``, by the careful reader.

    Raises:
        ForeignRefused: When it is damaged or leads out of itself.
        LongreelError: When it is of another form, or there is no such layout.
    """
    content = _read(path)
    _check(content, path)
    places = {name: place for place, name in enumerate(content.names)}
    lengths = content.numbers["lengths"]
    clips = tuple(_to_clip(content, place, path) for place in range(len(places)))
    yield Skeletons(
        Manifest(path, path.parent, clips),
        load=lambda clip: content.joints[places[clip.clip_id], : lengths[places[clip.clip_id]]],
        layout=choose_layout(layout, content.joints.shape[3]),
        classes=tuple(content.classes),
        bodies=content.joints.shape[2],
        splits=_split(content),
        usual="official",
        reader="hdf5",
    )


def _read(path: Path) -> _Content:
    with ForeignFile(path) as file:
        shapes = {dataset.name: dataset.shape for dataset in file.datasets}
        if missing := [name for name in ("joints", *NUMBERS, *TEXTS) if name not in shapes]:
            raise LongreelError(
                f"{path}: has no dataset {missing[0]!r}. It needs {', '.join(('joints', *NUMBERS, *TEXTS))}."
            )
        try:
            numbers = {
                name: file.read(name, MOST_FACTS, "integer").tolist()
                for name in (*NUMBERS, *TOLD, "train_order", "train_clean")
                if len(shapes.get(name, ())) == 1
            }
            names, classes = (file.read_texts(name, MOST_FACTS) for name in TEXTS)
            return _Content(file.read("joints", MOST_JOINTS), numbers, names, classes)
        except DatasetUnreadable as error:
            raise ForeignRefused(f"{path}: a dataset {error}.") from None


def _check(content: _Content, path: Path) -> None:
    """Refuse what does not fit together."""
    count = len(content.names)
    if content.joints.ndim != 5 or len(content.joints) != count:
        raise LongreelError(f"{path}: joints are {content.joints.shape}; expected (N, T, M, V, C) with N = {count}.")
    for name in NUMBERS:
        if len(content.numbers.get(name, ())) != count:
            raise LongreelError(f"{path}: {name} has not one number for each of the {count} names.")
    allowed = {"lengths": range(1, content.joints.shape[1] + 1), "labels": range(len(content.classes))}
    for name, known in {**allowed, "split": range(2)}.items():
        if wrong := [number for number in content.numbers[name] if number not in known]:
            raise LongreelError(f"{path}: {name} has {wrong[0]}; expected {known.start} to {known.stop - 1}.")
    for name, texts in (("names", content.names), ("class_names", content.classes)):
        if len(set(texts)) < len(texts) or not all(texts):
            raise LongreelError(f"{path}: {name} has an empty one, or one twice.")
    if not any(number == 0 for number in content.numbers["split"]):
        raise LongreelError(f"{path}: split has no 0, so there is no training clip.")


def _to_clip(content: _Content, place: int, path: Path) -> Clip:
    told = {name: content.numbers[name] for name in TOLD if len(content.numbers.get(name, ())) == len(content.names)}
    extra: dict[str, object] = {name: str(numbers[place]) for name, numbers in told.items()}
    label = content.classes[content.numbers["labels"][place]]
    return Clip(content.names[place], path.name, (label,), "train", extra=extra)


def _split(content: _Content) -> dict[str, dict[str, tuple[str, ...]]]:
    """``official``, and ``train_clean`` where the file says which training clips are no test clips."""
    split = content.numbers["split"]
    trained = [place for place, number in enumerate(split) if number == 0]
    order = content.numbers.get("train_order", trained)
    order = order if sorted(order) == trained else trained
    tested = _name(content, [place for place, number in enumerate(split) if number == 1])
    splits = {"official": {"train": _name(content, order), "test": tested}}
    clean = content.numbers.get("train_clean", ())
    if len(clean) == len(split):
        splits["train_clean"] = {"train": _name(content, [place for place in order if clean[place]]), "test": tested}
    return splits


def _name(content: _Content, places: Sequence[int]) -> tuple[str, ...]:
    return tuple(content.names[place] for place in places)
