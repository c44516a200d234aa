"""Read-ahead: which thread makes messages, when, how many, and what happens when a stream ends."""

import threading

import pytest
from _helpers.fake_backend import FakeBackend
from _helpers.waiting import wait_until

import seedbed
from seedbed.v1 import InitTensorRequest, InitTensorResponse
from seedbed_server import engine
from seedbed_server.service.ahead import ReadAhead
from seedbed_server.service.servicer import InitServicer
from seedbed_server.service.settings import Settings


def threaded(made):
    """Makes messages that hold the name of the thread that made them."""

    def make(offset):
        made.append(offset)
        return threading.current_thread().name.encode()

    return make


def test_a_message_is_made_while_the_previous_one_is_sent():
    made = []
    messages = ReadAhead(2).messages(threaded(made), range(4))
    for sent in range(3):
        next(messages)
        assert wait_until(lambda sent=sent: made == list(range(sent + 2)))
    assert next(messages).startswith(b"ahead")
    assert made == [0, 1, 2, 3]


def test_a_single_message_is_made_by_the_calling_thread():
    assert list(ReadAhead(2).messages(threaded([]), range(1))) == [threading.current_thread().name.encode()]


def test_nothing_is_made_ahead_while_all_cores_are_busy():
    made = []
    ahead = ReadAhead(4)
    first, second, third = (ahead.messages(threaded(made), range(3)) for _ in range(3))
    assert [next(first), next(second), next(third)] == [threading.current_thread().name.encode()] * 3
    assert wait_until(lambda: len(made) == 5)  # the first two streams read ahead before the third arrived
    assert not next(first).startswith(threading.current_thread().name.encode())
    assert next(first) == threading.current_thread().name.encode()
    second.close()  # type: ignore[attr-defined]
    third.close()  # type: ignore[attr-defined]
    made.clear()
    next(fourth := ahead.messages(threaded(made), range(3)))
    assert wait_until(lambda: made == [0, 1])
    fourth.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("cores", [1, 4])
def test_an_error_is_raised_when_its_message_is_due(cores):
    def make(offset):
        return b"" if offset < 2 else 1 // 0

    messages = ReadAhead(cores).messages(make, range(4))
    assert [next(messages), next(messages)] == [b"", b""]
    with pytest.raises(ZeroDivisionError):
        next(messages)


def test_closing_a_stream_waits_for_the_message_in_progress():
    within, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def make(offset):
        if offset:
            within.set()
            assert may_end.wait(10)
            ended.set()
        return b""

    messages = ReadAhead(2).messages(make, range(3))
    next(messages)
    assert within.wait(10)
    threading.Timer(0.05, may_end.set).start()
    messages.close()  # type: ignore[attr-defined]
    assert ended.is_set()


# A servicer ----------------------------------------------------------------------------------------------------------


class ManyCores(FakeBackend):
    threads = 16


def stream(servicer, cancelled=lambda: False, count=100):
    request = InitTensorRequest(spec=seedbed.spec("zeros", (count,)))
    return servicer.init_tensor(request, cancelled)


def test_a_tensor_is_read_ahead_and_its_buffers_are_returned():
    backend = ManyCores()
    servicer = InitServicer(backend, Settings(chunk_bytes=16))
    values = []
    for message in stream(servicer):
        values += memoryview(InitTensorResponse.FromString(message).chunk.payload).cast("f").tolist()
    assert values == list(range(100))
    assert [first for _, first, _ in backend.fills] == list(range(0, 100, 4))
    assert len(servicer._chunks._idle_buffers) == len(backend.buffers) <= 2


@pytest.mark.parametrize("end", ["closed", "cancelled"])
def test_a_stream_that_ends_returns_its_buffers_and_turns(end):
    backend = ManyCores(seconds=0.05)
    servicer = InitServicer(backend, Settings(chunk_bytes=16))
    cancelled = threading.Event()
    messages = stream(servicer, cancelled.is_set)
    next(messages)
    assert wait_until(lambda: len(backend.fills) == 2)
    if end == "closed":
        messages.close()
    else:
        cancelled.set()
        with pytest.raises(engine.Cancelled):
            next(messages)
    assert len(servicer._chunks._idle_buffers) == len(backend.buffers)
    assert servicer._chunks._turns._free == engine.usable_cores()
    assert servicer._chunks._read_ahead._streams == 0
