"""The reference: all laws in as little NumPy as possible, to be read together with docs/stream-v1.md.

NumPy's elementwise float32 and float64 arithmetic conforms to IEEE 754: each operation rounds once. Together with `fma`
it is all that the laws need. Names follow the document.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import dtypes
from ..constants import (
    COS32,
    COS64,
    EIGHTH_TURN,
    FAR32,
    FAR_CENTRE32,
    FEISTEL_ROUNDS,
    LOG32,
    LOG64,
    MIDDLE32,
    MIDDLE_FROM32,
    MIDDLE_LARGEST32,
    MIDDLE_SLOPE32,
    MURMUR_M,
    NEAR32,
    NEAR_CENTRE32,
    ORTHOGONAL_BLOCK,
    PHILOX_M,
    PHILOX_ROUNDS,
    PHILOX_W,
    QUANTILE_CENTRAL,
    QUANTILE_FAR,
    QUANTILE_FAR_SHIFT,
    QUANTILE_HALF_WIDTH,
    QUANTILE_HALF_WIDTH_SQUARED,
    QUANTILE_TAIL,
    QUANTILE_TAIL_SHIFT,
    SIN32,
    SIN64,
    TWO_LN2,
)
from ..errors import Cancelled
from ..fma import fma
from ..parameters import (
    DiskNormalParameters,
    DiskParameters,
    NormalParameters,
    Parameters,
    SparseMask,
    TruncNormal32Parameters,
    TruncNormalParameters,
    UniformParameters,
)
from ..regions import Runs
from ..views import Indices, expanded
from .base import IsCancelled, Stream
from .cpu import CpuBackend, SampleGaussians

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
Floats = NDArray[Any]
Words = NDArray[np.unsignedinteger[Any]]

_LOW32 = np.uint64(0xFFFFFFFF)


class NumpyBackend(CpuBackend):
    """The reference backend."""

    name = "numpy"
    tile = 1 << 15  # temporaries stay in the second-level cache
    grain = dict.fromkeys(("uniform", "normal", "trunc_normal", "sparse", "disk"), 1 << 14)

    def sample(self, parameters: Parameters, stream: Stream, runs: Runs, out: NDArray[Any]) -> None:
        elements = expanded(runs).astype(np.uint64)
        of_block = _float64_law if out.dtype == np.float64 else _float32_law
        per_block = 2 if out.dtype == np.float64 else 4
        # Elements ascend, so those of one block are adjacent, and each block is computed once.
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

    def orthonormal(self, rows: int, columns: int, sample: SampleGaussians, cancelled: IsCancelled) -> F64:
        gaussian = np.empty(rows * columns)
        sample((np.array([0]), np.array([len(gaussian)])), gaussian)
        a = gaussian.reshape(rows, columns)
        q = _orthonormal(a, cancelled) if rows >= columns else _orthonormal(a.T, cancelled).T
        return np.ascontiguousarray(q)


# Words (“Words”).


def philox(block: U64, stream: Stream) -> list[U32]:
    """The four words of each block: Philox4x32-10 (Salmon et al. 2011).

    >>> [hex(word[0]) for word in philox(np.uint64([0]), Stream(seed=0, stream=0))]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1 = block & _LOW32, block >> np.uint64(32)
    c2, c3 = (np.full_like(block, half) for half in (stream.stream & 0xFFFFFFFF, stream.stream >> 32))
    k0, k1 = stream.seed & 0xFFFFFFFF, stream.seed >> 32
    for _ in range(PHILOX_ROUNDS):
        product0, product1 = np.uint64(PHILOX_M[0]) * c0, np.uint64(PHILOX_M[1]) * c2
        c0, c1, c2, c3 = (
            (product1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0),
            product1 & _LOW32,
            (product0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1),
            product0 & _LOW32,
        )
        k0, k1 = (k0 + PHILOX_W[0]) & 0xFFFFFFFF, (k1 + PHILOX_W[1]) & 0xFFFFFFFF
    return [c.astype(np.uint32) for c in (c0, c1, c2, c3)]


# Laws (“Laws”). Each maps the words of n blocks to their n x 4 float32 or n x 2 float64 values.


def _float32_law(parameters: Parameters, words: list[U32]) -> Floats:
    if isinstance(parameters, DiskNormalParameters):
        w0, w2 = (_from_lowest(word, parameters.lowest_word) for word in words[::2])
        return _float32_law(NormalParameters(*parameters[:2]), [w0, words[1], w2, words[3]])
    if isinstance(parameters, DiskParameters):
        return np.stack([*on_disk(words[0], words[1], parameters), *on_disk(words[2], words[3], parameters)], axis=1)
    if isinstance(parameters, NormalParameters):
        return np.stack([*box_muller(words[0], words[1], parameters), *box_muller(words[2], words[3], parameters)], 1)
    word = np.stack(words, axis=1)
    if isinstance(parameters, UniformParameters):
        u = (word >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
        return _clamped(np.float32(parameters.a) + np.float32(parameters.width) * u, parameters)
    if isinstance(parameters, TruncNormal32Parameters):
        return _clamped(_trunc_normal32(parameters, word), parameters)
    # u and 1 - u, at the middle of the 2^32 cells of [0, 1]
    u, v = ((half.astype(np.float64) + 0.5) * 2.0**-32 for half in (word, ~word))
    return _clamped(_trunc_normal(parameters, u, v).astype(np.float32), parameters)


def _float64_law(parameters: Parameters, words: list[U32]) -> Floats:
    assert not isinstance(parameters, DiskParameters | DiskNormalParameters)  # float32 only
    w0, w1 = (low.astype(np.uint64) | (high.astype(np.uint64) << np.uint64(32)) for low, high in (words[:2], words[2:]))
    if isinstance(parameters, NormalParameters):
        return np.stack(box_muller(w0, w1, parameters), axis=1)
    draw = np.stack([w0, w1], axis=1) >> np.uint64(11)
    if isinstance(parameters, UniformParameters):
        return _clamped(parameters.a + parameters.width * (draw.astype(np.float64) * 2.0**-53), parameters)
    assert isinstance(parameters, TruncNormalParameters)
    mirrored = np.uint64(2**53 - 1) - draw
    u, v = ((np.uint64(2) * half + np.uint64(1)).astype(np.float64) * 2.0**-54 for half in (draw, mirrored))
    return _clamped(_trunc_normal(parameters, u, v), parameters)


def _clamped(x: Floats, parameters: UniformParameters | TruncNormalParameters | TruncNormal32Parameters) -> Floats:
    lowest, highest = x.dtype.type(parameters.lowest), x.dtype.type(parameters.highest)
    x = np.where(x < lowest, lowest, x)
    return np.where(x > highest, highest, x)


# Normals: Box and Muller (1958). Words of 32 bits give float32, words of 64 bits float64, by the same formulas.


def box_muller(w0: Words, w1: Words, parameters: NormalParameters) -> tuple[Floats, Floats]:
    """Two normals from two words."""
    cosine, sine = cos_sin(w1)
    mean, scaled = cosine.dtype.type(parameters.mean), cosine.dtype.type(parameters.std) * radius(w0)
    return fma(scaled, cosine, mean), fma(scaled, sine, mean)


def on_disk(w0: U32, w1: U32, parameters: DiskParameters) -> tuple[F32, F32]:
    """A point of the disk: the square of its distance from the centre is uniform."""
    cosine, sine = cos_sin(w1)
    share = (w0 | np.uint32(1)).astype(np.float32) * np.float32(2.0**-32)
    modulus = np.float32(parameters.radius) * np.sqrt(share)
    return modulus * cosine, modulus * sine


def _from_lowest(w: U32, lowest: float) -> U32:
    """Maps all 2^32 words to those from ``lowest`` on."""
    count = np.uint64(2**32 - int(lowest))
    return (np.uint64(lowest) + (count * w.astype(np.uint64) >> np.uint64(32))).astype(np.uint32)


def radius(w: Words) -> Floats:
    """sqrt(-2 ln u) with u = (w | 1) / 2^bits."""
    signed = _signed(w | w.dtype.type(1))
    near_one = signed < 0
    # Near 1, the distance to 1 must be precise.
    below = np.abs(signed)
    octaves, h = _octaves(below)
    bits = 8 * w.itemsize
    octaves = np.where(near_one, signed.dtype.type(0), octaves + signed.dtype.type(bits))
    distance = below * signed.dtype.type(2.0 ** (1 - bits))
    result: Floats = np.sqrt(minus_two_log(octaves, np.where(near_one, distance, h)))
    return result


def cos_sin(w: Words) -> tuple[Floats, Floats]:
    """Cosine and sine of an angle: an eighth of a turn times ``x`` in (-1, 1), reflected by the two lowest bits."""
    bits, precision = (32, 24) if w.dtype == np.uint32 else (64, 53)
    half = 1 << (bits - precision - 1)
    x = _signed((w & w.dtype.type(-2 * half % 2**bits)) | w.dtype.type(half))
    x = x * x.dtype.type(2.0 ** (1 - bits))
    sin, cos = (SIN32, COS32) if bits == 32 else (SIN64, COS64)
    z = x * x
    sine = fma(x, x.dtype.type(EIGHTH_TURN), polynomial(sin, z) * x)
    cosine = fma(polynomial(cos, z), z, x.dtype.type(1))
    cosine = np.where(w & w.dtype.type(1), -cosine, cosine)
    is_swapped = (w & w.dtype.type(2)) != 0
    return np.where(is_swapped, sine, cosine), np.where(is_swapped, cosine, sine)


def minus_two_log(octaves: Floats, h: Floats) -> Floats:
    """-2 ln(2^-octaves (1 - h / 2)) for ``h`` in [0, 1]."""
    coefficients = LOG32 if h.dtype == np.float32 else LOG64
    return fma(octaves, h.dtype.type(TWO_LN2), fma(h, polynomial(coefficients, h) * h, h))


def _octaves(x: Floats) -> tuple[Floats, Floats]:
    """``octaves, h`` of a positive normal number: x = 2^-octaves (1 - h / 2)."""
    mantissa, exponent = np.frexp(x)
    scalar = x.dtype.type
    return -exponent.astype(x.dtype), scalar(2) - scalar(2) * mantissa


def _signed(w: Words) -> Floats:
    """A word as a signed integer, rounded to the float type of its width."""
    return w.view(f"i{w.itemsize}").astype(f"f{w.itemsize}")


# Truncated normals: the quantile, from the nearer tail.


def _trunc_normal32(parameters: TruncNormal32Parameters, w: U32) -> F32:
    f32 = np.float32
    median, step, step_rest = np.uint32(parameters.median), f32(parameters.step), f32(parameters.step_rest)
    is_below = w < median
    outer, first = np.where(is_below, w, ~w), np.where(is_below, f32(parameters.p_first), f32(parameters.q_first))
    tail = fma(outer.astype(f32), step, first)
    inner = np.where(is_below, ~(w - median), w - median).astype(f32)
    last = np.where(is_below, f32(parameters.below), f32(parameters.above))
    x = fma(inner, f32(2) * step, fma(inner, f32(2) * step_rest, last))
    quantile_of_tail = near_tail32 if parameters.is_near else far_tail32
    edge = f32(MIDDLE_FROM32)
    z = np.where(tail > edge, middle32(x), quantile_of_tail(np.minimum(tail, edge)))
    z = np.where(is_below, -z, z)
    std, rest = (np.full_like(z, part) for part in (parameters.std, parameters.std_rest))
    return fma(std, z, fma(rest, z, f32(parameters.mean)))


def middle32(x: F32) -> F32:
    """The quantile of (1 + x) / 2."""
    z = fma(x, np.float32(MIDDLE_SLOPE32), polynomial(MIDDLE32, x * x) * x)
    return np.minimum(z, np.float32(MIDDLE_LARGEST32))


def near_tail32(tail: F32) -> F32:
    """The quantile of 1 - tail, for tails of at least NEAR_TAIL."""
    return polynomial(NEAR32, np.sqrt(tail) - np.float32(NEAR_CENTRE32))


def far_tail32(tail: F32) -> F32:
    """The quantile of 1 - tail."""
    return polynomial(FAR32, np.sqrt(minus_two_log(*_octaves(tail))) - np.float32(FAR_CENTRE32))


def _trunc_normal(parameters: TruncNormalParameters, u: F64, v: F64) -> F64:
    below = parameters.p_below + u * parameters.inside
    above = parameters.p_above + v * parameters.inside
    return parameters.mean + parameters.std * quantile(below, above)


def quantile(below: F64, above: F64) -> F64:
    """The quantile of the standard normal: AS 241's PPND16 (Wichura 1988), evaluated from the nearer tail.

    Args:
        below: The probability below the quantile.
        above: The probability above it, also with a small relative error.
    """
    q = 0.5 * (below - above)
    r = QUANTILE_HALF_WIDTH_SQUARED - q * q
    central = q * polynomial(QUANTILE_CENTRAL[0], r) / polynomial(QUANTILE_CENTRAL[1], r)
    t = np.sqrt(0.5 * minus_two_log(*_octaves(np.where(below < above, below, above))))
    near, far = t - QUANTILE_TAIL_SHIFT, t - QUANTILE_FAR_SHIFT
    tail = np.where(
        t <= QUANTILE_FAR_SHIFT,
        polynomial(QUANTILE_TAIL[0], near) / polynomial(QUANTILE_TAIL[1], near),
        polynomial(QUANTILE_FAR[0], far) / polynomial(QUANTILE_FAR[1], far),
    )
    return np.where(np.abs(q) <= QUANTILE_HALF_WIDTH, central, np.where(q < 0, -tail, tail))


def polynomial(coefficients: tuple[float, ...], x: Floats) -> Floats:
    """Horner's rule with fused multiply-adds, highest power first, in the type of ``x``."""
    scalar = x.dtype.type
    y: Floats = np.full_like(x, scalar(coefficients[0]))
    for coefficient in coefficients[1:]:
        y = fma(y, x, scalar(coefficient))
    return y


# Sparse (“Sparse”): a keyed permutation of each column's rows, by a Feistel network with cycle walking.


def permuted(row: U64, column: U64, mask: SparseMask, seed: int) -> U64:
    """The image of each row under the permutation of its column."""
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
    h = (h ^ (h >> np.uint32(16))) * np.uint32(MURMUR_M[0])
    h = (h ^ (h >> np.uint32(13))) * np.uint32(MURMUR_M[1])
    return (h ^ (h >> np.uint32(16))).astype(np.uint64)


# Orthogonal (“Orthogonal”).


def _orthonormal(a: F64, cancelled: IsCancelled) -> F64:
    m, n = a.shape
    v, tau, beta = _reflectors(a)
    q = np.eye(m, n)
    for first in reversed(range(0, n, ORTHOGONAL_BLOCK)):
        if cancelled():
            raise Cancelled
        block = slice(first, min(first + ORTHOGONAL_BLOCK, n))
        of_block = v[first:, block]
        t = _block_factor(of_block, tau[block])
        rest = q[first:, first:]
        products = _product(of_block.T, rest, np.zeros((len(t), n - first)))
        q[first:, first:] = _product(of_block, _product(t, products, np.zeros_like(products)), rest)
    return q * np.where(beta < 0, -1.0, 1.0)


def _reflectors(a: F64) -> tuple[F64, F64, F64]:
    """V, τ, β: the reflection 1 − τ v vᵀ by column k of V maps column k of a, from row k on, to (β, 0, …)."""
    below, x, sigma = np.tril(a, -1), np.diag(a).copy(), np.zeros(a.shape[1])
    for row in below:
        sigma = fma(row, row, sigma)
    beta = np.where(sigma == 0, x, -np.copysign(np.sqrt(fma(x, x, sigma)), x))
    with np.errstate(invalid="ignore"):
        tau = np.where(sigma == 0, 0.0, (beta - x) / beta)
        v = np.where(sigma == 0, 0.0, np.tril(below / (x - beta), -1))
    return v + np.eye(*a.shape), tau, beta


def _block_factor(v: F64, tau: F64) -> F64:
    n = len(tau)
    inner = _product(v.T, v, np.zeros((n, n)))
    t = np.diag(-tau)
    for k in range(1, n):
        t[:k, k] = -tau[k] * _product(t[:k, :k], inner[:k, k : k + 1], np.zeros((k, 1)))[:, 0]
    return t


def _product(a: F64, b: F64, c: F64) -> F64:
    """``c + a b``, added from the first column of a and row of b to the last."""
    for column, row in zip(a.T, b, strict=True):
        c = fma(column[:, None], row, c)
    return c
