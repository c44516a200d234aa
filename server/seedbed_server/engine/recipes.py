"""Recipes: tensors made of boxes, of given values, and of expressions, validated and resolved.

Every recipe within a tensor is a tensor of its own, with its own shape, dtype and stream, and is described as one. What
this module adds is where its elements go: a `Plan` is what backends follow.
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
"""Of a tensor, with those of its parts: each chunk looks at all of them."""

MAX_STEPS = 10_000
"""Of a tensor, in all of its expressions."""

MAX_DEPTH = 16
"""Of recipes within recipes."""

KINDS = ("parts", "literal", "expression", "delta_orthogonal")
"""The schemes that this module resolves."""

_CERTAIN = ("ones", "zeros", "constant", "eye", "dirac", "literal", None)  # they draw nothing
_COMPOSITE = ("parts", "expression")

_TWO = "ADD SUBTRACT MULTIPLY DIVIDE MINIMUM MAXIMUM LESS LESS_EQUAL EQUAL POWER"
_ARITY: dict[int, int] = {
    **{number: 1 for name, number in Function.items() if number},
    **{Function.Value(f"FUNCTION_{name}"): 2 for name in _TWO.split()},
    Function.FUNCTION_CLAMP: 3,
    Function.FUNCTION_WHERE: 3,
}


class Inner(NamedTuple):
    """A recipe within, as a tensor of its own, and what that is made of if it is made of others."""

    description: TensorDescription
    plan: Plan | None


Describe = Callable[[TensorDescription, str], "Plan | None"]
"""Completes the description of a recipe, of which only the spec is set; its path in errors is the second argument."""


class PlacedPart(NamedTuple):
    """A box of a tensor, and what goes into it."""

    box: Box
    source: Box
    """The box's elements among the recipe's."""
    inner: TensorDescription
    plan: Plan | None
    """Of what is within."""


class Leaf(NamedTuple):
    """A step that is a recipe."""

    inner: TensorDescription
    plan: Plan | None


class Number(NamedTuple):
    """A step that is a constant."""

    value: float


class Applied(NamedTuple):
    """A step that is a function; of arguments seen through boxes of the step's shape, None if they have it."""

    function: Function
    boxes: tuple[Box | None, ...]


class Viewed(NamedTuple):
    """A step that is a view."""

    box: Box


class Assembled(NamedTuple):
    """A step that puts arguments together: the box of each, and its elements among the argument's."""

    boxes: tuple[tuple[Box, Box], ...]


class Reduced(NamedTuple):
    """A step that reduces: the argument with the axes that stay first, and how many elements make one."""

    reducer: Reducer
    p: float
    order: Box
    group: int


class Cast(NamedTuple):
    """A step that rounds."""

    dtype: DataType


class Node(NamedTuple):
    """A step of an expression."""

    shape: tuple[int, ...]
    made: Leaf | Number | Applied | Viewed | Assembled | Reduced | Cast
    arguments: tuple[int, ...]


class PartsPlan(NamedTuple):
    """Boxes, of which the last counts."""

    parts: tuple[PlacedPart, ...]


class LiteralPlan(NamedTuple):
    """Values."""

    values: NDArray[Any]


class ExpressionPlan(NamedTuple):
    """Steps, and the last one's elements in the tensor's shape."""

    nodes: tuple[Node, ...]
    result: Box


Plan = PartsPlan | LiteralPlan | ExpressionPlan


def named(spec: TensorSpec, field: str) -> TensorSpec:
    """The spec as parts, a literal or an expression, in which each recipe that draws has the stream that names it.

    Args:
        spec: Made by one of `KINDS`.
        field: Its path.

    Raises:
        InvalidSpec: There are too many recipes, or they are too deep.
    """
    full = TensorSpec()
    full.CopyFrom(spec)
    delta.expand(full, field)
    _Naming().name(full, _Streams(name_hashed(spec)), field, 0)
    return full


class _Streams:
    """Gives out the streams of a name: the first recipe that draws takes the name's own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._given = 0

    def next(self) -> str:
        number, self._given = self._given, self._given + 1
        return f"{self._name}#{number}" if number else self._name


class _Naming:
    """Names the streams of recipes, and counts what there is."""

    def __init__(self) -> None:
        self._parts = self._steps = 0

    def name(self, recipe: TensorSpec | Recipe, streams: _Streams, field: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise InvalidSpec(field, f"lies {depth} recipes deep, over the limit of {MAX_DEPTH}; join some of them")
        self._parts += len(recipe.parts.parts)
        self._steps += len(recipe.expression.steps)
        for count, most, what in ((self._parts, MAX_PARTS, "parts"), (self._steps, MAX_STEPS, "steps")):
            if count > most:
                raise InvalidSpec(field, f"brings the tensor to {count} {what}, over the limit of {most}; give fewer")
        for inner, path in _recipes_within(recipe, field):
            self._name_inner(inner, streams, path, depth + 1)

    def _name_inner(self, recipe: Recipe, streams: _Streams, field: str, depth: int) -> None:
        if recipe.stream:
            streams = _Streams(recipe.stream)
        scheme = recipe.WhichOneof("scheme")
        if scheme in _COMPOSITE:
            self.name(recipe, streams, field, depth)
        elif scheme not in _CERTAIN:
            recipe.stream = streams.next()


def _recipes_within(recipe: TensorSpec | Recipe, field: str) -> Iterator[tuple[Recipe, str]]:
    for index, part in enumerate(recipe.parts.parts):
        yield part.recipe, f"{field}.parts.parts[{index}].recipe"
    for index, step in enumerate(recipe.expression.steps):
        if step.WhichOneof("value") == "recipe":
            yield step.recipe, f"{field}.expression.steps[{index}].recipe"


def literal_bytes(recipe: TensorSpec | Recipe) -> int:
    """The bytes of all literals."""
    if recipe.WhichOneof("scheme") not in KINDS:
        return 0
    return len(recipe.literal.data) + sum(literal_bytes(inner) for inner, _ in _recipes_within(recipe, ""))


def inner_tensors(plan: Plan | None) -> Iterator[Inner]:
    """The recipes within."""
    if isinstance(plan, PartsPlan):
        yield from (Inner(part.inner, part.plan) for part in plan.parts)
    elif isinstance(plan, ExpressionPlan):
        yield from (Inner(node.made.inner, node.made.plan) for node in plan.nodes if isinstance(node.made, Leaf))


_CHEAPER: Final = 8
"""Elements that are reduced in less time than one of an orthogonal matrix takes, by far."""


def whole_elements(inner: Inner) -> int:
    """How many elements are computed whatever the region: of orthogonal matrices, and an eighth of what is reduced."""
    description, plan = inner
    if description.law.WhichOneof("law") == "orthogonal":
        return math.prod(description.spec.shape)
    nodes = plan.nodes if isinstance(plan, ExpressionPlan) else ()
    reduced = sum(node.made.order.size for node in nodes if isinstance(node.made, Reduced))
    return -(-reduced // _CHEAPER) + sum(map(whole_elements, inner_tensors(plan)))


def resolve(spec: TensorSpec, field: str, describe: Describe) -> Plan:
    """Validates what a tensor of one of `KINDS` is made of.

    Args:
        spec: As `named` gives it; its shape and dtype are valid.
        field: Its path.
        describe: Describes a recipe within as a tensor of its own.

    Raises:
        InvalidSpec: Something does not fit.
    """
    return _PLANNERS[spec.WhichOneof("scheme")](spec, field, describe)


def law_of(plan: Plan, spec: TensorSpec) -> Law:
    """The plan as a message: with laws for schemes, and without literals' data."""
    if isinstance(plan, LiteralPlan):
        return Law(literal=Literal())
    if isinstance(plan, PartsPlan):
        law = Law(parts=Parts(parts=[Part() for _ in plan.parts]))
        for message, given, part in zip(law.parts.parts, spec.parts.parts, plan.parts, strict=True):
            if box := given.WhichOneof("box"):
                getattr(message, box).CopyFrom(getattr(given, box))
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
    """A recipe, described as a tensor of its own."""
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
        raise InvalidSpec(f"{field}.recipe", "is missing; say what the part holds, such as a normal or a constant")
    inner = _inner(part.recipe, spec, box.shape, spec.dtype, f"{field}.recipe", describe)
    _check_part(part.recipe, inner.description.spec.dtype, spec.dtype, f"{field}.recipe.dtype")
    shape = tuple(inner.description.spec.shape)
    return PlacedPart(box, _broadcast(shape, box.shape, f"{field}.recipe.shape", "the part"), *inner)


def _check_part(recipe: Recipe, dtype: DataType, of: DataType, field: str) -> None:
    """Refuses complex numbers in a real tensor, and real ones that are drawn in a complex tensor."""
    if dtypes.is_complex(dtype) and not dtypes.is_complex(of):
        raise InvalidSpec(field, "is complex64, but the tensor's dtype is real; give a real one, or a complex tensor")
    if not dtypes.is_complex(dtype) and dtypes.is_complex(of) and recipe.WhichOneof("scheme") not in _CERTAIN:
        raise InvalidSpec(field, "is real, but the tensor is complex64; leave it out")


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
            field, f"{list(shape)} cannot be broadcast to {list(to)}, the shape of {what}; give 1 or the same sizes"
        )
    return box


# Literals.


def _plan_literal(spec: TensorSpec, field: str, _describe: Describe) -> LiteralPlan:
    dtype, data = dtypes.numpy_dtype(spec.dtype), spec.literal.data
    if len(data) != (size := math.prod(spec.shape) * dtype.itemsize):
        raise InvalidSpec(
            f"{field}.literal.data",
            f"has {len(data)} bytes, but shape {spec.shape[:]} of {dtype} takes {size}; give every element once",
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
        raise InvalidSpec(f"{field}.steps", "has no steps; give at least one, which is the tensor")
    nodes: list[Node] = []
    for index, step in enumerate(spec.expression.steps):
        nodes.append(_Checked(spec, nodes, f"{field}.steps[{index}]", describe).node(step))
    result = _broadcast(nodes[-1].shape, tuple(spec.shape), f"{field}.steps[{len(nodes) - 1}]", "the tensor")
    return ExpressionPlan(tuple(nodes), result)


def _check_real(dtype: DataType, field: str) -> None:
    if dtypes.is_complex(dtype):
        raise InvalidSpec(field, "is complex64, but expressions are of real numbers; give a real dtype")


class _Checked:
    """Checks one step, given those before it."""

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
                    f"is step {argument}, which does not come before this one, {len(self._nodes)}; there are no loops",
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
            raise InvalidSpec(f"{self._field}.function", f"{function} is no function that is known here; see Function")
        name = Function.Name(function).removeprefix("FUNCTION_").lower()
        shapes = self._expect(arguments, _ARITY[function], name)
        if function == Function.FUNCTION_DIVIDE and self._nodes[arguments[1]].made == Number(0.0):
            raise InvalidSpec(f"{self._field}.arguments[1]", "is the constant 0, by which nothing can be divided")
        try:
            shape = np.broadcast_shapes(*shapes)
        except ValueError:
            listed = " and ".join(str(list(shape)) for shape in shapes)
            raise InvalidSpec(
                f"{self._field}.arguments", f"have shapes {listed}, which cannot be broadcast; give 1 or the same sizes"
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
            raise InvalidSpec(f"{field}.reducer", f"{reduction.reducer} is no reducer that is known here; see Reducer")
        p = reduction.p if reduction.HasField("p") else 2.0
        if not 0 < p < math.inf:
            raise InvalidSpec(f"{field}.p", f"{p} is not a finite number above 0; give one, or use a maximum")
        axes = self._axes(reduction, len(shape), f"{field}.axes")
        count = math.prod(shape[axis] for axis in axes)
        if not count:
            raise InvalidSpec(field, f"has no elements along axes {axes} of {list(shape)}; reduce others")
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
            raise InvalidSpec(field, f"{reduction.axes[:]} name an axis twice; name each once")
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
