"""The laws as scalar code that Numba compiles and LLVM vectorises; the bits are those of the numpy reference.

Elements are computed in tiles that stay in the first-level cache: first the words of a tile's blocks, in one row for
each of the four words of a block, then the law over the rows. A single loop would need too many registers. A tile takes
blocks of as many runs as fit, so short runs are nearly as fast as long ones.

Numba emits plain ``fmul`` and ``fadd``, which LLVM does not fuse without fast-math; fused operations are explicit calls
of ``fma`` (tests/engine/test_machine_code.py checks this). Numba widens integers to 64 bits, and float32 with a Python
number to float64, hence the conversion around every operation. Numba infers the types of arguments, so they are not
annotated: ``p`` is a law's parameters, ``key`` the seed, ``counter`` the stream, ``block`` the number of the first
block.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic, overload

from .. import constants
from ..constants import (
    LOG64,
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
    TWO_LN2,
)
from .numba_fma import fma
from .numba_wide import wide_on

f32, f64 = np.float32, np.float64
u32, u64, i32, i64 = np.uint32, np.uint64, np.int32, np.int64

UNIFORM, NORMAL, TRUNC_NORMAL, TRUNC_NEAR, TRUNC_FAR, DISK, DISK_NORMAL, CONSTANT = range(8)
"""Codes of the laws; float64 has the first three only."""

_TILE = 640
"""Blocks of a tile. (Rows with a power of two as length would compete for the same cache sets.)"""

_QUANTILES = 1024
"""Quantiles of the truncated normal that are computed at once."""

# LLVM prefers 256 bits on all of Intel's servers, because wider vectors lowered the clocks of Skylake and Cascade Lake.
# From Ice Lake on they hardly do: on Emerald Rapids, 512 bits made normals 1.14, bfloat16 1.19 and truncated normals
# 1.15 times as fast. The names are in this file because Numba invalidates cached machine code only when the file of the
# function itself changes.
_WIDE = frozenset({"icelake-server", "sapphirerapids", "emeraldrapids", "graniterapids", "graniterapids-d"})
_Compiler = wide_on(_WIDE)

_jit = njit(cache=True, nogil=True, error_model="numpy", pipeline_class=_Compiler)
_merged = njit(cache=True, nogil=True, error_model="numpy", pipeline_class=_Compiler, inline="always")
_inline = njit(cache=True, nogil=True, error_model="numpy", pipeline_class=_Compiler, forceinline=True)


# Words.


_MULTIPLIER0, _MULTIPLIER1 = map(u64, PHILOX_M)
_INCREMENT0, _INCREMENT1 = map(u64, PHILOX_W)
_LATER_ROUNDS = PHILOX_ROUNDS - 1
_LOW = u64(0xFFFFFFFF)


# Philox4x32-10. A word is the lower half of 64 bits; the upper half is undefined. So the lanes of vectors are as wide
# as the products, and nothing needs packing between the rounds.


@_inline
def _first_round(product, high, counter, key):
    """``product`` is the lower half of the block's number times the first multiplier; loops can update it by adding."""
    other = (counter & _LOW) * _MULTIPLIER1
    return (
        (other >> u64(32)) ^ high ^ (key & _LOW),
        other,
        (product >> u64(32)) ^ (counter >> u64(32)) ^ (key >> u64(32)),
        product,
    )


@_inline
def _next_key(k0, k1):
    return (k0 + _INCREMENT0) & _LOW, (k1 + _INCREMENT1) & _LOW


@_inline
def _round(c, k0, k1):
    product, other = (c[0] & _LOW) * _MULTIPLIER0, (c[2] & _LOW) * _MULTIPLIER1
    return (other >> u64(32)) ^ c[1] ^ k0, other, (product >> u64(32)) ^ c[3] ^ k1, product


@_inline
def _rounds(product, high, counter, key):
    """The words of a block."""
    c = _first_round(product, high, counter, key)
    k0, k1 = key & _LOW, key >> u64(32)
    for _ in range(_LATER_ROUNDS):
        k0, k1 = _next_key(k0, k1)
        c = _round(c, k0, k1)
    return c


@_inline
def _rounds_of_two(product, later, high, counter, key):
    """The words of two blocks, interleaved to hide the latency of the rounds."""
    c, d = _first_round(product, high, counter, key), _first_round(later, high, counter, key)
    k0, k1 = key & _LOW, key >> u64(32)
    for _ in range(_LATER_ROUNDS):
        k0, k1 = _next_key(k0, k1)
        c, d = _round(c, k0, k1), _round(d, k0, k1)
    return c, d


@_inline
def philox(block, counter, key):
    """The four words of a block."""
    c0, c1, c2, c3 = _rounds((block & _LOW) * _MULTIPLIER0, block >> u64(32), counter, key)
    return u32(c0), u32(c1), u32(c2), u32(c3)


@_jit
def _words(key, counter, block, w):
    """The words of a tile of consecutive blocks, whose numbers have the same upper half."""
    high, product = block >> u64(32), (block & _LOW) * _MULTIPLIER0
    half = _TILE // 2
    later = product + u64(half) * _MULTIPLIER0
    for i in range(half):
        c, d = _rounds_of_two(product, later, high, counter, key)
        _put(w, i, c)
        _put(w, half + i, d)
        product += _MULTIPLIER0
        later += _MULTIPLIER0


@_jit
def _scattered_words(key, counter, high, products, w):
    """The words of arbitrary blocks, from the products of the lower halves of their numbers."""
    for i in range(len(products)):
        _put(w, i, _rounds(products[i], high, counter, key))


@_inline
def _put(w, i, words):
    w[i], w[_TILE + i], w[2 * _TILE + i], w[3 * _TILE + i] = u32(words[0]), u32(words[1]), u32(words[2]), u32(words[3])


@_inline
def _draw64(low, high):
    return (u64(low) | (u64(high) << u64(32))) >> u64(11)


# Functions in float32.

_LOG32, _SIN32, _COS32 = (tuple(map(f32, c)) for c in (constants.LOG32, constants.SIN32, constants.COS32))
_MIDDLE32, _NEAR32, _FAR32 = (tuple(map(f32, c)) for c in (constants.MIDDLE32, constants.NEAR32, constants.FAR32))
_TWO_LN2_32, _EIGHTH_TURN32 = f32(TWO_LN2), f32(constants.EIGHTH_TURN)
_MIDDLE_SLOPE32, _MIDDLE_LARGEST32 = f32(constants.MIDDLE_SLOPE32), f32(constants.MIDDLE_LARGEST32)
_NEAR_CENTRE32, _FAR_CENTRE32 = f32(constants.NEAR_CENTRE32), f32(constants.FAR_CENTRE32)
_MIDDLE_FROM32 = f32(constants.MIDDLE_FROM32)
_MANTISSA32, _ONE32 = u32(0x7FFFFF), u32(0x3F800000)


@_inline
def _minus_two_log32(octaves, h):
    y = fma(_horner8(_LOG32, h), h, _LOG32[8])
    return fma(octaves, _TWO_LN2_32, fma(h, f32(y * h), h))


@_inline
def _mantissa32(bits):
    """The h of `_minus_two_log32` for a number with these bits."""
    return f32(f32(2) - u32(u32(bits & _MANTISSA32) | _ONE32).view(f32))


@_inline
def _radius32(w):
    signed = f32(i32(u32(w | u32(1))))
    near_one = signed < f32(0)
    bits = signed.view(u32)
    octaves = f32(0) if near_one else f32(i32(i32(158) - i32(bits >> u32(23))))
    h = f32(signed * f32(-(2.0**-31))) if near_one else _mantissa32(bits)
    return f32(np.sqrt(_minus_two_log32(octaves, h)))


@_inline
def _cos_sin32(w):
    x = f32(f32(i32(u32(u32(w & u32(0xFFFFFF00)) | u32(0x80)))) * f32(2.0**-31))
    z = f32(x * x)
    sine = fma(x, _EIGHTH_TURN32, f32(_horner4(_SIN32, z) * x))
    cosine = fma(_horner4(_COS32, z), z, f32(1))
    cosine = u32(f32(cosine).view(u32) ^ u32(w << u32(31))).view(f32)
    is_swapped = u32(w & u32(2)) != u32(0)
    return sine if is_swapped else cosine, cosine if is_swapped else sine


@_inline
def _middle32(x):
    z = fma(x, _MIDDLE_SLOPE32, f32(_horner8(_MIDDLE32, f32(x * x)) * x))
    return _MIDDLE_LARGEST32 if z > _MIDDLE_LARGEST32 else z


@_inline
def _near_tail32(tail):
    x = f32(f32(np.sqrt(tail)) - _NEAR_CENTRE32)
    return fma(fma(fma(_horner8(_NEAR32, x), x, _NEAR32[8]), x, _NEAR32[9]), x, _NEAR32[10])


@_inline
def _far_tail32(tail):
    bits = f32(tail).view(u32)
    octaves = f32(i32(i32(126) - i32(bits >> u32(23))))
    s = f32(np.sqrt(_minus_two_log32(octaves, _mantissa32(bits))))
    x = f32(s - _FAR_CENTRE32)
    return fma(_horner12(_FAR32, x), x, _FAR32[12])


@_inline
def _clamped(x, lowest, highest):
    x = lowest if x < lowest else x
    return highest if x > highest else x


# Functions in float64.

_TWO_32, _MANTISSA64, _ONE64 = 2.0**32, u64((1 << 52) - 1), u64(0x3FF << 52)


@_inline
def _signed64(low, high):
    """The two words as a signed integer, rounded once; not all processors convert 64-bit integers in vectors."""
    return fma(f64(i32(high)), _TWO_32, f64(low))


@_inline
def _minus_two_log64(octaves, h):
    y = _horner8(LOG64, h)
    for i in range(8, 20):
        y = fma(y, h, LOG64[i])
    return fma(octaves, TWO_LN2, fma(h, y * h, h))


@_inline
def _mantissa64(bits):
    return 2.0 - u64((bits & _MANTISSA64) | _ONE64).view(f64)


@_inline
def _radius64(low, high):
    signed = _signed64(u32(low | u32(1)), high)
    near_one = signed < 0.0
    bits = f64(signed).view(u64)
    octaves = 0.0 if near_one else f64(i32(1086) - i32(bits >> u64(52)))
    h = signed * -(2.0**-63) if near_one else _mantissa64(bits)
    return np.sqrt(_minus_two_log64(octaves, h))


@_inline
def _cos_sin64(low, high):
    x = _signed64(u32(u32(low & u32(0xFFFFF800)) | u32(0x400)), high) * 2.0**-63
    z = x * x
    sine = fma(x, constants.EIGHTH_TURN, _horner7(constants.SIN64, z) * x)
    cosine = fma(_horner7(constants.COS64, z), z, 1.0)
    cosine = u64(f64(cosine).view(u64) ^ (u64(low) << u64(63))).view(f64)
    is_swapped = u32(low & u32(2)) != u32(0)
    return sine if is_swapped else cosine, cosine if is_swapped else sine


@_inline
def _horner4(c, x):
    return fma(fma(fma(c[0], x, c[1]), x, c[2]), x, c[3])


@_inline
def _horner6(c, x):
    return fma(fma(_horner4(c, x), x, c[4]), x, c[5])


@_inline
def _horner7(c, x):
    return fma(_horner6(c, x), x, c[6])


@_inline
def _horner8(c, x):
    return fma(_horner7(c, x), x, c[7])


@_inline
def _horner12(c, x):
    return fma(fma(fma(fma(_horner8(c, x), x, c[8]), x, c[9]), x, c[10]), x, c[11])


@_inline
def _quantile_of_tail(tail):
    bits = f64(tail).view(u64)
    octaves = f64(i32(1022) - i32(bits >> u64(52)))
    t = np.sqrt(0.5 * _minus_two_log64(octaves, _mantissa64(bits)))
    if t <= QUANTILE_FAR_SHIFT:
        near = t - QUANTILE_TAIL_SHIFT
        return _horner8(QUANTILE_TAIL[0], near) / _horner8(QUANTILE_TAIL[1], near)
    far = t - QUANTILE_FAR_SHIFT
    return _horner8(QUANTILE_FAR[0], far) / _horner8(QUANTILE_FAR[1], far)


@_jit
def _quantiles(below, above, which, n):
    """Replaces ``below[:n]`` by the quantiles; overwrites ``above`` and ``which``."""
    tails = 0
    for i in range(n):
        q = 0.5 * (below[i] - above[i])
        which[tails] = i
        tails += 1 if abs(q) > QUANTILE_HALF_WIDTH else 0
    for j in range(tails):
        i = which[j]
        lower = below[i] < above[i]
        z = _quantile_of_tail(below[i] if lower else above[i])
        # NaN marks a quantile that the loop over the central ones must keep
        above[i] = np.nan
        below[i] = -z if lower else z
    for i in range(n):
        q = 0.5 * (below[i] - above[i])
        r = QUANTILE_HALF_WIDTH_SQUARED - q * q
        z = q * _horner8(QUANTILE_CENTRAL[0], r) / _horner8(QUANTILE_CENTRAL[1], r)
        below[i] = below[i] if np.isnan(above[i]) else z


# Laws: from rows of words to float32 or float64.


@_jit
def _uniform32(p, w, out):
    a, width, lowest, highest = f32(p[0]), f32(p[1]), f32(p[2]), f32(p[3])
    unit = f32(2.0**-24)
    scaled = width * unit
    if scaled / unit == width:  # exact, so scaling the other factor gives the same product
        _stretch32(w, a, scaled, f32(1), out)
    else:
        _stretch32(w, a, width, unit, out)
    # Rounding is monotone: if the smallest and the largest draw are within the bounds, all are.
    if a < lowest or f32(a + width * (f32(2**24 - 1) * unit)) > highest:
        for i in range(len(out)):
            out[i] = _clamped(out[i], lowest, highest)


@_inline
def _stretch32(w, a, width, unit, out):
    for i in range(len(out) >> 2):
        out[4 * i] = a + width * (_draw32(w[i]) * unit)
        out[4 * i + 1] = a + width * (_draw32(w[_TILE + i]) * unit)
        out[4 * i + 2] = a + width * (_draw32(w[2 * _TILE + i]) * unit)
        out[4 * i + 3] = a + width * (_draw32(w[3 * _TILE + i]) * unit)


@_inline
def _draw32(w):
    return f32(i32(u32(w >> u32(8))))


@_jit
def _normal32(p, w, out):
    """The rows of the first and the third words are overwritten."""
    std, radii = f32(p[1]), w.view(np.float32)
    for i in range(len(out) >> 2):
        radii[i] = std * _radius32(w[i])
        radii[2 * _TILE + i] = std * _radius32(w[2 * _TILE + i])
    _turn32(w, f32(p[0]), out)


@_inline
def _turn32(w, mean, out):
    """Turns the radii in the first and third rows by the angles of the other rows."""
    radii = w.view(np.float32)
    for i in range(len(out) >> 2):
        cosine, sine = _cos_sin32(w[_TILE + i])
        out[4 * i] = fma(radii[i], cosine, mean)
        out[4 * i + 1] = fma(radii[i], sine, mean)
        cosine, sine = _cos_sin32(w[3 * _TILE + i])
        out[4 * i + 2] = fma(radii[2 * _TILE + i], cosine, mean)
        out[4 * i + 3] = fma(radii[2 * _TILE + i], sine, mean)


@_jit
def _trunc_float32(is_near, p, w, out):
    """The words are overwritten."""
    for row in range(4):
        words = w[row * _TILE : row * _TILE + (len(out) >> 2)]
        if is_near:
            _near_row32(p, words)
        else:
            _far_row32(p, words)
    _interleave(w.view(np.float32), p.view(np.float32)[9], p.view(np.float32)[10], out)


@_jit
def _near_row32(p, w):
    numbers, median, values = _nine(p.view(np.float32)), p.view(np.uint32)[11], w.view(np.float32)
    for i in range(len(w)):
        is_below, tail, middle = _place32(w[i], numbers, median)
        outer = _near_tail32(tail)
        values[i] = _scaled32(middle if tail > _MIDDLE_FROM32 else outer, is_below, numbers)


@_jit
def _far_row32(p, w):
    numbers, median, values = _nine(p.view(np.float32)), p.view(np.uint32)[11], w.view(np.float32)
    for i in range(len(w)):
        is_below, tail, middle = _place32(w[i], numbers, median)
        outer = _far_tail32(tail)
        values[i] = _scaled32(middle if tail > _MIDDLE_FROM32 else outer, is_below, numbers)


@_inline
def _nine(p):
    return p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8]


@_inline
def _place32(w, numbers, median):
    """Whether a draw is below the median, the probability of its tail, and its quantile if that is near the median."""
    _, _, _, step, rest, p_first, q_first, below, above = numbers
    is_below = w < median
    tail = fma(f32(w if is_below else u32(~w)), step, p_first if is_below else q_first)
    beyond = u32(w - median)
    inner = f32(u32(~beyond) if is_below else beyond)
    x = fma(inner, f32(step + step), fma(inner, f32(rest + rest), below if is_below else above))
    return is_below, tail, _middle32(x)


@_inline
def _scaled32(z, is_below, numbers):
    mean, std, rest = numbers[:3]
    signed = u32(f32(z).view(u32) ^ (u32(1 << 31) if is_below else u32(0))).view(f32)
    return fma(std, signed, fma(rest, signed, mean))


@_inline
def _interleave(rows, lowest, highest, out):
    for i in range(len(out) >> 2):
        for row in range(4):
            out[4 * i + row] = _clamped(rows[row * _TILE + i], lowest, highest)


@_jit
def _disk32(p, w, out):
    """The rows of the first and the third words are overwritten."""
    radius, radii = f32(p[0]), w.view(np.float32)
    for i in range(len(out) >> 2):
        radii[i] = radius * _share_root32(w[i])
        radii[2 * _TILE + i] = radius * _share_root32(w[2 * _TILE + i])
    _turn32(w, f32(0), out)


@_inline
def _share_root32(w):
    return f32(np.sqrt(f32(f32(u32(w | u32(1))) * f32(2.0**-32))))


@_jit
def _disk_normal32(p, w, out):
    lowest = u64(p[2])
    for i in range(len(out) >> 2):
        w[i] = _from_lowest(w[i], lowest)
        w[2 * _TILE + i] = _from_lowest(w[2 * _TILE + i], lowest)
    _normal32(p, w, out)


@_inline
def _from_lowest(w, lowest):
    return u32(lowest + (((u64(1 << 32) - lowest) * u64(w)) >> u64(32)))


@_jit
def _trunc_normal32(p, w, out):
    mean, std, p_below, inside, p_above, lowest, highest = p[0], p[1], p[2], p[3], p[4], p[5], p[6]
    below, above, which = np.empty(_QUANTILES), np.empty(_QUANTILES), np.empty(_QUANTILES + 1, np.int64)
    for first in range(0, len(out), _QUANTILES):
        n = min(_QUANTILES, len(out) - first)
        for i in range(n >> 2):
            j = (first >> 2) + i
            words = (w[j], w[_TILE + j], w[2 * _TILE + j], w[3 * _TILE + j])
            for lane in range(4):
                word = words[lane]
                below[4 * i + lane] = p_below + ((f64(word) + 0.5) * 2.0**-32) * inside
                above[4 * i + lane] = p_above + ((f64(u32(~word)) + 0.5) * 2.0**-32) * inside
        _quantiles(below, above, which, n)
        for i in range(n):
            out[first + i] = _clamped(f32(mean + std * below[i]), f32(lowest), f32(highest))


@_jit
def _uniform64(p, w, out):
    a, width, lowest, highest = p[0], p[1], p[2], p[3]
    for i in range(len(out) >> 1):
        draw = _draw64(w[i], w[_TILE + i])
        out[2 * i] = _clamped(a + width * (f64(draw) * 2.0**-53), lowest, highest)
        draw = _draw64(w[2 * _TILE + i], w[3 * _TILE + i])
        out[2 * i + 1] = _clamped(a + width * (f64(draw) * 2.0**-53), lowest, highest)


@_jit
def _normal64(p, w, out):
    mean, std = p[0], p[1]
    for i in range(len(out) >> 1):
        radius = std * _radius64(w[i], w[_TILE + i])
        cosine, sine = _cos_sin64(w[2 * _TILE + i], w[3 * _TILE + i])
        out[2 * i] = fma(radius, cosine, mean)
        out[2 * i + 1] = fma(radius, sine, mean)


@_jit
def _trunc_normal64(p, w, out):
    mean, std, p_below, inside, p_above, lowest, highest = p[0], p[1], p[2], p[3], p[4], p[5], p[6]
    below, above, which = np.empty(_QUANTILES), np.empty(_QUANTILES), np.empty(_QUANTILES + 1, np.int64)
    for first in range(0, len(out), _QUANTILES):
        n = min(_QUANTILES, len(out) - first)
        for i in range(n >> 1):
            j = (first >> 1) + i
            draws = (_draw64(w[j], w[_TILE + j]), _draw64(w[2 * _TILE + j], w[3 * _TILE + j]))
            for lane in range(2):
                draw = draws[lane]
                mirrored = u64(2**53 - 1) - draw
                below[2 * i + lane] = p_below + (f64(u64(2) * draw + u64(1)) * 2.0**-54) * inside
                above[2 * i + lane] = p_above + (f64(u64(2) * mirrored + u64(1)) * 2.0**-54) * inside
        _quantiles(below, above, which, n)
        for i in range(n):
            out[first + i] = _clamped(mean + std * below[i], lowest, highest)


# Runs. A tile begins at element ``taken`` of run ``run``; a block has ``1 << shift`` elements.


@_inline
def _segment(starts, lengths, run, taken, room, shift):
    """The next elements of a run that fit into ``room`` blocks: the first block, the lane in it, and their number."""
    element = starts[run] + taken
    block, lane = u64(element >> shift), element & ((1 << shift) - 1)
    same_high = i64(u64(1 << 32) - (block & _LOW))
    return block, lane, min(lengths[run] - taken, (min(room, same_high) << shift) - lane)


@_inline
def _blocks_of(lane, count, shift):
    return (lane + count + (1 << shift) - 1) >> shift


@_inline
def _after(lengths, run, taken):
    return (run + 1, 0) if taken == lengths[run] else (run, taken)


@_jit
def _draw_tile(key, counter, starts, lengths, run, taken, shift, products, w):
    """Computes a tile's words; returns its numbers of blocks and elements, and the start of the next tile."""
    block, lane, count = _segment(starts, lengths, run, taken, _TILE, shift)
    if _blocks_of(lane, count, shift) == _TILE:  # one run fills the tile
        _words(key, counter, block, w)
        run, taken = _after(lengths, run, taken + count)
        return _TILE, count, run, taken
    high, blocks, elements = block >> u64(32), 0, 0
    while run < len(starts) and blocks < _TILE:
        block, lane, count = _segment(starts, lengths, run, taken, _TILE - blocks, shift)
        if block >> u64(32) != high:
            break
        part = products[blocks : blocks + _blocks_of(lane, count, shift)]
        for i in range(len(part)):
            part[i] = ((block & _LOW) + u64(i)) * _MULTIPLIER0
        blocks += len(part)
        elements += count
        run, taken = _after(lengths, run, taken + count)
    _scattered_words(key, counter, high, products[:blocks], w)
    return blocks, elements, run, taken


@_inline
def _begin(positions, run, taken, position):
    """The position of an element in ``out``: within its run if runs have positions, else after the previous element."""
    return positions[run] + taken if len(positions) else position


@_inline
def _is_together(positions, run, next_run, next_taken):
    """Whether a tile's elements are contiguous in ``out``: always, unless runs have positions."""
    return len(positions) == 0 or next_run == run or (next_run == run + 1 and next_taken == 0)


@_jit
def _place(values, starts, lengths, positions, run, taken, shift, position, elements, out):
    """Copies the elements of a tile, without the other elements of their blocks."""
    blocks, end = 0, position + elements
    while position < end:
        _, lane, count = _segment(starts, lengths, run, taken, _TILE - blocks, shift)
        first, begin = (blocks << shift) + lane, _begin(positions, run, taken, position)
        source, target = values[first : first + count], out[begin : begin + count]
        for i in range(count):
            target[i] = source[i]
        position += count
        blocks += _blocks_of(lane, count, shift)
        run, taken = _after(lengths, run, taken + count)


@_jit
def _law32(law, p, w, out):
    if law == UNIFORM:
        _uniform32(p, w, out)
    elif law == NORMAL:
        _normal32(p, w, out)
    elif law in (TRUNC_NEAR, TRUNC_FAR):
        _trunc_float32(law == TRUNC_NEAR, p, w, out)
    elif law == TRUNC_NORMAL:
        _trunc_normal32(p, w, out)
    elif law == DISK:
        _disk32(p, w, out)
    else:
        _disk_normal32(p, w, out)


@_jit
def _law64(law, p, w, out):
    if law == UNIFORM:
        _uniform64(p, w, out)
    elif law == NORMAL:
        _normal64(p, w, out)
    else:
        _trunc_normal64(p, w, out)


# Fill a law's values at the flat indices of runs into ``out``: each run at its position, or one after the other if
# ``positions`` is empty. There is a function for each width because a generic one, with the law and the rounding chosen
# at compile time, was 1.5 to 3% slower (2^24 elements, one core of an AMD EPYC; by an overload, by functions as
# arguments, and inlined).


@_jit
def fill32(law, p, key, counter, starts, lengths, positions, out):
    products, w = np.empty(_TILE, np.uint64), np.empty(4 * _TILE, np.uint32)
    scratch = np.empty(4 * _TILE, np.float32)
    run, taken, position = 0, 0, 0
    while run < len(starts):
        blocks, elements, next_run, next_taken = _draw_tile(key, counter, starts, lengths, run, taken, 2, products, w)
        begin = _begin(positions, run, taken, position)
        if elements == 4 * blocks and _is_together(positions, run, next_run, next_taken):
            _law32(law, p, w, out[begin : begin + elements])
        else:
            values = scratch[: 4 * blocks]
            _law32(law, p, w, values)
            _place(values, starts, lengths, positions, run, taken, 2, position, elements, out)
        run, taken, position = next_run, next_taken, position + elements


@_jit
def fill64(law, p, key, counter, starts, lengths, positions, out):
    products, w = np.empty(_TILE, np.uint64), np.empty(4 * _TILE, np.uint32)
    scratch = np.empty(2 * _TILE)
    run, taken, position = 0, 0, 0
    while run < len(starts):
        blocks, elements, next_run, next_taken = _draw_tile(key, counter, starts, lengths, run, taken, 1, products, w)
        begin = _begin(positions, run, taken, position)
        if elements == 2 * blocks and _is_together(positions, run, next_run, next_taken):
            _law64(law, p, w, out[begin : begin + elements])
        else:
            values = scratch[: 2 * blocks]
            _law64(law, p, w, values)
            _place(values, starts, lengths, positions, run, taken, 1, position, elements, out)
        run, taken, position = next_run, next_taken, position + elements


@_jit
def fill16(law, p, key, counter, starts, lengths, positions, out, is_bfloat16):
    products, w = np.empty(_TILE, np.uint64), np.empty(4 * _TILE, np.uint32)
    values32, scratch = np.empty(4 * _TILE, np.float32), np.empty(4 * _TILE, np.uint16)
    run, taken, position = 0, 0, 0
    while run < len(starts):
        blocks, elements, next_run, next_taken = _draw_tile(key, counter, starts, lengths, run, taken, 2, products, w)
        _law32(law, p, w, values32[: 4 * blocks])
        begin = _begin(positions, run, taken, position)
        if elements == 4 * blocks and _is_together(positions, run, next_run, next_taken):
            _round16(values32[: 4 * blocks], out[begin : begin + elements], is_bfloat16)
        else:
            values = scratch[: 4 * blocks]
            _round16(values32[: 4 * blocks], values, is_bfloat16)
            _place(values, starts, lengths, positions, run, taken, 2, position, elements, out)
        run, taken, position = next_run, next_taken, position + elements


@_jit
def _round16(values, out, is_bfloat16):
    if is_bfloat16:
        _to_bfloat16(values, out)
    else:
        _to_float16(values, out)


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


# Constants.


@_jit
def repeat(bits, out):
    to_line = min(len(out), (-out.ctypes.data % 64) // out.itemsize)
    for i in range(to_line):
        out[i] = bits
    rest = out[to_line:]
    for i in range(len(rest)):  # aligned to a cache line: stores that cross two lines cost twice
        rest[i] = bits


@_jit
def scatter(values, positions, lengths, out):
    begin = 0
    for run in range(len(positions)):
        length = lengths[run]
        to, taken = out[positions[run] : positions[run] + length], values[begin : begin + length]
        for i in range(len(to)):
            to[i] = taken[i]
        begin += length


# Pieces of many tensors, which any number of threads take in turn.

JOB_FIELDS = 14
"""Numbers of a job, in the order in which `fill_pieces` reads them:

the law; the type of the elements; the seed (for a constant its bits); the stream; the address of the memory; the first
element to fill, in the region's row-major order; the number of elements; the number of the first piece; and the
placement: its offset, the length of its runs, the first of its outer dimensions in ``outer``, and their number. The
last two are 0 if the elements are contiguous in memory, else the number of elements of the memory and the position
there of the placement's first element.
"""

FLOAT32, FLOAT64, BFLOAT16, FLOAT16 = 0, 1, 2, 3

NEXT, STOP = 0, 1
"""Indices into ``state``: the number of the next piece, and whether to stop."""

_RUNS = 1 << 10
"""Runs that are listed at once."""


@intrinsic
def _take(_context, state):
    """Takes the number of the next piece, by an atomic increment."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", data, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(state), generate


@intrinsic
def _pointer(_context, address):
    def generate(_context, builder, _signature, arguments):
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


@_jit
def fill_pieces(bits, jobs, parameters, outer, state, size, pieces, most):
    """Fills at most ``most`` pieces that no other thread has taken; returns whether there may be more."""
    starts, lengths, positions = np.empty(_RUNS, np.int64), np.empty(_RUNS, np.int64), np.empty(_RUNS, np.int64)
    where = np.empty(64, np.int64)
    for _ in range(most):
        if state[STOP] != 0:
            return False
        piece = _take(state)
        if piece >= pieces:
            return False
        j = _job_of(jobs, piece)
        begin = (piece - jobs[j, 7]) * size
        count = min(size, jobs[j, 6] - begin)
        _fill_at(jobs[j], parameters[j], bits, outer, begin, count, starts, lengths, positions, where)
    return True


@_merged
def _job_of(jobs, piece):
    low, high = 0, len(jobs)
    while high - low > 1:
        middle = (low + high) // 2
        if jobs[middle, 7] <= piece:
            low = middle
        else:
            high = middle
    return low


@_merged
def _fill_at(job, p, bits, outer, begin, count, starts, lengths, positions, where):
    first, run_length, dimensions = job[5] + begin, job[9], job[11]
    if dimensions == 0:
        starts[0], lengths[0], positions[0] = job[8] + first, count, job[13] + first
        _fill_runs(job, p, bits, begin, count, starts[:1], lengths[:1], positions[:1])
        return
    sizes = outer[job[10] : job[10] + dimensions]
    run, skipped = first // run_length, first % run_length
    flat, position = job[8], job[13]
    for d in range(dimensions - 1, -1, -1):
        where[d] = run % sizes[d, 0]
        run //= sizes[d, 0]
        flat += where[d] * sizes[d, 1]
        position += where[d] * sizes[d, 2]
    done = 0
    while done < count:
        runs, elements = 0, 0
        while runs < _RUNS and done + elements < count:
            length = min(run_length - skipped, count - done - elements)
            starts[runs], lengths[runs], positions[runs] = flat + skipped, length, position + skipped
            runs += 1
            elements += length
            skipped = 0
            for d in range(dimensions - 1, -1, -1):  # the next run
                where[d] += 1
                flat += sizes[d, 1]
                position += sizes[d, 2]
                if where[d] < sizes[d, 0]:
                    break
                flat -= where[d] * sizes[d, 1]
                position -= where[d] * sizes[d, 2]
                where[d] = 0
        _fill_runs(job, p, bits, begin + done, elements, starts[:runs], lengths[:runs], positions[:runs])
        done += elements


@_merged
def _fill_runs(job, p, bits, begin, count, starts, lengths, positions):
    """Fills runs one after the other from element ``begin`` of the memory, or each at its position."""
    address, size = job[4], job[12]
    if size == 0:
        address += begin * bits.itemsize
        size, positions = count, positions[:0]
    out = carray(_pointer(address), (size,), bits.dtype)
    if job[0] == CONSTANT:
        _repeat_runs(u64(job[2]), lengths, positions, out)
    else:
        _fill(job[0], p, u64(job[2]), u64(job[3]), starts, lengths, positions, out, job[1] == BFLOAT16)


@_merged
def _repeat_runs(constant, lengths, positions, out):
    if len(positions) == 0:
        repeat(constant, out)
    for run in range(len(positions)):
        repeat(constant, out[positions[run] : positions[run] + lengths[run]])


def _fill(law, p, key, counter, starts, lengths, positions, out, is_bfloat16):
    raise NotImplementedError  # compiled only


@overload(_fill, inline="always")
def _fill_of_width(law, p, key, counter, starts, lengths, positions, out, is_bfloat16):
    """The function for elements of this width; the others are not compiled."""

    def of32(law, p, key, counter, starts, lengths, positions, out, is_bfloat16):
        fill32(law, p, key, counter, starts, lengths, positions, out.view(np.float32))

    def of64(law, p, key, counter, starts, lengths, positions, out, is_bfloat16):
        fill64(law, p, key, counter, starts, lengths, positions, out.view(np.float64))

    def of16(law, p, key, counter, starts, lengths, positions, out, is_bfloat16):
        fill16(law, p, key, counter, starts, lengths, positions, out, is_bfloat16)

    return {32: of32, 64: of64, 16: of16}[out.dtype.bitwidth]
