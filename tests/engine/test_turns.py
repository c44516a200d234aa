"""Tasks that several threads take in turn."""

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


def test_without_tasks_no_work_is_done(pool) -> None:
    take_turns(pool, 4, never, lambda *_: pytest.fail("no task was given"), [])


def test_an_error_on_any_thread_is_raised_and_stops_the_others(pool) -> None:
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


def test_cancellation_is_polled_while_waiting_for_the_last_tasks(pool) -> None:
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


def test_progress_is_reported(pool) -> None:
    reports = []
    watch = engine.Watch(never, reports.append)
    take_turns(None, 1, watch, lambda _, check: check(), range(4), reports_progress=True)
    assert reports == [0, 0.25, 0.5, 0.75]
