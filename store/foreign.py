"""The one careful reader of HDF5 files that we did not write. It runs in a process of its own (see ``sandbox``).

An HDF5 file can name other files (links, external storage, virtual datasets), load code (filter plugins), announce
sizes it does not have, and crash the HDF5 library where it is malformed. So every object is looked at before any is
read, each is reached by hard links alone, and once the file is open this process can open no other.
"""

import math
import os
import resource
import sys
from collections.abc import Iterator
from functools import cache
from multiprocessing.connection import Connection

import numpy as np

# h5py's compiled modules have no types.
from h5py import h5d, h5f, h5g, h5i, h5l, h5o, h5p, h5pl, h5s, h5t, h5z  # pyright: ignore[reportAttributeAccessIssue]

from ..child import send_message, serve

MEMORY_BYTES = 1 << 30
MAX_DECLARED = 4 << 30  #: bytes of one dataset.
MAX_RATIO = 1000  #: declared bytes for a stored one; deflate reaches 1032 where everything is 0.
HARMLESS = 16 << 20  #: no ratio is asked of a dataset this small.
MAX_CHUNK = 256 << 20
MAX_DEPTH = 32  #: groups within groups.
BATCH = 1000  #: datasets named in one message.
FILTERS = {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32, h5z.FILTER_LZF}
LINKS = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "an external link"}
FLOATS = (h5t.IEEE_F16LE, h5t.IEEE_F16BE, h5t.IEEE_F32LE, h5t.IEEE_F32BE, h5t.IEEE_F64LE, h5t.IEEE_F64BE)
#: what is asked for -> whether a type is of that kind, and its words.
KINDS = {
    "float": (lambda kind: any(kind.equal(known) for known in FLOATS), "float16, float32 or float64"),
    "integer": (lambda kind: kind.get_class() == h5t.INTEGER, "whole numbers"),
    "text": (lambda kind: kind.get_class() == h5t.STRING, "text"),
}


class Refused(Exception):
    """The whole file is not read."""


class Unusable(Exception):
    """This dataset gives no array, the others may."""


def list_datasets(group: h5g.GroupID, prefix: str = "", seen: set | None = None) -> Iterator[dict]:
    """What each dataset says of itself, without reading any: ``name``, ``shape``, ``size`` in bytes, ``problem``.

    Raises:
        Refused: At the first object that is not plainly within this file.
    """
    seen = set() if seen is None else seen
    info = h5o.get_info(group)
    if (info.fileno, info.addr) in seen or prefix.count("/") > MAX_DEPTH:
        raise Refused(f"group {prefix or '/'!r} has two names or lies too deep")
    seen.add((info.fileno, info.addr))
    links: list[tuple[bytes, int]] = []
    group.links.iterate(lambda name, info: links.append((name, info.type)), info=True)
    for link, kind in links:
        name = prefix + link.decode("utf-8", "surrogateescape")
        _check_link(link, kind, name)
        opened = h5o.open(group, link)
        if isinstance(opened, h5g.GroupID):
            yield from list_datasets(opened, f"{name}/", seen)
        elif isinstance(opened, h5d.DatasetID):
            yield _describe(opened, name)
        else:
            raise Refused(f"{name!r} is a named type")


def _check_link(link: bytes, kind: int, name: str) -> None:
    if kind != h5l.TYPE_HARD:
        raise Refused(f"{name!r} is {LINKS.get(kind, 'an unknown link')}, which could lead to another file")
    if b"/" in link or link in (b"", b"."):
        raise Refused(f"{name!r} has a name that HDF5 takes for another")


def _describe(dataset: h5d.DatasetID, name: str, wanted: str = "float") -> dict:
    # In this order: asking a virtual dataset for its shape opens the files that it names.
    _check_storage(dataset, name)
    kind, shape = dataset.get_type(), _shape(dataset)
    if kind.committed():
        raise Refused(f"{name!r} has a named type")
    size = math.prod(shape) * kind.get_size()
    stored, whole = dataset.get_storage_size(), _file_size(dataset)
    if size > MAX_DECLARED or stored > whole or (size > HARMLESS and size > MAX_RATIO * stored):
        raise Refused(f"{name!r} declares {size} bytes, {min(stored, whole)} are stored")
    return {"name": name, "shape": shape, "size": size, "problem": _problem(dataset, kind, shape, stored, wanted)}


def _file_size(dataset: h5d.DatasetID) -> int:
    return h5i.get_file_id(dataset).get_filesize()


def _shape(dataset: h5d.DatasetID) -> tuple[int, ...]:
    space = dataset.get_space()
    return () if space.get_simple_extent_type() != h5s.SIMPLE else tuple(space.get_simple_extent_dims())


def _check_storage(dataset: h5d.DatasetID, name: str) -> None:
    layout = dataset.get_create_plist()
    if layout.get_layout() == h5d.VIRTUAL:
        raise Refused(f"{name!r} is a virtual dataset, which lies in other files")
    if layout.get_layout() not in (h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED) or layout.get_external_count():
        raise Refused(f"{name!r} has external storage: its bytes lie in other files")
    for place in range(layout.get_nfilters()):
        if (code := layout.get_filter(place)[0]) not in FILTERS:
            raise Refused(f"{name!r} has the filter {code}; only gzip, lzf, shuffle and fletcher32 are read")
    if layout.get_layout() == h5d.CHUNKED:
        if math.prod(layout.get_chunk()) * dataset.get_type().get_size() > MAX_CHUNK:
            raise Refused(f"{name!r} has chunks of more than {MAX_CHUNK >> 20} MiB")


def _problem(dataset: h5d.DatasetID, kind: h5t.TypeID, shape: tuple[int, ...], stored: int, wanted: str) -> str | None:
    """Why the dataset gives no array of the kind; what was never written would read as zeros."""
    if not KINDS[wanted][0](kind):
        what = type(kind).__name__.removeprefix("Type").removesuffix("ID").lower()
        return f"holds {what}, not {KINDS[wanted][1]}"
    if stored == 0 and math.prod(shape) and shape:
        return "was declared but never written"
    layout = dataset.get_create_plist()
    if layout.get_layout() == h5d.CHUNKED:
        chunks = math.prod(-(-axis // chunk) for axis, chunk in zip(shape, layout.get_chunk(), strict=True))
        if dataset.get_num_chunks() != chunks:
            return "was only partly written"
    return None


def read_dataset(root: h5g.GroupID, name: str, most: int, wanted: str = "float") -> np.ndarray:
    """All values of a dataset, in the type that the file has; texts as objects.

    Raises:
        Refused: When it is not plainly within this file.
        Unusable: When it holds nothing of the kind, is not whole, or has more than ``most`` bytes.
    """
    at = root
    for part in name.encode("utf-8", "surrogateescape").split(b"/"):
        _check_link(part, at.links.get_info(part).type, name)
        at = h5o.open(at, part)
    facts = _describe(at, name, wanted)
    if facts["problem"] or facts["size"] > most:
        raise Unusable(facts["problem"] or f"has {facts['size']} bytes, more than {most >> 20} MiB a clip")
    values = np.empty(facts["shape"], at.dtype)
    if values.size:
        at.read(h5s.ALL, h5s.ALL, values)
    return values


def read_texts(root: h5g.GroupID, name: str, most: int) -> list[str]:
    """All texts of a dataset ``(N,)``; raises as ``read_dataset`` does. What is not UTF-8 in them is replaced."""
    values = read_dataset(root, name, most, "text")
    if values.ndim != 1:
        raise Unusable(f"has the shape {values.shape}; expected (N,)")
    texts = [bytes(value or b"") for value in values.tolist()]
    if sum(map(len, texts)) > most:
        raise Unusable(f"has more than {most} bytes of text")
    return [text.decode(errors="replace") for text in texts]


def open_alone(path: str) -> h5g.GroupID:
    """Open the file; from then on this process can open no file and load no plugin."""
    while h5pl.size():
        h5pl.remove(0)
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fapl_sec2()
    access.set_file_locking(False, True)
    try:
        file = h5f.open(os.fsencode(path), h5f.ACC_RDONLY, fapl=access)
        for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
            resource.setrlimit(limit, (0, 0))
        return h5g.open(file, b"/")
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise Refused(f"is not a whole HDF5 file ({error})") from None


def answer(connection: Connection, task: dict) -> bool:
    """Answer ``list`` with the datasets in groups, ``read`` with an array or texts; the first task opens the file."""
    try:
        root = _root()
        if task["kind"] == "list":
            _send_list(connection, root)
        elif task["wanted"] == "text":
            send_message(connection, kind="texts", texts=read_texts(root, task["name"], task["most"]))
        else:
            values = read_dataset(root, task["name"], task["most"], task["wanted"])
            send_message(connection, kind="array", shape=values.shape, dtype=values.dtype.str)
            connection.send_bytes(values.reshape(-1).data.cast("B") if values.size else b"")
    except Refused as refused:
        send_message(connection, kind="refused", reason=str(refused))
    except Unusable as unusable:
        send_message(connection, kind="unusable", reason=str(unusable))
    except MemoryError:
        send_message(connection, kind="unusable", reason=f"needs more than {MEMORY_BYTES >> 20} MiB of memory")
    except Exception as error:  # whatever h5py makes of a malformed file
        kind = "refused" if task["kind"] == "list" else "unusable"
        send_message(connection, kind=kind, reason=f"is damaged ({' '.join(str(error).split())[:200]})")
    return True


@cache
def _root() -> h5g.GroupID:
    return open_alone(sys.argv[2])


def _send_list(connection: Connection, root: h5g.GroupID) -> None:
    batch: list[dict] = []
    for entry in list_datasets(root):
        batch.append(entry)
        if len(batch) == BATCH:
            send_message(connection, kind="datasets", datasets=batch)
            batch = []
    send_message(connection, kind="datasets", datasets=batch)
    send_message(connection, kind="end")


if __name__ == "__main__":
    serve(answer, MEMORY_BYTES)
