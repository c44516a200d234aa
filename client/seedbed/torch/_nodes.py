"""The graph of `seedbed._record.nodes` for torch: its values are tensors on the CPU, its dtypes torch's.

The functions that make nodes fold them by the algebra of laws and of views, so that a tensor which follows one law is
one draw in the end.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from seedbed._record import laws, nodes
from seedbed._record.boxes import Box, Shape, elements, joined, whole
from seedbed._record.nodes import (
    Apply,
    Cast,
    Draw,
    Full,
    Literal,
    Node,
    Viewed,
    problem_of,
    scalar,
    with_dtype,
)
from seedbed._record.views import Views


class Site(NamedTuple):
    """A line of the model's code."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclasses.dataclass(frozen=True, eq=False)
class Drawing(nodes.Drawing):
    """One event of drawing, with its number."""

    number: int


@dataclasses.dataclass(frozen=True, eq=False)
class Problem(nodes.Problem):
    """Values that no recipe describes; or memory that is not initialised."""

    is_drawn: bool = True
    is_unset: bool = False

    @functools.cached_property
    def facts(self) -> nodes.Facts:
        return nodes.Facts(self.is_drawn, self)


@dataclasses.dataclass(frozen=True, eq=False)
class Signs(Problem):
    """Elements of R of a QR decomposition, of which only the diagonal's signs are known."""

    _: dataclasses.KW_ONLY
    boxes: tuple[Box, ...]
    """A box of a box, and so on; the last is of R."""
    columns: int
    """Those of R."""

    def are_known(self) -> bool:
        """Whether all of them are on the diagonal."""
        outer, *inner = self.boxes
        flat = sum(
            (index * stride for index, stride in zip(np.indices(outer.shape), outer.strides, strict=True)),
            np.full(outer.shape, outer.offset),
        )
        for box in inner:
            indices = np.unravel_index(flat, box.shape)
            flat = sum((index * stride for index, stride in zip(indices, box.strides, strict=True)), box.offset)
        return bool(np.all(flat % (self.columns + 1) == 0))


@dataclasses.dataclass(frozen=True, eq=False)
class Boxes(nodes.Boxes):
    """Boxes of the flat tensor, whatever the shape. The first may be all of it: what it held before."""

    def settled(self) -> Node:
        """The boxes without what the first one held before, if that is a problem and was overwritten completely."""
        if not isinstance(self.parts[0][1], Problem):
            return self
        boxes = [box for box, _ in self.parts[1:]]
        are_apart = len(boxes) <= 64 and all(a.is_apart_from(b) for i, a in enumerate(boxes) for b in boxes[:i])
        if are_apart and all(box.is_injective for box in boxes):
            is_covered = sum(box.size for box in boxes) == math.prod(self.shape)
        else:
            mask = np.zeros(math.prod(self.shape), np.bool_)
            for box in boxes:
                elements(mask, box)[...] = True
            is_covered = bool(mask.all())
        return dataclasses.replace(self, parts=self.parts[1:]) if is_covered else self


def unset(shape: Shape, dtype: torch.dtype) -> Problem:
    """Memory that is allocated and not initialised."""
    return Problem(
        shape, dtype, "is never initialised: its memory is as it was allocated", is_drawn=False, is_unset=True
    )


def problem(text: str, shape: Shape, dtype: torch.dtype, cause: Node | None = None) -> Problem:
    """A problem; or an earlier one, in what the values are computed from."""
    earlier = problem_of(cause) if cause is not None else None
    return propagated(earlier, shape, dtype) if earlier else Problem(shape, dtype, text)


def propagated(cause: nodes.Problem, shape: Sequence[int], dtype: torch.dtype) -> Problem:
    """What is computed from a problem: marked with the same text, so that the first reason is kept."""
    assert isinstance(cause, Problem)  # for mypy
    text = cause.text if not cause.is_unset else "is computed from memory that was never initialised"
    return Problem(tuple(shape), dtype, text, cause.site, cause.is_drawn)


def literal(tensor: torch.Tensor) -> Node:
    """The values that a tensor has now."""
    values = tensor.detach().clone(memory_format=torch.contiguous_format)
    shape = tuple(values.shape)
    if values.numel() == 1:
        return full(shape, values.dtype, values.item())
    return Literal(shape, values.dtype, values)


def full(shape: Shape, dtype: torch.dtype, value: complex) -> Node:
    """One number everywhere; a literal if it has an imaginary part."""
    if isinstance(value, complex):
        if value.imag:
            return Literal(shape, dtype, torch.full(shape, value, dtype=dtype))
        value = value.real
    return Full(shape, dtype, value)


def is_served(dtype: torch.dtype) -> bool:
    """Whether a dtype is drawn as such, or in another precision."""
    return dtype.is_floating_point or dtype.is_complex


def as_complex(node: Node) -> Node | None:
    """A flat node of float32, its pairs read as complex numbers; None if no law describes these."""
    if not isinstance(node, Draw) or node.dtype != torch.float32 or node.is_mirrored or len(node.shape) != 1:
        return None
    parameters = dict(node.parameters)
    if node.scheme == "normal" and parameters["mean"] == 0:
        parameters["std"] *= math.sqrt(2.0)  # each part of a complex normal has half of its variance
    elif node.scheme != "uniform":
        return None
    return dataclasses.replace(node, shape=(node.shape[0] // 2,), dtype=torch.complex64, parameters=parameters)


def evaluated(node: Node) -> torch.Tensor:
    """The values of a node in which nothing is drawn."""
    node = node.settled()
    if isinstance(node, Full):
        return torch.full(node.shape, node.value, dtype=node.dtype)
    if isinstance(node, Literal):
        values: torch.Tensor = node.values
        return values
    if isinstance(node, Viewed):
        return _taken(evaluated(node.source), node.box)
    if isinstance(node, Cast):
        return evaluated(node.source).to(node.dtype)
    if isinstance(node, Boxes):
        flat = torch.zeros(math.prod(node.shape), dtype=node.dtype)
        for box, part in node.parts:
            _lay(evaluated(part), box, flat)
        return flat.reshape(node.shape)
    if isinstance(node, Apply):
        operands = (evaluated(operand).to(torch.float64) for operand in node.operands)
        return _REFERENCE[node.function](*operands).to(node.dtype).expand(node.shape)
    raise AssertionError(f"a {type(node).__name__} has no values here")


def _lay(values: torch.Tensor, box: Box, flat: torch.Tensor) -> None:
    if all(stride >= 0 for stride in box.strides):
        flat.as_strided(box.shape, box.strides, box.offset).copy_(values)
        return
    indices = torch.full(box.shape, box.offset)
    for axis, (extent, stride) in enumerate(zip(box.shape, box.strides, strict=True)):
        indices += (torch.arange(extent) * stride).reshape(-1, *(1,) * (len(box.shape) - axis - 1))
    flat[indices.reshape(-1)] = values.reshape(-1)


# Views.


class _Views(Views):
    def of_literal(self, node: Literal, box: Box) -> Node:
        return Literal(box.shape, node.dtype, _taken(node.values, box))

    def of_problem(self, node: nodes.Problem, box: Box) -> Node:
        if not isinstance(node, Signs):
            return super().of_problem(node, box)
        outer, *inner = node.boxes
        direct = joined(box, outer)
        boxes = (box, outer, *inner) if direct is None else (direct, *inner)
        return dataclasses.replace(node, shape=box.shape, boxes=boxes)

    def zeros(self, shape: Shape, dtype: torch.dtype) -> Node:
        return Full(shape, dtype, 0.0)

    def cast(self, node: Node, dtype: torch.dtype) -> Node:
        return cast(node, dtype)


viewed = _Views().viewed


def _taken(values: torch.Tensor, box: Box) -> torch.Tensor:
    if any(stride < 0 for stride in box.strides):
        is_bfloat16 = values.dtype == torch.bfloat16
        flat = (values.view(torch.int16) if is_bfloat16 else values).reshape(-1).numpy()
        result = torch.from_numpy(elements(flat, box).copy())
        return result.view(torch.bfloat16) if is_bfloat16 else result
    return (
        values.reshape(-1).as_strided(box.shape, box.strides, box.offset).clone(memory_format=torch.contiguous_format)
    )


def written(before: Node, box: Box, node: Node) -> Node:
    """The flat tensor ``before`` once a node of the box's shape is written into the box."""
    if not box.size:
        return before
    if box.size == math.prod(before.shape) and box.is_dense:
        axes = box.axes
        if all(stride > 0 for _, stride, _ in axes):
            order = Box(tuple(extent for extent, _, _ in axes), tuple(own for _, _, own in axes))
            return viewed(viewed(node, order), whole(before.shape))
    old = before.parts if isinstance(before, Boxes) else ((whole(before.shape), before),)
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


def cast(node: Node, dtype: torch.dtype) -> Node:  # noqa: PLR0911 - a case for each kind of node
    """A node, converted to a dtype."""
    if node.dtype == dtype:
        return node
    if isinstance(node, Problem):
        return dataclasses.replace(node, dtype=dtype)
    if isinstance(node, Full):
        return full(node.shape, dtype, torch.tensor(node.value, dtype=node.dtype).to(dtype).item())
    if isinstance(node, Literal):
        return Literal(node.shape, dtype, node.values.to(dtype))
    if isinstance(node, Boxes):
        return dataclasses.replace(node, dtype=dtype, parts=tuple((box, cast(part, dtype)) for box, part in node.parts))
    if isinstance(node, Draw) and node.dtype == torch.float32 and dtype in (torch.float16, torch.bfloat16):
        return dataclasses.replace(node, dtype=dtype)  # the contract defines 16-bit draws as rounded ones
    if node.dtype.is_complex or dtype.is_complex:
        return problem(_NOT_COMPLEX, node.shape, dtype, node)
    if dtype == torch.bool:
        return with_dtype(apply("subtract", 1.0, apply("equal", node, 0.0)), dtype)
    if not dtype.is_floating_point and node.dtype.is_floating_point:
        return with_dtype(truncated(node), dtype)
    return Cast(node.shape, dtype, node)


def ceil(node: Node) -> Node:
    """Rounded up to integers."""
    return apply("negate", apply("floor", apply("negate", node)))


def truncated(node: Node) -> Node:
    """Rounded towards 0 to integers."""
    return apply("where", apply("less", node, 0.0), ceil(node), apply("floor", node))


_NOT_COMPLEX = "is computed from complex numbers, of which only draws and their real multiples are served"


def apply(function: str, *arguments: Node | float, dtype: torch.dtype | None = None) -> Node:
    """A function of the contract, of nodes and numbers, folded as far as laws go."""
    known = [argument for argument in arguments if isinstance(argument, Node)]
    shape = np.broadcast_shapes(*(node.shape for node in known))
    dtype = dtype or known[0].dtype
    if dtype.is_complex or any(node.dtype.is_complex for node in known):
        return _apply_complex(function, arguments, shape, dtype)
    operands = tuple(
        argument.settled() if isinstance(argument, Node) else Full((), torch.float64, float(argument))
        for argument in arguments
    )
    for operand in operands:
        if isinstance(operand, Problem):
            return propagated(operand, shape, dtype)
    others = [operand for operand in operands if not isinstance(operand, Full)]
    if not others:
        return _constant(function, operands, shape, dtype)
    if len(others) == 1 and others[0].shape == shape:
        return _of_one(function, operands, others[0], dtype)
    return Apply(shape, dtype, function, tuple(map(scalar, operands)))


def _apply_complex(function: str, arguments: Sequence[Node | complex], shape: Shape, dtype: torch.dtype) -> Node:
    """Complex draws times real numbers, and nothing else."""
    operands = tuple(
        argument.settled() if isinstance(argument, Node) else full((), torch.complex128, argument)
        for argument in arguments
    )
    for operand in operands:
        if isinstance(operand, Problem):
            return propagated(operand, shape, dtype)
    others = [operand for operand in operands if not isinstance(operand, Full)]
    if len(others) == 1 and others[0].shape == shape and others[0].dtype == dtype:
        scaled = _scaled_complex(function, operands, others[0])
        if scaled is not None:
            return scaled
    return Problem(shape, dtype, _NOT_COMPLEX)


def _scaled_complex(function: str, operands: tuple[Node, ...], node: Node) -> Node | None:
    if isinstance(node, Draw):
        return _folded(function, operands, node)
    if isinstance(node, Viewed) and isinstance(node.source, Draw):
        scaled = _folded(function, operands, node.source)
        return None if scaled is None else viewed(scaled, node.box)
    return None


def _of_one(function: str, operands: tuple[Node, ...], node: Node, dtype: torch.dtype) -> Node:
    """A function of one node and of constants."""

    def again(part: Node) -> Node:
        return apply(function, *(part if operand is node else scalar(operand) for operand in operands), dtype=dtype)

    if isinstance(node, Boxes):
        return dataclasses.replace(node, dtype=dtype, parts=tuple((box, again(part)) for box, part in node.parts))
    if isinstance(node, Viewed) and isinstance(node.source, Draw):
        return viewed(again(node.source), node.box)
    if isinstance(node, Draw) and node.dtype == dtype:
        folded = _folded(function, operands, node)
        if folded is not None:
            return folded
    return Apply(node.shape, dtype, function, tuple(map(scalar, operands)))


def _constant(function: str, operands: tuple[Node, ...], shape: Shape, dtype: torch.dtype) -> Node:
    values = [torch.tensor(operand.value, dtype=torch.float64) for operand in operands if isinstance(operand, Full)]
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


def _folded(function: str, operands: tuple[Node, ...], draw: Draw) -> Node | None:
    """The law of a function of a draw and constants, if it is one."""
    if function == "erfinv":
        return laws.of_erfinv(draw, _erfinv)
    if function in laws.CLAMPS and draw.scheme == "uniform":
        return None
    values = [operand.value if isinstance(operand, Full) else None for operand in operands]
    law = laws.folded(function, values, draw, is_complex=draw.dtype.is_complex)
    return Full(draw.shape, draw.dtype, law) if isinstance(law, float) else law


def _erfinv(value: float) -> float:
    return torch.erfinv(torch.tensor(value, dtype=torch.float64)).item()
