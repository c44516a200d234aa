"""Requests, validated and resolved: the only way into the engine."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import lru_cache

from seedbed.v1 import DATA_TYPE_FLOAT32, DATA_TYPE_FLOAT64, DataType, Law, Region, TensorDescription, TensorSpec

from . import delta, dtypes, recipes
from .constants import SQRT_HALF
from .errors import InvalidSpec
from .normal_cdf import interval_probabilities
from .regions import check_region
from .schemes import Resolution, Shape, resolve
from .stream import name_hashed, stream_of
from .views import check_dimensions

ALGORITHM_VERSIONS = (1,)
"""Every version of the stream that this engine serves, oldest first (docs/stream-v1.md)."""

_INT64_MAX = 2**63 - 1

# How far, in standard deviations, the normal law reaches: sqrt(2 ln 2^32) and sqrt(2 ln 2^64), rounded up.
_REACH = {DATA_TYPE_FLOAT64: 9.42}
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
    if spec.WhichOneof("scheme") in recipes.KINDS:
        return _described(spec, region, f"{prefix}spec", f"{prefix}region").description
    try:
        alike = _without_stream(spec).SerializeToString()
        shared = _description_alike(alike, None if region is None else region.SerializeToString())
    except InvalidSpec:  # to be told with this request's own fields
        return _described(spec, region, f"{prefix}spec", f"{prefix}region").description
    description = TensorDescription()
    description.CopyFrom(shared)
    full = description.spec
    full.name, full.seed, full.stream = spec.name, spec.seed, spec.stream
    description.stream = stream_of(name_hashed(spec))
    return description


def _without_stream(spec: TensorSpec) -> TensorSpec:
    """What tensors of one shape and law have in common: all but what selects their random words."""
    alike = TensorSpec()
    alike.CopyFrom(spec)
    alike.name, alike.seed, alike.stream = "", 0, ""
    return alike


@lru_cache(maxsize=1024)
def _description_alike(spec: bytes, region: bytes | None) -> TensorDescription:
    part = None if region is None else Region.FromString(region)
    return _described(TensorSpec.FromString(spec), part, "spec", "region").description


def plan_of(description: TensorDescription) -> recipes.Plan:
    """What a described tensor of `recipes.KINDS` is made of."""
    return _plan_of(description.spec.SerializeToString(deterministic=True))


@lru_cache(maxsize=16)  # limits ask for it, and who samples
def _plan_of(serialized: bytes) -> recipes.Plan:
    spec = TensorSpec.FromString(serialized)
    return recipes.resolve(recipes.named(spec, "spec"), "spec", _described_within)


def whole_elements(description: TensorDescription) -> int:
    """How many elements are computed whatever the region: of orthogonal matrices, and an eighth of what is reduced."""
    law = description.law.WhichOneof("law")
    if law not in recipes.KINDS:
        return math.prod(description.spec.shape) if law == "orthogonal" else 0
    return recipes.whole_elements(recipes.Inner(description, plan_of(description)))


def _described_within(spec: TensorSpec, field: str) -> recipes.Inner:
    return _described(spec, None, field, f"{field}.region")


def _described(spec: TensorSpec, region: Region | None, field: str, region_field: str) -> recipes.Inner:
    full = TensorSpec()
    full.CopyFrom(spec)
    full.dtype = _dtype(spec, field)
    full.algorithm_version = _algorithm_version(spec, field)
    itemsize = dtypes.numpy_dtype(full.dtype).itemsize
    shape = spec.shape[:]
    _check_shape(shape, itemsize, f"{field}.shape")
    plan = None
    if spec.WhichOneof("scheme") in recipes.KINDS:
        explicit = recipes.named(full, field)
        plan = recipes.resolve(explicit, field, _described_within)
        resolution = Resolution(recipes.law_of(plan, explicit), gain=delta.gain_of(spec))
    else:
        resolution = resolve(full, field)
        if 0 not in shape:
            _check_range(resolution.law, full, field)
    part = check_region(region, shape, region_field)
    element_count = math.prod(map(operator.sub, part.stop[:], part.start[:]))
    description = TensorDescription(
        spec=full,
        region=part,
        law=resolution.law,
        fan_in=resolution.fan_in,
        fan_out=resolution.fan_out,
        gain=resolution.gain,
        stream=stream_of(name_hashed(spec)),
        element_count=element_count,
        byte_count=element_count * itemsize,
    )
    return recipes.Inner(description, plan)


def _dtype(spec: TensorSpec, field: str) -> DataType:
    dtype = spec.dtype or DATA_TYPE_FLOAT32
    if not dtypes.is_known(dtype):
        raise InvalidSpec(f"{field}.dtype", f"unknown dtype {dtype}; use one of {dtypes.LISTED}")
    return dtype


def _algorithm_version(spec: TensorSpec, field: str) -> int:
    version = spec.algorithm_version or ALGORITHM_VERSIONS[-1]
    if version not in ALGORITHM_VERSIONS:
        served = ", ".join(map(str, ALGORITHM_VERSIONS))
        raise InvalidSpec(
            f"{field}.algorithm_version", f"version {version} is not served here; use 0 for the newest of {served}"
        )
    return version


def _check_shape(shape: Shape, itemsize: int, field: str) -> None:
    check_dimensions(shape, field)
    # Sizes of 0 are passed over, so that fans and strides of empty tensors stay within 64 bits too.
    elements = math.prod(filter(None, shape))
    if elements * itemsize > _INT64_MAX:
        unit = "elements" if elements > _INT64_MAX else "bytes"
        raise InvalidSpec(field, f"{shape} has more than 2^63 - 1 {unit}; give a smaller shape")


def _check_range(law: Law, spec: TensorSpec, path: str) -> None:
    """Refuses what the dtype cannot hold."""
    kind = law.WhichOneof("law")
    field = f"{path}.{spec.WhichOneof('scheme')}"
    if kind == "constant":
        _check_holds(law.constant.val, spec, field)
    elif kind == "uniform":
        _check_bounds(law.uniform.a, law.uniform.b, dtypes.below, spec, field)
        _check_holds(law.uniform.b - law.uniform.a, spec, field, "the width b - a")
    elif kind == "normal":
        _check_reach(abs(law.normal.mean), law.normal.std, spec, field)
    elif kind == "disk":
        _check_holds(law.disk.radius, spec, field, "the radius")
        _check_reach(0.0, law.disk.std * SQRT_HALF, spec, field)
    elif kind == "sparse":
        _check_reach(0.0, law.sparse.std, spec, field)
    elif kind == "trunc_normal":
        _check_trunc_normal(law, spec, field)
    elif kind == "orthogonal":
        _check_holds(law.orthogonal.gain, spec, field)
    elif kind == "permutation":
        _check_permutation(spec, field)


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


def _check_permutation(spec: TensorSpec, field: str) -> None:
    if (largest := math.prod(spec.shape) - 1) > (exact := dtypes.largest_exact_integer(spec.dtype)):
        raise InvalidSpec(
            field,
            f"its largest number, {largest}, is beyond {exact}, up to which {_name(spec.dtype)} holds every integer; "
            "use float64",
        )


def _name(dtype: int) -> str:
    return str(dtypes.numpy_dtype(dtype))
