"""One sealed shard: a plain HDF5 file whose name carries the digest of its own bytes, so that any change shows."""

import errno
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import EnvironmentFault, StoreDamaged, StoreMismatch
from .records import ClipFeatures, Origin, Spec

FORMAT = "longreel-store"
VERSION = 1
NAME = re.compile(r"(\d{6,})-([0-9a-f]{32})\.h5")
ASIDE = re.compile(rf"damaged-({NAME.pattern})(\.\d+)?")
#: attribute -> kind of its type. Nothing has a variable length: HDF5 can crash on a flipped bit of such a pointer.
ATTRIBUTES = {"format": "S", "version": "i", "spec": "S"}
#: dataset -> (dtype, shape behind the first axis); ``D`` stands for the feature width, and the spec says which float.
COLUMNS = {
    "features": ("float", ("D",)),
    "seconds": ("<f8", ()),
    "offsets": ("<i8", ()),
    "digest": ("|u1", (32,)),
    "fraction": ("<f8", ()),
    "decoder": ("|S16", ()),
    "file_size": ("<i8", ()),
    "file_mtime_ns": ("<i8", ()),
    "file_sha256": ("|u1", (32,)),
    "start": ("<f8", ()),
    "end": ("<f8", ()),
}


@dataclass(frozen=True)
class Shard:
    """A sealed shard's clips; everything is in memory but the features, which stay a memory map."""

    path: Path
    sequence: int  #: of two shards that hold the same clip, the one with the higher sequence counts.
    spec: Spec
    ids: tuple[str, ...]
    columns: dict[str, NDArray]
    data_offset: int  #: byte at which the contiguous ``features`` begin.

    @cached_property
    def features(self) -> np.memmap:
        """All rows of the shard, ``(frames, D)`` in the spec's dtype, read-only, nothing read yet."""
        rows = int(self.columns["offsets"][-1])
        with _naming_damage(self.path):
            shape = (rows, self.spec.dim)
            return np.memmap(self.path, dtype=self.spec.row_type, mode="r", offset=self.data_offset, shape=shape)

    def clip(self, index: int) -> ClipFeatures:
        """The features and times of one clip."""
        rows = slice(*self.columns["offsets"][index : index + 2])
        return ClipFeatures(self.features[rows], self.columns["seconds"][rows])

    def origin(self, index: int) -> Origin:
        """Where one clip came from."""
        column = self.columns
        return Origin(
            decoder=column["decoder"][index].decode(errors="replace"),
            fraction=float(column["fraction"][index]),
            size=int(column["file_size"][index]),
            mtime_ns=int(column["file_mtime_ns"][index]),
            sha256=bytes(column["file_sha256"][index]).hex(),
            start=_none_if_nan(column["start"][index]),
            end=_none_if_nan(column["end"][index]),
        )

    def digest(self, index: int) -> bytes:
        """The clip's digest as written; ``clip(index).digest(id)`` is what the bytes give now."""
        return bytes(self.columns["digest"][index])


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def shard_paths(folder: Path) -> list[Path]:
    """The sealed shards of a store, in the order in which they were begun."""
    found = [path for path in folder.glob("*.h5") if NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (sequence_of(path), path.name))


def some_shard_paths(folder: Path) -> list[Path]:
    """The sealed shards of a store that has at least one.

    Raises:
        StoreMismatch: When it has none.
    """
    if found := shard_paths(folder):
        return found
    raise StoreMismatch(
        f"{folder}: is not a store, or has no clip yet. Make it with `longreel extract MANIFEST {folder}`."
    )


def aside_paths(folder: Path) -> list[Path]:
    """The damaged shards that were set aside, in the order of their sequence numbers."""
    return sorted((path for path in folder.glob("damaged-*") if ASIDE.fullmatch(path.name)), key=sequence_of)


def sequence_of(path: Path) -> int:
    """The sequence number in the name of a shard, also of one that was set aside."""
    return int(path.name.removeprefix("damaged-").split("-")[0])


def next_sequence(folder: Path) -> int:
    """One more than any shard has, those set aside included."""
    return 1 + max(map(sequence_of, shard_paths(folder) + aside_paths(folder)), default=0)


def is_unchanged(path: Path) -> bool:
    """Whether all bytes of a sealed shard are as its name says."""
    return hash_file(path) == path.stem.split("-")[1]


def hash_file(path: Path) -> str:
    """The digest that stands in a shard's name, over every byte of the file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, shard_hash).hexdigest()


def shard_hash() -> hashlib.blake2b:
    """A new 128-bit BLAKE2b."""
    return hashlib.blake2b(digest_size=16)


def refuse_changed(folder: Path) -> None:
    """Read all bytes of a store's sealed shards, before one is opened.

    Raises:
        StoreDamaged: When they are not as a shard's name says.
        EnvironmentFault: When they may not be read.
    """
    for path in shard_paths(folder):
        with _naming_damage(path):
            if not is_unchanged(path):
                raise ValueError("its bytes are not what was written")


def read_shard(path: Path, sequence: int | None = None) -> Shard:
    """Open a shard, refusing anything that a sealed shard cannot hold.

    ``sequence`` is for a shard that has no final name yet; otherwise the name gives it.

    Raises:
        StoreDamaged: When the file is no readable shard; links, external and virtual data are never followed.
        StoreMismatch: When a newer longreel wrote it.
    """
    with _naming_damage(path), h5py.File(path, "r", locking="best-effort") as file:
        spec = _read_spec(file, path)
        ids = tuple(text.decode() for text in plain_dataset(file, "ids", kind="S")[:])
        datasets = {name: plain_dataset(file, name) for name in COLUMNS}
        columns = {name: dataset[:] for name, dataset in datasets.items() if name != "features"}
        data_offset = datasets["features"].id.get_offset()
        if data_offset is None or data_offset + datasets["features"].nbytes > file.id.get_filesize():
            raise ValueError("features do not lie within the file")
        for name, (dtype, tail) in COLUMNS.items():
            wanted = tuple(spec.dim if axis == "D" else axis for axis in tail)
            if (
                datasets[name].dtype != (spec.row_type if name == "features" else dtype)
                or datasets[name].shape[1:] != wanted
            ):
                raise ValueError(f"{name} is {datasets[name].shape} of {datasets[name].dtype}")
        _check_lengths(ids, columns, datasets["features"])
        number = sequence_of(path) if sequence is None else sequence
        return Shard(path, number, spec, ids, columns, data_offset)


def read_provenance(path: Path) -> str:
    """The JSON text with the versions and the machine that made a shard.

    Raises:
        StoreDamaged: When it has none.
    """
    with _naming_damage(path), h5py.File(path, "r", locking="best-effort") as file:
        if (found := file.attrs.get_id("provenance")).dtype.kind != "S" or found.shape != ():
            raise ValueError(f"provenance is {found.shape} of {found.dtype}")
        return bytes(file.attrs["provenance"]).decode()  # pyright: ignore[reportArgumentType]


def _read_spec(file: h5py.File, path: Path) -> Spec:
    for name, kind in ATTRIBUTES.items():
        if (found := file.attrs.get_id(name)).dtype.kind != kind or found.shape != ():
            raise ValueError(f"{name} is {found.shape} of {found.dtype}")
    if file.attrs["format"] != FORMAT.encode():
        raise ValueError(f"format is {file.attrs['format']!r}")
    if (version := int(str(file.attrs["version"]))) > VERSION:
        raise StoreMismatch(f"{path}: has store format {version}, this longreel reads up to {VERSION}. Update it.")
    return Spec.from_json(bytes(file.attrs["spec"]).decode())  # pyright: ignore[reportArgumentType]


def plain_dataset(file: h5py.File, name: str, kind: str | None = None) -> h5py.Dataset:
    """A dataset whose bytes lie in this very file, contiguous and unfiltered."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is missing or a link out of the file")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external or dataset.chunks is not None:
        raise ValueError(f"{name} is not one contiguous dataset within the file")
    if kind is not None and (dataset.dtype.kind != kind or dataset.ndim != 1):
        raise ValueError(f"{name} is {dataset.shape} of {dataset.dtype}")
    if dataset.nbytes > file.id.get_filesize():
        raise ValueError(f"{name} claims {dataset.nbytes} bytes, more than the file has")
    return dataset


def _check_lengths(ids: tuple[str, ...], columns: dict[str, NDArray], features: h5py.Dataset) -> None:
    offsets = columns["offsets"]
    if len(offsets) != len(ids) + 1 or offsets[0] != 0 or (np.diff(offsets) < 1).any() or offsets[-1] != len(features):
        raise ValueError("offsets do not cut the features into one piece a clip")
    if len(columns["seconds"]) != len(features):
        raise ValueError("seconds are not one a feature row")
    for name in set(columns) - {"offsets", "seconds"}:
        if len(columns[name]) != len(ids):
            raise ValueError(f"{name} has {len(columns[name])} entries for {len(ids)} clips")


@contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise EnvironmentFault(f"{path}: may not be read. Give this user the permission.") from error
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise EnvironmentFault(f"{path}: cannot be opened now: {error.strerror}. Raise `ulimit -n`.") from error
        raise StoreDamaged(
            f"{path}: is not a whole shard ({error}). `longreel store verify {path.parent}` looks for more; "
            f"the command that made the store, with --repair, makes its clips anew."
        ) from error
