"""Fans: the numbers of inputs and outputs of a unit, computed from the global shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .errors import InvalidSpec


def torch_fans(shape: Sequence[int], field: str) -> tuple[int, int]:
    """``(fan_in, fan_out)`` of a weight in torch's layout, ``(out, in, *kernel)``.

    Raises:
        InvalidSpec: The shape has fewer than 2 dimensions.

    >>> torch_fans((64, 3, 7, 7), "spec.shape")
    (147, 3136)
    """
    if len(shape) < 2:
        raise InvalidSpec(
            field,
            "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions; "
            f"this one has {len(shape)}: give 2 or more, or use a scheme without fans",
        )
    receptive_field = math.prod(shape[2:])
    return shape[1] * receptive_field, shape[0] * receptive_field


def variance_scaling_fans(
    shape: Sequence[int], in_axes: Sequence[int], out_axes: Sequence[int], batch_axes: Sequence[int]
) -> tuple[int, int]:
    """``(fan_in, fan_out)`` as ``jax.nn.initializers`` computes them, for non-negative axes.

    >>> variance_scaling_fans((7, 7, 3, 64), [2], [3], [])
    (147, 3136)
    """
    named = {*in_axes, *out_axes, *batch_axes}
    receptive_field = math.prod(size for axis, size in enumerate(shape) if axis not in named)
    in_size = math.prod(shape[axis] for axis in in_axes)
    out_size = math.prod(shape[axis] for axis in out_axes)
    return in_size * receptive_field, out_size * receptive_field
