"""Resolves each scheme to one of a few laws; xavier, kaiming and lecun, for example, only set parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from google.protobuf.message import Message

from seedbed.v1 import (
    BOUNDS_UNIT_ABSOLUTE,
    BOUNDS_UNIT_SIGMA,
    BOUNDS_UNIT_UNSPECIFIED,
    DISTRIBUTION_NORMAL,
    DISTRIBUTION_TRUNCATED_NORMAL,
    DISTRIBUTION_UNIFORM,
    DISTRIBUTION_UNSPECIFIED,
    FAN_MODE_FAN_AVG,
    FAN_MODE_FAN_GEO_AVG,
    FAN_MODE_FAN_IN,
    FAN_MODE_FAN_OUT,
    FAN_MODE_UNSPECIFIED,
    NONLINEARITY_LEAKY_RELU,
    Constant,
    Dirac,
    Disk,
    Eye,
    FanMode,
    Kaiming,
    Law,
    Normal,
    Ones,
    Orthogonal,
    Permutation,
    Sparse,
    TensorSpec,
    TruncNormal,
    Uniform,
    VarianceScaling,
    Xavier,
    Zeros,
)

from .dtypes import is_complex
from .errors import InvalidSpec
from .fans import torch_fans, variance_scaling_fans
from .gains import calculate_gain

MAX_ORTHOGONAL_ELEMENTS = 1 << 26
"""Any region of an orthogonal tensor needs the whole matrix in float64: 8192 x 8192 takes 10 s on a core and 1.3 GB."""

TRUNCATED_STD = 0.87962566103423978
"""The standard deviation of a standard normal truncated to (-2, 2), as in jax.nn.initializers."""

TRUNCATED_COMPLEX_STD = 0.95311164380491208
"""The same for a standard complex normal truncated to a modulus of at most 2."""

_LEAST_RADIUS = 1 / 16
"""The smallest radius of a normal on a disk, in standard deviations.

At this radius 2^24 of the 2^32 words are inside, and the law is almost uniform.
"""


class Resolution(NamedTuple):
    """A law, with the fans and the gain that led to it."""

    law: Law
    fan_in: int | None = None
    fan_out: int | None = None
    gain: float | None = None


def resolve(spec: TensorSpec, field: str = "spec") -> Resolution:
    """Resolves the scheme of a spec to a law.

    Args:
        spec: The tensor; its shape and dtype are valid.
        field: The path of the spec in errors.

    Raises:
        InvalidSpec: No scheme is set, or its parameters are inconsistent with each other or with the shape.

    >>> resolve(TensorSpec(shape=[3, 6], xavier_normal=Xavier())).law.normal.std
    0.4714045207910317
    """
    scheme = spec.WhichOneof("scheme")
    if scheme is None:
        raise InvalidSpec(f"{field}.scheme", "no scheme is set; set one, such as normal or kaiming_uniform")
    path, parameters = f"{field}.{scheme}", getattr(spec, scheme)
    _require_finite(parameters, path)
    resolvers = _COMPLEX_RESOLVERS if is_complex(spec.dtype) else _RESOLVERS
    if scheme not in resolvers:
        raise InvalidSpec(path, _REMEDIES.get(scheme, f"{scheme} is not offered in complex64; give a real dtype"))
    return resolvers[scheme](parameters, spec.shape[:], _Fields(path, f"{field}.shape"))


@dataclass(slots=True)
class _Fields:
    """The field paths of a scheme's parameters and of the shape, for errors."""

    scheme: str
    shape: str

    def __getitem__(self, parameter: str) -> str:
        return f"{self.scheme}.{parameter}"


Shape = list[int]


def _require_finite(parameters: Message, field: str) -> None:
    for descriptor, value in parameters.ListFields():
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidSpec(f"{field}.{descriptor.name}", f"{value} is not finite; give a finite number")


def _optional(parameters: Message, name: str, default: float) -> float:
    return float(getattr(parameters, name)) if parameters.HasField(name) else default


def _non_negative(parameters: Message, name: str, default: float, fields: _Fields) -> float:
    value = _optional(parameters, name, default)
    if value < 0:
        raise InvalidSpec(fields[name], f"{value} is negative; give 0 or more")
    return value


def _ordered(a: float, b: float, fields: _Fields) -> None:
    if a > b:
        raise InvalidSpec(fields["a"], f"expects a range [a, b], but found a={a} > b={b}; swap them")


# Laws. A spread of 0 becomes a constant and -0.0 becomes 0.0, so samplers need not handle either.


def _constant(value: float) -> Law:
    return Law(constant=Constant(val=value))


def _uniform(a: float, b: float) -> Law:
    if a == b:
        return _constant(a + 0.0)
    return Law(uniform=Uniform(a=a + 0.0, b=b + 0.0))


def _normal(mean: float, std: float) -> Law:
    if std == 0:
        return _constant(mean + 0.0)
    return Law(normal=Normal(mean=mean + 0.0, std=std))


def _trunc_normal(mean: float, std: float, a: float, b: float) -> Law:
    if std == 0 or a == b:
        return _constant(min(max(mean, a), b) + 0.0)
    return Law(trunc_normal=TruncNormal(mean=mean + 0.0, std=std, a=a + 0.0, b=b + 0.0, bounds=BOUNDS_UNIT_ABSOLUTE))


def _disk(radius: float, std: float | None = None) -> Law:
    if radius == 0 or std == 0:
        return _constant(0.0)
    return Law(disk=Disk(radius=radius, std=std))


# Schemes.


def _resolve_ones(_: Ones, shape: Shape, fields: _Fields) -> Resolution:
    return Resolution(_constant(1.0))


def _resolve_zeros(_: Zeros, shape: Shape, fields: _Fields) -> Resolution:
    return Resolution(_constant(0.0))


def _resolve_constant(scheme: Constant, shape: Shape, fields: _Fields) -> Resolution:
    return Resolution(_constant(scheme.val))


def _resolve_eye(_: Eye, shape: Shape, fields: _Fields) -> Resolution:
    if len(shape) != 2:
        raise InvalidSpec(
            fields.shape, f"Only tensors with 2 dimensions are supported by eye; this one has {len(shape)}"
        )
    return Resolution(Law(eye=Eye()))


def _resolve_dirac(scheme: Dirac, shape: Shape, fields: _Fields) -> Resolution:
    if len(shape) not in (3, 4, 5):
        raise InvalidSpec(
            fields.shape, f"Only tensors with 3, 4, or 5 dimensions are supported by dirac; this one has {len(shape)}"
        )
    groups = scheme.groups if scheme.HasField("groups") else 1
    if groups < 1:
        raise InvalidSpec(fields["groups"], f"{groups} is less than 1; give 1 or more")
    if shape[0] % groups:
        raise InvalidSpec(
            fields["groups"], f"dim 0 must be divisible by groups; {shape[0]} is not divisible by {groups}"
        )
    return Resolution(Law(dirac=Dirac(groups=groups)))


def _resolve_uniform(scheme: Uniform, shape: Shape, fields: _Fields) -> Resolution:
    a, b = scheme.a, _optional(scheme, "b", 1.0)
    _ordered(a, b, fields)
    return Resolution(_uniform(a, b))


def _resolve_normal(scheme: Normal, shape: Shape, fields: _Fields) -> Resolution:
    return Resolution(_normal(scheme.mean, _non_negative(scheme, "std", 1.0, fields)))


def _resolve_complex_normal(scheme: Normal, shape: Shape, fields: _Fields) -> Resolution:
    resolution = _resolve_normal(scheme, shape, fields)
    if resolution.law.HasField("normal") and scheme.mean:
        raise InvalidSpec(
            fields["mean"], f"{scheme.mean} is not 0, the only mean supported for complex normals; give 0"
        )
    return resolution


def _resolve_disk(scheme: Disk, shape: Shape, fields: _Fields) -> Resolution:
    radius = _non_negative(scheme, "radius", 1.0, fields)
    if not scheme.HasField("std"):
        return Resolution(_disk(radius))
    std = _non_negative(scheme, "std", 0.0, fields)
    if radius and radius < _LEAST_RADIUS * std:
        raise InvalidSpec(
            fields["std"],
            f"{std} is more than {1 / _LEAST_RADIUS:.0f} times the radius {radius}, within which such a normal is "
            "almost uniform; omit std",
        )
    return Resolution(_disk(radius, std))


def _resolve_trunc_normal(scheme: TruncNormal, shape: Shape, fields: _Fields) -> Resolution:
    mean, std = scheme.mean, _non_negative(scheme, "std", 1.0, fields)
    a, b = _optional(scheme, "a", -2.0), _optional(scheme, "b", 2.0)
    _ordered(a, b, fields)
    if scheme.bounds == BOUNDS_UNIT_SIGMA:
        a, b = mean + std * a, mean + std * b
    elif scheme.bounds not in (BOUNDS_UNIT_UNSPECIFIED, BOUNDS_UNIT_ABSOLUTE):
        raise InvalidSpec(fields["bounds"], f"{scheme.bounds} is not a known unit; use absolute or sigma")
    return Resolution(_trunc_normal(mean, std, a, b))


def _xavier_std(scheme: Xavier, shape: Shape, fields: _Fields) -> tuple[float, Callable[[Law], Resolution]]:
    gain = _non_negative(scheme, "gain", 1.0, fields)
    fan_in, fan_out = torch_fans(shape, fields.shape)
    std = gain * math.sqrt(2.0 / float(fan_in + fan_out)) if fan_in + fan_out else 0.0
    return std, lambda law: Resolution(law, fan_in, fan_out, gain)


def _resolve_xavier_uniform(scheme: Xavier, shape: Shape, fields: _Fields) -> Resolution:
    std, resolution = _xavier_std(scheme, shape, fields)
    bound = math.sqrt(3.0) * std
    return resolution(_uniform(-bound, bound))


def _resolve_xavier_normal(scheme: Xavier, shape: Shape, fields: _Fields) -> Resolution:
    std, resolution = _xavier_std(scheme, shape, fields)
    return resolution(_normal(0.0, std))


_TORCH_FANS = {FAN_MODE_UNSPECIFIED: 0, FAN_MODE_FAN_IN: 0, FAN_MODE_FAN_OUT: 1}
"""The index of each mode into the result of `torch_fans`."""


def _kaiming_std(scheme: Kaiming, shape: Shape, fields: _Fields) -> tuple[float, Callable[[Law], Resolution]]:
    if scheme.mode not in _TORCH_FANS:
        raise InvalidSpec(
            fields["mode"], f"Mode {_mode_name(scheme.mode)} not supported, please use one of ['fan_in', 'fan_out']"
        )
    nonlinearity = scheme.nonlinearity or NONLINEARITY_LEAKY_RELU
    recommended = calculate_gain(nonlinearity, scheme.a, fields["nonlinearity"])
    gain = _non_negative(scheme, "gain", recommended, fields)
    fans = torch_fans(shape, fields.shape)
    fan = fans[_TORCH_FANS[scheme.mode]]
    std = gain / math.sqrt(fan) if fan else 0.0
    return std, lambda law: Resolution(law, *fans, gain)


def _resolve_kaiming_uniform(scheme: Kaiming, shape: Shape, fields: _Fields) -> Resolution:
    std, resolution = _kaiming_std(scheme, shape, fields)
    bound = math.sqrt(3.0) * std
    return resolution(_uniform(-bound, bound))


def _resolve_kaiming_normal(scheme: Kaiming, shape: Shape, fields: _Fields) -> Resolution:
    std, resolution = _kaiming_std(scheme, shape, fields)
    return resolution(_normal(0.0, std))


def _resolve_orthogonal(scheme: Orthogonal, shape: Shape, fields: _Fields) -> Resolution:
    gain = _non_negative(scheme, "gain", 1.0, fields)
    if len(shape) < 2:
        raise InvalidSpec(
            fields.shape,
            f"Only tensors with 2 or more dimensions are supported by orthogonal; this one has {len(shape)}",
        )
    check_orthogonal_size(math.prod(shape), fields.shape)
    axis = positive_axis(scheme.axis, len(shape), fields["axis"])
    law = Law(orthogonal=Orthogonal(gain=gain, axis=axis)) if gain else _constant(0.0)
    return Resolution(law, gain=gain)


def check_orthogonal_size(elements: int, field: str) -> None:
    """Refuses an orthogonal matrix over the limit."""
    if elements > MAX_ORTHOGONAL_ELEMENTS:
        raise InvalidSpec(
            field,
            f"{elements} elements are over orthogonal's limit of {MAX_ORTHOGONAL_ELEMENTS}: any region needs the whole "
            "matrix; use a smaller shape, or a scheme such as xavier_normal",
        )


def _resolve_sparse(scheme: Sparse, shape: Shape, fields: _Fields) -> Resolution:
    if len(shape) != 2:
        raise InvalidSpec(
            fields.shape, f"Only tensors with 2 dimensions are supported by sparse; this one has {len(shape)}"
        )
    if not 0 <= scheme.sparsity <= 1:
        raise InvalidSpec(fields["sparsity"], f"{scheme.sparsity} is not a fraction; give one in [0, 1]")
    std = _non_negative(scheme, "std", 0.01, fields)
    return Resolution(Law(sparse=Sparse(sparsity=scheme.sparsity, std=std)) if std else _constant(0.0))


ScaledLaw = Callable[[int, float, float, _Fields], Law]
"""Gives the law of a distribution, a variance and a gain."""


def _resolve_variance_scaling(
    scaled_law: ScaledLaw, scheme: VarianceScaling, shape: Shape, fields: _Fields
) -> Resolution:
    scale = _non_negative(scheme, "scale", 1.0, fields)
    gain = _non_negative(scheme, "gain", 1.0, fields)
    in_axes, out_axes, batch_axes = _axes_of(scheme, shape, fields)
    fan_in, fan_out = variance_scaling_fans(shape, in_axes, out_axes, batch_axes)
    denominator = _scaled_fan(scheme.mode, fan_in, fan_out, fields)
    variance = scale / denominator if denominator else 0.0
    law = scaled_law(scheme.distribution, variance, gain, fields)
    return Resolution(law, fan_in, fan_out, gain)


def _scaled_fan(mode: int, fan_in: int, fan_out: int, fields: _Fields) -> float:
    if mode in (FAN_MODE_UNSPECIFIED, FAN_MODE_FAN_IN):
        return float(fan_in)
    if mode == FAN_MODE_FAN_OUT:
        return float(fan_out)
    if mode == FAN_MODE_FAN_AVG:
        return (fan_in + fan_out) / 2
    if mode == FAN_MODE_FAN_GEO_AVG:
        return math.sqrt(fan_in * fan_out)
    raise InvalidSpec(
        fields["mode"],
        f"Mode {_mode_name(mode)} not supported, please use one of ['fan_in', 'fan_out', 'fan_avg', 'fan_geo_avg']",
    )


def _scaled_law(distribution: int, variance: float, gain: float, fields: _Fields) -> Law:
    if distribution == DISTRIBUTION_UNIFORM:
        bound = gain * math.sqrt(3 * variance)
        return _uniform(-bound, bound)
    if distribution == DISTRIBUTION_NORMAL:
        return _normal(0.0, gain * math.sqrt(variance))
    if distribution in (DISTRIBUTION_UNSPECIFIED, DISTRIBUTION_TRUNCATED_NORMAL):
        std = gain * (math.sqrt(variance) / TRUNCATED_STD)
        return _trunc_normal(0.0, std, -2 * std, 2 * std)
    raise _unknown_distribution(distribution, fields)


def _scaled_complex_law(distribution: int, variance: float, gain: float, fields: _Fields) -> Law:
    if distribution == DISTRIBUTION_UNIFORM:
        return _disk(gain * math.sqrt(2 * variance))
    if distribution == DISTRIBUTION_NORMAL:
        return _normal(0.0, gain * math.sqrt(variance))
    if distribution in (DISTRIBUTION_UNSPECIFIED, DISTRIBUTION_TRUNCATED_NORMAL):
        std = gain * (math.sqrt(variance) / TRUNCATED_COMPLEX_STD)
        return _disk(2 * std, std)
    raise _unknown_distribution(distribution, fields)


def _unknown_distribution(distribution: int, fields: _Fields) -> InvalidSpec:
    return InvalidSpec(
        fields["distribution"],
        f"{distribution} is not a known distribution; use one of uniform, normal, truncated_normal",
    )


def _resolve_permutation(_: Permutation, shape: Shape, fields: _Fields) -> Resolution:
    return Resolution(Law(permutation=Permutation()))


def _axes_of(scheme: VarianceScaling, shape: Shape, fields: _Fields) -> tuple[list[int], list[int], list[int]]:
    if len(shape) < 2 and not (scheme.HasField("in_axis") and scheme.HasField("out_axis")):
        raise InvalidSpec(
            fields.shape,
            f"variance_scaling can not compute fans for {len(shape)} dimensions with its default axes; "
            "give 2 or more dimensions, or both in_axis and out_axis",
        )
    seen: set[int] = set()
    return (
        _axes(scheme.in_axis.axes if scheme.HasField("in_axis") else [-2], shape, fields["in_axis"], seen),
        _axes(scheme.out_axis.axes if scheme.HasField("out_axis") else [-1], shape, fields["out_axis"], seen),
        _axes(scheme.batch_axis.axes, shape, fields["batch_axis"], seen),
    )


def _axes(axes: Sequence[int], shape: Shape, field: str, seen: set[int]) -> list[int]:
    """The axes as non-negative numbers; ``seen`` collects them to find duplicates."""
    resolved = []
    for axis in axes:
        positive = positive_axis(axis, len(shape), field)
        if positive in seen:
            raise InvalidSpec(field, f"axis {axis} is named twice; name each axis once")
        seen.add(positive)
        resolved.append(positive)
    return resolved


def positive_axis(axis: int, dimensions: int, field: str) -> int:
    """An axis as a non-negative number."""
    if not -dimensions <= axis < dimensions:
        raise InvalidSpec(field, f"axis {axis} is outside a shape of {dimensions} dimensions")
    return axis % dimensions


def _mode_name(mode: int) -> str:
    return FanMode.Name(mode).removeprefix("FAN_MODE_").lower() if mode in FanMode.values() else str(mode)


_RESOLVERS: dict[str, Callable[..., Resolution]] = {
    "ones": _resolve_ones,
    "zeros": _resolve_zeros,
    "constant": _resolve_constant,
    "eye": _resolve_eye,
    "dirac": _resolve_dirac,
    "uniform": _resolve_uniform,
    "normal": _resolve_normal,
    "trunc_normal": _resolve_trunc_normal,
    "xavier_uniform": _resolve_xavier_uniform,
    "xavier_normal": _resolve_xavier_normal,
    "kaiming_uniform": _resolve_kaiming_uniform,
    "kaiming_normal": _resolve_kaiming_normal,
    "orthogonal": _resolve_orthogonal,
    "sparse": _resolve_sparse,
    "variance_scaling": partial(_resolve_variance_scaling, _scaled_law),
    "permutation": _resolve_permutation,
}

_NOT_COMPLEX = ("trunc_normal", "orthogonal", "sparse", "permutation")

_COMPLEX_RESOLVERS: dict[str, Callable[..., Resolution]] = {
    **{scheme: resolver for scheme, resolver in _RESOLVERS.items() if scheme not in _NOT_COMPLEX},
    "normal": _resolve_complex_normal,
    "disk": _resolve_disk,
    "variance_scaling": partial(_resolve_variance_scaling, _scaled_complex_law),
}

_REMEDIES = {
    "trunc_normal": "trunc_normal is not offered in complex64: complex numbers have no order, so a and b do not apply; "
    "use variance_scaling or disk, which bound the modulus, or a real dtype",
    "disk": "disk is a law of complex numbers; give dtype complex64, or use uniform or trunc_normal",
}
"""Remedies for schemes that are not offered in a dtype."""
