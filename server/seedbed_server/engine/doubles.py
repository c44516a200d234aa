"""Error-free transformations: sums and products of float64 as a rounded value and its exact rounding error.

Dekker, A Floating-Point Technique for Extending the Available Precision (1971); Knuth, The Art of Computer Programming,
volume 2, section 4.2.2. A pair ``high, low`` stands for the unevaluated sum ``high + low``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Pair = tuple[F64, F64]

_SPLITTER = 2.0**27 + 1


def two_sum(a: F64, b: F64) -> Pair:
    """The sum and its rounding error (Knuth)."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def fast_two_sum(a: F64, b: F64) -> Pair:
    """As `two_sum`, where ``|a| >= |b|`` or ``a`` is 0 (Dekker)."""
    total = a + b
    return total, b - (total - a)


def two_product(a: F64, b: F64) -> Pair:
    """The product and its rounding error (Dekker)."""
    product = a * b
    (a1, a2), (b1, b2) = _split(a), _split(b)
    return product, ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2


def _split(a: F64) -> Pair:
    """Two halves of at most 26 bits each (Veltkamp)."""
    scaled = a * _SPLITTER
    high = scaled - (scaled - a)
    return high, a - high
