"""Requests, validated and resolved: the only way into the engine."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

from seedbed.v1 import DATA_TYPE_FLOAT32, DATA_TYPE_FLOAT64, DataType, Law, Region, TensorDescription, TensorSpec

from . import dtypes
from .errors import InvalidSpec
from .normal_cdf import interval_probabilities
from .patches import MAX_PATCHES
from .schemes import Shape, resolve
from .stream import stream_of

ALGORITHM_VERSIONS = (1,)
"""Every version of the stream that this engine serves, oldest first (docs/stream-v1.md)."""

MAX_DIMENSIONS = 64
_INT64_MAX = 2**63 - 1

# How far, in standard deviations, the normal law reaches: sqrt(2 ln 2^32) and sqrt(2 ln 2^53), rounded up.
_REACH = {DATA_TYPE_FLOAT64: 8.58}
_REACH_FLOAT32 = 6.67

_LEAST_PROBABILITY = 2.0**-960
"""The quantile of the last of 2^54 draws within bounds this improbable is still a normal float64."""


def describe(spec: TensorSpec, region: Region | None = None, prefix: str = "") -> TensorDescription:
    """Validates a request and tells what it resolves to; every sample is then a function of the answer alone.

    Args:
        spec: The tensor.
        region: The part wanted; all of it by default.
        prefix: What the field paths of errors begin with, such as ``tensors[3].``.

    Raises:
        InvalidSpec: If anything about the request cannot be served; names the field, the value and the remedy.

    >>> from seedbed.v1 import Normal
    >>> description = describe(TensorSpec(name="w", shape=[4, 4], normal=Normal(std=0.02)))
    >>> description.element_count, description.byte_count, description.law.normal.std
    (16, 64, 0.02)
    """
    full = TensorSpec()
    full.CopyFrom(spec)
    full.dtype = _dtype(spec, prefix)
    full.algorithm_version = _algorithm_version(spec, prefix)
    itemsize = dtypes.numpy_dtype(full.dtype).itemsize
    shape = spec.shape[:]
    _check_shape(shape, itemsize, f"{prefix}spec.shape")
    resolution = resolve(full, prefix)
    if 0 not in shape:
        _check_range(resolution.law, full, prefix)
    _check_patches(full, prefix)
    part = _region(region, shape, f"{prefix}region")
    element_count = math.prod(map(operator.sub, part.stop[:], part.start[:]))
    return TensorDescription(
        spec=full,
        region=part,
        law=resolution.law,
        fan_in=resolution.fan_in,
        fan_out=resolution.fan_out,
        gain=resolution.gain,
        stream=stream_of(spec.name),
        element_count=element_count,
        byte_count=element_count * itemsize,
    )


def _dtype(spec: TensorSpec, prefix: str) -> DataType:
    dtype = spec.dtype or DATA_TYPE_FLOAT32
    if not dtypes.is_known(dtype):
        raise InvalidSpec(
            f"{prefix}spec.dtype", f"unknown dtype {dtype}; use one of float32, float16, bfloat16, float64"
        )
    return dtype


def _algorithm_version(spec: TensorSpec, prefix: str) -> int:
    version = spec.algorithm_version or ALGORITHM_VERSIONS[-1]
    if version not in ALGORITHM_VERSIONS:
        served = ", ".join(map(str, ALGORITHM_VERSIONS))
        raise InvalidSpec(
            f"{prefix}spec.algorithm_version", f"version {version} is not served here; use 0 for the newest of {served}"
        )
    return version


def _check_shape(shape: Shape, itemsize: int, field: str) -> None:
    if len(shape) > MAX_DIMENSIONS:
        raise InvalidSpec(field, f"{len(shape)} dimensions are over the limit of {MAX_DIMENSIONS}; give fewer")
    for axis, size in enumerate(shape):
        if size < 0:
            raise InvalidSpec(f"{field}[{axis}]", f"{size} is negative; give 0 or more")
    # Sizes of 0 are passed over, so that fans and strides of empty tensors stay within 64 bits too.
    elements = math.prod(filter(None, shape))
    if elements * itemsize > _INT64_MAX:
        unit = "elements" if elements > _INT64_MAX else "bytes"
        raise InvalidSpec(field, f"{shape} has more than 2^63 - 1 {unit}; give a smaller shape")


def _region(region: Region | None, shape: Shape, field: str) -> Region:
    if region is None:
        return Region(start=[0] * len(shape), stop=shape)
    for bound in ("start", "stop"):
        if (rank := len(getattr(region, bound))) != len(shape):
            raise InvalidSpec(
                f"{field}.{bound}", f"has {rank} dimensions, the shape has {len(shape)}; give one number for each"
            )
    for axis, (start, stop, size) in enumerate(zip(region.start, region.stop, shape, strict=True)):
        if start > stop:
            raise InvalidSpec(f"{field}.start[{axis}]", f"start {start} is after stop {stop}; exchange them")
        if start < 0:
            raise InvalidSpec(f"{field}.start[{axis}]", f"{start} is negative; give 0 or more")
        if stop > size:
            raise InvalidSpec(f"{field}.stop[{axis}]", f"{stop} is outside the dimension's size {size}")
    return region


def _check_patches(spec: TensorSpec, prefix: str) -> None:
    if len(spec.patches) > MAX_PATCHES:
        raise InvalidSpec(
            f"{prefix}spec.patches", f"{len(spec.patches)} are over the limit of {MAX_PATCHES}; give fewer, larger ones"
        )
    for index, patch in enumerate(spec.patches):
        field = f"{prefix}spec.patches[{index}]"
        if not patch.HasField("region"):
            raise InvalidSpec(f"{field}.region", "is missing; set the part that has the value")
        _region(patch.region, spec.shape[:], f"{field}.region")
        if not math.isfinite(patch.val):
            raise InvalidSpec(f"{field}.val", f"{patch.val} is not finite; give a finite number")
        _check_holds(patch.val, spec, f"{field}.val")


def _check_range(law: Law, spec: TensorSpec, prefix: str) -> None:
    """Refuses what the dtype cannot hold."""
    kind = law.WhichOneof("law")
    field = f"{prefix}spec.{spec.WhichOneof('scheme')}"
    if kind == "constant":
        _check_holds(law.constant.val, spec, field)
    elif kind == "uniform":
        _check_bounds(law.uniform.a, law.uniform.b, dtypes.below, spec, field)
        _check_holds(law.uniform.b - law.uniform.a, spec, field, "the width b - a")
    elif kind == "normal":
        _check_reach(abs(law.normal.mean), law.normal.std, spec, field)
    elif kind == "sparse":
        _check_reach(0.0, law.sparse.std, spec, field)
    elif kind == "trunc_normal":
        _check_trunc_normal(law, spec, field)
    elif kind == "orthogonal":
        _check_holds(law.orthogonal.gain, spec, field)


def _check_trunc_normal(law: Law, spec: TensorSpec, field: str) -> None:
    trunc = law.trunc_normal
    _check_bounds(trunc.a, trunc.b, dtypes.at_most, spec, field)
    alpha, beta = (trunc.a - trunc.mean) / trunc.std, (trunc.b - trunc.mean) / trunc.std
    if interval_probabilities(alpha, beta)[1] < _LEAST_PROBABILITY:
        raise InvalidSpec(
            field,
            f"a normal of mean {trunc.mean} and std {trunc.std} is never within [{trunc.a}, {trunc.b}], which is "
            f"{min(abs(alpha), abs(beta)):.3g} standard deviations away or too narrow; move the bounds or use uniform",
        )


def _check_bounds(a: float, b: float, greatest: Callable[[float, int], float], spec: TensorSpec, field: str) -> None:
    _check_holds(a, spec, field)
    _check_holds(b, spec, field)
    if dtypes.at_least(a, spec.dtype) > greatest(b, spec.dtype):
        raise InvalidSpec(field, f"no {_name(spec.dtype)} lies between {a} and {b}; use a wider range or dtype")


def _check_reach(mean: float, std: float, spec: TensorSpec, field: str) -> None:
    _check_holds(mean + _REACH.get(spec.dtype, _REACH_FLOAT32) * std, spec, field, "the largest value, up to")


def _check_holds(value: float, spec: TensorSpec, field: str, what: str = "the value") -> None:
    largest = dtypes.largest(spec.dtype)
    if not abs(value) <= largest:
        raise InvalidSpec(
            field,
            f"{what} {value} is beyond {largest}, the largest {_name(spec.dtype)}; use smaller parameters or float64",
        )


def _name(dtype: int) -> str:
    return str(dtypes.numpy_dtype(dtype))
