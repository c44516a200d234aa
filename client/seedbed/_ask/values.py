"""The algebra of Values: tensors as functions of draws and literals, written as in NumPy.

A `Value` is a graph of steps; nothing is computed here. `seedbed._ask.recipes` makes messages of it.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, ClassVar, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

from seedbed import dtypes, v1
from seedbed._ask import arguments as _arguments
from seedbed._ask import outputs, schemes
from seedbed._ask.parameters import numbers_of
from seedbed._types import Array, DTypeLike, Shape
from seedbed.errors import InvalidRequest
from seedbed.v1 import DataType, Function, Recipe, Reducer, Step, TensorSpec, View

_FUNCTIONS: dict[str, Function] = numbers_of(Function, "FUNCTION_")
REDUCERS: dict[str, Reducer] = numbers_of(Reducer, "REDUCER_")
DETERMINISTIC = ("ones", "zeros", "constant", "eye", "dirac", "literal")
"""The schemes that draw nothing, and so depend on neither seed nor stream."""
_EXPRESSION = "spec.expression"

Index: TypeAlias = "SupportsIndex | slice | EllipsisType | None"


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Value:
    """A draw, a literal, or a function of other Values.

    `draw` and `literal` make Values; operators, methods and functions such as `seedbed.exp` combine them with each
    other, with numbers and with NumPy arrays. A Value that is used twice is computed once.

    >>> import seedbed
    >>> x = seedbed.draw("normal", (8, 4))
    >>> (0.02 * x / x.norm(axis=1, keepdims=True)).shape
    (8, 4)
    """

    _step: Step
    _arguments: tuple[Value, ...] = ()
    _shape: tuple[int, ...] | None = None
    _origin: TensorSpec | None = None

    # NumPy arrays leave operators with Values to Values.
    __array_ufunc__: ClassVar[None] = None
    # Without this, __getitem__ would make a Value iterable.
    __iter__: ClassVar[None] = None

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape; None if `spec` decides it."""
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
        raise TypeError("a Value has no truth value; use seedbed.where")

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
        """Round to the nearest integers, ties to even."""
        return apply("round", self)

    def astype(self, dtype: DTypeLike) -> Value:
        """Round to a dtype at this point; otherwise only the result is rounded.

        Args:
            dtype: float32, float16, bfloat16 or float64, by any name that `dtypes.data_type` accepts.

        Raises:
            InvalidRequest: The dtype is none of these.
        """
        return Value(Step(cast=dtypes.data_type(dtype)), (self,), self._shape)

    def reshape(self, *shape: Any) -> Value:  # noqa: ANN401 - sizes, or one shape
        """Reshape, in row-major order.

        Args:
            *shape: The shape, or its sizes; one of them may be -1.

        Raises:
            InvalidRequest: The Value's shape is unknown, or has another number of elements.

        >>> import seedbed
        >>> seedbed.draw("normal", (8, 4)).reshape(2, -1, 4).shape
        (2, 4, 4)
        """
        return _view(self, lambda array: array.reshape(*shape))

    def transpose(self, *axes: Any) -> Value:  # noqa: ANN401 - axes, or one tuple of them
        """Permute the axes.

        Args:
            *axes: The new order of the axes; default the reverse.

        Raises:
            InvalidRequest: The Value's shape is unknown, or these are not its axes.
        """
        return _view(self, lambda array: array.transpose(*axes))

    def __getitem__(self, index: Index | tuple[Index, ...]) -> Value:
        """Index with slices of any step, integers, None and ``...``, as in NumPy."""
        parts = index if isinstance(index, tuple) else (index,)
        for part in parts:
            if isinstance(part, (bool, np.bool_)) or not (
                part is None or part is Ellipsis or isinstance(part, (int, np.integer, slice))
            ):
                raise InvalidRequest(_EXPRESSION, f"{part!r} cannot index a Value; give slices, integers or None")
        # With an Ellipsis, NumPy returns a view rather than a scalar.
        full = parts if any(part is Ellipsis for part in parts) else (*parts, ...)
        return _view(self, lambda array: array[full])

    def broadcast_to(self, shape: Shape) -> Value:
        """Broadcast to a shape.

        Args:
            shape: The shape.

        Raises:
            InvalidRequest: The Value's shape is unknown, or cannot be broadcast to this one.
        """
        sizes = tuple(_arguments.shape(shape))
        return _view(self, lambda array: np.broadcast_to(array, sizes))

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Value:
        """Sum along axes.

        Args:
            axis: One axis or several; default all.
            keepdims: Whether to keep the axes, with size 1.

        Raises:
            InvalidRequest: The shape is unknown, or has no such axis.
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
            p: The order; positive and finite.
            axis: One axis or several; default all.
            keepdims: Whether to keep the axes, with size 1.

        Raises:
            InvalidRequest: The shape is unknown or has no such axis, or p is not positive.
        """
        power = _arguments.number(p, _EXPRESSION, "p")
        if not 0 < power < math.inf:
            raise InvalidRequest(
                _EXPRESSION, f"the norm's p is {p}; give a positive, finite number, or use abs(x).max()"
            )
        return _reduce("norm", self, axis, keepdims, power)


ValueLike: TypeAlias = "Value | float | npt.ArrayLike | TensorSpec"
"""A Value; or a number, an array or another tensor's message, which becomes one."""

Axis: TypeAlias = "SupportsIndex | Iterable[SupportsIndex] | None"


def draw(
    scheme: str,
    shape: Shape | None = None,
    *,
    stream: str = "",
    dtype: DTypeLike | None = None,
    **parameters: object,
) -> Value:
    """Draw from a scheme.

    Args:
        scheme: One of `seedbed.SCHEMES`.
        shape: The draw's global shape, from which its fans come; default that of the tensor or part made of it.
        stream: The name that is hashed. Default: the tensor's for its first draw, and that name with "#1", "#2" and so
            on for the others, so that appending a draw changes no other.
        dtype: The dtype of the draw; default float32, or float64 if the tensor's is float64.
        **parameters: The parameters of the scheme's method.

    Raises:
        InvalidRequest: The scheme is unknown, or a message cannot carry a parameter.
        TypeError: The scheme has no such parameter.

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
    """Use given values, which travel in the message.

    Args:
        array: Finite numbers, in a NumPy array or what converts to one, such as a torch tensor. float32, float16,
            bfloat16, float64 and complex64 are kept; others become float32 if it holds them exactly, else float64.

    Raises:
        InvalidRequest: The array does not hold finite numbers.

    >>> import numpy as np, seedbed
    >>> table = seedbed.spec(seedbed.literal(np.arange(3.0)), name="table")
    >>> with seedbed.connect("local:") as client:
    ...     client.init(table)
    array([0., 1., 2.])
    """
    return _literal_of(outputs.readable(array, "spec.literal"))


def _literal_of(array: Array) -> Value:
    try:
        data_type = dtypes.data_type(array.dtype)
    except InvalidRequest:
        data_type = _exact_type(array)
    return literal_as(array, data_type)


def _exact_type(array: Array) -> DataType:
    """The element type of a literal of integers or another unsupported dtype."""
    if array.dtype.kind not in "biufV" or array.dtype.names is not None:
        raise InvalidRequest("spec.literal", f"an array of {array.dtype} does not hold real numbers; convert it")
    try:
        # Compared in the original dtype: a large integer and its neighbour may have the same float64.
        with np.errstate(all="ignore"):
            single = array.astype(np.float32)
            is_exact = bool(np.all(single.astype(array.dtype) == array)) and not np.any(np.abs(single) >= 2.0**63)
    except (TypeError, ValueError):
        raise InvalidRequest(
            "spec.literal", f"an array of {array.dtype} does not hold real numbers; convert it"
        ) from None
    return DataType.DATA_TYPE_FLOAT32 if is_exact else DataType.DATA_TYPE_FLOAT64


def literal_as(array: Array, data_type: DataType) -> Value:
    """A literal of this element type.

    Raises:
        InvalidRequest: A number is not finite in it.
    """
    dtype = dtypes.numpy_dtype(data_type)
    with np.errstate(all="ignore"):
        array = array.astype(dtype)
    if not np.all(np.isfinite(array)):
        raise InvalidRequest("spec.literal", f"has elements that are not finite in {dtype}; replace them")
    recipe = Recipe(shape=array.shape, dtype=data_type, literal=v1.Literal(data=array.tobytes()))
    return Value(Step(recipe=recipe), (), array.shape)


def literal_array(value: Value) -> Array:
    """The elements of a literal."""
    recipe = value._step.recipe
    return np.frombuffer(recipe.literal.data, dtypes.numpy_dtype(recipe.dtype)).reshape(value._shape or ())


def as_value(source: object) -> Value:
    """Make a Value of a number, an array or another tensor's message; a Value is returned as it is.

    Raises:
        InvalidRequest: It is none of these.
    """
    if isinstance(source, Value):
        return source
    if isinstance(source, TensorSpec):
        return _tensor(source)
    if isinstance(source, numbers.Real):
        return Value(Step(constant=_arguments.number(source, _EXPRESSION, "constant")), (), ())
    array = None if isinstance(source, (str, bytes)) else outputs.readable(source, "spec.literal")
    if array is None or (array.dtype.hasobject and not array.shape):
        kind = type(source).__name__
        raise InvalidRequest(_EXPRESSION, f"a {kind} is not a value; give a Value, a number or an array")
    return _literal_of(array)


def _tensor(spec: TensorSpec) -> Value:
    """The values of another tensor, in this one."""
    scheme = spec.WhichOneof("scheme")
    if scheme is None:
        raise InvalidRequest("spec.scheme", f"the tensor {spec.name!r} has no scheme; set one")
    stream = spec.stream or spec.name
    if scheme in DETERMINISTIC:
        stream = ""
    elif not stream:
        raise InvalidRequest("spec.name", "a tensor within another needs a name; give it one")
    recipe = Recipe(stream=stream, shape=spec.shape, dtype=spec.dtype or DataType.DATA_TYPE_FLOAT32)
    getattr(recipe, scheme).CopyFrom(getattr(spec, scheme))
    return Value(Step(recipe=recipe), (), tuple(spec.shape), spec)


def is_scheme(value: Value, scheme: str) -> bool:
    """Whether the Value is a single draw from the scheme, or a literal."""
    return value._step.HasField("recipe") and value._step.recipe.WhichOneof("scheme") == scheme


def apply(name: str, *arguments: ValueLike) -> Value:
    """Apply a function of the contract element by element.

    Args:
        name: The function's name in the contract, in lower case.
        *arguments: The operands, which are broadcast together.

    Raises:
        InvalidRequest: The shapes cannot be broadcast together, or the divisor is the constant 0.
    """
    values = tuple(map(as_value, arguments))
    if name == "divide" and values[1]._step.WhichOneof("value") == "constant" and values[1]._step.constant == 0:
        raise InvalidRequest(_EXPRESSION, "divides by the constant 0; give another divisor")
    shapes = [value._shape for value in values]
    known = [shape for shape in shapes if shape is not None]
    joined = broadcast_shapes(known, _EXPRESSION)
    return Value(Step(function=_FUNCTIONS[name]), values, joined if len(known) == len(shapes) else None)


def broadcast_shapes(shapes: Sequence[tuple[int, ...]], field: str) -> tuple[int, ...]:
    """The shape to which these are broadcast together."""
    rank = max(map(len, shapes), default=0)
    result = []
    for sizes in zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True):
        others = {size for size in sizes if size != 1}
        if len(others) > 1:
            listed = " and ".join(map(str, dict.fromkeys(shapes)))
            raise InvalidRequest(field, f"the shapes {listed} cannot be broadcast together; reshape one")
        result.append(others.pop() if others else 1)
    return tuple(result)


def _known(value: Value) -> tuple[int, ...]:
    if value._shape is None:
        raise InvalidRequest(_EXPRESSION, "the shape is unknown here; give draw() a shape")
    return value._shape


def _strided(shape: tuple[int, ...]) -> tuple[npt.NDArray[np.int8], int]:
    """An array whose views reveal strides, and its address. It has one byte of memory: never read it."""
    strides = [math.prod(max(size, 1) for size in shape[axis + 1 :]) for axis in range(len(shape))]
    array = np.lib.stride_tricks.as_strided(np.zeros(1, np.int8), shape, strides)
    return array, array.__array_interface__["data"][0]


def view_of(shape: tuple[int, ...], change: Callable[[npt.NDArray[np.int8]], npt.NDArray[np.int8]], field: str) -> View:
    """The view that ``change`` makes of a row-major array of this shape."""
    try:
        array, address = _strided(shape)
        view = change(array)
    except InvalidRequest:
        raise
    except (IndexError, TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(field, f"the shape {shape} has no such view: {error}") from None
    offset = view.__array_interface__["data"][0] - address if view.size else 0
    return View(shape=view.shape, strides=view.strides, offset=offset)


def _view(value: Value, change: Callable[[npt.NDArray[np.int8]], npt.NDArray[np.int8]]) -> Value:
    view = view_of(_known(value), change, _EXPRESSION)
    return Value(Step(view=view), (value,), tuple(view.shape))


def _axes(axis: Axis, rank: int) -> list[int]:
    indices = range(rank) if axis is None else _arguments.axes(axis, _EXPRESSION).axes
    axes = [index + rank if index < 0 else index for index in indices]
    if any(not 0 <= index < rank for index in axes) or len(set(axes)) < len(axes) or (axis is not None and not axes):
        raise InvalidRequest(_EXPRESSION, f"{axis} does not name axes of {rank} dimensions; name each once")
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
    """``e ** x``."""
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
    """The largest integer that is at most x."""
    return apply("floor", x)


def minimum(a: ValueLike, b: ValueLike) -> Value:
    """The smaller of two."""
    return apply("minimum", a, b)


def maximum(a: ValueLike, b: ValueLike) -> Value:
    """The larger of two."""
    return apply("maximum", a, b)


def equal(a: ValueLike, b: ValueLike) -> Value:
    """1 where they are equal, else 0; ``==`` compares the identity of Values."""
    return apply("equal", a, b)


def clamp(x: ValueLike, low: ValueLike, high: ValueLike) -> Value:
    """Limit to [low, high].

    Args:
        x: The Value to limit.
        low: The lower bound.
        high: The upper bound.

    Raises:
        InvalidRequest: The shapes cannot be broadcast together.
    """
    return apply("clamp", x, low, high)


def where(condition: ValueLike, a: ValueLike, b: ValueLike) -> Value:
    """Choose between two, element by element.

    Args:
        condition: The condition.
        a: Chosen where the condition is not 0.
        b: Chosen where the condition is 0.

    Raises:
        InvalidRequest: The shapes cannot be broadcast together.

    >>> import seedbed
    >>> x = seedbed.draw("normal", (8, 4))
    >>> seedbed.where(abs(x) < 2, x, 0.0).shape
    (8, 4)
    """
    return apply("where", condition, a, b)


def concatenate(values: Iterable[ValueLike], axis: SupportsIndex = 0) -> Value:
    """Join along an existing axis.

    Args:
        values: The values, whose known shapes agree except along this axis.
        axis: The axis.

    Raises:
        InvalidRequest: A shape is unknown, or the shapes differ along another axis.

    >>> import seedbed
    >>> seedbed.concatenate([seedbed.draw("normal", (2, 4)), seedbed.draw("zeros", (3, 4))]).shape
    (5, 4)
    """
    operands = _as_values(values)
    shapes = [_known(value) for value in operands]
    (along,) = _axes(axis, len(shapes[0]))
    rests = {(*shape[:along], *shape[along + 1 :]) for shape in shapes}
    if len(rests) > 1 or len(set(map(len, shapes))) > 1:
        listed = " and ".join(map(str, dict.fromkeys(shapes)))
        raise InvalidRequest(_EXPRESSION, f"the shapes {listed} differ along axes other than {along}; reshape one")
    before = (slice(None),) * along
    ends = np.cumsum([shape[along] for shape in shapes]).tolist()
    whole = (*shapes[0][:along], ends[-1], *shapes[0][along + 1 :])
    boxes = [(*before, slice(end - shape[along], end), ...) for end, shape in zip(ends, shapes, strict=True)]
    return _assemble(operands, whole, boxes)


def stack(values: Iterable[ValueLike], axis: SupportsIndex = 0) -> Value:
    """Join along a new axis.

    Args:
        values: The values, of one known shape.
        axis: The new axis.

    Raises:
        InvalidRequest: A shape is unknown, or the shapes differ.

    >>> import seedbed
    >>> seedbed.stack([seedbed.draw("normal", (4,)), seedbed.draw("normal", (4,))], axis=1).shape
    (4, 2)
    """
    operands = _as_values(values)
    shapes = {_known(value): None for value in operands}
    if len(shapes) > 1:
        raise InvalidRequest(_EXPRESSION, f"the shapes {' and '.join(map(str, shapes))} differ; stack needs one shape")
    (shape,) = shapes
    (along,) = _axes(axis, len(shape) + 1)
    whole = (*shape[:along], len(operands), *shape[along:])
    return _assemble(operands, whole, [(*(slice(None),) * along, index, ...) for index in range(len(operands))])


def _as_values(sources: Iterable[ValueLike]) -> tuple[Value, ...]:
    values = tuple(map(as_value, sources))
    if not values:
        raise InvalidRequest(_EXPRESSION, "there are no values to join; give at least one")
    return values


def _assemble(values: tuple[Value, ...], shape: tuple[int, ...], boxes: Iterable[Any]) -> Value:
    views = [view_of(shape, lambda array, box=box: array[box], _EXPRESSION) for box in boxes]  # type: ignore[misc]
    return Value(Step(assembly=v1.Assembly(shape=shape, boxes=views)), values, shape)
