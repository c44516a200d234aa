"""The values of a tensor while a model's code is recorded: a graph of draws, constants and functions of them.

Values and dtypes are those of the framework that is recorded: torch's, or NumPy's.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from seedbed._record.boxes import Box, Shape

DType: TypeAlias = Any
"""A dtype of torch, or of NumPy."""

ELEMENTWISE = ("uniform", "normal", "trunc_normal", "disk")
"""The schemes whose elements are independent and identically distributed, whatever the shape."""


class Facts(NamedTuple):
    """What is known of a node and of everything that it is computed from."""

    is_drawn: bool
    problem: Problem | None


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """A tensor's values."""

    shape: Shape
    dtype: DType

    @property
    def arguments(self) -> tuple[Node, ...]:
        """The nodes that it is computed from."""
        return ()

    def settled(self) -> Node:
        """The same values without the parts that later ones overwrite."""
        return self

    @functools.cached_property
    def facts(self) -> Facts:
        """Derived once, from those of the arguments, so that the cost does not grow with the chain of operations."""
        facts = [argument.facts for argument in self.settled().arguments]
        problem = next((fact.problem for fact in facts if fact.problem is not None), None)
        return Facts(isinstance(self, Draw) or any(fact.is_drawn for fact in facts), problem)


@dataclasses.dataclass(frozen=True, eq=False)
class Drawing:
    """One event of drawing; all nodes with the same one hold the same values."""

    site: object
    """The line of the code, as text."""


@dataclasses.dataclass(frozen=True, eq=False)
class Draw(Node):
    """What a scheme draws."""

    drawing: Drawing
    scheme: str
    parameters: Mapping[str, Any]
    is_mirrored: bool = False
    """Whether the values were negated an odd number of times: then they are the law's, reflected in its middle."""


@dataclasses.dataclass(frozen=True, eq=False)
class Full(Node):
    """One number everywhere."""

    value: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Literal(Node):
    """Values that the code computes without drawing."""

    values: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Apply(Node):
    """A function of the contract, element by element, of operands that are broadcast."""

    function: str
    operands: tuple[Node, ...]

    @property
    def arguments(self) -> tuple[Node, ...]:
        return self.operands


@dataclasses.dataclass(frozen=True, eq=False)
class Cast(Node):
    """Rounded to the dtype."""

    source: Node

    @property
    def arguments(self) -> tuple[Node, ...]:
        return (self.source,)


@dataclasses.dataclass(frozen=True, eq=False)
class Viewed(Node):
    """A box of a node."""

    box: Box
    source: Node

    @property
    def arguments(self) -> tuple[Node, ...]:
        return (self.source,)


@dataclasses.dataclass(frozen=True, eq=False)
class Boxes(Node):
    """Boxes of a row-major tensor, each with its values; later ones overwrite earlier ones, and the rest is 0."""

    parts: tuple[tuple[Box, Node], ...]

    @property
    def arguments(self) -> tuple[Node, ...]:
        return tuple(node for _, node in self.parts)


@dataclasses.dataclass(frozen=True, eq=False)
class Reduce(Node):
    """Reduced along axes, which stay with size 1."""

    reducer: str
    axes: tuple[int, ...]
    source: Node
    p: float = 2.0
    """Of a norm."""

    @property
    def arguments(self) -> tuple[Node, ...]:
        return (self.source,)


@dataclasses.dataclass(frozen=True, eq=False)
class Problem(Node):
    """Values that no recipe describes, and why."""

    text: str
    site: object = None
    """The line of the code, as text; empty if there is none."""

    def __str__(self) -> str:
        where = "" if self.site is None else str(self.site)
        return f"{self.text} ({where})" if where else self.text

    @functools.cached_property
    def facts(self) -> Facts:
        return Facts(True, self)


def is_drawn(node: Node) -> bool:
    """Whether any of its values is drawn, or unknown."""
    return node.facts.is_drawn


def problem_of(node: Node) -> Problem | None:
    """The first problem in a node, if there is one."""
    return node.facts.problem


def leaves(node: Node) -> Iterator[Node]:
    """Every node without arguments that a node is computed from, once each."""
    seen, pending = set(), [node]
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        node = node.settled()
        if node.arguments:
            pending += node.arguments
        else:
            yield node


def site_of_draw(node: Node) -> str:
    """The line of the code that draws some of its values; empty if it is unknown, or nothing is drawn."""
    sites = (leaf.drawing.site for leaf in leaves(node) if isinstance(leaf, Draw))
    return next((str(site) for site in sites if site is not None and str(site)), "")


def located(problem: Problem, site: object) -> Problem:
    """A problem with its line of the code."""
    return dataclasses.replace(problem, site=site)


def with_dtype(node: Node, dtype: DType) -> Node:
    """The same numbers, relabelled with a dtype that holds them all."""
    return dataclasses.replace(node, dtype=dtype)


def scalar(node: Node) -> Node:
    """A constant without dimensions, which broadcasts; any other node as it is."""
    return dataclasses.replace(node, shape=()) if isinstance(node, Full) else node
