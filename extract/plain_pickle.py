"""Pickles of plain data and NumPy arrays, read without running anything that they hold.

A pickle is a program. This machine for it knows lists, dicts, tuples, texts, numbers and the few calls by which NumPy
writes an array; stand-ins of this module are called for those, and neither NumPy's functions nor any others.
"""

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import ForeignRefused

#: what a type may be called -> bytes of one number.
NUMBERS = {"f2": 2, "f4": 4, "f8": 8, **{f"{kind}{size}": size for kind in "iu" for size in (1, 2, 4, 8)}, "b1": 1}


class Asked(Exception):
    """The file asks for something that is no plain data."""


class Type:
    """Stands in for ``numpy.dtype``."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or code.lstrip("<>=|") not in NUMBERS:
            raise Asked(f"an array of {str(code)[:20]!r}")
        self.order, self.code = "<", code.lstrip("<>=|")

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise Asked("a type of its own making")
        self.order = ">" if state[1] == ">" else "<"

    def read(self, content: object, shape: object, order: str = "C") -> NDArray[Any]:
        """The array of that shape whose bytes these are."""
        given = shape if isinstance(shape, tuple) else (shape,)
        sizes = tuple(size for size in given if type(size) is int and size >= 0)
        if not isinstance(content, bytes | bytearray) or len(sizes) < len(given):
            raise Asked("an array whose shape or content is no such thing")
        values = np.frombuffer(content, np.dtype(self.order + self.code))
        if len(sizes) > 8 or values.size != math.prod(sizes):
            raise Asked(f"an array of {values.size} numbers in the shape {sizes}")
        return values.reshape(sizes, order="F" if order == "F" else "C")


class Array:
    """Stands in for ``numpy.ndarray`` while its content is not known; ``values`` has it then."""

    def __init__(self) -> None:
        self.values: NDArray[Any] = np.empty(0)

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], Type):
            raise Asked("an array that is none")
        _, shape, kind, fortran, content = state
        self.values = kind.read(content, shape, "F" if fortran else "C")


def _begin_array(*_: object) -> Array:
    return Array()


def _read_buffer(content: object, kind: object, shape: object, order: object = "C") -> Array:
    if not isinstance(kind, Type):
        raise Asked("an array of no type")
    array = Array()
    array.values = kind.read(content, shape, str(order))
    return array


def _read_scalar(kind: object, content: object) -> int | float | bool:
    if not isinstance(kind, Type):
        raise Asked("a number of no type")
    return kind.read(content, ()).item()


def _encode(text: object, encoding: object = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Asked("text in another encoding")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """What old pickles call for an empty text of bytes; with arguments it is refused."""
    return b""


#: what a file may name -> what it gets. Older NumPy calls its package ``core``, newer ``_core``.
STAND_INS: dict[str, Callable[..., object]] = {
    "numpy.ndarray": Array,
    "numpy.dtype": Type,
    "_codecs.encode": _encode,
    "__builtin__.bytes": _no_bytes,
    **{f"numpy.{core}.multiarray._reconstruct": _begin_array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _read_scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _read_buffer for core in ("core", "_core")},
}
CALLED = [call for name, call in STAND_INS.items() if name != "numpy.ndarray"]
#: operations that make or call other objects; ``REDUCE`` and ``BUILD`` are ours.
LEFT_OUT = b"".join(
    (
        *(pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.PERSID, pickle.BINPERSID),
        *(pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
    )
)


# The machine of the standard library that is written in Python: the other one sets aside memory as a file asks for it.
class _Machine(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    stack: list[Any]

    def find_class(self, module: str, name: str) -> object:
        if (asked := f"{module}.{name}") not in STAND_INS:
            raise Asked(f"{asked[:100]!r}")
        return STAND_INS[asked]

    def load_reduce(self) -> None:
        arguments, call = self.stack.pop(), self.stack[-1]
        if not isinstance(arguments, tuple) or not any(call is known for known in CALLED):
            raise Asked("a call of something that is not NumPy's")
        self.stack[-1] = call(*arguments)

    def load_build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if not isinstance(made, Array | Type):
            raise Asked("the inside of something that is no array")
        made.__setstate__(state)

    def leave_out(self) -> None:
        raise Asked("objects that are no plain data")

    dispatch: Any = {  # noqa: RUF012 - as the class above has it
        **pickle._Unpickler.dispatch,  # pyright: ignore[reportAttributeAccessIssue]
        **dict.fromkeys(LEFT_OUT, leave_out),
        pickle.REDUCE[0]: load_reduce,
        pickle.BUILD[0]: load_build,
    }


def load_plain(file: BinaryIO, path: Path) -> object:
    """What a pickle holds; arrays come as ``Array``.

    Raises:
        ForeignRefused: When it holds anything but plain data and arrays of numbers, or is damaged.
    """
    try:
        return _Machine(file).load()
    except Asked as asked:
        raise ForeignRefused(
            f"{path}: asks for {asked}, so it holds more than plain data and arrays of numbers. Reading that could run "
            f"code, and none was run. Save it as dicts, lists and float arrays where it was made."
        ) from None
    except OSError as error:
        raise ForeignRefused(f"{path}: cannot be read ({error.strerror or error}).") from None
    except Exception as error:  # damage shows in many ways, and none is a fault of ours
        raise ForeignRefused(f"{path}: is no pickle, or a damaged one ({type(error).__name__}).") from None
