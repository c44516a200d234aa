"""``seedbed serve``: a process that serves until a signal, alone or as the head of workers that share its ports."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

from seedbed import __version__
from seedbed_server import engine
from seedbed_server.service import listening, observing, signals, sizing, tracing, workers
from seedbed_server.service.balance import Balance, counts_in, table_file
from seedbed_server.service.security import Security
from seedbed_server.service.server import (
    DEFAULT_GRACE,
    DEFAULT_MAX_STREAMS,
    DEFAULT_STALL_TIMEOUT,
    LONGEST_SECONDS,
    start,
)
from seedbed_server.service.servicer import DEFAULT_CHUNK_BYTES, MAX_REQUEST_BYTES, InitServicer

DEFAULT_LISTEN: Final = ("127.0.0.1:50051",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What a server is told.

    Attributes:
        listen: Addresses, each ``HOST:PORT`` (port 0 takes a free one) or ``unix:PATH``. Default ``127.0.0.1:50051``.
        workers: Processes that share the ports. The limits below are those of each of them. Default ``auto``: one for
            each two cores, at most 16, or for each GPU; 1 if an address is a Unix socket, which they cannot share.
        backend: ``auto``, ``numpy``, ``numba`` or ``cupy``. Default ``SEEDBED_BACKEND``, else ``auto``.
        threads: Threads that sample one chunk. Default ``SEEDBED_THREADS``, else one for each core, divided among the
            workers.
        device: Which GPU. Default ``SEEDBED_DEVICE``, else the first; of several workers, each takes the next one.
        chunk_bytes: The most bytes of a chunk's payload. Default 1 MiB.
        max_request_bytes: The most bytes of a request. Default 4 MiB: what our clients cut their requests to.
        max_response_bytes: The most bytes of elements that one answer may have. Default 0: no limit.
        max_tensors: The most tensors of one model. Default 0: as many as fit into a request.
        max_orthogonal_elements: The most elements of an orthogonal matrix. Default, and at most, 2^26.
        max_streams: How many streams may be open at once. Default 256.
        max_streams_per_client: How many of them one host may have. Default 0: no limit but that of all.
        stall_timeout: Seconds after which a stream is ended whose client does not read; 0 for never. Default 300.
        max_connections: How many connections each address takes. Default 0: no limit.
        max_connection_age: Seconds after which a connection takes no further calls. Default 0: never.
        grace: Seconds that calls in progress may go on after the first signal. Default 30.
        security: What keeps strangers out; SIGHUP makes it read its files again. Default plaintext, for clients on this
            machine alone.
        metrics: Where Prometheus reads: ``HOST:PORT``, or a port of this machine alone; each further worker takes the
            next port. Default nowhere.
        traces: The URL of a collector of OpenTelemetry. Default nowhere.
        reflection: Whether clients may ask for the contract itself, as grpcurl does. Default not.
        log_level: ``debug``, ``info`` (a line for each request), ``warning`` or ``error``. Default ``warning``.
        log_format: ``text`` or ``json``. Default ``text``.
    """

    listen: Sequence[str] = DEFAULT_LISTEN
    workers: int | Literal["auto"] = "auto"
    backend: str | None = None
    threads: int | None = None
    device: int | None = None
    chunk_bytes: int = DEFAULT_CHUNK_BYTES
    max_request_bytes: int = MAX_REQUEST_BYTES
    max_response_bytes: int = 0
    max_tensors: int = 0
    max_orthogonal_elements: int = engine.MAX_ORTHOGONAL_ELEMENTS
    max_streams: int = DEFAULT_MAX_STREAMS
    max_streams_per_client: int = 0
    stall_timeout: float = DEFAULT_STALL_TIMEOUT
    max_connections: int = 0
    max_connection_age: float = 0
    grace: float = DEFAULT_GRACE
    security: Security = dataclasses.field(default_factory=Security)
    metrics: str | None = None
    traces: str | None = None
    reflection: bool = False
    log_level: str = "warning"
    log_format: str = "text"


def run(options: Options) -> None:
    """Serves until SIGTERM or SIGINT, then drains. A second signal ends the process at once, as one before it serves.

    To be called in the main thread. Prints one line once the server can be reached.

    Args:
        options: What to serve, where, and within which limits.

    Raises:
        ValueError: An option is out of range, the backend cannot be used here, or an address is one that other
            machines reach in the clear.
        OSError: An address cannot be listened on, or workers end as soon as they are started.
    """
    observing.configure_logging(options.log_level, options.log_format)
    if not 0 <= options.grace <= LONGEST_SECONDS:
        raise ValueError(f"grace: {options.grace} is not between 0 and {LONGEST_SECONDS}")
    if options.workers != "auto" and options.workers < 1:
        raise ValueError(f"workers: {options.workers} is less than 1; a server needs at least one process")
    options.security.check(options.listen)
    count = _worker_count(options)
    if count == 1:
        _serve(options, lambda ready: _say([ready]))
    else:
        _run_workers(options, count)


def _worker_count(options: Options) -> int:
    if options.workers != "auto":
        return options.workers
    return sizing.worker_count(options.listen, options.backend, options.device)


def _serve(
    options: Options, tell: Callable[[workers.Ready], None], shares_ports: bool = False, balance: Balance | None = None
) -> None:
    """Serves in this process; ``tell`` is told once it does."""
    with signals.ending(signal.SIGTERM, signal.SIGINT):
        backend = engine.open_backend(options.backend, options.threads, options.device)
        backend.prepare()  # no client shall wait for a compiler
    servicer = InitServicer(
        backend,
        chunk_bytes=options.chunk_bytes,
        max_request_bytes=options.max_request_bytes,
        max_response_bytes=options.max_response_bytes,
        max_tensors=options.max_tensors,
        max_orthogonal_elements=options.max_orthogonal_elements,
    )
    with observing.served(options.metrics, servicer) as metrics, _exported(options.traces) as traces:
        server = start(
            servicer,
            options.listen,
            max_streams=options.max_streams,
            max_streams_per_client=options.max_streams_per_client,
            stall_timeout=options.stall_timeout,
            max_connections=options.max_connections,
            max_connection_age=options.max_connection_age,
            security=options.security,
            metrics=metrics,
            traces=traces,
            reflection=options.reflection,
            shares_ports=shares_ports,
            balance=balance,
        )
        rereading = (signal.SIGHUP,) if options.security.rereads or shares_ports else ()
        with signals.awaited(signal.SIGTERM, signal.SIGINT, *rereading) as wait:
            samples = f"{backend.name} on {backend.device} ({backend.reason})"
            tell(workers.Ready(server.addresses, samples, metrics.url if metrics else ""))
            while wait() in rereading:
                options.security.reread()
        server.stop(options.grace)


@contextlib.contextmanager
def _exported(endpoint: str | None) -> Iterator[tracing.Traces | None]:
    if endpoint is None:
        yield None
        return
    traces = tracing.exported(endpoint)
    try:
        yield traces
    finally:
        traces.close()


def _run_workers(options: Options, count: int) -> None:
    with listening.reserved(options.listen) as addresses:
        table = table_file(count) if hasattr(os, "memfd_create") else None  # Linux, where the kernel divides clients
        told = []
        for index in range(count):
            own = dataclasses.replace(
                options,
                listen=addresses,
                threads=options.threads or _threads_each(count),
                device=sizing.device_of(index, options.backend, options.device),
                metrics=observing.address_of(options.metrics, index),
            )
            told.append(pickle.dumps((own, index, table)))
        workers.supervise(
            "from seedbed_server.service.process import work; work()", told, _say, [] if table is None else [table]
        )


def _say(ready: Sequence[workers.Ready]) -> None:
    first, count = ready[0], len(ready)
    metrics = ", ".join(one.metrics for one in ready if one.metrics)
    print(
        f"seedbed {__version__} serving on {', '.join(first.addresses)}; backend {first.backend}"
        + (f"; {count} workers" if count > 1 else "")
        + (f"; metrics on {metrics}" if metrics else ""),
        flush=True,
    )


def _threads_each(count: int) -> int | None:
    return None if os.environ.get("SEEDBED_THREADS") else max(1, engine.usable_cores() // count)


def work() -> None:
    """What a worker runs."""
    options: Options
    options, index, table = pickle.load(sys.stdin.buffer)
    observing.configure_logging(options.log_level, options.log_format)
    with workers.told_to_head() as tell:
        balance = None if table is None else Balance(counts_in(table), index)
        _serve(options, tell, shares_ports=True, balance=balance)
