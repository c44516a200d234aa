"""The fair semaphore: its limit, its order, and that no turn is lost."""

import signal
import threading
import time

import pytest
from _helpers.waiting import wait_until

from seedbed_server.service.turns import Turns


def test_turns_come_in_order():
    """A thread that asks again queues behind the threads that wait."""
    turns, order = Turns(1), []

    def take(name, times):
        for _ in range(times):
            with turns:
                order.append(name)

    with turns:
        threads = []
        for name in "abc":
            threads.append(threading.Thread(target=take, args=(name, 3)))
            threads[-1].start()
            assert wait_until(lambda: len(turns._waiting) == len(threads))
    for thread in threads:
        thread.join(10)
    assert "".join(order[:3]) == "abc"
    assert sorted(order) == sorted("abc" * 3)


def test_turns_are_limited():
    turns, within, most = Turns(3), [], []

    def take():
        for _ in range(50):
            with turns:
                within.append(1)
                most.append(len(within))
                time.sleep(0.001)  # let the other threads arrive
                within.pop()

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(most) == 8 * 50
    assert max(most) == 3


def test_an_interrupted_wait_takes_no_turn():
    """Ctrl-C may interrupt a program that samples in its own process."""
    turns = Turns(1)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with turns:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(KeyboardInterrupt), turns:
                pass
    finally:
        signal.signal(signal.SIGALRM, before)
    turn = threading.Thread(target=turns.__enter__, daemon=True)
    turn.start()
    turn.join(10)
    assert not turn.is_alive(), "the turn went to the wait that was interrupted"


def test_a_turn_that_arrives_with_the_interrupt_is_passed_on():
    turns = Turns(1)
    turns.__enter__()
    turns._give_up(threading.Lock())  # a turn that is no longer in the queue
    with turns:
        pass
