"""How a process that trains gets its memory from the system."""

import ctypes
import os

ARENA_MAX, MMAP_MAX, TRIM_THRESHOLD = -8, -4, -1  #: glibc's numbers of the options, from malloc.h.


def keep_freed_memory() -> None:
    """Have this process keep what it frees, and take it in large pages; its children ask for large pages too.

    Every step of a training asks for the same gigabytes again. Without this the C library gives each large tensor back
    to the system when it is freed, and the next one is zeroed and mapped anew, 4 KiB at a time: half of the time of a
    NetVLAD step (docs/benchmarks.md). No bit changes; the process stays as large as it once was. All threads take from
    one pool: where each has its own, what one allocates and another frees is not found again, and a training that reads
    from disk grows by a gigabyte, at the cost of the files that the system could keep in memory.

    Large pages are asked for by torch, which reads the variable once, so call this before torch is imported. Where the
    C library is not glibc the rest is left out.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(ARENA_MAX, 1)
        library.mallopt(MMAP_MAX, 0)
        library.mallopt(TRIM_THRESHOLD, -1)  # never
