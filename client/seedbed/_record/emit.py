"""From nodes to the messages of a model: a scheme where one law fills a tensor, else a recipe."""

from __future__ import annotations

import abc
import dataclasses
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from seedbed._ask import recipes, schemes
from seedbed._ask import values as _values
from seedbed._ask.recipes import Parts
from seedbed._ask.values import Value
from seedbed._record.boxes import Box, Shape, row_major, sorted_box, whole
from seedbed._record.nodes import (
    ELEMENTWISE,
    Apply,
    Boxes,
    Cast,
    Draw,
    Drawing,
    DType,
    Full,
    Literal,
    Node,
    Reduce,
    Viewed,
    leaves,
    site_of_draw,
)
from seedbed._types import Array
from seedbed.errors import InvalidRequest
from seedbed.v1 import DATA_TYPE_COMPLEX64, Assembly, Recipe, Reduction, Region, Step, TensorSpec, View

_CERTAIN = ("eye", "dirac")
"""The schemes that draw nothing."""

_MOST_LITERAL_BYTES = 1_000_000
"""The most that servers accept in a tensor's parts and steps."""

_LARGE_LITERALS = 64 << 20
"""Bytes of literals from which on a model's user is warned."""

_FAR = 20.0
"""Standard deviations from the mean at which a bound is placed that the code leaves open on one side."""

_MOST_COMPARED = 64
"""The most uses of a drawing that are compared pair by pair."""


class Held(NamedTuple):
    """A tensor of a model, and its values."""

    name: str
    node: Node
    dtype: str
    """The dtype in which it is served."""


class Names:
    """The stream of each draw: named after the first tensor that holds it.

    Args:
        held: The tensors of the model.
        independent_copies: Whether a copy draws values of its own.
    """

    def __init__(self, held: Sequence[Held], independent_copies: bool = False) -> None:
        self._counts: dict[str, int] = {}
        self._names: dict[tuple[Drawing, object], str] = {}
        self._is_independent = independent_copies
        uses: dict[Drawing, list[Box | None]] = {}
        for tensor in held:
            for drawing, box in _uses(tensor.node):
                uses.setdefault(drawing, []).append(box)
        self._apart = {drawing for drawing, boxes in uses.items() if _are_apart(boxes)}

    def is_alone(self, draw: Draw) -> bool:
        """Whether no element of a drawing is used twice, so that nothing but its law matters."""
        return draw.drawing in self._apart

    def stream(self, tensor: str, draw: Draw, use: object = None) -> str:
        """The stream of a draw in a tensor; ``use`` distinguishes the uses of a drawing that is alone."""
        scope = (tensor, use) if self.is_alone(draw) else tensor if self._is_independent else None
        key = draw.drawing, scope
        if key not in self._names:
            number = self._counts.get(tensor, 0)
            self._counts[tensor] = number + 1
            self._names[key] = f"{tensor}#{number}" if number else tensor
        return self._names[key]


def _uses(node: Node) -> Iterator[tuple[Drawing, Box | None]]:
    """Each use of a drawing in a node, with the elements it takes; None if something is computed from them."""
    seen: set[int] = set()
    pending: list[tuple[Node, bool]] = [(node, True)]
    while pending:
        node, is_bare = pending.pop()
        if isinstance(node, Draw):
            yield node.drawing, whole(node.shape) if is_bare and node.scheme in ELEMENTWISE else None
        elif is_bare and isinstance(node, Viewed) and isinstance(node.source, Draw):
            yield node.source.drawing, node.box if node.source.scheme in ELEMENTWISE else None
        elif is_bare and isinstance(node, Boxes):
            pending += [(part, True) for part in node.arguments]
        elif id(node) not in seen:
            seen.add(id(node))
            pending += [(argument, False) for argument in node.arguments]


def _are_apart(uses: Sequence[Box | None]) -> bool:
    if len(uses) == 1:
        return uses[0] is None or uses[0].is_injective
    if len(uses) > _MOST_COMPARED:
        return False
    return all(box is not None and box.is_injective for box in uses) and all(
        a.is_apart_from(b) for index, a in enumerate(uses) if a for b in uses[:index] if b
    )


class Emitter(abc.ABC):
    """Writes one tensor; a framework adds its dtypes, and how it holds values.

    Args:
        tensor: The tensor's name.
        names: The streams of the model's draws.
    """

    def __init__(self, tensor: str, names: Names) -> None:
        self._tensor = tensor
        self._names = names
        self._values: dict[int, Value] = {}
        self._nodes: list[Node] = []  # kept, so that no other node gets the id of one of them

    # What differs between frameworks.

    @abc.abstractmethod
    def served(self, dtype: DType) -> str:
        """The dtype in which draws of a dtype are served."""

    @abc.abstractmethod
    def is_float(self, dtype: DType) -> bool:
        """Whether a cast to a dtype is one of the contract's."""

    @abc.abstractmethod
    def array(self, node: Literal) -> Array:
        """The values of a literal as a NumPy array."""

    @abc.abstractmethod
    def viewed(self, node: Node, box: Box) -> Node:
        """A box of a node."""

    @abc.abstractmethod
    def recognised(self, node: Node) -> Node:
        """A node in which nothing is drawn as the pattern that its values follow; all else as it is."""

    def plain(self, node: Node) -> Node:
        """A view of a draw, none of whose values is used twice, as a draw."""
        if isinstance(node, Viewed) and isinstance(node.source, Draw):
            draw = node.source
            if draw.scheme in ELEMENTWISE and self._names.is_alone(draw):
                return dataclasses.replace(draw, shape=node.shape, is_mirrored=False)
        return node

    def must_reflect(self, draw: Draw) -> bool:
        """Whether a draw has to be emitted as the reflection of its law."""
        return draw.is_mirrored and not self._names.is_alone(draw)

    # What is the same for all.

    def spec(self, held: Held, seed: int) -> TensorSpec:
        """The message of a tensor.

        Raises:
            InvalidRequest: No message describes it; names the tensor.
        """
        try:
            message = self._spec(held, seed)
        except InvalidRequest as error:
            site = site_of_draw(held.node)
            drawn = f" (drawn at {site})" if site else ""
            raise InvalidRequest(held.name, f"has no recipe: {error.description}{drawn}") from None
        if message.dtype == DATA_TYPE_COMPLEX64 and _has_expression(message):
            raise InvalidRequest(held.name, "is computed from complex numbers, which are served only as they are drawn")
        _check_literals(message)
        return message

    def _spec(self, held: Held, seed: int) -> TensorSpec:
        node, identity = held.node, {"name": held.name, "dtype": held.dtype, "seed": seed}
        shape = node.shape
        if not math.prod(shape):
            return schemes.spec("zeros", shape, **identity)
        if isinstance(node, Cast) and isinstance(node.source, (Apply, Viewed, Reduce)):
            node = node.source  # the result is rounded to the tensor's dtype anyway
        node = self.recognised(self.plain(node))
        if isinstance(node, Full):
            scheme, parameters = _constant(node)
            return schemes.spec(scheme, shape, **parameters, **identity)
        if isinstance(node, Draw) and not self.must_reflect(node) and self.served(node.dtype) == held.dtype:
            scheme, parameters = _law(node)
            stream = self._tensor if scheme in _CERTAIN else self._names.stream(self._tensor, node)
            own = {} if stream == self._tensor else {"stream": stream}
            return schemes.spec(scheme, shape, **parameters, **identity, **own)
        what = self._parts(node, shape) if isinstance(node, Boxes) else self._value(node)
        return recipes.spec(what, shape, **identity)

    def _parts(self, node: Boxes, shape: Shape) -> Parts:
        pairs: list[tuple[Region | View | None, Any]] = []
        for box, content in node.parts:
            place, extents = _place(box, shape)
            part = self.recognised(self.plain(self.viewed(content, whole(extents))))
            what: Any = self._parts(part, extents) if isinstance(part, Boxes) else self._value(part, use=len(pairs))
            pairs.append((place, what))
        return recipes.parts(pairs)

    def _value(self, node: Node, use: object = None) -> Value:
        """The node as a `Value`; without recursion, whose depth Python limits."""
        pending = [node]
        while pending:
            current = pending[-1]
            missing = [argument for argument in current.arguments if id(argument) not in self._values]
            if missing:
                pending += reversed(missing)
                continue
            pending.pop()
            if id(current) not in self._values:
                self._values[id(current)] = self._made(current, use)
                self._nodes.append(current)
        return self._values[id(node)]

    def _made(self, node: Node, use: object) -> Value:  # noqa: PLR0911 - a case for each kind of node
        if isinstance(node, Full):
            return _values.as_value(float(node.value.real))
        if isinstance(node, Literal):
            return self._literal(node)
        if isinstance(node, Draw):
            return self._draw(node, use)
        arguments = tuple(self._values[id(argument)] for argument in node.arguments)
        if isinstance(node, Apply):
            return _values.apply(node.function, *arguments)
        if isinstance(node, Cast):
            return arguments[0].astype(self.served(node.dtype)) if self.is_float(node.dtype) else arguments[0]
        if isinstance(node, Viewed):
            return Value(Step(view=_view(node.box)), (_with_shape(arguments[0], node.source.shape),), node.shape)
        if isinstance(node, Boxes):
            assembly = Assembly(shape=node.shape, boxes=[_view(box) for box, _ in node.parts])
            return Value(Step(assembly=assembly), arguments, node.shape)
        if isinstance(node, Reduce):
            p = node.p if node.reducer == "norm" else None
            reduction = Reduction(reducer=_values.REDUCERS[node.reducer], axes=node.axes, p=p)
            source = _with_shape(arguments[0], node.source.shape)  # a scalar constant counts for each element
            return Value(Step(reduction=reduction), (source,), node.shape)
        raise AssertionError(f"a {type(node).__name__} has no step")

    def _literal(self, node: Literal) -> Value:
        """Values that travel with the message, without repetitions along an axis."""
        known = self.recognised(node)
        if not isinstance(known, Literal):
            return self._value(known)
        values = self.array(node)
        if values.dtype.kind == "c":  # no expression broadcasts them
            return _values.literal(values)
        for axis in range(values.ndim):
            first = values[(slice(None),) * axis + (slice(0, 1),)]
            if bool((values == first).all()):
                values = first
        literal = _values.literal(np.ascontiguousarray(values))
        return literal if values.shape == node.shape else literal.broadcast_to(node.shape)

    def _draw(self, draw: Draw, use: object) -> Value:
        if self.must_reflect(draw):
            return self._reflected(draw)
        scheme, parameters = _law(draw)
        stream = "" if scheme in _CERTAIN else self._names.stream(self._tensor, draw, use)
        return _values.draw(scheme, draw.shape, stream=stream, dtype=self.served(draw.dtype), **parameters)

    def _reflected(self, draw: Draw) -> Value:
        """The values of a mirrored draw: those of the law, reflected in its middle."""
        old = draw.parameters
        middle = 2 * old["mean"] if "mean" in old else old.get("a", 0.0) + old.get("b", 0.0)
        parameters = {**old}
        if "a" in old:
            parameters |= {"a": middle - old["b"], "b": middle - old["a"]}
        straight = dataclasses.replace(draw, parameters=parameters, is_mirrored=False)
        reflected: Value = middle - self._draw(straight, None)
        return reflected


def warn_of_literals(held: Sequence[Held], stacklevel: int) -> None:
    """Warns if a model holds many values that its code computes.

    Args:
        held: The tensors of the model.
        stacklevel: As for `warnings.warn`, counted from the caller.
    """
    sizes: dict[str, int] = {}
    for tensor in held:
        literals = [leaf for leaf in leaves(tensor.node) if isinstance(leaf, Literal)]
        sizes[tensor.name] = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in literals)
    if (total := sum(sizes.values())) > _LARGE_LITERALS:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        warnings.warn(
            f"the model holds {total / 2**20:.0f} MiB of values that its code computes without drawing, "
            f"most in {', '.join(largest)}; they are part of the model file",
            stacklevel=stacklevel + 1,
        )


def _has_expression(recipe: TensorSpec | Recipe) -> bool:
    return recipe.HasField("expression") or any(_has_expression(part.recipe) for part in recipe.parts.parts)


def _check_literals(message: TensorSpec) -> None:
    """Refuses what no request can carry; a tensor that is one literal is in none.

    Raises:
        InvalidRequest: There is too much of it.
    """
    if message.HasField("literal") or (size := literal_bytes(message)) <= _MOST_LITERAL_BYTES:
        return
    raise InvalidRequest(
        message.name,
        f"combines {size} bytes of values that the code computes with drawn ones; a request carries at most "
        f"{_MOST_LITERAL_BYTES}: draw these values, too, or keep them in a separate tensor",
    )


def literal_bytes(recipe: TensorSpec | Recipe) -> int:
    """The bytes of all literals within a recipe."""
    within = [part.recipe for part in recipe.parts.parts]
    within += [step.recipe for step in recipe.expression.steps if step.HasField("recipe")]
    return len(recipe.literal.data) + sum(map(literal_bytes, within))


def _with_shape(value: Value, shape: Shape) -> Value:
    return value if value.shape == shape else value.broadcast_to(shape)


def _law(draw: Draw) -> tuple[str, dict[str, Any]]:
    """The scheme of a draw; a truncated normal without bounds is a normal."""
    parameters = dict(draw.parameters)
    if draw.scheme != "trunc_normal":
        return draw.scheme, parameters
    is_open = math.isinf(parameters["a"]), math.isinf(parameters["b"])
    if all(is_open):
        return "normal", {"mean": parameters["mean"], "std": parameters["std"]}
    if is_open[0]:
        parameters["a"] = parameters["mean"] - _FAR * parameters["std"]
    if is_open[1]:
        parameters["b"] = parameters["mean"] + _FAR * parameters["std"]
    return "trunc_normal", parameters


def _constant(node: Full) -> tuple[str, dict[str, float]]:
    value = float(node.value.real)
    if value == 1:
        return "ones", {}
    if value == 0 and math.copysign(1, value) > 0:
        return "zeros", {}
    return "constant", {"val": value}


def _view(box: Box) -> View:
    return View(shape=box.shape, strides=box.strides, offset=box.offset)


def _place(box: Box, shape: Shape) -> tuple[Region | View | None, Shape]:
    """A box of a tensor as a region if it is one, or None if it is all of it; and its shape in this form."""
    if not box.size or not math.prod(shape) or any(stride < 0 for stride in box.strides):
        return _view(box), box.shape
    low, high = box.bounds
    start, last = (np.unravel_index(index, shape) for index in (low, high - 1))
    extents = tuple(int(b) - int(a) + 1 for a, b in zip(start, last, strict=True))
    region = Box(extents, row_major(shape), low)
    own = [stride for _, _, stride in box.axes]
    if min(extents, default=1) < 1 or sorted_box(region) != sorted_box(box) or own != sorted(own)[::-1]:
        return _view(box), box.shape
    if extents == shape:
        return None, extents
    first = [int(index) for index in start]
    return Region(start=first, stop=[a + n for a, n in zip(first, extents, strict=True)]), extents
