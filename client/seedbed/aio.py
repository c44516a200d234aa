"""The client for asyncio.

>>> import asyncio, seedbed
>>> async def main():
...     async with seedbed.aio.connect("local:") as client:
...         query, key = await asyncio.gather(
...             client.normal((100, 100), seed=7, name="query"), client.normal((100, 100), seed=7, name="key")
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
    """Make a client for one event loop; it connects on first use.

    The arguments are those of `seedbed.connect`, which describes them in full.

    Args:
        target: As for `seedbed.connect`, except ``local:cuda``, whose calls return before the GPU is done anyway.
            ``local:`` works on threads of this process.
        timeout: Seconds that a call may take, including all waiting; None waits for ever. Each call can override it.
        wait: Seconds of the timeout that a call waits for a server that is unreachable, or broke a stream.
        connections: The maximum number of connections for one large tensor.
        tls: Whether to use TLS.
        ca: A PEM file of the authorities to trust.
        cert: A PEM file of the client certificate.
        key: A PEM file of the client certificate's key.
        token: The token, for a server that requires one.
        server_name: The name to expect in the server's certificate.
        credentials: gRPC channel credentials, instead of tls, ca, cert, key, token and their variables.
        options: gRPC channel arguments, which override Seedbed's.

    Raises:
        InvalidRequest: The target is not an address, ``local:`` is unavailable, an argument is out of range, a file
            cannot be used, or a token would be sent in plaintext.

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
        raise InvalidRequest("target", f'"{origin.target}" is unavailable for asyncio; {remedy}')
    return AsyncClient(origin)
