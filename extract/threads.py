"""One torch thread for each batch, as several batches run at a time."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Everything that torch computes in the block is computed by the thread that asks for it."""
    import torch  # here: the decode workers import this package without it

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
