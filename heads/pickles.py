"""Reading files of ``torch.save`` that others made, without running anything they hold."""

import re
import struct
import zipfile
from pathlib import Path

import torch

from ..errors import ForeignRefused

NUMBERS = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i"}  #: NumPy's name -> that of struct, little-endian.


class NumpyType:
    """Stands in for ``numpy.dtype``: keeps its name, and nothing else."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = str(code)

    def __setstate__(self, state: object) -> None:
        """Byte order and flags, of which only a foreign byte order would change a number."""
        if not isinstance(state, tuple) or ">" in state:
            raise ValueError("a NumPy type of another byte order")


def read_number(kind: object, data: object) -> float:
    """Stands in for ``numpy.core.multiarray.scalar``."""
    if not isinstance(kind, NumpyType) or kind.code not in NUMBERS or not isinstance(data, bytes):
        raise ValueError("a NumPy scalar that is no plain number")
    return struct.unpack(NUMBERS[kind.code], data)[0]


#: What is called when a file asks for one of these. Python's own functions of these names are never reached.
STAND_INS = [
    (NumpyType, "numpy.dtype"),
    (read_number, "numpy.core.multiarray.scalar"),
    (read_number, "numpy._core.multiarray.scalar"),
]


def read_pickle(path: Path) -> object:
    """What ``torch.save`` wrote: tensors, numbers, text and containers of them.

    ``torch.load(weights_only=True)``, whose unpickler calls nothing but PyTorch's functions for making tensors; here
    it may also meet NumPy's single numbers, such as a best mAP, for which functions of this module stand in.

    Raises:
        ForeignRefused: When the file cannot be read, or asks for anything else.
    """
    try:
        with torch.serialization.safe_globals(STAND_INS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError as error:
        raise ForeignRefused(f"{path}: cannot be read ({error.strerror or error}).") from None
    except Exception as error:  # damage shows in many ways, and none is a fault of ours
        if wanted := re.search(r"GLOBAL (\S+)", str(error)):
            raise ForeignRefused(
                f"{path}: asks for {wanted[1]}, so it holds more than tensors and numbers. Reading that could run "
                f"code, and none was run. Save its tensors alone where it was made: torch.save with plain dicts."
            ) from None
        raise ForeignRefused(f"{path}: is no file of torch.save, or damaged ({type(error).__name__}).") from None
