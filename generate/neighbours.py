"""Clips that are nearly the same: cosines of whole clips, searched exactly, and what is normal for real ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..store import FeatureStore

Floats = NDArray[np.float32]
Places = NDArray[np.int64]
CLIPS_AT_ONCE = 1024
QUANTILE = 0.999  #: of real clips' nearest cosines; what lies above is closer than real clips are to one another.
SAME = 0.9999  #: cosine from which on two real clips are one clip twice, which says nothing of what is normal.


@dataclass(frozen=True)
class Threshold:
    """From which cosine on a generated clip is nearer to some real ones than real clips usually are."""

    cosine: float | None  #: ``None`` where there are no real clips to learn it from.
    n: int  #: real clips whose nearest neighbour was looked for.
    same: int  #: of them, how many have a copy of themselves there; they are left out.

    def exceeded(self, cosines: Floats) -> NDArray[np.bool_]:
        """``(B,)`` -> ``(B,)``; nothing exceeds what is not known."""
        return cosines >= (np.inf if self.cosine is None else self.cosine)


def embed_clips(store: FeatureStore, clip_ids: Sequence[str]) -> Floats:
    """One row a clip: the mean of its rows, each scaled to length 1 before, scaled to length 1; ``(B, D)``.

    Rows that are zero or not finite are left out. A clip that has no other row is all NaN.

    Raises:
        StoreDamaged: When a clip's bytes are not what was written.
    """
    blocks = [_embed(*store.read(block)) for block in _blocks(clip_ids)]
    return np.concatenate([np.empty((0, store.spec.dim), dtype=np.float32), *blocks])


def _blocks(clip_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(clip_ids), CLIPS_AT_ONCE):
        yield clip_ids[first : first + CLIPS_AT_ONCE]


def _embed(rows: NDArray[np.float16], offsets: Places) -> Floats:
    """``(frames, D)`` and ``(B + 1,)`` -> ``(B, D)``; every clip has a row."""
    return unit(np.add.reduceat(np.nan_to_num(unit(rows), nan=0.0), offsets[:-1], axis=0))


def unit(rows: NDArray) -> Floats:
    """Rows of length 1, ``(N, D)``; NaN where a row is zero or not finite."""
    rows = rows.astype(np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))[:, None]
    usable = np.isfinite(lengths) & (lengths > 0)
    return np.divide(rows, lengths, out=np.full_like(rows, np.nan), where=usable, casting="unsafe")


def find_nearest(queries: Floats, base: Floats) -> tuple[Floats, Places]:
    """The nearest row of ``base`` for each query: its cosine and its place.

    Exact search by inner product. Two rows that are equally near: either.

    Shape:
        - queries: ``(B, D)``, base: ``(N, D)``, of length 1 or NaN.
        - output: ``(B,)``, ``(B,)``; NaN and -1 where a query is NaN or there is nothing to search.
    """
    cosines, places = _search(queries, base, 1)
    return cosines[:, 0], places[:, 0]


def find_nearest_others(rows: Floats, groups: Sequence[Places]) -> tuple[Floats, Places]:
    """The nearest other row of a group that a row is in.

    Shape:
        - rows: ``(B, D)``, of length 1 or NaN.
        - groups: places of rows, ``(n,)`` each; a row may be in several.
        - output: ``(B,)``, ``(B,)``; NaN and -1 where a row is in no group with another.
    """
    best, nearest = np.full(len(rows), np.nan, dtype=np.float32), np.full(len(rows), -1)
    for group in groups:
        cosines, places = _search(rows[group], rows[group], 2)  # (n, 2): as a rule the row itself comes first
        second = (places[:, 0] == np.arange(len(group))).astype(np.int64)[:, None]
        cosine = np.take_along_axis(cosines, second, axis=1)[:, 0]
        place = np.take_along_axis(places, second, axis=1)[:, 0]
        nearer = (place >= 0) & ~(cosine <= best[group])  # also where there was none yet
        best[group[nearer]], nearest[group[nearer]] = cosine[nearer], group[place[nearer]]
    return best, nearest


def learn_threshold(cosines: Floats) -> Threshold:
    """The 99.9th percentile of real clips' nearest cosines ``(N,)``; NaN are left out, and so are copies.

    It lets one real clip of a thousand pass for a near duplicate. Of fewer than a thousand it is about the largest.
    """
    known = cosines[~np.isnan(cosines)]
    different = known[known < SAME]
    cosine = float(np.quantile(different, QUANTILE)) if len(different) else None
    return Threshold(cosine, len(known), len(known) - len(different))


def _search(queries: Floats, base: Floats, most: int) -> tuple[Floats, Places]:
    """``(B, most)`` each: cosines in [-1, 1] and places in ``base``, NaN and -1 where there are none."""
    import faiss  # slow to load

    cosines = np.full((len(queries), most), np.nan, dtype=np.float32)
    places = np.full((len(queries), most), -1, dtype=np.int64)
    asked, kept = (np.flatnonzero(np.isfinite(rows).all(axis=1)) for rows in (queries, base))
    if len(asked) and len(kept):
        index = faiss.IndexFlatIP(base.shape[1])
        index.add(np.ascontiguousarray(base[kept]))
        found, where = index.search(np.ascontiguousarray(queries[asked]), min(most, len(kept)))
        cosines[asked, : found.shape[1]] = np.clip(found, -1.0, 1.0)
        places[asked, : found.shape[1]] = kept[where]
    return cosines, places
