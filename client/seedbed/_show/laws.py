"""What a description's law says about its tensor's values: its text, its moments, its density.

Of complex numbers, moments, density and values of a probability of their own are those of the real part.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seedbed import dtypes
from seedbed.v1 import DataType, Disk, Function, Orthogonal, Recipe, Reducer, Step, TensorDescription

Array = np.ndarray[Any, Any]

_LISTED = 3  # boxes that a text tells of
_SHORT = 8  # steps that a text tells of
_LONGEST = 100  # characters that it takes for them
_POINTS = 2001
_SHOWN = 4.75  # standard deviations of an unbounded law that are worth showing; 2e-6 of the values lie beyond
_ALL = 9.0  # standard deviations beyond which nothing counts in float64


@dataclass(frozen=True)
class Curve:
    """The density of the continuous part of a law, as a polygon over the values that are worth showing."""

    x: Array
    y: Array


def text(description: TensorDescription) -> str:
    """Returns the law with its parameters, such as ``normal(mean=0, std=0.02)``; of recipes what they are made of."""
    kind = description.law.WhichOneof("law")
    return _text(kind, getattr(description.law, kind))


def _text(kind: str, law: Any) -> str:  # noqa: ANN401 - the message of any law
    match kind:
        case "literal" | "permutation":
            return kind
        case "parts":
            boxes = [_text_of_recipe(part.recipe) for part in law.parts]
            shown = [*boxes[:_LISTED], *(["…"] if len(boxes) > _LISTED else [])]
            return f"parts: {len(boxes)} box{'es' * (len(boxes) != 1)}{': ' * bool(boxes)}{', '.join(shown)}"
        case "expression":
            count, formula = len(law.steps), _formula(law.steps)
            return f"expression of {count} step{'s' * (count != 1)}{f': {formula}' if formula else ''}"
    fields = [field for field in law.DESCRIPTOR.fields if not field.enum_type and _is_told(field, law)]
    return f"{kind}({', '.join(f'{field.name}={getattr(law, field.name):.6g}' for field in fields)})"


def _is_told(field: Any, law: Any) -> bool:  # noqa: ANN401 - the message of any law
    """Whether a parameter is set, and no axis that is the usual one."""
    return law.HasField(field.name) if field.has_presence else field.name != "axis" or bool(law.axis)


def _text_of_recipe(recipe: Recipe) -> str:
    kind = recipe.WhichOneof("scheme") or "nothing"
    text = _text(kind, getattr(recipe, kind))
    return f"({text})" if kind in ("parts", "expression") else text


def _formula(steps: Sequence[Step]) -> str:
    """Returns what the last step is, such as ``log of uniform(a=1, b=16)``; nothing if that is long."""
    if len(steps) > _SHORT:
        return ""
    texts: list[str] = []
    for step in steps:
        arguments = " and ".join(texts[argument] for argument in step.arguments)
        texts.append(f"{_operation(step)} of {arguments}" if arguments else _operation(step))
        if len(texts[-1]) > _LONGEST:
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
    """Returns what two tensors have in common whose values have the same distribution."""
    kind = description.law.WhichOneof("law")
    if kind in ("parts", "literal", "expression"):
        return text(description), description.spec.dtype, ()
    shape = tuple(description.spec.shape) if kind in ("orthogonal", "sparse", "eye", "dirac", "permutation") else ()
    return description.law.SerializeToString(deterministic=True), description.spec.dtype, shape


def atoms(description: TensorDescription) -> tuple[float, ...]:
    """Returns the values that have a probability of their own, as the tensor's type holds them."""
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
    """Returns the mean and the standard deviation of the law; None for eye, dirac and recipes: they are many laws."""
    law, shape = description.law, list(description.spec.shape)
    match law.WhichOneof("law"):
        case "constant":
            return law.constant.val, 0.0
        case "uniform":
            return (law.uniform.a + law.uniform.b) / 2, (law.uniform.b - law.uniform.a) / math.sqrt(12)
        case "normal":
            return law.normal.mean, law.normal.std * _of_part(description)
        case "disk":
            return 0.0, _disk_std(law.disk) * math.sqrt(0.5)
        case "trunc_normal":
            x, y = _trunc_normal(description, _ALL, 10 * _POINTS)
            mean = _integral(x * y, x)
            return mean, math.sqrt(_integral((x - mean) ** 2 * y, x))
        case "orthogonal":
            return 0.0, law.orthogonal.gain / math.sqrt(_longer_side(law.orthogonal, shape))
        case "sparse":
            return 0.0, law.sparse.std * math.sqrt(_filled(law.sparse.sparsity, shape))
        case "permutation":
            count = math.prod(shape)
            return max(count - 1, 0) / 2, math.sqrt(max(count * count - 1, 0) / 12)
    return None


def curve(description: TensorDescription) -> Curve | None:  # noqa: PLR0911 - one for each law
    """Returns the density; None if the law has none, or one with poles."""
    law, shape = description.law, list(description.spec.shape)
    match law.WhichOneof("law"):
        case "uniform":
            a, b = law.uniform.a, law.uniform.b
            return _closed(np.array([a, b]), np.full(2, 1 / (b - a)))
        case "normal":
            return _normal(law.normal.mean, law.normal.std * _of_part(description))
        case "disk":
            return _closed(*_disk(law.disk))
        case "trunc_normal":
            return _closed(*_trunc_normal(description, _SHOWN, _POINTS))
        case "orthogonal":
            return _orthogonal(law.orthogonal.gain, _longer_side(law.orthogonal, shape))
        case "sparse":
            normal = _normal(0.0, law.sparse.std)
            filled = _filled(law.sparse.sparsity, shape)
            return Curve(normal.x, filled * normal.y) if filled > 0 else None
        case "permutation" if count := math.prod(shape):
            return _closed(np.array([-0.5, count - 0.5]), np.full(2, 1 / count))
    return None


def is_complex(description: TensorDescription) -> bool:
    """Returns whether the values are complex numbers."""
    return description.spec.dtype == DataType.DATA_TYPE_COMPLEX64


def _of_part(description: TensorDescription) -> float:
    """A part's share of a normal's standard deviation."""
    return math.sqrt(0.5) if is_complex(description) else 1.0


def _disk_std(law: Disk) -> float:
    """The root of the mean of |x|^2."""
    if not law.HasField("std"):
        return law.radius * math.sqrt(0.5)
    beyond = (law.radius / law.std) ** 2  # |x|^2 is exponential, up to here
    kept = -math.expm1(-beyond)
    return law.std * math.sqrt(max(1 - beyond * math.exp(-beyond) / kept, 0.0))


def _disk(law: Disk) -> tuple[Array, Array]:
    """The density of the real part: along the chord at each, the density of the disk is added up."""
    x = law.radius * np.sin(np.linspace(-np.pi / 2, np.pi / 2, _POINTS))
    chord = np.sqrt(np.maximum(law.radius**2 - x * x, 0))
    if law.HasField("std"):
        if law.radius > _SHOWN * law.std:
            x = np.linspace(-_SHOWN, _SHOWN, _POINTS) * law.std
            chord = np.sqrt(law.radius**2 - x * x)
        chord = np.exp(-((x / law.std) ** 2)) * np.array([math.erf(half) for half in chord / law.std])
    return x, chord / _integral(chord, x)


def _rounded(value: float, dtype: int) -> float:
    # The 16-bit types are the float32 tensor rounded, hence twice.
    base = np.float64(value) if dtype == DataType.DATA_TYPE_FLOAT64 else np.float32(value)
    return float(base.astype(dtypes.numpy_dtype(dtype)).real)


def _normal(mean: float, std: float) -> Curve:
    z = np.linspace(-_SHOWN, _SHOWN, _POINTS)
    return Curve(mean + std * z, np.exp(-z * z / 2) / (std * math.sqrt(2 * math.pi)))


def _trunc_normal(description: TensorDescription, sigmas: float, points: int) -> tuple[Array, Array]:
    """Normalised numerically, which holds where the terms of the closed form underflow."""
    law = description.law.trunc_normal
    peak = min(max(law.mean, law.a), law.b)
    distance = abs(peak - law.mean) / law.std
    # Far out, the density falls off within std / distance of the bound.
    reach = law.std * min(sigmas, 4 * sigmas / max(distance, 1e-9))
    x = np.linspace(max(law.a, peak - reach), min(law.b, peak + reach), points)
    z = np.abs(x - law.mean) / law.std
    return _normalised(x, -(z - distance) * (z + distance) / 2)


def _orthogonal(gain: float, n: int) -> Curve | None:
    """A row (or column) is uniform on the sphere in ``n`` dimensions; this is the density of one coordinate."""
    if n < 2:
        return None  # +-gain
    if n == 2:
        t = np.linspace(-0.995, 0.995, _POINTS)  # not up to the poles of the arcsine law
        return _closed(gain * t, 1 / (math.pi * gain * np.sqrt(1 - t * t)))
    limit = min(1.0, _SHOWN / math.sqrt(n))
    t = np.linspace(-limit, limit, _POINTS)
    with np.errstate(divide="ignore"):
        log_density = (n - 3) / 2 * np.log1p(-t * t) if n > 3 else np.zeros_like(t)
    return _closed(*_normalised(gain * t, log_density))


def _longer_side(law: Orthogonal, shape: list[int]) -> int:
    """Of the matrix's rows and columns, the more."""
    rows = shape[law.axis]
    return max(rows, math.prod(shape) // max(rows, 1), 1)


def _filled(sparsity: float, shape: list[int]) -> float:
    rows = max(shape[0], 1)
    return 1 - math.ceil(sparsity * rows) / rows


def _normalised(x: Array, log_density: Array) -> tuple[Array, Array]:
    y = np.exp(log_density - log_density.max())
    return x, y / _integral(y, x)


def _integral(y: Array, x: Array) -> float:
    return float(np.sum((y[1:] + y[:-1]) * np.diff(x)) / 2)


def _closed(x: Array, y: Array) -> Curve:
    return Curve(np.concatenate((x[:1], x, x[-1:])), np.concatenate(([0.0], y, [0.0])))
