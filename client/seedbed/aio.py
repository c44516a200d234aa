"""The same client with coroutines.

>>> import asyncio, seedbed
>>> async def main():
...     async with seedbed.aio.connect("local:") as client:
...         one, other = await asyncio.gather(
...             client.normal((100, 100), seed=7, name="one"), client.normal((100, 100), seed=7, name="other")
...         )
...         async for name, array in client.init_model([seedbed.spec("zeros", (2,), name="bias")]):
...             print(name, array)
>>> asyncio.run(main())
bias [0. 0.]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from seedbed._client.aio import AsyncClient
from seedbed._wire import targets
from seedbed._wire.credentials import Security
from seedbed._wire.origin import Origin, origin
from seedbed.errors import InvalidRequest

if TYPE_CHECKING:
    import grpc

    from seedbed.common.pem import PathLike

__all__ = ["AsyncClient", "connect"]


def connect(
    target: str,
    *,
    timeout: float | None = 600.0,
    wait: float | None = None,
    connections: int | None = None,
    tls: bool | None = None,
    ca: PathLike | None = None,
    cert: PathLike | None = None,
    key: PathLike | None = None,
    token: str | None = None,
    server_name: str | None = None,
    credentials: grpc.ChannelCredentials | None = None,
    options: Sequence[tuple[str, Any]] = (),
) -> AsyncClient:
    """A client of one server, which is first asked when the client is first used.

    Args:
        target: ``host:port``; ``unix:/path``; or ``local:``, which serves within this process, in threads. See
            `seedbed.connect`, which alone has ``local:cuda``: its calls return before the GPU is done.
        timeout: Seconds that a call may take, all waiting included; None waits for ever. Each call can have its own.
        wait: Seconds of these that a call waits for a server that cannot be reached, or one that broke off a stream;
            0 gives up after three attempts within half a second. Default SEEDBED_WAIT, else 300. A server that is full
            is waited for until the timeout.
        connections: The most connections to open for one large tensor; as for `seedbed.connect`.
        tls: Whether to encrypt; this and the five that follow are as for `seedbed.connect`.
        ca: A PEM file of the authorities that a server's certificate may come from.
        cert: A PEM file with the certificate to show to a server that asks for one.
        key: A PEM file with its key.
        token: What `seedbed token` printed, for a server that wants one.
        server_name: The name that a server's certificate has to be for.
        credentials: gRPC's own, in place of tls, ca, cert, key, token and their variables.
        options: Channel arguments of gRPC, in place of Seedbed's own.

    Raises:
        InvalidRequest: If the target is no address, ``local:`` cannot be had, the timeout is not above 0, the wait is
            below 0, there cannot be so many connections, a file cannot be used, or a token would travel in the clear.

    >>> import asyncio, seedbed
    >>> async def main():
    ...     async with seedbed.aio.connect("local:") as client:
    ...         return await client.kaiming_normal((256, 128), nonlinearity="relu", seed=7, name="layers.0.weight")
    >>> asyncio.run(main()).shape
    (256, 128)
    """
    security = Security(credentials, tls, ca, cert, key, token, server_name)
    client = _client_of(origin(target, timeout, wait, connections, security, options))
    client._opening.get()
    return client


def _client_of(origin: Origin) -> AsyncClient:
    if origin.target == targets.LOCAL:
        from seedbed._inside.aio import AsyncLocalClient  # noqa: PLC0415 - `import seedbed.aio` stays fast

        return AsyncLocalClient(origin)
    if targets.is_cuda(origin.target):
        remedy = f'use seedbed.connect("{origin.target}"), whose calls return before the GPU is done'
        raise InvalidRequest("target", f'"{origin.target}" has no coroutines; {remedy}')
    return AsyncClient(origin)
