"""Stream messages framed by hand, byte for byte as ``SerializeToString`` would.

An ordinary protobuf message copies a payload three times before gRPC sees it: into its ``bytes`` field, then into the
serialised message, and so on. As the payload is the last field of the last field, all before it is a short header, and
one ``join`` of header and payload makes the message with a single copy.
"""

from __future__ import annotations

from typing import Final

import crc32c

from seedbed.v1 import Chunk, InitModelResponse, InitTensorResponse

_VARINT: Final = 0  # protobuf's wire types
_LENGTH_DELIMITED: Final = 2
_FIXED32: Final = 5


def _tag(number: int, wire_type: int = _LENGTH_DELIMITED) -> bytes:
    return bytes([number << 3 | wire_type])


_OFFSET_TAG: Final = _tag(Chunk.ELEMENT_OFFSET_FIELD_NUMBER, _VARINT)
_CHECKSUM_TAG: Final = _tag(Chunk.CRC32C_FIELD_NUMBER, _FIXED32)
_PAYLOAD_TAG: Final = _tag(Chunk.PAYLOAD_FIELD_NUMBER)
_CHUNK_TAG: Final = _tag(InitTensorResponse.CHUNK_FIELD_NUMBER)
assert InitModelResponse.CHUNK_FIELD_NUMBER == InitTensorResponse.CHUNK_FIELD_NUMBER


def with_chunk(head: bytes, element_offset: int, payload: memoryview) -> bytes:
    """Appends a chunk to a response that has none.

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
    offset_field = _OFFSET_TAG + _varint(element_offset) if element_offset else b""  # zeros are left out
    checksum_field = _CHECKSUM_TAG + checksum.to_bytes(4, "little") if checksum else b""
    chunk = b"".join((offset_field, checksum_field, _PAYLOAD_TAG, _varint(payload.nbytes)))
    return b"".join((head, _CHUNK_TAG, _varint(len(chunk) + payload.nbytes), chunk, payload))


def field(number: int, serialized: bytes) -> bytes:
    """A serialised message as the field of another one, with a number below 16.

    >>> from seedbed.v1 import InitTensorResponse, TensorDescription
    >>> serialized = TensorDescription(byte_count=8).SerializeToString()
    >>> InitTensorResponse.FromString(field(1, serialized)).description.byte_count
    8
    """
    return b"".join((_tag(number), _varint(len(serialized)), serialized))


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
