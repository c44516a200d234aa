"""The HTTP server that Prometheus scrapes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from seedbed_server import engine
from seedbed_server.service import listening
from seedbed_server.service.metrics import Metrics

_DEFAULT_HOST: Final = "127.0.0.1"


@contextlib.contextmanager
def serve_metrics(address: str | None, backend: engine.Backend) -> Iterator[Metrics | None]:
    """Serves metrics over HTTP within the block.

    Args:
        address: ``HOST:PORT``, or a port on the loopback interface; port 0 takes a free port. None for no metrics.
        backend: The backend that the server samples with.

    Raises:
        ValueError: The address is malformed.
        OSError: The address is in use, or cannot be bound for another reason, which the message gives.
    """
    if address is None:
        yield None
        return
    from prometheus_client import start_http_server  # noqa: PLC0415 - as in `Metrics`

    host, port = _host_and_port(address)
    metrics = Metrics(backend)
    try:
        server, thread = start_http_server(port, host.removeprefix("[").removesuffix("]"), metrics.registry)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"metrics: cannot listen on {address} ({reason}); choose another address") from error
    metrics.url = f"http://{host}:{server.server_port}/metrics"
    try:
        yield metrics
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def worker_address(address: str | None, index: int) -> str | None:
    """The metrics address of one of several workers: consecutive ports, or a free port each.

    Args:
        address: The first worker's address, as for `serve_metrics`.
        index: The worker's index, from 0.

    Raises:
        ValueError: The address is malformed.

    >>> worker_address("9464", 2), worker_address("0.0.0.0:0", 2)
    ('127.0.0.1:9466', '0.0.0.0:0')
    """
    if address is None:
        return None
    host, port = _host_and_port(address)
    return f"{host}:{port + index if port else 0}"


def _host_and_port(address: str) -> tuple[str, int]:
    """Splits a metrics address.

    >>> _host_and_port("0.0.0.0:9464"), _host_and_port("9464")
    (('0.0.0.0', 9464), ('127.0.0.1', 9464))
    """
    parts = listening.host_and_port(address if ":" in address else f"{_DEFAULT_HOST}:{address}")
    if parts is None:
        raise ValueError(f"metrics: {address!r} is not an address; give HOST:PORT, or a port for this machine only")
    return parts
