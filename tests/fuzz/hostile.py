"""What may become of bytes that nobody vouches for: checks that the tests and the harnesses of this folder share.

A source of choices is a function ``pick(most)`` that gives an integer of 0..most: by a seed of Hypothesis in the tests,
of atheris in ``fuzz_requests.py`` and ``fuzz_responses.py``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable

import numpy as np
from _helpers.messages import messages
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

import seedbed
from seedbed._receive.assembler import Assembler, ModelAssembler, TensorAssembler
from seedbed.errors import Corrupted
from seedbed.v1 import (
    CalculateGainRequest,
    InitModelRequest,
    InitTensorRequest,
    Orthogonal,
    Region,
    ResumePoint,
    TensorSlice,
    TensorSpec,
    init_pb2,
)
from seedbed_server import engine
from seedbed_server.service.errors import to_status
from seedbed_server.service.servicer import STREAMS, UNARY, InitServicer
from seedbed_server.service.settings import Settings

Pick = Callable[[int], int]

METHODS = tuple(sorted(STREAMS | UNARY))
_CHUNK_BYTES = 64  # so that small tensors have many
_MESSAGES_READ = 3
_MAX_MESSAGE_BYTES = 4 << 20  # what gRPC clients accept by default
_MAX_METADATA_BYTES = 8 << 10
_SMALL_MATRIX = 1 << 10  # a larger QR is correct, but no use of a fuzzer's time
_SERVICER = InitServicer(engine.open_backend("numpy", 1), Settings(chunk_bytes=_CHUNK_BYTES))


# Requests ------------------------------------------------------------------------------------------------------------


def answer(method: str, request: bytes) -> str:
    """Serves a request as a server would, up to its first messages, and says what became of it.

    Raises:
        AssertionError: It was neither served as a client expects, nor refused as a client understands.
    """
    request_type, serve = (STREAMS | UNARY)[method]
    if len(request) > Settings.max_request_bytes:
        return "too large"  # gRPC does not read it
    try:
        message = request_type.FromString(request)
    except DecodeError:
        return "unreadable"
    try:
        if method in STREAMS:
            return _check_stream(message, serve)
        serve(_SERVICER, message).SerializeToString()
    except engine.InvalidSpec as error:
        _check_refusal(error, request_type)
        return "refused"
    return "served"


def _check_stream(request: Message, serve: Callable[..., Iterable[bytes]]) -> str:
    stream = serve(_SERVICER, request, lambda: False)
    if any(_is_slow(each.spec) for each in _slices(request)):
        return "described"
    literals = [each.spec.HasField("literal") for each in _slices(request)]
    assembler = None if any(literals) else _assembler(request)  # our clients never ask for one
    for message in itertools.islice(stream, _MESSAGES_READ):
        assert len(message) <= _MAX_MESSAGE_BYTES + len(request.SerializeToString())
        if assembler is not None:
            assembler.feed(message)
    return "served"


def _slices(request: Message) -> list[TensorSlice]:
    if isinstance(request, InitModelRequest):
        return list(request.tensors)
    return [TensorSlice(spec=request.spec, region=request.region if request.HasField("region") else None)]  # type: ignore[attr-defined]


def _assembler(request: Message) -> Assembler:
    """A client that sent the request, and accepts no other response."""
    if isinstance(request, InitTensorRequest):
        return TensorAssembler(_slices(request)[0], request.first_element)
    assembler = ModelAssembler(_slices(request))
    assembler._next = assembler._index = request.resume.tensor_index  # type: ignore[attr-defined]
    assembler._position = request.resume.first_element  # type: ignore[attr-defined]
    return assembler


def _is_slow(spec: TensorSpec) -> bool:
    return engine.whole_elements(engine.describe(spec)) > _SMALL_MATRIX


def _check_refusal(error: engine.InvalidSpec, request_type: type[Message]) -> None:
    assert re.split(r"[.\[]", error.field)[0] in request_type.DESCRIPTOR.fields_by_name, error
    assert error.description.isprintable()
    assert len(to_status(error).SerializeToString()) < _MAX_METADATA_BYTES


_TENSORS = [
    TensorSpec(name="w", shape=[6, 4], seed=7, kaiming_normal={"mode": 2, "nonlinearity": 11}),
    TensorSpec(name="é", shape=[3, 5, 2], dtype=4, trunc_normal={"mean": 1, "std": 2, "a": -1, "b": 3, "bounds": 2}),
    TensorSpec(name="q", shape=[4, 3], dtype=3, orthogonal=Orthogonal(gain=2)),
    TensorSpec(name="s", shape=[9, 2], sparse={"sparsity": 0.5}),
    TensorSpec(name="d", shape=[4, 2, 3], dirac={"groups": 2}),
    TensorSpec(
        name="v", shape=[2, 3, 4], variance_scaling={"scale": 1, "mode": 3, "distribution": 3, "in_axis": {"axes": [0]}}
    ),
    TensorSpec(name="n", shape=[3, 5], permutation={}, stream="q"),
    TensorSpec(name="l", shape=[2, 2], literal={"data": np.arange(4, dtype="<f4").tobytes()}),
    TensorSpec(
        name="p",
        shape=[8, 8],
        parts={
            "parts": [
                {"region": {"start": [0, 0], "stop": [3, 8]}, "recipe": {"normal": {}, "stream": "x"}},
                {"view": {"shape": [8], "strides": [-9], "offset": 63}, "recipe": {"uniform": {}, "shape": [1]}},
                {"recipe": {"parts": {"parts": [{"recipe": {"eye": {}, "dtype": 2}}]}}},
            ]
        },
    ),
    TensorSpec(
        name="e",
        shape=[4, 6],
        expression={
            "steps": [
                {"recipe": {"normal": {}}},
                {"constant": 0.5},
                {"function": 3, "arguments": [0, 1]},
                {"view": {"shape": [6, 4], "strides": [1, 6]}, "arguments": [2]},
                {"reduction": {"reducer": 5, "axes": [0], "p": 2}, "arguments": [0]},
                {"function": 2, "arguments": [0, 4]},
                {"cast": 3, "arguments": [5]},
                {
                    "assembly": {"shape": [4, 6], "boxes": [{"shape": [4, 6], "strides": [6, 1]}, {"offset": 3}]},
                    "arguments": [6, 1],
                },
            ]
        },
    ),
]
_CORNER = [Region(start=[0] * len(spec.shape), stop=[2] * len(spec.shape)) for spec in _TENSORS]
_SLICES = [TensorSlice(spec=spec, region=region) for spec, region in zip(_TENSORS, _CORNER, strict=True)]


def sound_requests(method: str) -> list[bytes]:
    """Requests that a server serves, to be damaged."""
    requests: list[Message] = {
        "InitModel": [
            InitModelRequest(tensors=_SLICES),
            InitModelRequest(tensors=_SLICES, resume=ResumePoint(tensor_index=1, first_element=3)),
        ],
        "CalculateGain": [CalculateGainRequest(nonlinearity=12, param=0.5)],
    }.get(method, [])
    if method in ("InitTensor", "DescribeTensor"):
        request_type = (STREAMS | UNARY)[method][0]
        requests = [request_type(spec=part.spec, region=part.region) for part in _SLICES]
        requests += [InitTensorRequest(spec=spec, first_element=2) for spec in _TENSORS if method == "InitTensor"]
    return [request.SerializeToString() for request in requests] or [b""]


# Choices -------------------------------------------------------------------------------------------------------------

_INTEGERS = (0, 1, 2, 3, 4, 5, 7, 64, -1, -2, 1 << 20, (1 << 31) - 1, 1 << 31, 1 << 62, (1 << 63) - 1, -(1 << 63))
_DOUBLES = (0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e308, -1e308, 5e-324, 3.4e38, 1e-45, float("inf"), float("nan"))
_TEXTS = ("", "w", "layers.0.weight", "\x00\n", "é\U0001f600", "x" * 5000)
_LENGTHS = (0, 1, 1, 2, 2, 3, 5, 65, 1025)
_LENGTHS_OF_MESSAGES = (0, 1, 2, 5, 20)  # they hold lists of their own
_INTEGER_RANGES = {
    FieldDescriptor.TYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_UINT64: (0, (1 << 64) - 1),
    FieldDescriptor.TYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.TYPE_ENUM: (-1, 20),
}


def built(message_type: type[Message], pick: Pick, depth: int = 8) -> Message:
    """Any message of the type, with lists of any length, whether or not it makes sense; messages within end at 0."""
    message = message_type()
    if not depth:
        return message
    for field in message_type.DESCRIPTOR.fields:
        if field.containing_oneof is not None and len(field.containing_oneof.fields) > 1:
            continue
        if pick(3):
            _set(message, field, pick, depth)
    for oneof in message_type.DESCRIPTOR.oneofs:
        _set(message, oneof.fields[pick(len(oneof.fields) - 1)], pick, depth)
    return message


def _set(message: Message, field: FieldDescriptor, pick: Pick, depth: int) -> None:
    value = getattr(message, field.name)
    if hasattr(value, "extend"):
        few = [_value(field, pick, depth) for _ in range(pick(4))]
        lengths = _LENGTHS if field.message_type is None else _LENGTHS_OF_MESSAGES
        value.extend(few or [_value(field, pick, depth)] * _of(lengths, pick))
    elif isinstance(value, Message):
        value.CopyFrom(built(getattr(init_pb2, field.message_type.name), pick, depth - 1))
        value.SetInParent()
    else:
        setattr(message, field.name, _value(field, pick, depth))


def _value(field: FieldDescriptor, pick: Pick, depth: int) -> object:
    if field.message_type is not None:
        return built(getattr(init_pb2, field.message_type.name), pick, depth - 1)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return bytes(4 * _of(_LENGTHS, pick))
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return _of(_DOUBLES, pick)
    if field.type == FieldDescriptor.TYPE_STRING:
        return _of(_TEXTS, pick)
    least, most = _INTEGER_RANGES[field.type]
    return min(max(_of(_INTEGERS, pick), least), most)


def damaged(data: bytes, pick: Pick) -> bytes:
    """A message with a few places changed, cut out, doubled or filled with something else."""
    mutable = bytearray(data)
    for _ in range(1 + pick(3)):
        begin = pick(len(mutable))
        end = min(len(mutable), begin + pick(8))
        part = bytes(mutable[begin:end])
        flipped = bytes([part[0] ^ 1 << pick(7)]) + part[1:] if part else b""
        random = bytes(pick(255) for _ in range(pick(6)))
        mutable[begin:end] = (flipped, b"", part * (1 + pick(40)), random, part + random)[pick(4)]
    return bytes(mutable)


def _of(values: tuple, pick: Pick) -> object:
    return values[pick(len(values) - 1)]


# Responses -----------------------------------------------------------------------------------------------------------

_TENSOR = seedbed.spec("normal", (6, 16), seed=7, name="w")
_MODEL = [
    _TENSOR,
    seedbed.spec("zeros", (0, 3), name="empty"),
    seedbed.spec("uniform", (5, 5), name="b", dtype="float64"),
    seedbed.spec("ones", (), name="scalar", dtype="bfloat16"),
]


def _right(method: str, request: Message) -> list[bytes]:
    return list(messages(method, request, _CHUNK_BYTES))


RIGHT_ANSWERS = {
    "InitTensor": _right("InitTensor", InitTensorRequest(spec=_TENSOR)),
    "InitModel": _right("InitModel", InitModelRequest(tensors=[TensorSlice(spec=spec) for spec in _MODEL])),
}


def assembler_of(method: str) -> Assembler:
    """A client that waits for the answers of `RIGHT_ANSWERS`."""
    slices = [TensorSlice(spec=spec) for spec in _MODEL]
    return TensorAssembler(slices[0]) if method == "InitTensor" else ModelAssembler(slices)


def _pieces(method: str) -> dict[tuple[int, int], bytes]:
    assembler = assembler_of(method)
    pieces = map(assembler.feed, RIGHT_ANSWERS[method])
    return {(piece.tensor_index, piece.offset): piece.values.tobytes() for piece in pieces}


_RIGHT_PIECES = {method: _pieces(method) for method in RIGHT_ANSWERS}


def receive(method: str, messages: Iterable[bytes]) -> str:
    """Takes the messages of a server that is not trusted, and says what became of them.

    Raises:
        AssertionError: Something was accepted that is not what was requested.
    """
    assembler = assembler_of(method)
    try:
        for message in messages:
            piece = assembler.feed(message)
            assert _RIGHT_PIECES[method][piece.tensor_index, piece.offset] == piece.values.tobytes()
        assembler.finish()
    except Corrupted:
        return "corrupted"
    return "accepted"


def rearranged(messages: list[bytes], pick: Pick) -> list[bytes]:
    """A stream with messages lost, doubled, exchanged, damaged or made up."""
    messages = list(messages)
    for _ in range(1 + pick(2)):
        index, other = pick(len(messages) - 1), pick(len(messages) - 1)
        kind = pick(5)
        if kind == 0 and len(messages) > 1:
            del messages[index]
        elif kind == 1:
            messages.insert(other, messages[index])
        elif kind == 2:
            messages[index], messages[other] = messages[other], messages[index]
        else:
            messages[index] = damaged(messages[index], pick)
    return messages
