"""Addresses to listen on, checked before gRPC binds them.

gRPC alone would take a Unix socket away from the server that listens on it, would bind only ``[::1]`` where
``localhost`` also means ``127.0.0.1``, and reports every failure as "failed to bind".
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_FORMS = "give HOST:PORT, such as localhost:50051 or 0.0.0.0:50051 (port 0 takes a free port), or unix:PATH"


def check(address: str) -> None:
    """Checks that a server can listen on an address.

    Raises:
        ValueError: The address is malformed.
        OSError: The address is in use, or cannot be bound for another reason, which the message gives.
    """
    if _is_socket(address):
        _check_socket(address, Path(address.removeprefix("unix:")))
    else:
        _check_port(address)


def is_local(address: str) -> bool:
    """Whether only this machine can reach an address.

    Raises:
        ValueError: The address is malformed.
        OSError: The host is unknown.
    """
    if _is_socket(address):
        return True
    hosts = [str(socket_address[0]).partition("%")[0] for *_, socket_address in _resolve(address)]
    return all(ipaddress.ip_address(host).is_loopback for host in hosts)


def bound(address: str, port: int) -> str:
    """The address that clients connect to, once gRPC has chosen the port."""
    if address.startswith("unix:"):
        return address
    return f"{address.rpartition(':')[0]}:{port}"


@contextlib.contextmanager
def reserved(addresses: Sequence[str]) -> Iterator[list[str]]:
    """Reserves the ports of addresses within the block, so that several processes can listen on them.

    Args:
        addresses: The addresses; port 0 takes a free port.

    Yields:
        The addresses with the ports that were chosen.

    Raises:
        ValueError: An address is not ``HOST:PORT``, or processes cannot share ports on this system.
        OSError: An address cannot be bound.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ValueError("workers: processes cannot share a port on this system; use --workers 1")
    with contextlib.ExitStack() as stack:
        yield [_reserve(address, stack) for address in addresses]


def _reserve(address: str, stack: contextlib.ExitStack) -> str:
    if _is_socket(address):
        raise ValueError(f"listen: {address} cannot be shared by several workers; give HOST:PORT, or --workers 1")
    check(address)
    port = 0
    for family, kind, protocol, _, socket_address in _resolve(address):
        holder = stack.enter_context(socket.socket(family, kind, protocol))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with contextlib.suppress(OSError):  # such as IPv6 on a machine without it; check() found a family that works
            holder.bind((socket_address[0], socket_address[1] or port, *socket_address[2:]))
            port = holder.getsockname()[1]
    return bound(address, port)


def _is_socket(address: str) -> bool:
    return address.startswith("unix:") and address != "unix:"


def _check_socket(address: str, path: Path) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"listen: {address}: the directory {path.parent} does not exist; create it")
    if path.exists() and not path.is_socket():
        raise FileExistsError(f"listen: {address}: a file that is not a socket is in the way; choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return  # refused: left behind by a server that was killed; gRPC replaces it
        except OSError as error:
            raise _unusable(address, error) from error
    raise OSError(f"listen: {address}: another server listens there; stop it or choose another path")


def host_and_port(address: str) -> tuple[str, int] | None:
    """Splits ``HOST:PORT``; None if the address is malformed.

    >>> host_and_port("[::1]:50051"), host_and_port("localhost:70000")
    (('[::1]', 50051), None)
    """
    host, _, port = address.rpartition(":")
    return (host, int(port)) if host and port.isascii() and port.isdigit() and int(port) <= 65535 else None


def _resolve(address: str) -> list[tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]]:
    """The socket addresses that ``HOST:PORT`` stands for, as `socket.getaddrinfo` returns them."""
    parts = host_and_port(address)
    if parts is None:
        raise ValueError(f"listen: {address!r} is not an address; {_FORMS}")
    host, port = parts[0].removeprefix("[").removesuffix("]"), parts[1]
    try:
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE))
    except (OSError, UnicodeError) as error:
        raise OSError(f"listen: {address}: the host is unknown ({error}); {_FORMS}") from error


def _check_port(address: str) -> None:
    candidates = _resolve(address)
    failures = []
    for family, kind, protocol, _, socket_address in candidates:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(socket_address)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise _unusable(address, error) from error
            failures.append(error)  # such as IPv6 on a machine without it; the other family may work
    if len(failures) == len(candidates):
        raise _unusable(address, failures[0]) from failures[0]


def _unusable(address: str, error: OSError) -> OSError:
    if error.errno == errno.EADDRINUSE:
        return OSError(f"listen: {address}: the port is in use; stop the other server, or choose another port")
    return OSError(f"listen: {address}: {error.strerror or error}; choose another address")
