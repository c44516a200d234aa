"""The asyncio client of the engine in this process; it works on threads, so that the event loop stays responsive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from functools import partial
from typing import Any, TypeVar

from seedbed._ask import arguments, requests
from seedbed._client.aio import AsyncClient
from seedbed._inside.cpu import LocalClient
from seedbed._inside.transport import AioInsideTransport
from seedbed._types import Array, Outputs, Progress, RegionLike, Timeout
from seedbed._wire.origin import Origin
from seedbed.common.deadline import Deadline
from seedbed.v1 import TensorSlice, TensorSpec

_T = TypeVar("_T")


class AsyncLocalClient(AsyncClient):
    """The client of `seedbed.aio.connect` for ``local:``; see `seedbed._inside.cpu.LocalClient`.

    A cancelled task ends when no thread writes any more, within some hundredths of a second.
    """

    def __init__(self, origin: Origin) -> None:
        super().__init__(origin)
        self._client = LocalClient(origin)

    def _open(self) -> AioInsideTransport:
        return AioInsideTransport(self._client.transport)

    def iter_chunks(
        self,
        spec: TensorSpec,
        region: RegionLike | None = None,
        first_element: int = 0,
        timeout: Timeout = ...,
    ) -> AsyncGenerator[tuple[int, Array], None]:
        first = arguments.integer(first_element, "first_element", "element", arguments.INT64)
        deadline = Deadline(self._seconds(timeout))
        return _iterate(self._client.chunks(requests.tensor_slice(spec, region), first, deadline), deadline)

    def _model(
        self, slices: Sequence[TensorSlice], out: Outputs | None, progress: Progress | None, seconds: float | None
    ) -> AsyncGenerator[tuple[str, Array], None]:
        deadline = Deadline(seconds)
        return _iterate(self._client.model_arrays(slices, out, progress, deadline), deadline)

    def _array(
        self,
        spec: TensorSpec,
        region: RegionLike | None,
        out: Array | None,
        progress: Progress | None,
        seconds: float | None,
    ) -> Callable[[], Coroutine[Any, Any, Array]]:
        deadline = Deadline(seconds)
        return partial(_run, self._client.array_maker(spec, region, out, progress, deadline), deadline)


async def _run(work: Callable[[], _T], deadline: Deadline) -> _T:
    """Run a function on a thread; a cancelled task ends the deadline, and waits for the function to return."""
    future = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        deadline.end()
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # retrieved, or asyncio would log it
        raise


async def _iterate(items: Generator[_T, None, None], deadline: Deadline) -> AsyncGenerator[_T, None]:
    end = object()
    try:
        while (item := await _run(lambda: next(items, end), deadline)) is not end:
            yield item  # type: ignore[misc]
            del item  # otherwise it would stay in memory while the next one is made
    finally:
        deadline.end()
        items.close()
