"""Words and uniforms, against docs/stream-v1.md in plain Python integers and against published vectors."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedbed.v1 import DataType, TensorSpec, Uniform
from seedbed_server.engine.backends.base import Stream
from seedbed_server.engine.backends.numpy import philox
from seedbed_server.engine.stream import Purpose, stream_of

from .conftest import NAMES, open_backend, sample

# Random123's tests/kat_vectors: counter, key, expected; zeros, ones, the digits of pi.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]

seeds = st.integers(0, 2**64 - 1)


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def philox_of_integers(counter: list[int], key: list[int]) -> list[int]:
    """ "Words" of the document, literally."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = p1 // 2**32 ^ c1 ^ k0, p1 % 2**32, p0 // 2**32 ^ c3 ^ k1, p0 % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


def block_of_integers(seed: int, stream: int, block: int) -> list[int]:
    return philox_of_integers(
        [block % 2**32, block // 2**32, stream % 2**32, stream // 2**32], [seed % 2**32, seed // 2**32]
    )


def stream_of_name(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_random123_known_answers(counter: str, key: str, expected: str) -> None:
    c, k = words(counter), words(key)
    assert philox_of_integers(c, k) == words(expected)
    stream = Stream(seed=k[0] | k[1] << 32, stream=c[2] | c[3] << 32)
    assert [int(w[0]) for w in philox(np.uint64([c[0] | c[1] << 32]), stream)] == words(expected)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_random123_known_answers_compiled(counter: str, key: str, expected: str) -> None:
    from seedbed_server.engine.backends.numba_kernels import philox as compiled_philox

    c, k = words(counter), words(key)
    block, stream, seed = c[0] | c[1] << 32, c[2] | c[3] << 32, k[0] | k[1] << 32
    assert list(compiled_philox(np.uint64(block), np.uint64(stream), np.uint64(seed))) == words(expected)


@given(seeds, seeds, st.integers(0, 2**61))
def test_words_of_any_block(seed: int, stream: int, block: int) -> None:
    got = [int(w[0]) for w in philox(np.uint64([block]), Stream(seed, stream))]
    assert got == block_of_integers(seed, stream, block)


@pytest.mark.parametrize("backend", NAMES)
@settings(max_examples=60, deadline=None)
@given(name=st.text(max_size=10), seed=seeds, first=st.integers(0, 2**61 - 9))
def test_float32_uniforms(backend: str, name: str, seed: int, first: int) -> None:
    spec = TensorSpec(name=name, shape=[2**61 - 1], seed=seed, uniform=Uniform())
    got = sample(open_backend(backend, 1), spec, ([first], [first + 8]))
    stream = stream_of_name(name)
    expected = [Fraction(block_of_integers(seed, stream, i // 4)[i % 4] >> 8, 2**24) for i in range(first, first + 8)]
    assert [Fraction(float(x)) for x in got] == expected


@pytest.mark.parametrize("backend", NAMES)
@settings(max_examples=60, deadline=None)
@given(name=st.text(max_size=10), seed=seeds, first=st.integers(0, 2**60 - 9))
def test_float64_uniforms(backend: str, name: str, seed: int, first: int) -> None:
    spec = TensorSpec(name=name, shape=[2**60 - 1], seed=seed, dtype=DataType.DATA_TYPE_FLOAT64, uniform=Uniform())
    got = sample(open_backend(backend, 1), spec, ([first], [first + 5]))
    expected = []
    for i in range(first, first + 5):
        block, pair = block_of_integers(seed, stream_of_name(name), i // 2), i % 2
        expected.append(Fraction((block[2 * pair] | block[2 * pair + 1] << 32) >> 11, 2**53))
    assert [Fraction(float(x)) for x in got] == expected


def test_each_purpose_has_its_own_stream() -> None:
    labelled = hashlib.blake2b(b"w", digest_size=8, person=b"sparse.mask").digest()
    assert stream_of("w", Purpose.SPARSE_MASK) == int.from_bytes(labelled, "little")
    assert len({stream_of("w", purpose) for purpose in Purpose}) == len(Purpose)
