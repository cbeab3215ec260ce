"""Features that stay on disk: rows are read as they are asked for, and fetched ahead in the background."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..store import FeatureStore, RowReader

MEMORY_SHARE = 0.6  #: of the memory that is free, which features may take.
DEVICE_SHARE = 0.85  #: of a device's, where nothing else is kept but heads and a batch.
PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")
MEMINFO = PROC / "meminfo"
#: of control groups, version 2 and 1: controller in /proc/self/cgroup, its folder, and the files of limit and use.
LIMITS = (
    ("", "", "memory.max", "memory.current"),
    ("memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)


class DiskRows:
    """The rows of some clips behind one another, ``(frames, D)``, with what a ``ClipSet`` needs of a tensor.

    What is read is not checked against the clips' digests, which are those of whole clips: check the clips first.
    """

    def __init__(self, store: FeatureStore, clip_ids: Sequence[str]) -> None:
        self._reader = RowReader(store, clip_ids)
        self.offsets = np.cumsum([0, *self._reader.lengths])
        self.shape = (int(self.offsets[-1]), store.spec.dim)
        self.size = self.shape[0] * store.spec.row_bytes  #: bytes.
        self.dtype = getattr(torch, store.spec.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Rows by number: ``(N,)`` -> ``(N, D)``, or ``(B, T)``, each line of one clip, -> ``(B, T, D)``."""
        wanted = rows.numpy().reshape(len(rows), -1)
        clips = np.searchsorted(self.offsets, wanted[:, 0], side="right") - 1
        found = self._reader.read(clips, wanted - self.offsets[clips, None])
        return torch.from_numpy(found.reshape(*rows.shape, -1))

    def read_ahead(self, clips: Tensor) -> None:
        """Have the operating system fetch clips, by number, that come up soon."""
        self._reader.read_ahead(clips.numpy())


def free_memory() -> int:
    """Bytes that this process may still take: what the system has left, or its control group allows."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if MEMINFO.exists():
        lines = MEMINFO.read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return min([free, *(left for version in LIMITS if (left := _left_in_group(*version)) is not None)])


def _left_in_group(controller: str, folder: str, limit: str, used: str) -> int | None:
    """What the limit of this process's control group leaves, cached files apart; nothing where there is no limit."""
    try:
        lines = [line.split(":", 2) for line in (PROC / "self/cgroup").read_text().splitlines()]
        group = CGROUP / folder / next(path for _, name, path in lines if name == controller).lstrip("/")
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        cached = int(statistics.get("total_inactive_file", statistics.get("inactive_file", "0")))
        return max(0, int((group / limit).read_text()) - int((group / used).read_text()) + cached)
    except (OSError, ValueError, StopIteration):
        return None


def fits_on_device(size: int, device: torch.device) -> bool:
    """Whether so many bytes of features leave enough room on a device for what is done with them."""
    free, _ = torch.get_device_module(device).mem_get_info(device)
    return size <= DEVICE_SHARE * free


def fits_in_memory(size: int) -> bool:
    """Whether so many bytes of features leave enough room for what is done with them."""
    return size <= MEMORY_SHARE * free_memory()
