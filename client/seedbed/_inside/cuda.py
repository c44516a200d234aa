"""The client of a GPU of this process, the target ``local:cuda``: it samples straight into the GPU's memory."""

from __future__ import annotations

import contextlib
import functools
import math
import sys
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple

from seedbed import dtypes
from seedbed._ask import arguments, literals, outputs, regions, requests
from seedbed._inside.base import InsideClient, Spans
from seedbed._inside.engine import CudaEngine, Gpu, open_cuda_engine
from seedbed._receive import arrays
from seedbed._types import Array, ModelLike, Outputs, Progress, RegionLike, Timeout
from seedbed.common.deadline import Deadline
from seedbed.errors import InvalidRequest
from seedbed.v1 import TensorDescription, TensorSlice, TensorSpec

CupyArray = Any
"""CuPy has no types; for ``out`` it is what the caller gave."""

_PIECE_BYTES: Final = 64 << 20
_GROUP_TENSORS: Final = 256
_GROUP_BYTES: Final = 1 << 30
_IN_GPU_MEMORY: Final = (2, 13)  # DLPack's kDLCUDA and kDLCUDAManaged
_NOT_SHARED: Final = (BufferError, NotImplementedError, TypeError, ValueError)  # with what DLPack is refused


class CudaClient(InsideClient[CudaEngine]):
    """A client of one GPU of this process; made by ``seedbed.connect("local:cuda")``, closed by ``with`` or `close`.

    Its methods are those of `seedbed.Client`, with the same arguments, errors and values. Its arrays are on the GPU,
    and nothing is copied there but orthogonal matrices, which the CPU computes::

        with seedbed.connect("local:cuda") as client:
            w = client.normal((4096, 4096), dtype="bfloat16")  # a CuPy array
            client.normal((4096, 4096), out=torch.empty((4096, 4096), device="cuda"))

    What is different:

    - New arrays are CuPy's, with ``ml_dtypes.bfloat16``.
    - ``out`` is a CuPy array, or another with DLPack, such as a torch tensor, in this GPU's memory. One that is not
      C-contiguous needs memory for a second array of its size, which is then copied on the GPU.
    - The work is put on CuPy's current stream, or for torch tensors on torch's, and calls return before it is done, as
      those of CuPy and torch do. With another library's array for ``out`` they return when it is filled, since that
      library may use another stream.
    - ``progress`` is called when a tensor's work has begun, and the timeout counts until then.
    """

    @functools.cached_property
    def _memory(self) -> _Memory:
        return _Memory(self._engine.device)

    def _open_engine(self) -> CudaEngine:
        return open_cuda_engine(self.target)

    def init_model(
        self,
        model: ModelLike,
        out: Outputs | None = None,
        progress: Progress | bool | None = None,
        timeout: Timeout = ...,
    ) -> Generator[tuple[str, CupyArray], None, None]:
        """Makes many tensors, all of which are validated before the work on the first begins.

        Args:
            model: As for `Client.init_model`.
            out: As for `Client.init_model`, with arrays in the GPU's memory.
            progress: Called as ``progress(done_bytes, total_bytes)`` of the whole model when a tensor's work has begun;
                True draws a bar.
            timeout: Seconds until the last tensor's work has begun, with all that is done between.

        Returns:
            An iterator of names and arrays, in the order asked for. The work begins when a tensor is asked for, on as
            many of the next ones as go together: up to 256 tensors, and 1 GiB, of which arrays in a mapping ``out``
            do not count; fewer where memory is short.
        """
        return super().init_model(model, out, progress, timeout)

    def _model(
        self, wanted: Sequence[TensorSlice], out: Outputs | None, report: Progress | None, seconds: float | None
    ) -> Generator[tuple[str, CupyArray], None, None]:
        find = arrays.finder(out, wanted, self._memory.check)
        return self._tensors("InitModel", wanted, find, report, seconds, isinstance(out, Mapping))

    def iter_chunks(
        self,
        spec: TensorSpec,
        region: RegionLike | None = None,
        first_element: int = 0,
        timeout: Timeout = ...,
    ) -> Generator[tuple[int, CupyArray], None, None]:
        """Makes one tensor, or a region of it, in pieces of 64 MiB: for tensors that the GPU's memory cannot hold.

        Args:
            spec: The tensor, such as `seedbed.spec` makes.
            region: As for `Client.iter_chunks`.
            first_element: As for `Client.iter_chunks`.
            timeout: Seconds until the last piece's work has begun, with all that is done between.

        Returns:
            An iterator of the position of a piece's first element and its elements, a 1-D CuPy array that is the
            caller's own: memory is free again when the caller has dropped it.
        """
        first = arguments.integer(first_element, "first_element", "element", arguments.INT64)
        return self._in_pieces(requests.tensor_slice(spec, region), first, Deadline(self._seconds(timeout)))

    def visit(
        self,
        model: ModelLike,
        use: Callable[[int, int, Array], object],
        jobs: int | None = None,
        timeout: Timeout = ...,
    ) -> None:
        """As `Client.visit`, one piece of 64 MiB after the other on the calling thread, as 1-D CuPy arrays.

        Args:
            model: As for `Client.visit`.
            use: As for `Client.visit`.
            jobs: Not read.
            timeout: Seconds until the last piece's work has begun, with all that is done between.
        """
        deadline = Deadline(self._seconds(timeout))
        wanted = requests.slices(model)
        self._described("InitModel", wanted, deadline)  # all are judged before any is made
        for index, part in enumerate(wanted):
            for first, values in self._in_pieces(part, 0, deadline):
                use(index, first, values)

    def _array(
        self,
        spec: TensorSpec,
        region: RegionLike | None,
        out: Array | None,
        progress: Progress | None,
        seconds: float | None,
    ) -> CupyArray:
        wanted = requests.tensor_slice(spec, region)
        if out is not None and regions.is_sound(wanted):
            self._memory.check(out, wanted)
        [(_, array)] = self._tensors("InitTensor", [wanted], lambda _: out, progress, seconds)
        return array

    def _tensors(
        self,
        method: str,
        wanted: Sequence[TensorSlice],
        find: Callable[[str], object],
        progress: Progress | None,
        seconds: float | None,
        are_kept: bool = False,
    ) -> Generator[tuple[str, CupyArray], None, None]:
        """Makes tensors; ``are_kept`` says that the arrays to be found need no memory now, whether used or not."""
        deadline = Deadline(seconds)
        descriptions = self._described(method, wanted, deadline)
        waiting = deque(map(_Tensor, wanted, descriptions))
        done, total = 0, sum(description.byte_count for description in descriptions)
        while waiting:
            with self._engine.device.use():
                group = self._group(waiting, find, are_kept)
                self._begin(group, deadline)
            while group:
                self.transport.call(_nothing, deadline)  # which fails once the client is closed
                tensor = group.popleft()
                done += tensor.description.byte_count
                if progress is not None and tensor.description.byte_count:
                    progress(done, total)
                yield tensor.wanted.spec.name, tensor.place.given
                del tensor  # the next one may need its memory

    def _group(self, waiting: deque[_Tensor], find: Callable[[str], object], are_kept: bool) -> deque[_Tensor]:
        """Takes the next tensors, and finds places for them."""
        group: deque[_Tensor] = deque()
        spans, byte_count = Spans(), 0
        while waiting and len(group) < _GROUP_TENSORS:
            tensor = waiting[0]
            if tensor.out is _UNKNOWN:
                tensor.out = find(tensor.wanted.spec.name)
            if not are_kept or tensor.out is None:
                byte_count += tensor.description.byte_count
            if group and byte_count > _GROUP_BYTES:
                break
            try:
                place = self._memory.place(tensor.out, tensor.wanted)
            except MemoryError:
                if not group:
                    raise
                break  # the caller may drop those before
            if not spans.add(*place.span(tensor.description.byte_count)):
                break  # the caller may use the same memory again and again
            if are_kept and place.strided is not None:
                byte_count += tensor.description.byte_count
            tensor.place = place
            group.append(waiting.popleft())
        return group

    def _begin(self, group: Sequence[_Tensor], deadline: Deadline) -> None:
        by_stream: dict[int | None, list[_Tensor]] = {}
        for tensor in group:
            by_stream.setdefault(tensor.place.stream, []).append(tensor)
        for stream, tensors in by_stream.items():
            with self._memory.on_stream(stream):
                self._begin_together(tensors, deadline)
        if any(tensor.place.is_awaited for tensor in group):
            self._memory.synchronize()

    def _begin_together(self, tensors: Sequence[_Tensor], deadline: Deadline) -> None:
        jobs, copies = [], []
        for tensor in tensors:
            place, description = tensor.place, tensor.description
            pointer = place.pointer
            if place.strided is not None:
                contiguous = self._memory.new(description.spec, place.strided.shape)
                copies.append((place.strided, contiguous))
                pointer = contiguous.data.ptr
            jobs.append((description, 0, description.element_count, pointer))
        self._write(jobs, deadline)
        for strided, contiguous in copies:
            strided[...] = contiguous

    def _in_pieces(
        self, wanted: TensorSlice, first: int, deadline: Deadline
    ) -> Generator[tuple[int, CupyArray], None, None]:
        [description] = self._described("InitTensor", [wanted], deadline, first)
        end = description.element_count
        step = _PIECE_BYTES // dtypes.numpy_dtype(wanted.spec.dtype).itemsize
        for offset in range(first, end, step):
            # No name for the array: it would keep the piece alive while the next is made.
            yield offset, self._piece(description, offset, min(step, end - offset), deadline)

    def _piece(self, description: TensorDescription, first: int, count: int, deadline: Deadline) -> CupyArray:
        with self._engine.device.use():
            array = self._memory.new(description.spec, (count,))
            self._write([(description, first, count, array.data.ptr)], deadline)
        return array

    def _write(self, jobs: Sequence[tuple[TensorDescription, int, int, int]], deadline: Deadline) -> None:
        """Begins to write elements of regions: from which one on, how many, and to which address."""
        if deadline.has_passed():
            raise deadline.exceeded(self.target)
        others = []
        for description, first, count, pointer in jobs:
            if not count:
                continue
            if description.law.HasField("literal"):
                values = literals.values(_part_of(description))[first : first + count]
                self._engine.device.copy_from_host(pointer, values, None)
            else:
                others.append((description, first, count, pointer))
        self.transport.call(partial(self._engine.write_all, others), deadline)


_UNKNOWN: Final = object()


@dataclass
class _Tensor:
    """One of the tensors that are wanted."""

    wanted: TensorSlice
    description: TensorDescription
    out: object = _UNKNOWN
    place: _Place = field(init=False)


class _Place(NamedTuple):
    """Where a tensor goes."""

    given: object
    """What the caller gets."""
    pointer: int
    strided: CupyArray | None = None
    """The same memory, if it is not contiguous."""
    stream: int | None = None
    """The address of torch's stream; None means CuPy's."""
    is_awaited: bool = False

    def span(self, byte_count: int) -> tuple[int, int]:
        """The addresses between which it lies."""
        if self.strided is None:
            return self.pointer, self.pointer + byte_count
        reaches = [step * (size - 1) for step, size in zip(self.strided.strides, self.strided.shape, strict=True)]
        end = self.strided.dtype.itemsize + sum(reach for reach in reaches if reach > 0)
        return self.pointer + sum(reach for reach in reaches if reach < 0), self.pointer + end


def _nothing() -> None:
    pass


def _part_of(description: TensorDescription) -> TensorSlice:
    return TensorSlice(spec=description.spec, region=description.region)


class _Memory:
    """Arrays in the memory of one GPU.

    Args:
        device: The GPU.
    """

    def __init__(self, device: Gpu) -> None:
        self._cupy = device.cupy
        self._number = device.number

    def new(self, spec: TensorSpec, shape: tuple[int, ...]) -> CupyArray:
        """A new array for elements of a tensor, on the current device.

        Raises:
            InvalidRequest: If CuPy has no arrays of this shape.
            MemoryError: If there is no memory for it.
        """
        dtype = dtypes.numpy_dtype(spec.dtype)
        try:
            return self._cupy.empty(shape, dtype)
        except ValueError as error:
            raise InvalidRequest("spec.shape", f"{shape} is no shape that CuPy can hold: {error}") from None
        except MemoryError as error:
            gib = math.prod(shape) * dtype.itemsize / 2**30
            remedy = "ask for regions of it, use iter_chunks, or free what else is there"
            raise MemoryError(
                f"{gib:.1f} GiB of GPU {self._number}'s memory for tensor {spec.name!r} is unavailable; {remedy}"
            ) from error

    def place(self, out: CupyArray, wanted: TensorSlice) -> _Place:
        """Where a tensor goes: to a new array, or to the one given.

        Raises:
            InvalidRequest: As for `of`.
            MemoryError: If there is no memory for a new array.
        """
        if out is None:
            array = self.new(wanted.spec, regions.extents(wanted))
            return _Place(array, array.data.ptr)
        stream = self._torch_stream(out)
        if stream is not None and self._is_plain(out, wanted):
            return _Place(out, out.data_ptr(), stream=stream)
        with self.on_stream(stream):
            array = self.of(out, wanted)
        strided = None if array.flags.c_contiguous else array
        return _Place(out, array.data.ptr, strided, stream, stream is None and array is not out)

    def check(self, out: object, wanted: TensorSlice) -> None:
        """Refuses an array that a tensor cannot go to; the errors are those of `of`."""
        stream = self._torch_stream(out)
        if stream is not None and self._is_plain(out, wanted):
            return
        with self.on_stream(stream):
            self.of(out, wanted)

    def on_stream(self, stream: int | None) -> contextlib.AbstractContextManager[object]:
        """Makes a stream, given by its address, CuPy's current one for a ``with`` block; None changes nothing."""
        if stream is None:
            return contextlib.nullcontext()
        cuda = self._cupy.cuda
        there: contextlib.AbstractContextManager[object]
        there = cuda.ExternalStream(stream, self._number) if stream else cuda.Stream.null
        return there

    def _torch_stream(self, out: CupyArray) -> int | None:
        """The address of torch's current stream on this GPU; None if the array is no torch tensor on a GPU."""
        torch: Any = sys.modules.get("torch")  # who gives a tensor has imported it
        tensor_type: Any = getattr(torch, "Tensor", ())
        if not isinstance(out, tensor_type) or not out.is_cuda:
            return None
        return int(torch.cuda.current_stream(self._number).cuda_stream)

    def _is_plain(self, out: CupyArray, wanted: TensorSlice) -> bool:
        """Whether a torch tensor fits, and is contiguous memory of this GPU; DLPack would take far longer to tell."""
        torch = sys.modules["torch"]
        return (
            type(out) in (torch.Tensor, torch.nn.Parameter)
            and out.layout is torch.strided
            and out.device.index == self._number
            and tuple(out.shape) == regions.extents(wanted)
            and str(out.dtype) == f"torch.{dtypes.name_of(wanted.spec.dtype)}"
            and out.is_contiguous()
        )

    def of(self, out: object, wanted: TensorSlice) -> CupyArray:
        """The array given, as a CuPy array of the same memory.

        Raises:
            InvalidRequest: If it is not in this GPU's memory, has another shape or dtype, or cannot be written.
        """
        which = outputs.label(wanted)
        array = self._shared(out, which)
        if (device := array.device.id) != self._number:
            remedy = f"give one of GPU {self._number}, or connect to local:cuda:{device}"
            raise InvalidRequest("out", f"is in GPU {device}'s memory{which}; {remedy}")
        outputs.check_fit(array.shape, array.dtype, wanted)
        outputs.check_no_overlap(array, wanted)
        return array

    def _shared(self, out: object, which: str) -> CupyArray:
        if isinstance(out, self._cupy.ndarray):
            return out
        locate, detach = getattr(out, "__dlpack_device__", None), getattr(out, "detach", None)
        if locate is None:
            remedy = "give a CuPy array, or another with DLPack such as a torch tensor"
            raise InvalidRequest("out", f"is a {type(out).__name__}{which}; {remedy}")
        if locate()[0] not in _IN_GPU_MEMORY:
            remedy = f"give an array in GPU {self._number}'s, or connect to local:"
            raise InvalidRequest("out", f"is not in a GPU's memory{which}; {remedy}")
        if type(out).__module__.startswith("jax"):  # CuPy would not mind
            remedy = "omit it, and give the result to jax.dlpack.from_dlpack"
            raise InvalidRequest("out", f"is a JAX array{which}, which cannot be written; {remedy}")
        try:
            # A torch tensor that requires a gradient shares its memory only once it is detached.
            return self._cupy.from_dlpack(detach() if detach else out)
        except _NOT_SHARED as error:
            raise InvalidRequest("out", f"cannot be shared with CuPy{which}: {error}; give a CuPy array") from error

    def synchronize(self) -> None:
        """Waits for what was put on the current stream."""
        self._cupy.cuda.get_current_stream().synchronize()
