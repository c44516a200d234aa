"""From what arrays hold to the messages of a model: schemes where a law fills one, else recipes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from seedbed._ask import recipes, schemes
from seedbed._ask.recipes import Parts, Value
from seedbed._record.boxes import Box, Shape, box_by, row_major, sorted_box, whole
from seedbed.errors import InvalidRequest
from seedbed.jax import _nodes
from seedbed.jax._nodes import (
    ELEMENTWISE,
    Apply,
    Atom,
    Boxes,
    Cast,
    Draw,
    Drawing,
    Drawings,
    Full,
    Given,
    Node,
    Reduce,
    Viewed,
)
from seedbed.v1 import DATA_TYPE_COMPLEX64, Assembly, Recipe, Reduction, Region, Step, TensorSpec, View

_MOST_LITERAL_BYTES = 1_000_000
"""Of a tensor's parts and steps: what servers take."""

_FAR = 20.0
"""Standard deviations from the mean at which a bound is put that the code leaves open on one side."""


class Held(NamedTuple):
    """A leaf of the tree, and what it holds."""

    name: str
    node: Node


def specs(held: Sequence[Held], seed: int) -> list[TensorSpec]:
    """The messages of a model's tensors.

    Args:
        held: The tensors; nothing in them is a `Problem`.
        seed: The seed of each.

    Raises:
        InvalidRequest: One cannot be said in a message; names it.
    """
    apart = _with_equal_layers_apart(held)
    names = _Names(apart)
    return [_said(one, names, seed) for one in apart]


def _with_equal_layers_apart(held: Sequence[Held]) -> list[Held]:
    """Stacked draws of which a part is used elsewhere, too, as stacks of draws: what is equal must be equal here."""
    owners: dict[Atom, set[Drawing]] = {}
    draws = [leaf for one in held for leaf in _nodes.leaves(one.node) if isinstance(leaf, Draw)]
    for draw in draws:
        for atom in draw.drawing.atoms:
            owners.setdefault(atom, set()).add(draw.drawing)
    shared = {
        draw.drawing
        for draw in draws
        if len(draw.drawing.atoms) > 1
        and (
            len(set(draw.drawing.atoms)) < len(draw.drawing.atoms)
            or any(len(owners[atom]) > 1 for atom in draw.drawing.atoms)
        )
    }
    if not shared:
        return list(held)
    drawings = Drawings()
    for draw in draws:  # those of one key keep being the same ones
        drawings.keep(draw.drawing)
    return [Held(one.name, _rebuilt(one.node, shared, drawings)) for one in held]


def _rebuilt(node: Node, shared: set[Drawing], drawings: Drawings) -> Node:
    made: dict[int, Node] = {}
    pending = [node]
    while pending:
        current = pending[-1]
        missing = [one for one in current.arguments if id(one) not in made]
        if missing:
            pending += missing
            continue
        pending.pop()
        arguments = [made[id(one)] for one in current.arguments]
        made[id(current)] = _remade(current, arguments, shared, drawings)
    return made[id(node)]


def _remade(node: Node, arguments: list[Node], shared: set[Drawing], drawings: Drawings) -> Node:  # noqa: PLR0911
    if isinstance(node, Draw) and node.drawing in shared:
        return _nodes.single(node, drawings)
    if all(new is old for new, old in zip(arguments, node.arguments, strict=True)):
        return node
    if isinstance(node, Apply):
        return _nodes.apply(node.function, *arguments, dtype=node.dtype)
    if isinstance(node, Cast):
        return _nodes.cast(arguments[0], node.dtype)
    if isinstance(node, Viewed):
        return _nodes.viewed(arguments[0], node.box)
    if isinstance(node, Boxes):
        pairs = zip(node.of, arguments, strict=True)
        return dataclasses.replace(node, of=tuple((box, new) for (box, _), new in pairs))
    assert isinstance(node, Reduce)
    return dataclasses.replace(node, of=arguments[0])


def _said(one: Held, names: _Names, seed: int) -> TensorSpec:
    try:
        message = _Emitter(one.name, names).spec(one, seed)
    except InvalidRequest as error:
        site = next((str(leaf.drawing.site) for leaf in _nodes.leaves(one.node) if isinstance(leaf, Draw)), "")
        drawn = f" (drawn at {site})" if site else ""
        raise InvalidRequest(one.name, f"cannot be said: {error.description}{drawn}") from None
    if message.dtype == DATA_TYPE_COMPLEX64 and _has_expression(message):
        raise InvalidRequest(one.name, "is computed of complex numbers, which are served only as they are drawn")
    _check_literals(message)
    return message


def _has_expression(recipe: TensorSpec | Recipe) -> bool:
    return recipe.HasField("expression") or any(_has_expression(part.recipe) for part in recipe.parts.parts)


def _check_literals(message: TensorSpec) -> None:
    """Refuses what no request can carry; a tensor that is a literal as a whole is in none."""
    if message.HasField("literal") or (size := _literal_bytes(message)) <= _MOST_LITERAL_BYTES:
        return
    raise InvalidRequest(
        message.name,
        f"mixes {size} bytes of values that the code computes with drawn ones, over the {_MOST_LITERAL_BYTES} that a "
        "request carries; let the code draw it, or keep the two in arrays of their own",
    )


def _literal_bytes(recipe: TensorSpec | Recipe) -> int:
    within = [part.recipe for part in recipe.parts.parts]
    within += [step.recipe for step in recipe.expression.steps if step.HasField("recipe")]
    return len(recipe.literal.data) + sum(map(_literal_bytes, within))


class _Use(NamedTuple):
    """Where a drawing occurs in the tree."""

    box: Box | None
    """The elements that are taken of it; None if something is computed of them."""


class _Names:
    """The stream of each draw: named after the first tensor that holds it."""

    def __init__(self, held: Sequence[Held]) -> None:
        self._counts: dict[str, int] = {}
        self._names: dict[tuple[Drawing, object], str] = {}
        uses: dict[Drawing, list[_Use]] = {}
        for one in held:
            for drawing, use in _uses(one.node):
                uses.setdefault(drawing, []).append(use)
        self._apart = {drawing for drawing, its in uses.items() if _are_apart(its)}

    def is_alone(self, draw: Draw) -> bool:
        """Whether no element of a drawing is used twice, so that all that holds of it is its law."""
        return draw.drawing in self._apart

    def stream(self, tensor: str, draw: Draw, use: object = None) -> str:
        """The stream of a draw in a tensor; ``use`` tells the uses of one that is alone apart."""
        key = draw.drawing, (tensor, use) if self.is_alone(draw) else None
        if key not in self._names:
            number = self._counts.get(tensor, 0)
            self._counts[tensor] = number + 1
            self._names[key] = f"{tensor}#{number}" if number else tensor
        return self._names[key]


def _uses(node: Node) -> Iterator[tuple[Drawing, _Use]]:
    seen: set[int] = set()
    pending: list[tuple[Node, bool]] = [(node, True)]
    while pending:
        node, is_bare = pending.pop()
        if isinstance(node, Draw):
            yield node.drawing, _Use(whole(node.shape) if is_bare and node.scheme in ELEMENTWISE else None)
        elif is_bare and isinstance(node, Viewed) and isinstance(node.of, Draw):
            yield node.of.drawing, _Use(node.box if node.of.scheme in ELEMENTWISE else None)
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
        node, identity = held.node, {"name": held.name, "dtype": str(held.node.dtype), "seed": seed}
        shape = node.shape
        if not math.prod(shape):
            return schemes.spec("zeros", shape, **identity)
        if isinstance(node, Cast) and isinstance(node.of, (Apply, Viewed, Reduce)):
            node = node.of  # the result is rounded to the tensor's dtype anyway
        node = recognised(self._plain(node))
        if isinstance(node, Full):
            scheme, parameters = _constant(node)
            return schemes.spec(scheme, shape, **parameters, **identity)
        if isinstance(node, Draw) and not self._is_turned(node) and node.dtype == held.node.dtype:
            scheme, parameters = _law(node)
            stream = self._names.stream(self._tensor, node) if node.drawing.atoms else self._tensor
            own = {} if stream == self._tensor else {"stream": stream}
            return schemes.spec(scheme, shape, **parameters, **identity, **own)
        what = self._parts(node, shape) if isinstance(node, Boxes) else self._value(node)
        return recipes.spec(what, shape, **identity)

    def _plain(self, node: Node) -> Node:
        """A view of a draw that nothing else sees is a draw of its own, if the law is one of that shape."""
        if isinstance(node, Draw) and node.is_mirrored and self._names.is_alone(node):
            return dataclasses.replace(node, is_mirrored=False)
        if not (isinstance(node, Viewed) and isinstance(node.of, Draw) and self._names.is_alone(node.of)):
            return node
        draw = node.of
        if draw.scheme in ELEMENTWISE:
            return dataclasses.replace(draw, shape=node.shape, is_mirrored=False)
        if draw.scheme == "orthogonal" and (axis := _axis_of_rows(node.box, draw.shape)) is not None:
            return dataclasses.replace(draw, shape=node.shape, parameters={**draw.parameters, "axis": axis})
        return node

    def _is_turned(self, draw: Draw) -> bool:
        """Whether the order of a draw's values matters, and is the other one.

        Within an expression that of a uniform does: of its ends one can occur, at which a logarithm may not be finite.
        """
        return draw.is_mirrored and (draw.scheme == "uniform" or not self._names.is_alone(draw))

    def _parts(self, node: Boxes, shape: Shape) -> Parts:
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
            return recipes._value(float(node.value.real) if node.dtype.kind == "c" else float(node.value))
        if isinstance(node, Given):
            return self._given(node)
        if isinstance(node, Draw):
            return self._draw(node, use)
        arguments = tuple(self._values[id(one)] for one in node.arguments)
        if isinstance(node, Apply):
            return recipes._call(node.function, *arguments)
        if isinstance(node, Cast):
            return arguments[0].astype(str(node.dtype)) if node.dtype in _nodes.FLOATS else arguments[0]
        if isinstance(node, Viewed):
            return Value(Step(view=_view(node.box)), (_with_shape(arguments[0], node.of.shape),), node.shape)
        if isinstance(node, Boxes):
            assembly = Assembly(shape=node.shape, boxes=[_view(box) for box, _ in node.of])
            return Value(Step(assembly=assembly), arguments, node.shape)
        assert isinstance(node, Reduce)
        reduction = Reduction(reducer=recipes.REDUCERS[node.reducer], axes=node.axes)
        return Value(Step(reduction=reduction), (_with_shape(arguments[0], node.of.shape),), node.shape)

    def _given(self, node: Given) -> Value:
        """Values that travel with the message: no more of them than it takes."""
        known = recognised(node)
        if not isinstance(known, Given):
            return self._made(known, None) if not known.arguments else self._value(known)
        values = node.values
        if values.dtype.kind == "c":  # of which no expression broadcasts a part
            return recipes.literal(values)
        for axis in range(values.ndim):
            first = values[(slice(None),) * axis + (slice(0, 1),)]
            if bool((values == first).all()):
                values = first
        literal = recipes.literal(np.ascontiguousarray(values))
        return literal if values.shape == node.shape else literal.broadcast_to(node.shape)

    def _draw(self, draw: Draw, use: object) -> Value:
        scheme, parameters = _law(draw)
        if self._is_turned(draw):
            return self._turned(draw)
        stream = self._names.stream(self._tensor, draw, use) if draw.drawing.atoms else ""
        dtype = str(draw.dtype) if draw.dtype in _nodes.FLOATS or draw.dtype.kind == "c" else "float32"
        return recipes.draw(scheme, draw.shape, stream=stream, dtype=dtype, **parameters)

    def _turned(self, draw: Draw) -> Value:
        """Reflected in the middle, which is what it is."""
        given = draw.parameters
        middle = 2 * given["mean"] if "mean" in given else given.get("a", 0.0) + given.get("b", 0.0)
        reflected = {**given}
        if "a" in given:
            reflected |= {"a": middle - given["b"], "b": middle - given["a"]}
        straight = dataclasses.replace(draw, parameters=reflected, is_mirrored=False)
        turned: Value = middle - self._draw(straight, None)
        return turned


def _with_shape(value: Value, shape: Shape) -> Value:
    return value if value.shape == shape else value.broadcast_to(shape)


def _axis_of_rows(box: Box, matrix: Shape) -> int | None:
    """The axis along which a box of an orthogonal matrix is one again; None if it is none, or in doubt.

    A matrix of m >= n orthonormal columns is one in whatever order its rows and columns are, and so are some of its
    columns. Of a square one, some of its rows are, too.
    """
    m, n = matrix
    if n == 1 or not box.is_injective:
        return None
    rows, columns = [], []
    for axis, (extent, stride) in enumerate(zip(box.shape, box.strides, strict=True)):
        if extent == 1:
            continue
        if stride % n == 0:
            rows.append(axis)
        elif abs(stride) * (extent - 1) < n:
            columns.append(axis)
        else:
            return None
    height, width = (math.prod(box.shape[axis] for axis in axes) for axes in (rows, columns))
    if height > m or width > n or not (height == m or (m == n and width == n)):
        return None
    for axes in (rows, columns):
        if len(axes) == 1:
            return axes[0]
    single = [axis for axis, extent in enumerate(box.shape) if extent == 1]
    return single[0] if single and not (rows and columns) else None


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
    value = float(node.value.real)
    if value == 1:
        return "ones", {}
    if value == 0 and math.copysign(1, value) > 0:
        return "zeros", {}
    return "constant", {"val": value}


def _view(box: Box) -> View:
    return View(shape=box.shape, strides=box.strides, offset=box.offset)


def _place(box: Box, shape: Shape) -> tuple[Region | View | None, Shape]:
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


def recognised(node: Node) -> Node:
    """Values that are a constant, the identity, or a constant but for one box, as that; all else as it is."""
    if not (_nodes.is_drawn(node) or _nodes.is_few_numbers(node) or isinstance(node, (Given, Draw))):
        node = _nodes.given(np.ascontiguousarray(_nodes.evaluated(node)))
    if not isinstance(node, Given) or not math.prod(node.shape):
        return node
    values = node.values
    if values.dtype.kind == "c" and bool((values.imag != 0).any()):
        return node
    ends = values.reshape(-1)[[0, -1]]
    if bool((values == ends[0]).all()):
        return Full(node.shape, node.dtype, ends[0])
    if values.ndim == 2 and np.array_equal(values, np.eye(*values.shape, dtype=values.dtype)):
        return Draw(node.shape, node.dtype, Drawing((), None), "eye", {})
    for usual in ends:
        region = _bounding_box(values != usual)
        inside = values[region].reshape(-1)
        if bool((inside == inside[0]).all()):
            place = box_by(node.shape, lambda array, region=region: array[region])  # type: ignore[misc]
            around = Full(node.shape, node.dtype, usual)
            within = Full(place.shape, node.dtype, inside[0])
            return Boxes(node.shape, node.dtype, ((whole(node.shape), around), (place, within)))
    return node


def _bounding_box(mask: np.ndarray[Any, Any]) -> tuple[slice, ...]:
    slices = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        indices = np.nonzero(mask.any(axis=others))[0]
        slices.append(slice(int(indices[0]), int(indices[-1]) + 1))
    return tuple(slices)
