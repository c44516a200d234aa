"""Servers in the test's own process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from _helpers.fake_backend import FakeBackend
from seedbed_server import engine
from seedbed_server.service.balance import Balance
from seedbed_server.service.metrics import Metrics
from seedbed_server.service.server import Server, start
from seedbed_server.service.settings import Settings
from seedbed_server.service.tracing import Traces


@contextlib.contextmanager
def servers_here() -> Iterator[Callable[..., Server]]:
    """Yields `start_here`, and stops its servers when the block ends."""
    running: list[Server] = []

    def start_one(*arguments: object, **options: object) -> Server:
        running.append(start_here(*arguments, **options))
        return running[-1]

    try:
        yield start_one
    finally:
        for server in running:
            server.stop(0)


def start_here(
    backend: engine.Backend | None = None,
    *,
    metrics: Metrics | None = None,
    traces: Traces | None = None,
    balance: Balance | None = None,
    **settings: object,
) -> Server:
    """Starts a server in this process, by default with a `FakeBackend` on a free port."""
    settings = {"listen": ["127.0.0.1:0"], **settings}
    return start(backend or FakeBackend(), Settings(**settings), metrics=metrics, traces=traces, balance=balance)
