"""The page's server in a thread of this process, over a real socket."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import uvicorn

import seedbed
from seedbed.explore._app import application
from seedbed.explore._calls import Connection


@contextmanager
def serve_page(client: seedbed.Client, target: str) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    app = application(client, Connection(target, {}))
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture(scope="session")
def client() -> Iterator[seedbed.Client]:
    with seedbed.connect("local:") as client:
        yield client


@pytest.fixture(scope="session")
def page(client: seedbed.Client) -> Iterator[int]:
    """The port of a page that samples in this process."""
    with serve_page(client, "local:") as port:
        yield port


@pytest.fixture
def page_of() -> Callable[..., object]:
    """A function that serves a page for another client."""
    return serve_page
