"""Tasks that threads take in turns."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from seedbed_server import engine
from seedbed_server.engine.backends.base import never
from seedbed_server.engine.backends.turns import take_turns


@pytest.fixture
def pool():
    with ThreadPoolExecutor(3) as threads:
        yield threads


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_each_task_is_done_once(threads, pool) -> None:
    done = []
    take_turns(pool, threads, never, lambda task, _: done.append(task), range(100))
    assert sorted(done) == list(range(100))


def test_no_tasks_are_no_work(pool) -> None:
    take_turns(pool, 4, never, lambda *_: pytest.fail("there is none"), [])


def test_an_error_of_any_thread_is_raised_and_ends_the_others(pool) -> None:
    at_work = 0

    def work(task, check) -> None:
        nonlocal at_work
        if task == 3:
            raise MemoryError
        at_work += 1
        try:
            for _ in range(200):
                check()
                time.sleep(0.01)
        finally:
            at_work -= 1

    with pytest.raises(MemoryError):
        take_turns(pool, 4, never, work, range(4))
    assert at_work == 0


def test_who_waits_for_the_last_tasks_asks_too(pool) -> None:
    mine, begun = threading.get_ident(), threading.Event()

    def work(_, check) -> None:
        if threading.get_ident() == mine:
            assert begun.wait(10)
            return
        begun.set()
        while True:
            check()
            time.sleep(0.001)

    with pytest.raises(engine.Cancelled):
        take_turns(pool, 2, begun.is_set, work, range(2))


def test_what_is_done_is_told(pool) -> None:
    told = []
    take_turns(None, 1, engine.Watch(never, told.append), lambda _, check: check(), range(4), is_told=True)
    assert told == [0, 0.25, 0.5, 0.75]
