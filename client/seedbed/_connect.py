"""From a target to the client that serves it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from seedbed._client.sync import Client
from seedbed._wire import targets
from seedbed._wire.credentials import Security
from seedbed._wire.origin import Origin, origin

if TYPE_CHECKING:
    import grpc

    from seedbed.common.pem import PathLike


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
) -> Client:
    """A client of one server, or of several replicas, which are first asked when the client is first used.

    Args:
        target: ``host:port``; ``host1:port,host2:port`` or ``dns:///name:port``, replicas among which calls take turns
            and large tensors are divided (see `Client`); ``unix:/path``; ``local:``, which serves within this process
            (it needs ``pip install 'seedbed[server]'``, and obeys SEEDBED_BACKEND and SEEDBED_THREADS); or
            ``local:cuda``, which samples straight into the memory of this process's NVIDIA GPU (it needs
            ``pip install 'seedbed[gpu]'``). That is CuPy's current device, or SEEDBED_DEVICE's; ``local:cuda:1`` is
            device 1. Its arrays are CuPy's, or what ``out`` gives, such as torch tensors, and its calls return before
            the GPU is done: see `seedbed._inside.cuda.CudaClient`.
        timeout: Seconds that a call may take, all waiting included; None waits for ever. Each call can have its own.
        wait: Seconds of these that a call waits for a server that cannot be reached, or one that broke off a stream;
            0 gives up after three attempts within half a second. Default SEEDBED_WAIT, else 300. A server that is full
            is waited for until the timeout.
        connections: The most connections to open for one large tensor, each with a stream of a part of it. They are
            opened when the first is asked for, of several servers to all of them in turn. Default SEEDBED_CONNECTIONS,
            else 4, or as many as this process may use cores if those are fewer.
        tls: Whether to encrypt, and to trust only a server with a certificate for its name. Default if one of the three
            that follow is given, or SEEDBED_TLS is 1; else plaintext.
        ca: A PEM file of the authorities that a server's certificate may come from. Default SEEDBED_TLS_CA, else those
            that this machine trusts.
        cert: A PEM file with the certificate to show to a server that asks for one. Default SEEDBED_TLS_CERT.
        key: A PEM file with its key. Default SEEDBED_TLS_KEY.
        token: What `seedbed token` printed, for a server that wants one; an empty one means none. It goes over TLS, to
            this machine or to a Unix socket. Default SEEDBED_TOKEN, else what the file SEEDBED_TOKEN_FILE holds.
        server_name: The name that a server's certificate has to be for. Default SEEDBED_TLS_SERVER_NAME, else the
            target's host, of several the first.
        credentials: gRPC's own, in place of tls, ca, cert, key, token and their variables.
        options: Channel arguments of gRPC, in place of Seedbed's own.

    Raises:
        InvalidRequest: If the target is no address, ``local:`` or ``local:cuda`` cannot be had, the timeout is not
            above 0, the wait is below 0, there cannot be so many connections, a file cannot be used, or a token would
            travel in the clear.

    >>> import seedbed
    >>> with seedbed.connect("local:") as client:
    ...     w = client.kaiming_normal((256, 128), nonlinearity="relu", seed=7, name="layers.0.weight")
    >>> w.shape, w.dtype
    ((256, 128), dtype('float32'))
    """
    security = Security(credentials, tls, ca, cert, key, token, server_name)
    client = _client_of(origin(target, timeout, wait, connections, security, options))
    client._opening.get()
    return client


def _client_of(origin: Origin) -> Client:
    if origin.target == targets.LOCAL:
        from seedbed._inside.cpu import LocalClient  # noqa: PLC0415 - `import seedbed` stays fast

        return LocalClient(origin)
    if targets.is_cuda(origin.target):
        from seedbed._inside.cuda import CudaClient  # noqa: PLC0415 - `import seedbed` stays fast

        return CudaClient(origin)
    return Client(origin)
