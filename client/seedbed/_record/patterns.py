"""Patterns in values that a model's code computes: a constant, the identity, or a constant but for one box."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from seedbed._record.boxes import box_by, whole
from seedbed._record.nodes import Boxes, Draw, Drawing, Full, Literal, Node
from seedbed._types import Array


def recognised(node: Literal, values: Array) -> Node:
    """Computed values as the pattern that they follow; all else as it is.

    Args:
        node: The node.
        values: Its values.
    """
    if not math.prod(node.shape) or (values.dtype.kind == "c" and bool((values.imag != 0).any())):
        return node
    ends = values.reshape(-1)[[0, -1]]
    if bool((values == ends[0]).all()):
        return Full(node.shape, node.dtype, float(ends[0].real))
    if values.ndim == 2 and np.array_equal(values, np.eye(*values.shape, dtype=values.dtype)):
        return Draw(node.shape, node.dtype, Drawing(None), "eye", {})
    for usual in ends:
        region = _bounding_box(values != usual)
        inside = values[region].reshape(-1)
        if bool((inside == inside[0]).all()):
            place = box_by(node.shape, lambda array, region=region: array[region])  # type: ignore[misc]
            around = Full(node.shape, node.dtype, float(usual.real))
            within = Full(place.shape, node.dtype, float(inside[0].real))
            return Boxes(node.shape, node.dtype, ((whole(node.shape), around), (place, within)))
    return node


def _bounding_box(mask: np.ndarray[Any, Any]) -> tuple[slice, ...]:
    slices = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        indices = np.nonzero(mask.any(axis=others))[0]
        slices.append(slice(int(indices[0]), int(indices[-1]) + 1))
    return tuple(slices)
