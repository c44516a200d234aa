"""Whatever bytes a server sends, a client hands out what it requested or raises `Corrupted`, within bounds.

``fuzz_responses.py`` goes on for as long as one likes. What streams do that break, lie or stall is in
``tests/test_resume.py``.
"""

import contextlib
import random
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import grpc
import hostile
import pytest
from _helpers.messages import messages
from google.protobuf import any_pb2
from google.rpc import status_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import seedbed
from seedbed import errors
from seedbed.v1 import DescribeTensorRequest, DescribeTensorResponse, InitTensorRequest
from seedbed_server.service.local import LocalService

quickly = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
STREAMING = ("InitModel", "InitTensor")
MIB = 1 << 20


def picker(seed):
    chosen = random.Random(seed)
    return lambda most: chosen.randint(0, most)


@pytest.mark.parametrize("method", STREAMING)
def test_right_streams_are_accepted(method):
    assert hostile.receive(method, hostile.RIGHT_ANSWERS[method]) == "accepted"


@pytest.mark.parametrize("method", STREAMING)
@quickly
@given(message=st.binary(max_size=200), index=st.integers(0, 5))
def test_bytes_that_may_be_no_message(method, message, index):
    right = hostile.RIGHT_ANSWERS[method]
    assert hostile.receive(method, [*right[:index], message, *right[index:]]) == "corrupted"


@pytest.mark.parametrize("method", STREAMING)
@quickly
@given(seed=st.integers(0, 2**32))
def test_streams_with_messages_damaged_lost_doubled_or_exchanged(method, seed):
    hostile.receive(method, hostile.rearranged(hostile.RIGHT_ANSWERS[method], picker(seed)))


@pytest.mark.parametrize("method", STREAMING)
def test_no_flipped_bit_is_accepted_as_something_else(method):
    """Every bit of every message: `receive` compares what is accepted with the reference."""
    right = hostile.RIGHT_ANSWERS[method]
    for index, message in enumerate(right):
        for bit in range(8 * len(message)):
            flipped = bytearray(message)
            flipped[bit // 8] ^= 1 << bit % 8
            hostile.receive(method, [*right[:index], bytes(flipped), *right[index + 1 :]])


# The shortest fields that a client looks at.
FIELDS = {
    "descriptions": b"\x0a\x00",
    "indices": b"\x08\x01",
    "chunks": b"\x7a\x00",
    "payloads": b"\x7a\x02\x7a\x00",
    "unknown fields": b"\xfa\x01\x00",
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_message_of_nothing_but_fields_takes_seconds_at_most(name):
    """An eighth of what a client takes by default; the time grows with the length and no faster."""
    message = FIELDS[name] * (MIB // 2 // len(FIELDS[name]))
    begin = time.thread_time()
    assert hostile.receive("InitTensor", [message]) == "corrupted"
    assert time.thread_time() - begin < 2


def test_a_message_of_empty_descriptions_takes_no_more_memory_than_its_own():
    """A list of the parts took 130 times as much."""
    tracemalloc.start()
    try:
        assert hostile.receive("InitTensor", [FIELDS["descriptions"] * (MIB // 8)]) == "corrupted"
        assert tracemalloc.get_traced_memory()[1] < 2 * MIB
    finally:
        tracemalloc.stop()


class Liar:
    """A server that answers the calls with what functions of their requests give: bytes, or an exception to abort."""

    def __init__(self, **answers):
        self._answers = answers
        self._grpc = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        self.port = self._grpc.add_insecure_port("127.0.0.1:0")
        self._grpc.add_generic_rpc_handlers([self])
        self._grpc.start()
        self.target = f"127.0.0.1:{self.port}"

    def service(self, details):
        answer = self._answers.get(details.method.rpartition("/")[2])
        return answer and grpc.unary_stream_rpc_method_handler(lambda request, _: iter(answer(request)))

    def stop(self):
        self._grpc.stop(0).wait()


@contextlib.contextmanager
def lying(**answers):
    server = Liar(**answers)
    try:
        yield server
    finally:
        server.stop()


def test_answers_that_are_no_messages_are_errors_of_ours():
    pick = picker(3)
    asks = [
        lambda client: client.describe(seedbed.spec("normal", (4, 4))),
        lambda client: client.calculate_gain("relu"),
        lambda client: client.server_info(),
    ]

    def noise(_):
        return [b"\xff" + bytes(pick(255) for _ in range(20))]

    with contextlib.ExitStack() as stack:
        liar = stack.enter_context(lying(DescribeTensor=noise, CalculateGain=noise, GetServerInfo=noise))
        client = stack.enter_context(seedbed.connect(liar.target, timeout=5))
        for ask in asks:
            with pytest.raises(seedbed.SeedbedError):
                ask(client)


def test_a_refusal_whose_details_cannot_be_read_is_still_a_refusal():
    details = any_pb2.Any(type_url="type.googleapis.com/google.rpc.BadRequest", value=b"\xff\xff")
    status = status_pb2.Status(code=3, message="spec: is missing", details=[details])
    assert isinstance(errors.from_status(status, "a server"), seedbed.InvalidRequest)


@quickly
@given(code=st.integers(-(2**31), 2**31 - 1), message=st.text(max_size=50))
def test_any_status_is_an_error_of_ours(code, message):
    assert isinstance(
        errors.from_status(status_pb2.Status(code=code, message=message), "a server"), seedbed.SeedbedError
    )


def test_a_striped_tensor_is_of_the_seed_that_was_requested():
    """No checksum guards the answer of DescribeTensor, by which all parts of a large tensor are requested."""
    service = LocalService("numpy")

    def describe_another(request):
        description_request = DescribeTensorRequest.FromString(request)
        description_request.spec.seed ^= 1
        answer = service.unary("DescribeTensor", description_request)
        assert isinstance(answer, DescribeTensorResponse)
        return [answer.SerializeToString()]

    def init(request):
        return messages("InitTensor", InitTensorRequest.FromString(request))

    with contextlib.ExitStack() as stack:
        liars = [stack.enter_context(lying(DescribeTensor=describe_another, InitTensor=init)) for _ in range(2)]
        client = stack.enter_context(seedbed.connect(",".join(liar.target for liar in liars), timeout=20))
        with pytest.raises(seedbed.Corrupted):
            client.uniform((8 << 20,), seed=7, name="w")
