"""Derives the coefficients of engine/constants.py by fitting them again.

In float64, polynomials interpolate the function at Chebyshev's nodes of [0, 1], computed with 80 digits and rounded.
In float32, rounding a coefficient costs more than a better fit gains. So the coefficients are rounded one by one,
lowest power first, and each time the others are fitted again. Each fit minimises the largest weighted error, by least
squares whose weights grow where the error is large (Lawson 1961).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import mpmath
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from seedbed_server.engine import constants

F64 = NDArray[np.float64]

NODES = 3000
DIGITS = 80
_TERMS = 60
"""Terms of a series, which converges at least as fast as that of -2 ln(1 - h / 2) at h = 1."""


class Fit32(NamedTuple):
    """A polynomial in ``x - centre`` for ``x`` in [a, b], with float32 coefficients."""

    target: Callable[[F64], F64]
    """The function to approximate."""
    weight: Callable[[F64], F64]
    """The factor of the errors in the fit."""
    a: float
    b: float
    degree: int
    measure: Callable[[F64], F64]
    """The factor of the errors in the output."""
    centre: float = 0.0
    in_ulp: bool = False
    """Whether this gives ulp, or else relative errors."""
    rounds: int = 80
    """Iterations of the weights."""


class Fit64(NamedTuple):
    """A polynomial on [0, 1], with float64 coefficients; `measure` gives relative errors."""

    target: Callable[[mpmath.mpf], mpmath.mpf]
    measure: Callable[[mpmath.mpf], mpmath.mpf]
    degree: int


def _series(coefficients: list[mpmath.mpf]) -> Callable[[F64], F64]:
    """A power series, lowest power first, evaluated in float64."""
    rounded = [float(c) for c in coefficients]
    return lambda x: np.asarray(np.polynomial.polynomial.polyval(x, rounded), np.float64)


def _rounded(x: mpmath.mpf) -> float:
    return float(np.float32(float(x)))


def _ulp32(y: F64) -> F64:
    return np.asarray(2.0 ** (np.floor(np.log2(y)) - 23))


def _middle_series(slope: mpmath.mpf) -> list[mpmath.mpf]:
    """The quantile of (1 + x) / 2, divided by x, in powers of x^2 (Carlitz, The Inverse of the Error Function, 1963).

    The quantile is √2 erfinv(x), and erfinv(x) = Σ c_k / (2 k + 1) (√π x / 2)^(2 k + 1).
    """
    c = [mpmath.mpf(1)]
    for k in range(1, 80):
        c.append(mpmath.fsum(c[m] * c[k - 1 - m] / ((m + 1) * (2 * m + 1)) for m in range(k)))
    return [slope * c[k] / (2 * k + 1) * (mpmath.pi / 4) ** k for k in range(len(c))]


@cache
def _fits32() -> dict[str, Fit32]:
    with mpmath.workdps(DIGITS):
        quarter_pi, slope = mpmath.pi / 4, mpmath.sqrt(mpmath.pi / 2)
        log = [mpmath.mpf(2) / (n * mpmath.mpf(2) ** n) for n in range(2, _TERMS)]
        sine = [(-1) ** n * quarter_pi ** (2 * n + 1) / mpmath.factorial(2 * n + 1) for n in range(13)]
        sine[0] -= _rounded(quarter_pi)
        cosine = [(-1) ** n * quarter_pi ** (2 * n) / mpmath.factorial(2 * n) for n in range(1, 14)]
        middle = _middle_series(slope)
        middle[0] -= _rounded(slope)
    sine_of, middle_of = _series(sine), _series(middle)

    def middle_over_x(v: F64) -> F64:
        return middle_of(v) + _rounded(slope)

    def near(r: F64) -> F64:
        return np.asarray(-ndtri(r * r))

    def far(s: F64) -> F64:
        return np.asarray(-ndtri(np.exp(-s * s / 2)))

    def of_sine(v: F64) -> F64:
        return 1 / (sine_of(v) + _rounded(quarter_pi))

    def of_cosine(v: F64) -> F64:
        return np.asarray(v / np.cos(np.pi / 4 * np.sqrt(v)), np.float64)

    def of_log(h: F64) -> F64:
        return np.asarray(h**2 / (-2 * np.log1p(-h / 2)))

    first, last = (math.sqrt(-2 * math.log(tail)) for tail in (constants.MIDDLE_FROM32, 2.0**-34))
    return {
        "LOG32": Fit32(_series(log), of_log, 1e-5, 1.0, 8, of_log),
        "SIN32": Fit32(sine_of, of_sine, 1e-7, 1.0, 3, of_sine),
        "COS32": Fit32(_series(cosine), of_cosine, 1e-7, 1.0, 3, of_cosine),
        "MIDDLE32": Fit32(
            middle_of,
            lambda v: 1 / middle_over_x(v),
            1e-7,
            (1 - 2 * constants.MIDDLE_FROM32) ** 2 * 1.0005,
            7,
            lambda v: np.sqrt(v) / _ulp32(np.sqrt(v) * middle_over_x(v)),
            in_ulp=True,
        ),
        "NEAR32": Fit32(
            near,
            lambda r: 1 / _ulp32(near(r)),
            math.sqrt(constants.NEAR_TAIL),
            math.sqrt(constants.MIDDLE_FROM32) + 1e-6,
            10,
            lambda r: 1 / _ulp32(near(r)),
            constants.NEAR_CENTRE32,
            in_ulp=True,
            rounds=60,
        ),
        "FAR32": Fit32(
            far,
            lambda s: 1 / _ulp32(far(s)),
            first - 1e-6,
            last + 1e-6,
            12,
            lambda s: 1 / _ulp32(far(s)),
            constants.FAR_CENTRE32,
            in_ulp=True,
            rounds=60,
        ),
    }


def _fits64() -> dict[str, Fit64]:
    with mpmath.workdps(DIGITS):
        quarter_pi = mpmath.pi / 4
        high = mpmath.mpf(float(quarter_pi))

    def log(h: mpmath.mpf) -> mpmath.mpf:
        return -2 * mpmath.log1p(-h / 2)

    def sine(v: mpmath.mpf) -> mpmath.mpf:
        return mpmath.sin(quarter_pi * mpmath.sqrt(v)) / mpmath.sqrt(v)

    def cosine(v: mpmath.mpf) -> mpmath.mpf:
        return mpmath.cos(quarter_pi * mpmath.sqrt(v))

    return {
        "LOG64": Fit64(lambda h: (log(h) - h) / h**2, lambda h: h**2 / log(h), 19),
        "SIN64": Fit64(lambda v: sine(v) - high, lambda v: 1 / sine(v), 6),
        "COS64": Fit64(lambda v: (cosine(v) - 1) / v, lambda v: v / cosine(v), 6),
    }


NAMES = ("LOG32", "LOG64", "SIN32", "COS32", "SIN64", "COS64", "MIDDLE32", "NEAR32", "FAR32")


def fitted(name: str) -> tuple[float, ...]:
    """The coefficients, highest power first."""
    return _fitted64(_fits64()[name]) if name.endswith("64") else _fitted32(_fits32()[name])


def is_constant(name: str, coefficients: tuple[float, ...]) -> bool:
    """Whether the coefficients are those of engine/constants.py."""
    return list(map(scalar(name), coefficients)) == list(map(scalar(name), getattr(constants, name)))


def error(name: str, coefficients: tuple[float, ...]) -> float:
    """The largest error of a polynomial with these coefficients: relative, or in ulp for the quantile."""
    if name.endswith("64"):
        of64 = _fits64()[name]
        with mpmath.workdps(DIGITS):
            points = [mpmath.mpf(k) / 400 for k in range(1, 400)]
            return float(max(abs(mpmath.polyval(coefficients, x) - of64.target(x)) * of64.measure(x) for x in points))
    fit = _fits32()[name]
    x = _nodes(fit.a, fit.b, 10 * NODES)
    exactly = [float(np.float32(c)) for c in coefficients]
    return float(np.abs((np.polyval(exactly, x - fit.centre) - fit.target(x)) * fit.measure(x)).max())


def scalar(name: str) -> type[np.float32] | type[np.float64]:
    """The type of the coefficients."""
    return np.float64 if name.endswith("64") else np.float32


def shortest(name: str) -> Callable[[float], str]:
    """Formats a coefficient with the fewest digits."""
    return lambda coefficient: str(np.format_float_scientific(scalar(name)(coefficient)))


def error_text(name: str, largest: float) -> str:
    """Formats an error, such as 2^-28.1 or 0.6 ulp."""
    in_ulp = not name.endswith("64") and _fits32()[name].in_ulp
    return f"{largest:.2f} ulp" if in_ulp else f"2^{math.log2(largest):.1f}"


def _nodes(a: float, b: float, count: int) -> F64:
    """Chebyshev's nodes."""
    return np.asarray((a + b) / 2 + (b - a) / 2 * np.cos(np.pi * (np.arange(count) + 0.5) / count))


def _fitted32(fit: Fit32) -> tuple[float, ...]:
    x = _nodes(fit.a, fit.b, NODES)
    weight, rest = fit.weight(x), fit.target(x)
    scale = max(fit.b - fit.centre, fit.centre - fit.a) if fit.centre else 1.0
    powers = np.vander((x - fit.centre) / scale, fit.degree + 1, increasing=True)
    coefficients: list[float] = []
    for k in range(fit.degree + 1):
        best = _smallest_largest_error(powers[:, k:], rest, weight, fit.rounds)
        coefficients.append(float(np.float32(best[0] / scale**k)))
        rest = rest - coefficients[-1] * scale**k * powers[:, k]
    return tuple(reversed(coefficients))


def _smallest_largest_error(powers: F64, values: F64, weight: F64, rounds: int) -> F64:
    share = np.ones(len(values))
    least = math.inf
    best: F64 = np.zeros(powers.shape[1])
    for _ in range(rounds):
        root = np.sqrt(share) * weight
        found = np.asarray(np.linalg.lstsq(powers * root[:, None], values * root, rcond=None)[0], np.float64)
        errors = np.abs((powers @ found - values) * weight)
        largest = float(errors.max())
        if largest < least:
            least, best = largest, found
        share *= errors / largest + 1e-4
        share /= share.max()
    return best


def _fitted64(fit: Fit64) -> tuple[float, ...]:
    count = fit.degree + 1
    with mpmath.workdps(DIGITS):
        nodes = [(1 + mpmath.cos(mpmath.pi * (k + mpmath.mpf(1) / 2) / count)) / 2 for k in range(count)]
        powers = mpmath.matrix([[x**k for k in range(count)] for x in nodes])
        found = mpmath.lu_solve(powers, mpmath.matrix([fit.target(x) for x in nodes]))
        return tuple(float(c) for c in reversed(list(found)))
