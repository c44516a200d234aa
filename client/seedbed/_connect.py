"""`connect`: the client for a target."""

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
    """Make a client of one server, or of several replicas; it connects on first use.

    Args:
        target: One of:

            - ``host:port``.
            - ``host1:port,host2:port`` or ``dns:///name:port``: replicas, among which calls and large tensors are
              distributed; see `Client`.
            - ``unix:/path``: a Unix socket.
            - ``local:``: the engine in this process. It requires ``pip install 'seedbed[server]'``; SEEDBED_BACKEND and
              SEEDBED_THREADS configure it.
            - ``local:cuda``: an NVIDIA GPU of this process, by default CuPy's current device or SEEDBED_DEVICE;
              ``local:cuda:1`` is device 1. It requires ``pip install 'seedbed[gpu]'``. Its arrays are CuPy's, or the
              caller's ``out``, such as torch tensors. Its calls return before the GPU is done; see
              `seedbed._inside.cuda.CudaClient`.
        timeout: Seconds that a call may take, including all waiting; None waits for ever. Each call can override it.
        wait: Seconds of the timeout that a call waits for a server that is unreachable, or broke a stream; 0 gives up
            after three attempts within half a second. Default SEEDBED_WAIT, else 300. A call waits for a full server
            until the timeout.
        connections: The maximum number of connections for one large tensor, each of which carries a stripe of it. They
            are opened for the first such tensor. Default SEEDBED_CONNECTIONS, else 4, or the number of cores that this
            process may use if that is smaller.
        tls: Whether to use TLS, and verify the server's certificate and name. Default True if one of the next three is
            given or SEEDBED_TLS is 1, else False.
        ca: A PEM file of the authorities to trust. Default SEEDBED_TLS_CA, else those that this machine trusts.
        cert: A PEM file of the client certificate, for a server that requires one. Default SEEDBED_TLS_CERT.
        key: A PEM file of the client certificate's key. Default SEEDBED_TLS_KEY.
        token: The token, as `seedbed token` prints it, for a server that requires one; "" sends none. It is sent over
            TLS, to this machine or to a Unix socket only. Default SEEDBED_TOKEN, else the content of the file
            SEEDBED_TOKEN_FILE.
        server_name: The name to expect in the server's certificate. Default SEEDBED_TLS_SERVER_NAME, else the target's
            host, or the first of several.
        credentials: gRPC channel credentials, instead of tls, ca, cert, key, token and their variables.
        options: gRPC channel arguments, which override Seedbed's.

    Raises:
        InvalidRequest: The target is not an address, ``local:`` or ``local:cuda`` is unavailable, an argument is out of
            range, a file cannot be used, or a token would be sent in plaintext.

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
