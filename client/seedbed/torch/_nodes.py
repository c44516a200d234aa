"""What a tensor holds while a model's code is recorded: a graph of draws, constants and what was made of them.

The functions that make nodes fold them by the algebra of laws, so that what is a law in the end is one: an affine map
of a uniform, normal or truncated normal is one; the inverse error function of a uniform is a truncated normal; a view
of a view is one view; a function of boxes is boxes of it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from seedbed._record.boxes import Box, Shape, common_lattice, is_same, joined, whole, within

ELEMENTWISE = ("uniform", "normal", "trunc_normal")
"""The laws of which every element is drawn alike, whatever the shape."""


class Site(NamedTuple):
    """A line of the model's code."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclasses.dataclass(frozen=True, eq=False)
class Drawing:
    """One event of drawing; who holds the same one holds the same values."""

    number: int
    site: Site | None


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """A tensor's values."""

    shape: Shape
    dtype: torch.dtype

    @property
    def arguments(self) -> tuple[Node, ...]:
        return ()

    @functools.cached_property
    def facts(self) -> _Facts:
        """Worked out once, from the arguments', so that a chain of operations costs no more the longer it is."""
        if isinstance(self, Problem):
            return _Facts(self.is_drawn, self)
        facts = [argument.facts for argument in settled(self).arguments]
        problem = next((one.problem for one in facts if one.problem is not None), None)
        return _Facts(isinstance(self, Draw) or any(one.is_drawn for one in facts), problem)


@dataclasses.dataclass(frozen=True, eq=False)
class Draw(Node):
    """What a scheme draws."""

    drawing: Drawing
    scheme: str
    parameters: Mapping[str, Any]
    is_mirrored: bool = False
    """Whether its order was turned round: then it is the law's value reflected in the middle of the law."""


@dataclasses.dataclass(frozen=True, eq=False)
class Full(Node):
    """The same everywhere."""

    value: float


@dataclasses.dataclass(frozen=True, eq=False)
class Given(Node):
    """Values that were computed without drawing; row-major, and nobody else's."""

    values: torch.Tensor


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
    """Boxes of a tensor, in their order; of the flat tensor, whatever the shape. The first may be the whole."""

    of: tuple[tuple[Box, Node], ...]

    @property
    def arguments(self) -> tuple[Node, ...]:
        return tuple(node for _, node in self.of)


@dataclasses.dataclass(frozen=True, eq=False)
class Reduce(Node):
    """Reduced along axes, which stay with size 1."""

    reducer: str
    axes: tuple[int, ...]
    p: float
    of: Node

    @property
    def arguments(self) -> tuple[Node, ...]:
        return (self.of,)


@dataclasses.dataclass(frozen=True, eq=False)
class Problem(Node):
    """What cannot be said, and why."""

    text: str
    site: Site | None = None
    is_drawn: bool = True
    is_unset: bool = False

    def __str__(self) -> str:
        return f"{self.text} ({self.site})" if self.site else self.text


@dataclasses.dataclass(frozen=True, eq=False)
class Signs(Problem):
    """R of a QR decomposition, or its diagonal: only its signs are known."""


def located(problem: Problem, site: Site | None) -> Problem:
    """A problem with its place."""
    return dataclasses.replace(problem, site=site)


def unset(shape: Shape, dtype: torch.dtype) -> Problem:
    """Memory as it was allocated."""
    return Problem(
        shape, dtype, "is never initialised: its memory is as it was allocated", is_drawn=False, is_unset=True
    )


def problem(text: str, shape: Shape, dtype: torch.dtype, cause: Node | None = None) -> Problem:
    """What cannot be said; or what was wrong before that."""
    earlier = problem_of(cause) if cause is not None else None
    return spoilt(earlier, shape, dtype) if earlier else Problem(shape, dtype, text)


def given(tensor: torch.Tensor) -> Node:
    """The values that a tensor has now."""
    values = tensor.detach().clone(memory_format=torch.contiguous_format)
    shape = tuple(values.shape)
    if values.numel() == 1:
        return full(shape, values.dtype, values.item())
    return Given(shape, values.dtype, values)


def full(shape: Shape, dtype: torch.dtype, value: complex) -> Node:
    """The same number everywhere; a complex one with an imaginary part is given."""
    if isinstance(value, complex):
        if value.imag:
            return Given(shape, dtype, torch.full(shape, value, dtype=dtype))
        value = value.real
    return Full(shape, dtype, value)


def is_served(dtype: torch.dtype) -> bool:
    """Whether there are draws of a dtype, be it of other precision."""
    return dtype.is_floating_point or dtype.is_complex


def as_complex(node: Node) -> Node | None:
    """A flat node of float32, its pairs read as complex numbers; None if no law is that."""
    if not isinstance(node, Draw) or node.dtype != torch.float32 or node.is_mirrored or len(node.shape) != 1:
        return None
    given_ = dict(node.parameters)
    if node.scheme == "normal" and given_["mean"] == 0:
        given_["std"] *= math.sqrt(2.0)  # a complex normal has half of its variance in either part
    elif node.scheme != "uniform":
        return None
    return dataclasses.replace(node, shape=(node.shape[0] // 2,), dtype=torch.complex64, parameters=given_)


def leaves(node: Node) -> Iterator[Node]:
    """Every node without arguments that a node is made of, once each."""
    seen, pending = set(), [node]
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        node = settled(node)
        if node.arguments:
            pending += node.arguments
        else:
            yield node


def settled(node: Node) -> Node:
    """A node without memory that was allocated and then written all over."""
    if not isinstance(node, Boxes) or not isinstance(node.of[0][1], Problem):
        return node
    boxes = [box for box, _ in node.of[1:]]
    are_apart = len(boxes) <= 64 and all(a.is_apart_from(b) for i, a in enumerate(boxes) for b in boxes[:i])
    if are_apart and all(box.is_injective for box in boxes):
        is_covered = sum(box.size for box in boxes) == math.prod(node.shape)
    else:
        mask = torch.zeros(math.prod(node.shape), dtype=torch.bool)
        for box in boxes:
            _lay(torch.ones(box.shape, dtype=torch.bool), box, mask)
        is_covered = bool(mask.all())
    return dataclasses.replace(node, of=node.of[1:]) if is_covered else node


class _Facts(NamedTuple):
    """What is known of all that a node is made of."""

    is_drawn: bool
    problem: Problem | None


def is_drawn(node: Node) -> bool:
    """Whether anything in it was drawn, or is unknown."""
    return node.facts.is_drawn


def problem_of(node: Node) -> Problem | None:
    """What is wrong with it, if anything is."""
    return node.facts.problem


def evaluated(node: Node) -> torch.Tensor:
    """The numbers of a node in which nothing was drawn."""
    node = settled(node)
    if isinstance(node, Full):
        return torch.full(node.shape, node.value, dtype=node.dtype)
    if isinstance(node, Given):
        return node.values
    if isinstance(node, Viewed):
        return _taken(evaluated(node.of), node.box)
    if isinstance(node, Cast):
        return evaluated(node.of).to(node.dtype)
    if isinstance(node, Boxes):
        flat = torch.zeros(math.prod(node.shape), dtype=node.dtype)
        for box, part in node.of:
            _lay(evaluated(part), box, flat)
        return flat.reshape(node.shape)
    if isinstance(node, Apply):
        values = (evaluated(argument).to(torch.float64) for argument in node.of)
        return _REFERENCE[node.function](*values).to(node.dtype).expand(node.shape)
    raise AssertionError(f"{type(node).__name__} was drawn")


def _lay(values: torch.Tensor, box: Box, flat: torch.Tensor) -> None:
    if all(stride >= 0 for stride in box.strides):
        flat.as_strided(box.shape, box.strides, box.offset).copy_(values)
        return
    indices = torch.full(box.shape, box.offset)
    for axis, (extent, stride) in enumerate(zip(box.shape, box.strides, strict=True)):
        indices += (torch.arange(extent) * stride).reshape(-1, *(1,) * (len(box.shape) - axis - 1))
    flat[indices.reshape(-1)] = values.reshape(-1)


# Views.


def viewed(node: Node, box: Box) -> Node:  # noqa: PLR0911 - a table of what nodes are
    """A box of a node, seen as a tensor of the box's shape."""
    shape = box.shape
    if box.shape == node.shape and is_same(box, whole(shape)):
        return node
    if isinstance(node, Full):
        return dataclasses.replace(node, shape=shape)
    if isinstance(node, Problem):
        return dataclasses.replace(node, shape=shape)
    if isinstance(node, Given):
        return Given(shape, node.dtype, _taken(node.values, box))
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


def _taken(values: torch.Tensor, box: Box) -> torch.Tensor:
    if any(stride < 0 for stride in box.strides):
        array = np.lib.stride_tricks.as_strided
        flat = (
            values.reshape(-1).numpy()
            if values.dtype != torch.bfloat16
            else values.reshape(-1).view(torch.int16).numpy()
        )
        item = flat.itemsize
        taken = array(flat[box.offset :], box.shape, [stride * item for stride in box.strides]).copy()
        result = torch.from_numpy(taken)
        return result.view(torch.bfloat16) if values.dtype == torch.bfloat16 else result
    return (
        values.reshape(-1).as_strided(box.shape, box.strides, box.offset).clone(memory_format=torch.contiguous_format)
    )


def _viewed_boxes(node: Boxes, box: Box) -> Node:
    """A box of boxes: of the one that holds all of it, if there is one."""
    seen = [(place, part) for place, part in node.of if not place.is_apart_from(box)]
    if not seen:
        return Full(box.shape, node.dtype, 0.0)
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


def written(before: Node, box: Box, node: Node) -> Node:
    """The flat tensor ``before`` after a node of the box's shape was written into the box."""
    if not box.size:
        return before
    if box.size == math.prod(before.shape) and box.is_dense:
        axes = box.axes
        if all(stride > 0 for _, stride, _ in axes):
            order = Box(tuple(extent for extent, _, _ in axes), tuple(own for _, _, own in axes))
            return viewed(viewed(node, order), whole(before.shape))
    old = before.of if isinstance(before, Boxes) else ((whole(before.shape), before),)
    if (
        isinstance(node, Full)
        and len(old) == 1
        and isinstance(old[0][1], Full)
        and _same_number(old[0][1].value, node.value)
    ):
        return before
    kept = tuple((place, part) for place, part in old if not box.covers(place))
    return Boxes(before.shape, before.dtype, (*kept, (box, node)))


def _same_number(a: float, b: float) -> bool:
    return a == b and math.copysign(1, a) == math.copysign(1, b)


# Functions.


def cast(node: Node, dtype: torch.dtype) -> Node:  # noqa: PLR0911 - a table of what nodes are
    """A node, converted to a dtype."""
    if node.dtype == dtype:
        return node
    if isinstance(node, Problem):
        return dataclasses.replace(node, dtype=dtype)
    if isinstance(node, Full):
        return full(node.shape, dtype, torch.tensor(node.value, dtype=node.dtype).to(dtype).item())
    if isinstance(node, Given):
        return Given(node.shape, dtype, node.values.to(dtype))
    if isinstance(node, Boxes):
        return dataclasses.replace(node, dtype=dtype, of=tuple((box, cast(part, dtype)) for box, part in node.of))
    if isinstance(node, Draw) and node.dtype == torch.float32 and dtype in (torch.float16, torch.bfloat16):
        return dataclasses.replace(node, dtype=dtype)  # that is how the 16-bit types are defined
    if node.dtype.is_complex or dtype.is_complex:
        return problem(_NOT_COMPLEX, node.shape, dtype, node)
    if dtype == torch.bool:
        return with_dtype(apply("subtract", 1.0, apply("equal", node, 0.0)), dtype)
    if not dtype.is_floating_point and node.dtype.is_floating_point:
        down, up = apply("floor", node), apply("negate", apply("floor", apply("negate", node)))
        return with_dtype(apply("where", apply("less", node, 0.0), up, down), dtype)
    return Cast(node.shape, dtype, node)


_NOT_COMPLEX = "is computed of complex numbers, which are served as they are drawn, times a real number at the most"


def with_dtype(node: Node, dtype: torch.dtype) -> Node:
    """The same numbers, said to be of a dtype that holds them all."""
    return dataclasses.replace(node, dtype=dtype)


def apply(function: str, *arguments: Node | float, dtype: torch.dtype | None = None) -> Node:
    """A function of the contract, of nodes and numbers, folded as far as laws go."""
    shape = np.broadcast_shapes(*(one.shape for one in arguments if isinstance(one, Node)))
    first = next(one for one in arguments if isinstance(one, Node))
    dtype = dtype or first.dtype
    if dtype.is_complex or any(one.dtype.is_complex for one in arguments if isinstance(one, Node)):
        return _apply_complex(function, arguments, shape, dtype)
    nodes = tuple(settled(one) if isinstance(one, Node) else Full((), torch.float64, float(one)) for one in arguments)
    for node in nodes:
        if isinstance(node, Problem):
            return spoilt(node, shape, dtype)
    alone = [node for node in nodes if not isinstance(node, Full)]
    if not alone:
        return _constant(function, nodes, shape, dtype)
    if len(alone) == 1 and alone[0].shape == shape:
        return _of_one(function, nodes, alone[0], dtype)
    return Apply(shape, dtype, function, tuple(_small(node) for node in nodes))


def _apply_complex(function: str, arguments: Sequence[Node | complex], shape: Shape, dtype: torch.dtype) -> Node:
    """Complex draws times real numbers, and nothing else."""
    nodes = tuple(settled(one) if isinstance(one, Node) else full((), torch.complex128, one) for one in arguments)
    for node in nodes:
        if isinstance(node, Problem):
            return spoilt(node, shape, dtype)
    drawn = [node for node in nodes if not isinstance(node, Full)]
    if len(drawn) == 1 and drawn[0].shape == shape and drawn[0].dtype == dtype:
        scaled = _scaled_complex(function, nodes, drawn[0])
        if scaled is not None:
            return scaled
    return Problem(shape, dtype, _NOT_COMPLEX)


def _scaled_complex(function: str, nodes: tuple[Node, ...], node: Node) -> Node | None:
    if isinstance(node, Draw):
        return _folded(function, nodes, node)
    if isinstance(node, Viewed) and isinstance(node.of, Draw):
        scaled = _folded(function, nodes, node.of)
        return None if scaled is None else viewed(scaled, node.box)
    return None


def spoilt(problem: Problem, shape: Sequence[int], dtype: torch.dtype) -> Problem:
    """What is made of a problem."""
    text = problem.text if not problem.is_unset else "is made of memory that was never initialised"
    return dataclasses.replace(problem, shape=tuple(shape), dtype=dtype, text=text, is_unset=False)


def _small(node: Node) -> Node:
    """A constant without dimensions, which is broadcast by itself."""
    return dataclasses.replace(node, shape=()) if isinstance(node, Full) else node


def _of_one(function: str, nodes: tuple[Node, ...], node: Node, dtype: torch.dtype) -> Node:
    """A function of one node and of constants."""

    def again(part: Node) -> Node:
        shaped = [part if one is node else _small(one) for one in nodes]
        return apply(function, *shaped, dtype=dtype)

    if isinstance(node, Boxes):
        return dataclasses.replace(node, dtype=dtype, of=tuple((box, again(part)) for box, part in node.of))
    if isinstance(node, Viewed) and isinstance(node.of, Draw):
        return viewed(again(node.of), node.box)
    if isinstance(node, Draw) and node.dtype == dtype:
        folded = _folded(function, nodes, node)
        if folded is not None:
            return folded
    return Apply(node.shape, dtype, function, tuple(_small(one) for one in nodes))


def _constant(function: str, nodes: tuple[Node, ...], shape: Shape, dtype: torch.dtype) -> Node:
    values = [torch.tensor(node.value, dtype=torch.float64) for node in nodes if isinstance(node, Full)]
    result = _REFERENCE[function](*values).to(torch.float64).item()
    return Full(shape, dtype, torch.tensor(result, dtype=torch.float64).to(dtype).item())


_REFERENCE: dict[str, Callable[..., torch.Tensor]] = {
    "add": torch.add,
    "subtract": torch.sub,
    "multiply": torch.mul,
    "divide": torch.div,
    "negate": torch.neg,
    "absolute": torch.abs,
    "minimum": torch.minimum,
    "maximum": torch.maximum,
    "clamp": lambda a, low, high: torch.minimum(torch.maximum(a, low), high),
    "less": torch.lt,
    "less_equal": torch.le,
    "equal": torch.eq,
    "where": lambda a, b, c: torch.where(a != 0, b, c),
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "power": torch.pow,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log": torch.log,
    "log1p": torch.log1p,
    "sin": torch.sin,
    "cos": torch.cos,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": lambda a: torch.log1p(torch.exp(-a.abs())) + a.clamp(min=0),
    "erf": torch.erf,
    "erfinv": torch.erfinv,
    "floor": torch.floor,
    "round": torch.round,
}


# The algebra of laws.


def _folded(function: str, nodes: tuple[Node, ...], draw: Draw) -> Node | None:
    """The law of a function of a draw and constants, if it is one."""
    values = [node.value if isinstance(node, Full) else None for node in nodes]
    if function in _AFFINE:
        factor, shift = _AFFINE[function](values)
        return _affine(draw, factor, shift) if math.isfinite(factor) and math.isfinite(shift) else None
    if function == "erfinv" and draw.scheme == "uniform":
        return _erfinv(draw)
    if function in ("clamp", "minimum", "maximum") and draw.scheme == "trunc_normal":
        low, high = _bounds(function, values)
        return _clamped(draw, low, high)
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


def _affine(draw: Draw, factor: float, shift: float) -> Node | None:
    """``factor * draw + shift``; of complex numbers, the shift is 0."""
    if draw.dtype.is_complex and shift:
        return None
    if factor == 0:
        return Full(draw.shape, draw.dtype, shift)
    old, new = draw.parameters, {}
    if draw.scheme in ELEMENTWISE:
        moved = {name: old[name] * factor + shift for name in ("a", "b", "mean") if name in old}
        new = moved if factor > 0 or "a" not in moved else {**moved, "a": moved["b"], "b": moved["a"]}
    elif shift or factor < 0:
        return None
    for name in ("std", "gain"):
        if name in old:
            new[name] = old[name] * abs(factor)
    if not new:
        return None
    return dataclasses.replace(draw, parameters={**old, **new}, is_mirrored=draw.is_mirrored is not (factor < 0))


def _with(draw: Draw, **parameters: float) -> Draw:
    return dataclasses.replace(draw, parameters={**draw.parameters, **parameters})


def _erfinv(draw: Draw) -> Node | None:
    """A uniform on (p, q) gives a normal of variance 1/2 between erfinv(p) and erfinv(q): often written by hand."""
    low, high = draw.parameters["a"], draw.parameters["b"]
    if low < -1 or high > 1:
        return None
    ends = torch.erfinv(torch.tensor([low, high], dtype=torch.float64)).tolist()
    parameters = {"mean": 0.0, "std": math.sqrt(0.5), "a": ends[0], "b": ends[1]}
    return dataclasses.replace(draw, scheme="trunc_normal", parameters=parameters)


def _bounds(function: str, values: list[float | None]) -> tuple[float, float]:
    if function == "clamp":
        return (-math.inf if values[1] is None else values[1]), (math.inf if values[2] is None else values[2])
    bound = _other(values)
    return (-math.inf, bound) if function == "minimum" else (bound, math.inf)


_SLACK = 2e-3
"""How far, in standard deviations, a bound that was computed in float32 lies from the one that was meant."""


def _clamped(draw: Draw, low: float, high: float) -> Node | None:
    """A truncated normal, brought into bounds that it had already, but for rounding."""
    given_ = draw.parameters
    slack = _SLACK * given_["std"]
    a, b = given_["a"], given_["b"]
    far = 6.0 * given_["std"]  # hardly anything lies beyond
    a_fits = low <= a + slack or (math.isinf(a) and low <= given_["mean"] - far)
    b_fits = high >= b - slack or (math.isinf(b) and high >= given_["mean"] + far)
    if not (a_fits and b_fits):
        return None
    a = low if abs(low - a) <= slack or math.isinf(a) else a
    b = high if abs(high - b) <= slack or math.isinf(b) else b
    return _with(draw, a=a, b=b)
