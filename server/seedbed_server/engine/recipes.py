"""Recipes: validates tensors made of parts, literals and expressions, and resolves them to plans.

A recipe within a tensor is itself a tensor with a shape, a dtype and a stream, and is described as one. This module
adds where its elements go; backends follow its `Plan`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seedbed.v1 import (
    DATA_TYPE_FLOAT32,
    DATA_TYPE_FLOAT64,
    Assembly,
    DataType,
    Function,
    Law,
    Literal,
    Part,
    Parts,
    Recipe,
    Reducer,
    Reduction,
    Step,
    TensorDescription,
    TensorSpec,
    View,
)

from . import delta, dtypes
from .errors import InvalidSpec
from .regions import check_region
from .stream import name_hashed
from .views import Box, broadcast, check_dimensions, check_injective, checked, region_box, whole

MAX_PARTS = 4096
"""The most parts of a tensor, nested ones included; each chunk is compared with all of them."""

MAX_STEPS = 10_000
"""The most steps of a tensor, in all of its expressions together."""

MAX_DEPTH = 16
"""The deepest nesting of recipes."""

KINDS = ("parts", "literal", "expression", "delta_orthogonal")
"""The schemes that this module resolves."""

_WITHOUT_DRAWS = ("ones", "zeros", "constant", "eye", "dirac", "literal", None)  # use no random words
_COMPOSITE = ("parts", "expression")

_TWO = "ADD SUBTRACT MULTIPLY DIVIDE MINIMUM MAXIMUM LESS LESS_EQUAL EQUAL POWER"
_ARITY: dict[int, int] = {
    **{number: 1 for name, number in Function.items() if number},
    **{Function.Value(f"FUNCTION_{name}"): 2 for name in _TWO.split()},
    Function.FUNCTION_CLAMP: 3,
    Function.FUNCTION_WHERE: 3,
}


class Inner(NamedTuple):
    """A nested recipe, described as a tensor, and its plan if it is itself one of `KINDS`."""

    description: TensorDescription
    plan: Plan | None


Describe = Callable[[TensorDescription, str], "Plan | None"]
"""Completes the description of a recipe, of which only the spec is set; its path in errors is the second argument."""


class PlacedPart(NamedTuple):
    """A part: a box of a tensor and the recipe that fills it."""

    box: Box
    source: Box
    """The recipe's tensor, broadcast to the box."""
    inner: TensorDescription
    plan: Plan | None
    """The plan of the recipe."""


class Leaf(NamedTuple):
    """A step that is a recipe."""

    inner: TensorDescription
    plan: Plan | None


class Number(NamedTuple):
    """A step that is a constant."""

    value: float


class Applied(NamedTuple):
    """A step that applies a function; boxes broadcast the arguments, None where the shape already matches."""

    function: Function
    boxes: tuple[Box | None, ...]


class Viewed(NamedTuple):
    """A step that is a view."""

    box: Box


class Assembled(NamedTuple):
    """A step that assembles arguments: the box of each, and the argument broadcast to that box."""

    boxes: tuple[tuple[Box, Box], ...]


class Reduced(NamedTuple):
    """A step that reduces: ``order`` puts the kept axes first; ``group`` elements are reduced to one."""

    reducer: Reducer
    p: float
    order: Box
    group: int


class Cast(NamedTuple):
    """A step that rounds to a dtype."""

    dtype: DataType


class Node(NamedTuple):
    """A step of an expression."""

    shape: tuple[int, ...]
    made: Leaf | Number | Applied | Viewed | Assembled | Reduced | Cast
    arguments: tuple[int, ...]


class PartsPlan(NamedTuple):
    """Parts; where they overlap, the last one counts."""

    parts: tuple[PlacedPart, ...]


class LiteralPlan(NamedTuple):
    """The values of a literal."""

    values: NDArray[Any]


class ExpressionPlan(NamedTuple):
    """The steps, and the last one broadcast to the tensor's shape."""

    nodes: tuple[Node, ...]
    result: Box


Plan = PartsPlan | LiteralPlan | ExpressionPlan


def named(spec: TensorSpec, field: str) -> TensorSpec:
    """A copy of the spec, as parts, a literal or an expression, in which every random recipe names its stream.

    Args:
        spec: A tensor whose scheme is one of `KINDS`.
        field: The path of the spec in errors.

    Raises:
        InvalidSpec: There are too many recipes, or they are nested too deeply.
    """
    full = TensorSpec()
    full.CopyFrom(spec)
    delta.expand(full, field)
    _Naming().name(full, _Streams(name_hashed(spec)), field, 0)
    return full


class _Streams:
    """Numbers the streams of a name; the first random recipe uses the name itself."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0

    def next(self) -> str:
        number, self._count = self._count, self._count + 1
        return f"{self._name}#{number}" if number else self._name


class _Naming:
    """Names the streams of recipes, and counts parts and steps."""

    def __init__(self) -> None:
        self._parts = self._steps = 0

    def name(self, recipe: TensorSpec | Recipe, streams: _Streams, field: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise InvalidSpec(
                field, f"is nested {depth} recipes deep, over the limit of {MAX_DEPTH}; merge some of them"
            )
        self._parts += len(recipe.parts.parts)
        self._steps += len(recipe.expression.steps)
        for count, most, what in ((self._parts, MAX_PARTS, "parts"), (self._steps, MAX_STEPS, "steps")):
            if count > most:
                raise InvalidSpec(field, f"brings the tensor to {count} {what}, over the limit of {most}; use fewer")
        for inner, path in _recipes_within(recipe, field):
            self._name_inner(inner, streams, path, depth + 1)

    def _name_inner(self, recipe: Recipe, streams: _Streams, field: str, depth: int) -> None:
        if recipe.stream:
            streams = _Streams(recipe.stream)
        scheme = recipe.WhichOneof("scheme")
        if scheme in _COMPOSITE:
            self.name(recipe, streams, field, depth)
        elif scheme not in _WITHOUT_DRAWS:
            recipe.stream = streams.next()


def _recipes_within(recipe: TensorSpec | Recipe, field: str) -> Iterator[tuple[Recipe, str]]:
    for index, part in enumerate(recipe.parts.parts):
        yield part.recipe, f"{field}.parts.parts[{index}].recipe"
    for index, step in enumerate(recipe.expression.steps):
        if step.WhichOneof("value") == "recipe":
            yield step.recipe, f"{field}.expression.steps[{index}].recipe"


def literal_bytes(recipe: TensorSpec | Recipe) -> int:
    """The total size of all literals."""
    if recipe.WhichOneof("scheme") not in KINDS:
        return 0
    return len(recipe.literal.data) + sum(literal_bytes(inner) for inner, _ in _recipes_within(recipe, ""))


def inner_tensors(plan: Plan | None) -> Iterator[Inner]:
    """The recipes directly within a plan."""
    if isinstance(plan, PartsPlan):
        yield from (Inner(part.inner, part.plan) for part in plan.parts)
    elif isinstance(plan, ExpressionPlan):
        yield from (Inner(node.made.inner, node.made.plan) for node in plan.nodes if isinstance(node.made, Leaf))


_REDUCED_PER_ELEMENT: Final = 8
"""Reducing this many elements takes far less time than one element of an orthogonal matrix."""


def whole_elements(inner: Inner) -> int:
    """The cost that a region does not reduce: elements of orthogonal matrices, and an eighth of those reduced."""
    description, plan = inner
    if description.law.WhichOneof("law") == "orthogonal":
        return math.prod(description.spec.shape)
    nodes = plan.nodes if isinstance(plan, ExpressionPlan) else ()
    reduced = sum(node.made.order.size for node in nodes if isinstance(node.made, Reduced))
    return -(-reduced // _REDUCED_PER_ELEMENT) + sum(map(whole_elements, inner_tensors(plan)))


def resolve(spec: TensorSpec, field: str, describe: Describe) -> Plan:
    """Validates a tensor whose scheme is one of `KINDS`, and resolves it to a plan.

    Args:
        spec: The result of `named`; its shape and dtype are valid.
        field: The path of the spec in errors.
        describe: Describes a nested recipe.

    Raises:
        InvalidSpec: The recipe is invalid.
    """
    return _PLANNERS[spec.WhichOneof("scheme")](spec, field, describe)


def law_of(plan: Plan, spec: TensorSpec) -> Law:
    """The plan as a message: with laws in place of schemes, and without the data of literals."""
    if isinstance(plan, LiteralPlan):
        return Law(literal=Literal())
    if isinstance(plan, PartsPlan):
        law = Law(parts=Parts(parts=[Part() for _ in plan.parts]))
        for message, source, part in zip(law.parts.parts, spec.parts.parts, plan.parts, strict=True):
            if box := source.WhichOneof("box"):
                getattr(message, box).CopyFrom(getattr(source, box))
            message.recipe.CopyFrom(_law_recipe(part.inner))
        return law
    law = Law(expression=spec.expression)
    for step, node in zip(law.expression.steps, plan.nodes, strict=True):
        if isinstance(node.made, Leaf):
            step.recipe.CopyFrom(_law_recipe(node.made.inner))
    return law


def _law_recipe(inner: TensorDescription) -> Recipe:
    recipe = Recipe(stream=inner.spec.name, shape=inner.spec.shape, dtype=inner.spec.dtype)
    kind = inner.law.WhichOneof("law")
    getattr(recipe, kind).CopyFrom(getattr(inner.law, kind))
    return recipe


def _inner(
    recipe: Recipe, spec: TensorSpec, shape: tuple[int, ...], dtype: DataType, field: str, describe: Describe
) -> Inner:
    """A nested recipe, described as a tensor."""
    scheme = recipe.WhichOneof("scheme")
    if scheme is None:
        raise InvalidSpec(f"{field}.scheme", "no scheme is set; set one, such as normal, constant or parts")
    description = TensorDescription()
    tensor = description.spec
    tensor.name = recipe.stream
    tensor.shape.extend(recipe.shape or shape)
    tensor.dtype = recipe.dtype or dtype
    tensor.seed = spec.seed
    tensor.algorithm_version = spec.algorithm_version
    getattr(tensor, scheme).CopyFrom(getattr(recipe, scheme))
    return Inner(description, describe(description, field))


# Parts.


def _plan_parts(spec: TensorSpec, field: str, describe: Describe) -> PartsPlan:
    parts = spec.parts.parts
    return PartsPlan(tuple(_placed(part, spec, f"{field}.parts.parts[{i}]", describe) for i, part in enumerate(parts)))


def _placed(part: Part, spec: TensorSpec, field: str, describe: Describe) -> PlacedPart:
    box = _box(part, spec, field)
    if not part.HasField("recipe"):
        raise InvalidSpec(f"{field}.recipe", "is missing; give the recipe of the part, such as a normal or a constant")
    inner = _inner(part.recipe, spec, box.shape, spec.dtype, f"{field}.recipe", describe)
    _check_part(part.recipe, inner.description.spec.dtype, spec.dtype, f"{field}.recipe.dtype")
    shape = tuple(inner.description.spec.shape)
    return PlacedPart(box, _broadcast(shape, box.shape, f"{field}.recipe.shape", "the part"), *inner)


def _check_part(recipe: Recipe, dtype: DataType, of: DataType, field: str) -> None:
    """Refuses complex numbers in a real tensor, and random real numbers in a complex tensor."""
    if dtypes.is_complex(dtype) and not dtypes.is_complex(of):
        raise InvalidSpec(
            field, "is complex64, but the tensor's dtype is real; give a real dtype, or make the tensor complex64"
        )
    if not dtypes.is_complex(dtype) and dtypes.is_complex(of) and recipe.WhichOneof("scheme") not in _WITHOUT_DRAWS:
        raise InvalidSpec(field, "is real, but the tensor is complex64; omit the dtype")


def _box(part: Part, spec: TensorSpec, field: str) -> Box:
    kind = part.WhichOneof("box")
    if kind == "region":
        check_region(part.region, spec.shape[:], f"{field}.region")
        return region_box(part.region, spec.shape)
    if kind == "view":
        box = checked(part.view, math.prod(spec.shape), f"{field}.view")
        check_injective(box, f"{field}.view")
        return box
    return whole(spec.shape)


def _broadcast(shape: tuple[int, ...], to: tuple[int, ...], field: str, what: str) -> Box:
    box = broadcast(shape, to)
    if box is None:
        raise InvalidSpec(
            field, f"{list(shape)} cannot be broadcast to {list(to)}, the shape of {what}; give equal sizes or 1"
        )
    return box


# Literals.


def _plan_literal(spec: TensorSpec, field: str, _describe: Describe) -> LiteralPlan:
    dtype, data = dtypes.numpy_dtype(spec.dtype), spec.literal.data
    if len(data) != (size := math.prod(spec.shape) * dtype.itemsize):
        raise InvalidSpec(
            f"{field}.literal.data",
            f"has {len(data)} bytes, but shape {spec.shape[:]} of {dtype} takes {size}; give each element once",
        )
    values = np.frombuffer(data, dtype.newbyteorder("<") if dtype.kind in "fc" else dtype)
    is_finite = np.isfinite(values if dtype.kind == "c" else values.astype(np.float64))
    if not is_finite.all():
        first = int(np.argmin(is_finite))
        raise InvalidSpec(f"{field}.literal.data", f"element {first} is {values[first]}; give finite numbers")
    return LiteralPlan(values)


# Expressions.


def _plan_expression(spec: TensorSpec, field: str, describe: Describe) -> ExpressionPlan:
    _check_real(spec.dtype, f"{field}.dtype")
    field = f"{field}.expression"
    if not spec.expression.steps:
        raise InvalidSpec(f"{field}.steps", "has no steps; give at least one; the last one is the tensor")
    nodes: list[Node] = []
    for index, step in enumerate(spec.expression.steps):
        nodes.append(_Checked(spec, nodes, f"{field}.steps[{index}]", describe).node(step))
    result = _broadcast(nodes[-1].shape, tuple(spec.shape), f"{field}.steps[{len(nodes) - 1}]", "the tensor")
    return ExpressionPlan(tuple(nodes), result)


def _check_real(dtype: DataType, field: str) -> None:
    if dtypes.is_complex(dtype):
        raise InvalidSpec(field, "is complex64, but expressions compute with real numbers; give a real dtype")


class _Checked:
    """Checks one step against those before it."""

    def __init__(self, spec: TensorSpec, nodes: list[Node], field: str, describe: Describe) -> None:
        self._spec = spec
        self._nodes = nodes
        self._field = field
        self._describe = describe

    def node(self, step: Step) -> Node:
        kind = step.WhichOneof("value")
        if kind is None:
            raise InvalidSpec(self._field, "has no value; set one, such as a recipe, a constant or a function")
        arguments = tuple(step.arguments)
        for number, argument in enumerate(arguments):
            if argument >= len(self._nodes):
                raise InvalidSpec(
                    f"{self._field}.arguments[{number}]",
                    f"is step {argument}, which does not come before step {len(self._nodes)}; use earlier steps only",
                )
        shape, made = getattr(self, f"_{kind}")(getattr(step, kind), arguments)
        if math.prod(filter(None, shape)) >= 2**60:
            raise InvalidSpec(self._field, f"{list(shape)} has more than 2^60 elements; give a smaller shape")
        return Node(shape, made, arguments)

    def _expect(self, arguments: tuple[int, ...], count: int, what: str) -> list[tuple[int, ...]]:
        if len(arguments) != count:
            raise InvalidSpec(
                f"{self._field}.arguments", f"{what} takes {count} argument{'s' * (count != 1)}, not {len(arguments)}"
            )
        return [self._nodes[argument].shape for argument in arguments]

    def _recipe(self, recipe: Recipe, arguments: tuple[int, ...]) -> tuple[tuple[int, ...], Leaf]:
        self._expect(arguments, 0, "a recipe")
        spec = self._spec
        dtype = DATA_TYPE_FLOAT64 if spec.dtype == DATA_TYPE_FLOAT64 else DATA_TYPE_FLOAT32
        inner = _inner(recipe, spec, tuple(spec.shape), dtype, f"{self._field}.recipe", self._describe)
        _check_real(inner.description.spec.dtype, f"{self._field}.recipe.dtype")
        return tuple(inner.description.spec.shape), Leaf(*inner)

    def _constant(self, value: float, arguments: tuple[int, ...]) -> tuple[tuple[int, ...], Number]:
        self._expect(arguments, 0, "a constant")
        if not math.isfinite(value):
            raise InvalidSpec(f"{self._field}.constant", f"{value} is not finite; give a finite number")
        return (), Number(value)

    def _function(self, function: Function, arguments: tuple[int, ...]) -> tuple[tuple[int, ...], Applied]:
        if function not in _ARITY:
            raise InvalidSpec(f"{self._field}.function", f"{function} is not a known function; see Function")
        name = Function.Name(function).removeprefix("FUNCTION_").lower()
        shapes = self._expect(arguments, _ARITY[function], name)
        if function == Function.FUNCTION_DIVIDE and self._nodes[arguments[1]].made == Number(0.0):
            raise InvalidSpec(
                f"{self._field}.arguments[1]", "is the constant 0; division by zero is undefined, give another divisor"
            )
        try:
            shape = np.broadcast_shapes(*shapes)
        except ValueError:
            listed = " and ".join(str(list(shape)) for shape in shapes)
            raise InvalidSpec(
                f"{self._field}.arguments", f"have shapes {listed}, which cannot be broadcast; give equal sizes or 1"
            ) from None
        return shape, Applied(function, tuple(None if s == shape else broadcast(s, shape) for s in shapes))

    def _view(self, view: View, arguments: tuple[int, ...]) -> tuple[tuple[int, ...], Viewed]:
        [shape] = self._expect(arguments, 1, "a view")
        box = checked(view, math.prod(shape), f"{self._field}.view")
        return box.shape, Viewed(box)

    def _assembly(self, assembly: Assembly, arguments: tuple[int, ...]) -> tuple[tuple[int, ...], Assembled]:
        field, shape = f"{self._field}.assembly", tuple(assembly.shape)
        shapes = self._expect(arguments, len(assembly.boxes), f"an assembly of {len(assembly.boxes)} boxes")
        check_dimensions(shape, f"{field}.shape")
        boxes = []
        for index, (view, argument) in enumerate(zip(assembly.boxes, shapes, strict=True)):
            box = checked(view, math.prod(shape), f"{field}.boxes[{index}]")
            check_injective(box, f"{field}.boxes[{index}]")
            boxes.append((box, _broadcast(argument, box.shape, f"{self._field}.arguments[{index}]", "the box")))
        return shape, Assembled(tuple(boxes))

    def _reduction(self, reduction: Reduction, arguments: tuple[int, ...]) -> tuple[tuple[int, ...], Reduced]:
        [shape] = self._expect(arguments, 1, "a reduction")
        field = f"{self._field}.reduction"
        if reduction.reducer not in Reducer.values()[1:]:
            raise InvalidSpec(f"{field}.reducer", f"{reduction.reducer} is not a known reducer; see Reducer")
        p = reduction.p if reduction.HasField("p") else 2.0
        if not 0 < p < math.inf:
            raise InvalidSpec(f"{field}.p", f"{p} is not a finite number above 0; give one, or reduce by a maximum")
        axes = self._axes(reduction, len(shape), f"{field}.axes")
        count = math.prod(shape[axis] for axis in axes)
        if not count:
            raise InvalidSpec(field, f"has no elements along axes {axes} of {list(shape)}; reduce other axes")
        strides = whole(shape).strides
        order = [axis for axis in range(len(shape)) if axis not in axes] + axes
        box = Box(tuple(shape[axis] for axis in order), tuple(strides[axis] for axis in order))
        kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
        return kept, Reduced(reduction.reducer, p, box, count)

    def _axes(self, reduction: Reduction, rank: int, field: str) -> list[int]:
        for axis in reduction.axes:
            if not -rank <= axis < rank:
                raise InvalidSpec(field, f"axis {axis} is outside a shape of {rank} dimensions")
        axes = sorted({axis % rank for axis in reduction.axes})
        if len(axes) < len(reduction.axes):
            raise InvalidSpec(field, f"{reduction.axes[:]} name an axis twice; name each axis once")
        return axes or list(range(rank))

    def _cast(self, dtype: DataType, arguments: tuple[int, ...]) -> tuple[tuple[int, ...], Cast]:
        [shape] = self._expect(arguments, 1, "a cast")
        if not dtypes.is_known(dtype):
            raise InvalidSpec(f"{self._field}.cast", f"unknown dtype {dtype}; use one of {dtypes.LISTED}")
        _check_real(dtype, f"{self._field}.cast")
        return shape, Cast(dtype)


_PLANNERS: dict[Any, Callable[[TensorSpec, str, Describe], Plan]] = {
    "parts": _plan_parts,
    "literal": _plan_literal,
    "expression": _plan_expression,
}
