"""The reference: every law in the fewest lines of NumPy, to be read beside docs/stream-v1.md.

NumPy's elementwise float32 and float64 arithmetic is IEEE-754, each operation rounded once, which is all that the laws
ask for. Names follow the document.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import dtypes
from ..constants import (
    COS32,
    COS64,
    FEISTEL_ROUNDS,
    LN2_HIGH32,
    LN2_HIGH64,
    LN2_LOW32,
    LN2_LOW64,
    LOG32,
    LOG64,
    PHILOX_M,
    PHILOX_W,
    QUANTILE_CENTRAL,
    QUANTILE_FAR,
    QUANTILE_TAIL,
    SIN32,
    SIN64,
    SQRT_HALF_BITS32,
    SQRT_HALF_BITS64,
    SQRT_HALF_DRAW32,
    TURN32,
    TURN64,
)
from ..errors import Cancelled
from ..parameters import (
    DiskNormalParameters,
    DiskParameters,
    NormalParameters,
    Parameters,
    SparseMask,
    TruncNormalParameters,
    UniformParameters,
)
from ..regions import Runs
from ..views import Indices, expanded
from .base import IsCancelled, Stream
from .cpu import CpuBackend

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
Floats = NDArray[Any]

_LOW32 = np.uint64(0xFFFFFFFF)


class NumpyBackend(CpuBackend):
    """The reference backend."""

    name = "numpy"
    tile = 1 << 15  # temporaries stay in the second-level cache
    share = dict.fromkeys(("uniform", "normal", "trunc_normal", "sparse", "disk"), 1 << 14)

    def sample(self, parameters: Parameters, stream: Stream, runs: Runs, out: NDArray[Any]) -> None:
        elements = expanded(runs).astype(np.uint64)
        of_block = _float64_law if out.dtype == np.float64 else _float32_law
        per_block = 2 if out.dtype == np.float64 else 4
        # Elements ascend, so that those of one block are neighbours: each block is computed once.
        block = elements // np.uint64(per_block)
        is_new = np.concatenate([[True], block[1:] != block[:-1]])
        values = of_block(parameters, philox(block[is_new], stream))
        rows = np.cumsum(is_new) - 1
        dtypes.store(values[rows, elements % np.uint64(per_block)], out)

    def mask(self, mask: SparseMask, seed: int, runs: Runs, out: NDArray[Any]) -> None:
        row, column = np.divmod(expanded(runs).astype(np.uint64), np.uint64(mask.columns))
        out[permuted(row, column, mask, seed) < np.uint64(mask.zeros)] = 0

    def places(self, permutation: SparseMask, seed: int, indices: Indices) -> U64:
        return permuted(indices.astype(np.uint64), np.zeros_like(indices, np.uint64), permutation, seed)

    def orthonormal(self, gaussian: NDArray[np.float64], cancelled: IsCancelled) -> NDArray[np.float64]:
        a = gaussian.copy()
        m, n = a.shape
        tau = np.zeros(n)
        for k in range(n):
            if cancelled():
                raise Cancelled
            x = a[k:, k].copy()
            v, tau[k], a[k, k] = _reflector(x)
            a[k + 1 :, k] = v
            _reflect(a[k:, k + 1 :], v, tau[k])
        q = np.eye(m, n)
        for k in reversed(range(n)):
            if cancelled():
                raise Cancelled
            _reflect(q[k:, k:], a[k + 1 :, k], tau[k])
        return q * np.where(np.diag(a) < 0, -1.0, 1.0)


# Words («Words»).


def philox(block: U64, stream: Stream) -> list[U32]:
    """The four words of each block: Philox4x32-10 (Salmon et al. 2011).

    >>> [hex(word[0]) for word in philox(np.uint64([0]), Stream(seed=0, stream=0))]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1 = block & _LOW32, block >> np.uint64(32)
    c2, c3 = (np.full_like(block, half) for half in (stream.stream & 0xFFFFFFFF, stream.stream >> 32))
    k0, k1 = stream.seed & 0xFFFFFFFF, stream.seed >> 32
    for _ in range(10):
        product0, product1 = np.uint64(PHILOX_M[0]) * c0, np.uint64(PHILOX_M[1]) * c2
        c0, c1, c2, c3 = (
            (product1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0),
            product1 & _LOW32,
            (product0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1),
            product0 & _LOW32,
        )
        k0, k1 = (k0 + PHILOX_W[0]) & 0xFFFFFFFF, (k1 + PHILOX_W[1]) & 0xFFFFFFFF
    return [c.astype(np.uint32) for c in (c0, c1, c2, c3)]


# Laws («Laws»). Each takes the words of n blocks, and gives their n x 4 float32 or n x 2 float64 values.


def _float32_law(parameters: Parameters, words: list[U32]) -> Floats:
    if isinstance(parameters, DiskNormalParameters):
        w0, w2 = (_from_lowest(word, parameters.lowest_word) for word in words[::2])
        return _float32_law(NormalParameters(*parameters[:2]), [w0, words[1], w2, words[3]])
    if isinstance(parameters, DiskParameters):
        z = np.stack([*on_disk32(words[0], words[1]), *on_disk32(words[2], words[3])], axis=1)
        return np.float32(parameters.radius) * z
    if isinstance(parameters, NormalParameters):
        pairs = [box_muller32(words[0], words[1]), box_muller32(words[2], words[3])]
        z = np.stack([*pairs[0], *pairs[1]], axis=1)
        return np.float32(parameters.mean) + np.float32(parameters.std) * z
    word = np.stack(words, axis=1)
    if isinstance(parameters, UniformParameters):
        u = (word >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
        return _clamped(np.float32(parameters.a) + np.float32(parameters.width) * u, parameters)
    # u and 1 - u, at the middle of the 2^32 cells of [0, 1]
    u, v = ((half.astype(np.float64) + 0.5) * 2.0**-32 for half in (word, ~word))
    return _clamped(_trunc_normal(parameters, u, v).astype(np.float32), parameters)


def _float64_law(parameters: Parameters, words: list[U32]) -> Floats:
    assert not isinstance(parameters, DiskParameters | DiskNormalParameters)  # of float32 alone
    draws = [
        (low.astype(np.uint64) | (high.astype(np.uint64) << np.uint64(32))) >> np.uint64(11)
        for low, high in (words[:2], words[2:])
    ]
    if isinstance(parameters, NormalParameters):
        return parameters.mean + parameters.std * np.stack(box_muller64(*draws), axis=1)
    draw = np.stack(draws, axis=1)
    if isinstance(parameters, UniformParameters):
        return _clamped(parameters.a + parameters.width * (draw.astype(np.float64) * 2.0**-53), parameters)
    mirrored = np.uint64(2**53 - 1) - draw
    u, v = ((np.uint64(2) * half + np.uint64(1)).astype(np.float64) * 2.0**-54 for half in (draw, mirrored))
    return _clamped(_trunc_normal(parameters, u, v), parameters)


def _clamped(x: Floats, parameters: UniformParameters | TruncNormalParameters) -> Floats:
    lowest, highest = x.dtype.type(parameters.lowest), x.dtype.type(parameters.highest)
    x = np.where(x < lowest, lowest, x)
    return np.where(x > highest, highest, x)


def _trunc_normal(parameters: TruncNormalParameters, u: F64, v: F64) -> F64:
    below = parameters.p_below + u * parameters.inside
    above = parameters.p_above + v * parameters.inside
    return parameters.mean + parameters.std * quantile(below, above)


# Normals: Box and Muller (1958) with the logarithm, sine and cosine of «Functions».


def box_muller32(w0: U32, w1: U32) -> tuple[F32, F32]:
    """Two standard normals from two words, in float32."""
    radius = np.sqrt(np.float32(-2) * log_draw32(w0))
    cosine, sine = cos_sin32(w1)
    return radius * cosine, radius * sine


def on_disk32(w0: U32, w1: U32) -> tuple[F32, F32]:
    """A point of the disk of radius 1: the square of its distance from the centre is uniform."""
    modulus = np.sqrt(w0.astype(np.float32) * np.float32(2.0**-32))
    cosine, sine = cos_sin32(w1)
    return modulus * cosine, modulus * sine


def _from_lowest(w: U32, lowest: float) -> U32:
    """Words of all 2^32, stretched over those from the lowest on."""
    count = np.uint64(2**32 - int(lowest))
    return (np.uint64(lowest) + (count * w.astype(np.uint64) >> np.uint64(32))).astype(np.uint32)


def log_draw32(w: U32) -> F32:
    """ln((w + 1) / 2^32), after Cephes's ``logf``."""
    # Near 1 the distance to 1 is taken from the integer; float32 would have lost it.
    near_one = w >= np.uint32(SQRT_HALF_DRAW32)
    bits = (w + np.uint32(1)).astype(np.float32).view(np.uint32) + np.uint32(0x3F800000 - SQRT_HALF_BITS32)
    exponent = (bits >> np.uint32(23)).astype(np.int32) - np.int32(127 + 32)
    mantissa = ((bits & np.uint32(0x7FFFFF)) + np.uint32(SQRT_HALF_BITS32)).view(np.float32)
    k = np.where(near_one, np.int32(0), exponent).astype(np.float32)
    f = np.where(near_one, (~w).astype(np.float32) * np.float32(-(2.0**-32)), mantissa - np.float32(1))
    z = f * f
    y = polynomial(LOG32, f) * f * z
    y = y + k * np.float32(LN2_LOW32)
    y = y - np.float32(0.5) * z
    logarithm: F32 = (f + y) + k * np.float32(LN2_HIGH32)
    return logarithm


def cos_sin32(w: U32) -> tuple[F32, F32]:
    """Cosine and sine of 2 pi w / 2^32, after Cephes's ``sinf`` and ``cosf``."""
    shifted = w + np.uint32(1 << 29)
    x = ((shifted & np.uint32((1 << 30) - 1)).astype(np.int32) - np.int32(1 << 29)).astype(np.float32)
    x = x * np.float32(TURN32)
    z = x * x
    sine = polynomial(SIN32, z) * z * x + x
    cosine = (polynomial(COS32, z) * z * z - np.float32(0.5) * z) + np.float32(1)
    return _turned(cosine, sine, shifted >> np.uint32(30))


def box_muller64(draw0: U64, draw1: U64) -> tuple[F64, F64]:
    """Two standard normals from two draws of 53 bits, in float64."""
    radius = np.sqrt(-2.0 * log_draw64(draw0))
    cosine, sine = cos_sin64(draw1)
    return radius * cosine, radius * sine


def log_draw64(draw: U64) -> F64:
    """ln((draw + 1) / 2^53), after fdlibm's ``log``."""
    return log64((draw + np.uint64(1)).astype(np.float64) * 2.0**-53)  # exact, and so is the distance to 1


def log64(x: F64) -> F64:
    """ln(x) of a positive normal number, after fdlibm's ``log``."""
    return _log1p64(*_reduced64(x))


def _reduced64(x: F64) -> tuple[F64, F64]:
    """``k, f`` with ``x = 2^k (1 + f)`` and ``1 + f`` in [sqrt(1/2), sqrt(2))."""
    bits = x.view(np.uint64) + np.uint64(0x3FF0000000000000 - SQRT_HALF_BITS64)
    k = (bits >> np.uint64(52)).astype(np.int64) - 1023
    mantissa = ((bits & np.uint64(0xFFFFFFFFFFFFF)) + np.uint64(SQRT_HALF_BITS64)).view(np.float64)
    return k.astype(np.float64), mantissa - 1.0


def _log1p64(k: F64, f: F64) -> F64:
    s = f / (2.0 + f)
    z = s * s
    r = polynomial(LOG64, z) * z
    half = 0.5 * f * f
    return k * LN2_HIGH64 - ((half - (s * (half + r) + k * LN2_LOW64)) - f)


def cos_sin64(draw: U64) -> tuple[F64, F64]:
    """Cosine and sine of 2 pi draw / 2^53, after fdlibm's ``__kernel_cos`` and ``__kernel_sin``."""
    shifted = draw + np.uint64(1 << 50)
    x = ((shifted & np.uint64((1 << 51) - 1)).astype(np.int64) - (1 << 50)).astype(np.float64) * TURN64
    z = x * x
    sine = polynomial(SIN64, z) * z * x + x
    cosine = (polynomial(COS64, z) * z * z - 0.5 * z) + 1.0
    return _turned(cosine, sine, (shifted >> np.uint64(51)).astype(np.uint32))


def _turned(cosine: Floats, sine: Floats, quarters: U32) -> tuple[Floats, Floats]:
    """Cosine and sine after adding ``quarters`` quarter turns."""
    odd = (quarters & np.uint32(1)) == 1
    c, s = np.where(odd, sine, cosine), np.where(odd, cosine, sine)
    negative_cosine = ((quarters + np.uint32(1)) & np.uint32(2)) == 2
    negative_sine = (quarters & np.uint32(2)) == 2
    return np.where(negative_cosine, -c, c), np.where(negative_sine, -s, s)


def quantile(below: F64, above: F64) -> F64:
    """The quantile of the standard normal: AS 241's PPND16 (Wichura 1988), evaluated from the nearer tail.

    Args:
        below: The probability below the wanted value.
        above: The probability above it, with a small relative error too.
    """
    q = 0.5 * (below - above)
    r = 0.180625 - q * q
    central = q * polynomial(QUANTILE_CENTRAL[0], r) / polynomial(QUANTILE_CENTRAL[1], r)
    t = np.sqrt(-log64(np.where(below < above, below, above)))
    near, far = t - 1.6, t - 5.0
    tail = np.where(
        t <= 5.0,
        polynomial(QUANTILE_TAIL[0], near) / polynomial(QUANTILE_TAIL[1], near),
        polynomial(QUANTILE_FAR[0], far) / polynomial(QUANTILE_FAR[1], far),
    )
    return np.where(np.abs(q) <= 0.425, central, np.where(q < 0, -tail, tail))


def polynomial(coefficients: tuple[float, ...], x: Floats) -> Floats:
    """Horner's rule, highest power first, in the type of ``x``."""
    scalar = x.dtype.type
    y = np.full_like(x, scalar(coefficients[0]))
    for coefficient in coefficients[1:]:
        y = y * x + scalar(coefficient)
    return y


# Sparse («Sparse»): a keyed permutation of each column's rows, by a Feistel network that walks its cycles.


def permuted(row: U64, column: U64, mask: SparseMask, seed: int) -> U64:
    """Where the permutation of each column takes each row."""
    bits = mask.bits
    low_bits = (bits + 1) // 2
    stream = Stream(seed, mask.stream)
    columns, which = np.unique(column, return_inverse=True)
    per_column = FEISTEL_ROUNDS // 4
    blocks = [philox(columns * np.uint64(per_column) + np.uint64(block), stream) for block in range(per_column)]
    keys = [word[which] for block in blocks for word in block]
    position = _feistel(row, keys, bits, low_bits)
    while (outside := position >= np.uint64(mask.rows)).any():
        position[outside] = _feistel(position[outside], [key[outside] for key in keys], bits, low_bits)
    return position


def _feistel(position: U64, keys: list[U32], bits: int, low_bits: int) -> U64:
    low_mask, high_mask = np.uint64((1 << low_bits) - 1), np.uint64((1 << (bits - low_bits)) - 1)
    low, high = position & low_mask, position >> np.uint64(low_bits)
    for step in range(0, FEISTEL_ROUNDS, 2):
        low = low ^ (_mixed(high, keys[step]) & low_mask)
        high = high ^ (_mixed(low, keys[step + 1]) & high_mask)
    return (high << np.uint64(low_bits)) | low


def _mixed(half: U64, key: U32) -> U64:
    """MurmurHash3's 32-bit finaliser."""
    h = half.astype(np.uint32) ^ key
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return (h ^ (h >> np.uint32(16))).astype(np.uint64)


# Orthogonal («Orthogonal»): Householder's QR, every sum from the first row to the last.


def _reflector(x: F64) -> tuple[F64, float, float]:
    """``v, tau, beta``: the reflection 1 - tau (1, v)(1, v)' takes x to (beta, 0, ...)."""
    alpha, squares = float(x[0]), x[1:] * x[1:]
    sigma = float(np.add.accumulate(squares)[-1]) if len(squares) else 0.0
    if sigma == 0:
        return np.zeros(len(x) - 1), 0.0, alpha
    beta = -math.copysign(math.sqrt(alpha * alpha + sigma), alpha)
    return x[1:] / (alpha - beta), (beta - alpha) / beta, beta


def _reflect(a: F64, v: F64, tau: float) -> None:
    # accumulate, unlike sum, adds one row after the other
    products = np.concatenate([a[:1], v[:, None] * a[1:]])
    w = tau * np.add.accumulate(products, axis=0)[-1]
    a[0] -= w
    a[1:] -= v[:, None] * w
