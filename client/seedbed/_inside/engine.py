"""The engine within this process: what the server registers for ``local:`` and ``local:cuda``, and how it is opened."""

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
"""The entry points by which an installed server makes its engine known; this package does not import the server."""


class Backend(Protocol):
    """What samples."""

    threads: int


class Engine(Protocol):
    """A service without a socket: same validation, same errors as a server's."""

    backend: Backend

    def unary(self, method: str, request: Message) -> Message:
        """The response to a request that has one."""

    def describe(self, wanted: Sequence[TensorSlice], method: str, first_element: int = 0) -> list[TensorDescription]:
        """Validates parts of tensors before any is sampled, and resolves them."""

    def fill(
        self,
        jobs: Iterable[tuple[TensorDescription, int, Array]],
        cancelled: Callable[[], bool],
        report: Callable[[float], None] | None = None,
    ) -> None:
        """Fills arrays with elements of described regions, on all threads."""

    def sampler(self, description: TensorDescription) -> Callable[[int, Array, Callable[[], bool]], None]:
        """The function that fills arrays with elements of one region, on the calling thread."""


class Gpu(Protocol):
    """A GPU of this process."""

    cupy: Any
    number: int

    def use(self) -> contextlib.AbstractContextManager[object]:
        """Makes it CuPy's current device for a ``with`` block."""

    def copy_from_host(self, pointer: int, values: Array, stream: Any) -> None:  # noqa: ANN401 - CuPy has no types
        """Copies an array of this computer's memory to an address in the GPU's."""


class CudaEngine(Engine, Protocol):
    """An engine that writes straight into a GPU's memory."""

    device: Gpu

    def write_all(self, jobs: Sequence[tuple[TensorDescription, int, int, int]]) -> None:
        """Begins to write elements of described regions: the first, how many, and to which address."""


def open_engine() -> Engine:
    """The engine on this computer's CPUs, or what else SEEDBED_BACKEND and SEEDBED_THREADS choose.

    Raises:
        InvalidRequest: The server's package is not installed, or the backend cannot be used here.
    """
    with _refusals(LOCAL, "pip install 'seedbed[server]'"):
        return cast(Engine, _registered("cpu")())


def open_cuda_engine(target: str) -> CudaEngine:
    """The engine on one GPU of this process.

    Args:
        target: One for which `targets.is_cuda` is true.

    Raises:
        InvalidRequest: Packages are not installed, or the GPU cannot be used.
    """
    number = target.removeprefix("local:cuda").removeprefix(":")
    with _refusals(target, "pip install 'seedbed[gpu]' (CUDA 13) or 'seedbed[gpu-cuda12]'"):
        return cast(CudaEngine, _registered("cuda")(int(number) if number else None))


def _registered(name: str) -> Callable[..., object]:
    found = importlib.metadata.entry_points(group=_GROUP, name=name)
    if not found:
        raise ImportError("no package registers it")
    factory: Callable[..., object] = next(iter(found)).load()
    return factory


@contextlib.contextmanager
def _refusals(target: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise InvalidRequest("target", f'"{target}" needs the server in this process: {remedy} ({error})') from error
    except ValueError as error:
        raise InvalidRequest("target", f'"{target}" is unavailable: {error}') from error
