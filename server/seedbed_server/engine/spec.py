"""The entry to the engine: a request is validated and described here before anything is sampled."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

from seedbed.v1 import DATA_TYPE_FLOAT32, DATA_TYPE_FLOAT64, DataType, Law, Region, TensorDescription, TensorSpec

from . import delta, dtypes, recipes
from .caching import cached_by_content
from .constants import SQRT_HALF
from .errors import InvalidSpec
from .normal_cdf import interval_probabilities
from .regions import check_region
from .schemes import Resolution, Shape, resolve
from .stream import name_hashed, stream_of
from .views import check_dimensions

ALGORITHM_VERSIONS = (1,)
"""All versions of the stream that this engine serves, oldest first (docs/stream-v1.md)."""

_INT64_MAX = 2**63 - 1

# The reach of the normal law in standard deviations: sqrt(2 ln 2^32) and sqrt(2 ln 2^64), rounded up.
_REACH = {DATA_TYPE_FLOAT64: 9.42}
_REACH_FLOAT32 = 6.67

_LEAST_PROBABILITY = 2.0**-960
"""Between bounds this improbable, the quantile of the last of 2^54 draws is still a normal float64."""


def describe(spec: TensorSpec, region: Region | None = None, prefix: str = "") -> TensorDescription:
    """Validates a request and resolves it to a law; every sample is a function of the description alone.

    Args:
        spec: The tensor.
        region: The region of the tensor to sample; the whole tensor by default.
        prefix: A prefix for the field paths in errors, such as ``tensors[3].``.

    Raises:
        InvalidSpec: The request cannot be served; the error names the field, the value and the remedy.

    >>> from seedbed.v1 import Normal
    >>> description = describe(TensorSpec(name="w", shape=[4, 4], normal=Normal(std=0.02)))
    >>> description.element_count, description.byte_count, description.law.normal.std
    (16, 64, 0.02)
    """
    description = TensorDescription(spec=spec)
    try:
        _describe_whole(description)
        if region is not None:
            _restrict(description, region)
    except InvalidSpec as error:
        raise InvalidSpec(prefix + error.field, error.description) from None
    return description


def _describe_whole(description: TensorDescription) -> None:
    """Sets all fields but the spec, for the whole tensor; equal specs are resolved once."""
    spec = description.spec
    if spec.WhichOneof("scheme") in recipes.KINDS:
        _complete(description, "spec", _resolved_recipe)
        return
    # Tensors that differ only in name, seed and stream share all the rest.
    name, seed, stream = spec.name, spec.seed, spec.stream
    spec.name, spec.seed, spec.stream = "", 0, ""
    description.MergeFrom(_shared(spec))
    spec.name, spec.seed, spec.stream = name, seed, stream
    description.stream = stream_of(name_hashed(spec))


@cached_by_content(maxsize=1024)
def _shared(spec: TensorSpec) -> TensorDescription:
    """The fields that descriptions of such tensors share; of the spec, only those with defaults."""
    description = TensorDescription(spec=spec)
    _complete(description, "spec", _resolved)
    full = description.spec
    full.CopyFrom(TensorSpec(dtype=full.dtype, algorithm_version=full.algorithm_version))
    return description


def _restrict(description: TensorDescription, region: Region) -> None:
    spec = description.spec
    check_region(region, spec.shape, "region")
    description.region.CopyFrom(region)
    description.element_count = math.prod(map(operator.sub, region.stop, region.start))
    description.byte_count = description.element_count * dtypes.numpy_dtype(spec.dtype).itemsize


def plan_of(description: TensorDescription) -> recipes.Plan:
    """The plan of a described tensor whose scheme is one of `recipes.KINDS`."""
    plan = _resolved_recipe(description.spec, "spec")[1]
    assert plan is not None  # for mypy: recipes have one
    return plan


def whole_elements(description: TensorDescription) -> int:
    """The cost that a region does not reduce: elements of orthogonal matrices, and an eighth of those reduced."""
    law = description.law.WhichOneof("law")
    if law not in recipes.KINDS:
        return math.prod(description.spec.shape) if law == "orthogonal" else 0
    return recipes.whole_elements(recipes.Inner(description, plan_of(description)))


_Resolved = tuple[Resolution, recipes.Plan | None]


def _complete(
    description: TensorDescription, field: str, resolve_spec: Callable[[TensorSpec, str], _Resolved]
) -> recipes.Plan | None:
    """Validates the spec of a description and sets the other fields, for the whole tensor; returns its plan, if any."""
    spec = description.spec
    spec.dtype = _dtype(spec, field)
    spec.algorithm_version = _algorithm_version(spec, field)
    itemsize = dtypes.numpy_dtype(spec.dtype).itemsize
    shape = spec.shape[:]
    _check_shape(shape, itemsize, f"{field}.shape")
    resolution, plan = resolve_spec(spec, field)
    description.law.CopyFrom(resolution.law)
    for name in ("fan_in", "fan_out", "gain"):
        if (value := getattr(resolution, name)) is not None:
            setattr(description, name, value)
    description.region.CopyFrom(Region(start=[0] * len(shape), stop=shape))
    description.stream = stream_of(name_hashed(spec))
    description.element_count = math.prod(shape)
    description.byte_count = description.element_count * itemsize
    return plan


def _resolved(spec: TensorSpec, field: str) -> _Resolved:
    if spec.WhichOneof("scheme") in recipes.KINDS:
        explicit = recipes.named(spec, field)
        plan = recipes.resolve(explicit, field, _describe_recipe)
        return Resolution(recipes.law_of(plan, explicit), gain=delta.gain_of(spec)), plan
    resolution = resolve(spec, field)
    if 0 not in spec.shape:
        _check_range(resolution.law, spec, field)
    return resolution, None


_resolved_recipe = cached_by_content(maxsize=16)(_resolved)
"""Cached, because describing a tensor, checking its limits and sampling it all need the plan."""


def _describe_recipe(description: TensorDescription, field: str) -> recipes.Plan | None:
    return _complete(description, field, _resolved)


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
            f"{field}.algorithm_version",
            f"version {version} is not supported; use one of {served}, or 0 for the newest",
        )
    return version


def _check_shape(shape: Shape, itemsize: int, field: str) -> None:
    check_dimensions(shape, field)
    # Sizes of 0 are skipped: fans and strides of empty tensors must fit into 64 bits too.
    elements = math.prod(filter(None, shape))
    if elements * itemsize > _INT64_MAX:
        unit = "elements" if elements > _INT64_MAX else "bytes"
        raise InvalidSpec(field, f"{shape} has more than 2^63 - 1 {unit}; give a smaller shape")


def _check_range(law: Law, spec: TensorSpec, path: str) -> None:
    """Refuses values beyond the dtype's range."""
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
            f"a normal of mean {trunc.mean} and std {trunc.std} is practically never within [{trunc.a}, {trunc.b}]: "
            f"that is {min(abs(alpha), abs(beta)):.3g} standard deviations away, or too narrow; move the bounds, or "
            "use uniform",
        )


def _check_bounds(a: float, b: float, greatest: Callable[[float, int], float], spec: TensorSpec, field: str) -> None:
    _check_holds(a, spec, field)
    _check_holds(b, spec, field)
    if dtypes.at_least(a, spec.dtype) > greatest(b, spec.dtype):
        raise InvalidSpec(field, f"no {_name(spec.dtype)} lies between {a} and {b}; use a wider range or dtype")


def _check_reach(mean: float, std: float, spec: TensorSpec, field: str) -> None:
    _check_holds(mean + _REACH.get(spec.dtype, _REACH_FLOAT32) * std, spec, field, "the largest value")


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
            f"its largest value, {largest}, is beyond {exact}, the limit up to which {_name(spec.dtype)} represents "
            "every integer; use float64",
        )


def _name(dtype: int) -> str:
    return str(dtypes.numpy_dtype(dtype))
