"""Chosen rows of many clips, straight from the memory maps: for training on more than fits in memory."""

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .reader import FeatureStore


class RowReader:
    """Rows of the given clips of a store, which are numbered in the order given.

    Digests are not checked here: a row is not a clip. ``FeatureStore.read`` and ``verify_store`` check them.
    """

    def __init__(self, store: FeatureStore, clip_ids: Sequence[str]) -> None:
        places = [store.place(clip_id) for clip_id in clip_ids]
        bounds = np.array([shard.columns["offsets"][index : index + 2] for shard, index in places], dtype=np.int64)
        bounds = bounds.reshape(-1, 2)
        self._store = store
        self._first = bounds[:, 0]
        self._shards = [shard for shard, _ in places]
        self._spec = store.spec
        self.lengths: NDArray[np.int64] = bounds[:, 1] - bounds[:, 0]  #: ``(clips,)``, each clip's rows.

    def read(self, clips: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.floating]:
        """Row ``rows[b, t]`` of clip ``clips[b]``: ``(B,)``, ``(B, T)`` -> ``(B, T, D)`` in the spec's dtype.

        Raises:
            IndexError: When a clip has no such row.
        """
        if (rows < 0).any() or (rows >= self.lengths[clips, None]).any():
            raise IndexError("a row lies outside its clip")
        out = np.empty((*rows.shape, self._spec.dim), dtype=self._spec.row_type)
        wanted = self._first[clips, None] + rows
        for place, clip in enumerate(clips.tolist()):
            features = np.asarray(self._store.map_features(self._shards[clip]))  # a plain array is faster
            # `mode` is not "raise", as numpy would then write to a buffer of its own first.
            features.take(wanted[place], axis=0, out=out[place], mode="clip")
        return out

    def read_ahead(self, clips: NDArray[np.int64]) -> None:
        """Have the operating system fetch whole clips in the background: many requests at once, not page by page.

        Call it two or three batches before ``read``. Does nothing where there is no ``posix_fadvise``.
        """
        if not hasattr(os, "posix_fadvise"):
            return
        for clip in clips.tolist():
            shard, row_bytes = self._shards[clip], self._spec.row_bytes
            file = os.open(shard.path, os.O_RDONLY)
            try:
                begin = shard.data_offset + int(self._first[clip]) * row_bytes
                os.posix_fadvise(file, begin, int(self.lengths[clip]) * row_bytes, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(file)
