"""Elementary functions of float64 arrays whose bits are the same on every processor.

``np.exp`` and similar functions differ in the last bit between processors and versions of NumPy. This module uses only
operations that IEEE 754 defines to the last bit (sums, products, quotients, square roots), comparisons and integers.
Where the precision of one double is insufficient, a value is a pair ``high, low``, an unevaluated sum (doubles.py).
Each result is within 1 ulp of the exact value, and all NaNs are equal.

The tables are computed at import, in decimal arithmetic, which is also the same everywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from math import factorial

import numpy as np
from numpy.typing import NDArray

from .doubles import F64, Pair, fast_two_sum, two_product, two_sum

I64 = NDArray[np.int64]

_TILE = 4096  # elements whose temporaries stay in the cache
_DIGITS = Context(prec=50)


def _elementwise(function: Callable[[F64], F64]) -> Callable[[F64], F64]:
    """Extends a function of one-dimensional arrays to all shapes; suppresses warnings and unifies NaNs."""

    @functools.wraps(function)
    def apply(x: F64) -> F64:
        flat = np.ravel(x)
        result = np.empty(flat.shape)
        with np.errstate(all="ignore"):
            for start in range(0, flat.size, _TILE):
                result[start : start + _TILE] = _one_nan(function(flat[start : start + _TILE]))
        return result.reshape(np.shape(x))

    return apply


def _one_nan(y: F64) -> F64:
    """Replaces each NaN by the positive quiet NaN; the sign of a NaN differs between processors."""
    is_nan = np.isnan(y)
    return np.where(is_nan, np.nan, y) if is_nan.any() else y


# Pairs of doubles.


def _quotient(a: Pair, b: Pair) -> F64:
    """A / b; only the last operation contributes a noticeable rounding error."""
    q = a[0] / b[0]
    p, e = two_product(q, b[0])
    return q + (((a[0] - p) - e) + (a[1] - q * b[1])) / b[0]


def _polynomial(coefficients: tuple[float, ...], x: F64) -> F64:
    """Horner's rule, highest power first."""
    y = x * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        y = y * x + coefficient
    return y


def _pairs(values: list[Decimal]) -> Pair:
    """Each value as the nearest double, and the nearest double to the remainder."""
    high = [float(value) for value in values]
    low = [float(_DIGITS.subtract(value, Decimal(h))) for value, h in zip(values, high, strict=True)]
    return np.array(high), np.array(low)


def _float(value: Fraction) -> float:
    return value.numerator / value.denominator  # int / int is correctly rounded


# Exponentials: x = n ln 2 / 128 + r, and exp(x) = 2^(n / 128) exp(r) with |r| < 0.0028.

_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # fdlibm
_PER_LN2 = 184.6649652337873  # 128 / ln 2
_INTEGER = 6755399441055744.0  # 1.5 * 2^52: adding it rounds to an integer, in the low bits
_INTEGER_BITS = np.int64(0x4338000000000000)
_EXP = (1 / 120, 1 / 24, 1 / 6, 1 / 2)


def _exp_table() -> Pair:
    with localcontext(_DIGITS):
        return _pairs([(Decimal(2).ln() * j / 128).exp() for j in range(128)])


_EXP_HIGH, _EXP_LOW = _exp_table()


def _exp_parts(high: F64, low: F64 | float = 0.0) -> tuple[I64, F64, F64]:
    """``k, t, d`` with exp(high + low) = 2^k (t + d), 1 <= t < 2, |d| < 0.006, to about 2^-60."""
    shifted = high * _PER_LN2 + _INTEGER
    n = shifted.view(np.int64) - _INTEGER_BITS
    count = shifted - _INTEGER
    r = (high - count * (_LN2_HIGH / 128)) - (count * (_LN2_LOW / 128) - low)
    growth = _polynomial(_EXP, r) * (r * r) + r
    j = n & np.int64(127)
    t = _EXP_HIGH.take(j)
    return n >> np.int64(7), t, t * growth + _EXP_LOW.take(j)


def _scaled(y: F64, k: I64) -> F64:
    """2^k y for |k| < 2000; rounds only if the result is subnormal."""
    if k.min(initial=0) > -1021 and k.max(initial=0) < 1023:
        return y * _power_of_two(k)
    half = k >> np.int64(1)
    return y * _power_of_two(half) * _power_of_two(k - half)


def _power_of_two(k: I64) -> F64:
    return ((k + np.int64(1023)) << np.int64(52)).view(np.float64)


def _exp(x: F64) -> F64:
    k, t, d = _exp_parts(np.minimum(np.maximum(x, -746.0), 710.0))
    return _scaled(t + d, k)


def _exp_pair(x: F64) -> Pair:
    """exp(x) for |x| < 700 as a pair."""
    k, t, d = _exp_parts(x)
    high, low = fast_two_sum(t, d)
    scale = _power_of_two(k)
    return high * scale, low * scale


@_elementwise
def exp(x: F64) -> F64:
    """The exponential: 2^(n / 128) e^r, after Tang, Table-driven implementation of the exponential function (1989).

    >>> exp(np.array([0.0, 1.0, -800.0])).tolist()
    [1.0, 2.718281828459045, 0.0]
    """
    return _exp(x)


@_elementwise
def expm1(x: F64) -> F64:
    """exp(x) - 1: Taylor's series about 0, else from exp(x) in two doubles.

    >>> expm1(np.array([1e-20, 1.0])).tolist()
    [1e-20, 1.7182818284590453]
    """
    high, low = _exp_pair(np.minimum(np.maximum(x, -50.0), 690.0))
    far, rest = two_sum(high, np.full_like(high, -1.0))
    far = np.where(x > 50.0, _exp(x), far + (rest + low))
    near = x + _polynomial(_EXPM1, x) * (x * x)
    return np.where(np.abs(x) < 0.25, np.where(x == 0, x, near), far)


_EXPM1 = tuple(_float(Fraction(1, factorial(n))) for n in range(14, 1, -1))


@_elementwise
def sigmoid(x: F64) -> F64:
    """1 / (1 + exp(-x)) from exp(-|x|) in two doubles.

    >>> sigmoid(np.array([0.0, 2.0])).tolist()
    [0.5, 0.8807970779778824]
    """
    high, low = _exp_pair(np.maximum(-np.abs(x), -50.0))
    total, rest = fast_two_sum(np.ones_like(high), high)
    positive = x >= 0
    above = np.where(positive, 1.0, high), np.where(positive, 0.0, low)
    near = _quotient(above, (total, rest + low))
    return np.where(x < -40.0, _exp(x), near)


@_elementwise
def softplus(x: F64) -> F64:
    """log(1 + exp(x)) as max(x, 0) + log(1 + exp(-|x|)), the logarithm in two doubles.

    >>> softplus(np.array([0.0, 100.0])).tolist()
    [0.6931471805599453, 100.0]
    """
    high, low = _exp_pair(np.maximum(-np.abs(x), -50.0))
    total, rest = fast_two_sum(np.ones_like(high), high)
    log_high, log_low = _log_pair(total, rest + low)
    upper, lower = two_sum(np.maximum(x, 0.0), log_high)
    near = np.where(x > 50.0, x, upper + (lower + log_low))
    below = np.where(x < -40.0, _exp(x), high + (low - 0.5 * high * high))  # exp(x) - exp(2x) / 2
    return np.where(x < -25.0, below, near)


def _tanh_series(terms: int) -> tuple[float, ...]:
    """Taylor's coefficients of (tanh(x) - x) / x^3 in x^2, from tanh' = 1 - tanh^2."""
    series = [Fraction(1)]
    for n in range(1, terms + 1):
        square = sum((series[i] * series[n - 1 - i] for i in range(n)), Fraction(0))
        series.append(-square / (2 * n + 1))
    return tuple(_float(a) for a in reversed(series[1:]))


_TANH = _tanh_series(12)


@_elementwise
def tanh(x: F64) -> F64:
    """The hyperbolic tangent: Taylor's series about 0, else (1 - e) / (1 + e) with e = exp(-2|x|) in two doubles.

    >>> tanh(np.array([-0.1, 0.5, 30.0])).tolist()
    [-0.09966799462495582, 0.46211715726000974, 1.0]
    """
    size = np.minimum(np.abs(x), 25.0)
    high, low = _exp_pair(-2.0 * size)
    one = np.ones_like(high)
    below, below_rest = fast_two_sum(one, -high)
    above, above_rest = fast_two_sum(one, high)
    far = _quotient((below, below_rest - low), (above, above_rest + low))
    z = x * x
    near = x + x * (z * _polynomial(_TANH, z))
    return np.where(size < 0.25, np.where(x == 0, x, near), np.copysign(far, x))


# Logarithms.

_LOG = (
    1.479819860511658591e-01, 1.531383769920937332e-01, 1.818357216161805012e-01, 2.222219843214978396e-01,
    2.857142874366239149e-01, 3.999999999940941908e-01, 6.666666666666735130e-01,
)  # fmt: skip
_SQRT_HALF_BITS = np.int64(0x3FE6A09E667F3BCD)
_FRACTION = np.int64((1 << 52) - 1)
_TINY = 2.0**-1022


def _normal(x: F64) -> tuple[F64, float | F64]:
    """``z, k`` with ``x = 2^k z``, where ``z`` is not subnormal."""
    tiny = x < _TINY
    if not tiny.any():
        return x, 0.0
    return np.where(tiny, x * 2.0**54, x), np.where(tiny, -54.0, 0.0)


def _log(x: F64) -> F64:
    z, shift = _normal(x)
    bits = z.view(np.int64) - _SQRT_HALF_BITS
    k = (bits >> np.int64(52)).astype(np.float64) + shift
    f = ((bits & _FRACTION) + _SQRT_HALF_BITS).view(np.float64) - 1.0
    s = f / (2.0 + f)
    w = s * s
    half = 0.5 * f * f
    r = _polynomial(_LOG, w) * w
    y = k * _LN2_HIGH - ((half - (s * (half + r) + k * _LN2_LOW)) - f)
    return _log_ends(x, y)


def _log_ends(x: F64, y: F64) -> F64:
    """Replaces ``y`` by the logarithm of 0, of negative numbers, infinity and NaN."""
    if np.all((x > 0) & (x < np.inf)):
        return y
    return np.where(x > 0, np.where(x < np.inf, y, np.inf), np.where(x == 0, -np.inf, np.nan))


# The table: x = 2^k m with 0.6875 <= m < 1.375; c is 1/m to 10 bits, selected by the first 7 bits of m, so that m c - 1
# is exact in two doubles. Near 1, c is 1, which avoids cancellation.
_LOG_OFFSET = np.int64(0x3FE6000000000000)
_LOG_SERIES = tuple((1 if n % 2 else -1) / n for n in range(11, 2, -1))


def _log_table() -> tuple[F64, F64, F64]:
    near_inverse = []
    for j in range(128):
        ends = (_LOG_OFFSET + (np.array([j, j + 1]) << 45)).view(np.float64)
        middle = (float(ends[0]) + float(ends[1])) / 2
        near_inverse.append(1.0 if ends[0] == 1 or ends[1] == 1 else round(512 / middle) / 512)
    with localcontext(_DIGITS):
        return np.array(near_inverse), *_pairs([-Decimal(c).ln() for c in near_inverse])


_LOG_INVERSE, _LOG_HIGH, _LOG_LOW = _log_table()


def _log_pair(x: F64, low: F64 | None = None) -> Pair:
    """ln(x + low) of a positive ``x`` as a pair, to about 2^-67 of its value."""
    z, shift = _normal(x)
    bits = z.view(np.int64)
    offset = bits - _LOG_OFFSET
    exponent = offset >> np.int64(52)
    j = (offset >> np.int64(45)) & np.int64(127)
    k = exponent.astype(np.float64) + shift
    c = _LOG_INVERSE.take(j)
    m = (offset & _FRACTION) + _LOG_OFFSET
    first = (m & np.int64(-1 << 32)).view(np.float64)
    a, b = first * c - 1.0, (m.view(np.float64) - first) * c
    e = np.zeros_like(b)
    if low is not None:
        b, e = two_sum(b, _scaled(low, -exponent) * c)
    r, rest = two_sum(a, b)
    rest = rest + e
    square, square_rest = two_product(r, r)
    tail = (rest - 0.5 * square_rest - r * rest) + r * square * _polynomial(_LOG_SERIES, r)
    y1, e1 = two_sum(k * _LN2_HIGH, _LOG_HIGH.take(j))
    y2, e2 = two_sum(y1, r)
    y3, e3 = two_sum(y2, -0.5 * square)
    return fast_two_sum(y3, ((e1 + e2 + e3) + (_LOG_LOW.take(j) + k * _LN2_LOW)) + tail)


@_elementwise
def log(x: F64) -> F64:
    """The natural logarithm, after fdlibm's ``e_log.c``.

    >>> log(np.array([1.0, 2.0, 0.0])).tolist()
    [0.0, 0.6931471805599453, -inf]
    """
    return _log(x)


@_elementwise
def log1p(x: F64) -> F64:
    """ln(1 + x): the logarithm of the exact sum in two doubles.

    >>> log1p(np.array([1e-20, 1.0])).tolist()
    [1e-20, 0.6931471805599453]
    """
    total, rest = two_sum(np.ones_like(x), x)
    high, low = _log_pair(total, rest)
    return np.where(x == 0, x, _log_ends(total, high + low))


# Powers and roots.


def power(x: F64, y: F64) -> F64:
    """x^y as exp(y ln x) with the logarithm and its multiple in two doubles; special cases as in C99.

    >>> power(np.array([2.0, -2.0, 0.0]), np.array([0.5, 3.0, -1.0])).tolist()
    [1.4142135623730951, -8.0, inf]
    """
    bases, exponents = np.broadcast_arrays(x, y)
    flat_x, flat_y = np.ravel(bases), np.ravel(exponents)
    result = np.empty(flat_x.shape)
    with np.errstate(all="ignore"):
        for start in range(0, flat_x.size, _TILE):
            part = slice(start, start + _TILE)
            result[part] = _one_nan(_power(flat_x[part], flat_y[part]))
    return result.reshape(bases.shape)


def _power(x: F64, y: F64) -> F64:
    size = np.abs(x)
    ordinary = (size > 0) & (size < np.inf)
    high, low = _log_pair(np.where(ordinary, size, 1.0))
    bounded = np.minimum(np.maximum(y, -(2.0**80)), 2.0**80)  # beyond this, every power is 0, 1 or inf
    bounded = np.where(np.abs(y) < 2.0**-80, 0.0, bounded)
    p, rest = two_product(high, bounded)
    inside = np.abs(p) < 800.0
    rest = np.where(inside, rest + low * bounded, 0.0)
    k, t, d = _exp_parts(np.minimum(np.maximum(p, -800.0), 800.0), rest)
    result = np.where(ordinary, _scaled(t + d, k), np.where((size == 0) == (y > 0), 0.0, np.inf))
    return _power_ends(x, y, result)


def _power_ends(x: F64, y: F64, result: F64) -> F64:
    """Applies the signs, ones and NaNs of C99 to ``result``."""
    negative = np.signbit(x)
    if negative.any():
        integral = np.trunc(y) == y
        odd = integral & (np.abs(y) < 2.0**53) & (np.trunc(0.5 * y) != 0.5 * y)
        result = np.where(negative & odd, -result, result)
        result = np.where((x < 0) & (x > -np.inf) & ~integral, np.nan, result)
    result = np.where(np.isnan(x) | np.isnan(y), np.nan, result)
    return np.where((x == 1) | (y == 0) | ((x == -1) & np.isinf(y)), 1.0, result)


@_elementwise
def rsqrt(x: F64) -> F64:
    """1 / sqrt(x), with the root corrected by its remainder.

    >>> rsqrt(np.array([4.0, 0.1, 0.0])).tolist()
    [0.5, 3.162277660168379, inf]
    """
    small, large = x < 2.0**-500, x > 2.0**500  # where the square of the root might not be exact in two doubles
    z = np.where(small, x * 2.0**600, np.where(large, x * 2.0**-600, x))
    root = np.sqrt(z)
    p, e = two_product(root, root)
    inverse = _quotient((np.ones_like(x), np.zeros_like(x)), (root, ((z - p) - e) / (2.0 * root)))
    inverse = inverse * np.where(small, 2.0**300, np.where(large, 2.0**-300, 1.0))
    ordinary = (x > 0) & (x < np.inf)
    return inverse if ordinary.all() else np.where(ordinary, inverse, 1.0 / np.sqrt(x))


# Sines: x = n pi / 2 + r.

_SIN = (
    1.58969099521155010221e-10, -2.50507602534068634195e-08, 2.75573137070700676789e-06,
    -1.98412698298579493134e-04, 8.33333333332248946124e-03,
)  # fmt: skip
_SIN_CUBE = -1.66666666666666324348e-01
_COS = (
    -1.13596475577881948265e-11, 2.08757232129817482790e-09, -2.75573143513906633035e-07,
    2.48015872894767294178e-05, -1.38888888888741095749e-03, 4.16666666666666019037e-02,
)  # fmt: skip
_TWO_OVER_PI = 6.36619772367581382433e-01
# pi / 2 as three parts of 33 bits and the remainder; fdlibm, e_rem_pio2.c.
_HALF_PI = (
    1.57079632673412561417e00,
    6.07710050630396597660e-11,
    2.02226624871116645580e-21,
    8.47842766036889956997e-32,
)
_REDUCED_IN_DOUBLES = 2.0**20


@_elementwise
def sin(x: F64) -> F64:
    """The sine, after fdlibm's ``k_sin.c`` and ``k_cos.c``.

    >>> sin(np.array([0.0, 1.0, 1e22])).tolist()
    [0.0, 0.8414709848078965, -0.8522008497671888]
    """
    return np.where(x == 0, x, _sine(x, 0))


@_elementwise
def cos(x: F64) -> F64:
    """The cosine, after fdlibm's ``k_sin.c`` and ``k_cos.c``.

    >>> cos(np.array([0.0, 1.0, 1e22])).tolist()
    [1.0, 0.5403023058681398, 0.523214785395139]
    """
    return _sine(x, 1)


def _sine(x: F64, turns: int) -> F64:
    """The sine of x + turns pi / 2."""
    quarters, r, rest = _reduced(x)
    quarters = quarters + np.int64(turns)
    z = r * r
    v = z * r
    sine = r - ((z * (0.5 * rest - v * _polynomial(_SIN, z)) - rest) - v * _SIN_CUBE)
    half = 0.5 * z
    w = 1.0 - half
    cosine = w + (((1.0 - w) - half) + (z * (z * _polynomial(_COS, z)) - r * rest))
    y = np.where((quarters & np.int64(1)) == 1, cosine, sine)
    return np.where((quarters & np.int64(2)) == 2, -y, y)


def _reduced(x: F64) -> tuple[I64, F64, F64]:
    """``n, r, rest`` with x = n pi / 2 + r + rest; the last two bits of ``n`` are correct."""
    large = ~(np.abs(x) <= _REDUCED_IN_DOUBLES)
    small = np.where(large, 0.0, x)
    shifted = small * _TWO_OVER_PI + _INTEGER
    n = shifted.view(np.int64) - _INTEGER_BITS
    count = shifted - _INTEGER
    a, e1 = two_sum(small - count * _HALF_PI[0], -(count * _HALF_PI[1]))
    b, e2 = two_sum(a, -(count * _HALF_PI[2]))
    r, rest = fast_two_sum(b, e2 + e1 - count * _HALF_PI[3])
    for i in np.flatnonzero(large):
        n[i], r[i], rest[i] = _reduced_exactly(float(x[i]))
    return n, r, rest


@functools.cache
def _half_pi(bits: int) -> int:
    """Pi / 2 times 2^bits, by Machin's formula."""
    one = 1 << (bits + 32)

    def arctangent(inverse: int) -> int:
        term, total, n = one // inverse, 0, 1
        while term:
            total += term // n if n % 4 == 1 else -(term // n)
            term //= inverse * inverse
            n += 2
        return total

    return (8 * arctangent(5) - 2 * arctangent(239)) >> 32


def _reduced_exactly(x: float) -> tuple[int, float, float]:
    """As ``_reduced``, for any double, in integers."""
    if not abs(x) < float("inf"):
        return 0, float("nan"), 0.0
    bits = 1280  # n has up to 1024 bits, and at most 62 bits of r cancel
    half_pi = _half_pi(2 * bits)
    scaled = int(abs(x)) << bits if abs(x) >= 2.0**53 else int(abs(x) * 2.0**53) << (bits - 53)
    scaled <<= bits
    n = (2 * scaled + half_pi) // (2 * half_pi)
    remainder = scaled - n * half_pi
    r = remainder / (1 << (2 * bits))
    rest = (remainder - int(Fraction(r) * (1 << (2 * bits)))) / (1 << (2 * bits))
    return (n & 3, r, rest) if x > 0 else (-n & 3, -r, -rest)


# The error function.

_ERF_STEP = 4  # the intervals are centred at the multiples of 1/4
_ERF_DEGREE = 13


def _erf_series(x: Decimal) -> Decimal:
    term, total, n = x, Decimal(0), 0
    while abs(term) > Decimal("1e-45"):
        total += term / (2 * n + 1)
        n += 1
        term = -term * x * x / n
    return total


def _erf_tables() -> tuple[tuple[float, ...], F64, F64, list[F64]]:
    """Taylor coefficients at 0, erf at the centres of the intervals as pairs, and Taylor coefficients there."""
    with localcontext(Context(prec=80)):
        half_pi = Decimal(_half_pi(320)) / Decimal(1 << 320)
        scale = 2 / (2 * half_pi).sqrt()
        signed = [scale * (-1) ** n / (factorial(n) * (2 * n + 1)) for n in range(14)]
        centres = [Decimal(i) / _ERF_STEP for i in range(6 * _ERF_STEP + 1)]
        slopes = [[scale * (-c * c).exp() for c in centres]]
        slopes.append([-2 * c * b for c, b in zip(centres, slopes[0], strict=True)])
        for n in range(1, _ERF_DEGREE):
            triples = zip(centres, slopes[n], slopes[n - 1], strict=True)
            slopes.append([-2 * (c * b + a) / (n + 1) for c, b, a in triples])
        pieces = [np.array([float(b / (n + 1)) for b in row]) for n, row in enumerate(slopes)]
        values = [scale * _erf_series(c) for c in centres]
    near = tuple(float(a) for a in (*reversed(signed[1:]), signed[0] - 1))
    return near, *_pairs(values), pieces[::-1]


_ERF_NEAR, _ERF_HIGH, _ERF_LOW, _ERF_INTERVALS = _erf_tables()


@_elementwise
def erf(x: F64) -> F64:
    """The error function: Taylor's series about 0 and about the multiples of 1/4.

    >>> erf(np.array([-0.1, 0.5, 7.0])).tolist()
    [-0.1124629160182849, 0.5204998778130465, 1.0]
    """
    size = np.where(np.isnan(x), 0.0, np.minimum(np.abs(x), 6.0))
    shifted = size * _ERF_STEP + _INTEGER
    piece = shifted.view(np.int64) - _INTEGER_BITS
    d = size - (shifted - _INTEGER) * (1 / _ERF_STEP)
    slope = _ERF_INTERVALS[0].take(piece)
    for row in _ERF_INTERVALS[1:]:
        slope = slope * d + row.take(piece)
    far = _ERF_HIGH.take(piece) + (_ERF_LOW.take(piece) + slope * d)
    near = x + x * _polynomial(_ERF_NEAR, x * x)
    return np.where(np.abs(x) < 0.5, np.where(x == 0, x, near), np.where(np.isnan(x), x, np.copysign(far, x)))


# The inverse error function. The coefficients come from mpmath's ``chebyfit`` with 50 digits; errors are below 1e-18.

# erfinv(x) / x - 1 in x^2 - 1/8 for |x| <= 1/2.
_ERFINV_NEAR = (
    0.13723271271618318, 0.12862095790549813, 0.11199836135781016, 0.10610772026240634,
    0.10140751626764583, 0.09738233087169813, 0.09432805438343314, 0.09233268806845867,
    0.09154562020874209, 0.09223856979733618, 0.0948925660771667, 0.10039275106118803,
    0.11049779613787822, 0.12916467464939954, 0.1672977500966767, 0.26853944237639576,
    -0.0825916329477299,
)  # fmt: skip
# erfinv(x) - s in s - centre, with s = sqrt(-ln(1 - |x|)), on the intervals between these bounds.
_ERFINV_BOUNDS = np.array([1.25, 1.75, 2.5, 3.5, 4.75])
_ERFINV_CENTRES = np.array([1.0390625, 1.5, 2.125, 3.0, 4.125, 5.4375])
_ERFINV_INTERVALS = (
    (
        0.00020365335747358693, -2.648052372203525e-05, -0.0003991086844856505, 0.0008688870869151233,
        -0.0011352191086917757, 0.0007615918679282338, 0.000690676612004463, -0.0032914300494416406,
        0.00624405460588267, -0.007423716379084885, 0.003295003644281407, 0.010328317024923468,
        -0.03622781572575446, 0.0721640047070097, -0.1056917370763898, 0.10695353531483136,
        -0.013125208526360479, -0.3639662354513863,
    ),
    (
        -3.6853326731429825e-06, 3.932594402383794e-06, 8.441336461636345e-07, -1.4007454227554366e-05,
        4.291278619419602e-05, -9.275953813173978e-05, 0.00015570523569024785, -0.00018640135618754739,
        5.542706217336833e-05, 0.0005235668585228016, -0.0020807880964022756, 0.005431086434200638,
        -0.011493411986982506, 0.020455566496647194, -0.02924364146852102, 0.02449308496377619,
        0.03953356073057634, -0.35503621794530027,
    ),
    (
        3.3963791840982096e-08, -8.913291916011887e-08, 1.8292382801252485e-07, -3.444929167533758e-07,
        4.799075022038598e-07, -8.501611530895486e-08, -2.642470666696741e-06, 1.316694357560931e-05,
        -4.625824570670769e-05, 0.0001381879538200004, -0.0003696010394307915, 0.0008977058641483068,
        -0.001962255550384495, 0.0036874588501755387, -0.004966775059892877, -0.0013557911818072549,
        0.04947827135751091, -0.32561638026824263,
    ),
    (
        4.1492070194203373e-11, 3.407477267588166e-11, -7.322821877646926e-10, 4.040359909150013e-09,
        -1.808640064946757e-08, 7.276227777008306e-08, -2.718138665314666e-07, 9.577632104193073e-07,
        -3.203121748190251e-06, 1.0163832158184923e-05, -3.0369076920465538e-05, 8.376092771877621e-05,
        -0.0002026102467457196, 0.00035993390426997937, 6.936576448639403e-05, -0.005442061144112494,
        0.0417526212595294, -0.2852390020607151,
    ),
    (
        -1.0095188521340505e-12, 5.065364182125496e-12, -2.2663381022218445e-11, 1.0518294884398604e-10,
        -4.754314128778516e-10, 2.084028901651153e-09, -8.869966351806663e-09, 3.6536771033466796e-08,
        -1.446579511168524e-07, 5.432658639657613e-07, -1.8826504168597813e-06, 5.616945939293176e-06,
        -1.0971845654392543e-05, -2.2361035556613197e-05, 0.00046827841120901083, -0.004103219421985949,
        0.03080510203679166, -0.24472498569213313,
    ),
    (
        -1.2869115145908705e-14, 7.331840644327877e-14, -3.8328588751366193e-13, 2.1028625654088182e-12,
        -1.1327535580205355e-11, 5.944917214569582e-11, -3.0276353468211457e-10, 1.481097863669138e-09,
        -6.8267111991228695e-09, 2.8429829556062868e-08, -9.473213145731185e-08, 1.0897683821855505e-07,
        2.1537000374156635e-06, -3.045605006441461e-05, 0.0002970373096499986, -0.0025893293945339437,
        0.022173878848400472, -0.2103924323455866,
    ),
)  # fmt: skip
_ERFINV_ROWS = [np.array(row) for row in zip(*_ERFINV_INTERVALS, strict=True)]


@_elementwise
def erfinv(x: F64) -> F64:
    """The inverse error function: polynomials in x^2, and in the root of -ln(1 - |x|) where |x| > 1/2.

    >>> erfinv(np.array([0.0, 0.5, -1.0])).tolist()
    [0.0, 0.4769362762044699, -inf]
    """
    size = np.abs(x)
    near = x + x * _polynomial(_ERFINV_NEAR, x * x - 0.125)
    tail = (size > 0.5) & (size < 1.0)
    far = _erfinv_tail(np.where(tail, 1.0 - size, 0.5)) if tail.any() else size
    far = np.where(size > 1.0, np.nan, np.where(size == 1.0, np.inf, far))
    return np.where(size <= 0.5, np.where(x == 0, x, near), np.copysign(far, x))


def _erfinv_tail(rest: F64) -> F64:
    """erfinv(1 - rest)."""
    high, low = _log_pair(rest)
    s = np.sqrt(-high)
    p, e = two_product(s, s)
    s_low = (((-high - p) - e) - low) / (2.0 * s)
    piece = np.searchsorted(_ERFINV_BOUNDS, s)
    d = (s - _ERFINV_CENTRES.take(piece)) + s_low
    y: F64 = _ERFINV_ROWS[0].take(piece)
    for row in _ERFINV_ROWS[1:-1]:
        y = y * d + row.take(piece)
    centre, error = two_sum(s, _ERFINV_ROWS[-1].take(piece))
    result: F64 = centre + (y * d + (s_low + error))
    return result
