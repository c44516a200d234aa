"""The process of ``seedbed serve``: serves until a signal, by itself or as the head of workers that share its ports."""

from __future__ import annotations

import dataclasses
import os
import pickle
import signal
import sys
from collections.abc import Callable, Sequence

from seedbed._version import __version__
from seedbed_server import engine
from seedbed_server.service import listening, logs, signals, sizing, workers
from seedbed_server.service.access import AccessControl
from seedbed_server.service.balance import Balance, counts_in, table_file
from seedbed_server.service.metrics_http import serve_metrics, worker_address
from seedbed_server.service.server import start
from seedbed_server.service.settings import Settings
from seedbed_server.service.tracing import export_traces


def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT, then drains. A second signal, or one before it serves, ends the process at once.

    Must be called in the main thread. Prints one line once the server accepts connections.

    Args:
        settings: The settings.

    Raises:
        ValueError: A setting or the backend cannot be used, or an address that other machines reach would be served in
            plaintext.
        OSError: An address cannot be bound, or workers die soon after they start.
    """
    logs.configure(settings.log_level, settings.log_format)
    AccessControl(settings)  # reports mistakes before anything is compiled
    count = sizing.worker_count(settings)
    if count == 1:
        _serve(settings, lambda ready: _print_banner([ready]))
    else:
        _run_workers(settings, count)


def _serve(
    settings: Settings,
    report: Callable[[workers.Ready], None],
    shares_ports: bool = False,
    balance: Balance | None = None,
) -> None:
    """Serves in this process; calls ``report`` once it accepts connections."""
    with signals.ending(signal.SIGTERM, signal.SIGINT):
        backend = engine.open_backend(settings.backend, settings.threads, settings.device)
        backend.prepare()  # compile now, so that no client waits for it
    with serve_metrics(settings.metrics, backend) as metrics, export_traces(settings.traces) as traces:
        server = start(backend, settings, metrics=metrics, traces=traces, shares_ports=shares_ports, balance=balance)
        reload_signals = (signal.SIGHUP,) if server.access.reloads or shares_ports else ()
        with signals.awaited(signal.SIGTERM, signal.SIGINT, *reload_signals) as wait:
            description = f"{backend.name} on {backend.device} ({backend.reason})"
            report(workers.Ready(server.addresses, description, metrics.url if metrics else ""))
            while wait() in reload_signals:
                server.access.reload_tokens()
        server.stop(settings.grace)


def _run_workers(settings: Settings, count: int) -> None:
    with listening.reserved(settings.listen) as addresses:
        # On Linux only, where the kernel distributes connections among the workers.
        table = table_file(count) if hasattr(os, "memfd_create") else None
        inputs = []
        for index in range(count):
            worker_settings = dataclasses.replace(
                settings,
                listen=addresses,
                threads=sizing.worker_threads(settings, count),
                device=sizing.worker_device(settings, index),
                metrics=worker_address(settings.metrics, index),
            )
            inputs.append(pickle.dumps((worker_settings, index, table)))
        code = "from seedbed_server.service.process import work; work()"
        workers.supervise(code, inputs, _print_banner, [] if table is None else [table])


def work() -> None:
    """Serves as a worker, with the input that `workers.supervise` gives it."""
    settings: Settings
    settings, index, table = pickle.load(sys.stdin.buffer)
    logs.configure(settings.log_level, settings.log_format)
    with workers.reporting_to_head() as report:
        balance = None if table is None else Balance(counts_in(table), index)
        _serve(settings, report, shares_ports=True, balance=balance)


def _print_banner(ready: Sequence[workers.Ready]) -> None:
    first, count = ready[0], len(ready)
    metrics = ", ".join(worker.metrics for worker in ready if worker.metrics)
    print(
        f"seedbed {__version__} serving on {', '.join(first.addresses)}; backend {first.backend}"
        + (f"; {count} workers" if count > 1 else "")
        + (f"; metrics on {metrics}" if metrics else ""),
        flush=True,
    )
