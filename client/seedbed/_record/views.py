"""Views of nodes: a view of a view is one view, and a view of boxes is boxes."""

from __future__ import annotations

import abc
import dataclasses
import math

from seedbed._record.boxes import Box, Shape, common_lattice, is_same, joined, whole, within
from seedbed._record.nodes import (
    ELEMENTWISE,
    Apply,
    Boxes,
    Cast,
    Draw,
    DType,
    Full,
    Literal,
    Node,
    Problem,
    Viewed,
)


class Views(abc.ABC):
    """Views of nodes; a framework adds how it holds and converts values."""

    @abc.abstractmethod
    def of_literal(self, node: Literal, box: Box) -> Node:
        """A box of computed values."""

    @abc.abstractmethod
    def zeros(self, shape: Shape, dtype: DType) -> Node:
        """Elements that no box covers."""

    @abc.abstractmethod
    def cast(self, node: Node, dtype: DType) -> Node:
        """A node, converted to a dtype."""

    def of_problem(self, node: Problem, box: Box) -> Node:
        """A box of values that no recipe describes."""
        return dataclasses.replace(node, shape=box.shape)

    def viewed(self, node: Node, box: Box) -> Node:  # noqa: PLR0911 - a case for each kind of node
        """A box of a node, as a tensor of the box's shape."""
        shape = box.shape
        if shape == node.shape and is_same(box, whole(shape)):
            return node
        if isinstance(node, Full):
            return dataclasses.replace(node, shape=shape)
        if isinstance(node, Problem):
            return self.of_problem(node, box)
        if isinstance(node, Literal):
            return self.of_literal(node, box)
        if isinstance(node, Viewed) and (direct := joined(box, node.box)) is not None:
            return self.viewed(node.source, direct)
        is_reshape = is_same(box, whole(shape)) and box.size == math.prod(node.shape)
        if is_reshape and (isinstance(node, Boxes) or (isinstance(node, Draw) and node.scheme in ELEMENTWISE)):
            return dataclasses.replace(node, shape=shape)
        if isinstance(node, Boxes):
            return self._of_boxes(node, box)
        if isinstance(node, Cast):
            return self.cast(self.viewed(node.source, box), node.dtype)
        if isinstance(node, Apply) and all(a.shape in (node.shape, ()) and not a.arguments for a in node.operands):
            operands = tuple(self.viewed(a, box) if a.shape else a for a in node.operands)
            return Apply(shape, node.dtype, node.function, operands)
        return Viewed(shape, node.dtype, box, node)

    def _of_boxes(self, node: Boxes, box: Box) -> Node:
        """A box of boxes: of the one that covers it, if there is one."""
        seen = [(place, part) for place, part in node.parts if not place.is_apart_from(box)]
        if not seen:
            return self.zeros(box.shape, node.dtype)
        place, part = seen[-1]
        if place.shape == box.shape and is_same(place, box):
            return part
        if place.covers(box) and (inner := within(box, place)) is not None:
            return self.viewed(part, inner)
        inside = [(inner, part) for place, part in seen if (inner := within(place, box)) is not None]
        if len(inside) == len(seen):
            return dataclasses.replace(node, shape=box.shape, parts=tuple(inside))
        cut = [piece for place, part in seen if (piece := self._cut(place, part, box)) is not None]
        if len(cut) == len(seen):
            return dataclasses.replace(node, shape=box.shape, parts=tuple(cut))
        return Viewed(box.shape, node.dtype, box, dataclasses.replace(node, parts=tuple(seen)))

    def _cut(self, place: Box, part: Node, box: Box) -> tuple[Box, Node] | None:
        """The elements that a placed part and a box have in common, placed in the box."""
        lattice = common_lattice(place, box)
        if lattice is None or not box.is_injective:
            return None
        strides = sorted({stride for each in (place, box) for _, stride, _ in each.axes} | {1}, reverse=True)
        ranges = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(*lattice, strict=True)]
        shape = tuple(max(high - low, 0) for low, high in ranges)
        offset = sum(low * stride for (low, _), stride in zip(ranges, strides, strict=True))
        common = Box(shape, tuple(strides), offset)
        target, source = within(common, box), within(common, place)
        if target is None or source is None:
            return None
        return target, self.viewed(part, source)
