"""The memory of a process that trains: what one thread frees, another finds again."""

import ctypes
import subprocess
import sys

import pytest

#: eight threads, each of which allocates, one after another; then the C library's own account of its pools.
THREADS = """
import ctypes, sys, threading
if sys.argv[1] == "kept":
    from longreel.memory import keep_freed_memory
    keep_freed_memory()
library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
together = threading.Barrier(8)
def allocate():
    together.wait()
    block = library.malloc(100_000)
    together.wait()
    library.free(block)
threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
library.malloc_info(0, ctypes.c_void_p.in_dll(library, "stdout"))
library.fflush(None)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
@pytest.mark.parametrize(("how", "one"), [("kept", True), ("as it is", False)])
def test_all_threads_share_one_pool(how, one):
    done = subprocess.run([sys.executable, "-c", THREADS, how], capture_output=True, text=True, check=True)
    assert (done.stdout.count("<heap nr=") == 1) == one
