"""Whom to ask: what a target means to gRPC."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from seedbed.errors import InvalidRequest, Unavailable

LOCAL: Final = "local:"

_MIB: Final = 1 << 20
_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    # Chunks are 1 MiB by default; this leaves room for larger ones, but not for a server that floods us.
    ("grpc.max_receive_message_length", 17 * _MIB),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A long computation, such as a large orthogonal matrix, sends nothing for minutes; the pings are what tells it from
    # a dead peer.
    ("grpc.http2.max_pings_without_data", 0),
    # Without it, clients of one process would share one connection, and its bandwidth.
    ("grpc.use_local_subchannel_pool", 1),
    # gRPC would let two minutes pass between attempts to connect, and fail our own, 5 s apart at most, meanwhile.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # It would ask for the addresses of a name twice a minute at most, and replicas may be replaced faster.
    ("grpc.dns_min_time_between_resolutions_ms", 2_000),
)
# Calls take turns among the replicas that are connected and say that they serve.
_SEVERAL: Final = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": "seedbed.v1.InitService"},
}
_CUDA: Final = re.compile(r"local:cuda(:\d{1,4})?", re.ASCII)
_SCHEMES: Final = ("dns:", "ipv4:", "ipv6:", "xds:")
_HOST_PORT: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\s:/,\[\]]+):(?P<port>\d{1,5})", re.ASCII)
_DNS: Final = re.compile(r"dns:(//[^/]*/)?(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\s:/,\[\]]+):(?P<port>\d{1,5})", re.ASCII)
_LOOPBACK: Final = re.compile(r"(ipv4:|ipv6:|dns:///)?(localhost|127(\.\d+){3}|\[::1\]):\d+")
_FORMS: Final = (
    "give HOST:PORT such as localhost:50051, several as HOST:PORT,HOST:PORT or dns:///HOST:PORT, unix:/path, or local: "
    "(local:cuda for arrays on a GPU)"
)


class Target(NamedTuple):
    """An address as gRPC takes it."""

    address: str
    options: list[tuple[str, Any]]
    """All channel arguments."""

    def spread(self, connections: int) -> list[int]:
        """Which connection each stream of a large tensor takes.

        A connection leads to all replicas, which take turns on it. So a connection has a stream for each of them before
        the next one is opened.

        Args:
            connections: The most that a client may open to one server.
        """
        replicas = self.replicas()
        return [stream // replicas for stream in range(max(replicas, connections))]

    def is_one_server(self) -> bool:
        """Whether each connection leads to the same address."""
        return not self.address.startswith(_SCHEMES)

    def replicas(self) -> int:
        """How many servers there are, as far as can be told before one is asked."""
        if self.address.startswith(("ipv4:", "ipv6:")):
            return self.address.count(",") + 1
        if match := _DNS.fullmatch(self.address):
            return len(_resolved(match["host"], match["port"]) or [None])
        return 1


def is_cuda(target: object) -> bool:
    """Whether the target is a GPU of this process."""
    return isinstance(target, str) and _CUDA.fullmatch(target) is not None


def is_on_this_machine(target: str) -> bool:
    """Whether an address is this machine's by its looks; what a name service says does not count."""
    return target.startswith("unix:") or all(map(_LOOPBACK.fullmatch, target.split(",")))


def host_to_check(target: str) -> str | None:
    """The name for certificates where gRPC finds none in the address: of a socket, numbers, or the first of several."""
    if target.startswith("unix:"):
        return "localhost"
    if "," not in target and not target.startswith(("ipv4:", "ipv6:")):
        return None
    match = _HOST_PORT.match(target.removeprefix("ipv4:").removeprefix("ipv6:"))
    return match["host"].strip("[]") if match else None


def parse(target: object, options: Sequence[tuple[str, Any]] = ()) -> Target:
    """What gRPC makes of a target.

    Args:
        target: As for `seedbed.connect`.
        options: Channel arguments, which take the place of ours.

    Raises:
        InvalidRequest: It is no address; says what addresses look like.
        Unavailable: It names several hosts, and none is known.
    """
    address = _address(target)
    ours = dict(_OPTIONS)
    if is_on_this_machine(str(target)):
        ours["grpc.enable_http_proxy"] = 0
    if address.startswith(_SCHEMES):
        ours["grpc.service_config"] = json.dumps(_SEVERAL)
    return Target(address, list({**ours, **dict(options)}.items()))


def _address(target: object) -> str:
    if not isinstance(target, str):
        raise InvalidRequest("target", f"is a {type(target).__name__}; {_FORMS}")
    if target.startswith("unix:"):
        if not target.removeprefix("unix:").strip("/"):
            raise InvalidRequest("target", f"{target!r} names no socket; {_FORMS}")
        return target
    if target.startswith(_SCHEMES):
        return target
    places = [_host_and_port(part, target) for part in target.split(",")]
    return target if len(places) == 1 else _of_several(places, target)


def _host_and_port(part: str, target: str) -> tuple[str, str]:
    match = _HOST_PORT.fullmatch(part.strip())
    if match is None:
        raise InvalidRequest("target", f"{target!r} is no address; {_FORMS}")
    if not 0 < int(match["port"]) < 2**16:
        raise InvalidRequest("target", f"port {match['port']} is outside 1 .. 65535; {_FORMS}")
    return match["host"], match["port"]


def _of_several(places: list[tuple[str, str]], target: str) -> str:
    """One address for gRPC, which takes a list of numbers but not of names."""
    found = list(dict.fromkeys(address for place in places for address in _resolved(*place)))
    if not found:
        raise Unavailable(f"none of the hosts of {target} is known; check their names")
    if all(family == socket.AF_INET for family, _, _ in found):
        return "ipv4:" + ",".join(f"{host}:{port}" for _, host, port in found)
    mapped = [host if family == socket.AF_INET6 else f"::ffff:{host}" for family, host, _ in found]
    return "ipv6:" + ",".join(f"[{host}]:{port}" for host, (_, _, port) in zip(mapped, found, strict=True))


def _resolved(host: str, port: str) -> list[tuple[int, str, int]]:
    """The addresses of a host; none if it is not known. Of ``localhost``, which has two for one machine, one."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    addresses = [(int(family), str(place[0]), int(place[1])) for family, _, _, _, place in found]
    return sorted(addresses)[:1] if host == "localhost" else addresses
