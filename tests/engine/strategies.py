"""Hypothesis strategies: valid tensors, and regions of them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from seedbed.v1 import (
    Assembly,
    BoundsUnit,
    Constant,
    DataType,
    DeltaOrthogonal,
    Dirac,
    Disk,
    Distribution,
    Expression,
    Eye,
    FanMode,
    Function,
    Kaiming,
    Literal,
    Nonlinearity,
    Normal,
    Ones,
    Orthogonal,
    Part,
    Parts,
    Permutation,
    Recipe,
    Reducer,
    Reduction,
    Region,
    Sparse,
    Step,
    TensorSpec,
    TruncNormal,
    Uniform,
    VarianceScaling,
    View,
    Xavier,
    Zeros,
)
from seedbed_server.engine import dtypes as engine_dtypes
from seedbed_server.engine.views import row_major

Shape = tuple[int, ...]

COMPLEX64 = DataType.DATA_TYPE_COMPLEX64
dtypes = st.sampled_from(DataType.values()[1:])
real_dtypes = st.sampled_from([dtype for dtype in DataType.values()[1:] if dtype != COMPLEX64])
numbers = st.floats(-100, 100, allow_nan=False)
gains = st.floats(0, 10)
kaiming = st.builds(
    Kaiming,
    a=numbers,
    mode=st.sampled_from([FanMode.FAN_MODE_FAN_IN, FanMode.FAN_MODE_FAN_OUT]),
    nonlinearity=st.sampled_from(Nonlinearity.values()[1:]),
)
bounds = st.tuples(numbers, numbers).map(sorted).filter(lambda pair: pair[1] - pair[0] > 0.5)


def _trunc_normal(pair: list[float], std: float, sigma: bool) -> TruncNormal:
    if sigma:
        return TruncNormal(mean=1.0, std=std, a=-1.5, b=0.5, bounds=BoundsUnit.BOUNDS_UNIT_SIGMA)
    return TruncNormal(mean=sum(pair) / 2, std=std, a=pair[0], b=pair[1])


def _schemes(shape: Shape, dtype: int) -> list[st.SearchStrategy[dict]]:
    """The schemes that are valid for a shape, without recipes, as keyword arguments of TensorSpec."""
    is_complex = dtype == COMPLEX64
    elementwise = {
        "ones": st.builds(Ones),
        "zeros": st.builds(Zeros),
        "constant": st.builds(Constant, val=numbers),
        "uniform": bounds.map(lambda pair: Uniform(a=pair[0], b=pair[1])),
        "normal": st.builds(Normal, mean=st.just(0.0) if is_complex else numbers, std=gains),
        "trunc_normal": st.builds(_trunc_normal, bounds, st.floats(0.1, 10), st.booleans()),
        "disk": st.builds(Disk, radius=st.floats(0.1, 10), std=st.one_of(st.none(), st.floats(0.01, 1.5))),
    }
    if len(shape) >= 2:
        elementwise |= {
            "xavier_uniform": st.builds(Xavier, gain=gains.filter(lambda gain: gain == 0 or gain > 0.01)),
            "xavier_normal": st.builds(Xavier, gain=gains),
            "kaiming_uniform": kaiming,
            "kaiming_normal": kaiming,
            "orthogonal": st.builds(Orthogonal, gain=gains, axis=st.integers(-len(shape), len(shape) - 1)),
            "variance_scaling": st.builds(
                VarianceScaling,
                scale=st.floats(0.01, 10),
                mode=st.sampled_from(FanMode.values()[1:]),
                distribution=st.sampled_from(Distribution.values()[1:]),
            ),
        }
    if len(shape) == 2:
        elementwise |= {"eye": st.builds(Eye), "sparse": st.builds(Sparse, sparsity=st.floats(0, 1), std=gains)}
    if len(shape) in (3, 4, 5):
        groups = [n for n in range(1, shape[0] + 1) if shape[0] % n == 0] or [1]
        elementwise["dirac"] = st.builds(Dirac, groups=st.sampled_from(groups))
        pairs = [(i, o) for i, o in itertools.permutations(range(len(shape)), 2) if shape[i] <= shape[o]]
        axes = st.sampled_from(pairs).flatmap(
            lambda pair: st.builds(DeltaOrthogonal, gain=gains, in_axis=st.just(pair[0]), out_axis=st.just(pair[1]))
        )
        elementwise["delta_orthogonal"] = axes
    if math.prod(shape) <= engine_dtypes.largest_exact_integer(dtype):
        elementwise["permutation"] = st.builds(Permutation)
    for scheme in _NOT_COMPLEX if is_complex else ("disk",):
        elementwise.pop(scheme, None)
    return [parameters.map(lambda message, name=name: {name: message}) for name, parameters in elementwise.items()]


_NOT_COMPLEX = ("trunc_normal", "orthogonal", "delta_orthogonal", "sparse", "permutation")


def _composites(shape: Shape, dtype: int, depth: int) -> list[st.SearchStrategy[dict]]:
    """The schemes that contain recipes, nested at most ``depth`` deep."""
    literal = st.integers(0, 9).map(lambda seed: {"literal": _literal(shape, dtype, seed)})
    if not depth:
        return [literal]
    parts = _parts(shape, dtype, depth).map(lambda parts: {"parts": parts})
    if dtype == COMPLEX64:
        return [literal, parts]
    expression = _expressions(shape, dtype, depth).map(lambda expression: {"expression": expression})
    return [literal, parts, expression]


def _literal(shape: Shape, dtype: int, seed: int) -> Literal:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(math.prod(shape))
    if dtype == COMPLEX64:
        values = values + 1j * rng.standard_normal(math.prod(shape))
    return Literal(data=values.astype(engine_dtypes.numpy_dtype(dtype)).tobytes())


@st.composite
def _recipes(draw: st.DrawFn, shape: Shape, dtype: int, depth: int) -> Recipe:
    """A recipe of this shape and dtype, or of others that are broadcast and rounded to them."""
    recipe = Recipe(stream=draw(st.sampled_from(["", "", "", "other", "wq"])))
    if shape and draw(st.booleans()):
        shape = draw(_smaller(shape))
        recipe.shape.extend(shape)
    if dtype != COMPLEX64 and draw(st.integers(0, 3)) == 0:
        recipe.dtype = dtype = draw(real_dtypes)
    schemes = _schemes(shape, dtype) + _composites(shape, dtype, depth - 1)
    [(name, message)] = draw(st.one_of(schemes)).items()
    getattr(recipe, name).CopyFrom(message)
    return recipe


@st.composite
def _smaller(draw: st.DrawFn, shape: Shape) -> Shape:
    """A shape that broadcasts to this one."""
    missing = draw(st.integers(0, len(shape) - 1))
    return tuple(1 if draw(st.integers(0, 2)) == 0 else size for size in shape[missing:])


@st.composite
def views(draw: st.DrawFn, shape: Shape, is_injective: bool = True) -> View:
    """A view that reshapes, permutes axes, cuts, flips, steps, takes a diagonal, and possibly repeats elements."""
    if draw(st.booleans()):
        shape = draw(st.sampled_from([(math.prod(shape),), *_splits(shape)]))
    axes = [[size, stride] for size, stride in zip(shape, row_major(shape), strict=True)]
    if len(axes) > 1 and draw(st.integers(0, 3)) == 0:
        (size, stride), (other, step) = axes.pop(), axes.pop()
        axes.append([min(size, other), stride + step])
    offset = 0
    for axis in axes:
        start, stop = sorted(draw(st.tuples(st.integers(0, axis[0]), st.integers(0, axis[0]))))
        step = draw(st.integers(1, 3)) if stop > start else 1
        axis[0], offset = -(-(stop - start) // step), offset + start * axis[1]
        axis[1] *= step
        if axis[0] and draw(st.booleans()):
            offset += (axis[0] - 1) * axis[1]
            axis[1] *= -1
    axes = draw(st.permutations(axes))
    if not is_injective and draw(st.booleans()):
        axes.insert(draw(st.integers(0, len(axes))), [draw(st.integers(1, 3)), 0])
    return View(shape=[size for size, _ in axes], strides=[stride for _, stride in axes], offset=offset)


def _splits(shape: Shape) -> list[Shape]:
    """The shapes with one axis split in two."""
    return [
        (*shape[:axis], size // part, part, *shape[axis + 1 :])
        for axis, size in enumerate(shape)
        for part in (2, 3, 5)
        if size and size % part == 0
    ]


@st.composite
def _parts(draw: st.DrawFn, shape: Shape, dtype: int, depth: int) -> Parts:
    parts = Parts()
    for _ in range(draw(st.integers(0, 3))):
        part, box = Part(), shape
        kind = draw(st.sampled_from(["all", "region", "view"]))
        if kind == "region":
            start, stop = draw(regions(shape))
            part.region.CopyFrom(Region(start=start, stop=stop))
            box = tuple(high - low for low, high in zip(start, stop, strict=True))
        elif kind == "view":
            part.view.CopyFrom(draw(views(shape)))
            box = tuple(part.view.shape)
        part.recipe.CopyFrom(draw(_recipes(box, dtype, depth)))
        parts.parts.append(part)
    return parts


# The domain of each argument, on which all functions are finite, with values small enough for later steps.
_ANY = (-1e3, 1e3)
_DOMAINS: dict[str, list[tuple[float, float]]] = {
    **{
        name: [_ANY]
        for name in ["NEGATE", "ABSOLUTE", "SIN", "COS", "TANH", "SIGMOID", "SOFTPLUS", "ERF", "FLOOR", "ROUND"]
    },
    **{
        name: [_ANY] * 2
        for name in ["ADD", "SUBTRACT", "MULTIPLY", "MINIMUM", "MAXIMUM", "LESS", "LESS_EQUAL", "EQUAL"]
    },
    **{name: [_ANY] * 3 for name in ["CLAMP", "WHERE"]},
    **{name: [(-20.0, 9.0)] for name in ["EXP", "EXPM1"]},
    **{name: [(1e-3, 1e3)] for name in ["RSQRT", "LOG"]},
    "SQRT": [(0.0, 1e3)],
    "LOG1P": [(-0.99, 1e3)],
    "ERFINV": [(-0.999, 0.999)],
    "DIVIDE": [_ANY, (0.01, 1e3)],
    "POWER": [(0.01, 100.0), (-2.0, 2.0)],
}


class _Steps:
    """An expression under construction: its steps, and the shape of each."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.shapes: list[Shape] = []

    def add(self, shape: Shape, *arguments: int, **value: Any) -> int:
        self.steps.append(Step(arguments=arguments, **value))
        self.shapes.append(shape)
        return len(self.steps) - 1

    def clamped(self, index: int, low: float, high: float) -> int:
        bounds = [self.add((), constant=bound) for bound in (low, high)]
        return self.add(self.shapes[index], index, *bounds, function=Function.FUNCTION_CLAMP)

    def fits(self, shape: Shape, to: Shape | None) -> bool:
        """Whether a shape can be broadcast with another, or to it."""
        try:
            return to is None or np.broadcast_shapes(shape, to) is not None
        except ValueError:
            return False


@st.composite
def _expressions(draw: st.DrawFn, shape: Shape, dtype: int, depth: int) -> Expression:
    made = _Steps()
    leaf_dtype = DataType.DATA_TYPE_FLOAT64 if dtype == DataType.DATA_TYPE_FLOAT64 else DataType.DATA_TYPE_FLOAT32
    recipe = draw(_recipes(shape, leaf_dtype, depth))
    made.add(tuple(recipe.shape) or shape, recipe=recipe)
    for kind in draw(st.lists(st.sampled_from(sorted(_STEPS)), max_size=6)):
        _STEPS[kind](draw, made)
    last = made.clamped(len(made.steps) - 1, -1e4, 1e4)  # within float16
    size = math.prod(made.shapes[last])
    if not _is_broadcast(made.shapes[last], shape):
        offset = draw(st.integers(0, size - 1)) if size else 0
        made.add((), last, view=View(offset=offset)) if size else made.add((), constant=1.0)
    return Expression(steps=made.steps)


def _is_broadcast(shape: Shape, to: Shape) -> bool:
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False


def _add_constant(draw: st.DrawFn, made: _Steps) -> None:
    made.add((), constant=draw(numbers))


def _add_function(draw: st.DrawFn, made: _Steps) -> None:
    name = draw(st.sampled_from(sorted(_DOMAINS)))
    shape: Shape = ()
    arguments = []
    for low, high in _DOMAINS[name]:
        fitting = [index for index, other in enumerate(made.shapes) if made.fits(other, shape)]
        index = draw(st.sampled_from(fitting))
        shape = np.broadcast_shapes(shape, made.shapes[index])
        arguments.append(made.clamped(index, low, high))
    made.add(shape, *arguments, function=Function.Value(f"FUNCTION_{name}"))


def _add_view(draw: st.DrawFn, made: _Steps) -> None:
    index = draw(st.integers(0, len(made.steps) - 1))
    view = draw(views(made.shapes[index], is_injective=False))
    made.add(tuple(view.shape), index, view=view)


def _add_assembly(draw: st.DrawFn, made: _Steps) -> None:
    shape = draw(st.lists(st.integers(0, 8), min_size=1, max_size=3).map(tuple))
    boxes, arguments = [], []
    for _ in range(draw(st.integers(0, 3))):
        box = draw(views(shape))
        fitting = [index for index, other in enumerate(made.shapes) if _is_broadcast(other, tuple(box.shape))]
        if fitting:
            boxes.append(box)
            arguments.append(draw(st.sampled_from(fitting)))
    made.add(shape, *arguments, assembly=Assembly(shape=shape, boxes=boxes))


def _add_reduction(draw: st.DrawFn, made: _Steps) -> None:
    index = draw(st.sampled_from([index for index, shape in enumerate(made.shapes) if math.prod(shape)] or [-1]))
    if index < 0:
        return
    shape = made.shapes[index]
    axes = draw(st.lists(st.integers(0, len(shape) - 1), unique=True)) if shape else []
    kept = tuple(1 if not axes or axis in axes else size for axis, size in enumerate(shape))
    reducer = draw(st.sampled_from(Reducer.values()[1:]))
    p = draw(st.sampled_from([0.5, 1.0, 2.0, 3.0]))
    limited = made.clamped(index, *_ANY)
    made.add(kept, limited, reduction=Reduction(reducer=reducer, axes=axes, p=p))


def _add_cast(draw: st.DrawFn, made: _Steps) -> None:
    index = draw(st.integers(0, len(made.steps) - 1))
    limited = made.clamped(index, -1e4, 1e4)
    made.add(made.shapes[limited], limited, cast=draw(real_dtypes))


_STEPS = {
    "constant": _add_constant,
    "function": _add_function,
    "view": _add_view,
    "assembly": _add_assembly,
    "reduction": _add_reduction,
    "cast": _add_cast,
}

_MOST_COMPOSITE = 500
"""The most elements of a tensor of recipes: each piece is planned again, and may have one element."""


@st.composite
def specs(draw: st.DrawFn, most_elements: int = 3000) -> TensorSpec:
    """Tensors of few elements; every third of the small ones contains recipes."""
    shape = draw(
        st.lists(st.integers(0, 40), max_size=5).map(tuple).filter(lambda shape: math.prod(shape) <= most_elements)
    )
    dtype = draw(dtypes)
    is_composite = math.prod(shape) <= _MOST_COMPOSITE and draw(st.integers(0, 2)) == 0
    return TensorSpec(
        name=draw(st.text(max_size=8)),
        stream=draw(st.sampled_from(["", "", "", "wq"])),
        shape=shape,
        dtype=dtype,
        seed=draw(st.integers(0, 2**64 - 1)),
        **draw(st.one_of(_composites(shape, dtype, 2) if is_composite else _schemes(shape, dtype))),
    )


@st.composite
def regions(draw: st.DrawFn, shape: Shape) -> tuple[list[int], list[int]]:
    """Regions of a shape, as (start, stop)."""
    pairs = [sorted(draw(st.tuples(st.integers(0, size), st.integers(0, size)))) for size in shape]
    return [start for start, _ in pairs], [stop for _, stop in pairs]


@st.composite
def specs_with_regions(draw: st.DrawFn) -> tuple[TensorSpec, tuple[list[int], list[int]]]:
    spec = draw(specs())
    return spec, draw(regions(tuple(spec.shape)))
