"""Joints of skeletons to a store: from an HDF5 file such as NW-UCLA's, PYSKL's pickles, or ``.npy`` files."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..durable import make_folder, owned
from ..errors import LongreelError, StoreInUse
from ..manifest import SPLITS, Clip, read_manifest
from ..provenance import describe_environment
from ..slices import WHOLE
from ..store import (
    ClipFeatures,
    Failure,
    FeatureStore,
    Origin,
    ShardWriter,
    Spec,
    append_failures,
)
from .arrays import Unreadable, load_npy, peek_npy
from .importing import LIMITS, NOT_HASHED
from .joints import Skeletons, as_rows, choose_layout
from .nw_ucla import open_hdf5
from .pipeline import Extraction
from .planning import Plan, file_facts, open_whole, plan_extraction
from .pyskl import open_pyskl

TABLE, LAYOUT = "clips.csv", "layout.json"  #: beside ``.npy`` files.


def open_skeletons(path: Path, layout: str | None = None) -> AbstractContextManager[Skeletons]:
    """Find the clips of an HDF5 file, a pickle of PYSKL, or a folder of ``.npy`` files.

    The folder has one ``(T, M, V, C)`` or ``(T, V, C)`` a clip, ``clips.csv``, a manifest of them, and where no layout
    is named, ``layout.json`` or joints of a known number.

    Args:
        path: The file or folder.
        layout: A key of ``LAYOUTS`` or a JSON file.

    Raises:
        LongreelError: When it is none of them, or there is no such layout.
        ForeignRefused: When the file is damaged, leads out of itself, or holds more than data.
    """
    if path.is_dir():
        return _open_folder(path, layout)
    if path.suffix.lower() in (".h5", ".hdf5"):
        return open_hdf5(path, layout)
    if path.suffix.lower() in (".pkl", ".pickle"):
        return open_pyskl(path, layout)
    raise LongreelError(f"{path}: is no .h5 file of joints, no .pkl file of PYSKL, and no folder of .npy files.")


@contextmanager
def _open_folder(folder: Path, layout: str | None) -> Iterator[Skeletons]:
    if not (folder / TABLE).is_file():
        raise LongreelError(f"{folder}: has no {TABLE}. Put one there, with path, label and split of each .npy file.")
    manifest = read_manifest(folder / TABLE)
    shapes = []
    for clip in manifest.clips:
        with suppress(Unreadable):  # it will stand in the ledger
            shapes.append(peek_npy(str(folder / clip.path)).shape)
    if not (shapes := [shape for shape in shapes if len(shape) in (3, 4)]):
        raise LongreelError(f"{folder}: no file of {TABLE} is a .npy file of (T, M, V, C) or (T, V, C) floats.")
    own = str(folder / LAYOUT) if (folder / LAYOUT).is_file() else None
    yield Skeletons(
        manifest,
        load=lambda clip: _load_npy(folder / clip.path),
        layout=choose_layout(layout or own, shapes[0][-2]),
        classes=manifest.classes,
        bodies=max(shape[1] if len(shape) == 4 else 1 for shape in shapes),
        splits={"given": {split: tuple(clip.clip_id for clip in manifest.split(split)) for split in SPLITS}},
        usual="given",
        reader="npy",
    )


def _load_npy(path: Path) -> NDArray[Any]:
    values = load_npy(str(path)).values
    return values[:, None] if values.ndim == 3 else values


def make_spec(source: Skeletons) -> Spec:
    """The facts that all clips of the store share."""
    layout = source.layout
    return Spec(
        backbone=f"skeleton {layout.name}",
        weights="none",
        dim=source.dim,
        sampling="given",
        preprocessing="none",
        decoder="given",
        embedding="joints",
        dtype="float32",
        layout=json.dumps(asdict(layout), sort_keys=True),
    )


def import_skeletons(
    source: Skeletons,
    folder: Path,
    *,
    refresh: bool = False,
    repair: bool = False,
    on_plan: Callable[[Plan], None] = lambda plan: None,
    on_clip: Callable[[str], None] = lambda clip_id: None,
) -> Extraction:
    """Write the joints of every clip of the source that the store does not hold yet, whatever split it is in.

    A clip that cannot be used goes to the ledger and stops nothing. Interrupted at any point, the same call goes on
    from the last sealed shard and ends in the same digest. The time of a row is its number.

    Args:
        source: From ``open_skeletons``.
        folder: The store; made if needed.
        refresh: Import clips again whose joints have changed.
        repair: Read every byte of the store first.
        on_plan, on_clip: Called once before the work, and after each clip.

    Raises:
        StoreMismatch: When the store was made in another way.
        StoreInUse: When another process is writing to it.
        EnvironmentFault: When it cannot be written.
    """
    make_folder(folder)
    with owned(folder / f".writer-{WHOLE}.lock", f"{folder} (slice {WHOLE})", StoreInUse):
        store, aside = open_whole(folder, repair)
        spec = make_spec(source)
        plan = plan_extraction(
            source.manifest,
            folder,
            spec,
            WHOLE,
            refresh=refresh,
            retry_failed=True,
            unchanged=lambda clip, origin: _is_unchanged(source, clip, origin, store),
        )
        plan = replace(plan, set_aside=[path.name for path in aside])
        on_plan(plan)
        failures: list[Failure] = []
        provenance = json.dumps(describe_environment("numpy", "h5py"))
        with ShardWriter(folder, spec, slice_name=str(WHOLE), provenance=provenance, limits=LIMITS) as writer:
            for clip in plan.todo:
                facts = file_facts(source.manifest.root / clip.path)
                try:
                    writer.add(clip.clip_id, _read(source, clip), Origin(source.reader, 1.0, *facts, NOT_HASHED))
                except Unreadable as error:
                    failures.append(Failure(clip.clip_id, clip.path, str(error), "", *facts, time=time.time()))
                on_clip(clip.clip_id)
        append_failures(folder, str(WHOLE), failures)
        return Extraction(len(plan.todo) - len(failures), len(plan.done), 0, failures, plan.set_aside)


def _read(source: Skeletons, clip: Clip) -> ClipFeatures:
    rows = as_rows(source.load(clip), source.layout, source.bodies)
    return ClipFeatures(rows, np.arange(len(rows), dtype=np.float64))


def _is_unchanged(source: Skeletons, clip: Clip, origin: Origin, store: FeatureStore | None) -> bool:
    """Whether the source still gives what is stored; a file that was only touched does."""
    if store is None or file_facts(source.manifest.root / clip.path) == (origin.size, origin.mtime_ns):
        return True
    try:
        return _read(source, clip).digest(clip.clip_id) == store.clip_digest(clip.clip_id)
    except Unreadable:
        return False
