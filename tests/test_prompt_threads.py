"""Threads that nobody has to wait for: order, what one has started, and stopping."""

import threading
import time

from longreel.generate.threads import Threads


def test_results_come_in_the_order_of_the_items_whoever_is_done_first():
    def work(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    items = [0.2, 0.0, 0.1, 0.0]
    assert list(Threads(work, items, 3).results()) == items


def test_a_thread_lives_until_all_work_is_done_since_what_it_started_ends_with_it():
    gate, workers = threading.Event(), []

    def work(item: int) -> bool:
        workers.append(threading.current_thread())
        if item == 1:
            gate.wait(30)
        return all(worker.is_alive() for worker in workers)

    threads = Threads(work, [0, 1], 2)
    while len(workers) < 2:
        time.sleep(0.01)
    time.sleep(0.2)  # the first has long been done
    gate.set()
    assert list(threads.results()) == [True, True]


def test_stopping_begins_nothing_more_and_waits_no_longer_than_asked():
    begun, gate = [], threading.Event()

    def work(item: int) -> None:
        begun.append(item)
        gate.wait(30)

    threads = Threads(work, range(9), 2)
    while len(begun) < 2:
        time.sleep(0.01)
    before = time.monotonic()
    threads.stop(0.2)
    assert time.monotonic() - before < 5
    assert threads.under_way == 2
    gate.set()
    time.sleep(0.1)
    assert begun == [0, 1]
