"""The client of a GPU of this process, the target ``local:cuda``: it samples straight into the GPU's memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from seedbed import _arguments, _calls, _literals, _outputs, _regions, dtypes
from seedbed._client import Client
from seedbed._retry import Deadline
from seedbed._transport import LocalTransport
from seedbed._types import Array, ModelLike, Outputs, Progress, RegionLike, Timeout
from seedbed.errors import InvalidRequest
from seedbed.v1 import TensorDescription, TensorSlice, TensorSpec, Zeros

if TYPE_CHECKING:
    from seedbed_server.engine.backends.cuda_device import CudaDevice
    from seedbed_server.service.local import CudaService

CupyArray = Any
"""CuPy has no types; for ``out`` it is what the caller gave."""

_PIECE_BYTES: Final = 64 << 20
_IN_GPU_MEMORY: Final = (2, 13)  # DLPack's kDLCUDA and kDLCUDAManaged
_NOT_SHARED: Final = (BufferError, NotImplementedError, TypeError, ValueError)  # with what DLPack is refused


class CudaClient(Client):
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
    - The work is put on CuPy's current stream, and calls return before it is done, as those of CuPy do. With another
      library's array for ``out`` they return when it is filled, since that library may use another stream.
    - ``progress`` is called when a tensor's work has begun, and the timeout counts until then.
    """

    _transport: LocalTransport

    def __init__(self, target: str, service: CudaService, timeout: float | None) -> None:
        super().__init__(target, LocalTransport(service, target), timeout)
        self._service = service
        self._memory = _Memory(service.device)

    def init_model(
        self,
        model: ModelLike,
        out: Outputs | None = None,
        progress: Progress | None = None,
        timeout: Timeout = ...,
    ) -> Generator[tuple[str, CupyArray], None, None]:
        """Makes many tensors, all of which are validated before the work on the first begins.

        Args:
            model: As for `Client.init_model`.
            out: As for `Client.init_model`, with arrays in the GPU's memory.
            progress: Called as ``progress(done_bytes, total_bytes)`` of the whole model when a tensor's work has begun.
            timeout: Seconds until the last tensor's work has begun, with all that is done between.

        Returns:
            An iterator of names and arrays, in the order asked for. A tensor's work begins when it is asked for.
        """
        wanted = _calls.slices(model)
        find = _calls.finder(out, wanted, self._memory.of)
        return self._tensors("InitModel", wanted, find, progress, self._seconds(timeout))

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
        first = _arguments.integer(first_element, "first_element", "element", _arguments.INT64)
        return self._in_pieces(_calls.tensor_slice(spec, region), first, self._seconds(timeout))

    def _run(
        self,
        spec: TensorSpec,
        *,
        region: RegionLike | None = None,
        out: Array | None = None,
        progress: Progress | None = None,
        timeout: Timeout = ...,
    ) -> CupyArray:
        wanted = _calls.tensor_slice(spec, region)
        if out is not None and _regions.is_sound(wanted):
            self._memory.of(out, wanted)
        [(_, array)] = self._tensors("InitTensor", [wanted], lambda _: out, progress, self._seconds(timeout))
        return array

    def _tensors(
        self,
        method: str,
        wanted: Sequence[TensorSlice],
        find: Callable[[str], object],
        progress: Progress | None,
        seconds: float | None,
    ) -> Generator[tuple[str, CupyArray], None, None]:
        deadline = Deadline(seconds)
        descriptions = self._described(method, wanted, deadline)
        done, total = 0, sum(description.byte_count for description in descriptions)
        for part, description in zip(wanted, descriptions, strict=True):
            array = self._tensor(part, description, find(part.spec.name), deadline)
            done += description.byte_count
            if progress is not None and description.byte_count:
                progress(done, total)
            yield part.spec.name, array
            del array  # the next one may need its memory

    def _in_pieces(
        self, wanted: TensorSlice, first: int, seconds: float | None
    ) -> Generator[tuple[int, CupyArray], None, None]:
        deadline = Deadline(seconds)
        [description] = self._described("InitTensor", [wanted], deadline, first)
        end = description.element_count
        step = _PIECE_BYTES // dtypes.numpy_dtype(wanted.spec.dtype).itemsize
        for offset in range(first, end, step):
            # No name for the array: it would keep the piece alive while the next is made.
            yield offset, self._piece(description, offset, min(step, end - offset), deadline)

    def _described(
        self, method: str, wanted: Sequence[TensorSlice], deadline: Deadline, first: int = 0
    ) -> list[TensorDescription]:
        for index, part in enumerate(wanted):
            if _literals.is_literal(part):
                _literals.check(part, f"tensors[{index}]." if method == "InitModel" else "")
        asked = [_without_values(part) for part in wanted]
        descriptions = self._transport.call(partial(self._service.describe, asked, method, first), deadline)
        return [
            _literals.describe(part) if _literals.is_literal(part) else description
            for part, description in zip(wanted, descriptions, strict=True)
        ]

    def _tensor(
        self, wanted: TensorSlice, description: TensorDescription, out: object, deadline: Deadline
    ) -> CupyArray:
        """Begins one tensor, and gives the array that will hold it."""
        with self._service.device.use():
            if out is None:
                array = self._memory.new(wanted.spec, _regions.extents(wanted))
                self._write(description, 0, array, deadline)
                return array
            array = self._memory.of(out, wanted)
            self._fill(description, array, deadline)
            if array is not out:
                self._memory.synchronize()
            return out

    def _fill(self, description: TensorDescription, array: CupyArray, deadline: Deadline) -> None:
        if array.flags.c_contiguous:
            self._write(description, 0, array, deadline)
            return
        contiguous = self._memory.new(description.spec, array.shape)
        self._write(description, 0, contiguous, deadline)
        array[...] = contiguous

    def _piece(self, description: TensorDescription, first: int, count: int, deadline: Deadline) -> CupyArray:
        with self._service.device.use():
            array = self._memory.new(description.spec, (count,))
            self._write(description, first, array, deadline)
        return array

    def _write(self, description: TensorDescription, first: int, array: CupyArray, deadline: Deadline) -> None:
        """Begins to write the elements from ``first`` on to a contiguous array."""
        if deadline.has_passed():
            raise deadline.exceeded(self.target)
        if description.law.HasField("literal"):
            self._memory.copy(_literals.values(_part_of(description))[first : first + array.size], array)
        elif array.size:
            write = partial(self._service.write, description, first, array.size, array.data.ptr)
            self._transport.call(write, deadline)


def _part_of(description: TensorDescription) -> TensorSlice:
    return TensorSlice(spec=description.spec, region=description.region)


def _without_values(wanted: TensorSlice) -> TensorSlice:
    """A part of the same shape and dtype that the service describes in a literal's place."""
    if not _literals.is_literal(wanted):
        return wanted
    spec = TensorSpec(shape=wanted.spec.shape, dtype=wanted.spec.dtype, zeros=Zeros())
    return TensorSlice(spec=spec, region=wanted.region if wanted.HasField("region") else None)


class _Memory:
    """Arrays in the memory of one GPU.

    Args:
        device: The GPU.
    """

    def __init__(self, device: CudaDevice) -> None:
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
                f"{gib:.1f} GiB of GPU {self._number}'s memory for tensor {spec.name!r} cannot be had; {remedy}"
            ) from error

    def copy(self, values: Array, array: CupyArray) -> None:
        """Copies values of this process to a contiguous array."""
        if values.size:
            array.reshape(-1).view("u1").set(values.view("u1"))

    def of(self, out: object, wanted: TensorSlice) -> CupyArray:
        """The array given, as a CuPy array of the same memory.

        Raises:
            InvalidRequest: If it is not in this GPU's memory, has another shape or dtype, or cannot be written.
        """
        which = _outputs.label(wanted)
        array = self._shared(out, which)
        if (device := array.device.id) != self._number:
            remedy = f"give one of GPU {self._number}, or connect to local:cuda:{device}"
            raise InvalidRequest("out", f"is in GPU {device}'s memory{which}; {remedy}")
        _outputs.check_fit(array.shape, array.dtype, wanted)
        if array.size and any(step == 0 and size > 1 for step, size in zip(array.strides, array.shape, strict=True)):
            raise InvalidRequest("out", f"has elements that share memory{which}; give an array that was not expanded")
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
            remedy = "leave it away, and give the result to jax.dlpack.from_dlpack"
            raise InvalidRequest("out", f"is a JAX array{which}, which cannot be written; {remedy}")
        try:
            # A torch tensor that requires a gradient shares its memory only once it is detached.
            return self._cupy.from_dlpack(detach() if detach else out)
        except _NOT_SHARED as error:
            raise InvalidRequest("out", f"cannot be shared with CuPy{which}: {error}; give a CuPy array") from error

    def synchronize(self) -> None:
        """Waits for what was put on the current stream."""
        self._cupy.cuda.get_current_stream().synchronize()
