"""Many clients at once, and servers that start late: calls wait their turn until their deadlines."""

import asyncio
import collections
import json
import logging
import re
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import crc32c
import grpc
import numpy as np
import pytest
from _helpers.ports import free_port
from _helpers.servers import servers_here
from _helpers.waiting import wait_until
from google.rpc import error_details_pb2, status_pb2

import seedbed
from seedbed import errors
from seedbed._ask import arguments
from seedbed._receive import retry
from seedbed._receive.retry import Retry
from seedbed.cli import _health
from seedbed.common import deadline
from seedbed.common.deadline import Deadline
from seedbed.common.status import ServiceError
from seedbed.v1 import InitTensorRequest, TensorSpec, Zeros
from seedbed_server.service import admission
from seedbed_server.service.admission import StreamAdmission

MIB = 1 << 20
ENDLESS = TensorSpec(shape=[1 << 40], zeros=Zeros())
SMALL = seedbed.spec("uniform", (1000,), seed=7, name="w")


@pytest.fixture
def serve():
    """Starts servers in this process."""
    with servers_here() as start_one:
        yield start_one


@pytest.fixture
def full(serve):
    """A server with a single place, which is taken until ``leave`` is called."""
    server = serve(max_streams=1)
    with grpc.insecure_channel(server.addresses[0], [("grpc.use_local_subchannel_pool", 1)]) as channel:
        stream = open_stream(channel, ENDLESS)
        next(stream)
        server.leave = stream.cancel
        yield server
        stream.cancel()


def open_stream(channel, spec, metadata=()):
    call = channel.unary_stream("/seedbed.v1.InitService/InitTensor")
    return call(InitTensorRequest(spec=spec).SerializeToString(), timeout=60, metadata=metadata)


def sync_tensor(target, spec=SMALL, **options):
    with seedbed.connect(target, **options) as client:
        return client.init(spec)


def aio_tensor(target, spec=SMALL, **options):
    async def call():
        async with seedbed.aio.connect(target, **options) as client:
            return await client.init(spec)

    return asyncio.run(call())


# A full server --------------------------------------------------------------------------------------------------------


def retry_delay(error):
    [detail] = [value for key, value in error.trailing_metadata() if key == "grpc-status-details-bin"]
    retry_info = error_details_pb2.RetryInfo()
    assert status_pb2.Status.FromString(detail).details[0].Unpack(retry_info)
    return retry_info.retry_delay.ToNanoseconds() / 1e9


@pytest.mark.parametrize("limit", [{"max_streams": 1}, {"max_streams_per_client": 1}])
def test_a_full_server_says_when_to_retry(serve, limit):
    server = serve(**limit)
    with grpc.insecure_channel(server.addresses[0]) as channel:
        stream = open_stream(channel, ENDLESS)
        next(stream)
        for ticket in ("", "t", "t" * 33, "t"):
            with pytest.raises(grpc.RpcError) as refused:
                next(open_stream(channel, SMALL, (("seedbed-ticket", ticket),)))
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert 0.05 <= retry_delay(refused.value) <= 5
        assert list(server._admission._waiting) == ["t"]
        stream.cancel()


def test_all_clients_of_a_server_with_one_place_are_served_roughly_in_order(full):
    order = []

    def fetch(rank):
        assert sync_tensor(full.addresses[0]).shape == (1000,)
        order.append(rank)

    with ThreadPoolExecutor(20) as pool:
        ranks = []
        for rank in range(20):
            ranks.append(pool.submit(fetch, rank))
            assert wait_until(lambda: len(full._admission._waiting) == len(ranks))
        full.leave()
        for rank in ranks:
            rank.result()  # type: ignore[attr-defined]
    assert statistics.mean(abs(rank - place) for place, rank in enumerate(order)) < 4, order  # by chance: 6.7
    assert full._admission._waiting == {}
    assert wait_until(lambda: full._admission.count == 0)


@pytest.mark.parametrize("fetch", [sync_tensor, aio_tensor])
def test_the_deadline_passes_while_the_server_is_full(full, fetch, caplog):
    began = time.monotonic()
    with pytest.raises(seedbed.DeadlineExceeded) as caught:
        fetch(full.addresses[0], timeout=1, wait=0)
    assert 0.8 < time.monotonic() - began < 3
    assert re.fullmatch(
        r"no complete response from 127\S+ within 1 s; give a longer timeout, or timeout=None to wait for ever "
        r"\(the server was full: the server is at its limit of 1 streams; retry later\)",
        str(caught.value),
    )
    [warning] = [record for record in caplog.records if record.name == "seedbed"]
    assert warning.levelno == logging.WARNING
    assert re.fullmatch(r"127\S+ is full \(the server is .*\); waiting for a place", warning.getMessage())


@pytest.mark.parametrize("fetch", [sync_tensor, aio_tensor])
def test_a_call_waits_for_a_place(full, fetch):
    threading.Timer(0.5, full.leave).start()
    assert fetch(full.addresses[0], timeout=20).shape == (1000,)


# The queue, with a fake clock


class Clock:
    def __init__(self, monkeypatch, *modules):
        self.now = 1000.0
        for module in modules:
            monkeypatch.setattr(module, "time", self)

    def monotonic(self):
        return self.now


class Call:
    """The gRPC context of a call."""

    def __init__(self, ticket="", host="ipv4:10.0.0.1"):
        self._ticket, self._peer, self.leave = ticket, f"{host}:1", None

    def peer(self):
        return self._peer

    def invocation_metadata(self):
        return (("seedbed-ticket", self._ticket),)

    def add_callback(self, callback):
        self.leave = callback
        return True


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch, admission)


def entered(streams, **options):
    call = Call(**options)
    streams.enter(call)
    return call


def refused(streams, **options):
    """The time to retry after."""
    with pytest.raises(ServiceError) as caught:
        streams.enter(Call(**options))
    retry_info = error_details_pb2.RetryInfo()
    caught.value.status.details[0].Unpack(retry_info)
    return retry_info.retry_delay.ToNanoseconds() / 1e9


def test_a_free_place_is_held_for_the_first_waiters_that_are_due(clock):
    streams = StreamAdmission(1)
    first = entered(streams)
    delay = refused(streams, ticket="a")
    refused(streams, ticket="b")
    clock.now += delay
    first.leave()
    refused(streams)
    refused(streams, ticket="b")
    entered(streams, ticket="a").leave()
    entered(streams, ticket="b").leave()
    entered(streams).leave()


def test_a_waiter_that_never_retries_loses_its_place(clock):
    streams = StreamAdmission(1)
    first = entered(streams)
    delay = refused(streams, ticket="a")
    first.leave()
    clock.now += 1.25 * delay + 1.1
    refused_before = len(streams._waiting)
    entered(streams, ticket="b").leave()
    assert refused_before == 1
    keeper = entered(streams)
    refused(streams, ticket="c")
    assert list(streams._waiting) == ["c"], "waiters that did not retry are forgotten"
    keeper.leave()


def test_no_place_is_held_for_hosts_at_their_own_limit(clock):
    streams = StreamAdmission(2, 1)
    entered(streams, host="one")
    clock.now += refused(streams, ticket="a", host="one")
    entered(streams, host="other").leave()
    other = entered(streams, host="third")
    refused(streams, ticket="b", host="fourth")
    other.leave()
    entered(streams, ticket="b", host="fourth")


def test_the_memory_of_tickets_is_bounded(clock, monkeypatch):
    monkeypatch.setattr(admission, "_MAX_WAITING", 100)
    streams = StreamAdmission(1)
    keeper = entered(streams)
    for index in range(1000):
        assert refused(streams, ticket=str(index)) <= 5
    assert len(streams._waiting) == 100
    clock.now += 10
    refused(streams, ticket="later")
    assert list(streams._waiting) == ["later"]
    keeper.leave()
    assert streams._count_per_client == {}


def test_delays_grow_with_the_queue_and_the_duration_of_streams(clock):
    streams = StreamAdmission(10)
    calls = [entered(streams) for _ in range(10)]
    delays = [refused(streams, ticket=str(index)) for index in range(2000)]
    assert min(delays) == delays[0] == 0.05
    assert delays == sorted(delays)
    assert delays[-1] == 5
    clock.now += 1
    calls[0].leave()
    entered(streams, ticket="0")
    assert delays[10] < refused(streams, ticket="10") <= 5


# A server that cannot be reached --------------------------------------------------------------------------------------


@pytest.fixture
def policy_clock(monkeypatch):
    return Clock(monkeypatch, retry, deadline)


def attempts(clock, retry, error, arrived=lambda index: 0, seconds=0.01, most=10_000):
    """The times at which attempts begin, and the error of the last."""
    begun = []
    while len(begun) < most:
        begun.append(clock.now)
        clock.now += seconds
        try:
            clock.now += retry.delay(error, arrived(len(begun)))
        except seedbed.SeedbedError as last:
            return begun, last
    return begun, None


UNREACHABLE = seedbed.Unavailable("no Seedbed server answers")


def test_waiting_ends_and_is_logged(policy_clock, caplog):
    began = policy_clock.now
    begun, last = attempts(policy_clock, Retry(Deadline(None), "host:1", 100.0), UNREACHABLE)
    assert last is UNREACHABLE
    assert 99 < policy_clock.now - began < 102
    assert max(np.diff(begun)) <= 5.02
    assert 20 < len(begun) < 100
    log = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(
        r"host:1 cannot be reached \(no Seedbed server answers\); waiting up to 100 s for it; wait=0 gives up at once",
        log[0],
    )
    assert 3 <= len(log) <= 4
    assert all("host:1 still cannot be reached after" in text for text in log[1:])


def test_without_waiting_there_are_three_quick_attempts(policy_clock, caplog):
    began = policy_clock.now
    begun, last = attempts(policy_clock, Retry(Deadline(None), "host:1", 0.0), UNREACHABLE)
    assert (len(begun), last) == (3, UNREACHABLE)
    assert policy_clock.now - began < 0.5
    assert not caplog.records


def test_progress_restarts_the_wait(policy_clock):
    begun, last = attempts(
        policy_clock, Retry(Deadline(None), "host:1", 0.0), UNREACHABLE, lambda index: index, most=50
    )
    assert (len(begun), last) == (50, None)


def test_a_slow_attempt_is_logged_at_once(policy_clock, caplog):
    attempts(policy_clock, Retry(Deadline(None), "host:1", 100.0), UNREACHABLE, seconds=2, most=1)
    assert len(caplog.records) == 1


def test_corrupted_responses_are_retried_a_few_times(policy_clock):
    begun, last = attempts(policy_clock, Retry(Deadline(None), "host:1", 300.0), seedbed.Corrupted("odd"))
    assert len(begun) == 5
    assert str(last).startswith("host:1 sent corrupt data 5 times in a row: odd;")


def test_permanent_errors_are_not_waited_for(policy_clock):
    details = "failed to connect: Ssl handshake failed: CERTIFICATE_VERIFY_FAILED: certificate has expired"
    expired = errors._unreachable(errors.tls_problem(details, "host:1"), details)
    begun, last = attempts(policy_clock, Retry(Deadline(None), "host:1", 300.0), expired)
    assert (len(begun), last) == (3, expired)
    begun, last = attempts(policy_clock, Retry(Deadline(None), "host:1", 300.0), seedbed.ResourceExhausted("memory"))
    assert len(begun) == 1


@pytest.mark.parametrize("delay", [-1.0, 0.0, 0.5, 1e9])
def test_a_full_server_is_retried_indefinitely(policy_clock, delay):
    full = seedbed.ResourceExhausted("full")
    full._retry_after = delay
    begun, last = attempts(policy_clock, Retry(Deadline(None), "host:1", 0.0), full, most=200)
    assert last is None
    least = min(max(delay, 0.05), 60)
    assert min(np.diff(begun)) >= least
    assert max(np.diff(begun)) <= 1.25 * least + 0.011


@pytest.mark.parametrize("delay", [None, 5.0])
def test_attempts_use_the_whole_deadline(policy_clock, delay):
    error = UNREACHABLE if delay is None else seedbed.ResourceExhausted("full")
    error._retry_after = delay
    began = policy_clock.now
    begun, last = attempts(policy_clock, Retry(Deadline(3.0), "host:1", 300.0), error, seconds=0.001)
    assert isinstance(last, seedbed.DeadlineExceeded)
    assert ("could not be reached" if delay is None else "was full") in str(last)
    assert 2.9 < policy_clock.now - began <= 3.0
    assert len(begun) < 40


@pytest.mark.parametrize("fetch", [sync_tensor, aio_tensor])
def test_a_server_that_starts_after_its_client(start_server, fetch, caplog):
    port, began, later = free_port(), time.monotonic(), []
    starting = threading.Timer(3, lambda: later.append(start_server(listen=[f"127.0.0.1:{port}"])))
    starting.start()
    array = fetch(f"127.0.0.1:{port}", timeout=60)
    assert 3 < time.monotonic() - began < 30
    starting.join()
    with seedbed.connect("local:") as local:
        assert array.tobytes() == local.init(SMALL).tobytes()
    [warning] = [record.getMessage() for record in caplog.records if record.name == "seedbed"]
    assert f"127.0.0.1:{port} cannot be reached (no Seedbed server answers" in warning


@pytest.mark.parametrize("connect", [seedbed.connect, seedbed.aio.connect])
@pytest.mark.parametrize("value", [-1, float("nan"), -float("inf"), "5", True])
def test_invalid_waits(connect, value):
    with pytest.raises(seedbed.InvalidRequest, match=r"^wait: .*(must be 0 or more seconds|not a valid number)"):
        connect("localhost:1", wait=value)


@pytest.mark.parametrize("connect", [seedbed.connect, seedbed.aio.connect])
@pytest.mark.parametrize("text", ["-1", "nan", "soon"])
def test_an_invalid_variable_for_the_wait(connect, text, monkeypatch):
    monkeypatch.setenv("SEEDBED_WAIT", text)
    with pytest.raises(seedbed.InvalidRequest) as caught:
        connect("localhost:1")
    assert str(caught.value) == (
        f"SEEDBED_WAIT: must be 0 or more seconds, such as 300, not '{text}'; 0 gives up at once"
    )
    assert connect("localhost:1", wait=3).wait == 3


def test_the_argument_overrides_the_variable_and_the_variable_the_default(monkeypatch):
    assert arguments.patience(None) == 300
    monkeypatch.setenv("SEEDBED_WAIT", " 7.5 ")
    assert arguments.patience(None) == 7.5
    assert arguments.patience(0) == 0
    assert arguments.patience(float("inf")) == float("inf")


# The command line


def command(*arguments):
    # -u: unbuffered output
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "seedbed.cli", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_the_command_line_says_at_once_what_it_waits_for(start_server, tmp_path):
    target = f"127.0.0.1:{free_port()}"
    get = command(
        "get",
        "ones",
        "--shape",
        "3",
        "-o",
        str(tmp_path / "w.npy"),
        "--target",
        target,
        "--wait",
        "60",
        "--no-progress",
    )
    line = get.stderr.readline()
    assert get.poll() is None
    assert line.startswith(f"seedbed: {target} cannot be reached (no Seedbed server answers at {target};")
    assert "waiting up to 60 s for it; wait=0 gives up at once" in line
    start_server(listen=[target])
    assert get.wait(60) == 0
    get.communicate()


def test_a_health_check_that_waits(start_server):
    target = f"127.0.0.1:{free_port()}"
    health = command("health", "--target", target, "--wait", "60")
    time.sleep(1)
    assert health.poll() is None
    start_server(listen=[target])
    assert health.communicate(timeout=60)[0] == "serving\n"
    assert health.returncode == 0


def test_a_health_check_ignores_the_variable_for_the_wait(seedbed_command, monkeypatch):
    monkeypatch.setenv("SEEDBED_WAIT", "60")
    began = time.monotonic()
    assert seedbed_command("health", "--target", f"127.0.0.1:{free_port()}")[0] == 1
    assert time.monotonic() - began < 5


# Storms ---------------------------------------------------------------------------------------------------------------

STORM = """
import asyncio, collections, json, sys, threading
import crc32c
import seedbed

target, kind, count, byte_count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
spec = seedbed.spec("uniform", (byte_count // 4,), seed=7, name="w")
outcomes = collections.Counter()

def threads():
    def rank():
        try:
            with seedbed.connect(target) as client:
                for offset, values in client.iter_chunks(spec):
                    pass
            outcomes[f"{offset} {crc32c.crc32c(values)}"] += 1
        except Exception as error:
            outcomes[repr(error)] += 1

    ranks = [threading.Thread(target=rank) for _ in range(count)]
    for one in ranks:
        one.start()
    for one in ranks:
        one.join()

async def tasks():
    async def rank():
        try:
            async with seedbed.aio.connect(target) as client:
                async for offset, values in client.iter_chunks(spec):
                    pass
            outcomes[f"{offset} {crc32c.crc32c(values)}"] += 1
        except Exception as error:
            outcomes[repr(error)] += 1

    await asyncio.gather(*(rank() for _ in range(count)))

threads() if kind == "threads" else asyncio.run(tasks())
print(json.dumps(outcomes))
"""


def storm(handle, processes, kind, ranks, byte_count):
    """Runs all ranks; returns the slowest health check in seconds, and the server's peak memory."""
    with seedbed.connect("local:") as local:
        values = local.uniform((byte_count // 4,), seed=7, name="w")
        last = values[-min(byte_count, MIB) // 4 :]  # a server's last chunk
        expected = f"{len(values) - len(last)} {crc32c.crc32c(last)}"
    arguments = [sys.executable, "-c", STORM, handle.target, kind, str(ranks // processes), str(byte_count)]
    began = time.monotonic()
    running = [
        subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(processes)
    ]
    slowest, memory = 0.0, 0
    with grpc.insecure_channel(handle.target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        while any(one.poll() is None for one in running):
            sent_at = time.monotonic()
            assert check(b"", timeout=10) == _health._SERVING
            slowest = max(slowest, time.monotonic() - sent_at)
            memory = max(memory, handle.rss())
            time.sleep(0.1)
    outcomes = collections.Counter()
    for one in running:
        outcomes.update(json.loads(one.communicate()[0]))
    seconds = time.monotonic() - began
    print(
        f"{ranks} {kind} of {byte_count >> 10} KiB: {seconds:.1f} s, "
        f"slowest health check {1000 * slowest:.0f} ms, peak memory {memory >> 20} MiB"
    )
    assert outcomes == {expected: ranks}
    return slowest, memory


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_more_clients_than_places(start_server, kind):
    slowest, memory = storm(start_server(backend="numba", max_streams=4), 2, kind, 60, 256 << 10)
    assert slowest < 5
    assert memory < 700 * MIB


@pytest.mark.nightly
@pytest.mark.parametrize(("kind", "ranks", "mebibytes"), [("threads", 400, 16), ("tasks", 2000, 2)])
def test_a_storm_of_ranks(start_server, kind, ranks, mebibytes):
    """With the server's defaults, all are served, and no limit has to be raised."""
    slowest, memory = storm(start_server(backend="numba"), 4, kind, ranks, mebibytes * MIB)
    assert slowest < 5
    assert memory < 1200 * MIB
