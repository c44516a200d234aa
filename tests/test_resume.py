"""Streams that break, stall or deliver wrong data: each is resumed to the same bits, or reported as an error.

A scripted server plays each failure over a real socket; at the end, real servers are killed.
"""

import asyncio
import gc
import os
import re
import signal
import threading
import time

import grpc
import numpy as np
import pytest
from _helpers.messages import messages
from _helpers.ports import free_port
from _helpers.scripted import CHUNK, ScriptedServer, fails_with, replaces, sealed, sends, set_chunk
from _helpers.waiting import wait_until
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

import seedbed
from seedbed._receive import assembler as _stream
from seedbed._receive import retry
from seedbed.v1 import (
    Chunk,
    InitTensorRequest,
    InitTensorResponse,
    Region,
    TensorSlice,
)

SPEC = seedbed.spec("normal", (10, 16), seed=7, name="w")  # 10 chunks
MODEL = [
    seedbed.spec("normal", (4, 16), name="a"),
    seedbed.spec("zeros", (0, 3), name="empty"),
    seedbed.spec("uniform", (5, 16), name="b", dtype="float64"),
    seedbed.spec("ones", (), name="scalar"),
]


@pytest.fixture
def scripted():
    server = ScriptedServer()
    yield server
    server.stop()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(retry, "_FIRST_DELAY", 0.001)
    monkeypatch.setattr(retry, "_MAX_DELAY", 0.002)


def sync_tensor(target, wait=None, **arguments):
    with seedbed.connect(target, timeout=20, wait=wait) as client:
        return client.init(SPEC, **arguments)


def aio_tensor(target, wait=None, **arguments):
    async def call():
        async with seedbed.aio.connect(target, timeout=20, wait=wait) as client:
            return await client.init(SPEC, **arguments)

    return asyncio.run(call())


def sync_twice(target, between):
    with seedbed.connect(target, timeout=20) as client:
        first = client.init(SPEC)
        between()
        return first, client.init(SPEC)


def aio_twice(target, between):
    async def call():
        async with seedbed.aio.connect(target, timeout=20) as client:
            first = await client.init(SPEC)
            between()
            return first, await client.init(SPEC)

    return asyncio.run(call())


def sync_chunks(target):
    with seedbed.connect(target, timeout=20) as client:
        return np.concatenate([values for _, values in client.iter_chunks(SPEC)]).reshape(SPEC.shape)


def sync_model(target):
    with seedbed.connect(target, timeout=20) as client:
        return list(client.init_model(MODEL))


def aio_model(target):
    async def call():
        async with seedbed.aio.connect(target, timeout=20) as client:
            return [item async for item in client.init_model(MODEL)]

    return asyncio.run(call())


def assert_equal_models(left, right):
    assert [name for name, _ in left] == [name for name, _ in right]
    for (_, one), (_, other) in zip(left, right, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other, strict=True)


def describe_wrongly(**fields):
    def change(message):
        message.description.MergeFrom(type(message.description)(**fields))

    return change


def second_description(stream):
    message = stream.message(2)
    message.description.CopyFrom(stream.message(0).description)
    yield from [*stream.right[:2], message.SerializeToString()]


LIES = {
    "wrong checksum": replaces(2, set_chunk(crc32c=1)),
    "flipped bit": replaces(2, set_chunk(payload=b"\1" * CHUNK)),
    "gap": sends(0, 1, 3),
    "overlap": sends(0, 1, 1),
    "backwards": sends(0, 1, 2, 1),
    "early end": sends(0, 1),
    "no message": sends(),
    "empty message": replaces(2, lambda message: b""),
    "garbage": replaces(2, lambda message: b"\xff" * 20),
    "cut message": replaces(2, lambda message: message.SerializeToString()[:-1]),
    "wire type 7": replaces(2, lambda message: b"\x7f"),
    "no chunk": replaces(2, lambda message: message.ClearField("chunk")),
    "empty chunk": replaces(2, set_chunk(**sealed(b""))),
    "half an element": replaces(2, set_chunk(**sealed(b"\1" * (CHUNK - 2)))),
    "negative offset": replaces(2, set_chunk(element_offset=-1)),
    "no description": replaces(0, lambda message: message.ClearField("description")),
    "second description": second_description,
    "other seed": replaces(0, describe_wrongly(spec={"seed": 9})),
    "other name": replaces(0, describe_wrongly(spec={"name": "v"})),
    "no version": replaces(0, lambda message: message.description.spec.ClearField("algorithm_version")),
    "other region": replaces(0, describe_wrongly(region={"start": [1]})),
    "other count": replaces(0, describe_wrongly(element_count=10**18)),
    "other bytes": replaces(0, describe_wrongly(byte_count=10**18)),
}
BREAKS = {
    f"{code} after {after}": fails_with(code, after)
    for code in ("UNAVAILABLE", "CANCELLED", "ABORTED", "DATA_LOSS")
    for after in (0, 1, 3)
} | {"INTERNAL with a reset connection": fails_with("INTERNAL", 2), "UNKNOWN, the same": fails_with("UNKNOWN", 2)}


@pytest.mark.parametrize("fetch", [sync_tensor, aio_tensor, sync_chunks])
@pytest.mark.parametrize("script", [*LIES.values(), *BREAKS.values()], ids=[*LIES, *BREAKS])
def test_a_broken_tensor_is_resumed(scripted, impatient, fetch, script):
    expected = sync_tensor("local:")
    scripted.play(script, None)
    np.testing.assert_array_equal(fetch(scripted.target), expected, strict=True)
    assert len(scripted.requests) == 2
    first, second = scripted.requests
    assert first.first_element == 0
    if second.first_element:
        assert second.first_element % (CHUNK // 4) == 0
        assert second.spec.algorithm_version == 1, "a newer server must go on with the version that was begun"
    assert second.spec.seed == SPEC.seed


@pytest.mark.parametrize("fetch", [sync_model, aio_model])
@pytest.mark.parametrize(
    "script",
    [
        *(fails_with("UNAVAILABLE", after) for after in range(17)),
        *(sends(*range(count)) for count in range(16)),
        sends(0, 1, 2, 3, 5),  # without the empty tensor
        sends(0, 1, 2, 3, 4, 5, 6, 15, 14),
        replaces(1, lambda message: setattr(message, "tensor_index", 1)),
        replaces(4, set_chunk(**sealed(b"1234"))),
        replaces(3, lambda message: message.ClearField("chunk")),
    ],
)
def test_a_broken_model_is_resumed(scripted, impatient, fetch, script):
    scripted.play(script, None)
    assert_equal_models(fetch(scripted.target), sync_model("local:"))
    assert len(scripted.requests) <= 2


def test_many_breaks_are_survived_while_something_arrives(scripted, impatient):
    scripted.play(fails_with("UNAVAILABLE", 1))
    np.testing.assert_array_equal(sync_tensor(scripted.target), sync_tensor("local:"))
    assert [request.first_element for request in scripted.requests] == list(range(0, 160, 16))


def is_full(stream):
    retry_info = error_details_pb2.RetryInfo()
    retry_info.retry_delay.FromMilliseconds(100)
    status = status_pb2.Status(code=8, message="full")
    status.details.add().Pack(retry_info)
    stream.context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    stream.context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    yield  # makes this a generator


@pytest.mark.parametrize("fetch", [sync_tensor, aio_tensor])
def test_a_stream_that_broke_is_resumed_once_a_full_server_has_a_place(scripted, fetch, caplog):
    scripted.play(fails_with("UNAVAILABLE", 3), is_full, is_full, is_full, is_full, None)
    np.testing.assert_array_equal(fetch(scripted.target, wait=0), sync_tensor("local:"))
    assert [request.first_element for request in scripted.requests] == [0, 48, 48, 48, 48, 48]
    assert [record.getMessage() for record in caplog.records] == [
        f"{scripted.target} is full (full); waiting for a place"
    ]


def test_a_lost_end_of_stream_does_no_harm(scripted):
    scripted.play(fails_with("UNAVAILABLE", 10))
    np.testing.assert_array_equal(sync_tensor(scripted.target), sync_tensor("local:"))
    assert len(scripted.requests) == 1


@pytest.mark.parametrize("fetch", [sync_tensor, aio_tensor])
@pytest.mark.parametrize("name", ["wrong checksum", "other seed", "no message", "no description"])
def test_persistent_corruption_is_reported(scripted, impatient, fetch, name):
    scripted.play(LIES[name], LIES[name] if name != "wrong checksum" else replaces(0, set_chunk(crc32c=1)))
    with pytest.raises(seedbed.Corrupted, match=r"127\.0\.0\.1:\d+ sent corrupt data \d+ times in a row"):
        fetch(scripted.target)
    assert 3 <= len(scripted.requests) <= 13


@pytest.mark.parametrize("fetch", [sync_tensor, aio_tensor])
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("INVALID_ARGUMENT", seedbed.InvalidRequest),
        ("UNAUTHENTICATED", seedbed.Unauthenticated),
        ("PERMISSION_DENIED", seedbed.PermissionDenied),
        ("RESOURCE_EXHAUSTED", seedbed.ResourceExhausted),
        ("UNIMPLEMENTED", seedbed.SeedbedError),
        ("FAILED_PRECONDITION", seedbed.InternalError),
    ],
)
def test_the_callers_errors_are_not_retried(scripted, fetch, code, kind):
    scripted.play(fails_with(code, 1))
    with pytest.raises(kind):
        fetch(scripted.target)
    assert len(scripted.requests) == 1


def test_extra_elements_never_reach_the_caller(scripted, impatient):
    longer = replaces(9, set_chunk(**sealed(bytes(CHUNK * 2))))
    scripted.play(longer, None)
    seen = []
    with seedbed.connect(scripted.target) as client:
        for offset, values in client.iter_chunks(SPEC):
            seen.append((offset, len(values)))
    assert seen == [(offset, 16) for offset in range(0, 160, 16)]

    def more(stream):
        yield from stream.right
        yield stream.right[-1]

    scripted.play(more)
    np.testing.assert_array_equal(sync_tensor(scripted.target), sync_tensor("local:"))


def test_a_failed_call_returns_no_array_as_complete(scripted, impatient):
    scripted.play(fails_with("UNAVAILABLE", 1), fails_with("UNAVAILABLE", 0))
    with pytest.raises(seedbed.Unavailable, match=rf"no Seedbed server answers at {scripted.target}; start one"):
        sync_tensor(scripted.target, wait=0)


def test_no_server():
    start = time.monotonic()
    target = f"127.0.0.1:{free_port()}"
    for call in (sync_tensor, aio_tensor):
        with pytest.raises(seedbed.Unavailable, match="no Seedbed server answers at 127") as caught:
            call(target, wait=0)
        assert "errno" not in str(caught.value).lower()
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("call", [sync_tensor, aio_tensor])
def test_calls_wait_for_servers_behind_a_name(start_server, call, caplog):
    port = free_port()
    later = []
    threading.Timer(2, lambda: later.append(start_server(listen=[f"127.0.0.1:{port}"]))).start()
    np.testing.assert_array_equal(call(f"dns:///127.0.0.1:{port}"), sync_tensor("local:"))
    assert wait_until(lambda: later)
    [warning] = caplog.messages
    assert re.fullmatch(
        rf"dns:///127.0.0.1:{port} cannot be reached \(.*\); waiting up to 300 s for it; wait=0 .*", warning
    )


@pytest.mark.parametrize("call", [sync_twice, aio_twice])
def test_calls_wait_for_a_server_that_has_responded_before(start_server, call, caplog):
    """Between two calls, the server is down for longer than the quick attempts take."""
    first, later = start_server(), []

    def replace():
        first.kill()
        threading.Timer(2, lambda: later.append(start_server(listen=[first.target]))).start()

    began = time.monotonic()
    np.testing.assert_array_equal(*call(first.target, replace))
    assert time.monotonic() - began > 2
    assert wait_until(lambda: later)
    assert [record.name for record in caplog.records] == ["seedbed"]


# Everything that protobuf allows: fields in any order, unknown fields, split messages.


def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number, wire_type, content):
    return varint(number << 3 | wire_type) + content


def blob(number, content):
    return field(number, 2, varint(len(content)) + content)


UNKNOWN = [field(3, 0, varint(2**63)), blob(99, b"xyz"), field(4, 5, b"1234"), field(5, 1, b"12345678")]


def new_assembler(region=None):
    return _stream.TensorAssembler(TensorSlice(spec=SPEC, region=region))


@given(order=st.permutations(range(7)), outer=st.permutations(range(4)))
def test_fields_may_come_in_any_order(order, outer):
    message = InitTensorResponse.FromString(next(messages("InitTensor", InitTensorRequest(spec=SPEC), CHUNK)))
    payload = message.chunk.payload
    inner = [
        field(1, 0, varint(0)),
        field(2, 5, message.chunk.crc32c.to_bytes(4, "little")),
        blob(15, payload),
        *UNKNOWN,
    ]
    chunk = b"".join(inner[index] for index in order)
    parts = [blob(1, message.description.SerializeToString()), blob(15, chunk), UNKNOWN[0], UNKNOWN[1]]
    piece = new_assembler().feed(b"".join(parts[index] for index in outer))
    assert piece.values.tobytes() == payload


def test_split_messages_are_merged():
    message = InitTensorResponse.FromString(next(messages("InitTensor", InitTensorRequest(spec=SPEC), CHUNK)))
    first = InitTensorResponse(
        description=message.description, chunk=Chunk(crc32c=5, payload=b"old")
    ).SerializeToString()
    second = InitTensorResponse(chunk=message.chunk).SerializeToString()
    assert new_assembler().feed(first + second).values.tobytes() == message.chunk.payload


@settings(max_examples=300)
@given(st.binary(max_size=80))
def test_garbage_raises_corrupted(data):
    with pytest.raises(seedbed.Corrupted):
        new_assembler().feed(data)


@settings(max_examples=300)
@given(data=st.data())
def test_a_changed_byte_never_changes_an_element(data):
    right = next(messages("InitTensor", InitTensorRequest(spec=SPEC), CHUNK))
    position = data.draw(st.integers(0, len(right) - 1))
    changed = bytearray(right)
    changed[position] ^= data.draw(st.integers(1, 255))
    assembler = new_assembler()
    try:
        piece = assembler.feed(bytes(changed))
    except seedbed.Corrupted:
        assert assembler.arrived == 0
        return
    assert (piece.offset, piece.values.tobytes()) == (0, InitTensorResponse.FromString(right).chunk.payload)


# Abandoned, cancelled and stalled calls.


def stalls(after):
    def script(stream):
        yield from stream.right[:after]
        while stream.context.is_active():
            time.sleep(0.005)

    return script


@pytest.mark.parametrize("how", ["close", "collect", "break", "error"])
def test_an_abandoned_iterator_ends_the_call(scripted, how):
    scripted.play(stalls(3))
    with seedbed.connect(scripted.target) as client:
        chunks = client.iter_chunks(SPEC)
        next(chunks)
        if how == "close":
            chunks.close()
        elif how == "collect":
            del chunks
            gc.collect()
        elif how == "break":
            for _ in chunks:
                break
            del chunks
        else:
            with pytest.raises(ZeroDivisionError):
                client.init(SPEC, progress=lambda done, total: 1 / 0)
            chunks.close()
        assert scripted.ended.wait(5)


def test_an_abandoned_aio_iterator_ends_the_call(scripted):
    scripted.play(stalls(3))

    async def call():
        async with seedbed.aio.connect(scripted.target) as client:
            chunks = client.iter_chunks(SPEC)
            await anext(chunks)
            await chunks.aclose()
            assert await asyncio.to_thread(scripted.ended.wait, 5)

    asyncio.run(call())


def test_a_cancelled_task_ends_the_call(scripted):
    scripted.play(stalls(3))

    async def call():
        async with seedbed.aio.connect(scripted.target) as client:
            task = asyncio.create_task(client.init(SPEC))
            await asyncio.to_thread(wait_until, lambda: scripted.requests)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(scripted.ended.wait, 5)

    asyncio.run(call())


def test_ctrl_c_ends_the_call(scripted):
    scripted.play(stalls(3))
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    with seedbed.connect(scripted.target) as client:
        with pytest.raises(KeyboardInterrupt):
            client.init(SPEC)
        assert scripted.ended.wait(5)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("call", ["sync", "aio"])
def test_deadlines_cover_a_stalled_stream(scripted, call):
    scripted.play(stalls(3))
    start = time.monotonic()
    text = re.escape(f"no complete response from {scripted.target} within 0.3 s; give a longer timeout")
    if call == "sync":
        with seedbed.connect(scripted.target) as client, pytest.raises(seedbed.DeadlineExceeded, match=text):
            client.init(SPEC, timeout=0.3)
    else:

        async def run():
            async with seedbed.aio.connect(scripted.target, timeout=0.3) as client:
                with pytest.raises(seedbed.DeadlineExceeded, match=text):
                    await client.init(SPEC)

        asyncio.run(run())
    assert 0.25 < time.monotonic() - start < 3


def test_deadlines_cover_all_attempts(scripted):
    scripted.play(fails_with("UNAVAILABLE", 1), fails_with("UNAVAILABLE", 0))
    start = time.monotonic()
    with seedbed.connect(scripted.target) as client, pytest.raises(TimeoutError, match="within 1 s"):
        client.init(SPEC, timeout=1)
    assert time.monotonic() - start < 1.5


@pytest.mark.parametrize("kind", ["sync", "aio"])
def test_closing_the_client_ends_its_calls(scripted, kind):
    scripted.play(stalls(3))
    if kind == "sync":
        client = seedbed.connect(scripted.target)
        threading.Thread(target=lambda: (wait_until(lambda: scripted.requests), client.close())).start()
        with pytest.raises(seedbed.Cancelled, match="closed; connect again"):
            client.init(SPEC)
        with pytest.raises(seedbed.Cancelled):
            client.server_info()
        return

    async def call():
        client = seedbed.aio.connect(scripted.target)
        task = asyncio.create_task(client.init(SPEC))
        await asyncio.to_thread(wait_until, lambda: scripted.requests)
        await asyncio.sleep(0.05)
        await client.close()
        with pytest.raises(seedbed.Cancelled, match="closed; connect again"):
            await task
        with pytest.raises(seedbed.Cancelled):
            await client.server_info()

    asyncio.run(call())


def test_regions_are_resumed_within_the_region(scripted, impatient):
    scripted.play(fails_with("UNAVAILABLE", 2), sends(0, 2), None)
    region = np.s_[2:9, 3:13]
    result = sync_tensor(scripted.target, region=region)
    np.testing.assert_array_equal(result, sync_tensor("local:")[region])
    assert [request.first_element for request in scripted.requests] == [0, 32, 48]
    assert all(request.region == Region(start=[2, 3], stop=[9, 13]) for request in scripted.requests)


# Server processes that are killed.

BIG = seedbed.spec("normal", (1024, 2048), seed=3, name="big")  # 8 MiB


class Assassin:
    """Kills the server after some bytes have arrived, and starts another at its address a moment later."""

    def __init__(self, start_server, times=1):
        self.target = f"127.0.0.1:{free_port()}"
        self._start = lambda: start_server(listen=[self.target], chunk_bytes=16384)
        self._server = self._start()
        self._times = times
        self._thread = None
        self.kills = 0

    def progress(self, done, total):
        if self.kills < self._times and done > (self.kills + 1) * total // (self._times + 2):
            self.kills += 1
            self._server.kill()
            self._thread = threading.Thread(target=self._replace)
            self._thread.start()

    def _replace(self):
        time.sleep(0.3)
        self._server = self._start()

    def rest(self):
        self._thread.join()


@pytest.mark.parametrize("kind", ["sync", "aio"])
def test_a_killed_server_changes_nothing(start_server, kind):
    assassin = Assassin(start_server)
    out = np.zeros(BIG.shape, np.float32)
    if kind == "sync":
        with seedbed.connect(assassin.target) as client:
            client.init(BIG, out=out, progress=assassin.progress)
    else:

        async def call():
            async with seedbed.aio.connect(assassin.target) as client:
                await client.init(BIG, out=out, progress=assassin.progress)

        asyncio.run(call())
    assassin.rest()
    assert assassin.kills == 1
    with seedbed.connect("local:") as client:
        np.testing.assert_array_equal(out, client.init(BIG), strict=True)


@pytest.mark.slow
def test_a_server_killed_twice_changes_no_model(start_server):
    specs = [seedbed.spec("uniform", (256, 2048), name=f"layers.{index}", dtype="bfloat16") for index in range(8)]
    assassin = Assassin(start_server, times=2)
    with seedbed.connect(assassin.target) as client:
        result = list(client.init_model(specs, progress=assassin.progress))
    assassin.rest()
    assert assassin.kills == 2
    with seedbed.connect("local:") as client:
        assert_equal_models(result, list(client.init_model(specs)))
