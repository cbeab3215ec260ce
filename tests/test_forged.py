"""HDF5 files of others that lead out of themselves, or lie: refused, and nothing else is opened."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5s, h5t
from small_foreign import ROWS, good_file

from longreel.errors import ForeignRefused
from longreel.store import ForeignFile


def external_storage(file: h5py.File, canary: Path) -> None:
    file.create_dataset("bad", (5, 8), "<f4", external=[(str(canary), 0, h5py.h5f.UNLIMITED)])


def virtual(file: h5py.File, canary: Path) -> None:
    layout = h5py.VirtualLayout((5, 8), "<f4")
    layout[:] = h5py.VirtualSource(str(canary), "half", (5, 8))
    file.create_virtual_dataset("bad", layout)


def virtual_without_end(file: h5py.File, canary: Path) -> None:
    layout = h5py.VirtualLayout((5, 8), "<f4", maxshape=(None, 8))
    source = h5py.VirtualSource(str(canary), "half", (5, 8), maxshape=(None, 8))
    layout[: h5s.UNLIMITED, :] = source[: h5s.UNLIMITED, :]
    file.create_virtual_dataset("bad", layout)


def unknown_filter(file: h5py.File, canary: Path) -> None:
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_chunk((5, 8))
    layout.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
    created = h5py.h5d.create(file.id, b"bad", h5t.IEEE_F32LE, h5s.create_simple((5, 8)), layout)
    h5py.Dataset(created)[...] = ROWS


def named_type(file: h5py.File, canary: Path) -> None:
    file["type"] = np.dtype("<f4")
    file.create_dataset("bad", data=ROWS, dtype=file["type"])


def mostly_absent(file: h5py.File, canary: Path) -> None:
    file.create_dataset("bad", (1 << 20, 64), "<f4", chunks=(16, 64))[:16] = 1.0


def cycle(file: h5py.File, canary: Path) -> None:
    top = file.create_group("x")
    top.create_group("y")["bad"] = top


def diamonds(file: h5py.File, canary: Path) -> None:
    """2 ** 40 ways to one dataset."""
    at = file.create_group("bad")
    for _ in range(40):
        below = at.create_group("left")
        at["right"] = below
        at = below
    at["x"] = ROWS


def through_a_group(link: Callable[[Path], object]) -> Callable[[h5py.File, Path], None]:
    """The dataset lies in a group that a link leads to."""

    def forge(file: h5py.File, canary: Path) -> None:
        file["real/x"] = ROWS
        file["bad"] = link(canary)

    return forge


#: what is wrong -> how to make it, and words of the refusal.
FORGERIES: dict[str, tuple[Callable[[h5py.File, Path], object], str]] = {
    "external link": (through_a_group(lambda canary: h5py.ExternalLink(str(canary), "half")), "an external link"),
    "external link to a group": (through_a_group(lambda canary: h5py.ExternalLink(str(canary), "/a")), "external link"),
    "soft link": (through_a_group(lambda canary: h5py.SoftLink("/real/x")), "a soft link"),
    "soft link to a group": (through_a_group(lambda canary: h5py.SoftLink("/real")), "a soft link"),
    "soft link to nothing": (through_a_group(lambda canary: h5py.SoftLink("/nowhere")), "a soft link"),
    "external storage": (external_storage, "has external storage"),
    "virtual dataset": (virtual, "a virtual dataset"),
    "virtual dataset without end": (virtual_without_end, "a virtual dataset"),
    "unknown filter": (unknown_filter, "has the filter 32015"),
    "filter of the library": (
        lambda file, canary: file.create_dataset("bad", data=ROWS.astype("i4"), scaleoffset=8) and None,
        "has the filter 6",
    ),
    "8 TB declared": (
        lambda file, canary: file.create_dataset("bad", (1 << 40, 2), "<f4") and None,
        "declares 8796093",
    ),
    "a million times the stored": (mostly_absent, "declares 268435456 bytes"),
    "huge chunks": (
        lambda file, canary: file.create_dataset("bad", (4, 8), "f4", chunks=(1 << 24, 8), maxshape=(None, 8)) and None,
        "has chunks of more than",
    ),
    "named type": (named_type, "named type"),
    "group in itself": (cycle, "has two names"),
    "2 ** 40 ways": (diamonds, "has two names or lies too deep"),
}


@pytest.mark.parametrize("wrong", FORGERIES)
def test_a_file_that_leads_out_of_itself_or_lies_is_refused_and_nothing_else_is_opened(tmp_path, watch_opens, wrong):
    forge, words = FORGERIES[wrong]
    canary, path = good_file(tmp_path / "canary.h5"), good_file(tmp_path / "f.h5")
    with h5py.File(path, "r+") as file:
        forge(file, canary)
    opened = watch_opens(canary)
    with pytest.raises(ForeignRefused, match=words) as caught:
        ForeignFile(path)
    assert str(path) in str(caught.value)
    assert "'bad" in str(caught.value) or "'type'" in str(caught.value) or "'x/" in str(caught.value)
    assert not opened()
    canary.read_bytes()
    assert opened()


def test_once_the_file_is_open_its_reader_can_open_no_other(tmp_path):
    script = (
        "import sys; from longreel.store.foreign import open_alone\n"
        "root = open_alone(sys.argv[1])\n"
        "try:\n    open(sys.argv[2])\nexcept OSError as error:\n    print(error.errno, root.valid)"
    )
    paths = [str(good_file(tmp_path / name)) for name in ("f.h5", "canary.h5")]
    done = subprocess.run([sys.executable, "-P", "-c", script, *paths], capture_output=True, text=True, timeout=60)
    assert done.stdout == "24 1\n", done.stderr  # EMFILE
