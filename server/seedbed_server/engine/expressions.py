"""Expressions: computes any elements of an expression, in float64, from elements of its steps.

A backward pass, from the last step to the first, collects the elements of each step that later steps need. A forward
pass then computes each of them once. So the cost is proportional to the region, however often steps refer to each
other. Only the arguments of reductions are computed as a whole.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seedbed.v1 import Function, Reducer

from . import dtypes, functions
from .errors import Cancelled, InvalidSpec
from .recipes import Applied, Assembled, Cast, ExpressionPlan, Leaf, Node, Number, Reduced, Viewed
from .regions import Runs
from .views import Box, BoxIndex, Indices, expanded

_TILE: Final = 1 << 14
"""The most elements computed at once: the values of a few steps then stay in the second-level cache."""

_TILE_OF_ALL_STEPS: Final = 1 << 20
"""The most elements of a tile in all steps together; expressions of many steps have smaller tiles."""

_MOST_NEEDED: Final = 1 << 22
"""The most elements that a tile may need in all steps together."""

F64 = NDArray[np.float64]
IsCancelled = Callable[[], bool]
FillLeaf = Callable[[int, Runs, IsCancelled], F64]
"""Gives the values of a step that is a recipe, at flat indices of that recipe."""

_ONE_ELEMENT: Final[Runs] = (np.zeros(1, np.int64), np.ones(1, np.int64))


def _where(condition: NDArray[np.bool_], a: F64, b: F64) -> F64:
    chosen: F64 = np.where(condition, a, b)
    return chosen


def _clamped(a: F64, low: F64, high: F64) -> F64:
    raised = _where(a < low, low, a)
    return _where(raised > high, high, raised)


_FUNCTIONS: Final[dict[int, Callable[..., F64]]] = {
    Function.FUNCTION_ADD: np.add,
    Function.FUNCTION_SUBTRACT: np.subtract,
    Function.FUNCTION_MULTIPLY: np.multiply,
    Function.FUNCTION_DIVIDE: np.divide,
    Function.FUNCTION_NEGATE: np.negative,
    Function.FUNCTION_ABSOLUTE: np.abs,
    Function.FUNCTION_MINIMUM: lambda a, b: _where(b < a, b, a),
    Function.FUNCTION_MAXIMUM: lambda a, b: _where(b > a, b, a),
    Function.FUNCTION_CLAMP: _clamped,
    Function.FUNCTION_LESS: lambda a, b: np.asarray(a < b, np.float64),
    Function.FUNCTION_LESS_EQUAL: lambda a, b: np.asarray(a <= b, np.float64),
    Function.FUNCTION_EQUAL: lambda a, b: np.asarray(a == b, np.float64),
    Function.FUNCTION_WHERE: lambda a, b, c: _where(a != 0, b, c),
    Function.FUNCTION_SQRT: np.sqrt,
    Function.FUNCTION_RSQRT: functions.rsqrt,
    Function.FUNCTION_POWER: functions.power,
    Function.FUNCTION_EXP: functions.exp,
    Function.FUNCTION_EXPM1: functions.expm1,
    Function.FUNCTION_LOG: functions.log,
    Function.FUNCTION_LOG1P: functions.log1p,
    Function.FUNCTION_SIN: functions.sin,
    Function.FUNCTION_COS: functions.cos,
    Function.FUNCTION_TANH: functions.tanh,
    Function.FUNCTION_SIGMOID: functions.sigmoid,
    Function.FUNCTION_SOFTPLUS: functions.softplus,
    Function.FUNCTION_ERF: functions.erf,
    Function.FUNCTION_ERFINV: functions.erfinv,
    Function.FUNCTION_FLOOR: np.floor,
    Function.FUNCTION_ROUND: np.rint,
}


class Evaluation:
    """Computes elements of an expression; safe to use from many threads.

    Args:
        plan: The expression.
        fill_leaf: Gives the values of the expression's recipes.

    Attributes:
        tile: The most elements to request at once.
    """

    def __init__(self, plan: ExpressionPlan, fill_leaf: FillLeaf) -> None:
        self._nodes = plan.nodes
        self._result = None if plan.result.shape == plan.nodes[-1].shape else plan.result
        self._fill_leaf = fill_leaf
        self._lock = threading.Lock()
        self._reduced: dict[int, F64] = {}
        self._is_ready = not any(isinstance(node.made, Reduced) for node in plan.nodes)
        self.tile = min(_TILE, max(256, _TILE_OF_ALL_STEPS // len(plan.nodes)))

    def values(self, elements: Runs, cancelled: IsCancelled) -> F64:
        """The values at flat indices of the tensor.

        Raises:
            Cancelled: ``cancelled()`` is true.
            InvalidSpec: The elements depend on too many elements of the steps.
        """
        self._reduce_all(cancelled)
        needed = elements if self._result is None else self._result.taken(elements)
        return self._evaluated(len(self._nodes) - 1, needed, cancelled)

    def _reduce_all(self, cancelled: IsCancelled) -> None:
        """Computes all reductions, once."""
        if self._is_ready:
            return
        with self._lock:
            for index, node in enumerate(self._nodes):
                if isinstance(node.made, Reduced) and index not in self._reduced:
                    self._reduced[index] = self._reduce(node.made, node.arguments[0], cancelled)
            self._is_ready = True

    def _reduce(self, reduced: Reduced, argument: int, cancelled: IsCancelled) -> F64:
        group = reduced.group
        out = np.empty(reduced.order.size // group)
        rows = max(1, self.tile // group)
        for first in range(0, len(out), rows):
            these = min(rows, len(out) - first)
            if these > 1 or group <= self.tile:
                out[first : first + these] = self._reduce_rows(reduced, argument, first * group, these, cancelled)
            else:
                out[first] = self._reduce_long(reduced, argument, first * group, cancelled)
        return _finished(reduced, out)

    def _reduce_rows(self, reduced: Reduced, argument: int, first: int, rows: int, cancelled: IsCancelled) -> F64:
        values = self._ordered(reduced, argument, first, rows * reduced.group, cancelled)
        return _folded(reduced, values.reshape(rows, reduced.group))

    def _reduce_long(self, reduced: Reduced, argument: int, first: int, cancelled: IsCancelled) -> float:
        """One element that reduces more than a tile."""
        so_far: F64 | None = None
        for begin in range(0, reduced.group, self.tile):
            values = self._ordered(reduced, argument, first + begin, min(self.tile, reduced.group - begin), cancelled)
            values = _prepared(reduced, values) if so_far is None else np.append(so_far, _prepared(reduced, values))
            so_far = _folded(reduced, values.reshape(1, -1), is_prepared=True)
        assert so_far is not None  # for mypy: there is at least one
        return float(so_far[0])

    def _ordered(self, reduced: Reduced, argument: int, first: int, count: int, cancelled: IsCancelled) -> F64:
        """The argument's values in the order in which they are reduced."""
        elements = reduced.order.taken((np.array([first]), np.array([count])))
        values = self._evaluated(argument, elements, cancelled)
        return np.broadcast_to(values, count) if values.ndim == 0 else values

    def _evaluated(self, last: int, elements: Runs, cancelled: IsCancelled) -> F64:
        needs = self._needs(last, elements)
        unread = [need.readers for need in needs]
        values: dict[int, F64] = {}
        for index in range(last + 1):
            if not unread[index]:
                continue
            if cancelled():
                raise Cancelled
            node = self._nodes[index]
            with np.errstate(all="ignore"):  # results that are not finite are refused later
                values[index] = self._computed(index, node, needs, values, cancelled)
            for argument in needs[index].arguments:
                unread[argument.step] -= 1
                if not unread[argument.step]:
                    del values[argument.step]
        return _at(needs[last], elements, values[last])

    def _needs(self, last: int, elements: Runs) -> list[_Need]:
        """The backward pass: the elements that are needed of each step."""
        needs = [_Need() for _ in range(last + 1)]
        needs[last].add(elements, is_distinct=True)
        total = 0
        for index in range(last, -1, -1):
            need = needs[index]
            if not need.readers:
                continue
            total += need.close(_MOST_NEEDED - total)
            node = self._nodes[index]
            need.arguments = list(_arguments(node, need.elements, self._nodes))
            for argument in need.arguments:
                needs[argument.step].add(argument.elements, argument.is_distinct)
        return needs

    def _computed(  # noqa: PLR0911 - one case for each kind of step
        self, index: int, node: Node, needs: list[_Need], values: dict[int, F64], cancelled: IsCancelled
    ) -> F64:
        made, need = node.made, needs[index]
        if isinstance(made, Number):
            return np.array(made.value)
        if isinstance(made, Leaf):
            return self._fill_leaf(index, need.elements, cancelled)
        if isinstance(made, Reduced):
            return self._reduced[index][expanded(need.elements)]
        arguments = [_at(needs[one.step], one.elements, values[one.step]) for one in need.arguments]
        if isinstance(made, Applied):
            return _FUNCTIONS[made.function](*arguments)
        if isinstance(made, Viewed):
            return arguments[0]
        if isinstance(made, Cast):
            return _rounded(arguments[0], made.dtype)
        return _assembled(need, arguments)


class _Argument(NamedTuple):
    """The elements that a step needs of an earlier one."""

    step: int
    elements: Runs
    is_distinct: bool
    positions: Runs | None = None
    """For an assembly: the positions and lengths of the runs among its elements."""


class _Need:
    """The elements of a step that later steps need."""

    def __init__(self) -> None:
        self.readers = 0
        self.elements: Runs
        self.arguments: list[_Argument] = []
        self._requests: dict[int, tuple[Runs, bool]] = {}
        self._sorted: Indices | None = None

    def add(self, elements: Runs, is_distinct: bool) -> None:
        self.readers += 1
        self._requests[id(elements)] = elements, is_distinct

    def close(self, most: int) -> int:
        """Ends the collection; returns the number of requested elements.

        Raises:
            InvalidSpec: There are more than ``most``.
        """
        count = sum(int(lengths.sum()) for (_, lengths), _ in self._requests.values())
        if count > most:
            raise InvalidSpec(
                "spec.expression",
                f"needs over {_MOST_NEEDED} elements of its steps for a small region; use views of fewer elements",
            )
        [(elements, is_distinct), *others] = self._requests.values()
        if is_distinct and not others:
            self.elements = elements
            return count
        self._sorted = np.unique(np.concatenate([expanded(elements) for elements, _ in self._requests.values()]))
        self.elements = _runs_of(self._sorted)
        return count

    def position(self, elements: Runs) -> Indices | None:
        """The positions of ``elements`` among all; None if they are all elements, in order."""
        return None if self._sorted is None else np.searchsorted(self._sorted, expanded(elements))


def _at(need: _Need, elements: Runs, values: F64) -> F64:
    """A step's values at some of its computed elements."""
    position = need.position(elements)
    return values if position is None or values.ndim == 0 else values[position]


def _runs_of(indices: Indices) -> Runs:
    """Ascending indices as runs."""
    begins = np.flatnonzero(np.concatenate([[True], np.diff(indices) != 1]))
    return indices[begins], np.diff(np.append(begins, len(indices)))


def _arguments(node: Node, elements: Runs, nodes: Sequence[Node]) -> list[_Argument]:
    """The elements that a step needs of its arguments, to compute some of its own."""
    made, arguments = node.made, node.arguments
    if isinstance(made, Applied):
        return [_through(index, box, elements) for index, box in zip(arguments, made.boxes, strict=True)]
    if isinstance(made, Cast):
        return [_through(arguments[0], None, elements)]
    if isinstance(made, Viewed):
        return [_Argument(arguments[0], made.box.taken(elements), made.box.is_injective)]
    if isinstance(made, Assembled):
        needed = []
        for index, (box, source) in zip(arguments, made.boxes, strict=True):
            if not box.size:
                continue
            positions, own = BoxIndex(box).locate(elements)
            if len(positions):
                taken = own if source.shape == nodes[index].shape else source.taken(own)
                needed.append(_Argument(index, taken, source.is_injective, (positions, own[1])))
        return needed
    return []


def _through(index: int, box: Box | None, elements: Runs) -> _Argument:
    if box is None:
        return _Argument(index, elements, is_distinct=True)
    if not any(box.strides):
        return _Argument(index, _single(box), is_distinct=True)
    return _Argument(index, box.taken(elements), box.is_injective)


def _single(box: Box) -> Runs:
    """The only element of a box whose strides are all 0; NumPy broadcasts it."""
    return (np.array([box.offset]), np.ones(1, np.int64)) if box.offset else _ONE_ELEMENT


def _assembled(need: _Need, arguments: Sequence[F64]) -> F64:
    out = np.zeros(int(need.elements[1].sum()))
    for argument, values in zip(need.arguments, arguments, strict=True):
        assert argument.positions is not None  # for mypy: assemblies have them
        out[expanded(argument.positions)] = values
    return out


def _rounded(values: F64, dtype: int) -> F64:
    out: NDArray[Any] = np.empty(values.shape, dtypes.numpy_dtype(dtype))
    dtypes.store_once(values, out)
    return out.astype(np.float64)


def _prepared(reduced: Reduced, values: F64) -> F64:
    """The terms of the sum."""
    if reduced.reducer != Reducer.REDUCER_NORM:
        return values
    magnitudes = np.abs(values)
    if reduced.p == 1:
        return magnitudes
    return magnitudes * magnitudes if reduced.p == 2 else functions.power(magnitudes, np.array(reduced.p))


def _folded(reduced: Reduced, rows: F64, is_prepared: bool = False) -> F64:
    """Reduces each row, from its first element to its last."""
    if not is_prepared:
        rows = _prepared(reduced, rows)
    if reduced.reducer == Reducer.REDUCER_MAXIMUM:
        folded: F64 = np.max(rows, axis=1) + 0.0  # max may return either of -0.0 and 0.0
    elif reduced.reducer == Reducer.REDUCER_MINIMUM:
        folded = np.min(rows, axis=1) + 0.0
    else:
        folded = np.add.accumulate(rows, axis=1)[:, -1]  # adds in order, unlike np.sum
    return folded


def _finished(reduced: Reduced, folded: F64) -> F64:
    if reduced.reducer == Reducer.REDUCER_MEAN:
        return folded / np.float64(reduced.group)
    if reduced.reducer != Reducer.REDUCER_NORM or reduced.p == 1:
        return folded
    return np.sqrt(folded) if reduced.p == 2 else functions.power(folded, np.array(1 / reduced.p))
