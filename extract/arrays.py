"""Arrays that others made: reading a ``.npy`` file without trusting it, and turning any array into a clip's features.

The header is read here and not by ``numpy.load``, so that nothing of a file is ever evaluated or unpickled. The format
is that of NumPy's NEP 1 (https://numpy.org/neps/nep-0001-npy-format.html).
"""

import math
import os
import re
import stat
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..store import ClipFeatures

MAX_CLIP_BYTES = 256 << 20  #: of one clip as it lies in the source; more is refused, so that memory stays bounded.
MAX_HEADER_BYTES = 4096
FLOAT = re.compile(r"[<>=|]?f[248]")
#: a key of the header with its value: a text, a truth value, or whole numbers (of Python 2 with an ``L``).
ITEM = re.compile(
    r"""\s*(?P<quote>['"])(?P<key>\w+)(?P=quote)\s*:\s*(?:'(?P<single>[^'"]*)'|"(?P<double>[^'"]*)"|(?P<truth>True|False)|"""
    r"""\((?P<shape>\s*(?:\d+L?\s*,\s*)*(?:\d+L?\s*)?)\))\s*(?:,|$)""",
    re.ASCII,
)
TOP = float(np.finfo(np.float16).max)


class Unreadable(Exception):
    """This array gives no features; the text is the ledger's reason."""


class Changing(Unreadable):
    """Somebody is writing to the file."""


@dataclass(frozen=True)
class Loaded:
    """An array as it lies in its source, and the file it came from."""

    values: NDArray[Any]
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Header:
    """What a ``.npy`` file says of itself."""

    dtype: np.dtype
    shape: tuple[int, ...]
    order: Literal["C", "F"]  #: ``C``, or ``F`` where the first axis varies fastest.
    begin: int  #: byte at which the values begin.

    @property
    def end(self) -> int:
        return self.begin + math.prod(self.shape) * self.dtype.itemsize


def parse_header(content: bytes) -> Header:
    """Read the header at the begin of a ``.npy`` file.

    Raises:
        Unreadable: When it is none, or announces anything but float16, float32 or float64.
    """
    if content[:6] != b"\x93NUMPY" or content[6:8] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise Unreadable("is not a .npy file")
    begin = 10 if content[6] == 1 else 12
    length = int.from_bytes(content[8:begin], "little")
    text = content[begin : begin + min(length, MAX_HEADER_BYTES)].decode("latin-1")
    if len(text) < length:
        raise Unreadable("its .npy header is cut short or too long")
    return _read_header(text, begin + length)


@lru_cache(maxsize=4096)  # thousands of files share a few shapes
def _read_header(text: str, begin: int) -> Header:
    items = _parse_items(text)
    if "O" in items["descr"]:
        raise Unreadable("holds Python objects (a pickle), which are never loaded; save it as float16 or float32")
    if not FLOAT.fullmatch(items["descr"]):
        raise Unreadable(f"holds {items['descr'][:20]!r}, not float16, float32 or float64")
    numbers = re.findall(r"\d+", items["shape"])
    if len(numbers) > 32 or any(len(number) > 18 for number in numbers):
        raise Unreadable("its .npy header announces an impossible shape")
    order = "F" if items["fortran_order"] == "True" else "C"
    return Header(np.dtype(items["descr"]), tuple(map(int, numbers)), order, begin)


def _parse_items(text: str) -> dict[str, str]:
    text, items, place = text.strip(), {}, 0
    if text[:1] == "{" and text[-1:] == "}":
        text = text[1:-1].strip()
        while found := ITEM.match(text, place):
            items[found["key"]] = next(
                found[kind] for kind in ("single", "double", "truth", "shape") if found[kind] is not None
            )
            place = found.end()
    if place < len(text) or set(items) != {"descr", "fortran_order", "shape"}:
        raise Unreadable("its .npy header describes no plain array")
    return items


def peek_npy(path: str) -> Header:
    """The header of a ``.npy`` file; raises as ``load_npy`` does."""
    return _read_npy(path, MAX_HEADER_BYTES)[0]


def load_npy(path: str) -> Loaded:
    """Read a ``.npy`` file whose bytes are exactly what its header announces.

    Raises:
        Unreadable: When it is missing, no regular file, too large, lying, of another type, or changing.
    """
    header, content, status = _read_npy(path, MAX_CLIP_BYTES + MAX_HEADER_BYTES)
    values = np.frombuffer(content, header.dtype, offset=header.begin)
    return Loaded(values.reshape(header.shape, order=header.order), status.st_size, status.st_mtime_ns)


def _read_npy(path: str, most: int) -> tuple[Header, bytes, os.stat_result]:
    """The header and at most so many bytes of the file, which is as long as its header says."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not block
        try:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise Unreadable("is no regular file")
            if before.st_size > MAX_CLIP_BYTES + MAX_HEADER_BYTES:
                raise Unreadable(too_large(before.st_size))
            content = os.pread(descriptor, min(most, before.st_size), 0)
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror})") from None
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise Changing("was changed while it was read")
    header = parse_header(content)
    if header.end != before.st_size or len(content) < min(most, before.st_size):
        raise Unreadable(f"has {before.st_size} bytes, its .npy header announces {header.end}")
    return header, content, before


def too_large(size: int) -> str:
    """The reason for refusing a clip of so many bytes."""
    return f"has {size} bytes, more than {MAX_CLIP_BYTES >> 20} MiB a clip; cut it into spans"


def to_clip(values: NDArray[Any], dim: int, fps: float | None) -> ClipFeatures:
    """Features in float16 from an array ``(T, D)`` or ``(D,)``; the time of row ``i`` is ``i / fps`` seconds, or ``i``.

    Raises:
        Unreadable: When the shape is another, there is no row, or a value is not finite or above float16's range.
    """
    check_shape(values.shape)
    rows = np.atleast_2d(values)
    if rows.shape[1] != dim:
        raise Unreadable(f"is {rows.shape[1]} wide, the store holds {dim}")
    if not _fits(rows):
        if not np.isfinite(rows).all():
            raise Unreadable("has values that are not finite (NaN or infinity)")
        raise Unreadable(f"has values above {TOP:.0f}, the largest of float16")
    return ClipFeatures(np.ascontiguousarray(rows, dtype="<f2"), np.arange(len(rows), dtype=np.float64) / (fps or 1.0))


def check_shape(shape: tuple[int, ...]) -> int:
    """The width of an array that can be a clip's features.

    Raises:
        Unreadable: When it is neither ``(T, D)`` nor ``(D,)``, or empty.
    """
    if len(shape) not in (1, 2):
        raise Unreadable(f"has the shape {shape}; expected (T, D) or (D,)")
    if math.prod(shape) == 0:
        raise Unreadable(f"is empty: its shape is {shape}")
    return shape[-1]


def _fits(rows: NDArray[Any]) -> bool:
    """Whether every value is finite and within float16's range."""
    if rows.dtype == np.dtype("<f2"):  # NumPy compares float16 slowly; a clear exponent bit means finite
        return bool(((rows.view(np.uint16) & 0x7C00) != 0x7C00).all())
    return bool(-TOP <= rows.min() and rows.max() <= TOP)  # NaN is neither
