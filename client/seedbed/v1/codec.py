"""The codec of stream messages for both sides, which does not copy payloads needlessly.

An ordinary protobuf message copies a payload three times before gRPC sees it: into its ``bytes`` field, into the
serialised chunk, and into the serialised response. The payload is the last field of the last field, so all before it is
a short header. `with_chunk` joins header and payload with a single copy, and writes the same bytes as
``SerializeToString``. `parse` returns the payload as a view of the message.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import crc32c
from google.protobuf.message import DecodeError

from seedbed.v1 import Chunk, InitModelResponse, InitTensorResponse, TensorDescription

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5  # protobuf's wire types
_FIXED_SIZES: Final = {_FIXED64: 8, _FIXED32: 4}

Response = type[InitTensorResponse] | type[InitModelResponse]


def _tag(number: int, wire_type: int = _LENGTH_DELIMITED) -> int:
    return number << 3 | wire_type


_OFFSET_TAG: Final = _tag(Chunk.ELEMENT_OFFSET_FIELD_NUMBER, _VARINT)
_CHECKSUM_TAG: Final = _tag(Chunk.CRC32C_FIELD_NUMBER, _FIXED32)
_PAYLOAD_TAG: Final = _tag(Chunk.PAYLOAD_FIELD_NUMBER)
_CHUNK_TAG: Final = _tag(InitTensorResponse.CHUNK_FIELD_NUMBER)
assert InitModelResponse.CHUNK_FIELD_NUMBER == InitTensorResponse.CHUNK_FIELD_NUMBER
_INDEX_TAG: Final = _tag(InitModelResponse.TENSOR_INDEX_FIELD_NUMBER, _VARINT)
_DESCRIPTION_TAGS: Final[dict[Response, int]] = {
    response: _tag(response.DESCRIPTION_FIELD_NUMBER) for response in (InitTensorResponse, InitModelResponse)
}


class StreamMessage(NamedTuple):
    """A parsed InitTensorResponse or InitModelResponse."""

    tensor_index: int
    description: TensorDescription | None
    chunk: ReceivedChunk | None


class ReceivedChunk(NamedTuple):
    """A parsed Chunk, whose payload is a view of the serialised message."""

    element_offset: int
    crc32c: int
    payload: memoryview


_EMPTY_CHUNK: Final = ReceivedChunk(0, 0, memoryview(b""))


def with_chunk(head: bytes, element_offset: int, payload: memoryview) -> bytes:
    """Append a chunk to a response without one.

    Args:
        head: A serialised ``InitTensorResponse`` or ``InitModelResponse`` without its chunk.
        element_offset: The position of the payload's first element within the region, in elements.
        payload: The elements, as bytes; at least one.

    Returns:
        The serialised response with the chunk and its checksum.

    >>> from seedbed.v1 import InitTensorResponse
    >>> message = InitTensorResponse.FromString(with_chunk(b"", 4, memoryview(b"12345678")))
    >>> message.chunk.element_offset, message.chunk.payload
    (4, b'12345678')
    """
    checksum = crc32c.crc32c(payload)
    chunk = bytearray()
    if element_offset:  # protobuf omits zeros
        chunk += bytes((_OFFSET_TAG,)) + _encoded(element_offset)
    if checksum:
        chunk += bytes((_CHECKSUM_TAG,)) + checksum.to_bytes(4, "little")
    chunk += bytes((_PAYLOAD_TAG,)) + _encoded(payload.nbytes)
    return b"".join((head, bytes((_CHUNK_TAG,)), _encoded(len(chunk) + payload.nbytes), chunk, payload))


def field(number: int, serialized: bytes) -> bytes:
    """Encode a serialised message as a field of another message; the field's number must be below 16.

    >>> from seedbed.v1 import InitTensorResponse, TensorDescription
    >>> serialized = TensorDescription(byte_count=8).SerializeToString()
    >>> InitTensorResponse.FromString(field(1, serialized)).description.byte_count
    8
    """
    return b"".join((bytes((_tag(number),)), _encoded(len(serialized)), serialized))


def parse(message: bytes, response: Response) -> StreamMessage:
    """Parse a stream's message.

    Fields may come in any order, unknown ones are skipped, and repeated occurrences are merged, as protobuf demands.

    Args:
        message: A serialised response.
        response: The type of the response.

    Raises:
        ValueError: The message is malformed.

    >>> message = InitModelResponse(tensor_index=3, chunk=Chunk(crc32c=7, payload=b"12345678"))
    >>> index, description, chunk = parse(message.SerializeToString(), InitModelResponse)
    >>> index, description, chunk.crc32c, bytes(chunk.payload)
    (3, None, 7, b'12345678')
    """
    tensor_index, chunk, description_tag = 0, None, _DESCRIPTION_TAGS[response]
    merged: bytearray | None = None  # not a list of parts: a message can hold millions of empty ones
    try:
        for tag, content in _fields(memoryview(message)):
            if tag == description_tag:
                merged = bytearray() if merged is None else merged
                merged += content
            elif tag == _INDEX_TAG:
                tensor_index = content & 0xFFFFFFFF
            elif tag == _CHUNK_TAG:
                chunk = _parse_chunk(content, chunk or _EMPTY_CHUNK)
        description = None if merged is None else TensorDescription.FromString(bytes(merged))
    except (IndexError, DecodeError) as error:
        raise ValueError(str(error)) from error
    return StreamMessage(tensor_index, description, chunk)


def _parse_chunk(content: memoryview, chunk: ReceivedChunk) -> ReceivedChunk:
    element_offset, checksum, payload = chunk
    for tag, value in _fields(content):
        if tag == _OFFSET_TAG:
            element_offset = value & (2**64 - 1)  # a negative offset becomes a huge one, which the assembler refuses
        elif tag == _CHECKSUM_TAG:
            checksum = int.from_bytes(value, "little")
        elif tag == _PAYLOAD_TAG:
            payload = value
    return ReceivedChunk(element_offset, checksum, payload)


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """Yield each field's tag and content: the value of a varint, the bytes of any other."""
    position, end = 0, len(data)
    while position < end:
        tag, start = data[position], position + 1
        if tag >= 0x80:  # most tags, and many lengths, are a byte long
            tag, start = _decoded(data, position)
        wire_type = tag & 7
        content: Any = None
        if wire_type == _VARINT:
            content, position = _decoded(data, start)
        elif wire_type == _LENGTH_DELIMITED:
            length, begin = data[start], start + 1
            if length >= 0x80:
                length, begin = _decoded(data, start)
            start, position = begin, begin + length
        elif wire_type in _FIXED_SIZES:
            position = start + _FIXED_SIZES[wire_type]
        else:
            raise ValueError(f"wire type {wire_type} at byte {position}")
        if position > end or not 8 <= tag < 2**32:
            raise ValueError(f"field {tag >> 3} at byte {start} of {end} ends at byte {position}")
        yield tag, data[start:position] if content is None else content


def _encoded(value: int) -> bytes:
    """Encode a number as a varint."""
    if value < 0x80:
        return bytes((value,))
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _decoded(data: memoryview, position: int) -> tuple[int, int]:
    """Decode the varint at a position; return it and the position after it."""
    byte = data[position]
    if byte < 0x80:  # most are a single byte
        return byte, position + 1
    result = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
    raise ValueError(f"a number at byte {position} is longer than 10 bytes")
