"""A law's parameters as the kernels take them: rounded to the type that the law computes in.

The rounding is part of the guarantee (docs/stream-v1.md, «Laws»), so it is done here, once for all backends.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from typing import NamedTuple

import numpy as np

from seedbed.v1 import DATA_TYPE_FLOAT64, TensorDescription

from . import dtypes
from .normal_cdf import interval_probabilities
from .pairs import SQRT_HALF
from .stream import Purpose, name_hashed, stream_of


class UniformParameters(NamedTuple):
    """``min(max(a + width * u, lowest), highest)``; ``a`` and ``width`` are float32 values unless dtype is float64."""

    a: float
    width: float
    lowest: float
    highest: float


class NormalParameters(NamedTuple):
    """``mean + std * z``; float32 values unless dtype is float64."""

    mean: float
    std: float


class TruncNormalParameters(NamedTuple):
    """``mean + std * quantile(p_below + inside * u)`` in float64, kept within ``lowest .. highest``."""

    mean: float
    std: float
    p_below: float
    inside: float
    p_above: float
    lowest: float
    highest: float


class DiskParameters(NamedTuple):
    """A complex number ``radius * sqrt(u)`` in a direction; a float32 value."""

    radius: float


class DiskNormalParameters(NamedTuple):
    """``mean + std * z`` of a complex number's parts, whose modulus comes of words from the lowest on.

    ``std`` is a float32 value, and that of a part.
    """

    mean: float
    std: float
    lowest_word: float


Parameters = UniformParameters | NormalParameters | TruncNormalParameters | DiskParameters | DiskNormalParameters


class SparseMask(NamedTuple):
    """Which elements of each column are 0: row ``i`` is, if ``permutation(i) < zeros``."""

    rows: int
    columns: int
    zeros: int
    stream: int

    @property
    def bits(self) -> int:
        """The permutation is that of 2^bits positions, walked on until it comes back among the rows."""
        bits = (self.rows - 1).bit_length()
        return 4 if bits == 3 else bits  # halves of 1 and 2 bits mix too slowly


def parameters_of(description: TensorDescription) -> Parameters:
    """The parameters of a random elementwise law: uniform, normal, trunc_normal, disk, or the normal under sparse."""
    law, dtype = description.law, description.spec.dtype
    kind = law.WhichOneof("law")
    if kind == "uniform":
        a, b = law.uniform.a, law.uniform.b
        return UniformParameters(
            _base(a, dtype), _base(b - a, dtype), dtypes.at_least(a, dtype), dtypes.below(b, dtype)
        )
    if kind == "trunc_normal":
        trunc = law.trunc_normal
        probabilities = interval_probabilities((trunc.a - trunc.mean) / trunc.std, (trunc.b - trunc.mean) / trunc.std)
        return TruncNormalParameters(
            trunc.mean, trunc.std, *probabilities, dtypes.at_least(trunc.a, dtype), dtypes.at_most(trunc.b, dtype)
        )
    if kind == "disk":
        if not law.disk.HasField("std"):
            return DiskParameters(_base(law.disk.radius, dtype))
        lowest = _lowest_word(law.disk.radius / law.disk.std)
        return DiskNormalParameters(0.0, _base(law.disk.std * SQRT_HALF, dtype), float(lowest))
    if kind == "sparse":
        return NormalParameters(0.0, _base(law.sparse.std, dtype))
    return NormalParameters(_base(law.normal.mean, dtype), _base(law.normal.std, dtype))


def sparse_mask(description: TensorDescription) -> SparseMask:
    """The mask of a sparse tensor."""
    rows, columns = description.spec.shape
    zeros = math.ceil(description.law.sparse.sparsity * rows)
    return SparseMask(rows, columns, zeros, stream_of(name_hashed(description.spec), Purpose.SPARSE_MASK))


def permutation_mask(description: TensorDescription) -> SparseMask:
    """The permutation of a tensor's elements: that of a mask of one column."""
    stream = stream_of(name_hashed(description.spec), Purpose.PERMUTATION)
    return SparseMask(math.prod(description.spec.shape), 1, 0, stream)


def _lowest_word(bound: float) -> int:
    """The first of the words whose modulus, of a standard complex normal, is at most this.

    ``|z|^2 = -ln((w + 1) / 2^32)``, so that ``w + 1 >= 2^32 exp(-bound^2)``.
    """
    with localcontext(prec=60):
        return max(math.ceil(Decimal(-bound * bound).exp() * 2**32) - 1, 0)


def _base(value: float, dtype: int) -> float:
    """Rounds to the type that the law computes in: float64 for float64, float32 for all others."""
    return value if dtype == DATA_TYPE_FLOAT64 else float(np.float32(value))
