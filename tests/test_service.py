"""The service: framing and the chunk pipeline as functions; errors, limits, health and shutdown over sockets."""

import logging
import re
import signal
import socket
import threading
import time
from concurrent import futures

import crc32c
import grpc
import numpy as np
import pytest
from _helpers.command import process
from _helpers.fake_backend import FakeBackend
from _helpers.messages import messages
from _helpers.servers import start_here
from _helpers.waiting import wait_until
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import seedbed
from seedbed.common.status import ServiceError
from seedbed.v1 import (
    CalculateGainRequest,
    CalculateGainResponse,
    Chunk,
    DataType,
    DescribeTensorRequest,
    DescribeTensorResponse,
    GetServerInfoRequest,
    GetServerInfoResponse,
    InitModelRequest,
    InitModelResponse,
    InitTensorRequest,
    InitTensorResponse,
    Normal,
    Region,
    ResumePoint,
    TensorDescription,
    TensorSlice,
    TensorSpec,
    Zeros,
    codec,
    init_pb2,
)
from seedbed_server import engine
from seedbed_server.service import listening
from seedbed_server.service import servicer as servicer_module
from seedbed_server.service.errors import to_status
from seedbed_server.service.local import LocalService
from seedbed_server.service.server import _CHANNEL_ARGUMENTS
from seedbed_server.service.servicer import SERVICE_NAME, STREAMS, UNARY, InitServicer
from seedbed_server.service.settings import Settings

DTYPES = [
    DataType.DATA_TYPE_FLOAT32,
    DataType.DATA_TYPE_FLOAT16,
    DataType.DATA_TYPE_BFLOAT16,
    DataType.DATA_TYPE_FLOAT64,
]
RPCS = {
    "InitTensor": (InitTensorRequest, InitTensorResponse),
    "InitModel": (InitModelRequest, InitModelResponse),
    "DescribeTensor": (DescribeTensorRequest, DescribeTensorResponse),
    "CalculateGain": (CalculateGainRequest, CalculateGainResponse),
    "GetServerInfo": (GetServerInfoRequest, GetServerInfoResponse),
}
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
ENDLESS = TensorSpec(shape=[1 << 40], zeros=Zeros())


def zeros(*shape, **fields):
    return TensorSpec(shape=shape, zeros=Zeros(), **fields)


def never():
    return False


def tensor_responses(servicer, spec, **fields):
    request = InitTensorRequest(spec=spec, **fields)
    return [InitTensorResponse.FromString(message) for message in servicer.init_tensor(request, never)]


def model_responses(servicer, tensors, **fields):
    request = InitModelRequest(tensors=tensors, **fields)
    return [InitModelResponse.FromString(message) for message in servicer.init_model(request, never)]


def joined(responses):
    return b"".join(response.chunk.payload for response in responses)


# Framing -------------------------------------------------------------------------------------------------------------


@given(
    name=st.text(max_size=300),
    offset=st.integers(0, 2**63 - 1),
    payload=st.binary(min_size=1, max_size=40000),
    index=st.integers(0, 2**32 - 1),
)
def test_framing_matches_protobuf(name, offset, payload, index):
    chunk = Chunk(element_offset=offset, crc32c=crc32c.crc32c(payload), payload=payload)
    for head in (
        InitTensorResponse(),
        InitTensorResponse(description=TensorDescription(spec=TensorSpec(name=name))),
        InitModelResponse(tensor_index=index),
        InitModelResponse(tensor_index=index, description=TensorDescription(spec=TensorSpec(name=name))),
    ):
        whole = type(head)()
        whole.CopyFrom(head)
        whole.chunk.CopyFrom(chunk)
        framed = codec.with_chunk(head.SerializeToString(), offset, memoryview(payload))
        assert type(framed) is bytes  # gRPC's server hangs on anything else
        assert framed == whole.SerializeToString()


@pytest.mark.parametrize("size", [127, 128, 16383, 16384, 2097151, 2097152])
def test_framing_at_varint_boundaries(size):
    payload = bytes(size)
    chunk = Chunk(crc32c=crc32c.crc32c(payload), payload=payload)
    assert codec.with_chunk(b"", 0, memoryview(payload)) == InitTensorResponse(chunk=chunk).SerializeToString()


# The chunk pipeline --------------------------------------------------------------------------------------------------


def test_every_rpc_of_the_contract_is_served():
    methods = init_pb2.DESCRIPTOR.services_by_name["InitService"].methods
    served = {**UNARY, **STREAMS}
    assert {method.name: method.input_type.full_name for method in methods} == {
        name: request_type.DESCRIPTOR.full_name for name, (request_type, _) in served.items()
    }
    assert set(RPCS) == set(served)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("chunk_bytes", [8, 1001, 1 << 20])
def test_chunks_are_consecutive_and_hold_whole_elements(dtype, chunk_bytes):
    numpy_dtype = engine.numpy_dtype(dtype)
    responses = tensor_responses(
        InitServicer(FakeBackend(), Settings(chunk_bytes=chunk_bytes)), zeros(700, dtype=dtype)
    )

    assert [response.HasField("description") for response in responses] == [True] + [False] * (len(responses) - 1)
    assert responses[0].description.element_count == 700
    offset = 0
    for response in responses:
        assert response.chunk.element_offset == offset
        assert response.chunk.crc32c == crc32c.crc32c(response.chunk.payload)
        assert 0 < len(response.chunk.payload) <= chunk_bytes
        assert len(response.chunk.payload) % numpy_dtype.itemsize == 0
        offset += len(response.chunk.payload) // numpy_dtype.itemsize
    assert joined(responses) == np.arange(700).astype(numpy_dtype).tobytes()


def test_messages_match_protobuf():
    servicer = InitServicer(FakeBackend(), Settings(chunk_bytes=16))
    tensors = [TensorSlice(spec=zeros(count, name="λ" * 100 * count)) for count in (9, 0, 1)]
    for message in servicer.init_model(InitModelRequest(tensors=tensors), never):
        assert message == InitModelResponse.FromString(message).SerializeToString()
    for message in servicer.init_tensor(InitTensorRequest(spec=zeros(9)), never):
        assert message == InitTensorResponse.FromString(message).SerializeToString()


def test_a_small_tensor_is_one_message():
    assert len(tensor_responses(InitServicer(FakeBackend()), zeros(3, 4))) == 1


def test_resume_at_every_element():
    servicer = InitServicer(FakeBackend(), Settings(chunk_bytes=16))
    whole = joined(tensor_responses(servicer, zeros(11)))
    for first_element in range(12):
        responses = tensor_responses(servicer, zeros(11), first_element=first_element)
        assert responses[0].HasField("description")
        assert joined(responses) == whole[4 * first_element :]
    assert len(responses) == 1
    assert not responses[0].HasField("chunk")


@pytest.mark.parametrize("cached_descriptions", [0, 1, 2, 4096])
def test_resume_a_model_at_every_point(monkeypatch, cached_descriptions):
    monkeypatch.setattr(servicer_module, "_MAX_CACHED_DESCRIPTIONS", cached_descriptions)
    servicer = InitServicer(FakeBackend(), Settings(chunk_bytes=16))
    tensors = [TensorSlice(spec=zeros(count, name=str(count))) for count in (5, 0, 1, 9)]
    whole = joined(model_responses(servicer, tensors))
    before = 0
    for index, tensor in enumerate(tensors):
        count = tensor.spec.shape[0]
        for first_element in range(count + 1):
            resume = ResumePoint(tensor_index=index, first_element=first_element)
            responses = model_responses(servicer, tensors, resume=resume)
            assert joined(responses) == whole[4 * (before + first_element) :]
            # Each remaining tensor is described once, in its first message.
            described = [response for response in responses if response.HasField("description")]
            assert [response.tensor_index for response in described] == list(range(index, len(tensors)))
            assert [response.description.spec.name for response in described] == [t.spec.name for t in tensors[index:]]
        before += count
    assert model_responses(servicer, tensors, resume=ResumePoint(tensor_index=len(tensors))) == []


@pytest.mark.parametrize("shape", [(0,), (3, 0, 4)])
def test_an_empty_tensor_is_only_a_description(shape):
    backend = FakeBackend()
    responses = tensor_responses(InitServicer(backend), zeros(*shape))
    assert len(responses) == 1
    assert responses[0].description.byte_count == 0
    assert not responses[0].HasField("chunk")
    assert backend.fills == []


def test_an_empty_region_is_only_a_description():
    responses = tensor_responses(InitServicer(FakeBackend()), zeros(8), region=Region(start=[3], stop=[3]))
    assert [response.HasField("chunk") for response in responses] == [False]


def test_a_scalar_has_one_element():
    assert len(joined(tensor_responses(InitServicer(FakeBackend()), zeros()))) == 4


def test_an_empty_model_is_an_empty_stream():
    assert model_responses(InitServicer(FakeBackend()), []) == []


def test_a_model_may_have_two_regions_of_one_tensor():
    spec = zeros(8, name="w")
    tensors = [
        TensorSlice(spec=spec, region=Region(start=[0], stop=[3])),
        TensorSlice(spec=spec, region=Region(start=[6], stop=[8])),
    ]
    responses = model_responses(InitServicer(FakeBackend()), tensors)
    assert [len(response.chunk.payload) for response in responses] == [12, 8]


def test_streams_share_buffers_and_slow_readers_hold_none():
    backend = FakeBackend()
    servicer = InitServicer(backend, Settings(chunk_bytes=4096))
    streams = [servicer.init_tensor(InitTensorRequest(spec=zeros(5000)), never) for _ in range(50)]
    for stream in streams:
        next(stream)
    for stream in streams:
        next(stream)
    assert len(backend.buffers) == 1


def test_cancellation_between_chunks():
    backend = FakeBackend()
    cancelled = threading.Event()
    stream = InitServicer(backend).init_tensor(InitTensorRequest(spec=ENDLESS), cancelled.is_set)
    next(stream)
    cancelled.set()
    with pytest.raises(engine.Cancelled):
        next(stream)
    assert len(backend.fills) == 1


class AheadBackend(FakeBackend):
    """Samples only when awaited, which is as late as a device may; records the order of events."""

    ahead = 2

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__()
        self.log = []
        self.fails_at = fails_at

    def sampler(self, description):
        fill = super().sampler(description)

        def begin(first_element, out, cancelled):
            self.log.append(f"begin {first_element}")
            if first_element == self.fails_at:
                raise MemoryError("the GPU is out of memory")
            out.fill(0xA5)

            def wait():
                self.log.append(f"wait {first_element}")
                fill(first_element, out, cancelled)

            return wait

        return begin


def test_chunks_are_started_ahead_of_the_one_being_sent():
    backend = AheadBackend()
    stream = InitServicer(backend, Settings(chunk_bytes=16)).init_tensor(InitTensorRequest(spec=zeros(20)), never)
    assert backend.log == []
    payloads = []
    for message in stream:
        backend.log.append("sent")
        payloads.append(InitTensorResponse.FromString(message).chunk.payload)
    assert " ".join(backend.log) == (
        "begin 0 begin 4 begin 8 wait 0 sent begin 12 wait 4 sent begin 16 wait 8 sent wait 12 sent wait 16 sent"
    )
    assert np.frombuffer(b"".join(payloads), np.float32).tolist() == list(range(20))


def test_nothing_is_started_beyond_the_end_of_a_tensor():
    backend = AheadBackend()
    assert len(tensor_responses(InitServicer(backend, Settings(chunk_bytes=16)), zeros(8))) == 2
    assert backend.log == ["begin 0", "begin 4", "wait 0", "wait 4"]


@pytest.mark.parametrize("end", ["closed", "cancelled", "failed"])
def test_started_chunks_are_awaited_before_their_buffers_are_reused(end):
    backend = AheadBackend(fails_at=12 if end == "failed" else None)
    servicer = InitServicer(backend, Settings(chunk_bytes=16))
    cancelled = threading.Event()
    stream = servicer.init_tensor(InitTensorRequest(spec=zeros(20)), cancelled.is_set)
    next(stream)
    if end == "closed":
        stream.close()  # type: ignore[attr-defined]
    else:
        cancelled.set() if end == "cancelled" else None
        with pytest.raises(engine.Cancelled if end == "cancelled" else MemoryError):
            next(stream)
    assert [step for step in backend.log if "wait" in step] == ["wait 0", "wait 4", "wait 8"]
    assert len(servicer._chunks._idle_buffers) == len(backend.buffers) == 3


def test_buffers_come_from_the_backend():
    backend = FakeBackend()
    buffer = np.empty(64, np.uint8)
    backend.buffer = lambda byte_count: buffer[:byte_count]
    tensor_responses(InitServicer(backend, Settings(chunk_bytes=64)), zeros(100))
    assert backend.buffers == {buffer.ctypes.data}


@pytest.mark.parametrize("chunk_bytes", [7, 0, -1, (3 << 20) + 1])
def test_chunk_bytes_out_of_range(chunk_bytes):
    with pytest.raises(ValueError, match=f"chunk_bytes: {chunk_bytes} is not between"):
        Settings(chunk_bytes=chunk_bytes)


BAD_TENSORS = [
    (InitTensorRequest(), "spec"),
    (InitTensorRequest(spec=TensorSpec(shape=[2])), "spec.scheme"),
    (InitTensorRequest(spec=zeros(-1)), "spec.shape[0]"),
    (InitTensorRequest(spec=zeros(4), first_element=5), "first_element"),
    (InitTensorRequest(spec=zeros(4), first_element=-1), "first_element"),
    (InitTensorRequest(spec=zeros(9), region=Region(start=[2], stop=[4]), first_element=3), "first_element"),
]
GOOD = TensorSlice(spec=zeros(4))
BAD_MODELS = [
    (InitModelRequest(tensors=[GOOD, TensorSlice()]), "tensors[1].spec"),
    (InitModelRequest(tensors=[GOOD, GOOD, TensorSlice(spec=zeros(-1))]), "tensors[2].spec.shape[0]"),
    (InitModelRequest(tensors=[GOOD], resume=ResumePoint(tensor_index=2)), "resume.tensor_index"),
    (InitModelRequest(resume=ResumePoint(tensor_index=1)), "resume.tensor_index"),
    (InitModelRequest(tensors=[GOOD], resume=ResumePoint(first_element=5)), "resume.first_element"),
    (InitModelRequest(tensors=[GOOD], resume=ResumePoint(first_element=-1)), "resume.first_element"),
    (InitModelRequest(tensors=[GOOD], resume=ResumePoint(tensor_index=1, first_element=1)), "resume.first_element"),
]


@pytest.mark.parametrize(("request_message", "field"), BAD_TENSORS + BAD_MODELS)
def test_bad_requests_are_refused_before_the_first_message(request_message, field):
    backend = FakeBackend()
    servicer = InitServicer(backend)
    method = servicer.init_model if isinstance(request_message, InitModelRequest) else servicer.init_tensor
    with pytest.raises(engine.InvalidSpec) as error:
        method(request_message, never)
    assert error.value.field == field
    assert error.value.description
    assert backend.fills == []


WILD_INTEGERS = st.one_of(st.integers(-3, 6), st.sampled_from([1 << 20, 1 << 31, 1 << 62, (1 << 63) - 1, -1 << 63]))
WILD_VALUES = {
    "double": st.one_of(st.floats(), st.sampled_from([0.0, 1.0, -1.0, 2.0, 1e308, 5e-324])),
    "int64": WILD_INTEGERS,
    "int32": WILD_INTEGERS.map(lambda value: max(min(value, 2**31 - 1), -(2**31))),
    "uint64": st.integers(0, 2**64 - 1),
    "uint32": st.one_of(st.integers(0, 3), st.just(2**32 - 1)),
    "enum": st.one_of(st.integers(0, 14), st.sampled_from([99, -1])),
    "string": st.text(max_size=5),
    "bytes": st.binary(max_size=16),
    "bool": st.booleans(),
}
TYPES = {kind: getattr(FieldDescriptor, f"TYPE_{kind.upper()}") for kind in WILD_VALUES}


@st.composite
def wild(draw, message_type, depth=0):
    """Any message of the type, valid or not."""
    message = message_type()
    for field in message_type.DESCRIPTOR.fields:
        if draw(st.integers(0, 3)) == 0 or (depth > 4 and field.message_type):  # recipes nest
            continue
        if field.message_type:
            parts = wild(getattr(init_pb2, field.message_type.name), depth + 1)
        else:
            parts = next(values for kind, values in WILD_VALUES.items() if TYPES[kind] == field.type)
        value = getattr(message, field.name)
        if isinstance(value, Message):
            value.CopyFrom(draw(parts))
        elif hasattr(value, "extend"):
            value.extend(draw(st.lists(parts, max_size=4)))
        else:
            setattr(message, field.name, draw(parts))
    if message_type is TensorSpec:  # setting a field of a oneof clears the others: choose a scheme uniformly
        schemes = [field.name for field in TensorSpec.DESCRIPTOR.oneofs_by_name["scheme"].fields]
        scheme = getattr(message, draw(st.sampled_from(schemes)))
        scheme.CopyFrom(draw(wild(type(scheme), depth + 1)))
        scheme.SetInParent()
    return message


@pytest.mark.parametrize("method", sorted(RPCS))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_request_is_an_internal_error(method, data):
    """Every request is served, or refused with the name of a field; nothing is sampled here."""
    request_type = RPCS[method][0]
    request_message = data.draw(wild(request_type))
    _, serve_request = (STREAMS | UNARY)[method]
    arguments = (request_message, never) if method in STREAMS else (request_message,)
    try:
        serve_request(InitServicer(FakeBackend()), *arguments)
    except engine.InvalidSpec as error:
        refusal = error
    else:
        return
    assert re.split(r"[.\[]", refusal.field)[0] in request_type.DESCRIPTOR.fields_by_name  # type: ignore[attr-defined]
    assert refusal.description.isprintable()


def test_statuses_fit_into_the_metadata_that_clients_accept():
    for text in ("x" * 100_000, "\N{GRINNING FACE}" * 100_000):
        status = to_status(engine.InvalidSpec(f"spec.{text}", f"{text} is too long"))
        assert len(status.SerializeToString()) < 5000
        assert len(status.message.encode()) < 1100


# In this process -----------------------------------------------------------------------------------------------------


def test_local_service_serves_requests():
    service = LocalService("numpy")
    description = service.unary("DescribeTensor", DescribeTensorRequest(spec=zeros(3000))).description  # type: ignore[attr-defined]
    responses = list(messages("InitTensor", InitTensorRequest(spec=zeros(3000)), chunk_bytes=4096))
    assert description.byte_count == 12000
    assert len(responses) == 3
    assert joined(InitTensorResponse.FromString(response) for response in responses) == bytes(12000)


def test_local_service_raises_errors_with_statuses():
    service = LocalService("numpy")
    with pytest.raises(ServiceError) as unary:
        service.unary("DescribeTensor", DescribeTensorRequest())
    with pytest.raises(ServiceError) as stream:
        list(messages("InitTensor", InitTensorRequest()))
    with pytest.raises(ServiceError) as cancelled:
        list(messages("InitTensor", InitTensorRequest(spec=ENDLESS), cancelled=lambda: True))
    assert unary.value.status == stream.value.status
    assert bad_fields(unary.value.status) == ["spec"]
    assert cancelled.value.status.code == code_pb2.CANCELLED


# Over a socket -------------------------------------------------------------------------------------------------------


class Caller:
    """A client that uses only grpcio."""

    def __init__(self, target, options=()):
        self.channel = grpc.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1), *options])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()

    def call(self, method, request, timeout=20):
        path = f"/{SERVICE_NAME}/{method}"
        request = request if isinstance(request, bytes) else request.SerializeToString()
        parse = RPCS[method][1].FromString  # type: ignore[attr-defined]
        if method in STREAMS:
            return self.channel.unary_stream(path, response_deserializer=parse)(request, timeout=timeout)
        return self.channel.unary_unary(path, response_deserializer=parse)(request, timeout=timeout)

    def refused(self, method, request):
        """The error of a call, which must fail."""
        with pytest.raises(grpc.RpcError) as error:
            self.finish(method, request)
        return error.value

    def code_of(self, method, request):
        try:
            self.finish(method, request)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    def finish(self, method, request):
        responses = self.call(method, request)
        return list(responses) if method in STREAMS else [responses]

    def health(self, service=""):
        stub = health_pb2_grpc.HealthStub(self.channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status


@pytest.fixture
def serve():
    """Starts servers in this process; returns each with a caller."""
    running = []

    def start_one(backend=None, *, chunk_bytes=4096, **options):
        server = start_here(backend, chunk_bytes=chunk_bytes, **options)
        caller = Caller(server.addresses[0])
        running.append((server, caller))
        return server, caller

    yield start_one
    for server, caller in running:
        caller.channel.close()
        server.stop(0)


def details_of(error):
    return status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])


def bad_fields(status):
    bad_request = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(bad_request)
    return [violation.field for violation in bad_request.field_violations]


def test_the_five_rpcs_over_a_socket(serve):
    server, caller = serve()
    assert server.port == int(server.addresses[0].rpartition(":")[2])
    tensor = list(caller.call("InitTensor", InitTensorRequest(spec=zeros(3000))))
    model = list(caller.call("InitModel", InitModelRequest(tensors=[TensorSlice(spec=zeros(3000))])))
    assert joined(tensor) == joined(model) == (np.arange(3000) % 2048).astype(np.float32).tobytes()
    assert caller.call("DescribeTensor", DescribeTensorRequest(spec=zeros(3))).description.element_count == 3
    assert caller.call("CalculateGain", CalculateGainRequest(nonlinearity=1)).gain == 1
    info = caller.call("GetServerInfo", GetServerInfoRequest())
    assert (info.backend, info.device, info.threads) == ("fake", "nothing", 1)
    assert tuple(info.algorithm_versions) == engine.ALGORITHM_VERSIONS
    assert info.limits.chunk_bytes == 4096
    assert info.limits.max_request_bytes == Settings.max_request_bytes
    assert info.limits.max_dimensions == engine.MAX_DIMENSIONS
    assert info.version


@pytest.mark.parametrize(
    ("method", "request_message", "field"),
    [("InitTensor", *bad) for bad in BAD_TENSORS[:4]]
    + [("InitModel", *bad) for bad in BAD_MODELS[:5]]
    + [("DescribeTensor", DescribeTensorRequest(), "spec"), ("CalculateGain", CalculateGainRequest(), "nonlinearity")],
)
def test_bad_requests_over_a_socket(serve, method, request_message, field):
    _, caller = serve()
    error = caller.refused(method, request_message)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith(f"{field}: ")
    assert details_of(error).message == error.details()
    assert bad_fields(details_of(error)) == [field]


@pytest.mark.parametrize("method", RPCS)
def test_garbage_is_an_invalid_argument(serve, method):
    _, caller = serve()
    error = caller.refused(method, b"\xff\xff\xff garbage")
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == f"request: is not a valid {method}Request message"
    assert bad_fields(details_of(error)) == ["request"]


NEW_FIELD = b"\xa0\x06\x01"  # field 100, a number: what a newer contract may have


@pytest.mark.parametrize(
    ("method", "known", "newer"),
    [
        ("InitTensor", InitTensorRequest(spec=zeros(2)).SerializeToString(), NEW_FIELD),
        ("InitTensor", b"", codec.field(1, zeros(2).SerializeToString() + NEW_FIELD)),
        ("InitModel", b"", codec.field(1, codec.field(1, zeros(2).SerializeToString() + NEW_FIELD))),
        ("DescribeTensor", b"", codec.field(1, zeros(2).SerializeToString() + NEW_FIELD)),
        ("CalculateGain", CalculateGainRequest(nonlinearity=1).SerializeToString(), NEW_FIELD),
    ],
)
def test_fields_of_a_newer_contract_are_refused(serve, method, known, newer):
    """Without them, the server would serve other values than the client requests."""
    _, caller = serve()
    error = caller.refused(method, known + newer)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "request: has fields that this server does not know; upgrade the server"


def test_requests_that_are_too_large_are_refused(serve):
    _, caller = serve()
    error = caller.refused("InitTensor", InitTensorRequest(spec=zeros(1, name="x" * (Settings.max_request_bytes + 1))))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_an_unexpected_error_reveals_only_its_id_in_the_log(serve, caplog):
    _, caller = serve(FakeBackend(error=RuntimeError("the secret at /etc/secret")))
    with caplog.at_level(logging.ERROR):
        error = caller.refused("InitTensor", InitTensorRequest(spec=zeros(3)))
    assert error.code() is grpc.StatusCode.INTERNAL
    error_id = re.fullmatch(r"internal error (\w{8}); .*", error.details())[1]
    assert "secret" not in error.details() + str(error.trailing_metadata())
    assert f"internal error {error_id}" in caplog.text
    assert "the secret at /etc/secret" in caplog.text
    assert "Traceback" in caplog.text


def test_out_of_memory(serve):
    _, caller = serve(FakeBackend(error=MemoryError("Unable to allocate 3 GiB at 0x7f")))
    error = caller.refused("InitTensor", InitTensorRequest(spec=zeros(3)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "memory" in error.details()
    assert "0x7f" not in error.details()


def test_out_of_gpu_memory_fails_only_that_call(start_server, monkeypatch):
    monkeypatch.setenv("EMULATED_GPU_BYTES", str(200_000))
    target = start_server(backend="cupy").target
    with seedbed.connect(target, timeout=1) as client:
        with pytest.raises(seedbed.ResourceExhausted, match="short of memory"):
            client.normal((100_000,))
        assert client.normal((1000,), name="small").std() > 0.9
        info = client.server_info()
    assert (info.backend, info.backend_reason) == ("cupy", "requested")
    assert info.device == "Emulated GPU (device 0, compute capability 9.0)"


def test_an_unknown_method_is_unimplemented(serve):
    _, caller = serve()
    with pytest.raises(grpc.RpcError) as error:
        caller.channel.unary_unary(f"/{SERVICE_NAME}/Nothing")(b"", timeout=5)
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_reflection_is_off_by_default(serve):
    server, _ = serve(reflection=True)
    with grpc.insecure_channel(server.addresses[0]) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(database.get_services()) == {
            SERVICE_NAME, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection",
        }  # fmt: skip
        assert database.FindFileContainingSymbol(SERVICE_NAME).package == "seedbed.v1"
    server, _ = serve()
    with grpc.insecure_channel(server.addresses[0]) as channel, pytest.raises(grpc.RpcError, match="Method not found"):
        ProtoReflectionDescriptorDatabase(channel).get_services()


def test_a_cancelled_call_stops_sampling_at_once(serve):
    backend = FakeBackend(seconds=30)
    _, caller = serve(backend)
    call = caller.call("InitTensor", InitTensorRequest(spec=ENDLESS))
    assert wait_until(lambda: backend.fills)
    call.cancel()
    assert backend.cancelled.wait(2)  # takes about a millisecond, unless the machine is busy
    assert len(backend.fills) == 1


def test_a_cancelled_call_stops_between_chunks(serve):
    backend = FakeBackend()
    server, caller = serve(backend)
    call = caller.call("InitTensor", InitTensorRequest(spec=ENDLESS))
    next(call)
    call.cancel()
    assert wait_until(lambda: server._admission.count == 0)
    fills = len(backend.fills)
    time.sleep(0.05)
    assert len(backend.fills) <= fills + 1


def test_a_deadline_stops_sampling(serve):
    backend = FakeBackend(seconds=30)
    _, caller = serve(backend)
    call = caller.call("InitTensor", InitTensorRequest(spec=ENDLESS), timeout=0.2)
    assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert backend.cancelled.wait(5)


def test_a_disconnected_client_stops_sampling(serve):
    backend = FakeBackend(seconds=30)
    server, _ = serve(backend)
    with Caller(server.addresses[0]) as other:
        _call = other.call("InitTensor", InitTensorRequest(spec=ENDLESS))
        assert wait_until(lambda: backend.fills)
    assert backend.cancelled.wait(5)


class Crowd(FakeBackend):
    """Counts how many samplers run concurrently."""

    def __init__(self):
        super().__init__(seconds=0.01)
        self._running = []
        self.most = 0

    def _fill(self, *arguments):
        self._running.append(None)
        self.most = max(self.most, len(self._running))
        try:
            return super()._fill(*arguments)
        finally:
            self._running.pop()


def test_no_more_streams_sample_at_once_than_there_are_cores(serve, monkeypatch):
    monkeypatch.setattr(engine, "usable_cores", lambda: 3)  # independent of this machine
    backend = Crowd()
    _, caller = serve(backend, chunk_bytes=4096)
    requests = [InitTensorRequest(spec=TensorSpec(name=str(i), shape=[4096], zeros=Zeros())) for i in range(20)]
    for call in [caller.call("InitTensor", request) for request in requests]:
        assert len(list(call)) == 4
    assert backend.most == 3


def test_a_slow_matrix_does_not_block_other_streams(serve, monkeypatch):
    monkeypatch.setattr(engine, "usable_cores", lambda: 3)
    backend = FakeBackend(seconds=30)
    _, caller = serve(backend)
    matrix = InitTensorRequest(spec=TensorSpec(shape=[64, 64], orthogonal={}))
    calls = [caller.call("InitTensor", matrix) for _ in range(4)]
    assert wait_until(lambda: len(backend.fills) == len(calls))
    backend.seconds = 0
    assert len(list(caller.call("InitTensor", InitTensorRequest(spec=TensorSpec(shape=[3], zeros=Zeros()))))) == 1
    for call in calls:
        call.cancel()


def test_more_streams_than_the_limit(serve):
    server, caller = serve(max_streams=2, chunk_bytes=1 << 20)
    open_calls = [caller.call("InitTensor", InitTensorRequest(spec=ENDLESS)) for _ in range(2)]
    for call in open_calls:
        next(call)
    for _ in range(20):
        error = caller.refused("InitTensor", InitTensorRequest(spec=zeros(1)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.details() == "the server is at its limit of 2 streams; retry later"
    assert caller.call("DescribeTensor", DescribeTensorRequest(spec=zeros(1))).description.element_count == 1
    open_calls[0].cancel()
    assert wait_until(lambda: server._admission.count == 1)
    assert len(list(caller.call("InitTensor", InitTensorRequest(spec=zeros(1))))) == 1


def test_health_responds_while_every_stream_is_busy(serve):
    _, caller = serve(FakeBackend(seconds=30), max_streams=30)
    calls = [caller.call("InitTensor", InitTensorRequest(spec=ENDLESS)) for _ in range(100)]
    assert wait_until(lambda: sum(call.done() for call in calls) == 70)
    began = time.monotonic()
    for service in ("", SERVICE_NAME):
        assert caller.health(service) == health_pb2.HealthCheckResponse.SERVING
    assert time.monotonic() - began < 1
    with pytest.raises(grpc.RpcError) as error:
        caller.health("seedbed.v9.NoService")
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


def test_slow_readers_do_not_delay_others(serve):
    server, caller = serve(max_streams=100, chunk_bytes=1 << 20)
    slow = [caller.call("InitTensor", InitTensorRequest(spec=ENDLESS)) for _ in range(40)]
    for call in slow:
        next(call)
    with Caller(server.addresses[0]) as fast:
        count = 10_000_000
        responses = fast.call("InitTensor", InitTensorRequest(spec=zeros(count)))
        assert sum(len(response.chunk.payload) for response in responses) == 4 * count


def test_many_clients_at_once(serve):
    server, _ = serve()

    def fetch(size):
        with Caller(server.addresses[0]) as caller:
            return size, joined(caller.call("InitTensor", InitTensorRequest(spec=zeros(size))))

    with futures.ThreadPoolExecutor(16) as pool:
        for size, payload in pool.map(fetch, range(1000, 9000, 250)):
            assert payload == (np.arange(size) % 2048).astype(np.float32).tobytes()


@pytest.mark.parametrize("chunk_bytes", [60, 1000, 65536, 1 << 20])
def test_bytes_do_not_depend_on_the_chunk_size(serve, chunk_bytes):
    spec = TensorSpec(shape=[50, 60], name="w", seed=7, normal=Normal())
    region = Region(start=[3, 5], stop=[49, 58])
    _, caller = serve(engine.open_backend("numpy"), chunk_bytes=chunk_bytes)
    whole = np.frombuffer(joined(caller.call("InitTensor", InitTensorRequest(spec=spec))), np.float32).reshape(50, 60)
    part = joined(caller.call("InitTensor", InitTensorRequest(spec=spec, region=region)))
    _, peer = serve(engine.open_backend("numpy"), chunk_bytes=250)
    assert whole.tobytes() == joined(peer.call("InitTensor", InitTensorRequest(spec=spec)))
    assert part == whole[3:49, 5:58].tobytes()
    assert len(np.unique(whole)) > 2900


PING_INTERVAL = "grpc.http2.min_ping_interval_without_data_ms"


def test_clients_may_ping_every_ten_seconds():
    assert dict(_CHANNEL_ARGUMENTS)[PING_INTERVAL] <= 10_000


@pytest.mark.nightly
@pytest.mark.parametrize(("allowed", "is_kept"), [(500, True), (5_000, False)])
def test_clients_that_ping_within_the_limit_keep_their_connection(serve, monkeypatch, allowed, is_kept):
    options = tuple((name, allowed if name == PING_INTERVAL else value) for name, value in _CHANNEL_ARGUMENTS)
    monkeypatch.setattr("seedbed_server.service.server._CHANNEL_ARGUMENTS", options)
    server, _ = serve()
    pinging = [
        ("grpc.keepalive_time_ms", 600),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    with Caller(server.addresses[0], pinging) as reading_slowly, Caller(server.addresses[0], pinging) as idle:
        responses = reading_slowly.call("InitTensor", InitTensorRequest(spec=ENDLESS), timeout=100)
        next(responses)
        idle.health()
        states = []
        idle.channel.subscribe(states.append)
        if not is_kept:  # the server treats the fourth ping as abuse and closes the connection
            assert wait_until(lambda: len(states) > 1, 10)
            return
        time.sleep(4)
        assert len([next(responses) for _ in range(2000)]) == 2000
        assert states == [grpc.ChannelConnectivity.READY]


# Listening -----------------------------------------------------------------------------------------------------------


def test_several_addresses(serve, tmp_path):
    server, _ = serve(listen=["127.0.0.1:0", f"unix:{tmp_path}/s.sock", "localhost:0"])
    assert server.addresses[1] == f"unix:{tmp_path}/s.sock"
    for address in server.addresses:
        with Caller(address) as caller:
            assert caller.health() == health_pb2.HealthCheckResponse.SERVING


def test_a_port_in_use(serve):
    server, _ = serve()
    for host in ("127.0.0.1", "localhost", "0.0.0.0"):
        with pytest.raises(OSError, match=rf"listen: {host}:{server.port}: the port is in use"):
            start_here(listen=[f"{host}:{server.port}"], insecure=True)


def test_a_port_taken_between_check_and_bind(serve, monkeypatch):
    server, _ = serve()
    monkeypatch.setattr(listening, "check", lambda _address: None)
    with pytest.raises(OSError, match="cannot listen on"):
        start_here(listen=server.addresses)


def test_a_unix_socket_in_use(serve, tmp_path):
    address = f"unix:{tmp_path}/s.sock"
    _, caller = serve(listen=[address])
    with pytest.raises(OSError, match="another server listens there"):
        start_here(listen=[address])
    assert caller.health() == health_pb2.HealthCheckResponse.SERVING


def test_a_unix_socket_left_behind_is_replaced(serve, tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s.sock"))
    server, caller = serve(listen=[f"unix:{tmp_path}/s.sock"])
    assert caller.health() == health_pb2.HealthCheckResponse.SERVING
    server.stop(0)
    assert not (tmp_path / "s.sock").exists()


@pytest.mark.parametrize(
    "address", ["", "50051", ":50051", "localhost:", "localhost:65536", "localhost:x", "host:-1", "unix:"]
)
def test_malformed_addresses(address):
    with pytest.raises(ValueError, match=rf"listen: '{address}' is not an address; give HOST:PORT"):
        listening.check(address)


def test_addresses_that_cannot_be_bound(tmp_path):
    (tmp_path / "file").write_text("precious")
    for address, text in [
        (f"unix:{tmp_path}/file", "not a socket"),
        (f"unix:{tmp_path}/none/s.sock", "does not exist"),
        (f"unix:{tmp_path}/{'x' * 120}", "too long"),
        ("192.0.2.1:0", "Cannot assign requested address"),
        ("no-such-host.invalid:0", "the host is unknown"),
    ]:
        with pytest.raises(OSError, match=text):
            start_here(listen=[address], insecure=True)
    assert (tmp_path / "file").read_text() == "precious"


def test_settings_that_start_refuses():
    with pytest.raises(ValueError, match="max_streams: 0 is not between 1 and"):
        start_here(max_streams=0)
    with pytest.raises(ValueError, match="no address is given"):
        start_here(listen=[])


# The process ---------------------------------------------------------------------------------------------------------


def test_the_banner(start_server, tmp_path):
    handle = start_server(listen=["127.0.0.1:0", f"unix:{tmp_path}/s.sock"])
    assert re.fullmatch(
        rf"seedbed \S+ serving on 127\.0\.0\.1:\d+, unix:{tmp_path}/s\.sock; "
        r"backend numpy on .+ \(.+\)\n",
        handle.banner,
    )


def test_sigterm_lets_streams_finish(start_server):
    handle = start_server(chunk_bytes=65536)
    with Caller(handle.target) as caller:
        count = 10_000_000
        responses = caller.call("InitTensor", InitTensorRequest(spec=zeros(count)), timeout=60)
        received = len(next(responses).chunk.payload)
        watch = health_pb2_grpc.HealthStub(caller.channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        handle.process.terminate()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with Caller(handle.target) as late:
            assert wait_until(lambda: late.code_of("GetServerInfo", GetServerInfoRequest()) is UNAVAILABLE, 20)
        received += sum(len(response.chunk.payload) for response in responses)
        assert received == 4 * count
        code, errors = handle.wait(10)  # well before the grace period of 30 s ends, despite the health watch
    assert (code, errors) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_stalled_stream_after_the_grace_period(start_server, number):
    handle = start_server(grace=0.3)
    with Caller(handle.target) as caller:
        stalled = caller.call("InitTensor", InitTensorRequest(spec=ENDLESS))
        next(stalled)
        handle.process.send_signal(number)
        code, errors = handle.wait(10)
    assert code == 0
    assert "cancelling the calls that did not finish within 0.3 s" in errors


def test_a_second_signal_ends_the_process_at_once(start_server):
    handle = start_server(grace=60)
    with Caller(handle.target) as caller:
        stalled = caller.call("InitTensor", InitTensorRequest(spec=ENDLESS))
        next(stalled)
        handle.process.terminate()
        assert wait_until(lambda: caller.code_of("GetServerInfo", GetServerInfoRequest()) is not grpc.StatusCode.OK)
        code, _ = handle.terminate(10)
    assert code == -signal.SIGTERM


def test_a_second_server_on_a_port_ends_with_a_clear_error(start_server):
    handle = start_server()
    with process("serve", "--listen", handle.target, "--backend", "numpy") as second:
        out, err = second.communicate(timeout=60)
    assert second.returncode == 2
    assert f"listen: {handle.target}: the port is in use" in err
    assert out == ""
