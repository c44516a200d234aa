"""Recipes in plain Python, one element after the other: the contents of parts, streams, permutations and expressions.

It follows docs/stream-v1.md. It shares only one thing with the engine: the draws of a named tensor of one scheme, whose
laws are tested elsewhere, because a recipe's elements *are* those of such a tensor. Arithmetic is that of Python's
floats. Functions are mpmath's, rounded to the nearest float64; the engine's may be 1 ulp away.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import mpmath
import numpy as np

from evidence import plain_laws
from evidence.elementary import BITS, EXACT
from seedbed.v1 import (
    Assembly,
    DataType,
    Expression,
    Function,
    Part,
    Parts,
    Recipe,
    Reducer,
    Reduction,
    Step,
    TensorSpec,
    View,
)
from seedbed_server import engine

Shape = tuple[int, ...]
Values = list[float]

_NO_DRAWS = ("ones", "zeros", "constant", "eye", "dirac", "literal")
_FORMATS = {
    DataType.DATA_TYPE_FLOAT32: (24, -126, 127, "<f"),
    DataType.DATA_TYPE_FLOAT16: (11, -14, 15, "<e"),
    DataType.DATA_TYPE_BFLOAT16: (8, -126, 127, ""),
    DataType.DATA_TYPE_FLOAT64: (53, -1022, 1023, "<d"),
}
"""The precision of each type in bits, its smallest and its largest exponent, and its code in `struct`."""


def tensor(spec: TensorSpec) -> Values:
    """All elements of a tensor, in row-major order."""
    stream = spec.stream or spec.name
    dtype = spec.dtype or DataType.DATA_TYPE_FLOAT32
    return _made(spec, _Tensor(spec.seed, tuple(spec.shape), dtype), _Count(stream))


class _Tensor(NamedTuple):
    """The tensor of a recipe."""

    seed: int
    shape: Shape
    dtype: int


class _Count:
    """Assigns streams to recipes that draw: ``w``, then ``w#1``, ``w#2`` and so on."""

    def __init__(self, stream: str) -> None:
        self._streams = itertools.chain([stream], (f"{stream}#{n}" for n in itertools.count(1)))

    def stream(self) -> str:
        return next(self._streams)


def _made(recipe: Recipe | TensorSpec, whole: _Tensor, count: _Count) -> Values:
    """The elements of a recipe; a tensor's spec is one, too."""
    scheme = recipe.WhichOneof("scheme")
    if scheme in ("parts", "expression"):
        within = _Count(recipe.stream) if recipe.stream else count
        if scheme == "parts":
            return _parts(recipe.parts, whole, within)
        return _expression(recipe.expression, whole, within)
    if scheme == "literal":
        return _literal(recipe.literal.data, whole.dtype)
    stream = "" if scheme in _NO_DRAWS else recipe.stream or count.stream()
    if scheme == "permutation":
        return [float(place) for place in permutation(whole.seed, stream, math.prod(whole.shape))]
    return _drawn(recipe, whole, stream)


def _drawn(recipe: Recipe | TensorSpec, whole: _Tensor, stream: str) -> Values:
    """The elements of the tensor with this name, as the engine draws them."""
    spec = TensorSpec(name=stream, seed=whole.seed, shape=whole.shape)
    spec.dtype = whole.dtype  # type: ignore[assignment]
    scheme = recipe.WhichOneof("scheme")
    assert scheme is not None
    getattr(spec, scheme).CopyFrom(getattr(recipe, scheme))
    out = np.empty(math.prod(whole.shape), engine.numpy_dtype(whole.dtype))
    engine.open_backend("numpy", threads=1).fill(engine.describe(spec), 0, out)
    values: Values = out.astype(np.float64).tolist()
    return values


def _literal(data: bytes, dtype: int) -> Values:
    if dtype == DataType.DATA_TYPE_BFLOAT16:  # the upper halves of float32
        halves = struct.iter_unpack("<H", data)
        return [struct.unpack("<f", struct.pack("<I", half << 16))[0] for (half,) in halves]
    return [value for (value,) in struct.iter_unpack(_FORMATS[dtype][3], data)]  # type: ignore[index]


def _inner(recipe: Recipe, whole: _Tensor, shape: Shape, dtype: int, count: _Count) -> tuple[Shape, Values]:
    """The shape and the elements of a recipe within a tensor; shape and dtype are these by default."""
    made = _Tensor(whole.seed, tuple(recipe.shape) or shape, recipe.dtype or dtype)
    return made.shape, _made(recipe, made, count)


# Parts.


def _parts(parts: Parts, whole: _Tensor, count: _Count) -> Values:
    out = [0.0] * math.prod(whole.shape)
    for part in parts.parts:
        box = _box(part, whole.shape)
        shape, values = _inner(part.recipe, whole, tuple(box.shape), whole.dtype, count)
        for at, value in zip(elements(box), broadcast(values, shape, tuple(box.shape)), strict=True):
            out[at] = rounded(value, whole.dtype)
    return out


def _box(part: Part, shape: Shape) -> View:
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    if part.WhichOneof("box") == "view":
        return part.view
    if part.WhichOneof("box") == "region":
        start, stop = part.region.start, part.region.stop
        extent = [high - low for low, high in zip(start, stop, strict=True)]
        return View(shape=extent, strides=strides, offset=sum(map(math.prod, zip(start, strides, strict=True))))
    return View(shape=shape, strides=strides)


def elements(view: View) -> Iterator[int]:
    """The flat indices of a view, in its row-major order."""
    for index in itertools.product(*map(range, view.shape)):
        yield view.offset + sum(i * stride for i, stride in zip(index, view.strides, strict=True))


def broadcast(values: Sequence[float], shape: Shape, target: Shape) -> Values:
    """The values in another shape, by NumPy's rule."""
    aligned = (1,) * (len(target) - len(shape)) + shape
    strides = [0 if size == 1 else math.prod(aligned[axis + 1 :]) for axis, size in enumerate(aligned)]
    return [values[at] for at in elements(View(shape=target, strides=strides))]


def rounded(value: float, dtype: int) -> float:
    """The nearest value of a type, ties to even, by exact fractions."""
    if value == 0 or not math.isfinite(value):
        return value
    precision, smallest, largest, _ = _FORMATS[dtype]  # type: ignore[index]
    spacing = Fraction(2) ** (max(math.frexp(value)[1] - 1, smallest) - (precision - 1))
    found = round(Fraction(value) / spacing) * spacing  # `round` rounds ties to even
    if abs(found) >= Fraction(2) ** (largest + 1):
        return math.copysign(math.inf, value)
    return math.copysign(float(found), value)


# Permutations.


def permutation(seed: int, stream: str, count: int) -> list[int]:
    """The place of each element in a permutation of ``count``."""
    words = plain_laws.source(seed, stream, b"permutation")
    return [plain_laws.place(words, element, count) for element in range(count)]


# Expressions.


def _expression(expression: Expression, whole: _Tensor, count: _Count) -> Values:
    steps: list[tuple[Shape, Values]] = []
    for step in expression.steps:
        steps.append(_step(step, [steps[index] for index in step.arguments], whole, count))
    shape, values = steps[-1]
    return [rounded(value, whole.dtype) for value in broadcast(values, shape, whole.shape)]


def _step(step: Step, arguments: list[tuple[Shape, Values]], whole: _Tensor, count: _Count) -> tuple[Shape, Values]:
    kind = step.WhichOneof("value")
    if kind == "recipe":
        is_wide = whole.dtype == DataType.DATA_TYPE_FLOAT64
        dtype = DataType.DATA_TYPE_FLOAT64 if is_wide else DataType.DATA_TYPE_FLOAT32
        return _inner(step.recipe, whole, whole.shape, dtype, count)
    if kind == "constant":
        return (), [step.constant]
    return _computed(step, arguments)


def _computed(step: Step, arguments: list[tuple[Shape, Values]]) -> tuple[Shape, Values]:
    """A step with arguments."""
    kind = step.WhichOneof("value")
    if kind == "function":
        function = FUNCTIONS[Function.Name(step.function).removeprefix("FUNCTION_").lower()]
        shape = _joined([shape for shape, _ in arguments])
        operands = [broadcast(values, own, shape) for own, values in arguments]
        return shape, [function(*numbers) for numbers in zip(*operands, strict=True)]
    if kind == "assembly":
        return tuple(step.assembly.shape), _assembled(step.assembly, arguments)
    [(shape, values)] = arguments
    if kind == "view":
        return tuple(step.view.shape), [values[at] for at in elements(step.view)]
    if kind == "cast":
        return shape, [rounded(value, step.cast) for value in values]
    return _reduced(step.reduction, shape, values)


def _assembled(assembly: Assembly, arguments: list[tuple[Shape, Values]]) -> Values:
    out = [0.0] * math.prod(assembly.shape)
    for box, (own, values) in zip(assembly.boxes, arguments, strict=True):
        for at, value in zip(elements(box), broadcast(values, own, tuple(box.shape)), strict=True):
            out[at] = value
    return out


def _joined(shapes: Sequence[Shape]) -> Shape:
    """The shape to which all can be broadcast."""
    sizes: list[int] = []
    for axis in range(max(map(len, shapes)), 0, -1):
        extents = [shape[-axis] for shape in shapes if len(shape) >= axis]
        sizes.append(next((size for size in extents if size != 1), 1))
    return tuple(sizes)


def _reduced(reduction: Reduction, shape: Shape, values: Values) -> tuple[Shape, Values]:
    gone = {axis % len(shape) for axis in reduction.axes} if reduction.axes else set(range(len(shape)))
    rows: dict[Shape, Values] = {}
    for index, value in zip(itertools.product(*map(range, shape)), values, strict=True):
        rows.setdefault(tuple(0 if axis in gone else i for axis, i in enumerate(index)), []).append(value)
    p = reduction.p if reduction.HasField("p") else 2.0
    small = tuple(1 if axis in gone else size for axis, size in enumerate(shape))
    return small, [_folded(reduction.reducer, p, row) for row in rows.values()]


def _folded(reducer: int, p: float, row: Values) -> float:
    """Reduces many elements to one; NaNs are not tested."""
    if reducer == Reducer.REDUCER_MAXIMUM:
        return max(row) + 0.0
    if reducer == Reducer.REDUCER_MINIMUM:
        return min(row) + 0.0
    if reducer == Reducer.REDUCER_NORM:
        return _norm(row, p)
    return _added(row) / len(row) if reducer == Reducer.REDUCER_MEAN else _added(row)


def _norm(row: Values, p: float) -> float:
    if p == 1:
        return _added([abs(x) for x in row])
    if p == 2:
        return math.sqrt(_added([x * x for x in row]))
    power = FUNCTIONS["power"]
    return power(_added([power(abs(x), p) for x in row]), 1 / p)


def _added(row: Values) -> float:
    total = row[0]
    for x in row[1:]:
        total += x  # not `sum`, which compensates
    return total


def _nearest(function: Callable[..., mpmath.mpf]) -> Callable[..., float]:
    def apply(*numbers: float) -> float:
        with mpmath.workprec(BITS):
            exact = function(*map(mpmath.mpf, numbers))
        with mpmath.workprec(53):
            return float(+exact)

    return apply


FUNCTIONS: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "negate": lambda a: -a,
    "absolute": abs,
    "minimum": lambda a, b: b if b < a else a,
    "maximum": lambda a, b: b if b > a else a,
    "clamp": lambda a, low, high: min(max(a, low), high),
    "less": lambda a, b: float(a < b),
    "less_equal": lambda a, b: float(a <= b),
    "equal": lambda a, b: float(a == b),
    "where": lambda a, b, c: b if a != 0 else c,
    "sqrt": math.sqrt,
    "floor": lambda a: math.copysign(float(math.floor(a)), a),
    "round": lambda a: math.copysign(float(round(a)), a),
    **{name: _nearest(function) for name, function in EXACT.items()},
}
"""The functions, for finite numbers in their domains."""
