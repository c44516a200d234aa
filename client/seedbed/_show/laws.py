"""The law of a description: its text, moments, density and atoms.

For complex dtypes, moments, density and atoms are those of the real part.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seedbed import dtypes
from seedbed.v1 import DataType, Disk, Function, Orthogonal, Recipe, Reducer, Step, TensorDescription

Array = np.ndarray[Any, Any]

_MAX_PARTS = 3  # parts that a text lists
_MAX_STEPS = 8  # steps of an expression that a text spells out
_MAX_FORMULA_LENGTH = 100  # characters of an expression's formula
_POINTS = 2001
_DRAWN_SIGMAS = 4.75  # how far an unbounded law is drawn; 2e-6 of the values lie beyond
_ALL_SIGMAS = 9.0  # beyond this, the density is negligible in float64


@dataclass(frozen=True)
class Curve:
    """The density of the continuous part of a law, as a polygon over the range that is drawn."""

    x: Array
    y: Array


def text(description: TensorDescription) -> str:
    """The law with its parameters, such as ``normal(mean=0, std=0.02)``; for other recipes, their components."""
    kind = description.law.WhichOneof("law")
    return _text(kind, getattr(description.law, kind))


def _text(kind: str, law: Any) -> str:  # noqa: ANN401 - the message of any law
    match kind:
        case "literal" | "permutation":
            return kind
        case "parts":
            parts = [_text_of_recipe(part.recipe) for part in law.parts]
            listed = [*parts[:_MAX_PARTS], *(["…"] if len(parts) > _MAX_PARTS else [])]
            return f"parts: {len(parts)} box{'es' * (len(parts) != 1)}{': ' * bool(parts)}{', '.join(listed)}"
        case "expression":
            count, formula = len(law.steps), _formula(law.steps)
            return f"expression of {count} step{'s' * (count != 1)}{f': {formula}' if formula else ''}"
    fields = [field for field in law.DESCRIPTOR.fields if not field.enum_type and _is_in_text(field, law)]
    return f"{kind}({', '.join(f'{field.name}={getattr(law, field.name):.6g}' for field in fields)})"


def _is_in_text(field: Any, law: Any) -> bool:  # noqa: ANN401 - the message of any law
    """Whether a law's text shows a parameter: it must be set, and an axis of 0, the default, is omitted."""
    return law.HasField(field.name) if field.has_presence else field.name != "axis" or bool(law.axis)


def _text_of_recipe(recipe: Recipe) -> str:
    kind = recipe.WhichOneof("scheme") or "nothing"
    text = _text(kind, getattr(recipe, kind))
    return f"({text})" if kind in ("parts", "expression") else text


def _formula(steps: Sequence[Step]) -> str:
    """The last step spelled out, such as ``log of uniform(a=1, b=16)``; empty if that is too long."""
    if len(steps) > _MAX_STEPS:
        return ""
    texts: list[str] = []
    for step in steps:
        arguments = " and ".join(texts[argument] for argument in step.arguments)
        texts.append(f"{_operation(step)} of {arguments}" if arguments else _operation(step))
        if len(texts[-1]) > _MAX_FORMULA_LENGTH:
            return ""
    return texts[-1] if texts else ""


def _operation(step: Step) -> str:
    match step.WhichOneof("value"):
        case "recipe":
            return _text_of_recipe(step.recipe)
        case "constant":
            return f"{step.constant:.6g}"
        case "function":
            return Function.Name(step.function).removeprefix("FUNCTION_").lower()
        case "reduction":
            return Reducer.Name(step.reduction.reducer).removeprefix("REDUCER_").lower()
        case "cast":
            return dtypes.name_of(step.cast)
        case kind:
            return str(kind)


def key(description: TensorDescription) -> tuple[Any, ...]:
    """A key that is equal for tensors whose values have the same distribution."""
    kind = description.law.WhichOneof("law")
    if kind in ("parts", "literal", "expression"):
        return text(description), description.spec.dtype, ()
    shape = tuple(description.spec.shape) if kind in ("orthogonal", "sparse", "eye", "dirac", "permutation") else ()
    return description.law.SerializeToString(deterministic=True), description.spec.dtype, shape


def atoms(description: TensorDescription) -> tuple[float, ...]:
    """The values of non-zero probability, rounded to the tensor's dtype."""
    law, shape = description.law, description.spec.shape
    match law.WhichOneof("law"):
        case "constant":
            values: tuple[float, ...] = (law.constant.val,)
        case "eye" | "dirac":
            values = (0.0, 1.0)
        case "sparse" | "parts":  # elements in no part are 0
            values = (0.0,)
        case "orthogonal" if math.prod(shape) == 1:
            values = (-law.orthogonal.gain, law.orthogonal.gain)
        case _:
            values = ()
    return tuple(_rounded(value, description.spec.dtype) for value in values)


def moments(description: TensorDescription) -> tuple[float, float] | None:  # noqa: PLR0911 - one for each law
    """The mean and the standard deviation of the law; None for eye, dirac and recipes, which mix several laws."""
    law, shape = description.law, list(description.spec.shape)
    match law.WhichOneof("law"):
        case "constant":
            return law.constant.val, 0.0
        case "uniform":
            return (law.uniform.a + law.uniform.b) / 2, (law.uniform.b - law.uniform.a) / math.sqrt(12)
        case "normal":
            return law.normal.mean, law.normal.std * _real_part_factor(description)
        case "disk":
            return 0.0, _disk_std(law.disk) * math.sqrt(0.5)
        case "trunc_normal":
            x, y = _trunc_normal(description, _ALL_SIGMAS, 10 * _POINTS)
            mean = _integral(x * y, x)
            return mean, math.sqrt(_integral((x - mean) ** 2 * y, x))
        case "orthogonal":
            return 0.0, law.orthogonal.gain / math.sqrt(_longer_side(law.orthogonal, shape))
        case "sparse":
            return 0.0, law.sparse.std * math.sqrt(_nonzero_share(law.sparse.sparsity, shape))
        case "permutation":
            count = math.prod(shape)
            return max(count - 1, 0) / 2, math.sqrt(max(count * count - 1, 0) / 12)
    return None


def curve(description: TensorDescription) -> Curve | None:  # noqa: PLR0911 - one for each law
    """The density; None if the law has none."""
    law, shape = description.law, list(description.spec.shape)
    match law.WhichOneof("law"):
        case "uniform":
            a, b = law.uniform.a, law.uniform.b
            return _closed(np.array([a, b]), np.full(2, 1 / (b - a)))
        case "normal":
            return _normal(law.normal.mean, law.normal.std * _real_part_factor(description))
        case "disk":
            return _closed(*_disk(law.disk))
        case "trunc_normal":
            return _closed(*_trunc_normal(description, _DRAWN_SIGMAS, _POINTS))
        case "orthogonal":
            return _orthogonal(law.orthogonal.gain, _longer_side(law.orthogonal, shape))
        case "sparse":
            normal = _normal(0.0, law.sparse.std)
            nonzero = _nonzero_share(law.sparse.sparsity, shape)
            return Curve(normal.x, nonzero * normal.y) if nonzero > 0 else None
        case "permutation" if count := math.prod(shape):
            return _closed(np.array([-0.5, count - 0.5]), np.full(2, 1 / count))
    return None


def is_complex(description: TensorDescription) -> bool:
    """Whether the values are complex numbers."""
    return description.spec.dtype == DataType.DATA_TYPE_COMPLEX64


def _real_part_factor(description: TensorDescription) -> float:
    """The standard deviation of a normal's real part, relative to that of the whole."""
    return math.sqrt(0.5) if is_complex(description) else 1.0


def _disk_std(law: Disk) -> float:
    """The square root of the mean of |x|²."""
    if not law.HasField("std"):
        return law.radius * math.sqrt(0.5)
    limit = (law.radius / law.std) ** 2  # |x|² has an exponential distribution, truncated here
    mass = -math.expm1(-limit)
    return law.std * math.sqrt(max(1 - limit * math.exp(-limit) / mass, 0.0))


def _disk(law: Disk) -> tuple[Array, Array]:
    """The density of the real part: the disk's density, integrated along the chord at each value."""
    x = law.radius * np.sin(np.linspace(-np.pi / 2, np.pi / 2, _POINTS))
    chord = np.sqrt(np.maximum(law.radius**2 - x * x, 0))
    if law.HasField("std"):
        if law.radius > _DRAWN_SIGMAS * law.std:
            x = np.linspace(-_DRAWN_SIGMAS, _DRAWN_SIGMAS, _POINTS) * law.std
            chord = np.sqrt(law.radius**2 - x * x)
        chord = np.exp(-((x / law.std) ** 2)) * np.array([math.erf(half) for half in chord / law.std])
    return x, chord / _integral(chord, x)


def _rounded(value: float, dtype: int) -> float:
    # A 16-bit tensor is the float32 tensor rounded, so values are rounded twice.
    base = np.float64(value) if dtype == DataType.DATA_TYPE_FLOAT64 else np.float32(value)
    return float(base.astype(dtypes.numpy_dtype(dtype)).real)


def _normal(mean: float, std: float) -> Curve:
    z = np.linspace(-_DRAWN_SIGMAS, _DRAWN_SIGMAS, _POINTS)
    return Curve(mean + std * z, np.exp(-z * z / 2) / (std * math.sqrt(2 * math.pi)))


def _trunc_normal(description: TensorDescription, sigmas: float, points: int) -> tuple[Array, Array]:
    """The density, normalised numerically: the terms of the closed form may underflow."""
    law = description.law.trunc_normal
    peak = min(max(law.mean, law.a), law.b)
    distance = abs(peak - law.mean) / law.std
    # In the tail, the density falls off within std / distance of the bound.
    reach = law.std * min(sigmas, 4 * sigmas / max(distance, 1e-9))
    x = np.linspace(max(law.a, peak - reach), min(law.b, peak + reach), points)
    z = np.abs(x - law.mean) / law.std
    return _normalised(x, -(z - distance) * (z + distance) / 2)


def _orthogonal(gain: float, n: int) -> Curve | None:
    """The density of one element: a row (or column) is uniform on the sphere in ``n`` dimensions."""
    if n < 2:
        return None  # ±gain
    if n == 2:
        t = np.linspace(-0.995, 0.995, _POINTS)  # stops short of the poles of the arcsine law
        return _closed(gain * t, 1 / (math.pi * gain * np.sqrt(1 - t * t)))
    limit = min(1.0, _DRAWN_SIGMAS / math.sqrt(n))
    t = np.linspace(-limit, limit, _POINTS)
    with np.errstate(divide="ignore"):
        log_density = (n - 3) / 2 * np.log1p(-t * t) if n > 3 else np.zeros_like(t)
    return _closed(*_normalised(gain * t, log_density))


def _longer_side(law: Orthogonal, shape: list[int]) -> int:
    """The larger of the matrix's rows and columns."""
    rows = shape[law.axis]
    return max(rows, math.prod(shape) // max(rows, 1), 1)


def _nonzero_share(sparsity: float, shape: list[int]) -> float:
    rows = max(shape[0], 1)
    return 1 - math.ceil(sparsity * rows) / rows


def _normalised(x: Array, log_density: Array) -> tuple[Array, Array]:
    y = np.exp(log_density - log_density.max())
    return x, y / _integral(y, x)


def _integral(y: Array, x: Array) -> float:
    return float(np.sum((y[1:] + y[:-1]) * np.diff(x)) / 2)


def _closed(x: Array, y: Array) -> Curve:
    return Curve(np.concatenate((x[:1], x, x[-1:])), np.concatenate(([0.0], y, [0.0])))
