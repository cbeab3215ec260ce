"""Where features that others made lie: a folder of ``.npy`` files, or one HDF5 file with a dataset a clip."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import LongreelError
from ..manifest import Clip, Manifest
from ..store import DatasetUnreadable, ForeignDataset, ForeignFile
from .arrays import MAX_CLIP_BYTES, Changing, Loaded, Unreadable, check_shape, load_npy, peek_npy
from .planning import file_facts

HDF5_NAMES = (".h5", ".hdf5")
NOTHING: dict[str, object] = {}  #: one for all clips: there may be a million of them.


@dataclass(frozen=True)
class Source:
    """Features that others made. The clips' paths are files relative to the manifest's root."""

    manifest: Manifest
    load: Callable[[Clip], Loaded]  #: raises ``Unreadable``; may be called from several threads.
    width: Callable[[Clip], int]  #: of the rows, from the header; raises ``Unreadable``.
    weigh: Callable[[Clip], int]  #: bytes that the clip has in the source.
    reader: str  #: stands in ``Origin.decoder``.
    notes: list[str]  #: what a person should know of what was left out.


@contextmanager
def open_source(path: Path, suffix: str = "") -> Iterator[Source]:
    """Find the clips of a folder of ``.npy`` files, or of an HDF5 file; ``suffix`` is appended to each id.

    Raises:
        LongreelError: When it is neither, or has no clip.
        ForeignRefused: When the HDF5 file is damaged or leads out of itself.
    """
    if path.is_dir():
        yield _find_npy(path, suffix)
    elif path.is_file() and path.suffix.lower() in HDF5_NAMES:
        with ForeignFile(path) as file:
            yield _find_datasets(file, suffix)
    else:
        raise LongreelError(f"{path}: is no folder of .npy files and no {' or '.join(HDF5_NAMES)} file. Give one.")


def _find_npy(folder: Path, suffix: str) -> Source:
    names, others, links = [], 0, 0
    for parent, folders, files in os.walk(folder, onerror=_refuse_folder):
        links += sum(os.path.islink(os.path.join(parent, name)) for name in folders)
        inside = os.path.relpath(parent, folder)
        found = [name for name in files if name.endswith(".npy")]
        names += found if inside == "." else [f"{inside}/{name}" for name in found]
        others += len(files) - len(found)
    if not names:
        raise LongreelError(f"{folder}: has no .npy file, also not in its folders. Give the folder that holds them.")
    notes = [f"left out: {others} files that are not .npy"] if others else []
    notes += [f"left out: {links} links to folders, which are not followed"] if links else []
    clips = tuple(Clip(name.removesuffix(".npy") + suffix, name, (), "train", extra=NOTHING) for name in sorted(names))
    manifest = Manifest(folder, folder, clips)
    root = str(folder)
    return Source(
        manifest,
        load=lambda clip: load_npy(f"{root}/{clip.path}"),
        width=lambda clip: check_shape(peek_npy(f"{root}/{clip.path}").shape),
        weigh=lambda clip: max(0, file_facts(f"{root}/{clip.path}")[0]),
        reader="npy",
        notes=notes,
    )


def _find_datasets(file: ForeignFile, suffix: str) -> Source:
    if not file.datasets:
        raise LongreelError(f"{file.path}: has no dataset. Give the file that holds the features, one dataset a clip.")
    found = sorted(file.datasets, key=lambda dataset: dataset.name)
    by_id = {dataset.name + suffix: dataset for dataset in found}
    clips = tuple(Clip(clip_id, file.path.name, (), "train", extra=NOTHING) for clip_id in by_id)
    facts = file_facts(file.path)

    def usable(clip: Clip) -> ForeignDataset:
        if (dataset := by_id[clip.clip_id]).problem:
            raise Unreadable(dataset.problem)
        return dataset

    def load(clip: Clip) -> Loaded:
        try:
            values = file.read(usable(clip).name, MAX_CLIP_BYTES)
        except DatasetUnreadable as error:
            raise Unreadable(str(error)) from None
        if file_facts(file.path) != facts:
            raise Changing("its file was changed while it was read")
        return Loaded(values, *facts)

    return Source(
        Manifest(file.path, file.path.parent, clips),
        load,
        width=lambda clip: check_shape(usable(clip).shape),
        weigh=lambda clip: by_id[clip.clip_id].size,
        reader="hdf5",
        notes=[],
    )


def _refuse_folder(error: OSError) -> None:
    raise LongreelError(f"{error.filename}: cannot be listed ({error.strerror}). Give this user the permission.")
