"""The laws as scalar code that Numba compiles and LLVM vectorises; the bits are those of the numpy reference.

Numba emits plain ``fmul`` and ``fadd``, which LLVM does not fuse without fast-math (tests/engine/test_machine_code.py
looks). It widens integers to 64 bits, and float32 with a Python number to float64: hence a type around every operation.
Numba infers the types of arguments, so they are not annotated: ``p`` is a law's parameters, ``key`` the seed,
``counter`` the stream, ``block`` the first block's number.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .. import constants
from ..constants import (
    FEISTEL_ROUNDS,
    LN2_HIGH64,
    LN2_LOW64,
    LOG64,
    QUANTILE_CENTRAL,
    QUANTILE_FAR,
    QUANTILE_TAIL,
    SQRT_HALF_BITS64,
    TURN64,
)

f32, f64 = np.float32, np.float64
u32, u64, i32, i64 = np.uint32, np.uint64, np.int32, np.int64

UNIFORM, NORMAL, TRUNC_NORMAL = 0, 1, 2

_TILE = 1024
"""Elements that pass through scratch memory at once, in the first-level cache."""

_jit = njit(cache=True, nogil=True, error_model="numpy")
_inline = njit(cache=True, nogil=True, error_model="numpy", forceinline=True)


# Words.


@_inline
def philox(block, counter, key):
    c0, c1 = u32(block), u32(block >> u64(32))
    c2, c3 = u32(counter), u32(counter >> u64(32))
    k0, k1 = u32(key), u32(key >> u64(32))
    for _ in range(10):
        product0 = u64(c0) * u64(0xD2511F53)
        product1 = u64(c2) * u64(0xCD9E8D57)
        c0, c1, c2, c3 = (
            u32(u32(u32(product1 >> u64(32)) ^ c1) ^ k0),
            u32(product1),
            u32(u32(u32(product0 >> u64(32)) ^ c3) ^ k1),
            u32(product0),
        )
        k0, k1 = u32(k0 + u32(0x9E3779B9)), u32(k1 + u32(0xBB67AE85))
    return c0, c1, c2, c3


@_inline
def _draw64(low, high):
    return (u64(low) | (u64(high) << u64(32))) >> u64(11)


# Functions in float32.

_LOG32 = tuple(f32(c) for c in constants.LOG32)
_SIN32 = tuple(f32(c) for c in constants.SIN32)
_COS32 = tuple(f32(c) for c in constants.COS32)
_LN2_HIGH32, _LN2_LOW32 = f32(constants.LN2_HIGH32), f32(constants.LN2_LOW32)
_TURN32 = f32(constants.TURN32)
_SQRT_HALF_BITS32, _SQRT_HALF_DRAW32 = u32(constants.SQRT_HALF_BITS32), u32(constants.SQRT_HALF_DRAW32)
_ONE_MINUS_SQRT_HALF_BITS32 = u32(0x3F800000 - constants.SQRT_HALF_BITS32)


@_inline
def _log_draw32(w):
    near_one = w >= _SQRT_HALF_DRAW32
    bits = u32(f32(u32(w + u32(1))).view(u32) + _ONE_MINUS_SQRT_HALF_BITS32)
    exponent = i32(i32(bits >> u32(23)) - i32(159))
    mantissa = u32(u32(bits & u32(0x7FFFFF)) + _SQRT_HALF_BITS32).view(f32)
    k = f32(0) if near_one else f32(exponent)
    f = f32(f32(u32(~w)) * f32(-(2.0**-32))) if near_one else f32(mantissa - f32(1))
    z = f * f
    c = _LOG32
    p = c[0] * f + c[1]
    p = p * f + c[2]
    p = p * f + c[3]
    p = p * f + c[4]
    p = p * f + c[5]
    p = p * f + c[6]
    p = p * f + c[7]
    p = p * f + c[8]
    y = p * f * z
    y = y + k * _LN2_LOW32
    y = y - f32(0.5) * z
    return (f + y) + k * _LN2_HIGH32


@_inline
def _cos_sin32(w):
    shifted = u32(w + u32(1 << 29))
    x = f32(i32(i32(u32(shifted & u32((1 << 30) - 1))) - i32(1 << 29))) * _TURN32
    z = x * x
    sine = ((_SIN32[0] * z + _SIN32[1]) * z + _SIN32[2]) * z * x + x
    cosine = (((_COS32[0] * z + _COS32[1]) * z + _COS32[2]) * z * z - f32(0.5) * z) + f32(1)
    quarters = u32(shifted >> u32(30))
    odd = u32(quarters & u32(1)) != u32(0)
    sine_bits, cosine_bits = f32(sine).view(u32), f32(cosine).view(u32)
    c = sine_bits if odd else cosine_bits
    s = cosine_bits if odd else sine_bits
    negative_cosine = u32(u32(u32(quarters + u32(1)) & u32(2)) << u32(30))
    negative_sine = u32(u32(quarters & u32(2)) << u32(30))
    return u32(c ^ negative_cosine).view(f32), u32(s ^ negative_sine).view(f32)


@_inline
def _box_muller32(w0, w1):
    radius = f32(np.sqrt(f32(f32(-2) * _log_draw32(w0))))
    cosine, sine = _cos_sin32(w1)
    return radius * cosine, radius * sine


@_inline
def _clamped(x, lowest, highest):
    x = lowest if x < lowest else x
    return highest if x > highest else x


# Functions in float64.


@_inline
def _reduced64(x):
    bits = f64(x).view(u64) + u64(0x3FF0000000000000 - SQRT_HALF_BITS64)
    k = f64(i64(bits >> u64(52)) - i64(1023))
    mantissa = u64((bits & u64(0xFFFFFFFFFFFFF)) + u64(SQRT_HALF_BITS64)).view(f64)
    return k, mantissa - 1.0


@_inline
def _log1p64(k, f):
    s = f / (2.0 + f)
    z = s * s
    r = LOG64[0]
    r = r * z + LOG64[1]
    r = r * z + LOG64[2]
    r = r * z + LOG64[3]
    r = r * z + LOG64[4]
    r = r * z + LOG64[5]
    r = r * z + LOG64[6]
    r = r * z
    half = 0.5 * f * f
    return k * LN2_HIGH64 - ((half - (s * (half + r) + k * LN2_LOW64)) - f)


@_inline
def _log_draw64(draw):
    k, f = _reduced64(f64(draw + u64(1)) * 2.0**-53)
    return _log1p64(k, f)


@_inline
def _cos_sin64(draw):
    shifted = draw + u64(1 << 50)
    x = f64(i64(shifted & u64((1 << 51) - 1)) - i64(1 << 50)) * TURN64
    z = x * x
    sine = _horner6(constants.SIN64, z) * z * x + x
    cosine = (_horner6(constants.COS64, z) * z * z - 0.5 * z) + 1.0
    quarters = shifted >> u64(51)
    odd = (quarters & u64(1)) != u64(0)
    sine_bits, cosine_bits = f64(sine).view(u64), f64(cosine).view(u64)
    c = sine_bits if odd else cosine_bits
    s = cosine_bits if odd else sine_bits
    negative_cosine = ((quarters + u64(1)) & u64(2)) << u64(62)
    negative_sine = (quarters & u64(2)) << u64(62)
    return u64(c ^ negative_cosine).view(f64), u64(s ^ negative_sine).view(f64)


@_inline
def _horner6(c, x):
    return ((((c[0] * x + c[1]) * x + c[2]) * x + c[3]) * x + c[4]) * x + c[5]


@_inline
def _horner8(c, x):
    return ((((((c[0] * x + c[1]) * x + c[2]) * x + c[3]) * x + c[4]) * x + c[5]) * x + c[6]) * x + c[7]


@_inline
def _quantile_of_tail(tail):
    k, f = _reduced64(tail)
    t = np.sqrt(-_log1p64(k, f))
    if t <= 5.0:
        near = t - 1.6
        return _horner8(QUANTILE_TAIL[0], near) / _horner8(QUANTILE_TAIL[1], near)
    far = t - 5.0
    return _horner8(QUANTILE_FAR[0], far) / _horner8(QUANTILE_FAR[1], far)


@_jit
def _quantiles(below, above, which, n):
    """Replaces ``below[:n]`` by the quantiles; ``which`` is scratch."""
    tails = 0
    for i in range(n):
        q = 0.5 * (below[i] - above[i])
        which[tails] = i
        tails += 1 if abs(q) > 0.425 else 0
    for j in range(tails):
        i = which[j]
        lower = below[i] < above[i]
        z = _quantile_of_tail(below[i] if lower else above[i])
        # parked where the loop over the centre will not look
        above[i] = np.nan
        below[i] = -z if lower else z
    for i in range(n):
        q = 0.5 * (below[i] - above[i])
        r = 0.180625 - q * q
        z = q * _horner8(QUANTILE_CENTRAL[0], r) / _horner8(QUANTILE_CENTRAL[1], r)
        below[i] = below[i] if np.isnan(above[i]) else z


# Laws: whole blocks into float32 or float64.


@_jit
def _uniform32(p, key, counter, block, out):
    a, width, lowest, highest = f32(p[0]), f32(p[1]), f32(p[2]), f32(p[3])
    unit = f32(2.0**-24)
    for i in range(len(out) >> 2):
        w0, w1, w2, w3 = philox(block + u64(i), counter, key)
        out[4 * i] = _clamped(a + width * (f32(u32(w0 >> u32(8))) * unit), lowest, highest)
        out[4 * i + 1] = _clamped(a + width * (f32(u32(w1 >> u32(8))) * unit), lowest, highest)
        out[4 * i + 2] = _clamped(a + width * (f32(u32(w2 >> u32(8))) * unit), lowest, highest)
        out[4 * i + 3] = _clamped(a + width * (f32(u32(w3 >> u32(8))) * unit), lowest, highest)


@_jit
def _normal32(p, key, counter, block, out):
    mean, std = f32(p[0]), f32(p[1])
    for i in range(len(out) >> 2):
        w0, w1, w2, w3 = philox(block + u64(i), counter, key)
        z0, z1 = _box_muller32(w0, w1)
        z2, z3 = _box_muller32(w2, w3)
        out[4 * i] = mean + std * z0
        out[4 * i + 1] = mean + std * z1
        out[4 * i + 2] = mean + std * z2
        out[4 * i + 3] = mean + std * z3


@_jit
def _trunc_normal32(p, key, counter, block, out, below, above, which):
    mean, std, p_below, inside, p_above, lowest, highest = p
    for first in range(0, len(out), _TILE):
        n = min(_TILE, len(out) - first)
        for i in range(n >> 2):
            words = philox(block + u64((first >> 2) + i), counter, key)
            for lane in range(4):
                w = words[lane]
                below[4 * i + lane] = p_below + ((f64(w) + 0.5) * 2.0**-32) * inside
                above[4 * i + lane] = p_above + ((f64(u32(~w)) + 0.5) * 2.0**-32) * inside
        _quantiles(below, above, which, n)
        for i in range(n):
            out[first + i] = _clamped(f32(mean + std * below[i]), f32(lowest), f32(highest))


@_jit
def _uniform64(p, key, counter, block, out):
    a, width, lowest, highest = p[0], p[1], p[2], p[3]
    for i in range(len(out) >> 1):
        w0, w1, w2, w3 = philox(block + u64(i), counter, key)
        out[2 * i] = _clamped(a + width * (f64(_draw64(w0, w1)) * 2.0**-53), lowest, highest)
        out[2 * i + 1] = _clamped(a + width * (f64(_draw64(w2, w3)) * 2.0**-53), lowest, highest)


@_jit
def _normal64(p, key, counter, block, out):
    mean, std = p[0], p[1]
    for i in range(len(out) >> 1):
        w0, w1, w2, w3 = philox(block + u64(i), counter, key)
        radius = np.sqrt(-2.0 * _log_draw64(_draw64(w0, w1)))
        cosine, sine = _cos_sin64(_draw64(w2, w3))
        out[2 * i] = mean + std * (radius * cosine)
        out[2 * i + 1] = mean + std * (radius * sine)


@_jit
def _trunc_normal64(p, key, counter, block, out, below, above, which):
    mean, std, p_below, inside, p_above, lowest, highest = p
    for first in range(0, len(out), _TILE):
        n = min(_TILE, len(out) - first)
        for i in range(n >> 1):
            w0, w1, w2, w3 = philox(block + u64((first >> 1) + i), counter, key)
            draws = (_draw64(w0, w1), _draw64(w2, w3))
            for lane in range(2):
                draw = draws[lane]
                mirrored = u64(2**53 - 1) - draw
                below[2 * i + lane] = p_below + (f64(u64(2) * draw + u64(1)) * 2.0**-54) * inside
                above[2 * i + lane] = p_above + (f64(u64(2) * mirrored + u64(1)) * 2.0**-54) * inside
        _quantiles(below, above, which, n)
        for i in range(n):
            out[first + i] = _clamped(mean + std * below[i], lowest, highest)


# Runs: whole blocks go straight into the output, the ends of a run by way of a block of their own.


@_jit
def _scratch():
    return np.empty(_TILE), np.empty(_TILE), np.empty(_TILE + 1, np.int64)


@_jit
def _blocks32(law, p, key, counter, block, out, scratch):
    if law == UNIFORM:
        _uniform32(p, key, counter, block, out)
    elif law == NORMAL:
        _normal32(p, key, counter, block, out)
    else:
        numbers = (p[0], p[1], p[2], p[3], p[4], p[5], p[6])
        _trunc_normal32(numbers, key, counter, block, out, scratch[0], scratch[1], scratch[2])


@_jit
def _blocks64(law, p, key, counter, block, out, scratch):
    if law == UNIFORM:
        _uniform64(p, key, counter, block, out)
    elif law == NORMAL:
        _normal64(p, key, counter, block, out)
    else:
        numbers = (p[0], p[1], p[2], p[3], p[4], p[5], p[6])
        _trunc_normal64(numbers, key, counter, block, out, scratch[0], scratch[1], scratch[2])


@_jit
def fill32(law, p, key, counter, starts, lengths, out):
    scratch, edge = _scratch(), np.empty(4, np.float32)
    position = 0
    for run in range(len(starts)):
        element, end = starts[run], position + lengths[run]
        lane = element & 3
        if lane:
            _blocks32(law, p, key, counter, u64(element >> 2), edge, scratch)
            taken = min(4 - lane, end - position)
            out[position : position + taken] = edge[lane : lane + taken]
            position += taken
            element += taken
        whole = (end - position) & ~3
        if whole:
            _blocks32(law, p, key, counter, u64(element >> 2), out[position : position + whole], scratch)
            position += whole
            element += whole
        if position < end:
            _blocks32(law, p, key, counter, u64(element >> 2), edge, scratch)
            out[position:end] = edge[: end - position]
            position = end


@_jit
def fill64(law, p, key, counter, starts, lengths, out):
    scratch, edge = _scratch(), np.empty(2, np.float64)
    position = 0
    for run in range(len(starts)):
        element, end = starts[run], position + lengths[run]
        if element & 1:
            _blocks64(law, p, key, counter, u64(element >> 1), edge, scratch)
            out[position] = edge[1]
            position += 1
            element += 1
        whole = (end - position) & ~1
        if whole:
            _blocks64(law, p, key, counter, u64(element >> 1), out[position : position + whole], scratch)
            position += whole
            element += whole
        if position < end:
            _blocks64(law, p, key, counter, u64(element >> 1), edge, scratch)
            out[position] = edge[0]
            position = end


@_jit
def fill16(law, p, key, counter, starts, lengths, out, is_bfloat16):
    scratch, values = _scratch(), np.empty(_TILE + 8, np.float32)
    position = 0
    for run in range(len(starts)):
        element, end = starts[run], position + lengths[run]
        while position < end:
            taken = min(_TILE, end - position)
            lane = element & 3
            covering = (lane + taken + 3) & ~3
            _blocks32(law, p, key, counter, u64(element >> 2), values[:covering], scratch)
            if is_bfloat16:
                _to_bfloat16(values[lane : lane + taken], out[position : position + taken])
            else:
                _to_float16(values[lane : lane + taken], out[position : position + taken])
            position += taken
            element += taken


@_jit
def _to_bfloat16(values, out):
    bits = values.view(np.uint32)
    for i in range(len(bits)):
        b = bits[i]
        out[i] = u32(b + u32(u32(0x7FFF) + u32(u32(b >> u32(16)) & u32(1)))) >> u32(16)


@_jit
def _to_float16(values, out):
    bits = values.view(np.uint32)
    for i in range(len(bits)):
        magnitude = u32(bits[i] & u32(0x7FFFFFFF))
        sign = u32(u32(bits[i] >> u32(16)) & u32(0x8000))
        odd = u32(u32(magnitude >> u32(13)) & u32(1))
        normal = u32(u32(u32(magnitude - u32(0x38000000)) + u32(u32(0xFFF) + odd)) >> u32(13))
        # Half precision's subnormals are multiples of 2^-24, the spacing of float32 from 1/2 to 1.
        subnormal = u32(f32(u32(magnitude).view(f32) + f32(0.5)).view(u32) - u32(0x3F000000))
        out[i] = u32(sign | (normal if magnitude >= u32(0x38800000) else subnormal))


# Sparse.


@_inline
def _mixed(half, key):
    h = u32(u32(half) ^ key)
    h = u32(u32(h ^ u32(h >> u32(16))) * u32(0x85EBCA6B))
    h = u32(u32(h ^ u32(h >> u32(13))) * u32(0xC2B2AE35))
    return u64(u32(h ^ u32(h >> u32(16))))


@_inline
def _feistel(position, keys, low_bits, low_mask, high_mask):
    low, high = position & low_mask, position >> low_bits
    for step in range(0, FEISTEL_ROUNDS, 2):
        low = low ^ (_mixed(high, keys[step]) & low_mask)
        high = high ^ (_mixed(low, keys[step + 1]) & high_mask)
    return (high << low_bits) | low


@_jit
def mask(rows, columns, zeros, bits, key, counter, starts, lengths, known, keys, out):
    """``known`` and ``keys`` are a table of columns' keys, each column's at its number modulo the table's size."""
    low_bits = (bits + u64(1)) >> u64(1)
    low_mask = (u64(1) << low_bits) - u64(1)
    high_mask = (u64(1) << (bits - low_bits)) - u64(1)
    position = 0
    for run in range(len(starts)):
        row, column = u64(starts[run]) // columns, u64(starts[run]) % columns
        for _ in range(lengths[run]):
            slot = i64(column % u64(len(known)))
            if known[slot] != i64(column):
                known[slot] = i64(column)
                for block in range(FEISTEL_ROUNDS // 4):
                    words = philox(u64(FEISTEL_ROUNDS // 4) * column + u64(block), counter, key)
                    for lane in range(4):
                        keys[slot, 4 * block + lane] = words[lane]
            permuted = _feistel(row, keys[slot], low_bits, low_mask, high_mask)
            while permuted >= rows:
                permuted = _feistel(permuted, keys[slot], low_bits, low_mask, high_mask)
            if permuted < zeros:
                out[position] = 0
            position += 1
            column += u64(1)
            if column == columns:
                row, column = row + u64(1), u64(0)


# Orthogonal: the reference's sums, for a strip of columns at once.


@_jit
def _reflect(strip, k, v, tau):
    """Reflects every column of the strip by the vector that is 1 at row ``k`` and ``v`` below."""
    width = strip.shape[1]
    sums = strip[k].copy()
    for i in range(k + 1, strip.shape[0]):
        row, factor = strip[i], v[i]
        for j in range(width):
            sums[j] += factor * row[j]
    for j in range(width):
        sums[j] = tau * sums[j]
        strip[k, j] -= sums[j]
    for i in range(k + 1, strip.shape[0]):
        row, factor = strip[i], v[i]
        for j in range(width):
            row[j] -= factor * sums[j]


@_jit
def factor_strip(strip, first, v, tau, diagonal):
    m, width = strip.shape
    for k in range(first):
        _reflect(strip, k, v[k], tau[k])
    for j in range(width):
        k = first + j
        alpha, sigma = strip[k, j], 0.0
        for i in range(k + 1, m):
            sigma += strip[i, j] * strip[i, j]
        diagonal[k] = alpha
        if sigma != 0:
            diagonal[k] = -np.copysign(np.sqrt(alpha * alpha + sigma), alpha)
            tau[k] = (diagonal[k] - alpha) / diagonal[k]
            for i in range(k + 1, m):
                v[k, i] = strip[i, j] / (alpha - diagonal[k])
        _reflect(strip, k, v[k], tau[k])  # columns up to j as well, which are not looked at again


@_jit
def unfold_strip(strip, first, v, tau):
    strip[:] = 0
    for j in range(strip.shape[1]):
        strip[first + j, j] = 1
    for k in range(first + strip.shape[1] - 1, -1, -1):
        _reflect(strip, k, v[k], tau[k])
