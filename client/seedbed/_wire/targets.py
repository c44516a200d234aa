"""Server addresses: parse targets, and resolve them for gRPC."""

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
    # Chunks are 1 MiB by default. This allows larger ones, but protects the client's memory from a faulty server.
    ("grpc.max_receive_message_length", 17 * _MIB),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A long computation, such as a large orthogonal matrix, sends nothing for minutes. Pings tell it from a dead peer.
    ("grpc.http2.max_pings_without_data", 0),
    # Otherwise, all clients in a process would share one connection and its bandwidth.
    ("grpc.use_local_subchannel_pool", 1),
    # By default, gRPC waits up to two minutes between connection attempts, and fails our retries in between.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # By default, gRPC resolves a name at most every 30 s, and replicas may be replaced faster.
    ("grpc.dns_min_time_between_resolutions_ms", 2_000),
)
# Calls are distributed round-robin over the connected replicas that report SERVING.
_REPLICA_CONFIG: Final = {
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
    """An address, and how gRPC is to reach it."""

    address: str
    """For gRPC; a list ``HOST:PORT,HOST:PORT`` has to be `resolved` first."""
    options: list[tuple[str, Any]]
    """All channel arguments."""

    @property
    def is_resolved(self) -> bool:
        """Whether the address is one for gRPC."""
        return not _is_list(self.address)

    def resolved(self) -> Target:
        """The target with an address for gRPC.

        Raises:
            Unavailable: It names several hosts, and none can be resolved now.
        """
        return self if self.is_resolved else self._replace(address=_join(self.address))

    def spread(self, connections: int) -> list[int]:
        """The connection of each stream of a large tensor.

        A connection reaches all replicas in turn. So it carries a stream for each replica before the next one is
        opened.

        Args:
            connections: The maximum number of connections to one server.
        """
        replicas = self.replicas()
        return [stream // replicas for stream in range(max(replicas, connections))]

    def is_one_server(self) -> bool:
        """Whether each connection leads to the same address."""
        return self.is_resolved and not self.address.startswith(_SCHEMES)

    def replicas(self) -> int:
        """The number of servers, as far as the address and the name service show it."""
        if not self.is_resolved or self.address.startswith(("ipv4:", "ipv6:")):
            return self.address.count(",") + 1
        if match := _DNS.fullmatch(self.address):
            return len(_resolve(match["host"], match["port"]) or [None])
        return 1


def is_cuda(target: object) -> bool:
    """Whether the target is a GPU of this process."""
    return isinstance(target, str) and _CUDA.fullmatch(target) is not None


def is_on_this_machine(target: str) -> bool:
    """Whether an address is a loopback address or a Unix socket, without asking a name service."""
    return target.startswith("unix:") or all(map(_LOOPBACK.fullmatch, target.split(",")))


def host_to_check(target: str) -> str | None:
    """The host to check certificates against, for sockets, IP addresses and lists, where gRPC cannot derive it."""
    if target.startswith("unix:"):
        return "localhost"
    if "," not in target and not target.startswith(("ipv4:", "ipv6:")):
        return None
    match = _HOST_PORT.match(target.removeprefix("ipv4:").removeprefix("ipv6:"))
    return match["host"].strip("[]") if match else None


def parse(target: object, options: Sequence[tuple[str, Any]] = ()) -> Target:
    """Parse a target, without asking a name service.

    Args:
        target: As for `seedbed.connect`.
        options: Channel arguments, which override ours.

    Raises:
        InvalidRequest: The target is not an address; the message shows the accepted forms.
    """
    address = _address(target)
    ours = dict(_OPTIONS)
    if is_on_this_machine(address):
        ours["grpc.enable_http_proxy"] = 0
    if _is_list(address) or address.startswith(_SCHEMES):
        ours["grpc.service_config"] = json.dumps(_REPLICA_CONFIG)
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
    for endpoint in target.split(","):
        _host_and_port(endpoint, target)
    return target


def _is_list(address: str) -> bool:
    return "," in address and not address.startswith(("unix:", *_SCHEMES))


def _host_and_port(endpoint: str, target: str) -> tuple[str, str]:
    match = _HOST_PORT.fullmatch(endpoint.strip())
    if match is None:
        raise InvalidRequest("target", f"{target!r} is not an address; {_FORMS}")
    if not 0 < int(match["port"]) < 2**16:
        raise InvalidRequest("target", f"port {match['port']} is outside 1 .. 65535; {_FORMS}")
    return match["host"], match["port"]


def _join(target: str) -> str:
    """A single address for gRPC, which accepts lists of IP addresses but not of names."""
    endpoints = [_host_and_port(endpoint, target) for endpoint in target.split(",")]
    addresses = list(dict.fromkeys(address for endpoint in endpoints for address in _resolve(*endpoint)))
    if not addresses:
        raise Unavailable(f"none of the hosts of {target} can be resolved; check their names")
    if all(family == socket.AF_INET for family, _, _ in addresses):
        return "ipv4:" + ",".join(f"{host}:{port}" for _, host, port in addresses)
    mapped = [host if family == socket.AF_INET6 else f"::ffff:{host}" for family, host, _ in addresses]
    return "ipv6:" + ",".join(f"[{host}]:{port}" for host, (_, _, port) in zip(mapped, addresses, strict=True))


def _resolve(host: str, port: str) -> list[tuple[int, str, int]]:
    """The addresses of a host, or none; only one of ``localhost``, whose two mean one machine."""
    try:
        records = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    addresses = [(int(family), str(address[0]), int(address[1])) for family, _, _, _, address in records]
    return sorted(addresses)[:1] if host == "localhost" else addresses
