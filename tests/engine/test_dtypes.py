"""The range of each element type, and rounding to its values from either side."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seedbed_server.engine import dtypes

from .strategies import real_dtypes as data_types


def next_value(value: float, towards: float, data_type: int) -> float:
    dtype = dtypes.numpy_dtype(data_type)
    with np.errstate(over="ignore"):
        return float(np.nextafter(dtype.type(value), dtype.type(towards)))


@given(data_types, st.floats(allow_nan=False, allow_infinity=False))
@example(3, 1.00390625 + 2.0**-40)  # just above a midpoint of bfloat16, to which float32 rounds it
@example(3, 1.01171875 - 2.0**-40)
def test_the_neighbours_of_a_value(data_type: int, value: float) -> None:
    largest = dtypes.largest(data_type)
    if value >= -largest:
        low = dtypes.at_most(value, data_type)
        assert low <= value
        assert next_value(low, math.inf, data_type) > value
    if value <= largest:
        high = dtypes.at_least(value, data_type)
        assert high >= value
        assert next_value(high, -math.inf, data_type) < value
    if -largest < value <= largest:
        below = dtypes.below(value, data_type)
        assert below < value <= next_value(below, math.inf, data_type)


@pytest.mark.parametrize("zeros", [(0.0, -0.0), (-0.0, 0.0)])
def test_zeros_are_positive_whichever_is_cached_first(zeros) -> None:
    dtypes.at_most.cache_clear()
    for zero in zeros:
        for bound in (dtypes.at_most, dtypes.at_least):
            assert math.copysign(1.0, bound(zero, 1)) == 1.0
