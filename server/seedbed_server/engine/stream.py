"""Streams: which random words belong to which tensor name (docs/stream-v1.md, “Streams”)."""

from __future__ import annotations

import hashlib
from enum import Enum

from seedbed.v1 import TensorSpec


class Purpose(bytes, Enum):
    """The use of a stream's words; the label is the personalisation of BLAKE2b."""

    VALUES = b""
    SPARSE_MASK = b"sparse.mask"
    ORTHOGONAL = b"orthogonal"
    PERMUTATION = b"permutation"


def stream_of(name: str, purpose: Purpose = Purpose.VALUES) -> int:
    """The 64-bit stream of a tensor's name.

    >>> hex(stream_of(""))
    '0xb4b2797457a0a6e4'
    >>> stream_of("wte.weight") == stream_of("wte.weight", Purpose.SPARSE_MASK)
    False
    """
    digest = hashlib.blake2b(name.encode("utf-8"), digest_size=8, person=purpose.value).digest()
    return int.from_bytes(digest, "little")


def name_hashed(spec: TensorSpec) -> str:
    """The name that selects a tensor's stream: ``spec.stream`` if set, else the tensor's name."""
    return spec.stream or spec.name
