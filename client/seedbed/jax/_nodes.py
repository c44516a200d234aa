"""What an array holds while an init function is recorded: a graph of draws, constants and what is made of them.

The functions that make nodes fold them by the algebra of laws, so that what is a law in the end is one scheme.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import ml_dtypes
import numpy as np

from seedbed._record.boxes import Box, Shape, common_lattice, is_same, joined, whole, within
from seedbed._types import Array

DType: TypeAlias = "np.dtype[Any]"

ELEMENTWISE = ("uniform", "normal", "trunc_normal", "disk")
"""The laws of which every element is drawn alike, whatever the shape."""

FLOATS = tuple(np.dtype(one) for one in (np.float32, np.float16, ml_dtypes.bfloat16, np.float64))
HALVES = FLOATS[1:3]
COMPLEX = np.dtype(np.complex64)
BOOL = np.dtype(np.bool_)


class Atom(NamedTuple):
    """What JAX draws for one key; equal ones hold equal values."""

    key: bytes
    law: str
    shape: Shape
    dtype: str


@dataclasses.dataclass(frozen=True, eq=False)
class Drawing:
    """One event of drawing, or a stack of some; who holds the same one holds the same values."""

    atoms: tuple[Atom, ...]
    site: object
    """What tells the line of the code, as text."""


class Drawings:
    """The drawings of one recording, each once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Atom, ...], Drawing] = {}

    def keep(self, drawing: Drawing) -> None:
        self._known[drawing.atoms] = drawing

    def of(self, atoms: tuple[Atom, ...], site: object) -> Drawing:
        return self._known.setdefault(atoms, Drawing(atoms, site))


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """An array's values."""

    shape: Shape
    dtype: DType

    @property
    def arguments(self) -> tuple[Node, ...]:
        return ()

    @functools.cached_property
    def facts(self) -> Facts:
        """Worked out once, from the arguments', so that a chain of operations costs no more the longer it is."""
        facts = [argument.facts for argument in self.arguments]
        problem = next((one.problem for one in facts if one.problem is not None), None)
        return Facts(isinstance(self, Draw) or any(one.is_drawn for one in facts), problem)


class Facts(NamedTuple):
    """What is known of all that a node is made of."""

    is_drawn: bool
    problem: Problem | None


@dataclasses.dataclass(frozen=True, eq=False)
class Draw(Node):
    """What a scheme draws."""

    drawing: Drawing
    scheme: str
    parameters: Mapping[str, float]
    is_mirrored: bool = False
    """Whether its order was turned round: then it is the law's value reflected in the middle of the law."""


@dataclasses.dataclass(frozen=True, eq=False)
class Full(Node):
    """The same everywhere."""

    value: Any
    """A NumPy scalar of the dtype."""


@dataclasses.dataclass(frozen=True, eq=False)
class Given(Node):
    """Values that are computed without drawing."""

    values: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Apply(Node):
    """A function of the contract, element by element, of arguments that are broadcast."""

    function: str
    of: tuple[Node, ...]

    @property
    def arguments(self) -> tuple[Node, ...]:
        return self.of


@dataclasses.dataclass(frozen=True, eq=False)
class Cast(Node):
    """Rounded to the dtype."""

    of: Node

    @property
    def arguments(self) -> tuple[Node, ...]:
        return (self.of,)


@dataclasses.dataclass(frozen=True, eq=False)
class Viewed(Node):
    """A box of a node."""

    box: Box
    of: Node

    @property
    def arguments(self) -> tuple[Node, ...]:
        return (self.of,)


@dataclasses.dataclass(frozen=True, eq=False)
class Boxes(Node):
    """Boxes of an array, in their order; what is in none of them is 0. The first may be the whole."""

    of: tuple[tuple[Box, Node], ...]

    @property
    def arguments(self) -> tuple[Node, ...]:
        return tuple(node for _, node in self.of)


@dataclasses.dataclass(frozen=True, eq=False)
class Reduce(Node):
    """Reduced along axes, which stay with size 1."""

    reducer: str
    axes: tuple[int, ...]
    of: Node

    @property
    def arguments(self) -> tuple[Node, ...]:
        return (self.of,)


@dataclasses.dataclass(frozen=True, eq=False)
class Problem(Node):
    """What cannot be said, and why."""

    text: str
    site: object = None

    def __str__(self) -> str:
        return f"{self.text} ({self.site})" if self.site else self.text

    @functools.cached_property
    def facts(self) -> Facts:
        return Facts(True, self)


@dataclasses.dataclass(frozen=True, eq=False)
class Signs(Problem):
    """R of a QR decomposition, or the signs of its diagonal, of which a box is taken."""

    matrix: Draw | None = None
    box: Box | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Factor(Problem):
    """Q of a QR decomposition: uniform only when its columns have got the signs of R."""

    matrix: Draw | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Angle(Problem):
    """Numbers on the complex unit circle, or their logarithms, of any angle alike."""

    angle: Draw | None = None
    is_logarithm: bool = True


def is_drawn(node: Node) -> bool:
    """Whether anything in it was drawn, or is unknown."""
    return node.facts.is_drawn


def problem_of(node: Node) -> Problem | None:
    """What is wrong with it, if anything is."""
    return node.facts.problem


def is_few_numbers(node: Node) -> bool:
    """Whether it is a number everywhere, or one in each of some boxes: it may be larger than memory."""
    return isinstance(node, Full) or (isinstance(node, Boxes) and all(isinstance(one, Full) for _, one in node.of))


def spoilt(problem: Problem, shape: Shape, dtype: DType) -> Problem:
    """What is made of a problem."""
    return Problem(shape, dtype, problem.text, problem.site)


def full(shape: Shape, dtype: DType, value: object) -> Full:
    """The same number everywhere."""
    return Full(shape, dtype, np.asarray(value).astype(dtype)[()])


def given(values: Array) -> Node:
    """Values that are known."""
    if values.size == 1:
        return Full(tuple(values.shape), values.dtype, values.reshape(-1)[0])
    return Given(tuple(values.shape), values.dtype, values)


def leaves(node: Node) -> Iterator[Node]:
    """Every node without arguments that a node is made of, once each."""
    seen, pending = set(), [node]
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.arguments:
            pending += node.arguments
        else:
            yield node


def evaluated(node: Node) -> Array:
    """The numbers of a node in which nothing was drawn."""
    results: dict[int, Array] = {}
    pending = [node]
    while pending:  # not a recursion, which Python limits
        current = pending[-1]
        missing = [one for one in current.arguments if id(one) not in results]
        if missing:
            pending += missing
            continue
        pending.pop()
        results[id(current)] = _evaluated(current, [results[id(one)] for one in current.arguments])
    return results[id(node)]


def _evaluated(node: Node, arguments: list[Array]) -> Array:  # noqa: PLR0911 - a table of what nodes are
    if isinstance(node, Full):
        return np.broadcast_to(np.asarray(node.value, node.dtype), node.shape)
    if isinstance(node, Given):
        return node.values
    if isinstance(node, Viewed):
        return taken(arguments[0], node.box)
    if isinstance(node, Cast):
        return arguments[0].astype(node.dtype)
    if isinstance(node, Boxes):
        flat = np.zeros(math.prod(node.shape), node.dtype)
        for (box, _), values in zip(node.of, arguments, strict=True):
            _strided(flat, box)[...] = values
        return flat.reshape(node.shape)
    if isinstance(node, Reduce):
        reduce: Any = {"sum": np.sum, "maximum": np.max, "minimum": np.min}[node.reducer]
        return np.asarray(reduce(arguments[0], axis=node.axes, keepdims=True)).astype(node.dtype)
    assert isinstance(node, Apply)
    with np.errstate(all="ignore"):
        result: Array = _REFERENCE[node.function](*(one.astype(np.float64) for one in arguments))
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
"""What is made of known numbers while they are still small nodes; all else of them JAX itself computes."""


def _strided(flat: Array, box: Box) -> Array:
    strides = [stride * flat.itemsize for stride in box.strides]
    return np.lib.stride_tricks.as_strided(flat[box.offset :], box.shape, strides)


def taken(values: Array, box: Box) -> Array:
    """A box of an array, as an array of its own."""
    if not box.size:
        return np.zeros(box.shape, values.dtype)
    return _strided(np.ascontiguousarray(values).reshape(-1), box).copy()


# Views.


def viewed(node: Node, box: Box) -> Node:  # noqa: PLR0911, PLR0912 - a table of what nodes are
    """A box of a node, seen as an array of the box's shape."""
    shape = box.shape
    if shape == node.shape and is_same(box, whole(shape)):
        return node
    if isinstance(node, Signs) and node.box is not None:
        signs = joined(box, node.box)
        return spoilt(node, shape, node.dtype) if signs is None else dataclasses.replace(node, shape=shape, box=signs)
    if isinstance(node, (Signs, Factor)):
        return spoilt(node, shape, node.dtype)
    if isinstance(node, (Full, Problem)):
        return dataclasses.replace(node, shape=shape)
    if isinstance(node, Given) and box.is_injective:
        return given(taken(node.values, box))
    if isinstance(node, Viewed):
        direct = joined(box, node.box)
        if direct is not None:
            return viewed(node.of, direct)
    if is_same(box, whole(shape)) and box.size == math.prod(node.shape):  # a reshape
        if isinstance(node, Draw) and node.scheme in ELEMENTWISE:
            return dataclasses.replace(node, shape=shape)
        if isinstance(node, Boxes):
            return dataclasses.replace(node, shape=shape)
    if isinstance(node, Boxes):
        return _viewed_boxes(node, box)
    if isinstance(node, Cast):
        return cast(viewed(node.of, box), node.dtype)
    if isinstance(node, Apply) and all(a.shape in (node.shape, ()) and not a.arguments for a in node.of):
        return Apply(shape, node.dtype, node.function, tuple(viewed(a, box) if a.shape else a for a in node.of))
    return Viewed(shape, node.dtype, box, node)


def _viewed_boxes(node: Boxes, box: Box) -> Node:
    """A box of boxes: of the one that holds all of it, if there is one."""
    seen = [(place, part) for place, part in node.of if not place.is_apart_from(box)]
    if not seen:
        return full(box.shape, node.dtype, 0)
    place, part = seen[-1]
    if place.shape == box.shape and is_same(place, box):
        return part
    if place.covers(box) and (inner := within(box, place)) is not None:
        return viewed(part, inner)
    inside = [(inner, part) for place, part in seen if (inner := within(place, box)) is not None]
    if len(inside) == len(seen):
        return Boxes(box.shape, node.dtype, tuple(inside))
    cut = [piece for place, part in seen if (piece := _cut(place, part, box)) is not None]
    if len(cut) == len(seen):
        return Boxes(box.shape, node.dtype, tuple(cut))
    return Viewed(box.shape, node.dtype, box, dataclasses.replace(node, of=tuple(seen)))


def _cut(place: Box, part: Node, box: Box) -> tuple[Box, Node] | None:
    """The common elements of a placed part and a box, placed in the box."""
    lattice = common_lattice(place, box)
    if lattice is None or not box.is_injective:
        return None
    strides = sorted({stride for one in (place, box) for _, stride, _ in one.axes} | {1}, reverse=True)
    ranges = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(*lattice, strict=True)]
    shape = tuple(max(high - low, 0) for low, high in ranges)
    common = Box(shape, tuple(strides), sum(low * stride for (low, _), stride in zip(ranges, strides, strict=True)))
    target, source = within(common, box), within(common, place)
    if target is None or source is None:
        return None
    return target, viewed(part, source)


def boxes(shape: Shape, dtype: DType, of: Sequence[tuple[Box, Node]]) -> Node:
    """Nodes, put into boxes of an array."""
    for _, node in of:
        if isinstance(node, Problem):
            return spoilt(node, shape, dtype)
    parts = [(box, node) for box, node in of if box.size]
    if len(parts) == 1 and parts[0][0].shape == shape and is_same(parts[0][0], whole(shape)):
        return parts[0][1]
    if parts and all(isinstance(node, Full) for _, node in parts):
        values = [node.value for _, node in parts if isinstance(node, Full)]
        is_filled = sum(box.size for box, _ in parts) == math.prod(shape) or parts[0][0].size == math.prod(shape)
        if is_filled and all(value == values[0] for value in values):
            return full(shape, dtype, values[0])
    return Boxes(shape, dtype, tuple(parts))


def stacked(nodes: Sequence[Node], drawings: Drawings) -> Node:
    """Nodes of one shape, along a new first axis: draws of one law are one draw, of the stacked shape."""
    first = nodes[0]
    shape = (len(nodes), *first.shape)
    merged = _merged(nodes, shape, drawings)
    if merged is not None:
        return merged
    size = math.prod(first.shape)
    places = [Box(first.shape, whole(first.shape).strides, index * size) for index in range(len(nodes))]
    return boxes(shape, first.dtype, list(zip(places, nodes, strict=True)))


def _merged(nodes: Sequence[Node], shape: Shape, drawings: Drawings) -> Node | None:
    draws = [node for node in nodes if isinstance(node, Draw)]
    if len(draws) < len(nodes):
        return None
    first = draws[0]
    laws = {(one.scheme, tuple(one.parameters.items()), one.is_mirrored) for one in draws}
    if len(laws) > 1 or first.scheme not in ELEMENTWISE:
        return None
    if any(len(one.drawing.atoms) != len(first.drawing.atoms) for one in draws):
        return None
    atoms = tuple(itertools.chain.from_iterable(one.drawing.atoms for one in draws))
    return dataclasses.replace(first, shape=shape, drawing=drawings.of(atoms, first.drawing.site))


def single(draw: Draw, drawings: Drawings) -> Node:
    """A stacked draw as a stack of draws, each with a stream of its own."""
    atoms = draw.drawing.atoms
    size = math.prod(draw.shape) // len(atoms)
    flat = []
    for index, atom in enumerate(atoms):
        drawing = drawings.of((atom,), draw.drawing.site)
        part = dataclasses.replace(draw, shape=atom.shape, drawing=drawing)
        flat.append((Box(atom.shape, whole(atom.shape).strides, index * size), part))
    return Boxes(draw.shape, draw.dtype, tuple(flat))


# Functions.


NOT_COMPLEX = "computes with complex numbers, which are served as they are drawn, times a real number at the most"


def cast(node: Node, dtype: DType) -> Node:  # noqa: PLR0911 - a table of what nodes are
    """A node, converted to a dtype."""
    if node.dtype == dtype:
        return node
    if isinstance(node, Problem):
        return dataclasses.replace(node, dtype=dtype)
    if isinstance(node, Full):
        return full(node.shape, dtype, node.value)
    if isinstance(node, Given):
        return Given(node.shape, dtype, node.values.astype(dtype))
    if isinstance(node, Boxes):
        return dataclasses.replace(node, dtype=dtype, of=tuple((box, cast(part, dtype)) for box, part in node.of))
    if isinstance(node, Draw) and node.dtype == FLOATS[0] and dtype in HALVES:
        return dataclasses.replace(node, dtype=dtype)  # that is how the 16-bit types are defined
    if dtype.kind == "c":
        return Cast(node.shape, dtype, node)  # real numbers, of which a complex law may yet be made
    if node.dtype.kind == "c":
        return Problem(node.shape, dtype, NOT_COMPLEX)
    if dtype == BOOL:
        return with_dtype(apply("subtract", 1.0, apply("equal", node, 0.0, dtype=BOOL), dtype=BOOL), dtype)
    if dtype not in FLOATS and node.dtype in FLOATS:
        down, up = apply("floor", node), apply("negate", apply("floor", apply("negate", node)))
        return with_dtype(apply("where", apply("less", node, 0.0), up, down), dtype)
    if node.dtype not in FLOATS:
        if dtype not in FLOATS and node.dtype != BOOL and dtype.itemsize < node.dtype.itemsize:
            return Problem(node.shape, dtype, "makes drawn integers of a type that may not hold them")
        return with_dtype(node, dtype)
    return Cast(node.shape, dtype, node)


def with_dtype(node: Node, dtype: DType) -> Node:
    """The same numbers, said to be of a dtype that holds them all."""
    return dataclasses.replace(node, dtype=dtype)


def apply(function: str, *arguments: Node | float, dtype: DType | None = None) -> Node:
    """A function of the contract, of nodes and numbers, folded as far as laws go."""
    first = next(one for one in arguments if isinstance(one, Node))
    shape: Shape = np.broadcast_shapes(*(one.shape for one in arguments if isinstance(one, Node)))
    dtype = dtype or first.dtype
    nodes = tuple(one if isinstance(one, Node) else full((), np.dtype(np.float64), one) for one in arguments)
    for node in nodes:
        if isinstance(node, Problem):
            return spoilt(node, shape, dtype)
    if any(node.dtype.kind == "c" for node in nodes):
        return _apply_complex(function, nodes, shape, dtype)
    alone = [node for node in nodes if not isinstance(node, Full)]
    if len(alone) == 1 and alone[0].shape == shape:
        function, nodes = _without_infinity(function, nodes)
        if not function:
            return alone[0]
        return _of_one(function, nodes, alone[0], dtype)
    return Apply(shape, dtype, function, tuple(_small(node) for node in nodes))


def _without_infinity(function: str, nodes: tuple[Node, ...]) -> tuple[str, tuple[Node, ...]]:
    """A comparison without the bounds that change nothing; no function if that is all of it."""
    if function not in ("maximum", "minimum", "clamp"):
        return function, nodes
    if function == "clamp":
        x, low, high = nodes
        if isinstance(x, Full):
            return function, nodes
        is_open = [isinstance(one, Full) and one.value == end for one, end in ((low, -math.inf), (high, math.inf))]
        if all(is_open):
            return "", nodes
        if any(is_open):
            return ("minimum", (x, high)) if is_open[0] else ("maximum", (x, low))
        return function, nodes
    least = -math.inf if function == "maximum" else math.inf
    return ("", nodes) if any(isinstance(one, Full) and one.value == least for one in nodes) else (function, nodes)


def _small(node: Node) -> Node:
    """A constant without dimensions, which is broadcast by itself."""
    return dataclasses.replace(node, shape=()) if isinstance(node, Full) else node


def _of_one(function: str, nodes: tuple[Node, ...], node: Node, dtype: DType) -> Node:
    """A function of one node and of constants."""

    def again(part: Node) -> Node:
        return apply(function, *(part if one is node else _small(one) for one in nodes), dtype=dtype)

    if isinstance(node, Boxes) and _keeps_zero(node):
        return dataclasses.replace(node, dtype=dtype, of=tuple((box, again(part)) for box, part in node.of))
    if isinstance(node, Viewed) and isinstance(node.of, Draw):
        return viewed(again(node.of), node.box)
    if isinstance(node, Draw) and node.dtype == dtype:
        folded = _folded(function, nodes, node)
        if folded is not None:
            return folded
    return Apply(node.shape, dtype, function, tuple(_small(one) for one in nodes))


def _keeps_zero(node: Boxes) -> bool:
    """Whether every element is in a box, so that a function of the boxes is that of the whole."""
    return sum(box.size for box, _ in node.of) >= math.prod(node.shape) and (
        node.of[0][0].size == math.prod(node.shape)
        or all(a.is_apart_from(b) for i, (a, _) in enumerate(node.of) for b, _ in node.of[:i])
    )


# The algebra of laws.


def _folded(function: str, nodes: tuple[Node, ...], draw: Draw) -> Node | None:
    """The law of a function of a draw and constants, if it is one."""
    values = [float(node.value) if isinstance(node, Full) else None for node in nodes]
    if function in _AFFINE:
        factor, shift = _AFFINE[function](values)
        return affine(draw, factor, shift) if math.isfinite(factor) and math.isfinite(shift) else None
    if function == "erfinv" and draw.scheme == "uniform":
        return _erfinv(draw)
    if function in ("clamp", "minimum", "maximum") and draw.scheme in ("trunc_normal", "uniform"):
        return _clamped(draw, *_bounds(function, values))
    return None


_AFFINE: dict[str, Callable[[list[float | None]], tuple[float, float]]] = {
    "negate": lambda v: (-1.0, 0.0),
    "add": lambda v: (1.0, _other(v)),
    "subtract": lambda v: (1.0, -_other(v)) if v[0] is None else (-1.0, _other(v)),
    "multiply": lambda v: (_other(v), 0.0),
    "divide": lambda v: (1 / _other(v), 0.0) if v[0] is None and _other(v) else (math.nan, 0.0),
}


def _other(values: list[float | None]) -> float:
    return next(value for value in values if value is not None)


def affine(draw: Draw, factor: float, shift: float) -> Node | None:
    """``factor * draw + shift``; of complex numbers, the shift is 0."""
    if draw.dtype.kind == "c" and shift:
        return None
    if factor == 0:
        return full(draw.shape, draw.dtype, shift)
    old, new = draw.parameters, {}
    if draw.scheme in ELEMENTWISE:
        moved = {name: old[name] * factor + shift for name in ("a", "b", "mean") if name in old}
        new = moved if factor > 0 or "a" not in moved else {**moved, "a": moved["b"], "b": moved["a"]}
    elif shift or factor < 0:
        return None
    for name in ("std", "gain", "radius"):
        if name in old:
            new[name] = old[name] * abs(factor)
    if not new:
        return None
    return dataclasses.replace(draw, parameters={**old, **new}, is_mirrored=draw.is_mirrored is not (factor < 0))


def _erfinv(draw: Draw) -> Node | None:
    """A uniform on (p, q) gives a normal of variance 1/2 between erfinv(p) and erfinv(q): often written by hand."""
    low, high = draw.parameters["a"], draw.parameters["b"]
    # JAX's uniforms on (-1, 1) exclude -1 by an ulp of float32, at the most of bfloat16.
    ends = [_inverse_erf(low), _inverse_erf(high)]
    if any(math.isnan(end) for end in ends):
        return None
    parameters = {"mean": 0.0, "std": math.sqrt(0.5), "a": ends[0], "b": ends[1]}
    return dataclasses.replace(draw, scheme="trunc_normal", parameters=parameters)


def _inverse_erf(y: float) -> float:
    if abs(y) > 1:
        return math.nan
    if abs(y) >= 1 - 2**-24:
        return math.copysign(math.inf, y)
    low, high = -6.0, 6.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erf(middle) < y else (low, middle)
    return (low + high) / 2


def _bounds(function: str, values: list[float | None]) -> tuple[float, float]:
    if function == "clamp":
        return (-math.inf if values[1] is None else values[1]), (math.inf if values[2] is None else values[2])
    bound = _other(values)
    return (-math.inf, bound) if function == "minimum" else (bound, math.inf)


_SLACK = 2e-3
"""How far, in standard deviations, a bound that was computed in float32 lies from the one that was meant."""


def _clamped(draw: Draw, low: float, high: float) -> Node | None:
    """A law with bounds, brought into bounds that it had already, but for rounding."""
    old = draw.parameters
    a, b = old["a"], old["b"]
    if draw.scheme == "uniform":
        return draw if low <= a and high >= b else None
    slack, far = _SLACK * old["std"], 6.0 * old["std"]  # hardly anything lies beyond
    a_fits = low <= a + slack or (math.isinf(a) and low <= old["mean"] - far)
    b_fits = high >= b - slack or (math.isinf(b) and high >= old["mean"] + far)
    if not (a_fits and b_fits):
        return None
    a = low if abs(low - a) <= slack or math.isinf(a) else a
    b = high if abs(high - b) <= slack or math.isinf(b) else b
    return dataclasses.replace(draw, parameters={**old, "a": a, "b": b})


# Complex numbers: draws of them times real numbers, and what is real and only called complex.


def _apply_complex(function: str, nodes: tuple[Node, ...], shape: Shape, dtype: DType) -> Node:
    reals = [as_real(node) for node in nodes]
    if all(one is not None for one in reals) and _stays_real(function, [one for one in reals if one is not None]):
        return cast(apply(function, *(one for one in reals if one is not None)), dtype)
    scaled = _scaled_complex(function, nodes, reals)
    return scaled or Problem(shape, dtype, NOT_COMPLEX)


def _scaled_complex(function: str, nodes: tuple[Node, ...], reals: list[Node | None]) -> Node | None:
    """A complex draw, or a view of one, times a real number."""
    drawn = [node for node in nodes if not isinstance(node, Full)]
    node = drawn[0] if len(drawn) == 1 else None
    draw = node.of if isinstance(node, Viewed) else node
    if node is None or not isinstance(draw, Draw) or function not in _AFFINE:
        return None
    known = [draw if one is node else real for one, real in zip(nodes, reals, strict=True)]
    folded = _folded(function, tuple(one for one in known if one is not None), draw) if None not in known else None
    return viewed(folded, node.box) if folded and isinstance(node, Viewed) else folded


def as_real(node: Node) -> Node | None:
    """The real numbers that complex ones are, if they are."""
    if node.dtype.kind != "c":
        return node
    if isinstance(node, Full):
        return full(node.shape, FLOATS[0], node.value.real) if not node.value.imag else None
    if isinstance(node, Cast) and node.of.dtype.kind != "c":
        return node.of
    return None


def _stays_real(function: str, nodes: list[Node]) -> bool:
    if function in ("add", "subtract", "multiply", "negate"):
        return True
    return function in ("sqrt", "log") and interval(nodes[0])[0] >= 0


def interval(node: Node) -> tuple[float, float]:
    """Bounds of a node's numbers, as far as they are easily known."""
    low, high = -math.inf, math.inf
    if isinstance(node, Full):
        low = high = float(node.value)
    elif isinstance(node, Draw) and "a" in node.parameters:
        low, high = node.parameters["a"], node.parameters["b"]
    elif isinstance(node, Apply) and node.function == "negate":
        below, above = interval(node.of[0])
        low, high = -above, -below
    elif isinstance(node, Apply) and node.function == "log":
        below, above = interval(node.of[0])
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
    """The law of complex numbers of a drawn modulus and of any angle, if it is one."""
    law = _law_of_modulus(modulus)
    if law is None:
        return None
    draw, parameters = law
    radii, angles = draw.drawing.atoms, angle.drawing.atoms
    if modulus.shape != angle.shape or len(radii) != len(angles) or set(radii) & set(angles):
        return None
    name = "normal disk" if "std" in parameters else "disk"
    atoms = [Atom(one.key + two.key, name, one.shape, "complex64") for one, two in zip(radii, angles, strict=True)]
    drawing = drawings.of(tuple(atoms), draw.drawing.site)
    return Draw(modulus.shape, COMPLEX, drawing, "disk", parameters)


def _law_of_modulus(node: Node) -> tuple[Draw, dict[str, float]] | None:
    """The draw under a modulus, and the disk's parameters."""
    if not isinstance(node, Apply) or node.function != "sqrt":
        return None
    square = node.of[0]
    if isinstance(square, Draw) and square.scheme == "uniform" and square.parameters["a"] == 0:
        return square, {"radius": math.sqrt(square.parameters["b"])}
    if not (isinstance(square, Apply) and square.function == "negate"):
        return None
    inner = square.of[0]
    if not (isinstance(inner, Apply) and inner.function == "log" and isinstance(inner.of[0], Draw)):
        return None
    draw = inner.of[0]
    low, high = draw.parameters.get("a", 0.0), draw.parameters.get("b", 0.0)
    if draw.scheme != "uniform" or abs(high - 1) > 1e-6 or not 0 < low < 1:
        return None
    return draw, {"radius": math.sqrt(-math.log(low)), "std": 1.0}
