"""The service within the calling process: the client's targets ``local:`` and ``local:cuda``."""

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
    """Answers requests with no socket between: same validation, same errors as a server's.

    Args:
        backend: An open one, or a name for `engine.open_backend`. Default ``SEEDBED_BACKEND``, else ``auto``.

    Raises:
        ValueError: The backend cannot be used here, or an argument is out of range.

    Attributes:
        backend: What samples.

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
        """Answers a request that has one answer.

        Args:
            method: The RPC, such as ``DescribeTensor``.
            request: Its request message.

        Raises:
            ServiceError: The call failed.
        """
        _, answer = UNARY[method]
        with _as_service_errors():
            return answer(self._servicer, request)

    def describe(self, wanted: Sequence[TensorSlice], method: str, first_element: int = 0) -> list[TensorDescription]:
        """Validates what is wanted, before any of it is made, and tells what it resolves to.

        Args:
            wanted: The tensors, or one tensor.
            method: The RPC that errors shall sound like: ``InitTensor`` or ``InitModel``.
            first_element: The position within the first region to begin at.

        Raises:
            ServiceError: One of them cannot be served, or not from there on.
        """
        with _as_service_errors():
            descriptions = [
                self._servicer.describe(part, f"{fields.of_tensor(index)}." if method == "InitModel" else "")
                for index, part in enumerate(wanted)
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
            jobs: The descriptions that `describe` answered, the positions within their regions of the first element,
                and 1-D, C-contiguous arrays.
            cancelled: Asked often; once it is true, the work ends with a ``ServiceError`` of code CANCELLED.
            report: Called with the share of an orthogonal matrix that is computed, while it is.

        Raises:
            ServiceError: The call failed.
        """
        with _as_service_errors():
            watch = cancelled if report is None else engine.Watch(cancelled, report)
            self.backend.fill_all(list(itertools.starmap(engine.Job, jobs)), watch)

    def sampler(self, description: TensorDescription) -> Callable[[int, NDArray[Any], Callable[[], bool]], None]:
        """The function that fills arrays with elements of one region, for callers who keep all cores busy themselves.

        Args:
            description: What `describe` answered, of a region that is not empty. The function's arguments, and the
                errors that it raises, are those of `fill`.
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
