"""The client of the engine in this process for asyncio: it works in threads, so that the event loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, TypeVar

from seedbed import _arguments, _calls
from seedbed._aio_transport import AioLocalTransport
from seedbed._local import LocalClient
from seedbed._retry import Deadline
from seedbed._types import Array, ModelLike, Outputs, Progress, RegionLike, Timeout
from seedbed.aio import AsyncClient
from seedbed.v1 import TensorSpec

_T = TypeVar("_T")


class AsyncLocalClient(AsyncClient):
    """What `seedbed.aio.connect` gives for ``local:``; see `seedbed._local.LocalClient`.

    A task that is cancelled ends once nothing is written any more, within some hundredths of a second.
    """

    def __init__(self, client: LocalClient) -> None:
        super().__init__(client.target, AioLocalTransport(client.transport), client.timeout)
        self._client = client

    def iter_chunks(
        self,
        spec: TensorSpec,
        region: RegionLike | None = None,
        first_element: int = 0,
        timeout: Timeout = ...,
    ) -> AsyncGenerator[tuple[int, Array], None]:
        first = _arguments.integer(first_element, "first_element", "element", _arguments.INT64)
        deadline = Deadline(self._seconds(timeout))
        return _each(self._client.chunks(_calls.tensor_slice(spec, region), first, deadline), deadline)

    def init_model(
        self,
        model: ModelLike,
        out: Outputs | None = None,
        progress: Progress | None = None,
        timeout: Timeout = ...,
    ) -> AsyncGenerator[tuple[str, Array], None]:
        deadline = Deadline(self._seconds(timeout))
        return _each(self._client.model_arrays(model, out, progress, deadline), deadline)

    def _run(
        self,
        spec: TensorSpec,
        *,
        region: RegionLike | None = None,
        out: Array | None = None,
        progress: Progress | None = None,
        timeout: Timeout = ...,
    ) -> Coroutine[Any, Any, Array]:
        deadline = Deadline(self._seconds(timeout))
        return _in_thread(self._client.array_maker(spec, region, out, progress, deadline), deadline)


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
