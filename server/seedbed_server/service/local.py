"""The service in the calling process, for the client's targets ``local:`` and ``local:cuda``."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message
from numpy.typing import NDArray

from seedbed.common import fields
from seedbed.common.status import ServiceError
from seedbed.v1 import TensorDescription, TensorSlice
from seedbed_server import engine
from seedbed_server.service.errors import to_status
from seedbed_server.service.servicer import UNARY, InitServicer, within

if TYPE_CHECKING:
    from seedbed_server.engine.backends.cupy import Job


class LocalService:
    """Serves requests without a socket, with the validation and the errors of a server.

    Args:
        backend: An open one, or a name for `engine.open_backend`. Default ``SEEDBED_BACKEND``, else ``auto``.

    Raises:
        ValueError: The backend cannot be used here, or an argument is out of range.

    Attributes:
        backend: The backend.

    >>> from seedbed.v1 import CalculateGainRequest, Nonlinearity
    >>> service = LocalService("numpy")
    >>> service.unary("CalculateGain", CalculateGainRequest(nonlinearity=Nonlinearity.NONLINEARITY_SELU)).gain
    0.75
    """

    def __init__(self, backend: engine.Backend | str | None = None) -> None:
        if not isinstance(backend, engine.Backend):
            backend = engine.open_backend(backend)
        self.backend = backend
        self._servicer = InitServicer(backend)

    def unary(self, method: str, request: Message) -> Message:
        """The response to a request that has one response.

        Args:
            method: The RPC, such as ``DescribeTensor``.
            request: Its request message.

        Raises:
            ServiceError: The call failed.
        """
        _, respond = UNARY[method]
        with _as_service_errors():
            return respond(self._servicer, request)

    def describe(self, slices: Sequence[TensorSlice], method: str, first_element: int = 0) -> list[TensorDescription]:
        """Validates tensors before any is sampled, and resolves them.

        Args:
            slices: The parts of tensors; for ``InitTensor``, one.
            method: The RPC whose field paths errors have: ``InitTensor`` or ``InitModel``.
            first_element: The position within the first region to begin at.

        Raises:
            ServiceError: A tensor is invalid, or its region has no such position.
        """
        with _as_service_errors():
            descriptions = [
                self._servicer.describe(part, f"{fields.of_tensor(index)}." if method == "InitModel" else "")
                for index, part in enumerate(slices)
            ]
            if first_element:
                within(first_element, descriptions[0].element_count, "first_element", "the region")
        return descriptions

    def fill(
        self,
        jobs: Iterable[tuple[TensorDescription, int, NDArray[Any]]],
        cancelled: Callable[[], bool],
        report: Callable[[float], None] | None = None,
    ) -> None:
        """Fills arrays, which do not share memory, with elements of described regions, on all threads.

        Args:
            jobs: Descriptions from `describe`, the position of the first element within each region, and 1-D,
                C-contiguous arrays.
            cancelled: Polled often; once it returns True, the work ends with a ``ServiceError`` of code CANCELLED.
            report: Called with the fraction of an orthogonal matrix that is computed.

        Raises:
            ServiceError: The call failed.
        """
        with _as_service_errors():
            watch = cancelled if report is None else engine.Watch(cancelled, report)
            self.backend.fill_all(list(itertools.starmap(engine.Job, jobs)), watch)

    def sampler(self, description: TensorDescription) -> Callable[[int, NDArray[Any], Callable[[], bool]], None]:
        """The function that fills arrays with elements of one region, for callers with threads of their own.

        Args:
            description: From `describe`; its region is not empty. The function has the arguments and the errors of
                `fill`.
        """
        with _as_service_errors():
            sample = self.backend.alone().sampler(description)

        def fill(first_element: int, out: NDArray[Any], cancelled: Callable[[], bool]) -> None:
            with _as_service_errors():
                sample(first_element, out, cancelled)()

        return fill


class CudaService(LocalService):
    """A service in this process that also writes straight into the memory of a GPU.

    Args:
        device: Which GPU, counted from 0. Default ``SEEDBED_DEVICE``, else the calling thread's current one.

    Raises:
        ValueError: It cannot be used.

    Attributes:
        device: The GPU, with the module ``cupy`` that drives it.
    """

    def __init__(self, device: int | None = None) -> None:
        self._backend = engine.open_cupy(device=device)
        self.device = self._backend.cuda
        super().__init__(self._backend)

    def write_all(self, jobs: Sequence[Job]) -> None:
        """Begins to write elements of described regions, none of which is empty, in few launches.

        Args:
            jobs: What to write, and to which addresses in the GPU's memory. The work is put on CuPy's current stream.

        Raises:
            ServiceError: The call failed.
        """
        with _as_service_errors(), self.device.use():
            self._backend.write_all(jobs, None)


@contextlib.contextmanager
def _as_service_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise ServiceError(to_status(error)) from error
