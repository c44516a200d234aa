"""A law's parameters, rounded to the type in which the law is computed.

The rounding is part of the guarantee (docs/stream-v1.md, “Laws”), so all backends share this module.
"""

from __future__ import annotations

import math
import struct
from decimal import Decimal, localcontext
from typing import NamedTuple

import numpy as np

from seedbed.v1 import DATA_TYPE_FLOAT64, DataType, Law, TensorDescription, TruncNormal

from . import dtypes
from .constants import NEAR_TAIL, SQRT_HALF
from .normal_cdf import interval_probabilities
from .stream import Purpose, name_hashed, stream_of

_LEAST_INSIDE32 = 2.0**-20
"""At this probability between the bounds, float64 locates the median to 2^-33 of their distance."""


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
    """A complex number of modulus ``radius * sqrt(u)`` in a random direction; ``radius`` is a float32 value."""

    radius: float


class DiskNormalParameters(NamedTuple):
    """``mean + std * z`` for each part of a complex number; words from ``lowest_word`` on give the modulus.

    ``std`` is the standard deviation of a part, and a float32 value.
    """

    mean: float
    std: float
    lowest_word: float


class TruncNormal32Parameters(NamedTuple):
    """A truncated normal in float32, with bounds on both sides of the mean (docs/stream-v1.md).

    Draws from ``median`` on are above the median. The probability of the nearer tail of draw ``w`` is
    ``p_first + step * w`` below the median and ``q_first + step * ~w`` above it. Twice the distance of its probability
    from one half is ``below + 2 * step * (median - 1 - w)`` or ``above + 2 * step * (w - median)``. ``std_rest`` and
    ``step_rest`` are the rounding errors of ``std`` and ``step``, rounded to float32.
    """

    mean: float
    std: float
    std_rest: float
    step: float
    step_rest: float
    p_first: float
    q_first: float
    below: float
    above: float
    lowest: float
    highest: float
    median: int
    is_near: bool
    """Whether the probability of both tails is at least NEAR_TAIL."""


Parameters = (
    UniformParameters
    | NormalParameters
    | TruncNormalParameters
    | TruncNormal32Parameters
    | DiskParameters
    | DiskNormalParameters
)


class SparseMask(NamedTuple):
    """The zeros of each column: row ``i`` is 0 if ``permutation(i) < zeros``."""

    rows: int
    columns: int
    zeros: int
    stream: int

    @property
    def bits(self) -> int:
        """The permutation acts on 2^bits positions; a position outside the rows is permuted again (cycle walking)."""
        bits = (self.rows - 1).bit_length()
        return 4 if bits == 3 else bits  # halves of 1 and 2 bits mix too little


def parameters_of(description: TensorDescription) -> Parameters:
    """The parameters of a described tensor, as by `law_parameters`."""
    return law_parameters(description.law, description.spec.dtype)


def law_parameters(law: Law, dtype: DataType) -> Parameters:
    """The parameters of a random elementwise law: uniform, normal, trunc_normal, disk, or the normal under sparse."""
    kind = law.WhichOneof("law")
    if kind == "uniform":
        a, b = law.uniform.a, law.uniform.b
        return UniformParameters(
            _base(a, dtype), _base(b - a, dtype), dtypes.at_least(a, dtype), dtypes.below(b, dtype)
        )
    if kind == "trunc_normal":
        return _truncated(law.trunc_normal, dtype)
    if kind == "disk":
        if not law.disk.HasField("std"):
            return DiskParameters(_base(law.disk.radius, dtype))
        lowest = _lowest_word(law.disk.radius / law.disk.std)
        return DiskNormalParameters(0.0, _base(law.disk.std * SQRT_HALF, dtype), float(lowest))
    if kind == "sparse":
        return NormalParameters(0.0, _base(law.sparse.std, dtype))
    return NormalParameters(_base(law.normal.mean, dtype), _base(law.normal.std, dtype))


def _truncated(law: TruncNormal, dtype: DataType) -> TruncNormalParameters | TruncNormal32Parameters:
    p, inside, q = interval_probabilities((law.a - law.mean) / law.std, (law.b - law.mean) / law.std)
    lowest, highest = dtypes.at_least(law.a, dtype), dtypes.at_most(law.b, dtype)
    exact = (0.5 - p) / inside * 2**32  # the number of draws below the median
    median = round(exact)
    if dtype == DATA_TYPE_FLOAT64 or not (_suits_float32(law, inside) and 0 < median < 2**32):
        return TruncNormalParameters(law.mean, law.std, p, inside, q, lowest, highest)
    step, off = inside * 2**-32, median - exact
    return TruncNormal32Parameters(
        mean=_nearest32(law.mean),
        std=_nearest32(law.std),
        std_rest=_nearest32(law.std - _nearest32(law.std)),
        step=_nearest32(step),
        step_rest=_nearest32(step - _nearest32(step)),
        p_first=_nearest32(p + step / 2),
        q_first=_nearest32(q + step / 2),
        below=_nearest32(step * (1 - 2 * off)),
        above=_nearest32(step * (1 + 2 * off)),
        lowest=lowest,
        highest=highest,
        median=median,
        is_near=p >= NEAR_TAIL and q >= NEAR_TAIL,
    )


def _suits_float32(law: TruncNormal, inside: float) -> bool:
    """Whether no intermediate underflows, which would cost precision and the signs of zeros."""
    smallest, largest = 2.0**-100, 2.0**100
    has_mean = law.mean == 0 or smallest <= abs(law.mean) <= largest
    return has_mean and smallest <= law.std <= largest and inside >= _LEAST_INSIDE32


def packed(parameters: Parameters) -> bytes:
    """A law's parameters as kernels read them: float64, except those of TruncNormal32Parameters, which are float32."""
    if isinstance(parameters, TruncNormal32Parameters):
        return struct.pack("=11fI", *parameters[:12])
    return struct.pack(f"={len(parameters)}d", *parameters)


def sparse_mask(description: TensorDescription) -> SparseMask:
    """The mask of a sparse tensor."""
    rows, columns = description.spec.shape
    zeros = math.ceil(description.law.sparse.sparsity * rows)
    return SparseMask(rows, columns, zeros, stream_of(name_hashed(description.spec), Purpose.SPARSE_MASK))


def permutation_mask(description: TensorDescription) -> SparseMask:
    """The permutation of a tensor's elements, as a mask of one column."""
    stream = stream_of(name_hashed(description.spec), Purpose.PERMUTATION)
    return SparseMask(math.prod(description.spec.shape), 1, 0, stream)


def _lowest_word(bound: float) -> int:
    """The lowest word for which the modulus of a standard complex normal is at most ``bound``.

    ``|z|^2 = -ln((w | 1) / 2^32)``, so that ``w | 1 >= 2^32 exp(-bound^2)``.
    """
    with localcontext(prec=60):
        return math.ceil(Decimal(-bound * bound).exp() * 2**32) & ~1


def _nearest32(value: float) -> float:
    return float(np.float32(value))


def _base(value: float, dtype: int) -> float:
    """Rounds to the type in which the law is computed: float64 for float64, else float32."""
    return value if dtype == DATA_TYPE_FLOAT64 else _nearest32(value)
