"""The engine in this process: the interface that the server registers for ``local:`` and ``local:cuda``."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol, cast

from google.protobuf.message import Message

from seedbed._types import Array
from seedbed._wire.targets import LOCAL
from seedbed.errors import InvalidRequest
from seedbed.v1 import TensorDescription, TensorSlice

_GROUP: Final = "seedbed.inside"
"""The entry points with which an installed server registers its engine. This package never imports the server."""


class Backend(Protocol):
    """The backend that samples."""

    threads: int


class Engine(Protocol):
    """A service without a socket, with the validation and the errors of a server."""

    backend: Backend

    def unary(self, method: str, request: Message) -> Message:
        """Handle a request with a single response."""

    def describe(self, slices: Sequence[TensorSlice], method: str, first_element: int = 0) -> list[TensorDescription]:
        """Validate and resolve slices of tensors, without sampling."""

    def fill(
        self,
        jobs: Iterable[tuple[TensorDescription, int, Array]],
        cancelled: Callable[[], bool],
        report: Callable[[float], None] | None = None,
    ) -> None:
        """Fill arrays with elements of described regions, on all threads."""

    def sampler(self, description: TensorDescription) -> Callable[[int, Array, Callable[[], bool]], None]:
        """The function that fills arrays with elements of one region, on the calling thread."""


class Gpu(Protocol):
    """A GPU of this process."""

    cupy: Any
    number: int

    def use(self) -> contextlib.AbstractContextManager[object]:
        """Make it CuPy's current device for a ``with`` block."""

    def copy_from_host(self, pointer: int, values: Array, stream: Any) -> None:  # noqa: ANN401 - CuPy has no types
        """Copy an array in host memory to an address in the GPU's memory."""


class CudaEngine(Engine, Protocol):
    """An engine that writes straight into a GPU's memory."""

    device: Gpu

    def write_all(self, jobs: Sequence[tuple[TensorDescription, int, int, int]]) -> None:
        """Queue jobs: a description, the first element, the number of elements, and the address to write to."""


def open_engine() -> Engine:
    """Open the engine that SEEDBED_BACKEND and SEEDBED_THREADS choose, by default on this machine's CPUs.

    Raises:
        InvalidRequest: The server's package is not installed, or the backend is unavailable.
    """
    with _refusals(LOCAL, "pip install 'seedbed[server]'"):
        return cast(Engine, _registered("cpu")())


def open_cuda_engine(target: str) -> CudaEngine:
    """Open the engine on one GPU of this process.

    Args:
        target: A target for which `targets.is_cuda` is true.

    Raises:
        InvalidRequest: Packages are not installed, or the GPU is unavailable.
    """
    number = target.removeprefix("local:cuda").removeprefix(":")
    with _refusals(target, "pip install 'seedbed[gpu]' (CUDA 13) or 'seedbed[gpu-cuda12]'"):
        return cast(CudaEngine, _registered("cuda")(int(number) if number else None))


def _registered(name: str) -> Callable[..., object]:
    entry_points = importlib.metadata.entry_points(group=_GROUP, name=name)
    if not entry_points:
        raise ImportError("no installed package registers it")
    factory: Callable[..., object] = next(iter(entry_points)).load()
    return factory


@contextlib.contextmanager
def _refusals(target: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise InvalidRequest("target", f'"{target}" needs the server in this process: {remedy} ({error})') from error
    except ValueError as error:
        raise InvalidRequest("target", f'"{target}" is unavailable: {error}') from error
