"""A proxy that does to bytes what networks do: delays, cuts, truncates, corrupts or swallows them, either way."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

_BLOCK = 16 << 10

Fault = Callable[[bytes, int], bytes]
"""Gives what goes on of a block that begins at a position of its direction's bytes; or raises `Cut` or `Ended`."""


class Broken(Exception):
    """The connection breaks, after some bytes: the place does not depend on how TCP divides the stream into blocks."""

    def __init__(self, before: bytes) -> None:
        super().__init__()
        self.before = before


class Cut(Broken):
    """The connection is reset: RST both ways."""


class Ended(Broken):
    """The connection ends as if all had been sent: FIN both ways."""


def unharmed(block: bytes, _position: int) -> bytes:
    return block


def cut_at(place: int) -> Fault:
    return _at(place, Cut)


def ended_at(place: int) -> Fault:
    return _at(place, Ended)


def _at(place: int, fault: type[Broken]) -> Fault:
    def act(block: bytes, position: int) -> bytes:
        if position + len(block) > place:
            raise fault(block[: place - position])
        return block

    return act


def flipped_at(place: int, bit: int = 0) -> Fault:
    """One bit is wrong."""

    def act(block: bytes, position: int) -> bytes:
        index = place - position
        if not 0 <= index < len(block):
            return block
        return block[:index] + bytes([block[index] ^ 1 << bit]) + block[index + 1 :]

    return act


def delayed(seconds: float) -> Fault:
    """Every block comes late."""

    def act(block: bytes, _position: int) -> bytes:
        time.sleep(seconds)
        return block

    return act


class Proxy:
    """Connections to a server, over real sockets.

    Args:
        target: The server's ``host:port``.
        up: What befalls the bytes of the first ``connections`` clients on their way to the server.
        down: The same of the server's answers.
        connections: How many are harmed; later ones are not.
    """

    def __init__(self, target: str, up: Fault = unharmed, down: Fault = unharmed, connections: int = 1) -> None:
        host, _, port = target.rpartition(":")
        self._server = (host, int(port))
        self._faults = (up, down)
        self._harmed = connections
        self._forwarding = threading.Event()
        self._forwarding.set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def vanish(self) -> None:
        """Nothing arrives any more, on either side, and neither side learns of it: no FIN, no RST."""
        self._forwarding.clear()

    def close(self) -> None:
        self._forwarding.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for pair in self._pairs:
            _close(*pair)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._server, timeout=10)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        up, down = self._faults if len(self._pairs) < self._harmed else (unharmed, unharmed)
        self._pairs.append((client, server))
        for source, sink, fault in ((client, server, up), (server, client, down)):
            threading.Thread(target=self._forward, args=(source, sink, fault), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, fault: Fault) -> None:
        position = 0
        with contextlib.suppress(OSError):
            try:
                while block := source.recv(_BLOCK):
                    self._forwarding.wait()
                    sink.sendall(fault(block, position))
                    position += len(block)
            except Broken as broken:
                sink.sendall(broken.before)
                if isinstance(broken, Cut):
                    for end in (source, sink):
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        _close(source, sink)


def _close(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


@contextlib.contextmanager
def proxied(target: str, **faults: object) -> Iterator[Proxy]:
    """A proxy that lives as long as the block."""
    proxy = Proxy(target, **faults)
    try:
        yield proxy
    finally:
        proxy.close()
