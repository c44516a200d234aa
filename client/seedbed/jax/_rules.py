"""JAX's primitives on drawn values: a rule for each that a recipe can describe."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from seedbed._record.boxes import Box, Shape, box_by, row_major, whole
from seedbed._record.nodes import Apply, Boxes, Full, Node, Problem, Reduce, is_drawn, with_dtype
from seedbed._types import Array
from seedbed.jax import _nodes
from seedbed.jax._nodes import BOOL, Draw, DType, apply, cast, viewed

_NOT_HAAR = "uses a QR decomposition otherwise than as `q * sign(diagonal(r))`, which is uniform by Haar's measure"


class Call(NamedTuple):
    """One equation, of whose arguments some are drawn."""

    bind: Callable[..., Any]
    """Computes the primitive on known arrays."""
    parameters: dict[str, Any]
    arguments: tuple[Node, ...]
    shape: Shape
    dtype: DType
    drawings: _nodes.Drawings

    def problem(self, text: str) -> Problem:
        return Problem(self.shape, self.dtype, text)


Rule: TypeAlias = Callable[[Call], Node]


def _function(name: str) -> Rule:
    return lambda call: apply(name, *call.arguments, dtype=call.dtype)


def _formula(function: Callable[..., Node]) -> Rule:
    return lambda call: with_dtype(function(*call.arguments), call.dtype)


def _multiply(call: Call) -> Node:
    a, b = call.arguments
    for factor, other in ((a, b), (b, a)):
        if isinstance(factor, _nodes.Factor) and isinstance(other, _nodes.Signs):
            law = _nodes.uniform_matrices(factor, other, call.drawings)
            return law or call.problem(_NOT_HAAR)
        if isinstance(factor, _nodes.Angle) and not factor.is_logarithm and factor.angle is not None:
            modulus = _nodes.as_real(other)
            law = None if modulus is None else _nodes.disk(modulus, factor.angle, call.drawings)
            return law or call.problem(_nodes.NOT_COMPLEX)
        if call.dtype.kind == "c" and isinstance(other, Full) and not other.value.real and other.value.imag:
            angle = _nodes.as_real(factor)
            if isinstance(angle, Draw) and _is_round(angle, other.value.imag):
                return _nodes.Angle(call.shape, call.dtype, _nodes.NOT_COMPLEX, angle=angle)
    return apply("multiply", a, b, dtype=call.dtype)


def _is_round(draw: Draw, factor: float) -> bool:
    """Whether the angles of a draw, times a factor, are uniform on the circle."""
    if draw.scheme != "uniform":
        return False
    span: float = abs(factor) * (draw.parameters["b"] - draw.parameters["a"]) / (2 * math.pi)
    return abs(span - round(span)) < 1e-5 and round(span) >= 1


def _exp(call: Call) -> Node:
    (x,) = call.arguments
    if isinstance(x, _nodes.Angle) and x.is_logarithm:
        return dataclasses.replace(x, is_logarithm=False)
    return apply("exp", x, dtype=call.dtype)


def _sign(call: Call) -> Node:
    (x,) = call.arguments
    if isinstance(x, _nodes.Signs):
        return x
    up, down = apply("less", 0.0, x, dtype=call.dtype), apply("less", x, 0.0, dtype=call.dtype)
    return apply("subtract", up, down, dtype=call.dtype)


def _power(call: Call) -> Node:
    base, exponent = call.arguments
    if isinstance(exponent, Full) and exponent.value == 0.5:
        return apply("sqrt", base, dtype=call.dtype)
    return apply("power", base, exponent, dtype=call.dtype)


def _integer_power(call: Call) -> Node:
    (x,) = call.arguments
    exponent = int(call.parameters["y"])
    if exponent == 1:
        return x
    if exponent == 2:
        return apply("multiply", x, x, dtype=call.dtype)
    return apply("power", x, float(exponent), dtype=call.dtype)


def _divide(call: Call) -> Node:
    if call.dtype not in _nodes.FLOATS and call.dtype.kind != "c":
        return call.problem("divides drawn integers")
    a, b = call.arguments
    if isinstance(b, Full) and b.value == 0:
        return call.problem("divides by 0")
    return apply("divide", a, b, dtype=call.dtype)


def _round(call: Call) -> Node:
    (x,) = call.arguments
    if int(call.parameters["rounding_method"]) == 1:
        return apply("round", x, dtype=call.dtype)
    away = apply("floor", apply("add", apply("absolute", x), 0.5))
    return apply("multiply", away, _sign(call), dtype=call.dtype)


def _select(call: Call) -> Node:
    predicate, *cases = call.arguments
    if predicate.dtype != BOOL or len(cases) != 2:
        return call.problem("selects among several cases by drawn numbers")
    if isinstance(predicate, Full):
        return viewed(cases[int(predicate.value)], whole(call.shape))
    return apply("where", predicate, cases[1], cases[0], dtype=call.dtype)


def _logical(function: Callable[..., Node]) -> Rule:
    def rule(call: Call) -> Node:
        if call.dtype != BOOL:
            return call.problem("works on the bits of drawn integers")
        return function(*call.arguments)

    return rule


def _not(x: Node) -> Node:
    return apply("subtract", 1.0, x, dtype=BOOL)


def _compare(function: str, *, is_turned: bool = False, is_negated: bool = False) -> Rule:
    def rule(call: Call) -> Node:
        arguments = call.arguments[::-1] if is_turned else call.arguments
        result = apply(function, *arguments, dtype=BOOL)
        return _not(result) if is_negated else result

    return rule


def _convert(call: Call) -> Node:
    (x,) = call.arguments
    return cast(x, call.dtype)


def _clamp(call: Call) -> Node:
    low, x, high = call.arguments
    return apply("clamp", x, low, high, dtype=call.dtype)


def _reduce_precision(call: Call) -> Node:
    bits = call.parameters["exponent_bits"], call.parameters["mantissa_bits"]
    types = {(8, 23): "float32", (8, 7): "bfloat16", (5, 10): "float16", (11, 52): "float64"}
    if bits not in types:
        return call.problem("rounds drawn numbers to a type that is not served")
    return cast(cast(call.arguments[0], np.dtype(types[bits])), call.dtype)


# Movement of elements.


def _reshaped(call: Call) -> Node:
    return viewed(call.arguments[0], whole(call.shape))


def _transposed(call: Call) -> Node:
    (x,) = call.arguments
    strides = row_major(x.shape)
    return viewed(x, Box(call.shape, tuple(strides[axis] for axis in call.parameters["permutation"])))


def _broadcast(call: Call) -> Node:
    x = call.arguments[0]
    strides = [0] * len(call.shape)
    for axis, size, stride in zip(call.parameters["broadcast_dimensions"], x.shape, row_major(x.shape), strict=True):
        strides[int(axis)] = stride if size > 1 else 0
    return viewed(x, Box(call.shape, tuple(strides)))


def _sliced(call: Call) -> Node:
    (x,) = call.arguments
    starts, limits = call.parameters["start_indices"], call.parameters["limit_indices"]
    steps = call.parameters["strides"] or (1,) * len(starts)
    return _slice(x, tuple(map(slice, starts, limits, steps)))


def _slice(x: Node, slices: tuple[slice, ...]) -> Node:
    return viewed(x, box_by(x.shape, lambda array: array[(*slices, ...)]))


def _reversed(call: Call) -> Node:
    (x,) = call.arguments
    turned = call.parameters["dimensions"]
    return _slice(x, tuple(slice(None, None, -1 if axis in turned else 1) for axis in range(len(x.shape))))


def _concatenated(call: Call) -> Node:
    axis, start, parts = call.parameters["dimension"], 0, []
    for x in call.arguments:
        slices = (slice(None),) * axis + (slice(start, start + x.shape[axis]),)
        parts.append((box_by(call.shape, lambda array, slices=slices: array[(*slices, ...)]), x))  # type: ignore[misc]
        start += x.shape[axis]
    return _nodes.boxes(call.shape, call.dtype, parts)


def _stacked(call: Call) -> Node:
    axis = call.parameters["axis"]
    stack = _nodes.stacked(call.arguments, call.drawings)
    strides = list(row_major(stack.shape))
    strides.insert(axis, strides.pop(0))
    return viewed(stack, Box(call.shape, tuple(strides)))


def _tiled(call: Call) -> Node:
    (x,) = call.arguments
    strides = row_major(x.shape)
    extents = [extent for pair in zip(call.parameters["reps"], x.shape, strict=True) for extent in pair]
    steps = [step for stride in strides for step in (0, stride)]
    return viewed(viewed(x, Box(tuple(extents), tuple(steps))), whole(call.shape))


def _padded(call: Call) -> Node:
    x, around = call.arguments
    outer, inner = [], []
    for size, (low, high, interior) in zip(x.shape, call.parameters["padding_config"], strict=True):
        step = interior + 1
        if interior and (low < 0 or high < 0):
            return call.problem("pads drawn numbers by a negative amount, with others between them")
        first = max(0, -low)
        last = size - max(0, -high)
        if last <= first:
            return viewed(around, Box(call.shape, (0,) * len(call.shape)))
        inner.append(slice(first, last))
        outer.append(slice(max(low, 0), max(low, 0) + (last - first - 1) * step + 1, step))
    placed = box_by(call.shape, lambda array: array[(*outer, ...)])
    base = viewed(around, Box(call.shape, (0,) * len(call.shape)))
    return _nodes.boxes(call.shape, call.dtype, [(whole(call.shape), base), (placed, _slice(x, tuple(inner)))])


_MOST_INDICES = 1 << 24


class _Places(NamedTuple):
    """The positions that elements come from or go to: those at the start of each slice that is taken whole."""

    of: Array
    slices: dict[int, tuple[int, int]]
    """The extent of each such axis of the result, and its stride in the array."""

    @classmethod
    def found(cls, numbers: Array, small: Shape, shape: Shape, slices: dict[int, int]) -> _Places:
        """Positions in the array, from those in a small one, whose axes that are taken whole have size 1."""
        strides = row_major(shape)
        coordinates = np.unravel_index(numbers, small) if small else ()
        places = sum(
            (index * stride for index, stride in zip(coordinates, strides, strict=True)), np.zeros_like(numbers)
        )
        return cls(places, {axis: (shape[of], strides[of]) for axis, of in slices.items()})

    @property
    def box(self) -> Box | None:
        box = _as_box(self.of)
        return None if box is None else self.around(box)

    def around(self, box: Box) -> Box:
        """A box of whole slices, from the box of their starts."""
        shape, strides = list(box.shape), list(box.strides)
        for axis, (extent, stride) in self.slices.items():
            shape[axis], strides[axis] = extent, stride
        return Box(tuple(shape), tuple(strides), box.offset)


def _numbered(shape: Shape, start: int = 0) -> Any:  # noqa: ANN401 - JAX's arrays
    return jax.numpy.arange(start, start + math.prod(shape), dtype=np.int32).reshape(shape)


def _without(shape: Shape, axes: Iterable[int]) -> Shape:
    taken = set(axes)
    return tuple(1 if axis in taken else size for axis, size in enumerate(shape))


def _gathered(call: Call) -> Node:
    """Elements at known indices, which the primitive itself finds: it is run on the elements' positions."""
    x, indices = call.arguments
    if is_drawn(indices):
        return call.problem("takes elements at drawn indices")
    if isinstance(x, _nodes.Signs):
        return _diagonal(x, call)
    numbers = call.parameters["dimension_numbers"]
    sizes = call.parameters["slice_sizes"]
    gone = (*numbers.collapsed_slice_dims, *getattr(numbers, "operand_batching_dims", ()))
    window = [axis for axis in range(len(x.shape)) if axis not in gone]
    slices = {
        out: axis
        for out, axis in zip(numbers.offset_dims, window, strict=True)
        if sizes[axis] == x.shape[axis] and axis not in numbers.start_index_map
    }
    small, result = _without(x.shape, slices.values()), _without(call.shape, slices)
    if max(math.prod(small), math.prod(result)) > _MOST_INDICES:
        return call.problem(f"takes more than {_MOST_INDICES} elements one by one")
    parameters = {**call.parameters, "slice_sizes": _without(sizes, slices.values()), "fill_value": -1}
    found = np.asarray(call.bind(_numbered(small), _known(indices), **parameters))
    if found.size and (found.min() < 0 or found.max() >= math.prod(small)):
        return call.problem("takes elements at indices outside of the array")
    places = _Places.found(found, small, x.shape, slices)
    if (box := places.box) is not None:
        return viewed(x, box)
    return _one_by_one(x, places, call)


def _one_by_one(x: Node, places: _Places, call: Call) -> Node:
    """Rows, columns and the like in any order, each of which is a slice."""
    for axis, size in enumerate(places.of.shape):
        if axis in places.slices or size > _MOST_ROWS:
            continue
        found = [_as_box(places.of.take(index, axis)) for index in range(size)]
        rows = [row for row in found if row is not None]
        if len(rows) < size:
            continue
        slices = {other - (other > axis): kept for other, kept in places.slices.items()}
        within = places._replace(slices=slices)
        parts = []
        for index, row in enumerate(rows):
            place = box_by(call.shape, lambda array, at=(*(slice(None),) * axis, index, ...): array[at])  # type: ignore[misc]
            parts.append((place, viewed(x, within.around(row))))
        return _nodes.boxes(call.shape, call.dtype, parts)
    return call.problem("takes drawn values in an order that no slices give")


_MOST_ROWS = 4096


def _diagonal(signs: _nodes.Signs, call: Call) -> Node:
    """The diagonal of R, if these elements are it."""
    if signs.box is not None or math.prod(signs.shape) > _MOST_INDICES:
        return _nodes.propagated(signs, call.shape, call.dtype)
    places = np.asarray(call.bind(_numbered(signs.shape), _known(call.arguments[1]), **call.parameters))
    rows = signs.shape[-1]
    offsets = np.arange(math.prod(signs.shape[:-2])).reshape(*signs.shape[:-2], 1) * math.prod(signs.shape[-2:])
    is_diagonal = np.array_equal(places, offsets + np.arange(rows) * (rows + 1))
    return diagonal_of(signs) if is_diagonal else _nodes.propagated(signs, call.shape, call.dtype)


def diagonal_of(signs: _nodes.Signs) -> Node:
    """The diagonal of R."""
    shape = signs.shape[:-1]
    return dataclasses.replace(signs, shape=shape, box=whole(shape))


def _as_box(places: Array) -> Box | None:
    """Positions as a box, if they form one."""
    if not places.size:
        return Box(places.shape, (0,) * places.ndim)
    first = places[(0,) * places.ndim]
    strides = []
    for axis, size in enumerate(places.shape):
        second = places[(*(0,) * axis, 1, *(0,) * (places.ndim - axis - 1))] if size > 1 else first
        strides.append(int(second - first))
    expected = np.full(places.shape, int(first), np.int64)
    for axis, stride in enumerate(strides):
        expected += (np.arange(places.shape[axis]) * stride).reshape(-1, *(1,) * (places.ndim - axis - 1))
    return Box(tuple(places.shape), tuple(strides), int(first)) if np.array_equal(expected, places) else None


def _start(starts: Sequence[Node], extents: Shape, shape: Shape) -> tuple[slice, ...] | None:
    """A dynamic slice, clamped to the array as JAX does it; None if its start is drawn."""
    if any(map(is_drawn, starts)):
        return None
    numbers = [int(_nodes.evaluated(start)) for start in starts]
    sizes = zip(numbers, shape, extents, strict=True)
    firsts = [max(0, min(number, size - extent)) for number, size, extent in sizes]
    return tuple(slice(first, first + extent) for first, extent in zip(firsts, extents, strict=True))


def _dynamic_slice(call: Call) -> Node:
    x, *starts = call.arguments
    slices = _start(starts, call.shape, x.shape)
    return call.problem("takes elements at drawn indices") if slices is None else _slice(x, slices)


def _dynamically_updated(call: Call) -> Node:
    x, update, *starts = call.arguments
    slices = _start(starts, update.shape, x.shape)
    if slices is None:
        return call.problem("writes elements at drawn indices")
    place = box_by(call.shape, lambda array: array[(*slices, ...)])
    return _nodes.boxes(call.shape, call.dtype, [*_flat(x), (place, update)])


def _scattered(call: Call) -> Node:
    """Elements written at known indices, found as `_gathered` finds them."""
    x, indices, update = call.arguments
    if is_drawn(indices):
        return call.problem("writes elements at drawn indices")
    numbers = call.parameters["dimension_numbers"]
    gone = (*numbers.inserted_window_dims, *getattr(numbers, "operand_batching_dims", ()))
    window = [axis for axis in range(len(x.shape)) if axis not in gone]
    slices = {
        axis: of
        for axis, of in zip(numbers.update_window_dims, window, strict=True)
        if update.shape[axis] == x.shape[of] and of not in numbers.scatter_dims_to_operand_dims
    }
    small, written = _without(x.shape, slices.values()), _without(update.shape, slices)
    size, own = math.prod(small), math.prod(written)
    if size + own > _MOST_INDICES:
        return call.problem(f"writes single elements of an array of more than {_MOST_INDICES}")
    parameters = {**call.parameters, "update_jaxpr": None, "update_consts": ()}
    result = jax.lax.scatter_p.bind(_numbered(small), _known(indices), _numbered(written, size), **parameters)
    flat = np.asarray(result).reshape(-1)
    new = np.nonzero(flat >= size)[0]
    found = np.full(own, -1, np.int64)
    found[flat[new] - size] = new
    if not (found >= 0).all():
        return call.problem("writes elements outside of the array, or several to one index")
    box = _Places.found(found.reshape(written), small, x.shape, slices).box
    if box is None:
        return call.problem("writes elements at indices that form no slice")
    return _nodes.boxes(call.shape, call.dtype, [*_flat(x), (box, update)])


def _flat(x: Node) -> list[tuple[Box, Node]]:
    return list(x.parts) if isinstance(x, Boxes) else [(whole(x.shape), x)]


def _added(function: str) -> Rule:
    def rule(call: Call) -> Node:
        x, indices, update = call.arguments
        zeros = _nodes.full(x.shape, x.dtype, 0)
        return apply(function, x, _scattered(call._replace(arguments=(zeros, indices, update))), dtype=call.dtype)

    return rule


def _known(node: Node) -> Any:  # noqa: ANN401 - JAX's arrays
    return jax.numpy.asarray(_nodes.evaluated(node))


# Sums.


def _reduced(reducer: str) -> Rule:
    def rule(call: Call) -> Node:
        (x,) = call.arguments
        axes = tuple(int(axis) for axis in call.parameters["axes"])
        return reduced(x, reducer, axes, call.shape, call.dtype)

    return rule


def reduced(x: Node, reducer: str, axes: tuple[int, ...], shape: Shape, dtype: DType) -> Node:
    """A node, reduced along axes, which are dropped."""
    if isinstance(x, Problem):
        return _nodes.propagated(x, shape, dtype)
    if x.dtype.kind == "c":
        return Problem(shape, dtype, _nodes.NOT_COMPLEX)
    if not axes:
        return x
    return viewed(Reduce(_without(x.shape, axes), dtype, reducer, tuple(sorted(axes)), x), whole(shape))


_MOST_PRODUCTS = 1 << 26
"""The most products of a product of matrices, which is a sum of them along an axis."""


def _contracted(call: Call) -> Node:
    a, b = call.arguments
    (along_a, along_b), (batch_a, batch_b) = call.parameters["dimension_numbers"]
    rest_a = [axis for axis in range(len(a.shape)) if axis not in (*along_a, *batch_a)]
    rest_b = [axis for axis in range(len(b.shape)) if axis not in (*along_b, *batch_b)]
    sizes = [a.shape[axis] for axis in (*batch_a, *rest_a)] + [b.shape[axis] for axis in rest_b]
    summed = [a.shape[axis] for axis in along_a]
    if math.prod((*sizes, *summed)) > _MOST_PRODUCTS:
        return call.problem(f"multiplies drawn matrices, which takes more than {_MOST_PRODUCTS} products")
    if call.dtype not in _nodes.FLOATS:
        return call.problem("multiplies drawn matrices that are not of floating point")
    whole_shape = (*sizes, *summed)
    axes_a = [*batch_a, *rest_a, *(None for _ in rest_b), *along_a]
    axes_b = [*batch_b, *(None for _ in rest_a), *rest_b, *along_b]
    x = viewed(cast(a, call.dtype), _spread(a.shape, axes_a, whole_shape))
    y = viewed(cast(b, call.dtype), _spread(b.shape, axes_b, whole_shape))
    product = apply("multiply", x, y, dtype=call.dtype)
    return reduced(product, "sum", tuple(range(len(sizes), len(whole_shape))), call.shape, call.dtype)


def _spread(shape: Shape, axes: Sequence[int | None], target: Shape) -> Box:
    strides = row_major(shape)
    return Box(target, tuple(0 if axis is None else strides[axis] for axis in axes))


def _half(function: Callable[[Node, Node], Node]) -> Callable[[Node], Node]:
    return lambda x: apply("multiply", 0.5, function(apply("exp", x), apply("exp", apply("negate", x))))


RULES: dict[str, Rule] = {
    **{name: _function(name) for name in ("add", "sqrt", "rsqrt", "expm1", "log", "log1p", "sin", "cos", "tanh")},
    "add_any": _function("add"),
    "sub": _function("subtract"),
    "mul": _multiply,
    "div": _divide,
    "neg": _function("negate"),
    "abs": _function("absolute"),
    "max": _function("maximum"),
    "min": _function("minimum"),
    "pow": _power,
    "integer_pow": _integer_power,
    "square": _formula(lambda x: apply("multiply", x, x)),
    "exp": _exp,
    "exp2": _formula(lambda x: apply("exp", apply("multiply", x, math.log(2)))),
    "tan": _formula(lambda x: apply("divide", apply("sin", x), apply("cos", x))),
    "sinh": _formula(_half(lambda a, b: apply("subtract", a, b))),
    "cosh": _formula(_half(lambda a, b: apply("add", a, b))),
    "logistic": _function("sigmoid"),
    "erf": _function("erf"),
    "erf_inv": _function("erfinv"),
    "erfc": _formula(lambda x: apply("subtract", 1.0, apply("erf", x))),
    "floor": _function("floor"),
    "ceil": _formula(lambda x: apply("negate", apply("floor", apply("negate", x)))),
    "round": _round,
    "sign": _sign,
    "lt": _compare("less"),
    "le": _compare("less_equal"),
    "gt": _compare("less", is_turned=True),
    "ge": _compare("less_equal", is_turned=True),
    "eq": _compare("equal"),
    "ne": _compare("equal", is_negated=True),
    "and": _logical(lambda a, b: apply("multiply", a, b, dtype=BOOL)),
    "or": _logical(lambda a, b: apply("maximum", a, b, dtype=BOOL)),
    "xor": _logical(lambda a, b: _not(apply("equal", a, b, dtype=BOOL))),
    "not": _logical(_not),
    "is_finite": lambda call: _nodes.full(call.shape, BOOL, True),
    "select_n": _select,
    "clamp": _clamp,
    "convert_element_type": _convert,
    "reduce_precision": _reduce_precision,
    "reshape": _reshaped,
    "squeeze": _reshaped,
    "expand_dims": _reshaped,
    "transpose": _transposed,
    "broadcast_in_dim": _broadcast,
    "slice": _sliced,
    "rev": _reversed,
    "concatenate": _concatenated,
    "pad": _padded,
    "stack": _stacked,
    "tile": _tiled,
    "gather": _gathered,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamically_updated,
    "scatter": _scattered,
    "scatter-add": _added("add"),
    "scatter-sub": _added("subtract"),
    "reduce_sum": _reduced("sum"),
    "reduce_max": _reduced("maximum"),
    "reduce_min": _reduced("minimum"),
    "reduce_or": _reduced("maximum"),
    "reduce_and": _reduced("minimum"),
    "dot_general": _contracted,
}
"""By the primitive's name; each has one result."""


IDENTITIES = frozenset(
    (
        "copy",
        "copy_p",
        "stop_gradient",
        "sharding_constraint",
        "reshard",
        "mesh_cast",
        "layout_constraint",
        "optimization_barrier",
        "pvary",
        "device_put",
    )
)
"""The primitives that return their arguments, possibly elsewhere."""


def decomposed(call: Call, shapes: Sequence[tuple[Shape, DType]]) -> list[Node]:
    """Q and R of matrices of independent standard normals."""
    (x,) = call.arguments
    is_full = call.parameters.get("full_matrices") and x.shape[-2] > x.shape[-1]
    is_iid = isinstance(x, Draw) and x.scheme == "normal" and x.parameters["mean"] == 0
    if not is_iid or is_full or call.parameters.get("pivoting") or x.shape[-2] < x.shape[-1] or x.dtype.kind == "c":
        text = "decomposes a matrix that is wider than high or not of independent normals"
        return [Problem(shape, dtype, text) for shape, dtype in shapes]
    assert isinstance(x, Draw)  # for mypy
    batches = math.prod(x.shape[:-2])
    if batches != len(x.drawing.atoms):
        text = "decomposes several matrices of one draw at once; draw each with its own key, by jax.vmap"
        return [Problem(shape, dtype, text) for shape, dtype in shapes]
    text = _NOT_HAAR
    (q, dtype), (r, _) = shapes
    return [_nodes.Factor(q, dtype, text, matrix=x), _nodes.Signs(r, dtype, text, matrix=x)]


def unstacked(call: Call, count: int) -> list[Node]:
    """The slices along an axis of an array."""
    (x,) = call.arguments
    before = (slice(None),) * call.parameters["axis"]
    boxes = [box_by(x.shape, lambda array, at=(*before, index, ...): array[at]) for index in range(count)]  # type: ignore[misc]
    return [viewed(x, box) for box in boxes]


def split(call: Call, shapes: Sequence[tuple[Shape, DType]]) -> list[Node]:
    """An array split along an axis."""
    (x,) = call.arguments
    axis, start, parts = call.parameters["axis"], 0, []
    for size in call.parameters["sizes"]:
        parts.append(_slice(x, (slice(None),) * axis + (slice(start, start + size),)))
        start += size
    return parts


def shuffled(x: Array, atoms: tuple[_nodes.Atom, ...], drawings: _nodes.Drawings, site: object) -> Node | None:
    """The elements of a range in random order; None if they form no range."""
    if x.ndim != 1 or not x.size or len(atoms) != 1 or x.dtype.kind not in "iuf":
        return None
    step = float(x[1] - x[0]) if x.size > 1 else 1.0
    if not np.array_equal(x, (float(x[0]) + step * np.arange(x.size)).astype(x.dtype)):
        return None
    order = Draw(x.shape, np.dtype(np.float32), drawings.of(atoms, site), "permutation", {})
    node: Node = order if x.dtype == order.dtype else with_dtype(order, x.dtype)
    if step != 1:
        node = Apply(x.shape, x.dtype, "multiply", (_nodes.full((), np.dtype(np.float64), step), node))
    if x[0]:
        node = Apply(x.shape, x.dtype, "add", (node, _nodes.full((), np.dtype(np.float64), x[0])))
    return node
