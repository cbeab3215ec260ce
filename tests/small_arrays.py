"""Arrays as others save them."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

KINDS = ["<f2", "<f4", "<f8", ">f2", ">f4", ">f8"]


def rows(seed: int, shape: tuple[int, ...] = (5, 8), kind: str = "<f4") -> NDArray:
    return np.random.default_rng(seed).normal(size=shape).astype(kind)


def save(path: Path, values: NDArray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)


def npy(descr: str, shape: object, content: bytes = b"") -> bytes:
    """A version-1 file with this header, whatever it says."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + content


def saved(values: NDArray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()
