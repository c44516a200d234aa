"""The client of this process's own engine, the target ``local:``: it fills the caller's memory, nothing travels."""

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
"""What is filled at once of small tensors, or of one large tensor before its progress is told."""

_CHUNK_BYTES: Final = 16 << 20
"""Of `iter_chunks`: enough for many threads, and little enough that glibc keeps it for the next one."""

_VISIT_BYTES: Final = 2 << 20
"""Of `visit`: what stays in a core's cache until it is used, and takes several times longer than Python's part."""

_BOX_ELEMENTS: Final = 1 << 18
"""What is made at once for an array that is not contiguous."""

_ALONE: Final = ("literal", "parts", "expression", "orthogonal")
"""What is filled by itself: it is made here, its values may turn out not to be finite, or it takes long."""


class LocalClient(InsideClient[Engine]):
    """A client of this process's own engine; made by ``seedbed.connect("local:")``, closed by ``with`` or `close`.

    Its methods are those of `seedbed.Client`, with the same arguments, errors and values. All threads of the backend
    write straight into the result, and no memory is taken beside it, unless ``out`` is not C-contiguous.

    What is different: small tensors of a model are filled together, up to 64 MiB, before the first of them is given;
    ``progress`` is told once for each tensor, and of large ones for each 64 MiB; of an orthogonal matrix, which is
    copied to its place when it is finished, what is computed counts as done; and chunks have 16 MiB.
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
        """What makes one tensor, once its arguments are checked; see `init`."""
        wanted = requests.tensor_slice(spec, region)
        if out is not None and regions.is_sound(wanted):
            outputs.as_array(out, wanted)

        def make() -> Array:
            [(_, array)] = self._tensors("InitTensor", [wanted], lambda _: out, progress, deadline)
            return array

        return make

    def _model(
        self, wanted: Sequence[TensorSlice], out: Outputs | None, report: Progress | None, seconds: float | None
    ) -> Generator[tuple[str, Array], None, None]:
        return self.model_arrays(wanted, out, report, Deadline(seconds))

    def model_arrays(
        self, wanted: Sequence[TensorSlice], out: Outputs | None, progress: Progress | None, deadline: Deadline
    ) -> Generator[tuple[str, Array], None, None]:
        """As `init_model`, until a deadline that another thread may bring about."""
        find = arrays.finder(out, wanted, outputs.as_array)
        return self._tensors("InitModel", wanted, find, progress, deadline)

    def chunks(self, wanted: TensorSlice, first: int, deadline: Deadline) -> Generator[tuple[int, Array], None, None]:
        """As `iter_chunks`, until a deadline that another thread may bring about."""
        [description] = self._described("InitTensor", [wanted], deadline, first)
        step = _CHUNK_BYTES // dtypes.numpy_dtype(description.spec.dtype).itemsize
        for offset in range(first, description.element_count, step):
            # No name for the array: it would keep the chunk alive while the next is made.
            yield offset, self._chunk(wanted, description, offset, step, deadline)

    def visit(
        self,
        model: ModelLike,
        use: Callable[[int, int, Array], object],
        jobs: int | None = None,
        timeout: Timeout = ...,
    ) -> None:
        deadline, wanted = Deadline(self._seconds(timeout)), requests.slices(model)
        threads = arguments.jobs(jobs, self._engine.backend.threads)
        pieces = Shared(self._pieces_of(wanted, self._described("InitModel", wanted, deadline)))

        def work() -> None:
            buffer = np.empty(_VISIT_BYTES, np.uint8)
            for piece in pieces:
                use(piece.tensor, piece.first, self._made(piece, buffer, deadline))

        run_together([work] * threads, deadline)

    def _pieces_of(
        self, wanted: Sequence[TensorSlice], descriptions: Sequence[TensorDescription]
    ) -> Iterator[_VisitedPiece]:
        for index, (part, description) in enumerate(zip(wanted, descriptions, strict=True)):
            if not description.element_count:
                continue
            dtype = dtypes.numpy_dtype(description.spec.dtype)
            is_literal = description.law.HasField("literal")
            make = _copier(literals.values(part)) if is_literal else self._engine.sampler(description)
            step = _VISIT_BYTES // dtype.itemsize
            for first in range(0, description.element_count, step):
                yield _VisitedPiece(index, first, min(step, description.element_count - first), dtype, make)

    def _made(self, piece: _VisitedPiece, buffer: Array, deadline: Deadline) -> Array:
        if deadline.has_passed():
            raise deadline.exceeded(self.target)
        values = buffer[: piece.length * piece.dtype.itemsize].view(piece.dtype)
        make = partial(piece.make, piece.first, values, self.transport.ending(deadline))
        try:
            self.transport.call(make, deadline)
        except InvalidRequest as error:
            raise fields.in_model(error, piece.tensor) from error
        return values

    def _tensors(
        self,
        method: str,
        wanted: Sequence[TensorSlice],
        find: Callable[[str], Array | None],
        progress: Progress | None,
        deadline: Deadline,
    ) -> Generator[tuple[str, Array], None, None]:
        descriptions = self._described(method, wanted, deadline)
        meter = _Meter(progress, descriptions)
        group = _Group()
        for index, (part, description) in enumerate(zip(wanted, descriptions, strict=True)):
            given = find(part.spec.name)
            array = arrays.new_array(part) if given is None else outputs.as_array(given, part)
            result = part.spec.name, array if given is None else given
            is_alone = _is_alone(description, array)
            if is_alone or not group.add(description, array, result, is_new=given is None):
                yield from self._filled(group, meter, deadline)
                group = _Group()
                if is_alone:
                    self._fill(part, description, array, meter, index if method == "InitModel" else None, deadline)
                    yield result
                else:
                    group.add(description, array, result, is_new=given is None)
            del array, given, result  # the next one may need their memory
        yield from self._filled(group, meter, deadline)

    def _filled(self, group: _Group, meter: _Meter, deadline: Deadline) -> Generator[tuple[str, Array], None, None]:
        self._work(group.jobs, deadline)
        while group.results:
            _, _, elements = group.jobs.popleft()
            meter.add(elements.nbytes)
            yield group.results.popleft()

    def _fill(
        self,
        wanted: TensorSlice,
        description: TensorDescription,
        array: Array,
        meter: _Meter,
        index: int | None,
        deadline: Deadline,
    ) -> None:
        """Fills one array; ``index`` is the number of its tensor in a model."""
        if description.law.HasField("literal"):
            array[...] = literals.values(wanted).reshape(array.shape)
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
        tell = meter.teller(elements.nbytes) if description.law.HasField("orthogonal") else None
        for part in meter.parts(elements):
            self._work([(description, part.start, elements[part])], deadline, tell)
            meter.add(elements[part].nbytes)

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
        self, wanted: TensorSlice, description: TensorDescription, offset: int, count: int, deadline: Deadline
    ) -> Array:
        if description.law.HasField("literal"):
            return literals.values(wanted)[offset : offset + count]
        values = np.empty(min(count, description.element_count - offset), dtypes.numpy_dtype(description.spec.dtype))
        self._work([(description, offset, values)], deadline)
        values.flags.writeable = False
        return values

    def _work(
        self,
        jobs: Collection[tuple[TensorDescription, int, Array]],
        deadline: Deadline,
        tell: Callable[[float], None] | None = None,
    ) -> None:
        if deadline.has_passed():
            raise deadline.exceeded(self.target)
        if jobs:
            self.transport.call(partial(self._engine.fill, jobs, self.transport.ending(deadline), tell), deadline)


class _VisitedPiece(NamedTuple):
    tensor: int
    first: int
    length: int
    dtype: np.dtype[Any]
    make: Callable[[int, Array, Callable[[], bool]], object]


class _Meter:
    """Tells a caller how much is done.

    Args:
        progress: Called as ``progress(done_bytes, total_bytes)``.
        descriptions: All that is to be done.
    """

    def __init__(self, progress: Progress | None, descriptions: Sequence[TensorDescription]) -> None:
        self._progress = progress
        self._done = 0
        self._told = 0
        self._total = sum(description.byte_count for description in descriptions) if progress else 0

    def parts(self, elements: Array) -> Iterator[slice]:
        """What to fill before more is told; all at once if nobody wants to know."""
        step = max(1, len(elements) if self._progress is None else _GROUP_BYTES // elements.itemsize)
        for begin in range(0, len(elements), step):
            yield slice(begin, begin + step)

    def add(self, byte_count: int) -> None:
        """Tells that so much more is done."""
        self._done += byte_count
        if self._progress is not None and byte_count:
            self._told = max(self._told, self._done)
            self._progress(self._told, self._total)

    def teller(self, byte_count: int) -> Callable[[float], None] | None:
        """What is called with the share of the next so many bytes that is computed, but not yet where it belongs."""
        progress, done = self._progress, self._done
        if progress is None:
            return None

        def tell(share: float) -> None:
            if (computed := done + int(share * byte_count)) > self._told:
                self._told = computed
                progress(computed, self._total)

        return tell


class _Group:
    """Small tensors that are filled together, so that threads have enough to do."""

    def __init__(self) -> None:
        self.jobs: deque[tuple[TensorDescription, int, Array]] = deque()
        self.results: deque[tuple[str, Array]] = deque()
        self._byte_count = 0
        self._spans = Spans()

    def add(self, description: TensorDescription, array: Array, result: tuple[str, Array], *, is_new: bool) -> bool:
        """Adds a tensor, and what to give when it is filled; False if there is no room, or its memory is another's."""
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


def _is_alone(description: TensorDescription, array: Array) -> bool:
    """Whether a tensor is not filled together with others."""
    law = description.law.WhichOneof("law")
    return law in _ALONE or array.nbytes > _GROUP_BYTES or not array.flags.c_contiguous


def _copier(values: Array) -> Callable[[int, Array, Callable[[], bool]], None]:
    def copy(first: int, out: Array, _cancelled: Callable[[], bool]) -> None:
        out[...] = values[first : first + len(out)]

    return copy


def _boxes(shape: tuple[int, ...]) -> Iterator[tuple[slice | int, ...]]:
    """Boxes that follow each other in row-major order, and cover an array of this shape, which is not 0-dimensional.

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
