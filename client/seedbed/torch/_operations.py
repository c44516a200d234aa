"""torch's operations on symbolic tensors: the node that each computes from its arguments' nodes.

An operation that is missing here gives a `Problem`, an error once it reaches a parameter or buffer.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from seedbed._record.boxes import Box, Shape, box_by, row_major, whole
from seedbed._record.nodes import Full, Node, Reduce, is_drawn, with_dtype
from seedbed.torch import _nodes
from seedbed.torch._nodes import apply, viewed

MAX_PIECES = 4096
"""The most pieces that an operation joins: as many as a tensor may have parts."""

MOST_FACTORS = 256
"""The most factors of a product; each is a step."""

Arguments = Mapping[str, Any]
"""An operation's arguments by name; tensors are nodes."""

Operation = Callable[[Arguments, Shape, torch.dtype], Node]
"""Makes a node from the arguments, the result's shape and its dtype."""


def _function(function: str, *names: str) -> Operation:
    """One of the contract's functions, of the arguments with these names; default ``self``."""
    names = names or ("self",)
    return lambda arguments, shape, dtype: apply(function, *(arguments[name] for name in names), dtype=dtype)


def _negated(node: Node) -> Node:
    return apply("subtract", 1.0, node)


def _scaled(arguments: Arguments, name: str = "other") -> Node | float:
    """An argument times ``alpha``."""
    alpha: float = arguments.get("alpha", 1)
    other: Node | float = arguments[name]
    if alpha == 1:
        return other
    return apply("multiply", other, alpha) if isinstance(other, Node) else other * alpha


def _add(arguments: Arguments, _shape: Shape, dtype: torch.dtype) -> Node:
    return apply("add", arguments["self"], _scaled(arguments), dtype=dtype)


def _sub(arguments: Arguments, _shape: Shape, dtype: torch.dtype) -> Node:
    return apply("subtract", arguments["self"], _scaled(arguments), dtype=dtype)


def _rsub(arguments: Arguments, _shape: Shape, dtype: torch.dtype) -> Node:
    return apply("subtract", arguments["other"], _scaled(arguments, "self"), dtype=dtype)


def _div(arguments: Arguments, _shape: Shape, dtype: torch.dtype) -> Node:
    quotient = apply("divide", arguments["self"], arguments["other"], dtype=dtype)
    mode = arguments.get("rounding_mode")
    if mode == "floor":
        return apply("floor", quotient)
    return _nodes.truncated(quotient) if mode == "trunc" else quotient


def _remainder(arguments: Arguments, _shape: Shape, dtype: torch.dtype) -> Node:
    a, b = arguments["self"], arguments["other"]
    return apply("subtract", a, apply("multiply", apply("floor", apply("divide", a, b)), b), dtype=dtype)


def _fmod(arguments: Arguments, _shape: Shape, dtype: torch.dtype) -> Node:
    a, b = arguments["self"], arguments["other"]
    return apply("subtract", a, apply("multiply", _nodes.truncated(apply("divide", a, b)), b), dtype=dtype)


def _power(arguments: Arguments, _shape: Shape, dtype: torch.dtype) -> Node:
    base, exponent = arguments["self"], arguments["exponent"]
    number = exponent.value if isinstance(exponent, Full) else exponent
    if isinstance(number, (int, float)):
        if number == 1:
            return _nodes.cast(base, dtype)
        if number == 2:
            return apply("multiply", base, base, dtype=dtype)
        if number == 0.5:
            return apply("sqrt", base, dtype=dtype)
        if number == -1:
            return apply("divide", 1.0, base, dtype=dtype)
    return apply("power", base, exponent, dtype=dtype)


def _clamp(arguments: Arguments, _shape: Shape, dtype: torch.dtype) -> Node:
    low, high = arguments.get("min"), arguments.get("max")
    if low is None or high is None:
        name, bound = ("minimum", high) if low is None else ("maximum", low)
        assert bound is not None  # for mypy: torch refuses that
        return apply(name, arguments["self"], bound, dtype=dtype)
    return apply("clamp", arguments["self"], low, high, dtype=dtype)


def _hardtanh(arguments: Arguments, _shape: Shape, dtype: torch.dtype) -> Node:
    return apply("clamp", arguments["self"], arguments["min_val"], arguments["max_val"], dtype=dtype)


def _where(arguments: Arguments, _shape: Shape, dtype: torch.dtype) -> Node:
    return apply("where", arguments["condition"], arguments["self"], arguments["other"], dtype=dtype)


def _masked_fill(arguments: Arguments, _shape: Shape, dtype: torch.dtype) -> Node:
    return apply("where", arguments["mask"], arguments["value"], arguments["self"], dtype=dtype)


def _lerp(arguments: Arguments, _shape: Shape, dtype: torch.dtype) -> Node:
    step = apply("multiply", arguments["weight"], apply("subtract", arguments["end"], arguments["self"]))
    return apply("add", arguments["self"], step, dtype=dtype)


def _addc(combine: str) -> Operation:
    def operation(arguments: Arguments, _shape: Shape, dtype: torch.dtype) -> Node:
        product = apply(combine, arguments["tensor1"], arguments["tensor2"])
        return apply("add", arguments["self"], apply("multiply", product, arguments.get("value", 1)), dtype=dtype)

    return operation


def _by(make: Callable[[Node], Node]) -> Operation:
    """A function of ``self`` alone, composed of the contract's."""
    return lambda arguments, shape, dtype: with_dtype(make(arguments["self"]), dtype)


def _by_two(make: Callable[[Any, Any], Node]) -> Operation:
    return lambda arguments, shape, dtype: with_dtype(make(arguments["self"], arguments["other"]), dtype)


def _tan(x: Node) -> Node:
    return apply("divide", apply("sin", x), apply("cos", x))


def _sign(x: Node) -> Node:
    if isinstance(x, _nodes.Signs) and x.are_known():
        return Full(x.shape, x.dtype, 1.0)
    return apply("subtract", apply("less", 0.0, x), apply("less", x, 0.0))


def _gelu(arguments: Arguments, _shape: Shape, dtype: torch.dtype) -> Node:
    x = arguments["self"]
    if arguments.get("approximate", "none") != "none":
        cube = apply("multiply", apply("multiply", x, x), x)
        inner = apply("multiply", math.sqrt(2 / math.pi), apply("add", x, apply("multiply", 0.044715, cube)))
        gate = apply("add", 1.0, apply("tanh", inner))
    else:
        gate = apply("add", 1.0, apply("erf", apply("multiply", x, math.sqrt(0.5))))
    return apply("multiply", apply("multiply", 0.5, x), gate, dtype=dtype)


def _softplus(arguments: Arguments, _shape: Shape, dtype: torch.dtype) -> Node:
    beta = arguments.get("beta", 1)
    return apply("divide", apply("softplus", apply("multiply", arguments["self"], beta)), beta, dtype=dtype)


def _logit(arguments: Arguments, _shape: Shape, dtype: torch.dtype) -> Node:
    x = arguments["self"]
    if arguments.get("eps") is not None:
        x = apply("clamp", x, arguments["eps"], 1 - arguments["eps"])
    return apply("log", apply("divide", x, apply("subtract", 1.0, x)), dtype=dtype)


def _round(arguments: Arguments, _shape: Shape, dtype: torch.dtype) -> Node:
    scale = 10.0 ** arguments.get("decimals", 0)
    return apply("divide", apply("round", apply("multiply", arguments["self"], scale)), scale, dtype=dtype)


def _hyperbolic(sign: str) -> Callable[[Node], Node]:
    def function(x: Node) -> Node:
        return apply("multiply", 0.5, apply(sign, apply("exp", x), apply("exp", apply("negate", x))))

    return function


# Reductions. Those of the contract keep the axes; a view drops them.


def _reduced(
    node: Node, reducer: str, dims: Sequence[int] | int | None, shape: Shape, dtype: torch.dtype, p: float = 2.0
) -> Node:
    axes = _axes(len(node.shape), dims)
    if isinstance(node, _nodes.Problem):
        return _nodes.propagated(node, shape, dtype)
    if not axes:
        return viewed(node, whole(shape))
    return viewed(Reduce(_kept(node.shape, axes), dtype, reducer, axes, node, p), whole(shape))


def _axes(rank: int, dims: Sequence[int] | int | None) -> tuple[int, ...]:
    """The axes that torch's ``dim`` names, in order; all of them for None or an empty list."""
    axes = range(rank) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    return tuple(sorted({axis % rank for axis in axes})) if rank else ()


def _kept(shape: Shape, axes: Sequence[int]) -> Shape:
    """A shape with size 1 along some axes."""
    return tuple(1 if axis in axes else size for axis, size in enumerate(shape))


def _reduction(reducer: str) -> Operation:
    def operation(arguments: Arguments, shape: Shape, dtype: torch.dtype) -> Node:
        return _reduced(arguments["self"], reducer, arguments.get("dim"), shape, dtype)

    return operation


def _norm(arguments: Arguments, shape: Shape, dtype: torch.dtype) -> Node:
    p = arguments.get("ord", arguments.get("p", 2))
    p = 2.0 if p is None else float(p)
    node, dims = arguments["self"], arguments.get("dim")
    if math.isinf(p):
        return _reduced(apply("absolute", node), "maximum" if p > 0 else "minimum", dims, shape, dtype)
    if p <= 0:
        return _nodes.problem(f"is the {p:g}-norm of drawn values, which is not served", shape, dtype, node)
    return _reduced(node, "norm", dims, shape, dtype, p)


def _variance(node: Node, arguments: Arguments, shape: Shape, dtype: torch.dtype) -> Node:
    dims = arguments.get("dim")
    count = math.prod(node.shape) // max(math.prod(shape), 1)
    correction = arguments.get("correction")
    if correction is None:
        correction = 1 if arguments.get("unbiased", True) else 0
    kept = _kept(node.shape, _axes(len(node.shape), dims))
    centred = apply("subtract", node, _reduced(node, "mean", dims, kept, dtype))
    total = _reduced(apply("multiply", centred, centred), "sum", dims, shape, dtype)
    return apply("divide", total, float(count - correction))


def _var(arguments: Arguments, shape: Shape, dtype: torch.dtype) -> Node:
    return _variance(arguments["self"], arguments, shape, dtype)


def _std(arguments: Arguments, shape: Shape, dtype: torch.dtype) -> Node:
    return apply("sqrt", _variance(arguments["self"], arguments, shape, dtype))


def _softmax(arguments: Arguments, shape: Shape, dtype: torch.dtype) -> Node:
    node, dim = arguments["self"], arguments["dim"]
    kept = _kept(shape, _axes(len(shape), dim))
    powers = apply("exp", apply("subtract", node, _reduced(node, "maximum", dim, kept, dtype)))
    return apply("divide", powers, _reduced(powers, "sum", dim, kept, dtype), dtype=dtype)


def _product(a: Node, b: Node, axis: int, shape: Shape, dtype: torch.dtype) -> Node:
    """The sum, along an axis, of the product of two nodes, which are broadcast."""
    return _reduced(apply("multiply", a, b), "sum", axis, shape, dtype)


def _with_axis(node: Node, axis: int) -> Node:
    """A node with one more axis, of size 1."""
    return viewed(node, box_by(node.shape, lambda array: np.expand_dims(array, axis)))


def _matrix_product(arguments: Arguments, shape: Shape, dtype: torch.dtype) -> Node:
    a, b = arguments["self"], arguments["mat2"]
    return _product(_with_axis(a, -1), _with_axis(b, -3), -2, shape, dtype)


def _cumsum(arguments: Arguments, shape: Shape, dtype: torch.dtype) -> Node:
    """The sum of the elements up to each: of its products with 0 and 1."""
    node, dim = arguments["self"], arguments["dim"] % max(len(shape), 1)
    size = shape[dim]
    order = torch.arange(size, dtype=torch.float64)
    axes = (slice(None),) * (len(shape) - dim - 1)
    is_before = apply("less_equal", _nodes.literal(order[None]), _nodes.literal(order[:, None]))
    trailing = viewed(is_before, box_by((size, size), lambda array: array[(..., *(None,) * len(axes))]))
    return _product(_with_axis(node, dim), trailing, dim + 1 - len(shape) - 1, shape, dtype)


def _prod(arguments: Arguments, shape: Shape, dtype: torch.dtype) -> Node:
    node, dim = arguments["self"], arguments.get("dim")
    if dim is None:
        node, dim = viewed(node, whole((math.prod(node.shape),))), 0
    if not 0 < (size := node.shape[dim]) <= MOST_FACTORS:
        return _nodes.problem(
            f"is a product of {size} drawn values; 1 to {MOST_FACTORS} are served", shape, dtype, node
        )
    before = (slice(None),) * (dim % len(node.shape))
    factors = [
        viewed(node, box_by(node.shape, lambda array, n=n: array[(*before, n, ...)]))  # type: ignore[misc]
        for n in range(size)
    ]
    return viewed(functools.reduce(functools.partial(apply, "multiply"), factors), whole(shape))


# Movement of elements.


def _placed(places: Sequence[tuple[Box, Node]], shape: Shape, dtype: torch.dtype) -> Node:
    """Nodes in boxes that cover everything."""
    if len(places) > MAX_PIECES:
        return _nodes.problem(f"is joined from {len(places)} pieces, over the limit of {MAX_PIECES}", shape, dtype)
    flat: Node = _nodes.unset((math.prod(shape),), dtype)
    for box, node in places:
        flat = _nodes.written(flat, box, _nodes.cast(node, dtype))
    return viewed(flat.settled(), whole(shape))


def _cat(arguments: Arguments, shape: Shape, dtype: torch.dtype) -> Node:
    dim, begin, places = arguments.get("dim", 0) % max(len(shape), 1), 0, []
    for node in arguments["tensors"]:
        if node.shape == (0,) and len(shape) != 1:
            continue  # torch skips empty tensors
        end = begin + node.shape[dim]
        index = (*(slice(None),) * dim, slice(begin, end))
        places.append((box_by(shape, lambda array, index=index: array[index]), node))  # type: ignore[misc]
        begin = end
    return _placed(places, shape, dtype)


def _stack(arguments: Arguments, shape: Shape, dtype: torch.dtype) -> Node:
    dim, places = arguments.get("dim", 0) % len(shape), []
    for position, node in enumerate(arguments["tensors"]):
        index = (*(slice(None),) * dim, position, ...)
        places.append((box_by(shape, lambda array, index=index: array[index]), node))  # type: ignore[misc]
    return _placed(places, shape, dtype)


def _repeat(arguments: Arguments, shape: Shape, dtype: torch.dtype) -> Node:
    node, repeats = arguments["self"], arguments["repeats"]
    sizes = (1,) * (len(repeats) - len(node.shape)) + node.shape
    strides = row_major(sizes)
    spread = Box(
        tuple(n for pair in zip(repeats, sizes, strict=True) for n in pair),
        tuple(n for stride in strides for n in (0, stride)),
    )
    return viewed(viewed(node, spread), whole(shape))


def _repeat_interleave(arguments: Arguments, shape: Shape, dtype: torch.dtype) -> Node:
    node, repeats, dim = arguments["self"], arguments["repeats"], arguments.get("dim")
    if not isinstance(repeats, int):
        text = "is computed by repeat_interleave with a tensor of repeats, which is not served"
        return _nodes.problem(text, shape, dtype, node)
    if dim is None:
        node, dim = viewed(node, whole((math.prod(node.shape),))), 0
    sizes, strides = list(node.shape), list(row_major(node.shape))
    sizes.insert(dim % len(node.shape) + 1, repeats)
    strides.insert(dim % len(node.shape) + 1, 0)
    return viewed(viewed(node, Box(tuple(sizes), tuple(strides))), whole(shape))


def _flip(arguments: Arguments, _shape: Shape, _dtype: torch.dtype) -> Node:
    node = arguments["self"]
    return viewed(node, box_by(node.shape, lambda array: np.flip(array, tuple(arguments["dims"]))))


def _roll(arguments: Arguments, shape: Shape, dtype: torch.dtype) -> Node:
    node, dims = arguments["self"], arguments.get("dims") or []
    if not dims:
        flat = _rolled(viewed(node, whole((math.prod(node.shape),))), arguments["shifts"][0], 0)
        return viewed(flat, whole(shape))
    for shift, dim in zip(arguments["shifts"], dims, strict=True):
        node = _rolled(node, shift, dim)
    return node  # type: ignore[no-any-return]


def _rolled(node: Node, shift: int, dim: int) -> Node:
    size = node.shape[dim]
    before = (slice(None),) * (dim % len(node.shape))
    places = []
    for begin, end, to in ((0, size - shift % size, shift % size), (size - shift % size, size, 0)):
        source = box_by(node.shape, lambda array, b=begin, e=end: array[(*before, slice(b, e))])  # type: ignore[misc]
        target = box_by(node.shape, lambda array, t=to, n=end - begin: array[(*before, slice(t, t + n))])  # type: ignore[misc]
        places.append((target, viewed(node, source)))
    return _placed(places, node.shape, node.dtype)


def _triangle(is_lower: bool) -> Operation:
    def operation(arguments: Arguments, shape: Shape, dtype: torch.dtype) -> Node:
        rows = _nodes.literal(torch.arange(shape[-2], dtype=torch.float64)[:, None] + arguments.get("diagonal", 0))
        columns = _nodes.literal(torch.arange(shape[-1], dtype=torch.float64)[None])
        is_kept = apply("less_equal", columns, rows) if is_lower else apply("less_equal", rows, columns)
        return apply("where", is_kept, arguments["self"], 0.0, dtype=dtype)

    return operation


def _index_select(arguments: Arguments, shape: Shape, dtype: torch.dtype) -> Node:
    return _indexed(arguments["self"], arguments["dim"], arguments["index"], shape, dtype)


def _embedding(arguments: Arguments, shape: Shape, dtype: torch.dtype) -> Node:
    return _indexed(arguments["weight"], 0, arguments["indices"], shape, dtype)


def _index(arguments: Arguments, shape: Shape, dtype: torch.dtype) -> Node:
    used = [(dim, index) for dim, index in enumerate(arguments["indices"]) if index is not None]
    if len(used) != 1:
        return _nodes.problem("is indexed by several tensors, which is not served", shape, dtype, arguments["self"])
    return _indexed(arguments["self"], *used[0], shape, dtype)


def _indexed(node: Node, dim: int, index: Node, shape: Shape, dtype: torch.dtype) -> Node:
    """Slices along one axis, by indices that are known."""
    if is_drawn(index):
        return _nodes.problem("is indexed by drawn values, which is not served", shape, dtype, index)
    numbers = _nodes.evaluated(index).reshape(-1)
    if numbers.dtype == torch.bool:
        numbers = numbers.nonzero().reshape(-1)
    size, dim = node.shape[dim], dim % len(node.shape)
    sizes = (*node.shape[:dim], len(numbers), *node.shape[dim + 1 :])
    before, places = (slice(None),) * dim, []
    for position, number in enumerate(numbers.tolist()[: MAX_PIECES + 1]):
        source = box_by(node.shape, lambda array, n=number % size: array[(*before, n, ...)])  # type: ignore[misc]
        target = box_by(sizes, lambda array, p=position: array[(*before, p, ...)])  # type: ignore[misc]
        places.append((target, viewed(node, source)))
    return viewed(_placed(places, sizes, dtype), whole(shape))


def _index_fill(arguments: Arguments, _shape: Shape, _dtype: torch.dtype) -> Node:
    return _with_slices(arguments["self"], arguments["dim"], arguments["index"], arguments["value"])


def _with_slices(node: Node, dim: int, index: Node, values: Node | float) -> Node:
    """A node with other slices along an axis, at indices that are known."""
    if is_drawn(index):
        return _nodes.problem("is indexed by drawn values, which is not served", node.shape, node.dtype, index)
    numbers = _nodes.evaluated(index).reshape(-1)
    if len(numbers) > MAX_PIECES:
        text = f"is written in {len(numbers)} slices by their indices, over the limit of {MAX_PIECES}"
        return _nodes.problem(text, node.shape, node.dtype)
    size, before = node.shape[dim], (slice(None),) * (dim % len(node.shape))
    flat = viewed(node, whole((math.prod(node.shape),)))
    for position, number in enumerate(numbers.tolist()):
        box = box_by(node.shape, lambda array, n=number % size: array[(*before, n, ...)])  # type: ignore[misc]
        flat = _nodes.written(flat, box, _slice_of(values, position, len(before), box.shape, node.dtype))
    return viewed(flat, whole(node.shape))


def _slice_of(values: Node | float, position: int, dim: int, shape: Shape, dtype: torch.dtype) -> Node:
    if not isinstance(values, Node):
        return Full(shape, dtype, float(values))
    if len(values.shape) <= len(shape):
        return _nodes.cast(broadcast(values, shape), dtype)
    index: tuple[Any, ...] = (*(slice(None),) * dim, position if values.shape[dim] > 1 else 0, ...)
    return _nodes.cast(broadcast(viewed(values, box_by(values.shape, lambda array: array[index])), shape), dtype)


def _index_put(arguments: Arguments, shape: Shape, dtype: torch.dtype) -> Node:
    node, values = arguments["self"], arguments["values"]
    used = [(dim, index) for dim, index in enumerate(arguments["indices"]) if index is not None]
    if len(used) == 1 and not arguments.get("accumulate", False):
        dim, index = used[0]
        if index.dtype == torch.bool and index.shape == node.shape and math.prod(values.shape) == 1:
            return apply("where", index, viewed(values, whole(())), node, dtype=dtype)
        if index.dtype != torch.bool and len(index.shape) == 1:
            return _with_slices(node, dim, index, values)
    return _nodes.problem("is written at several indices, which is not served", shape, dtype, node)


def _index_copy(arguments: Arguments, _shape: Shape, _dtype: torch.dtype) -> Node:
    return _with_slices(arguments["self"], arguments["dim"], arguments["index"], arguments["source"])


def _fill_diagonal(arguments: Arguments, shape: Shape, dtype: torch.dtype) -> Node:
    node = arguments["self"]
    size = min(shape)
    diagonal = Box((size,), (sum(row_major(shape)),))
    flat = viewed(node, whole((math.prod(shape),)))
    return viewed(_nodes.written(flat, diagonal, Full((size,), dtype, float(arguments["fill_value"]))), whole(shape))


def _pad(arguments: Arguments, shape: Shape, dtype: torch.dtype) -> Node:
    node, pad = arguments["self"], arguments["pad"]
    begin = [0] * len(shape)
    for index in range(len(pad) // 2):
        begin[-1 - index] = pad[2 * index]
    if any(n < 0 for n in pad):
        return _nodes.problem("is padded by less than 0, which is not served", shape, dtype, node)
    part = tuple(slice(b, b + size) for b, size in zip(begin, node.shape, strict=True))
    around: Node = Full((math.prod(shape),), dtype, float(arguments.get("value", 0)))
    inside = box_by(shape, lambda array: array[part])
    return viewed(_nodes.written(around, inside, node), whole(shape))


def _diag(arguments: Arguments, shape: Shape, dtype: torch.dtype) -> Node:
    node, k = arguments["self"], arguments.get("diagonal", arguments.get("offset", 0))
    if len(node.shape) == 2 and len(shape) == 1:
        return viewed(node, box_by(node.shape, lambda array: np.diagonal(array, k)))
    if len(node.shape) != 1:
        return _nodes.problem("is a diagonal of more than 2 dimensions, which is not served", shape, dtype, node)
    around: Node = Full((math.prod(shape),), dtype, 0.0)
    return viewed(_nodes.written(around, box_by(shape, lambda array: np.diagonal(array, k)), node), whole(shape))


def _same(arguments: Arguments, shape: Shape, dtype: torch.dtype) -> Node:
    """A copy, converted and broadcast."""
    node = arguments["self"]
    return _nodes.cast(broadcast(node, shape), dtype)


def broadcast(node: Node, shape: Shape) -> Node:
    """A node, repeated to fill a shape."""
    if node.shape == shape:
        return node
    return viewed(node, box_by(node.shape, lambda array: np.broadcast_to(array, shape)))


def _full_like(value: float | None = None) -> Operation:
    def operation(arguments: Arguments, shape: Shape, dtype: torch.dtype) -> Node:
        return Full(shape, dtype, float(arguments["fill_value"] if value is None else value))

    return operation


OPERATIONS: dict[str, Operation] = {
    **{
        name: _function(function)
        for name, function in {
            "neg": "negate", "abs": "absolute", "sqrt": "sqrt", "rsqrt": "rsqrt", "exp": "exp", "expm1": "expm1",
            "log": "log", "log1p": "log1p", "sin": "sin", "cos": "cos", "tanh": "tanh", "sigmoid": "sigmoid",
            "erf": "erf", "erfinv": "erfinv", "floor": "floor", "special_erfinv": "erfinv",
        }.items()
    },
    **{
        name: _function(function, "self", "other")
        for name, function in {
            "mul": "multiply", "maximum": "maximum", "minimum": "minimum", "fmax": "maximum", "fmin": "minimum",
            "lt": "less", "le": "less_equal", "eq": "equal",
        }.items()
    },
    "add": _add,
    "sub": _sub,
    "rsub": _rsub,
    "div": _div,
    "true_divide": _div,
    "floor_divide": lambda arguments, shape, dtype: _div({**arguments, "rounding_mode": "floor"}, shape, dtype),
    "remainder": _remainder,
    "fmod": _fmod,
    "cumsum": _cumsum,
    "prod": _prod,
    "pow": _power,
    "clamp": _clamp,
    "clip": _clamp,
    "clamp_min": _clamp,
    "clamp_max": _clamp,
    "hardtanh": _hardtanh,
    "where": _where,
    "masked_fill": _masked_fill,
    "lerp": _lerp,
    "addcmul": _addc("multiply"),
    "addcdiv": _addc("divide"),
    "gt": _function("less", "other", "self"),
    "ge": _function("less_equal", "other", "self"),
    "ne": _by_two(lambda a, b: _negated(apply("equal", a, b))),
    "logical_not": _by(lambda x: apply("equal", x, 0.0)),
    "bitwise_not": _by(lambda x: apply("equal", x, 0.0)),
    "logical_and": _by_two(lambda a, b: apply("multiply", _truth(a), _truth(b))),
    "bitwise_and": _by_two(lambda a, b: apply("multiply", _truth(a), _truth(b))),
    "logical_or": _by_two(lambda a, b: apply("maximum", _truth(a), _truth(b))),
    "bitwise_or": _by_two(lambda a, b: apply("maximum", _truth(a), _truth(b))),
    "logical_xor": _by_two(lambda a, b: _negated(apply("equal", _truth(a), _truth(b)))),
    "reciprocal": _by(lambda x: apply("divide", 1.0, x)),
    "square": _by(lambda x: apply("multiply", x, x)),
    "exp2": _by(lambda x: apply("power", 2.0, x)),
    "log2": _by(lambda x: apply("divide", apply("log", x), math.log(2))),
    "log10": _by(lambda x: apply("divide", apply("log", x), math.log(10))),
    "ceil": _by(_nodes.ceil),
    "trunc": _by(_nodes.truncated),
    "frac": _by(lambda x: apply("subtract", x, _nodes.truncated(x))),
    "round": _round,
    "sign": _by(_sign),
    "sgn": _by(_sign),
    "relu": _by(lambda x: apply("maximum", x, 0.0)),
    "silu": _by(lambda x: apply("multiply", x, apply("sigmoid", x))),
    "gelu": _gelu,
    "softplus": _softplus,
    "log_sigmoid_forward": _by(lambda x: apply("negate", apply("softplus", apply("negate", x)))),
    "logit": _logit,
    "tan": _by(_tan),
    "erfc": _by(lambda x: apply("subtract", 1.0, apply("erf", x))),
    "sinh": _by(_hyperbolic("subtract")),
    "cosh": _by(_hyperbolic("add")),
    "hypot": _by_two(lambda a, b: apply("sqrt", apply("add", apply("multiply", a, a), apply("multiply", b, b)))),
    "sum": _reduction("sum"),
    "mean": _reduction("mean"),
    "amax": _reduction("maximum"),
    "amin": _reduction("minimum"),
    "max": _reduction("maximum"),
    "min": _reduction("minimum"),
    "linalg_vector_norm": _norm,
    "norm": _norm,
    "var": _var,
    "std": _std,
    "_softmax": _softmax,
    "mv": lambda arguments, shape, dtype: _product(arguments["self"], arguments["vec"], -1, shape, dtype),
    "dot": lambda arguments, shape, dtype: _product(arguments["self"], arguments["tensor"], -1, shape, dtype),
    "vdot": lambda arguments, shape, dtype: _product(arguments["self"], arguments["other"], -1, shape, dtype),
    "mm": _matrix_product,
    "bmm": _matrix_product,
    "cat": _cat,
    "stack": _stack,
    "repeat": _repeat,
    "repeat_interleave": _repeat_interleave,
    "flip": _flip,
    "roll": _roll,
    "tril": _triangle(is_lower=True),
    "triu": _triangle(is_lower=False),
    "index_select": _index_select,
    "index": _index,
    "embedding": _embedding,
    "index_fill": _index_fill,
    "index_put": _index_put,
    "index_copy": _index_copy,
    "fill_diagonal": _fill_diagonal,
    "constant_pad_nd": _pad,
    "diag": _diag,
    "diag_embed": _diag,
    "diagonal_copy": _diag,
    "clone": _same,
    "copy": lambda arguments, shape, dtype: _nodes.cast(broadcast(arguments["src"], shape), dtype),
    "_to_copy": _same,
    "lift_fresh_copy": _same,
    "contiguous": _same,
    "nan_to_num": _same,
    "zeros_like": _full_like(0.0),
    "ones_like": _full_like(1.0),
    "full_like": _full_like(),
    "new_zeros": _full_like(0.0),
    "new_ones": _full_like(1.0),
    "new_full": _full_like(),
}  # fmt: skip
"""By torch's name, in-place and ``out=`` variants included."""


def _truth(node: Node | float) -> Node | float:
    if not isinstance(node, Node):
        return float(bool(node))
    return node if node.dtype == torch.bool else _negated(apply("equal", node, 0.0))
