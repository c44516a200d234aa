"""Streams are distributed evenly among workers, although the kernel distributes connections at random."""

import asyncio
import contextlib
import logging
import re
import time
import urllib.request

import grpc
import numpy as np
import pytest
from _helpers.servers import start_here
from _helpers.waiting import wait_until

import seedbed
from seedbed._wire import rerouting
from seedbed.v1 import InitTensorRequest, TensorSlice
from seedbed.v1.metadata import MAY_MOVE
from seedbed_server.service.balance import Balance, counts_in, table_file

ENDLESS = seedbed.spec("normal", (1 << 40,), name="endless")
LARGE = seedbed.spec("normal", (64 << 18,), name="large")
SMALL = seedbed.spec("normal", (1000,), name="small")


# Workers -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def four(start_server):
    """A server with four workers, and a function that returns the number of streams of each."""
    handle = start_server(workers=4, metrics="0", log_level="info")
    urls = re.search(r"; metrics on (.+)$", handle.banner.strip())[1].split(", ")
    return handle, lambda: [open_streams(url) for url in urls]


def open_streams(url):
    with urllib.request.urlopen(url, timeout=5) as response:
        return int(float(re.search(r"^seedbed_open_streams (\S+)$", response.read().decode(), re.M)[1]))


def test_eight_clients_are_two_per_worker(four):
    handle, counts = four
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            client = stack.enter_context(seedbed.connect(handle.target, timeout=60))
            next(stack.enter_context(contextlib.closing(client.iter_chunks(ENDLESS))))
        assert counts() == [2, 2, 2, 2]
    assert wait_until(lambda: counts() == [0, 0, 0, 0])
    code, log = handle.terminate()
    assert code == 0
    assert log.count("rpc=InitTensor") == 8  # calls that moved are not logged
    assert "WARNING" not in log
    assert "UNAVAILABLE" not in log


def test_the_streams_of_one_client_are_distributed(four):
    handle, counts = four
    with seedbed.connect(handle.target, timeout=60) as client, contextlib.ExitStack() as stack:
        for _ in range(8):  # like threads that share a client
            next(stack.enter_context(contextlib.closing(client.iter_chunks(ENDLESS))))
        assert counts() == [2, 2, 2, 2]


def test_the_streams_of_coroutines_are_distributed(four):
    handle, counts = four

    async def main():
        async with seedbed.aio.connect(handle.target, timeout=60) as client:
            streams = [client.iter_chunks(ENDLESS) for _ in range(8)]
            for stream in streams:
                await anext(stream)
            found = counts()
            for stream in streams:
                await stream.aclose()
        return found

    assert asyncio.run(main()) == [2, 2, 2, 2]


def test_the_stripes_of_a_tensor_are_distributed(four):
    handle, counts = four
    seen = []

    def wait_for_all(_done, _total):
        """Blocks the first progress report until every worker has a stripe; reports are sequential."""
        if not seen:
            seen.append(wait_until(lambda: counts() == [1, 1, 1, 1], 20))

    with seedbed.connect(handle.target, timeout=60, connections=4) as client:
        # So large that each stripe may move 32 times: one of four workers is missed once in 10,000 runs.
        client.init(seedbed.spec("zeros", (256 << 20,)), progress=wait_for_all)
    assert seen == [True]


# One worker, and a table that the test writes as if it were another --------------------------------------------------


@pytest.fixture
def table():
    return counts_in(table_file(2))


@pytest.fixture
def target(table):
    server = start_here(balance=Balance(table, 0))
    table[1] = 0
    yield server.addresses[0]
    server.stop(0)
    assert table[0] == -1


@contextlib.contextmanager
def one_stream(target):
    with seedbed.connect(target, timeout=30) as client, contextlib.closing(client.iter_chunks(ENDLESS)) as chunks:
        next(chunks)
        yield chunks


def attempts(monkeypatch):
    """The number of moves that each attempt had left."""
    moves_left = []
    original = rerouting.metadata
    monkeypatch.setattr(rerouting, "metadata", lambda route: moves_left.append(route.moves) or original(route))
    return moves_left


@pytest.mark.parametrize("client", [seedbed.connect, seedbed.aio.connect])
def test_a_call_that_reaches_no_other_worker_is_served(monkeypatch, target, table, caplog, client):
    caplog.set_level(logging.WARNING)
    with one_stream(target):
        moves_left = attempts(monkeypatch)
        connected = client(target, timeout=30, connections=1)
        began = time.monotonic()
        if client is seedbed.connect:
            array = connected.init(LARGE)
            connected.close()
        else:

            async def main():
                async with connected:
                    return await connected.init(LARGE)

            array = asyncio.run(main())
        assert moves_left == [8, 7, 6, 5, 4, 3, 2, 1, 0]
        assert time.monotonic() - began < 10
        assert (array[:2048] == np.arange(2048)).all()
        assert wait_until(lambda: table[0] == 1)
    assert wait_until(lambda: table[0] == 0)
    assert not [record for record in caplog.records if record.name.startswith("seedbed")]


def test_small_tensors_do_not_move(monkeypatch, target):
    with one_stream(target), seedbed.connect(target) as client:
        moves_left = attempts(monkeypatch)
        client.init(SMALL)
        list(client.init_model([SMALL] * 3))
    assert moves_left == [0, 0]


def test_calls_do_not_move_while_the_other_worker_has_as_many_streams(monkeypatch, target, table):
    with one_stream(target), seedbed.connect(target, connections=1) as client:
        for others in (1, 2, -1):  # -1: not serving
            table[1] = others
            moves_left = attempts(monkeypatch)
            client.init(LARGE)
            assert moves_left == [8]


def test_other_clients_are_never_refused(target):
    request = InitTensorRequest(spec=SMALL).SerializeToString()
    with one_stream(target), grpc.insecure_channel(target) as channel:
        for metadata in ((), ((MAY_MOVE, "0"),)):
            responses = channel.unary_stream("/seedbed.v1.InitService/InitTensor")(
                request, timeout=10, metadata=metadata
            )
            assert len(list(responses)) == 1


def test_a_stream_continues_while_another_moves(target):
    with seedbed.connect(target, timeout=30) as client:
        first = client.iter_chunks(ENDLESS)
        next(first)
        client.init(LARGE)
        assert next(first)[0] > 0
        first.close()


def test_a_new_worker_counts_from_zero(table):
    table[0] = 7  # left by a worker that was killed
    balance = Balance(table, 0)
    assert table[0] == -1
    balance.start()
    assert table[0] == 0


# The number of moves -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mib", "moves"), [(0, 0), (7, 0), (8, 1), (64, 8), (1 << 20, 32)])
def test_longer_calls_may_move_more_often(mib, moves):
    half = TensorSlice(spec=seedbed.spec("normal", (mib << 17,)))
    assert rerouting.moves([half, half]) == moves
