"""Work that other threads begin before its results are needed."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def results_of(submitted: Iterable[Future[Result]], ahead: int) -> Iterator[Result]:
    """What becomes of each, in order; so many more than the one that is waited for have been submitted by then."""
    waiting: deque[Future[Result]] = deque()
    for future in submitted:
        waiting.append(future)
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
