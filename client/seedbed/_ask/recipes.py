"""Recipes: tensors as functions of draws and of given values, and tensors in parts.

A `Value` is a graph of steps, written as in NumPy; nothing is computed here. `spec` makes the message.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, ClassVar, NamedTuple, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

from seedbed import dtypes, v1
from seedbed._ask import arguments as _arguments
from seedbed._ask import outputs, regions, schemes
from seedbed._ask.parameters import numbers_of
from seedbed._types import Array, DTypeLike, RegionLike, Shape
from seedbed.errors import InvalidRequest
from seedbed.v1 import DataType, Function, Recipe, Reducer, Region, Step, TensorSpec, View

_FUNCTIONS: dict[str, Function] = numbers_of(Function, "FUNCTION_")
REDUCERS: dict[str, Reducer] = numbers_of(Reducer, "REDUCER_")

_MAX_PARTS = 4096
_MAX_STEPS = 10_000
_CERTAIN = ("ones", "zeros", "constant", "eye", "dirac", "literal")  # the schemes whose values hang on no stream
_EXPRESSION = "spec.expression"

Index: TypeAlias = "SupportsIndex | slice | EllipsisType | None"


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Value:
    """A tensor, or what one is made of: a draw, given values, or a function of others.

    `draw` and `literal` make the first ones; operators, the functions of this module and the methods here make others
    of them. Numbers and NumPy arrays mix in. A Value that is used twice is made once.

    >>> import seedbed
    >>> x = seedbed.draw("normal", (8, 4))
    >>> (0.02 * x / x.norm(axis=1, keepdims=True)).shape
    (8, 4)
    """

    _step: Step
    _arguments: tuple[Value, ...] = ()
    _shape: tuple[int, ...] | None = None
    _origin: TensorSpec | None = None

    # Leaves operators between arrays and Values to Values.
    __array_ufunc__: ClassVar[None] = None
    # Or else __getitem__ would make it a sequence.
    __iter__: ClassVar[None] = None

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape; None if it is only known when `spec` is given the tensor's."""
        return self._shape

    @property
    def T(self) -> Value:  # noqa: N802 - as in NumPy
        """The Value with its axes reversed."""
        return self.transpose()

    def __repr__(self) -> str:
        kind = self._step.WhichOneof("value")
        if kind == "function":
            kind = Function.Name(self._step.function).removeprefix("FUNCTION_").lower()
        elif kind == "recipe":
            kind = self._step.recipe.WhichOneof("scheme")
        return f"<seedbed.Value {kind}, shape {'unknown' if self._shape is None else self._shape}>"

    def __bool__(self) -> bool:
        raise TypeError("a Value is neither true nor false before it is made; use seedbed.where")

    def __add__(self, other: ValueLike) -> Value:
        return apply("add", self, other)

    def __radd__(self, other: ValueLike) -> Value:
        return apply("add", other, self)

    def __sub__(self, other: ValueLike) -> Value:
        return apply("subtract", self, other)

    def __rsub__(self, other: ValueLike) -> Value:
        return apply("subtract", other, self)

    def __mul__(self, other: ValueLike) -> Value:
        return apply("multiply", self, other)

    def __rmul__(self, other: ValueLike) -> Value:
        return apply("multiply", other, self)

    def __truediv__(self, other: ValueLike) -> Value:
        return apply("divide", self, other)

    def __rtruediv__(self, other: ValueLike) -> Value:
        return apply("divide", other, self)

    def __pow__(self, other: ValueLike) -> Value:
        return apply("power", self, other)

    def __rpow__(self, other: ValueLike) -> Value:
        return apply("power", other, self)

    def __lt__(self, other: ValueLike) -> Value:
        return apply("less", self, other)

    def __le__(self, other: ValueLike) -> Value:
        return apply("less_equal", self, other)

    def __gt__(self, other: ValueLike) -> Value:
        return apply("less", other, self)

    def __ge__(self, other: ValueLike) -> Value:
        return apply("less_equal", other, self)

    def __neg__(self) -> Value:
        return apply("negate", self)

    def __abs__(self) -> Value:
        return apply("absolute", self)

    def round(self) -> Value:
        """The nearest integers, of two the even one."""
        return apply("round", self)

    def astype(self, dtype: DTypeLike) -> Value:
        """The Value, rounded to a dtype; without it, only the tensor is rounded.

        Args:
            dtype: float32, float16, bfloat16 or float64, by any of the names that `dtypes.data_type` takes.

        Raises:
            InvalidRequest: If it is none of them.
        """
        return Value(Step(cast=dtypes.data_type(dtype)), (self,), self._shape)

    def reshape(self, *shape: Any) -> Value:  # noqa: ANN401 - sizes, or one shape
        """The same elements, in row-major order, in another shape.

        Args:
            *shape: The shape, or its sizes; one of them may be -1.

        Raises:
            InvalidRequest: If the shape here is unknown, or has another number of elements.

        >>> import seedbed
        >>> seedbed.draw("normal", (8, 4)).reshape(2, -1, 4).shape
        (2, 4, 4)
        """
        return _view(self, lambda array: array.reshape(*shape))

    def transpose(self, *axes: Any) -> Value:  # noqa: ANN401 - axes, or one tuple of them
        """The Value with its axes permuted.

        Args:
            *axes: Which axis comes first, second and so on; default the reverse order.

        Raises:
            InvalidRequest: If the shape is unknown, or these are not its axes.
        """
        return _view(self, lambda array: array.transpose(*axes))

    def __getitem__(self, index: Index | tuple[Index, ...]) -> Value:
        """Slices, with any step but 0; integers, None and ``...``, as in NumPy."""
        parts = index if isinstance(index, tuple) else (index,)
        for part in parts:
            if isinstance(part, (bool, np.bool_)) or not (
                part is None or part is Ellipsis or isinstance(part, (int, np.integer, slice))
            ):
                raise InvalidRequest(_EXPRESSION, f"{part!r} is no index of a Value; give slices, integers or None")
        # With an Ellipsis NumPy makes a view, never an element.
        full = parts if any(part is Ellipsis for part in parts) else (*parts, ...)
        return _view(self, lambda array: array[full])

    def broadcast_to(self, shape: Shape) -> Value:
        """The Value, repeated to fill a shape.

        Args:
            shape: The shape.

        Raises:
            InvalidRequest: If the shape here is unknown, or cannot be broadcast to that one.
        """
        sizes = tuple(_arguments.shape(shape))
        return _view(self, lambda array: np.broadcast_to(array, sizes))

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Value:
        """The sum along axes.

        Args:
            axis: An axis or some; default all.
            keepdims: Whether the axes stay, with size 1.

        Raises:
            InvalidRequest: If the shape is unknown, or has no such axis.
        """
        return _reduce("sum", self, axis, keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Value:
        """The mean along axes; arguments as for `sum`."""
        return _reduce("mean", self, axis, keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Value:
        """The largest element along axes; arguments as for `sum`."""
        return _reduce("maximum", self, axis, keepdims)

    def min(self, axis: Axis = None, keepdims: bool = False) -> Value:
        """The smallest element along axes; arguments as for `sum`."""
        return _reduce("minimum", self, axis, keepdims)

    def norm(self, p: float = 2, axis: Axis = None, keepdims: bool = False) -> Value:
        """The p-norm along axes, ``(abs(x) ** p).sum() ** (1 / p)``.

        Args:
            p: Above 0, and finite.
            axis: An axis or some; default all.
            keepdims: Whether the axes stay, with size 1.

        Raises:
            InvalidRequest: If the shape is unknown or has no such axis, or p is not above 0.
        """
        power = _arguments.number(p, _EXPRESSION, "p")
        if not 0 < power < math.inf:
            raise InvalidRequest(_EXPRESSION, f"the norm's p is {p}; give a finite one above 0, or use abs(x).max()")
        return _reduce("norm", self, axis, keepdims, power)


ValueLike: TypeAlias = "Value | float | npt.ArrayLike | TensorSpec"
"""A Value; or a number, an array or another tensor, which become one."""

Axis: TypeAlias = "SupportsIndex | Iterable[SupportsIndex] | None"


class Box(NamedTuple):
    """A box of a tensor seen in another shape; `box` makes it."""

    region: RegionLike | None
    reshape: Shape | None
    permute: Iterable[SupportsIndex] | None


Where: TypeAlias = "RegionLike | View | Box | None"
What: TypeAlias = "ValueLike | Parts"


@dataclass(frozen=True, eq=False, slots=True)
class Parts:
    """A tensor in parts; `parts` makes it."""

    _boxes: tuple[tuple[Where, Value | Parts], ...]


def draw(
    scheme: str,
    shape: Shape | None = None,
    *,
    stream: str = "",
    dtype: DTypeLike | None = None,
    **parameters: object,
) -> Value:
    """What a scheme draws, to make something of.

    Args:
        scheme: One of `seedbed.SCHEMES`.
        shape: Its global shape, from which its fans come; default that of the tensor or part that is made of it.
        stream: The name that is hashed. Default: the tensor's for its first draw, and that name and "#1", "#2" and so
            on for the others, so that a draw that is added at the end changes no other.
        dtype: What it is drawn as; default float32, or float64 if the tensor is of float64.
        **parameters: Those of the scheme's method.

    Raises:
        InvalidRequest: If the scheme is unknown, or a message cannot carry a parameter.
        TypeError: If the scheme has no such parameter.

    >>> import seedbed
    >>> decay = seedbed.spec(seedbed.log(seedbed.draw("uniform", a=1, b=16)), (4, 16), name="A_log", seed=7)
    >>> with seedbed.connect("local:") as client:
    ...     a = client.init(decay)
    >>> bool(a.min() >= 0), a.shape
    (True, (4, 16))
    """
    for name in parameters:
        if name in schemes.OPTIONS:
            raise TypeError(f"draw() got an unexpected keyword argument {name!r}; give it to spec()")
    message = schemes.spec(scheme, (), **parameters)
    recipe = Recipe(stream=_arguments.text(stream, "spec.stream"))
    if dtype is not None:
        recipe.dtype = dtypes.data_type(dtype)
    getattr(recipe, scheme).CopyFrom(getattr(message, scheme))
    sizes = None if shape is None else tuple(_arguments.shape(shape))
    recipe.shape.extend(sizes or ())
    return Value(Step(recipe=recipe), (), sizes)


def literal(array: npt.ArrayLike) -> Value:
    """Given values, which travel with the message.

    Args:
        array: Finite numbers, in an array of NumPy's or one that becomes one, such as a torch tensor. float32, float16,
            bfloat16, float64 and complex64 are kept, others become float32 if that holds them, and float64 if not.

    Raises:
        InvalidRequest: If it holds something else than finite real numbers.

    >>> import numpy as np, seedbed
    >>> table = seedbed.spec(seedbed.literal(np.arange(3.0)), name="table")
    >>> with seedbed.connect("local:") as client:
    ...     client.init(table)
    array([0., 1., 2.])
    """
    given = outputs.given(array, "spec.literal")
    try:
        number = dtypes.data_type(given.dtype)
    except InvalidRequest:
        number = _fitting(given)
    return _literal(given, number)


def _fitting(given: Array) -> DataType:
    """The element type that integers and the like become."""
    if given.dtype.kind not in "biufV" or given.dtype.names is not None:
        raise InvalidRequest("spec.literal", f"an array of {given.dtype} holds no real numbers; convert it")
    try:
        # Compared in the type given: a large integer and its neighbour may have the same float64.
        with np.errstate(all="ignore"):
            single = given.astype(np.float32)
            is_exact = bool(np.all(single.astype(given.dtype) == given)) and not np.any(np.abs(single) >= 2.0**63)
    except (TypeError, ValueError):
        raise InvalidRequest("spec.literal", f"an array of {given.dtype} holds no real numbers; convert it") from None
    return DataType.DATA_TYPE_FLOAT32 if is_exact else DataType.DATA_TYPE_FLOAT64


def _literal(given: Array, number: DataType) -> Value:
    dtype = dtypes.numpy_dtype(number)
    with np.errstate(all="ignore"):
        array = given.astype(dtype)
    if not np.all(np.isfinite(array)):
        raise InvalidRequest("spec.literal", f"holds numbers that are not finite in {dtype}; replace them")
    recipe = Recipe(shape=array.shape, dtype=number, literal=v1.Literal(data=array.tobytes()))
    return Value(Step(recipe=recipe), (), array.shape)


def _array(value: Value) -> Array:
    """What a literal holds."""
    recipe = value._step.recipe
    return np.frombuffer(recipe.literal.data, dtypes.numpy_dtype(recipe.dtype)).reshape(value._shape or ())


def as_value(what: object) -> Value:
    """A Value from anything that mixes with Values: a number, an array or another tensor.

    Raises:
        InvalidRequest: If it is none of these.
    """
    if isinstance(what, Value):
        return what
    if isinstance(what, TensorSpec):
        return _tensor(what)
    if isinstance(what, numbers.Real):
        return Value(Step(constant=_arguments.number(what, _EXPRESSION, "constant")), (), ())
    if what is None or isinstance(what, (str, bytes, Parts, v1.Parts)):
        raise InvalidRequest(_EXPRESSION, f"a {type(what).__name__} is no value; give a Value, a number or an array")
    return literal(what)  # type: ignore[arg-type]  # which refuses what is no array


def _tensor(spec: TensorSpec) -> Value:
    """The values of another tensor."""
    scheme = spec.WhichOneof("scheme")
    if scheme is None:
        raise InvalidRequest("spec.scheme", f"the tensor {spec.name!r} has no scheme; set one")
    stream = spec.stream or spec.name
    if scheme in _CERTAIN:
        stream = ""
    elif not stream:
        raise InvalidRequest("spec.name", "a tensor within a tensor is known by its name; give it one")
    recipe = Recipe(stream=stream, shape=spec.shape, dtype=spec.dtype or DataType.DATA_TYPE_FLOAT32)
    getattr(recipe, scheme).CopyFrom(getattr(spec, scheme))
    return Value(Step(recipe=recipe), (), tuple(spec.shape), spec)


def _is_mere(value: Value, scheme: str) -> bool:
    return value._step.HasField("recipe") and value._step.recipe.WhichOneof("scheme") == scheme


def apply(name: str, *arguments: ValueLike) -> Value:
    """A function of the contract, element by element.

    Args:
        name: The function's name in the contract, in lower case.
        *arguments: Its operands, which are broadcast.

    Raises:
        InvalidRequest: If their shapes do not broadcast, or the divisor is the constant 0.
    """
    values = tuple(map(as_value, arguments))
    if name == "divide" and values[1]._step.WhichOneof("value") == "constant" and values[1]._step.constant == 0:
        raise InvalidRequest(_EXPRESSION, "divides by the constant 0; divide by something else")
    shapes = [value._shape for value in values]
    known = [shape for shape in shapes if shape is not None]
    joined = _joined(known, _EXPRESSION)
    return Value(Step(function=_FUNCTIONS[name]), values, joined if len(known) == len(shapes) else None)


def _joined(shapes: Sequence[tuple[int, ...]], field: str) -> tuple[int, ...]:
    """The shape that these are broadcast to."""
    rank = max(map(len, shapes), default=0)
    result = []
    for sizes in zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True):
        others = {size for size in sizes if size != 1}
        if len(others) > 1:
            listed = " and ".join(map(str, dict.fromkeys(shapes)))
            raise InvalidRequest(field, f"the shapes {listed} cannot be broadcast together; reshape one")
        result.append(others.pop() if others else 1)
    return tuple(result)


def _fills(shape: tuple[int, ...], target: tuple[int, ...], field: str) -> None:
    """Refuses a shape that cannot be broadcast to that of the tensor or part."""
    missing = len(target) - len(shape)
    if missing < 0 or any(size not in (1, wanted) for size, wanted in zip(shape, target[missing:], strict=True)):
        raise InvalidRequest(field, f"the shape {shape} cannot be broadcast to {target}; reshape the value")


def _known(value: Value) -> tuple[int, ...]:
    if value._shape is None:
        raise InvalidRequest(_EXPRESSION, "the shape is not known here; give draw() a shape")
    return value._shape


def _strided(shape: tuple[int, ...]) -> tuple[npt.NDArray[np.int8], int]:
    """An array to tell strides by, and its address. It has no memory: views of it may be made, but not read."""
    strides = [math.prod(max(size, 1) for size in shape[axis + 1 :]) for axis in range(len(shape))]
    array = np.lib.stride_tricks.as_strided(np.zeros(1, np.int8), shape, strides)
    return array, array.__array_interface__["data"][0]


def _view_of(
    shape: tuple[int, ...], change: Callable[[npt.NDArray[np.int8]], npt.NDArray[np.int8]], field: str
) -> View:
    """The view that NumPy makes of a row-major array of this shape."""
    try:
        array, address = _strided(shape)
        view = change(array)
    except InvalidRequest:
        raise
    except (IndexError, TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(field, f"of the shape {shape}, there is no such view: {error}") from None
    offset = view.__array_interface__["data"][0] - address if view.size else 0
    return View(shape=view.shape, strides=view.strides, offset=offset)


def _view(value: Value, change: Callable[[npt.NDArray[np.int8]], npt.NDArray[np.int8]]) -> Value:
    view = _view_of(_known(value), change, _EXPRESSION)
    return Value(Step(view=view), (value,), tuple(view.shape))


def _axes(axis: Axis, rank: int) -> list[int]:
    given = range(rank) if axis is None else _arguments.axes(axis, _EXPRESSION).axes
    axes = [index + rank if index < 0 else index for index in given]
    if any(not 0 <= index < rank for index in axes) or len(set(axes)) < len(axes) or (axis is not None and not axes):
        raise InvalidRequest(_EXPRESSION, f"{axis} are no axes of {rank} dimensions; name each once")
    return sorted(axes)


def _reduce(name: str, value: Value, axis: Axis, keepdims: bool, p: float | None = None) -> Value:
    shape = _known(value)
    axes = _axes(axis, len(shape))
    step = Step(reduction=v1.Reduction(reducer=REDUCERS[name], axes=[] if axis is None else axes, p=p))
    reduced = Value(step, (value,), tuple(1 if index in axes else size for index, size in enumerate(shape)))
    if keepdims or not axes:
        return reduced
    return reduced.reshape(tuple(size for index, size in enumerate(shape) if index not in axes))


def sqrt(x: ValueLike) -> Value:
    """The square root."""
    return apply("sqrt", x)


def rsqrt(x: ValueLike) -> Value:
    """``1 / sqrt(x)``."""
    return apply("rsqrt", x)


def exp(x: ValueLike) -> Value:
    """E to the power of x."""
    return apply("exp", x)


def expm1(x: ValueLike) -> Value:
    """``exp(x) - 1``, precise near 0."""
    return apply("expm1", x)


def log(x: ValueLike) -> Value:
    """The natural logarithm."""
    return apply("log", x)


def log1p(x: ValueLike) -> Value:
    """``log(1 + x)``, precise near 0."""
    return apply("log1p", x)


def sin(x: ValueLike) -> Value:
    """The sine."""
    return apply("sin", x)


def cos(x: ValueLike) -> Value:
    """The cosine."""
    return apply("cos", x)


def tanh(x: ValueLike) -> Value:
    """The hyperbolic tangent."""
    return apply("tanh", x)


def sigmoid(x: ValueLike) -> Value:
    """``1 / (1 + exp(-x))``."""
    return apply("sigmoid", x)


def softplus(x: ValueLike) -> Value:
    """``log(1 + exp(x))``."""
    return apply("softplus", x)


def erf(x: ValueLike) -> Value:
    """The error function."""
    return apply("erf", x)


def erfinv(x: ValueLike) -> Value:
    """The inverse of the error function."""
    return apply("erfinv", x)


def floor(x: ValueLike) -> Value:
    """The largest integer that is not above x."""
    return apply("floor", x)


def minimum(a: ValueLike, b: ValueLike) -> Value:
    """The smaller of two."""
    return apply("minimum", a, b)


def maximum(a: ValueLike, b: ValueLike) -> Value:
    """The larger of two."""
    return apply("maximum", a, b)


def equal(a: ValueLike, b: ValueLike) -> Value:
    """1 where they are equal, else 0; ``==`` tells whether they are the same Value."""
    return apply("equal", a, b)


def clamp(x: ValueLike, low: ValueLike, high: ValueLike) -> Value:
    """The Value, brought into [low, high].

    Args:
        x: What is brought there.
        low: The smallest that is left as it is.
        high: The largest that is left as it is.

    Raises:
        InvalidRequest: If the shapes cannot be broadcast together.
    """
    return apply("clamp", x, low, high)


def where(condition: ValueLike, a: ValueLike, b: ValueLike) -> Value:
    """One of two, element by element.

    Args:
        condition: What decides.
        a: Taken where the condition is not 0.
        b: Taken where it is.

    Raises:
        InvalidRequest: If the shapes cannot be broadcast together.

    >>> import seedbed
    >>> x = seedbed.draw("normal", (8, 4))
    >>> seedbed.where(abs(x) < 2, x, 0.0).shape
    (8, 4)
    """
    return apply("where", condition, a, b)


def concatenate(values: Iterable[ValueLike], axis: SupportsIndex = 0) -> Value:
    """Values, one after the other along an axis.

    Args:
        values: The values, of known shapes that agree but for this axis.
        axis: The axis.

    Raises:
        InvalidRequest: If a shape is unknown, or they do not agree.

    >>> import seedbed
    >>> seedbed.concatenate([seedbed.draw("normal", (2, 4)), seedbed.draw("zeros", (3, 4))]).shape
    (5, 4)
    """
    several = _several(values)
    shapes = [_known(value) for value in several]
    (along,) = _axes(axis, len(shapes[0]))
    rests = {(*shape[:along], *shape[along + 1 :]) for shape in shapes}
    if len(rests) > 1 or len(set(map(len, shapes))) > 1:
        listed = " and ".join(map(str, dict.fromkeys(shapes)))
        raise InvalidRequest(_EXPRESSION, f"the shapes {listed} differ beside axis {along}; reshape one")
    before = (slice(None),) * along
    ends = np.cumsum([shape[along] for shape in shapes]).tolist()
    whole = (*shapes[0][:along], ends[-1], *shapes[0][along + 1 :])
    boxes = [(*before, slice(end - shape[along], end), ...) for end, shape in zip(ends, shapes, strict=True)]
    return _assembled(several, whole, boxes)


def stack(values: Iterable[ValueLike], axis: SupportsIndex = 0) -> Value:
    """Values of one shape, along a new axis.

    Args:
        values: The values, of one known shape.
        axis: The new axis.

    Raises:
        InvalidRequest: If a shape is unknown, or they differ.

    >>> import seedbed
    >>> seedbed.stack([seedbed.draw("normal", (4,)), seedbed.draw("normal", (4,))], axis=1).shape
    (4, 2)
    """
    several = _several(values)
    shapes = {_known(value): None for value in several}
    if len(shapes) > 1:
        raise InvalidRequest(_EXPRESSION, f"the shapes {' and '.join(map(str, shapes))} differ; stack needs one shape")
    (shape,) = shapes
    (along,) = _axes(axis, len(shape) + 1)
    whole = (*shape[:along], len(several), *shape[along:])
    return _assembled(several, whole, [(*(slice(None),) * along, index, ...) for index in range(len(several))])


def _several(values: Iterable[ValueLike]) -> tuple[Value, ...]:
    several = tuple(map(as_value, values))
    if not several:
        raise InvalidRequest(_EXPRESSION, "there are no values to put together; give one at least")
    return several


def _assembled(values: tuple[Value, ...], shape: tuple[int, ...], boxes: Iterable[Any]) -> Value:
    views = [_view_of(shape, lambda array, box=box: array[box], _EXPRESSION) for box in boxes]  # type: ignore[misc]
    return Value(Step(assembly=v1.Assembly(shape=shape, boxes=views)), values, shape)


def box(
    region: RegionLike | None = None, *, reshape: Shape | None = None, permute: Iterable[SupportsIndex] | None = None
) -> Box:
    """A box of a tensor that is seen in another shape, for `parts`.

    Args:
        region: The box, as ``np.s_[...]`` slices of the tensor as it is then seen; default all of it.
        reshape: The shape that it is seen in; default its own.
        permute: Which axis of that comes first, second and so on; default as they are.

    >>> import numpy as np, seedbed
    >>> heads = seedbed.box(np.s_[:, 0:1], reshape=(4, 3, 2, 16))
    >>> message = seedbed.spec(seedbed.parts([(heads, 1.0)]), (24, 16))
    >>> message.parts.parts[0].view.shape, message.parts.parts[0].view.strides
    ([4, 1, 2, 16], [96, 32, 16, 1])
    """
    return Box(region, reshape, permute if permute is None else tuple(permute))


def parts(boxes: Iterable[tuple[Where, What]]) -> Parts:
    """A tensor in parts, for `spec`. Where boxes overlap, the last one counts; what is in none of them is 0.

    Args:
        boxes: Pairs of where and what. Where is ``np.s_[...]`` slices of the tensor, None for all of it, a `box` of it
            in another shape, or a message. What is a `Value`, a number, an array, or the message of another tensor: a
            fused matrix then holds what the matrices would hold that it is made of.

    Raises:
        InvalidRequest: If there are too many, or one of them cannot be served.

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
            raise InvalidRequest(f"spec.parts[{number}]", f"{pair!r} is no pair; give (where, what)")
        where_it_is, what = pair
        pairs.append((where_it_is, what if isinstance(what, Parts) else as_value(what)))
    if len(pairs) > _MAX_PARTS:
        raise InvalidRequest("spec.parts", f"has {len(pairs)} parts, over the limit of {_MAX_PARTS}; join some")
    return Parts(tuple(pairs))


def spec(scheme: str | What, shape: Shape | None = None, **parameters: object) -> TensorSpec:
    """The message for a tensor, which `Client.init`, `Client.describe` and `Client.init_model` take.

    Args:
        scheme: One of `seedbed.SCHEMES`; or a `Value` or `parts`, or what becomes a Value.
        shape: The global shape; default that of the Value.
        **parameters: Those of the scheme's method, and ``seed``, ``name``, ``dtype``, ``algorithm_version`` and
            ``stream``. The default dtype is float32; a draw, an array or a tensor that has one keeps it.

    Raises:
        InvalidRequest: If the scheme is unknown, a message cannot carry a parameter, or shapes do not fit.
        TypeError: If the scheme has no such parameter.

    >>> import seedbed
    >>> seedbed.spec("normal", (4096, 4096), std=0.02, seed=7, name="wte.weight").normal.std
    0.02
    >>> steps = seedbed.spec(0.02 * seedbed.draw("normal"), (4, 4), name="w").expression.steps
    >>> [step.WhichOneof("value") for step in steps]
    ['constant', 'recipe', 'function']
    """
    if isinstance(scheme, str):
        return schemes.spec(scheme, shape, **parameters)  # type: ignore[arg-type]  # which refuses None
    what = scheme if isinstance(scheme, Parts) else as_value(scheme)
    if shape is None:
        shape = None if isinstance(what, Parts) else what._shape
        if shape is None:
            raise InvalidRequest("spec.shape", "is not known from what the tensor is made of; give it")
    if isinstance(what, Value) and what._step.HasField("recipe") and what._step.recipe.dtype:
        parameters.setdefault("dtype", dtypes.name_of(what._step.recipe.dtype))
    message = schemes.spec("zeros", shape, **parameters)
    sizes = tuple(message.shape)
    if min(sizes, default=0) < 0:
        raise InvalidRequest("spec.shape", f"{list(sizes)} has a negative size; give 0 or more")
    if isinstance(what, Value) and _is_mere(what, "literal"):
        what = _literal(_array(what), message.dtype)
    recipe = _recipe(what, sizes, message, "spec")
    if isinstance(what, Value) and (recipe.shape or recipe.dtype):
        recipe = Recipe(expression=_expression(what, sizes, message, "spec"))
    name: Any = recipe.WhichOneof("scheme")
    getattr(message, name).CopyFrom(getattr(recipe, name))
    message.stream = recipe.stream or message.stream
    return message


def _recipe(what: Value | Parts, shape: tuple[int, ...], tensor: TensorSpec, field: str) -> Recipe:
    """The recipe of a tensor or part of this shape, with no more than what differs from it set."""
    if isinstance(what, Parts):
        inner = enumerate(what._boxes)
        return Recipe(parts=v1.Parts(parts=[_part(*pair, shape, tensor, f"{field}.parts[{n}]") for n, pair in inner]))
    kind = what._step.WhichOneof("value")
    if kind == "constant":
        return Recipe(constant=v1.Constant(val=what._step.constant))
    if kind != "recipe":
        return Recipe(expression=_expression(what, shape, tensor, field))
    _check_origin(what, tensor, field)
    recipe = Recipe()
    recipe.CopyFrom(what._step.recipe)
    if what._shape is not None:
        _fills(what._shape, shape, f"{field}.shape")
        del recipe.shape[:]
        if what._shape != shape:
            recipe.shape.extend(what._shape or (1,))  # no sizes would mean the default
    if recipe.dtype == tensor.dtype:
        recipe.ClearField("dtype")
    return recipe


def _part(place: Where, what: Value | Parts, shape: tuple[int, ...], tensor: TensorSpec, field: str) -> v1.Part:
    if place is None:
        return v1.Part(recipe=_recipe(what, shape, tensor, field))
    if isinstance(place, Box):
        place = _boxed(place, shape, field)
    if isinstance(place, View):
        return v1.Part(view=place, recipe=_recipe(what, tuple(place.shape), tensor, field))
    region = _region(place, shape, f"{field}.region")
    extents = tuple(stop - start for start, stop in zip(region.start, region.stop, strict=True))
    return v1.Part(region=region, recipe=_recipe(what, extents, tensor, field))


def _region(place: RegionLike, shape: Sequence[int], field: str) -> Region:
    if isinstance(place, Region):
        if len(place.start) != len(place.stop):
            raise InvalidRequest(field, f"has {len(place.start)} starts and {len(place.stop)} stops; give one of each")
        place = tuple(map(slice, place.start, place.stop))
    else:
        place = place if isinstance(place, tuple) else (place,)
        if Ellipsis not in place and len(place) < len(shape):
            place = (*place, ...)  # axes that are left out are taken whole, as in NumPy
    try:
        return regions.resolve(place, shape) or Region()
    except InvalidRequest as error:
        raise InvalidRequest(field, error.description) from None


def _boxed(place: Box, shape: tuple[int, ...], field: str) -> View:
    def seen(array: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        if place.reshape is not None:
            array = array.reshape(_arguments.shape(place.reshape))
        if place.permute is not None:
            array = array.transpose(tuple(place.permute))
        region = _region(... if place.region is None else place.region, array.shape, f"{field}.region")
        slices: tuple[Any, ...] = (*map(slice, region.start, region.stop), ...)
        view: npt.NDArray[np.int8] = array[slices]
        return view

    try:
        return _view_of(shape, seen, f"{field}.view")
    except InvalidRequest as error:
        raise InvalidRequest(error.field.replace("spec.shape", f"{field}.view.shape"), error.description) from None


def _check_origin(value: Value, tensor: TensorSpec, field: str) -> None:
    """Refuses another tensor's values that a recipe, which has neither seed nor version, cannot have."""
    origin = value._origin
    if origin is None:
        return
    if origin.seed != tensor.seed and origin.WhichOneof("scheme") not in _CERTAIN:
        raise InvalidRequest(
            f"{field}.seed",
            f"the tensor {origin.name!r} has the seed {origin.seed}, its whole {tensor.seed}; give both the same",
        )
    if origin.algorithm_version not in (0, tensor.algorithm_version):
        raise InvalidRequest(
            f"{field}.algorithm_version",
            f"the tensor {origin.name!r} has version {origin.algorithm_version}, its whole {tensor.algorithm_version}; "
            "give both the same",
        )


def _expression(value: Value, shape: tuple[int, ...], tensor: TensorSpec, field: str) -> v1.Expression:
    """The steps that make a Value, each once and after its arguments."""
    steps: list[Step] = []
    places: dict[int, int] = {}  # where each Value is among the steps
    shapes: dict[int, tuple[int, ...]] = {}
    pending = [value]
    while pending:  # not a recursion, which Python limits
        node = pending[-1]
        missing = [argument for argument in node._arguments if id(argument) not in places]
        if missing:
            pending += reversed(missing)
            continue
        pending.pop()
        if id(node) in places:
            continue
        _check_origin(node, tensor, field)
        if node._shape is not None:
            shapes[id(node)] = node._shape
        elif node._arguments:
            shapes[id(node)] = _joined([shapes[id(argument)] for argument in node._arguments], f"{field}.expression")
        else:
            shapes[id(node)] = shape
        steps += _steps(node, [places[id(argument)] for argument in node._arguments], len(steps))
        places[id(node)] = len(steps) - 1
        if len(steps) > _MAX_STEPS:
            raise InvalidRequest(f"{field}.expression", f"has over {_MAX_STEPS} steps; work with larger Values")
    _fills(shapes[id(value)], shape, f"{field}.expression")
    return v1.Expression(steps=steps)


def _steps(node: Value, arguments: list[int], index: int) -> list[Step]:
    """The steps of one Value, of which the first will have this index."""
    step = Step(arguments=arguments)
    step.MergeFrom(node._step)
    if node._shape != () or not step.HasField("recipe"):
        return [step]
    if _is_mere(node, "literal"):
        return [Step(constant=float(_array(node)))]
    step.recipe.shape.append(1)  # no sizes would mean the default
    return [step, Step(view=View(), arguments=[index])]
