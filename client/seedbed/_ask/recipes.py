"""Recipes as messages: `seedbed.spec` of Values and of tensors in parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

from seedbed import dtypes, v1
from seedbed._ask import arguments as _arguments
from seedbed._ask import regions, schemes, values
from seedbed._ask.values import Value, ValueLike, as_value
from seedbed._types import RegionLike, Shape
from seedbed.errors import InvalidRequest
from seedbed.v1 import Recipe, Region, Step, TensorSpec, View

_MAX_PARTS = 4096
_MAX_STEPS = 10_000


class Box(NamedTuple):
    """A box of a tensor, possibly reshaped or permuted first; made by `box`."""

    region: RegionLike | None
    reshape: Shape | None
    permute: Iterable[SupportsIndex] | None


Place: TypeAlias = "RegionLike | View | Box | None"
Content: TypeAlias = "ValueLike | Parts"


@dataclass(frozen=True, eq=False, slots=True)
class Parts:
    """A tensor in parts; made by `parts`."""

    _boxes: tuple[tuple[Place, Value | Parts], ...]


def box(
    region: RegionLike | None = None, *, reshape: Shape | None = None, permute: Iterable[SupportsIndex] | None = None
) -> Box:
    """A box of a reshaped or permuted tensor, for `parts`.

    Args:
        region: The box, as ``np.s_[...]`` slices of the reshaped and permuted tensor; default all of it.
        reshape: The shape to which the tensor is reshaped; default its own.
        permute: The order of the reshaped tensor's axes; default unchanged.

    >>> import numpy as np, seedbed
    >>> heads = seedbed.box(np.s_[:, 0:1], reshape=(4, 3, 2, 16))
    >>> message = seedbed.spec(seedbed.parts([(heads, 1.0)]), (24, 16))
    >>> message.parts.parts[0].view.shape, message.parts.parts[0].view.strides
    ([4, 1, 2, 16], [96, 32, 16, 1])
    """
    return Box(region, reshape, permute if permute is None else tuple(permute))


def parts(boxes: Iterable[tuple[Place, Content]]) -> Parts:
    """A tensor in parts, for `spec`.

    Where boxes overlap, the last one wins. Elements outside all boxes are 0.

    Args:
        boxes: Pairs of a place and its content. A place is ``np.s_[...]`` slices of the tensor, None for all of it, a
            `box` of the reshaped tensor, or a message. A content is a `Value`, a number, an array, or the message of
            another tensor: so a fused matrix holds the same values as the separate ones.

    Raises:
        InvalidRequest: There are too many parts, or one is invalid.

    >>> import numpy as np, seedbed
    >>> wq = seedbed.spec("normal", (2, 4), std=0.02, name="wq", seed=7)
    >>> fused = seedbed.spec(seedbed.parts([(np.s_[:2], wq), (np.s_[2:], 1.0)]), (3, 4), name="wqkv", seed=7)
    >>> with seedbed.connect("local:") as client:
    ...     bool((client.init(fused)[:2] == client.init(wq)).all())
    True
    """
    pairs = []
    for number, pair in enumerate(boxes):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise InvalidRequest(f"spec.parts[{number}]", f"{pair!r} is not a pair; give (place, content)")
        place, content = pair
        pairs.append((place, content if isinstance(content, Parts) else as_value(content)))
    if len(pairs) > _MAX_PARTS:
        raise InvalidRequest("spec.parts", f"has {len(pairs)} parts, over the limit of {_MAX_PARTS}; join some")
    return Parts(tuple(pairs))


def spec(scheme: str | Content, shape: Shape | None = None, **parameters: object) -> TensorSpec:
    """The message for a tensor, which `Client.init`, `Client.describe` and `Client.init_model` take.

    Args:
        scheme: One of `seedbed.SCHEMES`; or `parts`, a `Value`, or a number, an array or a message that becomes one.
        shape: The global shape; default the Value's.
        **parameters: The parameters of the scheme's method, and ``seed``, ``name``, ``dtype``, ``algorithm_version``
            and ``stream``. The default dtype is that of a draw, an array or a tensor which has one, else float32.

    Raises:
        InvalidRequest: The scheme is unknown, a message cannot carry a parameter, or shapes do not match.
        TypeError: The scheme has no such parameter.

    >>> import seedbed
    >>> seedbed.spec("normal", (4096, 4096), std=0.02, seed=7, name="wte.weight").normal.std
    0.02
    >>> steps = seedbed.spec(0.02 * seedbed.draw("normal"), (4, 4), name="w").expression.steps
    >>> [step.WhichOneof("value") for step in steps]
    ['constant', 'recipe', 'function']
    """
    if isinstance(scheme, str):
        return schemes.spec(scheme, shape, **parameters)  # type: ignore[arg-type]  # which refuses None
    content = scheme if isinstance(scheme, Parts) else as_value(scheme)
    if shape is None:
        shape = None if isinstance(content, Parts) else content._shape
        if shape is None:
            raise InvalidRequest("spec.shape", "does not follow from the recipe; give it")
    if isinstance(content, Value) and content._step.HasField("recipe") and content._step.recipe.dtype:
        parameters.setdefault("dtype", dtypes.name_of(content._step.recipe.dtype))
    message = schemes.spec("zeros", shape, **parameters)
    sizes = tuple(message.shape)
    if min(sizes, default=0) < 0:
        raise InvalidRequest("spec.shape", f"{list(sizes)} has a negative size; give 0 or more")
    if isinstance(content, Value) and values.is_scheme(content, "literal"):
        content = values.literal_as(values.literal_array(content), message.dtype)
    recipe = _recipe(content, sizes, message, "spec")
    if isinstance(content, Value) and (recipe.shape or recipe.dtype):
        recipe = Recipe(expression=_expression(content, sizes, message, "spec"))
    name: Any = recipe.WhichOneof("scheme")
    getattr(message, name).CopyFrom(getattr(recipe, name))
    message.stream = recipe.stream or message.stream
    return message


def _check_fills(shape: tuple[int, ...], target: tuple[int, ...], field: str) -> None:
    """Refuse a value whose shape cannot be broadcast to that of the tensor or part."""
    missing = len(target) - len(shape)
    if missing < 0 or any(size not in (1, goal) for size, goal in zip(shape, target[missing:], strict=True)):
        raise InvalidRequest(field, f"the shape {shape} cannot be broadcast to {target}; reshape the value")


def _recipe(content: Value | Parts, shape: tuple[int, ...], tensor: TensorSpec, field: str) -> Recipe:
    """The recipe of a tensor or part of this shape; fields that equal its defaults stay unset."""
    if isinstance(content, Parts):
        inner = enumerate(content._boxes)
        return Recipe(parts=v1.Parts(parts=[_part(*pair, shape, tensor, f"{field}.parts[{n}]") for n, pair in inner]))
    kind = content._step.WhichOneof("value")
    if kind == "constant":
        return Recipe(constant=v1.Constant(val=content._step.constant))
    if kind != "recipe":
        return Recipe(expression=_expression(content, shape, tensor, field))
    _check_origin(content, tensor, field)
    recipe = Recipe()
    recipe.CopyFrom(content._step.recipe)
    if content._shape is not None:
        _check_fills(content._shape, shape, f"{field}.shape")
        del recipe.shape[:]
        if content._shape != shape:
            recipe.shape.extend(content._shape or (1,))  # an empty shape would mean the default
    if recipe.dtype == tensor.dtype:
        recipe.ClearField("dtype")
    return recipe


def _part(place: Place, content: Value | Parts, shape: tuple[int, ...], tensor: TensorSpec, field: str) -> v1.Part:
    if place is None:
        return v1.Part(recipe=_recipe(content, shape, tensor, field))
    if isinstance(place, Box):
        place = _view(place, shape, field)
    if isinstance(place, View):
        return v1.Part(view=place, recipe=_recipe(content, tuple(place.shape), tensor, field))
    region = _region(place, shape, f"{field}.region")
    extents = tuple(stop - start for start, stop in zip(region.start, region.stop, strict=True))
    return v1.Part(region=region, recipe=_recipe(content, extents, tensor, field))


def _region(place: RegionLike, shape: Sequence[int], field: str) -> Region:
    if isinstance(place, Region):
        if len(place.start) != len(place.stop):
            raise InvalidRequest(field, f"has {len(place.start)} starts and {len(place.stop)} stops; give one of each")
        place = tuple(map(slice, place.start, place.stop))
    else:
        place = place if isinstance(place, tuple) else (place,)
        if Ellipsis not in place and len(place) < len(shape):
            place = (*place, ...)  # omitted axes are complete, as in NumPy
    try:
        return regions.resolve(place, shape) or Region()
    except InvalidRequest as error:
        raise InvalidRequest(field, error.description) from None


def _view(box: Box, shape: tuple[int, ...], field: str) -> View:
    def change(array: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        if box.reshape is not None:
            array = array.reshape(_arguments.shape(box.reshape))
        if box.permute is not None:
            array = array.transpose(tuple(box.permute))
        region = _region(... if box.region is None else box.region, array.shape, f"{field}.region")
        slices: tuple[Any, ...] = (*map(slice, region.start, region.stop), ...)
        view: npt.NDArray[np.int8] = array[slices]
        return view

    try:
        return values.view_of(shape, change, f"{field}.view")
    except InvalidRequest as error:
        raise InvalidRequest(error.field.replace("spec.shape", f"{field}.view.shape"), error.description) from None


def _check_origin(value: Value, tensor: TensorSpec, field: str) -> None:
    """Refuse another tensor of a different seed or version: a recipe has those of its tensor."""
    origin = value._origin
    if origin is None:
        return
    if origin.seed != tensor.seed and origin.WhichOneof("scheme") not in values.DETERMINISTIC:
        raise InvalidRequest(
            f"{field}.seed",
            f"the tensor {origin.name!r} has the seed {origin.seed}, the tensor made of it {tensor.seed}; "
            "give both the same",
        )
    if origin.algorithm_version not in (0, tensor.algorithm_version):
        raise InvalidRequest(
            f"{field}.algorithm_version",
            f"the tensor {origin.name!r} has version {origin.algorithm_version}, the tensor made of it "
            f"{tensor.algorithm_version}; "
            "give both the same",
        )


def _expression(value: Value, shape: tuple[int, ...], tensor: TensorSpec, field: str) -> v1.Expression:
    """The steps of a Value in topological order, each once."""
    steps: list[Step] = []
    indices: dict[int, int] = {}  # of the last step of each Value, by the Value's id
    shapes: dict[int, tuple[int, ...]] = {}
    pending = [value]
    while pending:  # not recursive: Python limits the depth
        node = pending[-1]
        missing = [argument for argument in node._arguments if id(argument) not in indices]
        if missing:
            pending += reversed(missing)
            continue
        pending.pop()
        if id(node) in indices:
            continue
        _check_origin(node, tensor, field)
        if node._shape is not None:
            shapes[id(node)] = node._shape
        elif node._arguments:
            shapes[id(node)] = values.broadcast_shapes(
                [shapes[id(argument)] for argument in node._arguments], f"{field}.expression"
            )
        else:
            shapes[id(node)] = shape
        steps += _steps(node, [indices[id(argument)] for argument in node._arguments], len(steps))
        indices[id(node)] = len(steps) - 1
        if len(steps) > _MAX_STEPS:
            raise InvalidRequest(f"{field}.expression", f"has more than {_MAX_STEPS} steps; use fewer, larger Values")
    _check_fills(shapes[id(value)], shape, f"{field}.expression")
    return v1.Expression(steps=steps)


def _steps(node: Value, arguments: list[int], index: int) -> list[Step]:
    """The steps of one Value; the first gets this index."""
    step = Step(arguments=arguments)
    step.MergeFrom(node._step)
    if node._shape != () or not step.HasField("recipe"):
        return [step]
    if values.is_scheme(node, "literal"):
        return [Step(constant=float(values.literal_array(node)))]
    step.recipe.shape.append(1)  # an empty shape would mean the default
    return [step, Step(view=View(), arguments=[index])]
