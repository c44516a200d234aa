"""Networks, clients and servers that fail, for real: over TCP, with signals, with processes.

After each fault no wrong byte was accepted, nothing hangs beyond its deadline, and the server holds no more than before
and answers. Elsewhere: streams that lie or stall, and servers killed or stopped amidst one (``tests/test_resume.py``,
``tests/test_replicas.py``), full disks and kills while a file is written (``tests/test_files.py``,
``tests/test_checkpoints.py``), an address that is taken (``tests/test_service.py``).
"""

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from _helpers.waiting import wait_until
from faulty_network import cut_at, delayed, ended_at, flipped_at, proxied
from vitals import assert_recovered, is_serving, vitals

import seedbed
from seedbed.errors import DeadlineExceeded, SeedbedError

MIB = 1 << 20
SPEC = seedbed.spec("normal", (512, 1024), seed=7, name="w")  # 2 MiB
STREAMS = 8


@pytest.fixture(scope="module")
def reference():
    with seedbed.connect("local:") as client:
        return client.init(SPEC)


@pytest.fixture
def serving(start_server, reference):
    """A server that has seen as many streams as it takes; afterwards it has to be as it was, and to answer."""
    handle = start_server(chunk_bytes=64 << 10, max_streams=STREAMS)
    warm_up(handle.target)
    before = vitals(handle.pid)
    yield handle
    assert_recovered(handle.pid, before)
    assert is_serving(handle.target)
    assert equal(tensor(handle.target), reference)


def warm_up(target):
    """Makes all threads of the pool of streams, which live as long as the server."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(seedbed.connect(target)) for _ in range(STREAMS)]
        for client in clients:
            next(stack.enter_context(contextlib.closing(client.iter_chunks(endless()))))
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(outcome, [target] * 8, [0.5] * 8)) == {"DeadlineExceeded"}
    assert wait_until(lambda: outcome(target, 5) == "right")


def endless():
    return seedbed.spec("normal", (1 << 40,), name="endless")


def exhaust(chunks):
    deque(chunks, maxlen=0)


def tensor(target, timeout=10.0, spec=SPEC):
    with seedbed.connect(target, timeout=timeout) as client:
        return client.init(spec)


def equal(one, other):
    return np.array_equal(one.view(np.uint32), other.view(np.uint32))


REFERENCE = []


def outcome(target, timeout):
    """Of a tensor: "right", or the error's name; anything else fails the test."""
    if not REFERENCE:
        REFERENCE.append(tensor("local:"))
    begin = time.monotonic()
    try:
        got = tensor(target, timeout)
    except SeedbedError as error:
        got = error
    assert time.monotonic() - begin < timeout + 2, "it hung beyond its deadline"
    if isinstance(got, SeedbedError):
        return type(got).__name__
    assert equal(got, REFERENCE[0]), "wrong bytes were accepted"
    return "right"


# The network ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [cut_at, ended_at])
def test_connections_that_break_are_resumed_to_the_same_bits(serving, fault):
    """In the handshake, in the headers, amidst the data; of the requests, and of the answers."""
    for direction, places in {"up": (10, 100, 300), "down": (10, 150, 700_000)}.items():
        for place in places:
            with proxied(serving.target, **{direction: fault(place)}) as proxy:
                assert outcome(proxy.target, 10) == "right"


@pytest.mark.nightly
def test_a_slow_network_gives_the_same_bits(serving):
    with proxied(serving.target, up=delayed(0.02), down=delayed(0.005)) as proxy:
        assert outcome(proxy.target, 30) == "right"


def corrupted(serving, direction, places, timeout):
    chosen = random.Random(5)
    outcomes = []
    for place in places:
        with proxied(serving.target, **{direction: flipped_at(place, chosen.randrange(8))}) as proxy:
            outcomes.append(outcome(proxy.target, timeout))
    return outcomes


def test_a_flipped_bit_in_the_payload_is_noticed_and_requested_again(serving):
    places = [300_000, 1_000_000, 1_500_001]
    assert corrupted(serving, "down", places, 10) == ["right"] * 3


@pytest.mark.nightly
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_flipped_bit_anywhere_is_noticed(serving, direction):
    """In HTTP/2's frames and headers, which have no checksum, it may end a call; or stall it until its deadline."""
    places = [*range(0, 400, 13), *random.Random(1).sample(range(400, 2 * MIB), 15 if direction == "down" else 0)]
    outcomes = corrupted(serving, direction, places, 1.5)
    counts = {name: outcomes.count(name) for name in sorted(set(outcomes))}
    print(f"{len(outcomes)} flipped bits {direction}: {counts}")
    assert outcomes.count("right") >= len(outcomes) // 3, counts


def test_a_server_that_vanishes_costs_no_more_than_the_deadline(serving):
    with proxied(serving.target) as proxy, seedbed.connect(proxy.target) as client:
        chunks = client.iter_chunks(endless(), timeout=1.5)
        next(chunks)
        proxy.vanish()
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            exhaust(chunks)
        assert time.monotonic() - begin < 3


IMPATIENT = """
import json, sys
from seedbed_server.service import process, server
from seedbed_server.service.settings import Settings
short = {"grpc.keepalive_time_ms": 1000, "grpc.keepalive_timeout_ms": 500}
server._CHANNEL_ARGUMENTS = tuple({**dict(server._CHANNEL_ARGUMENTS), **short}.items())
process.run(Settings(**json.loads(sys.argv[1])))
"""


@pytest.mark.nightly
def test_a_client_that_vanishes_without_a_word_is_given_up(start_server):
    """With keepalives of 1.5 s in place of 80 s: its stream ends, and another client gets its place."""
    handle = start_server(code=IMPATIENT, max_streams=1)
    assert outcome(handle.target, 10) == "right"
    before = vitals(handle.pid)
    with proxied(handle.target) as proxy, seedbed.connect(proxy.target) as client:
        chunks = client.iter_chunks(endless())
        next(chunks)
        proxy.vanish()
        assert outcome(handle.target, 0.5) == "DeadlineExceeded"
        assert wait_until(lambda: outcome(handle.target, 5) == "right", 15)
        assert_recovered(handle.pid, before)


# Clients --------------------------------------------------------------------------------------------------------------

READ_FOR_EVER = """
import sys, seedbed
spec = seedbed.spec("normal", (1 << 40,), name="endless")
with seedbed.connect(sys.argv[1], timeout=None) as client:
    for offset, _ in client.iter_chunks(spec):
        if offset == 0:
            print("begun", flush=True)
"""


@contextlib.contextmanager
def reading(target, count):
    processes = [
        subprocess.Popen([sys.executable, "-c", READ_FOR_EVER, target], stdout=subprocess.PIPE) for _ in range(count)
    ]
    try:
        for process in processes:
            assert process.stdout.readline() == b"begun\n"
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()


def test_clients_that_are_killed_leave_nothing_behind(serving):
    with reading(serving.target, 3):
        assert is_serving(serving.target)


@pytest.mark.nightly
def test_clients_that_are_stopped_hold_up_nobody(serving):
    with reading(serving.target, 3) as processes:
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        stalled = vitals(serving.pid).rss
        assert outcome(serving.target, 10) == "right"
        assert is_serving(serving.target)
        assert vitals(serving.pid).rss - stalled < 16 * MIB


@pytest.mark.nightly
def test_a_hundred_clients_at_once_are_all_served(serving):
    with ThreadPoolExecutor(100) as pool:
        outcomes = list(pool.map(outcome, [serving.target] * 100, [60] * 100))
    assert set(outcomes) == {"right"}


@pytest.mark.nightly
def test_256_idle_connections_cost_little(serving):
    before = vitals(serving.pid)
    with contextlib.ExitStack() as stack:
        for _ in range(256):
            channel = grpc.insecure_channel(serving.target, options=[("grpc.use_local_subchannel_pool", 1)])
            stack.callback(channel.close)
            grpc.channel_ready_future(channel).result(10)
        held = vitals(serving.pid)
        begin = time.monotonic()
        assert is_serving(serving.target)
        assert time.monotonic() - begin < 1
        assert outcome(serving.target, 10) == "right"
    print(f"{(held.rss - before.rss) / 256 / 1024:.0f} KiB and {(held.files - before.files) / 256:.1f} files each")
    assert held.rss - before.rss < 64 * MIB


# Servers --------------------------------------------------------------------------------------------------------------


@pytest.mark.nightly
@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_a_server_that_restarts_in_a_storm_of_clients(start_server, end):
    """Streams that had begun go on with the next server; clients that find none wait for it."""
    handle = start_server(chunk_bytes=64 << 10)
    port = handle.target.rpartition(":")[2]
    over, outcomes = threading.Event(), []

    def storm():
        while not over.is_set():
            outcomes.append(outcome(f"127.0.0.1:{port}", 20))

    with ThreadPoolExecutor(24) as pool:
        clients = [pool.submit(storm) for _ in range(24)]
        try:
            for _ in range(2):
                time.sleep(1)
                handle.kill() if end == "kill" else handle.terminate()
                handle = start_server(chunk_bytes=64 << 10, listen=[f"127.0.0.1:{port}"])
            time.sleep(1)
        finally:
            over.set()
        for client in clients:
            client.result()
    counts = {name: outcomes.count(name) for name in sorted(set(outcomes))}
    print(f"{len(outcomes)} tensors: {counts}")
    assert set(outcomes) == {"right"}
    assert outcome(handle.target, 10) == "right"
    assert is_serving(handle.target)


# The clock ------------------------------------------------------------------------------------------------------------


@pytest.mark.nightly
@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
def test_a_clock_that_jumps_neither_ends_nor_prolongs_a_call(serving, monkeypatch, jump):
    """Our deadlines are of the monotonic clock, and gRPC's become so when a stream begins."""
    real = time.time
    with seedbed.connect(serving.target) as client:
        chunks = client.iter_chunks(endless(), timeout=1.5)
        next(chunks)
        begin = time.monotonic()
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: real() + jump)
            with pytest.raises(DeadlineExceeded):
                exhaust(chunks)
        assert 1 < time.monotonic() - begin < 3
