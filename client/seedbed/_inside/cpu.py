"""The client of the engine in this process, the target ``local:``."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np

from seedbed import dtypes
from seedbed._ask import arguments, literals, outputs, regions, requests
from seedbed._inside.base import InsideClient, Spans
from seedbed._inside.engine import Engine, open_engine
from seedbed._receive import arrays
from seedbed._types import Array, ModelLike, Outputs, Progress, RegionLike, Timeout
from seedbed.common import fields
from seedbed.common.deadline import Deadline
from seedbed.common.memory import keep_freed_memory
from seedbed.common.threads import Shared, run_together
from seedbed.errors import InvalidRequest
from seedbed.v1 import TensorDescription, TensorSlice, TensorSpec

_GROUP_BYTES: Final = 64 << 20
"""Small tensors are filled together up to this size; a large one reports progress after this much."""

_CHUNK_BYTES: Final = 16 << 20
"""For `iter_chunks`: enough for many threads, and little enough that glibc reuses the memory."""

_VISIT_BYTES: Final = 2 << 20
"""For `visit`: stays in a core's cache until it is used, and takes several times as long as the Python code around."""

_BOX_ELEMENTS: Final = 1 << 18
"""For arrays that are not contiguous: the size of the buffer from which they are copied."""

_FILLED_ALONE: Final = ("literal", "parts", "expression", "orthogonal")
"""Laws that are not filled in groups: the client copies them, their values may not be finite, or they take long."""


class LocalClient(InsideClient[Engine]):
    """A client of the engine in this process; made by ``seedbed.connect("local:")``, closed by ``with`` or `close`.

    Its methods are those of `seedbed.Client`, with the same arguments, errors and values. All threads of the backend
    write straight into the result, and need no other memory unless ``out`` is not C-contiguous.

    Differences from a client over a socket:

    - Small tensors of a model are filled together, up to 64 MiB, before the first of them is returned.
    - ``progress`` is called once for each tensor, and for each 64 MiB of a large one. An orthogonal matrix is copied to
      its place when it is finished; until then, the computed share counts as done.
    - Chunks have 16 MiB.
    """

    def _open_engine(self) -> Engine:
        keep_freed_memory(_CHUNK_BYTES)
        return open_engine()

    def iter_chunks(
        self,
        spec: TensorSpec,
        region: RegionLike | None = None,
        first_element: int = 0,
        timeout: Timeout = ...,
    ) -> Generator[tuple[int, Array], None, None]:
        first = arguments.integer(first_element, "first_element", "element", arguments.INT64)
        return self.chunks(requests.tensor_slice(spec, region), first, Deadline(self._seconds(timeout)))

    def _array(
        self,
        spec: TensorSpec,
        region: RegionLike | None,
        out: Array | None,
        progress: Progress | None,
        seconds: float | None,
    ) -> Array:
        return self.array_maker(spec, region, out, progress, Deadline(seconds))()

    def array_maker(
        self,
        spec: TensorSpec,
        region: RegionLike | None,
        out: Array | None,
        progress: Progress | None,
        deadline: Deadline,
    ) -> Callable[[], Array]:
        """Validate the arguments of `init`; return the function that makes the tensor."""
        tensor_slice = requests.tensor_slice(spec, region)
        if out is not None and regions.is_sound(tensor_slice):
            outputs.as_array(out, tensor_slice)

        def make() -> Array:
            [(_, array)] = self._tensors("InitTensor", [tensor_slice], lambda _: out, progress, deadline)
            return array

        return make

    def _model(
        self, slices: Sequence[TensorSlice], out: Outputs | None, progress: Progress | None, seconds: float | None
    ) -> Generator[tuple[str, Array], None, None]:
        return self.model_arrays(slices, out, progress, Deadline(seconds))

    def model_arrays(
        self, slices: Sequence[TensorSlice], out: Outputs | None, progress: Progress | None, deadline: Deadline
    ) -> Generator[tuple[str, Array], None, None]:
        """As `init_model`, with a deadline that another thread may end."""
        find = arrays.finder(out, slices, outputs.as_array)
        return self._tensors("InitModel", slices, find, progress, deadline)

    def chunks(
        self, tensor_slice: TensorSlice, first: int, deadline: Deadline
    ) -> Generator[tuple[int, Array], None, None]:
        """As `iter_chunks`, with a deadline that another thread may end."""
        [description] = self._describe("InitTensor", [tensor_slice], deadline, first)
        step = _CHUNK_BYTES // dtypes.numpy_dtype(description.spec.dtype).itemsize
        for offset in range(first, description.element_count, step):
            # The array has no name, which would keep it in memory while the next one is made.
            yield offset, self._chunk(tensor_slice, description, offset, step, deadline)

    def visit(
        self,
        model: ModelLike,
        use: Callable[[int, int, Array], object],
        jobs: int | None = None,
        timeout: Timeout = ...,
    ) -> None:
        deadline, slices = Deadline(self._seconds(timeout)), requests.slices(model)
        threads = arguments.jobs(jobs, self._engine.backend.threads)
        pieces = Shared(self._pieces_of(slices, self._describe("InitModel", slices, deadline)))

        def work() -> None:
            buffer = np.empty(_VISIT_BYTES, np.uint8)
            for piece in pieces:
                use(piece.tensor, piece.first, self._sample(piece, buffer, deadline))

        run_together([work] * threads, deadline)

    def _pieces_of(
        self, slices: Sequence[TensorSlice], descriptions: Sequence[TensorDescription]
    ) -> Iterator[_VisitedPiece]:
        for index, (tensor_slice, description) in enumerate(zip(slices, descriptions, strict=True)):
            if not description.element_count:
                continue
            dtype = dtypes.numpy_dtype(description.spec.dtype)
            is_literal = description.law.HasField("literal")
            sample = _copier(literals.values(tensor_slice)) if is_literal else self._engine.sampler(description)
            step = _VISIT_BYTES // dtype.itemsize
            for first in range(0, description.element_count, step):
                yield _VisitedPiece(index, first, min(step, description.element_count - first), dtype, sample)

    def _sample(self, piece: _VisitedPiece, buffer: Array, deadline: Deadline) -> Array:
        if deadline.has_passed():
            raise deadline.exceeded(self.target)
        values = buffer[: piece.length * piece.dtype.itemsize].view(piece.dtype)
        sample = partial(piece.sample, piece.first, values, self.transport.ending(deadline))
        try:
            self.transport.call(sample, deadline)
        except InvalidRequest as error:
            raise fields.in_model(error, piece.tensor) from error
        return values

    def _tensors(
        self,
        method: str,
        slices: Sequence[TensorSlice],
        find: Callable[[str], Array | None],
        progress: Progress | None,
        deadline: Deadline,
    ) -> Generator[tuple[str, Array], None, None]:
        descriptions = self._describe(method, slices, deadline)
        meter = _Meter(progress, descriptions)
        group = _Group()
        for index, (tensor_slice, description) in enumerate(zip(slices, descriptions, strict=True)):
            out = find(tensor_slice.spec.name)
            array = arrays.new_array(tensor_slice) if out is None else outputs.as_array(out, tensor_slice)
            result = tensor_slice.spec.name, array if out is None else out
            is_alone = _is_filled_alone(description, array)
            if is_alone or not group.add(description, array, result, is_new=out is None):
                yield from self._fill_group(group, meter, deadline)
                group = _Group()
                if is_alone:
                    model_index = index if method == "InitModel" else None
                    self._fill(tensor_slice, description, array, meter, model_index, deadline)
                    yield result
                else:
                    group.add(description, array, result, is_new=out is None)
            del array, out, result  # the next one may need their memory
        yield from self._fill_group(group, meter, deadline)

    def _fill_group(self, group: _Group, meter: _Meter, deadline: Deadline) -> Generator[tuple[str, Array], None, None]:
        self._work(group.jobs, deadline)
        while group.results:
            _, _, elements = group.jobs.popleft()
            meter.add(elements.nbytes)
            yield group.results.popleft()

    def _fill(
        self,
        tensor_slice: TensorSlice,
        description: TensorDescription,
        array: Array,
        meter: _Meter,
        index: int | None,
        deadline: Deadline,
    ) -> None:
        """Fill one array; ``index`` is the tensor's index in a model."""
        if description.law.HasField("literal"):
            array[...] = literals.values(tensor_slice).reshape(array.shape)
            meter.add(array.nbytes)
            return
        try:
            if array.flags.c_contiguous:
                self._fill_contiguous(description, array.reshape(-1), meter, deadline)
            else:
                self._fill_boxes(description, array, meter, deadline)
        except InvalidRequest as error:
            if index is None:
                raise
            raise fields.in_model(error, index) from error

    def _fill_contiguous(
        self, description: TensorDescription, elements: Array, meter: _Meter, deadline: Deadline
    ) -> None:
        report = meter.share_reporter(elements.nbytes) if description.law.HasField("orthogonal") else None
        for step in meter.steps(elements):
            self._work([(description, step.start, elements[step])], deadline, report)
            meter.add(elements[step].nbytes)

    def _fill_boxes(self, description: TensorDescription, array: Array, meter: _Meter, deadline: Deadline) -> None:
        first, buffer = 0, np.empty(min(array.size, _BOX_ELEMENTS), array.dtype)
        for box in _boxes(array.shape):
            place = array[box]
            values = buffer[: place.size]
            self._work([(description, first, values)], deadline)
            place[...] = values.reshape(place.shape)
            first += place.size
            meter.add(place.nbytes)

    def _chunk(
        self, tensor_slice: TensorSlice, description: TensorDescription, offset: int, count: int, deadline: Deadline
    ) -> Array:
        if description.law.HasField("literal"):
            return literals.values(tensor_slice)[offset : offset + count]
        values = np.empty(min(count, description.element_count - offset), dtypes.numpy_dtype(description.spec.dtype))
        self._work([(description, offset, values)], deadline)
        values.flags.writeable = False
        return values

    def _work(
        self,
        jobs: Collection[tuple[TensorDescription, int, Array]],
        deadline: Deadline,
        report: Callable[[float], None] | None = None,
    ) -> None:
        if deadline.has_passed():
            raise deadline.exceeded(self.target)
        if jobs:
            self.transport.call(partial(self._engine.fill, jobs, self.transport.ending(deadline), report), deadline)


class _VisitedPiece(NamedTuple):
    tensor: int
    first: int
    length: int
    dtype: np.dtype[Any]
    sample: Callable[[int, Array, Callable[[], bool]], object]


class _Meter:
    """Reports progress to the caller.

    Args:
        progress: Called as ``progress(done_bytes, total_bytes)``.
        descriptions: All tensors of the call.
    """

    def __init__(self, progress: Progress | None, descriptions: Sequence[TensorDescription]) -> None:
        self._progress = progress
        self._done = 0
        self._reported = 0
        self._total = sum(description.byte_count for description in descriptions) if progress else 0

    def steps(self, elements: Array) -> Iterator[slice]:
        """Slices to fill one after the other, each before a report; a single one without ``progress``."""
        step = max(1, len(elements) if self._progress is None else _GROUP_BYTES // elements.itemsize)
        for begin in range(0, len(elements), step):
            yield slice(begin, begin + step)

    def add(self, byte_count: int) -> None:
        """Count bytes as done, and report the sum."""
        self._done += byte_count
        if self._progress is not None and byte_count:
            self._reported = max(self._reported, self._done)
            self._progress(self._reported, self._total)

    def share_reporter(self, byte_count: int) -> Callable[[float], None] | None:
        """The function that reports the computed share of the next ``byte_count`` bytes, before they are in place."""
        progress, done = self._progress, self._done
        if progress is None:
            return None

        def report(share: float) -> None:
            if (computed := done + int(share * byte_count)) > self._reported:
                self._reported = computed
                progress(computed, self._total)

        return report


class _Group:
    """Small tensors that are filled together, so that all threads have work."""

    def __init__(self) -> None:
        self.jobs: deque[tuple[TensorDescription, int, Array]] = deque()
        self.results: deque[tuple[str, Array]] = deque()
        self._byte_count = 0
        self._spans = Spans()

    def add(self, description: TensorDescription, array: Array, result: tuple[str, Array], *, is_new: bool) -> bool:
        """Add a tensor and its result; return False if the group is full, or another tensor uses the same memory."""
        if self._byte_count + array.nbytes > _GROUP_BYTES:
            return False
        if not is_new:
            begin = array.__array_interface__["data"][0]
            if not self._spans.add(begin, begin + array.nbytes):
                return False
        self.jobs.append((description, 0, array.reshape(-1)))
        self.results.append(result)
        self._byte_count += array.nbytes
        return True


def _is_filled_alone(description: TensorDescription, array: Array) -> bool:
    """Whether a tensor is filled on its own, rather than in a group."""
    law = description.law.WhichOneof("law")
    return law in _FILLED_ALONE or array.nbytes > _GROUP_BYTES or not array.flags.c_contiguous


def _copier(values: Array) -> Callable[[int, Array, Callable[[], bool]], None]:
    def copy(first: int, out: Array, _cancelled: Callable[[], bool]) -> None:
        out[...] = values[first : first + len(out)]

    return copy


def _boxes(shape: tuple[int, ...]) -> Iterator[tuple[slice | int, ...]]:
    """Divide a shape, which is not 0-dimensional, into boxes that are consecutive in row-major order.

    >>> list(_boxes((2, 3, 1 << 17)))
    [(0, slice(0, 2, None)), (0, slice(2, 4, None)), (1, slice(0, 2, None)), (1, slice(2, 4, None))]
    """
    if 0 in shape:
        return
    axis, inner = len(shape), 1
    while axis > 0 and inner * shape[axis - 1] <= _BOX_ELEMENTS:
        axis -= 1
        inner *= shape[axis]
    if axis == 0:
        yield ()
        return
    step = _BOX_ELEMENTS // inner
    for outer in itertools.product(*map(range, shape[: axis - 1])):
        for begin in range(0, shape[axis - 1], step):
            yield *outer, slice(begin, begin + step)
