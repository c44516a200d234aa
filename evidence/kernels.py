"""The engine's compiled laws and functions, on given words instead of Philox's."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from seedbed_server.engine.backends import numba
from seedbed_server.engine.backends import numba_kernels as kernels
from seedbed_server.engine.parameters import Parameters

# ruff: noqa: ANN001, ANN201, ANN202 - Numba infers the types

_jit = njit(nogil=True, error_model="numpy")

radius32 = kernels._radius32
"""√(−2 ln u) with u = (w or 1) / 2^32, as the normal law computes it."""
cos_sin32 = kernels._cos_sin32
"""Cosine and sine of a word's angle."""
quantiles = kernels._quantiles
"""Replaces probabilities below, given together with those above, by the standard normal's quantiles."""
arguments = numba._arguments
"""A law's number and parameters, as `law32` takes them."""
round16 = kernels._round16
"""float32 to the bits of bfloat16 or float16."""


@_jit
def law32(law, p, words, out):  # type: ignore[no-untyped-def]
    """The float32 values of these words, whose number must be a multiple of 4."""
    tile = kernels._TILE
    w = np.empty(4 * tile, np.uint32)
    for first in range(0, len(out), 4 * tile):
        count = min(len(out) - first, 4 * tile)
        for i in range(count):
            w[(i & 3) * tile + (i >> 2)] = words[first + i]
        kernels._law32(law, p, w, out[first : first + count])


@_jit
def _law64(law, p, words, out):  # type: ignore[no-untyped-def]
    tile = kernels._TILE
    w = np.empty(4 * tile, np.uint32)
    for first in range(0, len(out), 2 * tile):
        count = min(len(out) - first, 2 * tile)
        for i in range(2 * count):
            w[(i & 3) * tile + (i >> 2)] = words[2 * first + i]
        kernels._law64(law, p, w, out[first : first + count])


def float32_law(parameters: Parameters, words: NDArray[np.uint32]) -> NDArray[np.float32]:
    """The float32 values of these words, whose number must be a multiple of 4."""
    assert len(words) % 4 == 0
    out = np.empty(len(words), np.float32)
    law32(*arguments(parameters), words, out)
    return out


def float64_law(parameters: Parameters, words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The float64 values of these 64-bit words, whose number must be even."""
    assert len(words) % 2 == 0
    pairs = np.stack([words & np.uint64(0xFFFFFFFF), words >> np.uint64(32)], axis=1).astype(np.uint32)
    out = np.empty(len(words))
    _law64(*arguments(parameters), pairs.reshape(-1), out)
    return out


def of_draws(parameters: Parameters, draws: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The float64 uniforms or truncated normals of these 53-bit draws, whose number must be even."""
    return float64_law(parameters, draws << np.uint64(11))


def halves(values: NDArray[np.float32], *, bfloat16: bool) -> NDArray[np.uint16]:
    """The bits of the values rounded to bfloat16 or to float16."""
    out = np.empty(len(values), np.uint16)
    round16(values, out, bfloat16)
    return out
