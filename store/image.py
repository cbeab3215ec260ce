"""A shard on its way to the disk: the bytes of an HDF5 file, written, hashed and compared without a second copy."""

import io
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ..durable import write_at
from ..errors import StoreDamaged
from .records import ClipFeatures, Origin, Spec
from .shard import COLUMNS, FORMAT, VERSION, read_shard, shard_hash

#: Features begin at a page: rows that straddle cache lines and pages are read a fifth slower.
PAGE = 4096
ALIGNED_FROM = 32 << 10  #: bytes; what is smaller lies densely.
HDF5_ROWS = {"float16": h5py.h5t.IEEE_F16LE, "float32": h5py.h5t.IEEE_F32LE}


@dataclass(frozen=True)
class Entry:
    """One clip on its way into a shard."""

    clip: ClipFeatures
    origin: Origin
    digest: bytes  #: ``clip.digest(clip_id)``.


@dataclass(frozen=True)
class ShardImage:
    """The bytes of a shard in the order of the file; the features of the clips are not copied."""

    head: bytes
    features: list[NDArray[np.floating]]
    tail: bytes

    @property
    def pieces(self) -> list[memoryview]:
        pieces = [memoryview(self.head), *(rows.data.cast("B") for rows in self.features), memoryview(self.tail)]
        return [piece for piece in pieces if len(piece)]


def build_shard(spec: Spec, entries: dict[str, Entry], provenance: str) -> ShardImage:
    """The HDF5 file that holds these clips, by clip id."""
    features = [np.ascontiguousarray(entry.clip.features, dtype=spec.row_type) for entry in entries.values()]
    origins = [entry.origin for entry in entries.values()]
    values = {
        "seconds": np.concatenate([entry.clip.seconds for entry in entries.values()]),
        "offsets": np.cumsum([0, *map(len, features)]),
        "digest": _as_rows(entry.digest for entry in entries.values()),
        "fraction": [origin.fraction for origin in origins],
        "decoder": [origin.decoder.encode() for origin in origins],
        "file_size": [origin.size for origin in origins],
        "file_mtime_ns": [origin.mtime_ns for origin in origins],
        "file_sha256": _as_rows(bytes.fromhex(origin.sha256) for origin in origins),
        "start": [np.nan if origin.start is None else origin.start for origin in origins],
        "end": [np.nan if origin.end is None else origin.end for origin in origins],
    }
    # Built in memory: where a disk is full, HDF5 itself leaves descriptors open and crashes as the process ends.
    memory = io.BytesIO()
    with h5py.File(memory, "w", alignment_threshold=ALIGNED_FROM, alignment_interval=PAGE) as file:
        for name, text in {"format": FORMAT, "spec": spec.as_json(), "provenance": provenance}.items():
            file.attrs[name] = np.bytes_(text.encode())
        file.attrs["version"] = VERSION
        file.create_dataset("ids", data=np.array([clip_id.encode() for clip_id in entries], dtype="S"))
        for name, value in values.items():
            file.create_dataset(name, data=np.asarray(value, dtype=COLUMNS[name][0]))
        offset = _reserve_features(file, (int(values["offsets"][-1]), spec.dim), spec.dtype)
        file.flush()
        size = file.id.get_filesize()
    end = offset + sum(rows.nbytes for rows in features)
    written = memory.getbuffer()
    head, tail = bytes(written[:offset]), bytes(written[end:])
    return ShardImage(head.ljust(offset, b"\0"), features, tail.ljust(max(0, size - end), b"\0"))


def _as_rows(digests: Iterable[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def _reserve_features(file: h5py.File, shape: tuple[int, int], dtype: str) -> int:
    """Give ``features`` their place in the file without writing them; the byte at which they begin."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(shape)
    return h5py.h5d.create(file.id, b"features", HDF5_ROWS[dtype], space, layout).get_offset()


def write_image(path: Path, image: ShardImage) -> str:
    """Write the bytes of a shard to the disk and give their digest, which belongs in its name."""
    with ThreadPoolExecutor(1) as beside, open(path, "wb", buffering=0) as file:
        digest = beside.submit(_hash, image.pieces)
        position = 0
        for piece in image.pieces:
            write_at(file.fileno(), piece, position)
            position += len(piece)
        os.fsync(file.fileno())
        return digest.result()


def _hash(pieces: Iterable[memoryview]) -> str:
    digest = shard_hash()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def check_image(path: Path, image: ShardImage, entries: dict[str, Entry]) -> None:
    """Compare a written shard with what it was made from, byte by byte and as a reader sees it.

    Raises:
        StoreDamaged: When they differ.
    """
    shard = read_shard(path, 0)
    whole = shard.ids == tuple(entries) and shard.data_offset == len(image.head)
    with open(path, "rb") as file:
        whole = whole and file.read(len(image.head)) == image.head
        file.seek(sum(map(len, image.pieces)) - len(image.tail))
        whole = whole and file.read() == image.tail
    if not whole:
        raise StoreDamaged(f"{path}: reads back otherwise than written. Check the disk.")
    for index, (clip_id, features) in enumerate(zip(entries, image.features, strict=True)):
        bits = f"<u{features.itemsize}"  # as numbers, NaN would differ from itself
        if not np.array_equal(shard.clip(index).features.view(bits), features.view(bits)):
            raise StoreDamaged(f"{path}: {clip_id!r} reads back otherwise than written. Check the disk.")
