"""Fused multiply-adds round once: the reference against exact fractions, the compiled one against the reference."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba import njit, vectorize

from seedbed_server.engine.backends import numba_fma
from seedbed_server.engine.fma import fma

floats32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
floats64 = st.floats(allow_nan=False, allow_infinity=False)


@vectorize(["f4(f4, f4, f4)", "f8(f8, f8, f8)"])
def compiled(a, b, c):
    return numba_fma.fma(a, b, c)


def exactly(a: float, b: float, c: float, bits: int, smallest: int, largest: int) -> float:
    """a b + c rounded to nearest even with ``bits`` bits; subnormals are multiples of 2^smallest."""
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return a * b + c
    magnitude = abs(exact)
    exponent = max(magnitude.numerator.bit_length() - magnitude.denominator.bit_length() - bits - 1, smallest)
    while magnitude / Fraction(2) ** exponent >= 2**bits:
        exponent += 1
    rounded = round(magnitude / Fraction(2) ** exponent) * Fraction(2) ** exponent
    sign = -1.0 if exact < 0 else 1.0
    return sign * (float("inf") if rounded >= Fraction(2) ** largest else float(rounded))


def same(x, y) -> bool:
    return np.asarray(x).tobytes() == np.asarray(y).tobytes()


@settings(max_examples=500, deadline=None)
@given(floats32, floats32, floats32)
@example(1 + 2**-12, 1 + 2**-12, 2.0**-60)  # a tie of the sum in float64
@example(1 + 2**-23, 1 + 2**-23, -(2.0**-60))
@example(2.0**-100, 2.0**-40, -(2.0**-149))  # subnormal
@example(2.0**-100, -(2.0**-60), 0.0)
@example(0.0, -1.0, 0.0)
@example(0.0, -1.0, -0.0)
@example(3e38, 2.0, -3e38)
def test_float32(a: float, b: float, c: float) -> None:
    arguments = np.float32([a]), np.float32([b]), np.float32([c])
    expected = np.float32([exactly(a, b, c, 24, -149, 128)])
    assert same(fma(*arguments), expected)
    with np.errstate(over="ignore"):
        assert same(compiled(*arguments), expected)


@settings(max_examples=500, deadline=None)
@given(floats64, floats64, floats64)
@example(1 + 2**-27, 1 + 2**-27, 2.0**-120)
@example(1 + 2**-52, 1 + 2**-52, -(1 + 2**-51))
@example(1e-200, 1e-200, 5e-324)
@example(1e200, 1e200, -1e308)
@example(1e-300, -1e-300, 0.0)
@example(0.0, -1.0, -0.0)
def test_float64(a: float, b: float, c: float) -> None:
    arguments = np.float64([a]), np.float64([b]), np.float64([c])
    expected = np.float64([exactly(a, b, c, 53, -1074, 1024)])
    assert same(fma(*arguments), expected)
    with np.errstate(over="ignore"):
        assert same(compiled(*arguments), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_near_ties(dtype) -> None:
    """Summands that cancel most of the product, or far exceed it."""
    draw = np.random.default_rng(1)
    a, b = (draw.standard_normal(300_000).astype(dtype) for _ in range(2))
    for c in (-(a * b), a * b, draw.standard_normal(len(a)).astype(dtype) * dtype(2.0**-40), np.zeros_like(a)):
        assert same(fma(a, b, c), compiled(a, b, c))


def test_types_are_not_mixed() -> None:
    from numba.core.errors import TypingError

    with pytest.raises(TypingError):
        njit(lambda a, b: numba_fma.fma(a, b, 1.0))(np.float32(1), np.float32(2))
