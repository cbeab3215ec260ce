"""Work that waits for somebody else, several pieces at a time, in threads that nobody has to wait for."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Threads(Generic[Item, Result]):
    """Does some work on each item, so many at a time, in daemon threads.

    Args:
        work: Done on an item; raises nothing.
        items: What it is done on, begun in this order.
        count: Threads.
    """

    def __init__(self, work: Callable[[Item], Result], items: Sequence[Item], count: int) -> None:
        self._work, self._items = work, items
        self._begun, self._stopped = 0, False
        self._results: dict[int, Result] = {}
        self._changed = threading.Condition()
        for _ in range(min(count, len(items))):
            threading.Thread(target=self._run, daemon=True).start()

    @property
    def under_way(self) -> int:
        """Items that are begun and not done."""
        return self._begun - len(self._results)

    def results(self) -> Iterator[Result]:
        """Yield the results in the order of the items."""
        for place in range(len(self._items)):
            with self._changed:
                while place not in self._results:
                    self._changed.wait(1.0)
            yield self._results[place]

    def stop(self, patience: float) -> None:
        """Begin nothing more, and wait at most so many seconds for what is under way."""
        until = time.monotonic() + patience
        with self._changed:
            self._stopped = True
            while self.under_way and (left := until - time.monotonic()) > 0:
                self._changed.wait(min(left, 1.0))

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._stopped or self._begun == len(self._items):
                    # A process that a thread has started ends with it, and others may still want it.
                    self._changed.wait_for(lambda: self._stopped or not self.under_way)
                    return
                place, self._begun = self._begun, self._begun + 1
            result = self._work(self._items[place])
            with self._changed:
                self._results[place] = result
                self._changed.notify_all()
