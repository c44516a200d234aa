"""What the CPU backends share: pieces, threads, recipes, and the laws that are not elementwise."""

from __future__ import annotations

import copy
import math
import threading
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from seedbed.common.cores import cores_of_rank
from seedbed.v1 import TensorDescription

from .. import deterministic, dtypes, pairs, recipes
from ..errors import Cancelled, InvalidSpec
from ..expressions import Evaluation
from ..parameters import NormalParameters, Parameters, SparseMask, parameters_of, permutation_mask, sparse_mask
from ..regions import Runs, layout_of, runs, tiles
from ..spec import plan_of
from ..stream import Purpose, name_hashed, stream_of
from ..views import BoxIndex, Indices, axis_first, expanded
from .base import Backend, IsCancelled, Sampler, Stream, Wait, done

_DEFAULT_GRAIN: Final = 1 << 16
_EXPRESSION_GRAIN: Final = 1 << 14

_COPIED: Final = 1 << 16
"""Elements of a finished matrix that are copied at once; they stay in the second-level cache."""

_LARGE: Final = 1 << 22
"""Orthogonal matrices of this many elements (32 MiB, tens of milliseconds) are computed one at a time."""

_PATIENCE: Final = 0.05
"""Seconds between polls of ``cancelled`` during a wait."""

Fill = Callable[[Runs, NDArray[Any], IsCancelled], None]
"""Fills an array with a tensor's elements at the flat indices of runs."""

SampleGaussians = Callable[[Runs, NDArray[np.float64]], None]
"""Fills an array with the elements of a Gaussian matrix at the flat indices of runs."""

FillOf = Callable[[TensorDescription, recipes.Plan | None], Fill]


class CpuBackend(Backend):
    """A backend that computes in the calling thread and in threads of its pool.

    Args:
        threads: The number of threads that share one call. By default one for each core of this process.
        reason: Why this backend was chosen.
    """

    tile: ClassVar[int]
    """The most elements that one call of ``sample`` gets; bounds the memory of temporaries."""
    grain: ClassVar[dict[str, int]]
    """The fewest elements of each random law that are worth another thread.

    They take some 0.2 ms, several times the cost of waking the thread.
    """

    def __init__(self, threads: int | None = None, reason: str = "requested") -> None:
        self.threads = threads or cores_of_rank()
        self.reason = reason
        self.device = f"CPU, {self.threads} thread{'s' if self.threads > 1 else ''}"
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="seedbed-sample") if self.threads > 1 else None
        self._matrices = _MatrixCache()
        self._turn = threading.Lock()

    def alone(self) -> CpuBackend:
        other = copy.copy(self)
        other.threads, other._pool = 1, None
        return other

    @abstractmethod
    def sample(self, parameters: Parameters, stream: Stream, runs: Runs, out: NDArray[Any]) -> None:
        """Fills ``out`` with a random law's values at the flat indices of ``runs``."""

    def sample_apart(
        self, parameters: Parameters, stream: Stream, runs: Runs, positions: Indices, out: NDArray[Any]
    ) -> None:
        """As `sample`, but writes each run to its position in ``out``."""
        values = np.empty(int(runs[1].sum()), out.dtype)
        self.sample(parameters, stream, runs, values)
        self.scatter(values, positions, runs[1], out)

    @abstractmethod
    def mask(self, mask: SparseMask, seed: int, runs: Runs, out: NDArray[Any]) -> None:
        """Sets the elements of ``out`` that the mask of a sparse tensor covers to 0."""

    @abstractmethod
    def orthonormal(
        self, rows: int, columns: int, sample: SampleGaussians, cancelled: IsCancelled
    ) -> NDArray[np.float64]:
        """Computes an orthogonal matrix of gain 1, by the operations of docs/stream-v1.md in their order.

        Args:
            rows: The number of rows.
            columns: The number of columns.
            sample: Samples the Gaussian matrix from which it is computed.
            cancelled: Polled during the computation.
        """

    @abstractmethod
    def places(self, permutation: SparseMask, seed: int, indices: Indices) -> NDArray[np.uint64]:
        """The images of indices under the permutation, that of the first column of a mask."""

    def sampler(self, description: TensorDescription) -> Sampler:
        if description.law.WhichOneof("law") == "constant":
            bits = deterministic.constant(description.law, description.spec.dtype)
            return partial(_at_once, lambda _, out, cancelled: _fill_constant(self, bits, None, out, cancelled))
        where = layout_of(description)
        fill, tile, grain = self._fill_of(description), self.tile, self._grain_of(description)

        def fill_piece(first_element: int, out: NDArray[Any], cancelled: IsCancelled) -> None:
            fill(runs(where, first_element, len(out)), out, cancelled)

        if not grain:
            return partial(_at_once, fill_piece)
        return partial(_at_once, partial(self._in_pieces, fill_piece, grain, tile))

    def repeat(self, bits: np.unsignedinteger[Any], out: NDArray[np.unsignedinteger[Any]]) -> None:
        """Fills ``out``, elements viewed as integers, with the bits of one element."""
        out.fill(bits)

    def scatter(self, values: NDArray[Any], positions: Indices, lengths: Indices, out: NDArray[Any]) -> None:
        """Copies runs that follow each other in ``values`` to their positions in ``out``."""
        begin = 0
        for position, length in zip(positions.tolist(), lengths.tolist(), strict=True):
            out[position : position + length] = values[begin : begin + length]
            begin += length

    def _grain_of(self, description: TensorDescription) -> int:
        """The fewest elements that are worth another thread; 0 if one thread computes all."""
        kind = str(description.law.WhichOneof("law"))
        if kind == "parts":
            inner = description.law.parts.parts
            kinds = {part.recipe.WhichOneof("scheme") for part in inner} & self.grain.keys()
            return min((self.grain[kind] for kind in kinds), default=_DEFAULT_GRAIN)
        if kind == "expression":
            return _EXPRESSION_GRAIN
        return self.grain.get(kind, 0)

    def _fill_of(self, description: TensorDescription, plan: recipes.Plan | None = None) -> Fill:
        """Returns the function that fills any elements of a tensor."""
        law = str(description.law.WhichOneof("law"))
        if law in recipes.KINDS:
            return self._recipe_fill(description, plan or plan_of(description))
        if law == "constant":
            return partial(_fill_constant, self, deterministic.constant(description.law, description.spec.dtype))
        if law in ("eye", "dirac"):
            return partial(_fill_ones, deterministic.Ones.of(description))
        if law == "orthogonal":
            return _OrthogonalFill(self, description)
        if law == "permutation":
            return partial(self._fill_permutation, permutation_mask(description), description.spec.seed)
        return self._random_fill(description, law)

    def _recipe_fill(self, description: TensorDescription, plan: recipes.Plan) -> Fill:
        if isinstance(plan, recipes.LiteralPlan):
            return partial(_fill_literal, plan.values)
        if isinstance(plan, recipes.PartsPlan):
            return _PartsFill(self, description, plan, self._fill_of)
        return _ExpressionFill(description, plan, self._fill_of)

    def _random_fill(self, description: TensorDescription, law: str) -> Fill:
        if pairs.is_drawn(description):
            return partial(_fill_pairs, self._random_fill(pairs.as_floats(description), law))
        parameters = parameters_of(description)
        stream = Stream(description.spec.seed, description.stream)
        if law != "sparse":
            return _RandomFill(self, parameters, stream)
        mask = sparse_mask(description)

        def fill(elements: Runs, out: NDArray[Any], _cancelled: IsCancelled) -> None:
            self.sample(parameters, stream, elements, out)
            self.mask(mask, stream.seed, elements, out)

        return fill

    def _in_pieces(
        self,
        fill_piece: Callable[[int, NDArray[Any], IsCancelled], None],
        grain: int,
        tile: int,
        first_element: int,
        out: NDArray[Any],
        cancelled: IsCancelled,
    ) -> None:
        """Fills the pieces of ``out`` on this thread and on idle threads of the pool."""
        if len(out) <= min(tile, 2 * grain - 1):
            fill_piece(first_element, out, cancelled)
            return

        def fill(piece: slice) -> None:
            if cancelled():
                raise Cancelled
            fill_piece(first_element + piece.start, out[piece], cancelled)

        first, *others = self._pieces(len(out), grain)
        if self._pool is None:
            for piece in (first, *others):
                fill(piece)
            return
        futures = [(self._pool.submit(fill, piece), piece) for piece in others]
        try:
            fill(first)
            for future, piece in reversed(futures):
                if future.cancel():  # the pool is busy with other work
                    fill(piece)
        finally:  # also after an error: other threads may still write to the caller's memory
            errors = [error for future, _ in futures if not future.cancel() and (error := future.exception())]
        if errors:
            raise errors[0]

    def _pieces(self, count: int, grain: int) -> Iterator[slice]:
        threads = max(1, min(self.threads, count // grain))
        length = min(self.tile, -(-count // threads))
        length = -(-length // 4) * 4  # whole Philox blocks
        for begin in range(0, count, length):
            yield slice(begin, min(begin + length, count))

    def _fill_permutation(
        self, mask: SparseMask, seed: int, elements: Runs, out: NDArray[Any], _cancelled: IsCancelled
    ) -> None:
        dtypes.store(self.places(mask, seed, expanded(elements)).astype(np.float64), out)

    def orthogonal(self, description: TensorDescription, cancelled: IsCancelled) -> NDArray[np.float64]:
        """The elements of a tensor's whole matrix, of gain 1, whose rows are along the law's axis."""
        spec = description.spec
        rows = spec.shape[description.law.orthogonal.axis]
        columns = math.prod(spec.shape) // rows
        stream = Stream(spec.seed, stream_of(name_hashed(spec), Purpose.ORTHOGONAL))
        return self._matrices.get(
            (stream, rows, columns), lambda: self._orthogonal(stream, rows, columns, cancelled), cancelled
        ).reshape(-1)

    def _orthogonal(self, stream: Stream, rows: int, columns: int, cancelled: IsCancelled) -> NDArray[np.float64]:
        sample = partial(self.sample, NormalParameters(0.0, 1.0), stream)
        if self._pool is None or rows * columns < _LARGE:
            return self.orthonormal(rows, columns, sample, cancelled)
        # A large matrix uses all threads, and temporarily several times its own memory.
        while not self._turn.acquire(timeout=_PATIENCE):
            if cancelled():
                raise Cancelled
        try:
            return self.orthonormal(rows, columns, sample, cancelled)
        finally:
            self._turn.release()


def _at_once(
    fill: Callable[[int, NDArray[Any], IsCancelled], None],
    first_element: int,
    out: NDArray[Any],
    cancelled: IsCancelled,
) -> Wait:
    fill(first_element, out, cancelled)
    return done


def _fill_constant(
    backend: CpuBackend,
    bits: np.unsignedinteger[Any],
    _elements: Runs | None,
    out: NDArray[Any],
    _cancelled: IsCancelled,
) -> None:
    if bits:
        backend.repeat(bits, out.view(bits.dtype))
    else:
        out.view(np.uint8).fill(0)  # NumPy uses memset for bytes only


def _fill_ones(ones: deterministic.Ones, elements: Runs, out: NDArray[Any], _cancelled: IsCancelled) -> None:
    out.view(np.uint8).fill(0)
    out[ones.positions(elements)] = 1


def _fill_pairs(fill: Fill, elements: Runs, out: NDArray[Any], cancelled: IsCancelled) -> None:
    fill(pairs.runs_of_floats(elements), pairs.floats_of(out), cancelled)


def _fill_literal(values: NDArray[Any], elements: Runs, out: NDArray[Any], _cancelled: IsCancelled) -> None:
    out[...] = values[expanded(elements)]


@dataclass(frozen=True, slots=True)
class _RandomFill:
    """Fills elements of a random law."""

    backend: CpuBackend
    parameters: Parameters
    stream: Stream

    def __call__(self, elements: Runs, out: NDArray[Any], _cancelled: IsCancelled) -> None:
        self.backend.sample(self.parameters, self.stream, elements, out)


class _OrthogonalFill:
    """Fills elements of an orthogonal matrix.

    It holds a reference to the matrix: the cache may evict it between pieces if many large ones are in use.
    """

    def __init__(self, backend: CpuBackend, description: TensorDescription) -> None:
        self._backend = backend
        self._description = description
        axis = description.law.orthogonal.axis
        self._view = axis_first(description.spec.shape, axis) if axis else None
        self._matrix: NDArray[np.float64] | None = None

    def __call__(self, elements: Runs, out: NDArray[Any], cancelled: IsCancelled) -> None:
        if self._matrix is None:
            self._matrix = self._backend.orthogonal(self._description, cancelled)
        gain = self._description.law.orthogonal.gain
        for begin, part in tiles(elements, _COPIED):
            if cancelled():
                raise Cancelled
            starts, lengths = part if self._view is None else self._view.taken(part)
            is_one = len(starts) == 1
            values = self._matrix[slice(starts[0], starts[0] + lengths[0]) if is_one else expanded((starts, lengths))]
            dtypes.store(values * gain, out[begin : begin + len(values)])


class _PartsFill:
    """Fills elements of a tensor of parts; a part that is contiguous in ``out`` is sampled in place."""

    def __init__(
        self,
        backend: CpuBackend,
        description: TensorDescription,
        plan: recipes.PartsPlan,
        fill_of: FillOf,
    ) -> None:
        self._backend = backend
        self._description = description
        self._parts = [
            (part, BoxIndex(part.box), fill_of(part.inner, part.plan)) for part in plan.parts if part.box.size
        ]
        bounds = np.array([part.box.bounds() for part, _, _ in self._parts], np.int64).reshape(-1, 2)
        self._lowest, self._highest = bounds.T

    def __call__(self, elements: Runs, out: NDArray[Any], cancelled: IsCancelled) -> None:
        located = list(self._located(elements))
        if not any(len(positions) == 1 and own[1][0] == len(out) for _, _, positions, own in located):
            _fill_gaps([(positions, own[1]) for _, _, positions, own in located], out)
        for part, fill, positions, own in located:
            if cancelled():
                raise Cancelled
            source = own if part.source.shape == tuple(part.inner.spec.shape) else part.source.taken(own)
            self._fill_part(fill, dtypes.numpy_dtype(part.inner.spec.dtype), source, own[1], positions, out, cancelled)

    def _located(self, elements: Runs) -> Iterator[tuple[recipes.PlacedPart, Fill, Indices, Runs]]:
        """The parts that contain some of the elements: their positions in ``elements``, and their runs in the box."""
        starts, lengths = elements
        is_near = (self._lowest < starts.max() + lengths.max()) & (self._highest >= starts.min())
        for index in np.flatnonzero(is_near).tolist():
            part, box_index, fill = self._parts[index]
            positions, own = box_index.locate(elements)
            if len(positions):
                yield part, fill, positions, own

    def _fill_part(
        self,
        fill: Fill,
        dtype: np.dtype[Any],
        source: Runs,
        lengths: Indices,
        positions: Indices,
        out: NDArray[Any],
        cancelled: IsCancelled,
    ) -> None:
        if len(positions) == 1 and dtype == out.dtype:
            fill(source, out[positions[0] : positions[0] + lengths[0]], cancelled)
            return
        if isinstance(fill, _RandomFill) and dtype == out.dtype and len(source[1]) == len(lengths):
            fill.backend.sample_apart(fill.parameters, fill.stream, source, positions, out)
            return
        values = np.empty(int(lengths.sum()), dtype)
        fill(source, values, cancelled)
        if dtype != out.dtype:
            values = _converted(values, out.dtype, self._description)
        self._backend.scatter(values, positions, lengths, out)


def _fill_gaps(runs: list[tuple[Indices, Indices]], out: NDArray[Any]) -> None:
    """Sets the elements outside the runs, given by their positions and lengths, to 0."""
    positions = np.concatenate([np.zeros(0, np.int64), *(positions for positions, _ in runs)])
    ends = positions + np.concatenate([np.zeros(0, np.int64), *(lengths for _, lengths in runs)])
    order = np.argsort(positions, kind="stable")
    covered = np.concatenate([[0], np.maximum.accumulate(ends[order])])
    begins = np.append(positions[order], len(out))
    for gap in np.flatnonzero(covered < begins).tolist():
        out[covered[gap] : begins[gap]].view(np.uint8).fill(0)


def _converted(values: NDArray[Any], dtype: np.dtype[Any], description: TensorDescription) -> NDArray[Any]:
    """Converts values to another type."""
    converted = np.empty(len(values), dtype)
    with np.errstate(over="ignore"):
        dtypes.store_once(values.astype(np.float64), converted)
    _check_finite(converted, description)
    return converted


class _ExpressionFill:
    """Fills elements of an expression, one tile at a time."""

    def __init__(self, description: TensorDescription, plan: recipes.ExpressionPlan, fill_of: FillOf) -> None:
        self._description = description
        leaves = {
            index: (fill_of(node.made.inner, node.made.plan), dtypes.numpy_dtype(node.made.inner.spec.dtype))
            for index, node in enumerate(plan.nodes)
            if isinstance(node.made, recipes.Leaf)
        }

        def fill_leaf(index: int, elements: Runs, cancelled: IsCancelled) -> NDArray[np.float64]:
            fill, dtype = leaves[index]
            values = np.empty(int(elements[1].sum()), dtype)
            fill(elements, values, cancelled)
            return values.astype(np.float64)

        self._evaluation = Evaluation(plan, fill_leaf)

    def __call__(self, elements: Runs, out: NDArray[Any], cancelled: IsCancelled) -> None:
        for begin, part in tiles(elements, self._evaluation.tile):
            values = self._evaluation.values(part, cancelled)
            piece = out[begin : begin + int(part[1].sum())]
            with np.errstate(over="ignore"):
                dtypes.store_once(np.broadcast_to(values, piece.shape), piece)
            _check_finite(piece, self._description, part)


def _check_finite(values: NDArray[Any], description: TensorDescription, elements: Runs | None = None) -> None:
    is_finite = np.isfinite(values)
    if is_finite.all():
        return
    position = int(np.argmin(is_finite))
    spec = description.spec
    where = "an element"
    if elements is not None:
        index = np.unravel_index(int(expanded(elements)[position]), tuple(spec.shape))
        where = f"element {tuple(map(int, index))}"
    raise InvalidSpec(
        f"spec.{spec.WhichOneof('scheme')}",
        f"{where} of tensor {spec.name!r} is {values[position]}; change the recipe so that all elements are finite in "
        "its dtype",
    )


class _MatrixCache:
    """The most recently used orthogonal matrices: each piece needs its whole matrix. None is computed twice at once."""

    def __init__(self, most_bytes: int = 1 << 28) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._matrices: OrderedDict[object, NDArray[np.float64]] = OrderedDict()
        self._bytes = 0
        self._computing: dict[object, threading.Event] = {}

    def get(
        self, key: object, compute: Callable[[], NDArray[np.float64]], cancelled: IsCancelled
    ) -> NDArray[np.float64]:
        while True:
            with self._lock:
                if key in self._matrices:
                    self._matrices.move_to_end(key)
                    return self._matrices[key]
                if (finished := self._computing.get(key)) is None:
                    self._computing[key] = threading.Event()
            if finished is None:
                return self._compute(key, compute)
            while not finished.wait(_PATIENCE):
                if cancelled():
                    raise Cancelled

    def _compute(self, key: object, compute: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
        try:
            matrix = compute()
            with self._lock:
                self._matrices[key] = matrix
                self._bytes += _kept_bytes(matrix)
                while len(self._matrices) > 1 and self._bytes > self._most_bytes:
                    self._bytes -= _kept_bytes(self._matrices.popitem(last=False)[1])
            return matrix
        finally:
            with self._lock:
                self._computing.pop(key).set()


def _kept_bytes(matrix: NDArray[np.float64]) -> int:
    """The memory of a cached matrix with its key and objects, which dominate for small matrices."""
    return matrix.nbytes + 512
