"""Endless words for the test batteries: the engine's own, in several orders, and generators that must fail.

The words come from the functions of the compiled backend, not from a copy of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from seedbed.v1 import TensorSpec, Uniform
from seedbed_server import engine
from seedbed_server.engine.backends import numba_kernels as kernels
from seedbed_server.engine.stream import stream_of

Words = NDArray[np.uint32]

SEED = 2026
BUFFER = 1 << 18
"""Words generated at once; 1 MiB stays in the second-level cache."""
STREAMS = 1 << 12
"""The number of names or seeds that are interleaved."""


class Source(NamedTuple):
    """A sequence of words.

    Attributes:
        what: The description, for humans.
        buffers: Generates the endless sequence from its start, in arrays of equal lengths.
        is_good: Whether the sequence must pass; otherwise it must fail.
    """

    what: str
    buffers: Callable[[], Iterator[Words]]
    is_good: bool = True


@njit(nogil=True)
def _consecutive(key, counter, block, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Blocks ``block``, ``block + 1``, … of one stream, each with its four words in order."""
    for i in range(len(out) // 4):
        words = kernels.philox(block + np.uint64(i), counter, key)
        for lane in range(4):
            out[4 * i + lane] = words[lane]


@njit(nogil=True)
def _interleaved(keys, counters, block, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Element 0 of each stream, element 1 of each, …: ``out`` is (elements, streams)."""
    for i in range(out.shape[0] // 4):
        for j in range(out.shape[1]):
            words = kernels.philox(block + np.uint64(i), counters[j], keys[j])
            for lane in range(4):
                out[4 * i + lane, j] = words[lane]


@njit(nogil=True)
def _first_blocks(first_key, counter, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The first block of each of the seeds from ``first_key`` on."""
    for i in range(len(out) // 4):
        words = kernels.philox(np.uint64(0), counter, first_key + np.uint64(i))
        for lane in range(4):
            out[4 * i + lane] = words[lane]


@njit(nogil=True)
def _few_rounds(rounds, key, counter, block, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Blocks as in `_consecutive`, but with fewer rounds."""
    low = np.uint64(0xFFFFFFFF)
    for i in range(len(out) // 4):
        number = block + np.uint64(i)
        product = (number & low) * np.uint64(0xD2511F53)
        c = kernels._first_round(product, number >> np.uint64(32), counter, key)
        k0, k1 = key & low, key >> np.uint64(32)
        for _ in range(rounds - 1):
            k0, k1 = kernels._next_key(k0, k1)
            c = kernels._round(c, k0, k1)
        for lane in range(4):
            out[4 * i + lane] = np.uint32(c[lane])


@njit(nogil=True)
def _randu(state, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for i in range(len(out)):
        state = (np.uint64(65539) * state) & np.uint64(0x7FFFFFFF)
        out[i] = np.uint32(state << np.uint64(1))
    return state


def names() -> list[str]:
    """Names as in a model, such as ``layers.17.attention.wq.weight``."""
    parts = ("attention.wq", "attention.wk", "attention.wv", "attention.wo", "mlp.gate", "mlp.up", "mlp.down", "norm")
    return [f"layers.{i}.{part}.weight" for i in range(STREAMS // len(parts)) for part in parts]


def straight() -> Iterator[Words]:
    """The words of one tensor, in order."""
    counter = np.uint64(stream_of("layers.0.attention.wq.weight"))
    for block in count(0, BUFFER // 4):
        out = np.empty(BUFFER, np.uint32)
        _consecutive(np.uint64(SEED), counter, np.uint64(block), out)
        yield out


def interleaved(seeds: list[int], tensors: list[str]) -> Iterator[Words]:
    """Element 0 of all tensors, element 1 of all, and so on; seeds and names pair up."""
    keys = np.array(seeds, np.uint64)
    counters = np.array([stream_of(name) for name in tensors], np.uint64)
    elements = max(4, BUFFER // len(keys))
    for block in count(0, elements // 4):
        out = np.empty((elements, len(keys)), np.uint32)
        _interleaved(keys, counters, np.uint64(block), out)
        yield out.reshape(-1)


def over_names() -> Iterator[Words]:
    """Words of many tensors under one seed."""
    return interleaved([SEED] * STREAMS, names())


def over_seeds() -> Iterator[Words]:
    """Words of one tensor under adjacent seeds."""
    return interleaved(list(range(STREAMS)), ["layers.0.attention.wq.weight"] * STREAMS)


def first_blocks() -> Iterator[Words]:
    """The first four elements of one tensor, under the seeds 0, 1, 2 and so on."""
    counter = np.uint64(stream_of("layers.0.attention.wq.weight"))
    for seed in count(0, BUFFER // 4):
        out = np.empty(BUFFER, np.uint32)
        _first_blocks(np.uint64(seed), counter, out)
        yield out


def uniforms() -> Iterator[Words]:
    """The 24 bits of each served uniform float32 on [0, 1), four of them packed into three words."""
    spec = TensorSpec(name="w", shape=[1 << 60], seed=SEED, uniform=Uniform(a=0.0, b=1.0))
    sampler = engine.open_backend("numba", threads=1).sampler(engine.describe(spec))
    values = np.empty(BUFFER // 3 * 4, np.float32)
    for first in count(0, len(values)):
        sampler(first, values, lambda: False)()
        yield packed(values)


def packed(values: NDArray[np.float32]) -> Words:
    """Packs multiples of 2^-24 as 24-bit integers without gaps between them.

    >>> [hex(word) for word in packed(np.float32([0x010203 * 2.0**-24, 0, 0, 0x0A0B0C * 2.0**-24]))]
    ['0x10203', '0x0', '0xa0b0c00']
    """
    draws = (values * np.float32(2.0**24)).astype(np.uint32)
    bytes_of_draws = draws.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3]
    return np.ascontiguousarray(bytes_of_draws).reshape(-1).view("<u4").astype(np.uint32)


def few_rounds(rounds: int) -> Iterator[Words]:
    """Philox with fewer than 10 rounds."""
    counter = np.uint64(stream_of("layers.0.attention.wq.weight"))
    for block in count(0, BUFFER // 4):
        out = np.empty(BUFFER, np.uint32)
        _few_rounds(rounds, np.uint64(SEED), counter, np.uint64(block), out)
        yield out


def randu() -> Iterator[Words]:
    """IBM's RANDU, whose triples lie in 15 planes."""
    state = np.uint64(1)
    while True:
        out = np.empty(BUFFER, np.uint32)
        state = np.uint64(_randu(state, out))
        yield out


def _rounds_source(rounds: int) -> Source:
    return Source(f"Philox4x32 of {rounds} rounds", lambda: few_rounds(rounds), is_good=False)


SOURCES = {
    "straight": Source("one tensor, in order", straight),
    "names": Source(f"{STREAMS} names under one seed, element by element", over_names),
    "seeds": Source(f"{STREAMS} adjacent seeds, element by element", over_seeds),
    "first": Source("the first 4 elements under the seeds 0, 1, 2, …", first_blocks),
    "uniforms": Source("the 24 bits of served uniforms, packed", uniforms),
    "randu": Source("RANDU", randu, is_good=False),
    "rounds-2": _rounds_source(2),
    "rounds-3": _rounds_source(3),
}
