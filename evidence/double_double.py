"""Pairs of float64 whose sum has some 100 bits (Dekker 1971), for Numba; relative errors stay below 2^-100.

These algorithms rely on Numba, which does not fuse multiply-add.
"""

from __future__ import annotations

import mpmath
from numba import njit

_jit = njit(nogil=True, error_model="numpy")

# ruff: noqa: ANN001, ANN201 - Numba infers the types


@_jit
def two_sum(a, b):  # type: ignore[no-untyped-def]
    """The sum a + b, exactly (Knuth)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


@_jit
def two_product(a, b):  # type: ignore[no-untyped-def]
    """The product a · b, exactly (Veltkamp's splitting), without overflow or underflow."""
    p = a * b
    t = 134217729.0 * a
    a_high = t - (t - a)
    a_low = a - a_high
    t = 134217729.0 * b
    b_high = t - (t - b)
    b_low = b - b_high
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


@_jit
def add(a, b):  # type: ignore[no-untyped-def]
    """The sum of two pairs."""
    s, e = two_sum(a[0], b[0])
    t, f = two_sum(a[1], b[1])
    s, e = two_sum(s, e + t)
    return two_sum(s, e + f)


@_jit
def multiply(a, b):  # type: ignore[no-untyped-def]
    """The product of two pairs."""
    p, e = two_product(a[0], b[0])
    return two_sum(p, e + (a[0] * b[1] + a[1] * b[0]))


def pair(x: mpmath.mpf) -> tuple[float, float]:
    """The pair nearest to a number.

    >>> with mpmath.workdps(50):
    ...     pair(mpmath.pi)
    (3.141592653589793, 1.2246467991473532e-16)
    """
    high = float(x)
    return high, float(x - mpmath.mpf(high))
