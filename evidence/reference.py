"""References for the laws' functions. They are in turn compared with mpmath.

The reference of float32 functions is float64, and that of float64 functions the 80-bit float of x86
(`numpy.longdouble`), both from the same exact angle. For the float64 quantile, it is the distance of the probability of
our value from the requested one, in double-double arithmetic. For truncated normals that are computed in float32, it is
the float64 quantile. `accuracy.references` measures all of them against mpmath with 60 digits.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import mpmath
import numpy as np
from numba import njit
from numpy.typing import NDArray

from evidence import double_double as dd

# ruff: noqa: ANN001, ANN201 - Numba infers the types

DIGITS = 60

_jit = njit(nogil=True, error_model="numpy")


class UnsupportedError(RuntimeError):
    """This machine does not support the reference."""


def need_long_double() -> None:
    """Checks that `numpy.longdouble` has at least the 64 bits of x86.

    Raises:
        UnsupportedError: It has fewer.
    """
    if np.finfo(np.longdouble).nmant < 63:
        raise UnsupportedError(
            "numpy.longdouble has no more bits than float64 here; run this part on x86-64 under Linux"
        )


# The radius √(−2 ln((w or 1) / 2^32)) and the angle, in float64.


@_jit
def radius32(w):  # type: ignore[no-untyped-def]
    """The radius of a word."""
    odd = np.uint32(w | np.uint32(1))
    if odd >= np.uint32(1 << 31):
        return math.sqrt(-2.0 * math.log1p(-(2.0**32 - float(odd)) * 2.0**-32))
    return math.sqrt(-2.0 * math.log(float(odd) * 2.0**-32))


@_jit
def cos_sin32(w):  # type: ignore[no-untyped-def]
    """Cosine and sine of π/4 · x, x in (−1, 1) by the word's upper 24 bits; the lowest two reflect them."""
    x = float(np.int64(np.int32(np.uint32((w & np.uint32(0xFFFFFF00)) | np.uint32(0x80))))) * 2.0**-31
    c, s = math.cos(0.25 * math.pi * x), math.sin(0.25 * math.pi * x)
    if w & np.uint32(1):
        c = -c
    if w & np.uint32(2):
        c, s = s, c
    return c, s


# The same for 64 bits, in 80-bit floats.

LongDoubles = NDArray[np.longdouble]


def radius64(word: NDArray[np.uint64]) -> LongDoubles:
    """The radius √(−2 ln((w or 1) / 2^64))."""
    unit = np.longdouble(2.0**-64)
    odd = word | np.uint64(1)
    near_one = odd >= np.uint64(1 << 63)
    from_one = (~odd + np.uint64(1)).astype(np.longdouble) * -unit  # 2^64 − odd
    small = odd.astype(np.longdouble) * unit
    logarithm = np.where(near_one, np.log1p(np.where(near_one, from_one, 0)), np.log(np.where(near_one, 1, small)))
    result: LongDoubles = np.sqrt(-2 * logarithm)
    return result


def cos_sin64(word: NDArray[np.uint64]) -> tuple[LongDoubles, LongDoubles]:
    """Cosine and sine of π/4 · x, x by the word's upper 53 bits."""
    odd = (word & np.uint64(2**64 - 0x800)) | np.uint64(0x400)
    angle = odd.view(np.int64).astype(np.longdouble) * np.longdouble(2.0**-63) * _eighth_turn()
    c, s = np.cos(angle), np.sin(angle)
    c = np.where((word & np.uint64(1)) != 0, -c, c)
    is_swapped = (word & np.uint64(2)) != 0
    return np.where(is_swapped, s, c), np.where(is_swapped, c, s)


@cache
def _eighth_turn() -> np.longdouble:
    with mpmath.workdps(DIGITS):
        return long_double(mpmath.pi / 4)


def long_double(x: mpmath.mpf) -> np.longdouble:
    """The 80-bit float nearest to a number."""
    high = float(x)
    return np.longdouble(high) + np.longdouble(float(x - mpmath.mpf(high)))


def number(x: np.longdouble) -> mpmath.mpf:
    """The exact value of an 80-bit float."""
    high = np.float64(x)
    with mpmath.workdps(DIGITS):
        return mpmath.mpf(float(high)) + mpmath.mpf(float(x - np.longdouble(high)))


# mpmath's.


def exact_radius(word: int, bits: int) -> mpmath.mpf:
    """The radius √(−2 ln((word or 1) / 2^bits))."""
    with mpmath.workdps(DIGITS):
        return mpmath.sqrt(-2 * mpmath.log(mpmath.mpf(word | 1) / 2**bits))


def exact_cos_sin(word: int, bits: int) -> tuple[mpmath.mpf, mpmath.mpf]:
    """Cosine and sine of a word of 32 or 64 bits."""
    below = 8 if bits == 32 else 11  # bits that the angle ignores
    odd = 2 * (word >> below) + 1
    if word >> (bits - 1):
        odd -= 2 << (bits - below)
    with mpmath.workdps(DIGITS):
        x = mpmath.mpf(odd) / 2 ** (bits - below) / 4  # in units of π
        c, s = mpmath.cospi(x), mpmath.sinpi(x)
        c = -c if word & 1 else c  # within workdps, because negation rounds
        return (s, c) if word & 2 else (c, s)


# The quantile.

_PER_UNIT = 64
_DEEPEST = 36
"""The range of the tables; intervals with less probability than 2^-960 are refused (Φ(−36.3))."""
_TERMS = 18


class Truncation(NamedTuple):
    """An exact truncated normal: its parameters, and the exact probabilities as pairs."""

    mean: float
    std: float
    a: float
    b: float
    p: tuple[float, float]
    inside: tuple[float, float]
    q: tuple[float, float]
    half_difference: tuple[float, float]
    """(p − q) / 2; without it, probabilities next to the median would lose digits."""

    @classmethod
    def of(cls, mean: float, std: float, a: float, b: float) -> Truncation:
        """The exact law of these parameters; the standardised bounds are not rounded."""
        with mpmath.workdps(400):
            low, high = ((mpmath.mpf(bound) - mpmath.mpf(mean)) / mpmath.mpf(std) for bound in (a, b))
            p, q = _cdf(low), _cdf(-high)
            inside = 1 - p - q if low < 0 < high else (_cdf(high) - p if high <= 0 else _cdf(-low) - q)
            return cls(mean, std, a, b, *map(dd.pair, (p, inside, q, (p - q) / 2)))


def _cdf(x: mpmath.mpf) -> mpmath.mpf:
    return mpmath.erfc(-x / mpmath.sqrt(2)) / 2


@cache
def tables() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each node z_j = −j / 64: Φ (for j = 0, Φ − ½), and the coefficients of the powers of t.

    Φ(z_j + t) − Φ(z_j) = φ(z_j) · Σ (−1)^n He_n(z_j) t^(n+1) / (n+1)!, by Taylor's theorem.
    """
    nodes = _DEEPEST * _PER_UNIT + 2
    values, coefficients = np.empty((nodes, 2)), np.empty((nodes, _TERMS, 2))
    with mpmath.workdps(DIGITS):
        for j in range(nodes):
            z = -mpmath.mpf(j) / _PER_UNIT
            values[j] = dd.pair(_cdf(z) if j else mpmath.mpf(0))
            density = mpmath.npdf(z)
            before, hermite, factorial = mpmath.mpf(0), mpmath.mpf(1), mpmath.mpf(1)
            for n in range(_TERMS):
                factorial *= n + 1
                coefficients[j, n] = dd.pair((-1) ** n * density * hermite / factorial)
                before, hermite = hermite, z * hermite - n * before
    return values, coefficients


@_jit
def quantile_error(z, u, v, p, inside, q, half_difference, values, coefficients):  # type: ignore[no-untyped-def]
    """The distance of ``z`` above the exact quantile of p + u · inside, whose complement is q + v · inside.

    (Φ(z) − P) / φ(z), and Newton's next term; the remainder is of the order of the error's cube.
    """
    # the one above one half was rounded; it is exactly 1 minus the other
    below = (u, 0.0) if u < 0.5 else dd.two_sum(1.0, -v)
    above = (v, 0.0) if v < 0.5 else dd.two_sum(1.0, -u)
    upper = z > 0
    x = -z if upper else z
    j = int(np.rint(-x * 64.0))
    t = x + j / 64.0
    series = (0.0, 0.0)
    for n in range(18 - 1, -1, -1):
        series = dd.add(dd.multiply(series, (t, 0.0)), (coefficients[j, n, 0], coefficients[j, n, 1]))
    series = dd.add(dd.multiply(series, (t, 0.0)), (values[j, 0], values[j, 1]))
    if j == 0:
        # Φ(z) − ½ against P − ½ = (p − q) / 2 + (u − ½) · inside
        target = dd.add(half_difference, dd.multiply(inside, dd.add(below, (-0.5, 0.0))))
        if upper:
            target = (-target[0], -target[1])
    elif upper:
        target = dd.add(q, dd.multiply(inside, above))
    else:
        target = dd.add(p, dd.multiply(inside, below))
    excess = dd.add(series, (-target[0], -target[1]))
    error = (excess[0] + excess[1]) / (math.exp(-0.5 * x * x) * 0.3989422804014327)
    error = error + 0.5 * x * error * error
    return -error if upper else error


def exact_truncated(truncation: Truncation, draw: int, bits: int) -> mpmath.mpf:
    """The exact value of the law at (draw + ½) / 2^bits of the interval's probability."""
    with mpmath.workdps(400):
        u = (mpmath.mpf(draw) + 0.5) / 2**bits
        low, high = (
            (mpmath.mpf(bound) - mpmath.mpf(truncation.mean)) / mpmath.mpf(truncation.std)
            for bound in (truncation.a, truncation.b)
        )
        p, q = _cdf(low), _cdf(-high)
        inside = 1 - p - q if low < 0 < high else (_cdf(high) - p if high <= 0 else _cdf(-low) - q)
        below, above = p + u * inside, q + (1 - u) * inside
        tail = min(below, above)
    with mpmath.workdps(DIGITS):
        z = _lower_quantile(tail)
        return mpmath.mpf(truncation.mean) + mpmath.mpf(truncation.std) * (z if below < above else -z)


def _lower_quantile(tail: mpmath.mpf) -> mpmath.mpf:
    """Newton's method on ln Φ, starting from AS 241 of the standard library, or from the asymptotic tail."""
    from statistics import NormalDist  # noqa: PLC0415

    start = NormalDist().inv_cdf(float(tail)) if tail > 1e-300 else -float(mpmath.sqrt(-2 * mpmath.log(tail)))
    z = mpmath.mpf(start)
    for _ in range(60):
        cdf = _cdf(z)
        step = (mpmath.log(cdf) - mpmath.log(tail)) * cdf / mpmath.npdf(z)
        z -= step
        if abs(step) <= abs(z) * mpmath.mpf(10) ** (5 - DIGITS) + mpmath.mpf(10) ** -DIGITS:
            return z
    raise ArithmeticError(f"the quantile of {tail} was not found")
