"""The graph of `seedbed._record.nodes` for JAX: its values are NumPy arrays and scalars, its dtypes NumPy's.

The functions that make nodes fold them by the algebra of laws and of views, so that an array which follows one law is
one draw in the end.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import ml_dtypes
import numpy as np

from seedbed._record import laws, nodes
from seedbed._record.boxes import Box, Shape, elements, is_same, joined, whole
from seedbed._record.nodes import (
    ELEMENTWISE,
    Apply,
    Boxes,
    Cast,
    Full,
    Literal,
    Node,
    Problem,
    Reduce,
    Viewed,
    scalar,
    with_dtype,
)
from seedbed._record.views import Views
from seedbed._types import Array

DType: TypeAlias = "np.dtype[Any]"

FLOATS = tuple(np.dtype(kind) for kind in (np.float32, np.float16, ml_dtypes.bfloat16, np.float64))
HALVES = FLOATS[1:3]
COMPLEX = np.dtype(np.complex64)
BOOL = np.dtype(np.bool_)


class Atom(NamedTuple):
    """What JAX draws for one key; equal atoms hold equal values."""

    key: bytes
    law: str
    shape: Shape
    dtype: str


@dataclasses.dataclass(frozen=True, eq=False)
class Drawing(nodes.Drawing):
    """One event of drawing, or a stack of several; all nodes with the same one hold the same values."""

    atoms: tuple[Atom, ...]


class Drawings:
    """The drawings of one recording, each once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Atom, ...], Drawing] = {}

    def keep(self, drawing: Drawing) -> None:
        self._known[drawing.atoms] = drawing

    def of(self, atoms: tuple[Atom, ...], site: object) -> Drawing:
        return self._known.setdefault(atoms, Drawing(site, atoms))


@dataclasses.dataclass(frozen=True, eq=False)
class Draw(nodes.Draw):
    """What a scheme draws."""

    drawing: Drawing


@dataclasses.dataclass(frozen=True, eq=False)
class Signs(Problem):
    """R of a QR decomposition, or a box of the signs of its diagonal."""

    matrix: Draw | None = None
    box: Box | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Factor(Problem):
    """Q of a QR decomposition: uniform only once its columns have the signs of R."""

    matrix: Draw | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Angle(Problem):
    """Numbers on the complex unit circle, or their logarithms, whose angles are uniform."""

    angle: Draw | None = None
    is_logarithm: bool = True


def is_few_numbers(node: Node) -> bool:
    """Whether it is one number everywhere, or one in each of its boxes: its size may exceed the memory."""
    return isinstance(node, Full) or (isinstance(node, Boxes) and all(isinstance(part, Full) for _, part in node.parts))


def propagated(cause: Problem, shape: Shape, dtype: DType) -> Problem:
    """What is computed from a problem: marked with the same text, so that the first reason is kept."""
    return Problem(shape, dtype, cause.text, cause.site)


def full(shape: Shape, dtype: DType, value: object) -> Full:
    """One number everywhere, as a NumPy scalar of the dtype."""
    return Full(shape, dtype, np.asarray(value).astype(dtype)[()])


def literal(values: Array) -> Node:
    """Values that are known."""
    if values.size == 1:
        return Full(tuple(values.shape), values.dtype, values.reshape(-1)[0])
    return Literal(tuple(values.shape), values.dtype, values)


def of_array(value: Any) -> Node:  # noqa: ANN401 - an array of JAX or NumPy, or a node
    """A known array as a node: one number, if it is the same everywhere."""
    if isinstance(value, Node):
        return value
    values = np.asarray(value)
    if values.size > 1 and bool((values == values.reshape(-1)[0]).all()):
        return full(tuple(values.shape), values.dtype, values.reshape(-1)[0])
    return literal(values)


def evaluated(node: Node) -> Array:
    """The values of a node in which nothing is drawn."""
    results: dict[int, Array] = {}
    pending = [node]
    while pending:  # no recursion, whose depth Python limits
        current = pending[-1]
        missing = [argument for argument in current.arguments if id(argument) not in results]
        if missing:
            pending += missing
            continue
        pending.pop()
        results[id(current)] = _evaluated(current, [results[id(argument)] for argument in current.arguments])
    return results[id(node)]


def _evaluated(node: Node, arguments: list[Array]) -> Array:  # noqa: PLR0911 - a case for each kind of node
    if isinstance(node, Full):
        return np.broadcast_to(np.asarray(node.value, node.dtype), node.shape)
    if isinstance(node, Literal):
        values: Array = node.values
        return values
    if isinstance(node, Viewed):
        return taken(arguments[0], node.box)
    if isinstance(node, Cast):
        return arguments[0].astype(node.dtype)
    if isinstance(node, Boxes):
        flat = np.zeros(math.prod(node.shape), node.dtype)
        for (box, _), part in zip(node.parts, arguments, strict=True):
            elements(flat, box)[...] = part
        return flat.reshape(node.shape)
    if isinstance(node, Reduce):
        reduce: Any = {"sum": np.sum, "maximum": np.max, "minimum": np.min}[node.reducer]
        return np.asarray(reduce(arguments[0], axis=node.axes, keepdims=True)).astype(node.dtype)
    assert isinstance(node, Apply)
    with np.errstate(all="ignore"):
        result: Array = _REFERENCE[node.function](*(argument.astype(np.float64) for argument in arguments))
    return np.broadcast_to(result.astype(node.dtype), node.shape)


_REFERENCE: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "negate": np.negative,
    "absolute": np.abs,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "clamp": lambda a, low, high: np.minimum(np.maximum(a, low), high),
    "less": np.less,
    "less_equal": np.less_equal,
    "equal": np.equal,
    "where": lambda a, b, c: np.where(a != 0, b, c),
    "power": np.power,
    "floor": np.floor,
}
"""The functions of known numbers that stay small nodes; JAX itself computes all others."""


def taken(values: Array, box: Box) -> Array:
    """A box of an array, copied."""
    if not box.size:
        return np.zeros(box.shape, values.dtype)
    return elements(np.ascontiguousarray(values).reshape(-1), box).copy()


# Views.


class _Views(Views):
    def of_literal(self, node: Literal, box: Box) -> Node:
        if box.is_injective:
            return literal(taken(node.values, box))
        return Viewed(box.shape, node.dtype, box, node)  # repeated when it is served

    def zeros(self, shape: Shape, dtype: DType) -> Node:
        return full(shape, dtype, 0)

    def cast(self, node: Node, dtype: DType) -> Node:
        return cast(node, dtype)

    def of_problem(self, node: Problem, box: Box) -> Node:
        if isinstance(node, Signs) and node.box is not None:
            signs = joined(box, node.box)
            if signs is not None:
                return dataclasses.replace(node, shape=box.shape, box=signs)
        if isinstance(node, (Signs, Factor)):
            return propagated(node, box.shape, node.dtype)
        return super().of_problem(node, box)


viewed = _Views().viewed


def boxes(shape: Shape, dtype: DType, places: Sequence[tuple[Box, Node]]) -> Node:
    """Nodes, placed in boxes of an array."""
    for _, node in places:
        if isinstance(node, Problem):
            return propagated(node, shape, dtype)
    parts = [(box, node) for box, node in places if box.size]
    if len(parts) == 1 and parts[0][0].shape == shape and is_same(parts[0][0], whole(shape)):
        return parts[0][1]
    if parts and all(isinstance(node, Full) for _, node in parts):
        values = [node.value for _, node in parts if isinstance(node, Full)]
        is_filled = sum(box.size for box, _ in parts) == math.prod(shape) or parts[0][0].size == math.prod(shape)
        if is_filled and all(value == values[0] for value in values):
            return full(shape, dtype, values[0])
    return Boxes(shape, dtype, tuple(parts))


def stacked(layers: Sequence[Node], drawings: Drawings) -> Node:
    """Nodes of one shape, along a new first axis; draws of one law become one draw, of the stacked shape."""
    first = layers[0]
    shape = (len(layers), *first.shape)
    merged = _merged(layers, shape, drawings)
    if merged is not None:
        return merged
    size = math.prod(first.shape)
    places = [Box(first.shape, whole(first.shape).strides, index * size) for index in range(len(layers))]
    return boxes(shape, first.dtype, list(zip(places, layers, strict=True)))


def _merged(layers: Sequence[Node], shape: Shape, drawings: Drawings) -> Node | None:
    draws = [layer for layer in layers if isinstance(layer, Draw)]
    if len(draws) < len(layers):
        return None
    first = draws[0]
    found = {(draw.scheme, tuple(draw.parameters.items()), draw.is_mirrored) for draw in draws}
    if len(found) > 1 or first.scheme not in ELEMENTWISE:
        return None
    if any(len(draw.drawing.atoms) != len(first.drawing.atoms) for draw in draws):
        return None
    atoms = tuple(itertools.chain.from_iterable(draw.drawing.atoms for draw in draws))
    return dataclasses.replace(first, shape=shape, drawing=drawings.of(atoms, first.drawing.site))


def single(draw: Draw, drawings: Drawings) -> Node:
    """A stacked draw as a stack of draws, each with its own stream."""
    atoms = draw.drawing.atoms
    size = math.prod(draw.shape) // len(atoms)
    flat = []
    for index, atom in enumerate(atoms):
        drawing = drawings.of((atom,), draw.drawing.site)
        part = dataclasses.replace(draw, shape=atom.shape, drawing=drawing)
        flat.append((Box(atom.shape, whole(atom.shape).strides, index * size), part))
    return Boxes(draw.shape, draw.dtype, tuple(flat))


# Functions.


NOT_COMPLEX = "computes with complex numbers, of which only draws and their real multiples are served"


def cast(node: Node, dtype: DType) -> Node:  # noqa: PLR0911 - a case for each kind of node
    """A node, converted to a dtype."""
    if node.dtype == dtype:
        return node
    if isinstance(node, Problem):
        return dataclasses.replace(node, dtype=dtype)
    if isinstance(node, Full):
        return full(node.shape, dtype, node.value)
    if isinstance(node, Literal):
        return Literal(node.shape, dtype, node.values.astype(dtype))
    if isinstance(node, Boxes):
        return dataclasses.replace(node, dtype=dtype, parts=tuple((box, cast(part, dtype)) for box, part in node.parts))
    if isinstance(node, Draw) and node.dtype == FLOATS[0] and dtype in HALVES:
        return dataclasses.replace(node, dtype=dtype)  # the contract defines 16-bit draws as rounded ones
    if dtype.kind == "c":
        return Cast(node.shape, dtype, node)  # real numbers, which may yet become part of a complex law
    if node.dtype.kind == "c":
        return Problem(node.shape, dtype, NOT_COMPLEX)
    if dtype == BOOL:
        return with_dtype(apply("subtract", 1.0, apply("equal", node, 0.0, dtype=BOOL), dtype=BOOL), dtype)
    if dtype not in FLOATS and node.dtype in FLOATS:
        down, up = apply("floor", node), apply("negate", apply("floor", apply("negate", node)))
        return with_dtype(apply("where", apply("less", node, 0.0), up, down), dtype)
    if node.dtype not in FLOATS:
        if dtype not in FLOATS and node.dtype != BOOL and dtype.itemsize < node.dtype.itemsize:
            return Problem(node.shape, dtype, "converts drawn integers to a type that may not hold them")
        return with_dtype(node, dtype)
    return Cast(node.shape, dtype, node)


def apply(function: str, *arguments: Node | float, dtype: DType | None = None) -> Node:
    """A function of the contract, of nodes and numbers, folded as far as laws go."""
    known = [argument for argument in arguments if isinstance(argument, Node)]
    shape: Shape = np.broadcast_shapes(*(node.shape for node in known))
    dtype = dtype or known[0].dtype
    operands = tuple(
        argument if isinstance(argument, Node) else full((), np.dtype(np.float64), argument) for argument in arguments
    )
    for operand in operands:
        if isinstance(operand, Problem):
            return propagated(operand, shape, dtype)
    if any(operand.dtype.kind == "c" for operand in operands):
        return _apply_complex(function, operands, shape, dtype)
    others = [operand for operand in operands if not isinstance(operand, Full)]
    if len(others) == 1 and others[0].shape == shape:
        function, operands = _without_infinity(function, operands)
        if not function:
            return others[0]
        return _of_one(function, operands, others[0], dtype)
    return Apply(shape, dtype, function, tuple(map(scalar, operands)))


def _without_infinity(function: str, operands: tuple[Node, ...]) -> tuple[str, tuple[Node, ...]]:
    """A clamp without bounds at infinity; the function is empty if no bound is left."""
    if function not in laws.CLAMPS:
        return function, operands
    if function == "clamp":
        x, low, high = operands
        if isinstance(x, Full):
            return function, operands
        ends = ((low, -math.inf), (high, math.inf))
        is_open = [isinstance(bound, Full) and bound.value == end for bound, end in ends]
        if all(is_open):
            return "", operands
        if any(is_open):
            return ("minimum", (x, high)) if is_open[0] else ("maximum", (x, low))
        return function, operands
    end = -math.inf if function == "maximum" else math.inf
    is_idle = any(isinstance(operand, Full) and operand.value == end for operand in operands)
    return ("", operands) if is_idle else (function, operands)


def _of_one(function: str, operands: tuple[Node, ...], node: Node, dtype: DType) -> Node:
    """A function of one node and of constants."""

    def again(part: Node) -> Node:
        return apply(function, *(part if operand is node else scalar(operand) for operand in operands), dtype=dtype)

    if isinstance(node, Boxes) and _is_covered(node):
        return dataclasses.replace(node, dtype=dtype, parts=tuple((box, again(part)) for box, part in node.parts))
    if isinstance(node, Viewed) and isinstance(node.source, Draw):
        return viewed(again(node.source), node.box)
    if isinstance(node, Draw) and node.dtype == dtype:
        folded = _folded(function, operands, node)
        if folded is not None:
            return folded
    return Apply(node.shape, dtype, function, tuple(map(scalar, operands)))


def _is_covered(node: Boxes) -> bool:
    """Whether every element is in a box, so that a function of the boxes is one of the whole."""
    return sum(box.size for box, _ in node.parts) >= math.prod(node.shape) and (
        node.parts[0][0].size == math.prod(node.shape)
        or all(a.is_apart_from(b) for i, (a, _) in enumerate(node.parts) for b, _ in node.parts[:i])
    )


# The algebra of laws.


def _folded(function: str, operands: tuple[Node, ...], draw: Draw) -> Node | None:
    """The law of a function of a draw and constants, if it is one."""
    if function == "erfinv":
        return laws.of_erfinv(draw, _erfinv)
    values = [float(operand.value) if isinstance(operand, Full) else None for operand in operands]
    law = laws.folded(function, values, draw, is_complex=draw.dtype.kind == "c")
    return full(draw.shape, draw.dtype, law) if isinstance(law, float) else law


def _erfinv(y: float) -> float:
    """The inverse error function, by bisection; infinite at 1 and at a float32 next to it, as JAX's uniforms end."""
    if abs(y) > 1:
        return math.nan
    if abs(y) >= 1 - 2**-24:
        return math.copysign(math.inf, y)
    low, high = -6.0, 6.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erf(middle) < y else (low, middle)
    return (low + high) / 2


# Complex numbers: draws, their real multiples, and real numbers of a complex dtype.


def _apply_complex(function: str, operands: tuple[Node, ...], shape: Shape, dtype: DType) -> Node:
    reals = [as_real(operand) for operand in operands]
    known = [real for real in reals if real is not None]
    if len(known) == len(reals) and _stays_real(function, known):
        return cast(apply(function, *known), dtype)
    scaled = _scaled_complex(function, operands, reals)
    return scaled or Problem(shape, dtype, NOT_COMPLEX)


def _scaled_complex(function: str, operands: tuple[Node, ...], reals: list[Node | None]) -> Node | None:
    """A complex draw, or a view of one, times a real number."""
    others = [operand for operand in operands if not isinstance(operand, Full)]
    node = others[0] if len(others) == 1 else None
    draw = node.source if isinstance(node, Viewed) else node
    if node is None or not isinstance(draw, Draw) or function not in laws.AFFINE:
        return None
    replaced = [draw if operand is node else real for operand, real in zip(operands, reals, strict=True)]
    known = tuple(operand for operand in replaced if operand is not None)
    folded = _folded(function, known, draw) if len(known) == len(replaced) else None
    return viewed(folded, node.box) if folded and isinstance(node, Viewed) else folded


def as_real(node: Node) -> Node | None:
    """The real numbers that complex ones are, if they are."""
    if node.dtype.kind != "c":
        return node
    if isinstance(node, Full):
        return full(node.shape, FLOATS[0], node.value.real) if not node.value.imag else None
    if isinstance(node, Cast) and node.source.dtype.kind != "c":
        return node.source
    return None


def _stays_real(function: str, operands: list[Node]) -> bool:
    if function in ("add", "subtract", "multiply", "negate"):
        return True
    return function in ("sqrt", "log") and interval(operands[0])[0] >= 0


def interval(node: Node) -> tuple[float, float]:
    """Bounds of a node's values, where they follow easily."""
    low, high = -math.inf, math.inf
    if isinstance(node, Full):
        low = high = float(node.value)
    elif isinstance(node, Draw) and "a" in node.parameters:
        low, high = node.parameters["a"], node.parameters["b"]
    elif isinstance(node, Apply) and node.function == "negate":
        below, above = interval(node.operands[0])
        low, high = -above, -below
    elif isinstance(node, Apply) and node.function == "log":
        below, above = interval(node.operands[0])
        low = math.log(below) if below > 0 else -math.inf
        high = math.log(above) if 0 < above < math.inf else math.inf
    elif isinstance(node, Apply) and node.function == "sqrt":
        low, high = 0.0, math.inf
    return low, high


def uniform_matrices(factor: Factor, signs: Signs, drawings: Drawings) -> Node | None:
    """Q with the signs of R: matrices that are uniform by Haar's measure."""
    draw = factor.matrix
    if draw is None or draw is not signs.matrix or signs.box is None:
        return None
    columns = factor.shape[-1]
    along = (*(stride // factor.shape[-2] for stride in whole(factor.shape).strides[:-2]), 0, 1)
    if signs.shape[-1:] != (columns,) or not is_same(
        signs.box, Box(signs.shape, along[len(along) - len(signs.shape) :])
    ):
        return None
    law = dataclasses.replace(draw, scheme="orthogonal", parameters={"gain": 1.0}, is_mirrored=False)
    atoms = tuple(atom._replace(law="orthogonal") for atom in draw.drawing.atoms)
    law = dataclasses.replace(law, drawing=drawings.of(atoms, draw.drawing.site))
    return single(law, drawings) if len(factor.shape) > 2 else law


def disk(modulus: Node, angle: Draw, drawings: Drawings) -> Node | None:
    """The law of complex numbers of a drawn modulus and a uniform angle, if it is one of ours."""
    law = _law_of_modulus(modulus)
    if law is None:
        return None
    draw, parameters = law
    radii, angles = draw.drawing.atoms, angle.drawing.atoms
    if modulus.shape != angle.shape or len(radii) != len(angles) or set(radii) & set(angles):
        return None
    name = "normal disk" if "std" in parameters else "disk"
    atoms = [Atom(a.key + b.key, name, a.shape, "complex64") for a, b in zip(radii, angles, strict=True)]
    drawing = drawings.of(tuple(atoms), draw.drawing.site)
    return Draw(modulus.shape, COMPLEX, drawing, "disk", parameters)


def _law_of_modulus(node: Node) -> tuple[Draw, dict[str, float]] | None:
    """The draw under a modulus, and the disk's parameters."""
    if not isinstance(node, Apply) or node.function != "sqrt":
        return None
    square = node.operands[0]
    if isinstance(square, Draw) and square.scheme == "uniform" and square.parameters["a"] == 0:
        return square, {"radius": math.sqrt(square.parameters["b"])}
    if not (isinstance(square, Apply) and square.function == "negate"):
        return None
    inner = square.operands[0]
    if not (isinstance(inner, Apply) and inner.function == "log" and isinstance(inner.operands[0], Draw)):
        return None
    draw = inner.operands[0]
    low, high = draw.parameters.get("a", 0.0), draw.parameters.get("b", 0.0)
    if draw.scheme != "uniform" or abs(high - 1) > 1e-6 or not 0 < low < 1:
        return None
    return draw, {"radius": math.sqrt(-math.log(low)), "std": 1.0}
