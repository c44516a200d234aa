"""torch's operations on values that are only noted: which node each makes of its arguments' nodes.

An operation that is not here makes a `Problem`, which is told if it reaches a parameter or buffer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from seedbed.torch import _nodes
from seedbed.torch._nodes import Box, Boxes, Full, Node, Shape, apply, box_by, viewed, whole

_aten = torch.ops.aten

MAX_PIECES = 4096
"""Of what an operation takes together, as many as a tensor may have parts."""

Given = Mapping[str, Any]
"""An operation's arguments by name; tensors are nodes."""

Operation = Callable[[Given, Shape, torch.dtype], Node]
"""Makes a node from the arguments, the result's shape and its dtype."""


def _function(name: str, *names: str) -> Operation:
    """One of the contract's functions."""
    names = names or ("self",)
    return lambda given, shape, dtype: apply(name, *(given[one] for one in names), dtype=dtype)


def _negated(node: Node) -> Node:
    return apply("subtract", 1.0, node)


def _scaled(given: Given, name: str = "other") -> Node | float:
    """An argument times ``alpha``."""
    alpha, other = given.get("alpha", 1), given[name]
    if alpha == 1:
        return other  # type: ignore[no-any-return]
    return apply("multiply", other, alpha) if isinstance(other, Node) else other * alpha  # type: ignore[no-any-return]


def _add(given: Given, _shape: Shape, dtype: torch.dtype) -> Node:
    return apply("add", given["self"], _scaled(given), dtype=dtype)


def _sub(given: Given, _shape: Shape, dtype: torch.dtype) -> Node:
    return apply("subtract", given["self"], _scaled(given), dtype=dtype)


def _rsub(given: Given, _shape: Shape, dtype: torch.dtype) -> Node:
    return apply("subtract", given["other"], _scaled(given, "self"), dtype=dtype)


def _div(given: Given, _shape: Shape, dtype: torch.dtype) -> Node:
    quotient = apply("divide", given["self"], given["other"], dtype=dtype)
    mode = given.get("rounding_mode")
    if mode == "floor":
        return apply("floor", quotient)
    return _trunc_of(quotient) if mode == "trunc" else quotient


def _trunc_of(node: Node) -> Node:
    up = apply("negate", apply("floor", apply("negate", node)))
    return apply("where", apply("less", node, 0.0), up, apply("floor", node))


def _remainder(given: Given, _shape: Shape, dtype: torch.dtype) -> Node:
    a, b = given["self"], given["other"]
    return apply("subtract", a, apply("multiply", apply("floor", apply("divide", a, b)), b), dtype=dtype)


def _power(given: Given, _shape: Shape, dtype: torch.dtype) -> Node:
    base, exponent = given["self"], given["exponent"]
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


def _clamp(given: Given, _shape: Shape, dtype: torch.dtype) -> Node:
    low, high = given.get("min"), given.get("max")
    if low is None:
        return apply("minimum", given["self"], high, dtype=dtype)
    if high is None:
        return apply("maximum", given["self"], low, dtype=dtype)
    return apply("clamp", given["self"], low, high, dtype=dtype)


def _hardtanh(given: Given, _shape: Shape, dtype: torch.dtype) -> Node:
    return apply("clamp", given["self"], given["min_val"], given["max_val"], dtype=dtype)


def _where(given: Given, _shape: Shape, dtype: torch.dtype) -> Node:
    return apply("where", given["condition"], given["self"], given["other"], dtype=dtype)


def _masked_fill(given: Given, _shape: Shape, dtype: torch.dtype) -> Node:
    return apply("where", given["mask"], given["value"], given["self"], dtype=dtype)


def _lerp(given: Given, _shape: Shape, dtype: torch.dtype) -> Node:
    step = apply("multiply", given["weight"], apply("subtract", given["end"], given["self"]))
    return apply("add", given["self"], step, dtype=dtype)


def _addc(combine: str) -> Operation:
    def operation(given: Given, _shape: Shape, dtype: torch.dtype) -> Node:
        product = apply(combine, given["tensor1"], given["tensor2"])
        return apply("add", given["self"], apply("multiply", product, given.get("value", 1)), dtype=dtype)

    return operation


def _by(make: Callable[[Node], Node]) -> Operation:
    """A function of ``self`` alone, written with those of the contract."""
    return lambda given, shape, dtype: _nodes.with_dtype(make(given["self"]), dtype)


def _by_two(make: Callable[[Any, Any], Node]) -> Operation:
    return lambda given, shape, dtype: _nodes.with_dtype(make(given["self"], given["other"]), dtype)


def _tan(x: Node) -> Node:
    return apply("divide", apply("sin", x), apply("cos", x))


def _sign(x: Node) -> Node:
    if isinstance(x, _nodes.Signs):
        return Full(x.shape, x.dtype, 1.0)
    return apply("subtract", apply("less", 0.0, x), apply("less", x, 0.0))


def _gelu(given: Given, _shape: Shape, dtype: torch.dtype) -> Node:
    x = given["self"]
    if given.get("approximate", "none") != "none":
        cube = apply("multiply", apply("multiply", x, x), x)
        inner = apply("multiply", math.sqrt(2 / math.pi), apply("add", x, apply("multiply", 0.044715, cube)))
        gate = apply("add", 1.0, apply("tanh", inner))
    else:
        gate = apply("add", 1.0, apply("erf", apply("multiply", x, math.sqrt(0.5))))
    return apply("multiply", apply("multiply", 0.5, x), gate, dtype=dtype)


def _softplus(given: Given, _shape: Shape, dtype: torch.dtype) -> Node:
    beta = given.get("beta", 1)
    return apply("divide", apply("softplus", apply("multiply", given["self"], beta)), beta, dtype=dtype)


def _logit(given: Given, _shape: Shape, dtype: torch.dtype) -> Node:
    x = given["self"]
    if given.get("eps") is not None:
        x = apply("clamp", x, given["eps"], 1 - given["eps"])
    return apply("log", apply("divide", x, apply("subtract", 1.0, x)), dtype=dtype)


def _round(given: Given, _shape: Shape, dtype: torch.dtype) -> Node:
    scale = 10.0 ** given.get("decimals", 0)
    return apply("divide", apply("round", apply("multiply", given["self"], scale)), scale, dtype=dtype)


def _hyperbolic(sign: str) -> Callable[[Node], Node]:
    def function(x: Node) -> Node:
        return apply("multiply", 0.5, apply(sign, apply("exp", x), apply("exp", apply("negate", x))))

    return function


# Reductions. The contract's keep their axes; a view drops them.


def _reduced(node: Node, reducer: str, dims: Any, shape: Shape, dtype: torch.dtype, p: float = 2.0) -> Node:
    rank = len(node.shape)
    axes = range(rank) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    axes = tuple(sorted({axis % rank for axis in axes})) if rank else ()
    if isinstance(node, _nodes.Problem):
        return _nodes.spoilt(node, shape, dtype)
    if not axes:
        return viewed(node, whole(shape))
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(node.shape))
    return viewed(_nodes.Reduce(kept, dtype, reducer, axes, p, node), whole(shape))


def _reduction(reducer: str) -> Operation:
    def operation(given: Given, shape: Shape, dtype: torch.dtype) -> Node:
        return _reduced(given["self"], reducer, given.get("dim"), shape, dtype)

    return operation


def _norm(given: Given, shape: Shape, dtype: torch.dtype) -> Node:
    p = given.get("ord", given.get("p", 2))
    p = 2.0 if p is None else float(p)
    node, dims = given["self"], given.get("dim")
    if math.isinf(p):
        return _reduced(apply("absolute", node), "maximum" if p > 0 else "minimum", dims, shape, dtype)
    if p <= 0:
        return _nodes.problem(f"the {p:g}-norm of values that were drawn is not served", shape, dtype, node)
    return _reduced(node, "norm", dims, shape, dtype, p)


def _variance(node: Node, given: Given, shape: Shape, dtype: torch.dtype) -> Node:
    dims = given.get("dim")
    count = math.prod(node.shape) // max(math.prod(shape), 1)
    correction = given.get("correction")
    if correction is None:
        correction = 1 if given.get("unbiased", True) else 0
    rank = len(node.shape)
    axes = range(rank) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    kept = tuple(1 if axis in {a % rank for a in axes} else size for axis, size in enumerate(node.shape))
    centred = apply("subtract", node, _reduced(node, "mean", dims, kept, dtype))
    total = _reduced(apply("multiply", centred, centred), "sum", dims, shape, dtype)
    return apply("divide", total, float(count - correction))


def _var(given: Given, shape: Shape, dtype: torch.dtype) -> Node:
    return _variance(given["self"], given, shape, dtype)


def _std(given: Given, shape: Shape, dtype: torch.dtype) -> Node:
    return apply("sqrt", _variance(given["self"], given, shape, dtype))


def _softmax(given: Given, shape: Shape, dtype: torch.dtype) -> Node:
    node, dim = given["self"], given["dim"]
    kept = tuple(1 if axis == dim % len(shape) else size for axis, size in enumerate(shape))
    powers = apply("exp", apply("subtract", node, _reduced(node, "maximum", dim, kept, dtype)))
    return apply("divide", powers, _reduced(powers, "sum", dim, kept, dtype), dtype=dtype)


# What moves elements.


def _placed(places: Sequence[tuple[Box, Node]], shape: Shape, dtype: torch.dtype) -> Node:
    """Nodes in boxes, which cover everything."""
    if len(places) > MAX_PIECES:
        return _nodes.problem(f"is put together of {len(places)} pieces, over the limit of {MAX_PIECES}", shape, dtype)
    flat: Node = Full((math.prod(shape),), dtype, 0.0)
    for box, node in places:
        flat = _nodes.written(flat, box, _nodes.cast(node, dtype))
    return viewed(flat, whole(shape))


def _cat(given: Given, shape: Shape, dtype: torch.dtype) -> Node:
    dim, begin, places = given.get("dim", 0) % max(len(shape), 1), 0, []
    for node in given["tensors"]:
        if node.shape == (0,) and len(shape) != 1:
            continue  # torch lets an empty one pass
        end = begin + node.shape[dim]
        index = (*(slice(None),) * dim, slice(begin, end))
        places.append((box_by(shape, lambda array, index=index: array[index]), node))  # type: ignore[misc]
        begin = end
    return _placed(places, shape, dtype)


def _stack(given: Given, shape: Shape, dtype: torch.dtype) -> Node:
    dim, places = given.get("dim", 0) % len(shape), []
    for position, node in enumerate(given["tensors"]):
        index = (*(slice(None),) * dim, position, ...)
        places.append((box_by(shape, lambda array, index=index: array[index]), node))  # type: ignore[misc]
    return _placed(places, shape, dtype)


def _repeat(given: Given, shape: Shape, dtype: torch.dtype) -> Node:
    node, repeats = given["self"], given["repeats"]
    sizes = (1,) * (len(repeats) - len(node.shape)) + node.shape
    strides = _nodes.row_major(sizes)
    spread = Box(
        tuple(n for pair in zip(repeats, sizes, strict=True) for n in pair),
        tuple(n for stride in strides for n in (0, stride)),
    )
    return viewed(viewed(node, spread), whole(shape))


def _repeat_interleave(given: Given, shape: Shape, dtype: torch.dtype) -> Node:
    node, repeats, dim = given["self"], given["repeats"], given.get("dim")
    if not isinstance(repeats, int):
        return _nodes.problem("repeat_interleave by a tensor is not served", shape, dtype, node)
    if dim is None:
        node, dim = viewed(node, whole((math.prod(node.shape),))), 0
    sizes, strides = list(node.shape), list(_nodes.row_major(node.shape))
    sizes.insert(dim % len(node.shape) + 1, repeats)
    strides.insert(dim % len(node.shape) + 1, 0)
    return viewed(viewed(node, Box(tuple(sizes), tuple(strides))), whole(shape))


def _flip(given: Given, _shape: Shape, _dtype: torch.dtype) -> Node:
    node = given["self"]
    return viewed(node, box_by(node.shape, lambda array: np.flip(array, tuple(given["dims"]))))


def _roll(given: Given, shape: Shape, dtype: torch.dtype) -> Node:
    node, dims = given["self"], given.get("dims") or []
    if not dims:
        flat = _rolled(viewed(node, whole((math.prod(node.shape),))), given["shifts"][0], 0)
        return viewed(flat, whole(shape))
    for shift, dim in zip(given["shifts"], dims, strict=True):
        node = _rolled(node, shift, dim)
    return node  # type: ignore[no-any-return]


def _rolled(node: Node, shift: int, dim: int) -> Node:
    size = node.shape[dim]
    before = (slice(None),) * (dim % len(node.shape))
    places = []
    for begin, end, to in ((0, size - shift % size, shift % size), (size - shift % size, size, 0)):
        taken = box_by(node.shape, lambda array, b=begin, e=end: array[(*before, slice(b, e))])  # type: ignore[misc]
        laid = box_by(node.shape, lambda array, t=to, n=end - begin: array[(*before, slice(t, t + n))])  # type: ignore[misc]
        places.append((laid, viewed(node, taken)))
    return _placed(places, node.shape, node.dtype)


def _triangle(keep: Callable[..., torch.Tensor]) -> Operation:
    def operation(given: Given, shape: Shape, dtype: torch.dtype) -> Node:
        mask = keep(torch.ones(shape[-2:]), given.get("diagonal", 0))
        return apply("where", _nodes.given(mask), given["self"], 0.0, dtype=dtype)

    return operation


def _index_select(given: Given, shape: Shape, dtype: torch.dtype) -> Node:
    return _indexed(given["self"], given["dim"], given["index"], shape, dtype)


def _embedding(given: Given, shape: Shape, dtype: torch.dtype) -> Node:
    return _indexed(given["weight"], 0, given["indices"], shape, dtype)


def _index(given: Given, shape: Shape, dtype: torch.dtype) -> Node:
    used = [(dim, index) for dim, index in enumerate(given["indices"]) if index is not None]
    if len(used) != 1:
        return _nodes.problem("indexing by several tensors is not served", shape, dtype, given["self"])
    return _indexed(given["self"], *used[0], shape, dtype)


def _indexed(node: Node, dim: int, index: Node, shape: Shape, dtype: torch.dtype) -> Node:
    """Slices along one axis, by numbers that the code knows."""
    if _nodes.is_drawn(index):
        return _nodes.problem("indexing by values that were drawn is not served", shape, dtype, index)
    numbers = _nodes.evaluated(index).reshape(-1)
    if numbers.dtype == torch.bool:
        numbers = numbers.nonzero().reshape(-1)
    size, dim = node.shape[dim], dim % len(node.shape)
    sizes = (*node.shape[:dim], len(numbers), *node.shape[dim + 1 :])
    before, places = (slice(None),) * dim, []
    for position, number in enumerate(numbers.tolist()[: MAX_PIECES + 1]):
        taken = box_by(node.shape, lambda array, n=number % size: array[(*before, n, ...)])  # type: ignore[misc]
        laid = box_by(sizes, lambda array, p=position: array[(*before, p, ...)])  # type: ignore[misc]
        places.append((laid, viewed(node, taken)))
    return viewed(_placed(places, sizes, dtype), whole(shape))


def _pad(given: Given, shape: Shape, dtype: torch.dtype) -> Node:
    node, pad = given["self"], given["pad"]
    begin = [0] * len(shape)
    for index in range(len(pad) // 2):
        begin[-1 - index] = pad[2 * index]
    if any(n < 0 for n in pad):
        return _nodes.problem("a padding below 0 is not served", shape, dtype, node)
    index = tuple(slice(b, b + size) for b, size in zip(begin, node.shape, strict=True))
    around: Node = Full((math.prod(shape),), dtype, float(given.get("value", 0)))
    return viewed(_nodes.written(around, box_by(shape, lambda array: array[index]), node), whole(shape))


def _diag(given: Given, shape: Shape, dtype: torch.dtype) -> Node:
    node, k = given["self"], given.get("diagonal", given.get("offset", 0))
    if isinstance(node, _nodes.Signs):
        return _nodes.spoilt(node, shape, dtype)
    if len(node.shape) == 2 and len(shape) == 1:
        return viewed(node, box_by(node.shape, lambda array: np.diagonal(array, k)))
    if len(node.shape) != 1:
        return _nodes.problem("a diagonal of more than 2 dimensions is not served", shape, dtype, node)
    around: Node = Full((math.prod(shape),), dtype, 0.0)
    return viewed(_nodes.written(around, box_by(shape, lambda array: np.diagonal(array, k)), node), whole(shape))


def _same(given: Given, shape: Shape, dtype: torch.dtype) -> Node:
    """A copy, converted and broadcast."""
    node = given["self"]
    return _nodes.cast(broadcast(node, shape), dtype)


def broadcast(node: Node, shape: Shape) -> Node:
    """A node, repeated to fill a shape."""
    if node.shape == shape:
        return node
    return viewed(node, box_by(node.shape, lambda array: np.broadcast_to(array, shape)))


def _full_like(value: float | None = None) -> Operation:
    def operation(given: Given, shape: Shape, dtype: torch.dtype) -> Node:
        return Full(shape, dtype, float(given["fill_value"] if value is None else value))

    return operation


_HALF_LN = {"log2": math.log(2), "log10": math.log(10)}

OPERATIONS: dict[Any, Operation] = {
    **{
        getattr(_aten, name): _function(function)
        for name, function in {
            "neg": "negate", "abs": "absolute", "sqrt": "sqrt", "rsqrt": "rsqrt", "exp": "exp", "expm1": "expm1",
            "log": "log", "log1p": "log1p", "sin": "sin", "cos": "cos", "tanh": "tanh", "sigmoid": "sigmoid",
            "erf": "erf", "erfinv": "erfinv", "floor": "floor", "special_erfinv": "erfinv",
        }.items()
    },
    **{
        getattr(_aten, name): _function(function, "self", "other")
        for name, function in {
            "mul": "multiply", "maximum": "maximum", "minimum": "minimum", "fmax": "maximum", "fmin": "minimum",
            "lt": "less", "le": "less_equal", "eq": "equal",
        }.items()
    },
    _aten.add: _add,
    _aten.sub: _sub,
    _aten.rsub: _rsub,
    _aten.div: _div,
    _aten.true_divide: _div,
    _aten.floor_divide: lambda given, shape, dtype: _div({**given, "rounding_mode": "floor"}, shape, dtype),
    _aten.remainder: _remainder,
    _aten.pow: _power,
    _aten.clamp: _clamp,
    _aten.clip: _clamp,
    _aten.clamp_min: _clamp,
    _aten.clamp_max: _clamp,
    _aten.hardtanh: _hardtanh,
    _aten.where: _where,
    _aten.masked_fill: _masked_fill,
    _aten.lerp: _lerp,
    _aten.addcmul: _addc("multiply"),
    _aten.addcdiv: _addc("divide"),
    _aten.gt: _function("less", "other", "self"),
    _aten.ge: _function("less_equal", "other", "self"),
    _aten.ne: _by_two(lambda a, b: _negated(apply("equal", a, b))),
    _aten.logical_not: _by(lambda x: apply("equal", x, 0.0)),
    _aten.bitwise_not: _by(lambda x: apply("equal", x, 0.0)),
    _aten.logical_and: _by_two(lambda a, b: apply("multiply", _truth(a), _truth(b))),
    _aten.bitwise_and: _by_two(lambda a, b: apply("multiply", _truth(a), _truth(b))),
    _aten.logical_or: _by_two(lambda a, b: apply("maximum", _truth(a), _truth(b))),
    _aten.bitwise_or: _by_two(lambda a, b: apply("maximum", _truth(a), _truth(b))),
    _aten.logical_xor: _by_two(lambda a, b: _negated(apply("equal", _truth(a), _truth(b)))),
    _aten.reciprocal: _by(lambda x: apply("divide", 1.0, x)),
    _aten.square: _by(lambda x: apply("multiply", x, x)),
    _aten.exp2: _by(lambda x: apply("power", 2.0, x)),
    _aten.log2: _by(lambda x: apply("divide", apply("log", x), math.log(2))),
    _aten.log10: _by(lambda x: apply("divide", apply("log", x), math.log(10))),
    _aten.ceil: _by(lambda x: apply("negate", apply("floor", apply("negate", x)))),
    _aten.trunc: _by(_trunc_of),
    _aten.frac: _by(lambda x: apply("subtract", x, _trunc_of(x))),
    _aten.round: _round,
    _aten.sign: _by(_sign),
    _aten.sgn: _by(_sign),
    _aten.relu: _by(lambda x: apply("maximum", x, 0.0)),
    _aten.silu: _by(lambda x: apply("multiply", x, apply("sigmoid", x))),
    _aten.gelu: _gelu,
    _aten.softplus: _softplus,
    _aten.log_sigmoid_forward: _by(lambda x: apply("negate", apply("softplus", apply("negate", x)))),
    _aten.logit: _logit,
    _aten.tan: _by(_tan),
    _aten.erfc: _by(lambda x: apply("subtract", 1.0, apply("erf", x))),
    _aten.sinh: _by(_hyperbolic("subtract")),
    _aten.cosh: _by(_hyperbolic("add")),
    _aten.hypot: _by_two(lambda a, b: apply("sqrt", apply("add", apply("multiply", a, a), apply("multiply", b, b)))),
    _aten.sum: _reduction("sum"),
    _aten.mean: _reduction("mean"),
    _aten.amax: _reduction("maximum"),
    _aten.amin: _reduction("minimum"),
    _aten.max: _reduction("maximum"),
    _aten.min: _reduction("minimum"),
    _aten.linalg_vector_norm: _norm,
    _aten.norm: _norm,
    _aten.var: _var,
    _aten.std: _std,
    _aten._softmax: _softmax,
    _aten.cat: _cat,
    _aten.stack: _stack,
    _aten.repeat: _repeat,
    _aten.repeat_interleave: _repeat_interleave,
    _aten.flip: _flip,
    _aten.roll: _roll,
    _aten.tril: _triangle(torch.tril),
    _aten.triu: _triangle(torch.triu),
    _aten.index_select: _index_select,
    _aten.index: _index,
    _aten.embedding: _embedding,
    _aten.constant_pad_nd: _pad,
    _aten.diag: _diag,
    _aten.diag_embed: _diag,
    _aten.diagonal_copy: _diag,
    _aten.clone: _same,
    _aten.copy: lambda given, shape, dtype: _nodes.cast(broadcast(given["src"], shape), dtype),
    _aten._to_copy: _same,
    _aten.lift_fresh_copy: _same,
    _aten.contiguous: _same,
    _aten.nan_to_num: _same,
    _aten.zeros_like: _full_like(0.0),
    _aten.ones_like: _full_like(1.0),
    _aten.full_like: _full_like(),
    _aten.new_zeros: _full_like(0.0),
    _aten.new_ones: _full_like(1.0),
    _aten.new_full: _full_like(),
}  # fmt: skip
"""By torch's name, in-place and ``out=`` variants included."""


def _truth(node: Node | float) -> Node | float:
    if not isinstance(node, Node):
        return float(bool(node))
    return node if node.dtype == torch.bool else _negated(apply("equal", node, 0.0))
