"""An HDF5 file that others wrote, with nothing wrong in it."""

from pathlib import Path

import h5py
import numpy as np

ROWS = np.arange(40, dtype=np.float32).reshape(5, 8)


def good_file(path: Path) -> Path:
    """Datasets in every plain way of storing them."""
    with h5py.File(path, "w") as file:
        file["a/plain"] = ROWS
        file["a/row"] = ROWS[0]
        file.create_dataset("a/b/gzip", data=ROWS, chunks=(2, 8), compression="gzip", shuffle=True, fletcher32=True)
        file.create_dataset("lzf", data=ROWS.astype(">f8"), compression="lzf")
        file.create_dataset("half", data=ROWS.astype("<f2"))
    return path


GOOD = ["a/b/gzip", "a/plain", "a/row", "half", "lzf"]
