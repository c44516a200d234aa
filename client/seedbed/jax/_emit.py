"""From what JAX's arrays hold to the messages of a model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from seedbed._record import emit, nodes, patterns
from seedbed._record.boxes import Box, Shape
from seedbed._record.emit import Held
from seedbed._record.nodes import Apply, Boxes, Cast, Literal, Node, Reduce, Viewed, is_drawn, leaves
from seedbed._types import Array
from seedbed.jax import _nodes
from seedbed.jax._nodes import Atom, Draw, Drawing, Drawings, DType
from seedbed.v1 import TensorSpec


def specs(held: Sequence[Held], seed: int) -> list[TensorSpec]:
    """The messages of a model's tensors.

    Args:
        held: The tensors; nothing in them is a `Problem`.
        seed: The seed of each.

    Raises:
        InvalidRequest: If no message describes a tensor; names it.
    """
    apart = _with_equal_layers_apart(held)
    names = emit.Names(apart)
    return [_Emitter(tensor.name, names).spec(tensor, seed) for tensor in apart]


def _with_equal_layers_apart(held: Sequence[Held]) -> list[Held]:
    """Stacked draws, some layers of which are used elsewhere too, as stacks of draws: equal layers stay equal."""
    owners: dict[Atom, set[Drawing]] = {}
    draws = [leaf for tensor in held for leaf in leaves(tensor.node) if isinstance(leaf, Draw)]
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
    for draw in draws:  # so that two draws with one key stay equal
        drawings.keep(draw.drawing)
    return [tensor._replace(node=_rebuilt(tensor.node, shared, drawings)) for tensor in held]


def _rebuilt(node: Node, shared: set[Drawing], drawings: Drawings) -> Node:
    made: dict[int, Node] = {}
    pending = [node]
    while pending:
        current = pending[-1]
        missing = [argument for argument in current.arguments if id(argument) not in made]
        if missing:
            pending += missing
            continue
        pending.pop()
        arguments = [made[id(argument)] for argument in current.arguments]
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
        pairs = zip(node.parts, arguments, strict=True)
        return dataclasses.replace(node, parts=tuple((box, new) for (box, _), new in pairs))
    assert isinstance(node, Reduce)
    return dataclasses.replace(node, source=arguments[0])


class _Emitter(emit.Emitter):
    """Integers are drawn in float32."""

    def served(self, dtype: DType) -> str:
        return str(dtype) if dtype in _nodes.FLOATS or dtype.kind == "c" else "float32"

    def is_float(self, dtype: DType) -> bool:
        return dtype in _nodes.FLOATS

    def array(self, node: Literal) -> Array:
        values: Array = node.values
        return values

    def viewed(self, node: Node, box: Box) -> Node:
        return _nodes.viewed(node, box)

    def recognised(self, node: Node) -> Node:
        if not (is_drawn(node) or _nodes.is_few_numbers(node) or isinstance(node, (Literal, nodes.Draw))):
            node = _nodes.literal(np.ascontiguousarray(_nodes.evaluated(node)))
        return patterns.recognised(node, node.values) if isinstance(node, Literal) else node

    def plain(self, node: Node) -> Node:
        """A view of a draw, none of whose values is used twice, as a draw, if the law has that shape."""
        if isinstance(node, Draw) and node.is_mirrored and self._names.is_alone(node):
            return dataclasses.replace(node, is_mirrored=False)
        if isinstance(node, Viewed) and isinstance(node.source, Draw) and self._names.is_alone(node.source):
            draw = node.source
            if draw.scheme == "orthogonal" and (axis := _axis_of_rows(node.box, draw.shape)) is not None:
                return dataclasses.replace(draw, shape=node.shape, parameters={**draw.parameters, "axis": axis})
        return super().plain(node)

    def must_reflect(self, draw: nodes.Draw) -> bool:
        """Whether a draw has to be emitted as the reflection of its law.

        In an expression a uniform has to, even if it is alone: only one of its ends can occur, and a logarithm may be
        infinite at the other.
        """
        return draw.is_mirrored and (draw.scheme == "uniform" or not self._names.is_alone(draw))


def _axis_of_rows(box: Box, matrix: Shape) -> int | None:
    """The ``axis`` with which a box of an orthogonal matrix is orthogonal again; None if it is not, or in doubt.

    A matrix of m >= n orthonormal columns stays one in whatever order its rows and columns are, and so do some of its
    columns. Of a square one, so do some of its rows.
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
