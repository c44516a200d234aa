"""Fused multiply-add in NumPy: a b + c, rounded once (IEEE 754, fusedMultiplyAdd).

The laws specify its use (docs/stream-v1.md). This is the slow, exact reference. The compiled backends use the
processor's instruction; IEEE 754 defines its result uniquely.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .doubles import F64, two_product, two_sum

Floats = NDArray[Any]

_SMALLEST_NORMAL32 = 2.0**-126
_SAFE = 2.0**-450, 2.0**450
"""Between these magnitudes, or at 0, the rounding errors of products and sums are representable in float64."""


def fma(a: Floats, b: Floats | np.floating[Any], c: Floats | np.floating[Any]) -> Floats:
    """``a * b + c`` of finite float32 or float64, rounded once, in the type of ``a``.

    >>> x = np.float32([1 + 2**-12])
    >>> fma(x, x, np.float32(-1)) == x * x - np.float32(1)  # without fma the product is rounded
    array([False])
    """
    if a.dtype == np.float32:
        return _fma32(a, b, c)
    return _fma64(*np.broadcast_arrays(a, b, c))


def _fma32(a: Floats, b: Floats | np.floating[Any], c: Floats | np.floating[Any]) -> Floats:
    """Through float64, which represents the product exactly."""
    product, summand = np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64)
    total = product + summand
    # The second rounding matters only if the first one ended half-way between two float32.
    is_tie = total.view(np.uint64) & np.uint64((1 << 29) - 1) == np.uint64(1 << 28)
    is_tie |= np.abs(total) < _SMALLEST_NORMAL32
    if is_tie.any():
        product, summand = (part[is_tie] for part in np.broadcast_arrays(product, summand))
        total[is_tie] = _rounded_to_odd(product, summand)
    with np.errstate(over="ignore"):
        return total.astype(np.float32)


def _fma64(a: F64, b: F64, c: F64) -> F64:
    """Boldo and Melquiond, Emulation of FMA and Correctly Rounded Sums: Proved Algorithms Using Rounding to Odd."""
    is_safe = _is_safe(a) & _is_safe(b) & _is_safe(c)
    if not is_safe.all():
        result = np.empty(a.shape)
        result[is_safe] = _fma64(a[is_safe], b[is_safe], c[is_safe])
        result[~is_safe] = [_exactly(*each) for each in zip(a[~is_safe], b[~is_safe], c[~is_safe], strict=True)]
        return result
    high, low = two_product(a, b)
    sum_high, sum_low = two_sum(c, low)
    total, rest = two_sum(high, sum_high)
    result = total + _rounded_to_odd(sum_low, rest)
    # The sign of 0 + 0 is that of c, unless the product is a zero of the other sign.
    return np.where((high == 0) & (c == 0), a * b + c, result)


def _is_safe(x: F64) -> NDArray[np.bool_]:
    magnitude = np.abs(x)
    is_safe: NDArray[np.bool_] = (magnitude == 0) | ((magnitude > _SAFE[0]) & (magnitude < _SAFE[1]))
    return is_safe


def _exactly(a: float, b: float, c: float) -> float:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return float(a) * float(b) + float(c)
    try:
        return exact.numerator / exact.denominator  # int / int is correctly rounded
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")


def _rounded_to_odd(a: F64, b: F64) -> F64:
    """The sum if it is exact, else the neighbour of it whose last bit is 1."""
    total, error = two_sum(a, b)
    is_even = total.view(np.uint64) & np.uint64(1) == 0
    towards = np.where(error > 0, np.inf, -np.inf)
    return np.where((error != 0) & is_even, np.nextafter(total, towards), total)
