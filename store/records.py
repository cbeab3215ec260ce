"""What a store holds: the facts that all of its clips share, and one clip's features."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import NDArray

#: dtype of a store's rows -> the same, little-endian.
ROWS = {"float16": "<f2", "float32": "<f4"}
LATER = ("dtype", "layout")  #: facts that earlier longreels do not know and refuse.


@dataclass(frozen=True)
class Spec:
    """How every feature of a store was made. Two stores are interchangeable exactly when their specs are equal."""

    backbone: str
    weights: str  #: fingerprint of the weights, or the version of a built-in descriptor.
    dim: int  #: width of one feature row, ``D``.
    sampling: str
    preprocessing: str
    decoder: str  #: as asked for: ``auto`` lets each file decide; ``Origin.decoder`` says what was used.
    embedding: str = "pooled"  #: or ``projected, text <fingerprint>``, ``descriptor``: what of the backbone a row is.
    precision: str = "float32"  #: of the backbone's arithmetic, whatever the rows are.
    dtype: str = "float16"  #: of the rows: a key of ``ROWS``.
    layout: str = ""  #: of rows that are joints of skeletons: the layout as a JSON object. Empty for other features.

    def __post_init__(self) -> None:
        if self.dtype not in ROWS:
            raise ValueError(f"rows are {self.dtype!r}, not {' or '.join(ROWS)}")

    @property
    def row_type(self) -> np.dtype:
        """Of the rows as they lie in a shard."""
        return np.dtype(ROWS[self.dtype])

    @property
    def row_bytes(self) -> int:
        """What one row takes."""
        return self.dim * self.row_type.itemsize

    def as_dict(self) -> dict:
        """The facts by name. ``dtype`` and ``layout`` are left out where they are as for all stores of features."""
        usual = {field.name: field.default for field in fields(self) if field.name in LATER}
        return {key: value for key, value in asdict(self).items() if key not in usual or value != usual[key]}

    def as_json(self) -> str:
        return json.dumps(self.as_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Spec":
        return cls(**json.loads(text))

    def differences(self, other: "Spec") -> list[str]:
        """One phrase for each key in which ``other`` departs from this spec."""
        mine, others = asdict(self), asdict(other)
        return [f"{key} is {mine[key]!r}, not {others[key]!r}" for key in mine if mine[key] != others[key]]


@dataclass(frozen=True)
class Origin:
    """Where a clip's features came from."""

    decoder: str
    fraction: float  #: of the wanted frames, how many could be decoded: 1.0 is ``ok``, less is ``partial``.
    size: int  #: bytes of the video file.
    mtime_ns: int
    sha256: str  #: of the whole video file.
    start: float | None = None  #: the span of the video that was asked for, in seconds.
    end: float | None = None


@dataclass(frozen=True)
class ClipFeatures:
    """One clip's features in time order; its labels are in the manifest."""

    features: NDArray[np.floating]  #: ``(T, D)``, float16 or float32.
    seconds: NDArray[np.float64]  #: ``(T,)`` from the start of the video, increasing.

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or len(self.features) == 0:
            raise ValueError(f"features must be (T, D) with at least one row, got {self.features.shape = }")
        if self.features.dtype.name not in ROWS:
            raise ValueError(f"features must be {' or '.join(ROWS)}, got {self.features.dtype = }")
        if self.features.shape[:1] != self.seconds.shape:
            raise ValueError(f"one time per row: got {self.features.shape = }, {self.seconds.shape = }")

    def digest(self, clip_id: str) -> bytes:
        """SHA-256 over the clip's id, shape, feature bytes and times."""
        features = np.ascontiguousarray(self.features, dtype=ROWS[self.features.dtype.name])
        head = json.dumps([clip_id, features.shape])
        total = hashlib.sha256(head.encode())
        total.update(features.data)
        total.update(np.ascontiguousarray(self.seconds, dtype="<f8").data)
        return total.digest()


def combine_digests(digests: Iterable[bytes]) -> str:
    """One digest for a set of clips, whatever their order and the shards they lie in."""
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()
