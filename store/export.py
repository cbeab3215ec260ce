"""A store as plain files for other tools: one HDF5 file, or a folder with one .npy a clip."""

import contextlib
import csv
import hashlib
import json
import os
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ..durable import make_folder, naming_faults, sync, write_at
from ..errors import LongreelError, unknown
from .reader import FeatureStore
from .shard import refuse_changed

#: One part of a path that means the same on every system: no dot, dash or space in front, no dot or space at the end.
PLAIN_PART = re.compile(r"\w([\w.#@+,() -]*[\w#@+)-])?")
LONGEST_PART = 200  #: bytes; file systems allow 255, and `.npy` comes behind.
LONGEST_PATH = 1000
#: Names of devices on Windows, whatever stands behind their dot.
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}


def export_store(folder: Path, out: Path, format: str = "h5") -> int:
    """Write all clips of a store to ``out``, which must not exist; gives their number.

    Every shard is checked against its hash and every clip against its digest, and ``out`` appears whole or not at
    all. Memory does not grow with the features.

    Args:
        folder: The store.
        out: For ``h5`` a file: ``features`` ``(N, D)`` in the spec's dtype and ``seconds`` ``(N,)`` float64, all clips
            behind one another; ``offsets`` ``(clips + 1,)``: clip ``i`` has the rows from ``offsets[i]`` up to
            ``offsets[i + 1]``; ``ids`` as bytes of one length; the spec and the store's digest as attributes.
            For ``npy`` a folder: in ``clips`` a file ``(T, D)`` a clip, ``index.csv`` with each clip's id, file and
            rows, ``seconds.npy`` ``(N,)`` in the order of the index, and ``spec.json``.
        format: ``h5`` or ``npy``.

    Raises:
        StoreMismatch, StoreDamaged: When the store is none, or not whole.
        EnvironmentFault: When ``out`` cannot be written.
    """
    if format not in EXPORTS:
        raise unknown("format", format, EXPORTS)
    if os.path.lexists(out):
        raise LongreelError(f"{out}: is there already, and is not overwritten. Give another name, or remove it.")
    refuse_changed(folder)
    make_folder(out.parent)
    temporary = out.with_name(f".export-{os.getpid()}.tmp")
    with FeatureStore(folder) as store, naming_faults(out, _bytes_needed(store)):
        try:
            EXPORTS[format](store, temporary)
            if os.path.lexists(out):  # it may have come to be in the meantime
                raise LongreelError(f"{out}: is there already, and is not overwritten. Give another name.")
            temporary.rename(out)
            sync(out.parent)
        finally:
            _remove(temporary)
    return len(store)


def file_names(ids: Sequence[str]) -> list[str]:
    """The .npy file of each id: the id itself where that is a plain relative path, else a digest of it.

    No name leads out of the folder, and no two are the same, also where a file system takes upper and lower case or
    two spellings of an accent for one. The ``=`` in front of a digest is in no plain path.
    """
    counts = Counter(map(_fold, ids))
    return [
        f"{clip_id}.npy"
        if is_plain_path(clip_id) and counts[_fold(clip_id)] == 1
        else f"sha256={hashlib.sha256(clip_id.encode()).hexdigest()}.npy"
        for clip_id in ids
    ]


def is_plain_path(clip_id: str) -> bool:
    """Whether an id can be the name of a file as it stands, in folders below the export's own."""
    *folders, _ = parts = clip_id.split("/")
    return (
        unicodedata.is_normalized("NFC", clip_id)
        and len(clip_id.encode()) <= LONGEST_PATH
        and all(PLAIN_PART.fullmatch(part) and len(part.encode()) <= LONGEST_PART for part in parts)
        and not any(part.casefold().split(".")[0].rstrip() in RESERVED for part in parts)
        and not any(part.casefold().endswith(".npy") for part in folders)  # it might be the file of another id
    )


def _fold(clip_id: str) -> str:
    return unicodedata.normalize("NFKC", clip_id.casefold())


def _bytes_needed(store: FeatureStore) -> int:
    return sum(int(shard.columns["offsets"][-1]) * (store.spec.row_bytes + 8) for shard in store.shards)


def _write_h5(store: FeatureStore, path: Path) -> None:
    """HDF5 crashes on a full disk, so it writes the frame alone, in space that was there just before; we the rest."""
    ids = [clip_id.encode() for clip_id in store]
    times = [store[clip_id].seconds for clip_id in store]
    offsets = np.cumsum([0, *map(len, times)])
    columns = {
        "ids": np.array(ids, dtype=h5py.string_dtype("utf-8", max(map(len, ids)))),
        "offsets": offsets.astype("<i8"),
        "seconds": np.concatenate(times).astype("<f8"),
    }
    rows, dim = int(offsets[-1]), store.spec.dim
    with open(path, "wb") as file:
        size = rows * store.spec.row_bytes + sum(column.nbytes for column in columns.values())
        os.posix_fallocate(file.fileno(), 0, size + 65536)
    shapes = {name: (column.shape, column.dtype) for name, column in columns.items()}
    places = _lay_out(path, shapes | {"features": ((rows, dim), store.spec.row_type)}, store)
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.posix_fallocate(descriptor, 0, os.fstat(descriptor).st_size)
        for name, column in columns.items():
            write_at(descriptor, column.tobytes(), places[name])
        at = places["features"]
        for clip_id in store:
            content = _read_features(store, clip_id).tobytes()
            write_at(descriptor, content, at)
            at += len(content)
    finally:
        os.close(descriptor)
    sync(path)


def _lay_out(path: Path, shapes: dict[str, tuple[tuple[int, ...], np.dtype]], store: FeatureStore) -> dict[str, int]:
    """Write an HDF5 file whose contiguous datasets hold nothing yet; gives the byte at which each begins."""
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(path, "w") as file:
        for key, value in store.spec.as_dict().items():
            file.attrs[key] = np.bytes_(value.encode()) if isinstance(value, str) else value
        file.attrs["digest"] = np.bytes_(store.digest().encode())
        datasets = {
            name: h5py.h5d.create(
                file.id, name.encode(), h5py.h5t.py_create(dtype, logical=True), h5py.h5s.create_simple(shape), early
            )
            for name, (shape, dtype) in shapes.items()
        }
        return {name: dataset.get_offset() for name, dataset in datasets.items()}


def _write_npy(store: FeatureStore, folder: Path) -> None:
    folder.mkdir()
    names = [f"clips/{name}" for name in file_names(store.ids)]
    times = [store[clip_id].seconds for clip_id in store]
    for clip_id, name in zip(store, names, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, _read_features(store, clip_id), allow_pickle=False)
    np.save(folder / "seconds.npy", np.concatenate(times), allow_pickle=False)
    (folder / "spec.json").write_text(json.dumps(store.spec.as_dict() | {"digest": store.digest()}, indent=2) + "\n")
    with open(folder / "index.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "file", "rows"])
        writer.writerows(zip(store, names, map(len, times), strict=True))
    for path in [*folder.rglob("*"), folder]:  # written first and synced then: the disk orders it as it likes
        sync(path)


def _read_features(store: FeatureStore, clip_id: str) -> NDArray[np.floating]:
    """One clip's rows ``(T, D)``, as they were written or not at all."""
    return store.read([clip_id])[0]


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


#: format -> what writes it to a temporary path.
EXPORTS: dict[str, Callable[[FeatureStore, Path], None]] = {"h5": _write_h5, "npy": _write_npy}
