"""Complex tensors as float32 tensors with one more dimension, for the real and imaginary parts.

Element ``i`` of a complex tensor uses the words of elements ``2 i`` and ``2 i + 1`` of a float32 tensor, so code that
samples float32 also samples complex64.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from seedbed.v1 import DATA_TYPE_FLOAT32, Normal, TensorDescription

from . import dtypes
from .constants import SQRT_HALF
from .regions import Runs

DRAWN: Final = ("uniform", "normal", "disk")
"""The random laws of complex numbers."""


def is_drawn(description: TensorDescription) -> bool:
    """Whether a tensor is complex and random."""
    return dtypes.is_complex(description.spec.dtype) and description.law.WhichOneof("law") in DRAWN


def as_floats(description: TensorDescription) -> TensorDescription:
    """A tensor for which `is_drawn` holds, as a float32 tensor.

    >>> from seedbed.v1 import DATA_TYPE_COMPLEX64, TensorSpec
    >>> from .spec import describe
    >>> complex64 = describe(TensorSpec(shape=[3, 4], dtype=DATA_TYPE_COMPLEX64, normal=Normal()))
    >>> float32 = as_floats(complex64)
    >>> float32.spec.shape, float32.element_count, float32.law.normal.std
    ([3, 4, 2], 24, 0.7071067811865476)
    """
    floats = TensorDescription()
    floats.CopyFrom(description)
    floats.spec.dtype = DATA_TYPE_FLOAT32
    floats.spec.shape.append(2)
    floats.region.start.append(0)
    floats.region.stop.append(2)
    floats.element_count *= 2
    law = floats.law
    if law.HasField("normal"):  # half of the variance for each part
        law.normal.CopyFrom(Normal(mean=law.normal.mean, std=law.normal.std * SQRT_HALF))
    return floats


def runs_of_floats(elements: Runs) -> Runs:
    """The runs of floats that runs of complex elements consist of."""
    return 2 * elements[0], 2 * elements[1]


def floats_of(values: NDArray[Any]) -> NDArray[np.float32]:
    """A view of complex numbers as floats."""
    return values.view(np.float32)
