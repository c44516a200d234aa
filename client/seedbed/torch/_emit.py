"""From what tensors hold to the messages of a model: schemes where a law fills a tensor, else recipes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import torch

from seedbed._ask import recipes, schemes
from seedbed._ask.recipes import Parts, Value
from seedbed._record.boxes import Box, box_by, row_major, sorted_box, whole
from seedbed._types import Array
from seedbed.errors import InvalidRequest
from seedbed.torch import _nodes
from seedbed.torch._nodes import ELEMENTWISE, Apply, Boxes, Cast, Draw, Drawing, Full, Given, Node, Reduce, Viewed
from seedbed.v1 import DATA_TYPE_COMPLEX64, Assembly, Recipe, Reduction, Region, Step, TensorSpec, View

_CERTAIN = ("eye", "dirac")  # schemes that draw nothing

_MOST_LITERAL_BYTES = 1_000_000
"""Of a tensor's parts and steps: what servers take."""

_FAR = 20.0
"""Standard deviations from the mean at which a bound is put that the code leaves open on one side."""


class Held(NamedTuple):
    """A tensor of a model, and what it holds."""

    name: str
    node: Node
    dtype: str
    """The dtype that it is served in."""


def specs(held: Sequence[Held], seed: int, independent_copies: bool) -> list[TensorSpec]:
    """The messages of a model's tensors.

    Args:
        held: The tensors; nothing in them is a `Problem`.
        seed: The seed of each.
        independent_copies: Whether copies draw values of their own.

    Raises:
        InvalidRequest: One cannot be said in a message; names it.
    """
    names = _Names(held, independent_copies)
    return [_said(one, names, seed) for one in held]


def _said(one: Held, names: _Names, seed: int) -> TensorSpec:
    try:
        message = _Emitter(one.name, names).spec(one, seed)
    except InvalidRequest as error:
        where = next((leaf.drawing.site for leaf in _nodes.leaves(one.node) if isinstance(leaf, Draw)), None)
        drawn = f" (drawn at {where})" if where else ""
        raise InvalidRequest(one.name, f"cannot be said: {error.description}{drawn}") from None
    if message.dtype == DATA_TYPE_COMPLEX64 and _has_expression(message):
        raise InvalidRequest(one.name, "is computed of complex numbers, which are served only as they are drawn")
    _check_literals(message)
    return message


def _has_expression(recipe: TensorSpec | Recipe) -> bool:
    return recipe.HasField("expression") or any(_has_expression(part.recipe) for part in recipe.parts.parts)


def _check_literals(message: TensorSpec) -> None:
    """Refuses what no request can carry; a tensor that is a literal as a whole is in none.

    Raises:
        InvalidRequest: There is too much of it.
    """
    if message.HasField("literal") or (size := _literal_bytes(message)) <= _MOST_LITERAL_BYTES:
        return
    raise InvalidRequest(
        message.name,
        f"mixes {size} bytes of values that the code computes with drawn ones, over the {_MOST_LITERAL_BYTES} that a "
        "request carries; let the code draw it, or keep the two in tensors of their own",
    )


def _literal_bytes(recipe: TensorSpec | Recipe) -> int:
    within = [part.recipe for part in recipe.parts.parts]
    within += [step.recipe for step in recipe.expression.steps if step.HasField("recipe")]
    return len(recipe.literal.data) + sum(map(_literal_bytes, within))


class _Use(NamedTuple):
    """Where a drawing occurs: in a tensor, as the leaf that it is there."""

    tensor: str
    leaf: Draw
    box: Box | None
    """The elements that are taken of it; None if something is computed of them."""


class _Names:
    """The stream of each draw: named after the first tensor that holds it."""

    def __init__(self, held: Sequence[Held], independent_copies: bool) -> None:
        self._counts: dict[str, int] = {}
        self._names: dict[tuple[Drawing, object], str] = {}
        self._is_independent = independent_copies
        uses: dict[Drawing, list[_Use]] = {}
        for one in held:
            for use in _uses(one.name, one.node):
                uses.setdefault(use.leaf.drawing, []).append(use)
        self._apart = {drawing for drawing, its in uses.items() if _are_apart(its)}

    def is_alone(self, draw: Draw) -> bool:
        """Whether no element of a drawing is used twice, so that all that holds of it is its law."""
        return draw.drawing in self._apart

    def stream(self, tensor: str, draw: Draw, use: object = None) -> str:
        """The stream of a draw in a tensor; ``use`` tells the uses of one that is alone apart."""
        scope = (tensor, use) if self.is_alone(draw) else tensor if self._is_independent else None
        key = draw.drawing, scope
        if key not in self._names:
            number = self._counts.get(tensor, 0)
            self._counts[tensor] = number + 1
            self._names[key] = f"{tensor}#{number}" if number else tensor
        return self._names[key]


def _uses(tensor: str, node: Node) -> Iterator[_Use]:
    seen: set[int] = set()
    pending: list[tuple[Node, bool]] = [(node, True)]
    while pending:
        node, is_bare = pending.pop()
        if isinstance(node, Draw):
            yield _Use(tensor, node, whole(node.shape) if is_bare and node.scheme in ELEMENTWISE else None)
        elif is_bare and isinstance(node, Viewed) and isinstance(node.of, Draw):
            yield _Use(tensor, node.of, node.box if node.of.scheme in ELEMENTWISE else None)
        elif is_bare and isinstance(node, Boxes):
            pending += [(part, True) for part in node.arguments]
        elif id(node) not in seen:
            seen.add(id(node))
            pending += [(argument, False) for argument in node.arguments]


def _are_apart(uses: Sequence[_Use]) -> bool:
    if len(uses) == 1:
        return uses[0].box is None or uses[0].box.is_injective
    boxes = [use.box for use in uses]
    if len(boxes) > 64:
        return False
    return all(box is not None and box.is_injective for box in boxes) and all(
        a.is_apart_from(b) for index, a in enumerate(boxes) if a for b in boxes[:index] if b
    )


class _Emitter:
    """Writes one tensor."""

    def __init__(self, tensor: str, names: _Names) -> None:
        self._tensor = tensor
        self._names = names
        self._values: dict[int, Value] = {}
        self._nodes: list[Node] = []  # kept, so that ids stay theirs

    def spec(self, held: Held, seed: int) -> TensorSpec:
        node, identity = held.node, {"name": held.name, "dtype": held.dtype, "seed": seed}
        shape = node.shape
        if not math.prod(shape):
            return schemes.spec("zeros", shape, **identity)
        if isinstance(node, Cast) and isinstance(node.of, (Apply, Viewed, Reduce)):
            node = node.of  # the result is rounded to the tensor's dtype anyway
        node = recognised(self._plain(node))
        if isinstance(node, Full):
            scheme, parameters = _constant(node)
            return schemes.spec(scheme, shape, **parameters, **identity)
        if isinstance(node, Draw) and not self._is_turned(node) and _served(node.dtype) == held.dtype:
            scheme, parameters = _law(node)
            stream = self._tensor if scheme in _CERTAIN else self._names.stream(self._tensor, node)
            own = {} if stream == self._tensor else {"stream": stream}
            return schemes.spec(scheme, shape, **parameters, **identity, **own)
        what = self._parts(node, shape) if isinstance(node, Boxes) else self._value(node)
        return recipes.spec(what, shape, **identity)

    def _plain(self, node: Node) -> Node:
        """A view of a draw that nothing else sees is a draw of its own."""
        if isinstance(node, Viewed) and isinstance(node.of, Draw):
            draw = node.of
            if draw.scheme in ELEMENTWISE and self._names.is_alone(draw):
                return dataclasses.replace(draw, shape=node.shape, is_mirrored=False)
        return node

    def _is_turned(self, draw: Draw) -> bool:
        """Whether the order of a draw's values matters, and is the other one."""
        return draw.is_mirrored and not self._names.is_alone(draw)

    def _parts(self, node: Boxes, shape: tuple[int, ...]) -> Parts:
        pairs: list[tuple[Region | View | None, Any]] = []
        for box, part in node.of:
            place, extents = _place(box, shape)
            part = recognised(self._plain(_nodes.viewed(part, whole(extents))))  # noqa: PLW2901 - the same part
            what: Any = self._parts(part, extents) if isinstance(part, Boxes) else self._value(part, use=len(pairs))
            pairs.append((place, what))
        return recipes.parts(pairs)

    def _value(self, node: Node, use: object = None) -> Value:
        """The node as a `Value`; not by recursion, which Python limits."""
        pending = [node]
        while pending:
            current = pending[-1]
            missing = [one for one in current.arguments if id(one) not in self._values]
            if missing:
                pending += reversed(missing)
                continue
            pending.pop()
            if id(current) not in self._values:
                self._values[id(current)] = self._made(current, use)
                self._nodes.append(current)
        return self._values[id(node)]

    def _made(self, node: Node, use: object) -> Value:  # noqa: PLR0911 - a table of what nodes are
        if isinstance(node, Full):
            return recipes._value(node.value)
        if isinstance(node, Given):
            return self._given(node)
        if isinstance(node, Draw):
            return self._draw(node, use)
        arguments = tuple(self._values[id(one)] for one in node.arguments)
        if isinstance(node, Apply):
            return recipes._call(node.function, *arguments)
        if isinstance(node, Cast):
            return arguments[0].astype(_served(node.dtype)) if node.dtype.is_floating_point else arguments[0]
        if isinstance(node, Viewed):
            return Value(Step(view=_view(node.box)), (_with_shape(arguments[0], node.of.shape),), node.shape)
        if isinstance(node, Boxes):
            assembly = Assembly(shape=node.shape, boxes=[_view(box) for box, _ in node.of])
            return Value(Step(assembly=assembly), arguments, node.shape)
        if isinstance(node, Reduce):
            p = node.p if node.reducer == "norm" else None
            reduction = Reduction(reducer=recipes.REDUCERS[node.reducer], axes=node.axes, p=p)
            of = _with_shape(arguments[0], node.of.shape)  # a constant that was left a scalar counts for each element
            return Value(Step(reduction=reduction), (of,), node.shape)
        raise AssertionError(f"{type(node).__name__} cannot be said")

    def _given(self, node: Given) -> Value:
        """Values that travel with the message: no more of them than it takes."""
        known = recognised(node)
        if not isinstance(known, Given):
            return self._made(known, None) if not known.arguments else self._value(known)
        values = node.values
        if values.is_complex():  # of which no expression broadcasts a part
            return recipes.literal(_array(values.contiguous()))
        for axis in range(values.ndim):
            first = values.narrow(axis, 0, 1)
            if bool((values == first).all()):
                values = first
        literal = recipes.literal(_array(values.contiguous()))
        return literal if values.shape == node.shape else literal.broadcast_to(node.shape)

    def _draw(self, draw: Draw, use: object) -> Value:
        scheme, parameters = _law(draw)
        if self._is_turned(draw):
            return self._turned(draw)
        stream = "" if scheme in _CERTAIN else self._names.stream(self._tensor, draw, use)
        return recipes.draw(scheme, draw.shape, stream=stream, dtype=_served(draw.dtype), **parameters)

    def _turned(self, draw: Draw) -> Value:
        """Reflected in the middle, which is what it is."""
        given = draw.parameters
        middle = 2 * given["mean"] if "mean" in given else given["a"] + given["b"]
        reflected = {**given}
        if "a" in given:
            reflected |= {"a": middle - given["b"], "b": middle - given["a"]}
        straight = dataclasses.replace(draw, parameters=reflected, is_mirrored=False)
        turned: Value = middle - self._draw(straight, None)
        return turned


def _with_shape(value: Value, shape: tuple[int, ...]) -> Value:
    return value if value.shape == shape else value.broadcast_to(shape)


def _law(draw: Draw) -> tuple[str, dict[str, Any]]:
    """A draw's scheme; a truncated normal without a bound on either side is a normal."""
    given = dict(draw.parameters)
    if draw.scheme != "trunc_normal":
        return draw.scheme, given
    is_open = math.isinf(given["a"]), math.isinf(given["b"])
    if all(is_open):
        return "normal", {"mean": given["mean"], "std": given["std"]}
    if is_open[0]:
        given["a"] = given["mean"] - _FAR * given["std"]
    if is_open[1]:
        given["b"] = given["mean"] + _FAR * given["std"]
    return "trunc_normal", given


def _constant(node: Full) -> tuple[str, dict[str, float]]:
    if node.value == 1:
        return "ones", {}
    if node.value == 0 and math.copysign(1, node.value) > 0:
        return "zeros", {}
    return "constant", {"val": node.value}


def _served(dtype: torch.dtype) -> str:
    """The dtype in which a tensor's numbers are served."""
    return str(dtype).removeprefix("torch.") if _nodes.is_served(dtype) else "float64"


def _view(box: Box) -> View:
    return View(shape=box.shape, strides=box.strides, offset=box.offset)


def _place(box: Box, shape: tuple[int, ...]) -> tuple[Region | View | None, tuple[int, ...]]:
    """A box of a tensor, as a region if it is one, None if it is all of it; and the shape in which it is seen so."""
    if not box.size or not math.prod(shape) or any(stride < 0 for stride in box.strides):
        return _view(box), box.shape
    low, high = box.bounds
    start, last = (np.unravel_index(index, shape) for index in (low, high - 1))
    extents = tuple(int(b) - int(a) + 1 for a, b in zip(start, last, strict=True))
    region = Box(extents, row_major(shape), low)
    own = [mine for _, _, mine in box.axes]
    if min(extents, default=1) < 1 or sorted_box(region) != sorted_box(box) or own != sorted(own)[::-1]:
        return _view(box), box.shape
    if extents == shape:
        return None, extents
    first = [int(index) for index in start]
    return Region(start=first, stop=[a + n for a, n in zip(first, extents, strict=True)]), extents


def _array(tensor: torch.Tensor) -> Array:
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def recognised(node: Node) -> Node:
    """Values that are a constant, the identity, or a constant but for one box, as that; all else as it is."""
    leaves = [] if isinstance(node, Given) else list(_nodes.leaves(node))
    if any(isinstance(leaf, Given) for leaf in leaves) and not _nodes.is_drawn(node):
        values = _nodes.evaluated(node)
        node = Given(node.shape, values.dtype, values.contiguous())
    if not isinstance(node, Given) or not math.prod(node.shape):
        return node
    values = node.values
    if values.is_complex() and bool((values.imag != 0).any()):
        return node
    ends = values.reshape(-1)[[0, -1]]
    if bool((values == ends[0]).all()):
        return Full(node.shape, node.dtype, float(ends[0].real))
    if values.ndim == 2 and torch.equal(values, torch.eye(*values.shape, dtype=values.dtype)):
        return Draw(node.shape, node.dtype, Drawing(0, None), "eye", {})
    for usual in ends:
        box = _bounding_box(values != usual)
        inside = values[box].reshape(-1)
        if bool((inside == inside[0]).all()):
            place = box_by(node.shape, lambda array, box=box: array[box])  # type: ignore[misc]
            around = Full(node.shape, node.dtype, float(usual.real))
            within = Full(place.shape, node.dtype, float(inside[0].real))
            return Boxes(node.shape, node.dtype, ((whole(node.shape), around), (place, within)))
    return node


def _bounding_box(mask: torch.Tensor) -> tuple[slice, ...]:
    slices = []
    for axis in range(mask.ndim):
        along = mask.movedim(axis, 0).flatten(1).any(1) if mask.ndim > 1 else mask
        indices = along.nonzero()
        slices.append(slice(int(indices[0]), int(indices[-1]) + 1))
    return tuple(slices)
