"""Where features are while they are trained on: in memory, on disk, or in the memory of a device."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ..devices import send
from ..errors import unknown
from ..store import FeatureStore
from .ahead import results_of
from .disk import DiskRows, fits_in_memory, fits_on_device

PLACES = ("auto", "memory", "disk")
CHECKED_VALUES = 2**25  #: numbers read at a time to be checked, 64 MiB in float16, and at least one clip.


def read_features(
    store: FeatureStore, clip_ids: Sequence[str], place: str, device: torch.device
) -> tuple[Tensor | DiskRows, Tensor, Iterable[Tensor]]:
    """Features and offsets of clips, as ``ClipSet`` has them, and all rows in parts on the CPU.

    What stays on disk is checked, and what goes to a device is there, when the parts have been taken.

    Raises:
        LongreelError: When there is no such place.
        StoreDamaged: When a clip's bytes are not what was written; at the latest when the parts are taken.
    """
    if place not in PLACES:
        raise unknown("place for features", place, PLACES)
    rows = DiskRows(store, clip_ids)
    offsets = torch.from_numpy(rows.offsets)
    if place == "auto" and device.type != "cpu" and fits_on_device(rows.size, device):
        features = torch.empty(rows.shape, dtype=rows.dtype, device=device)
        return features, offsets, _moving(_read_parts(store, clip_ids, rows.offsets), features)
    if place == "memory" or (place == "auto" and fits_in_memory(rows.size)):
        features = torch.from_numpy(store.read(clip_ids)[0])
        return features, offsets, [features]
    return rows, offsets, _read_parts(store, clip_ids, rows.offsets)


def _read_parts(store: FeatureStore, clip_ids: Sequence[str], offsets: np.ndarray) -> Iterator[Tensor]:
    """All rows in order, of some clips at a time, checked; the next clips are read while these are used."""
    part_of = offsets[:-1] * store.spec.dim // CHECKED_VALUES  # (clips,)
    starts = [*np.unique(part_of, return_index=True)[1].tolist(), len(clip_ids)]
    with ThreadPoolExecutor(1) as reader:
        submitted = (reader.submit(store.read, clip_ids[begin:end]) for begin, end in itertools.pairwise(starts))
        for rows, _ in results_of(submitted, 1):
            yield torch.from_numpy(rows)


def _moving(parts: Iterable[Tensor], there: Tensor) -> Iterator[Tensor]:
    """The same parts, each copied on the way into all rows on a device."""
    end = 0
    for part in parts:
        begin, end = end, end + len(part)
        there[begin:end] = send(part, there.device)
        yield part
