"""The client of the engine in this process for asyncio: it works in threads, so that the event loop goes on."""

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
    """What `seedbed.aio.connect` gives for ``local:``; see `seedbed._inside.cpu.LocalClient`.

    A task that is cancelled ends once nothing is written any more, within some hundredths of a second.
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
        return _each(self._client.chunks(requests.tensor_slice(spec, region), first, deadline), deadline)

    def _model(
        self, wanted: Sequence[TensorSlice], out: Outputs | None, report: Progress | None, seconds: float | None
    ) -> AsyncGenerator[tuple[str, Array], None]:
        deadline = Deadline(seconds)
        return _each(self._client.model_arrays(wanted, out, report, deadline), deadline)

    def _array(
        self,
        spec: TensorSpec,
        region: RegionLike | None,
        out: Array | None,
        progress: Progress | None,
        seconds: float | None,
    ) -> Callable[[], Coroutine[Any, Any, Array]]:
        deadline = Deadline(seconds)
        return partial(_in_thread, self._client.array_maker(spec, region, out, progress, deadline), deadline)


async def _in_thread(work: Callable[[], _T], deadline: Deadline) -> _T:
    """What a function returns; a task that is cancelled ends the deadline, and waits for the function."""
    step = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(step)
    except asyncio.CancelledError:
        deadline.end()
        await asyncio.wait([step])
        if not step.cancelled():
            step.exception()  # nobody waits for it any more
        raise


async def _each(items: Generator[_T, None, None], deadline: Deadline) -> AsyncGenerator[_T, None]:
    end = object()
    try:
        while (item := await _in_thread(lambda: next(items, end), deadline)) is not end:
            yield item  # type: ignore[misc]
            del item  # or it would live on while the next is made
    finally:
        deadline.end()
        items.close()
