"""How a server process is: what it holds, and whether it answers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import grpc
from _helpers.waiting import wait_until
from grpc_health.v1 import health_pb2, health_pb2_grpc

_MIB = 1 << 20
_MORE_MEMORY = 32 * _MIB  # what malloc keeps of freed messages
_MORE_THREADS = 12  # of pools that make them when they first need them, and keep them; gRPC's own come and go
_MORE_FILES = 2


class Vitals(NamedTuple):
    """What a process holds."""

    rss: int
    threads: int
    files: int


def vitals(pid: int) -> Vitals:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    rss, threads = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) for name in ("VmRSS", "Threads"))
    return Vitals(rss * 1024, threads, len(list(Path(f"/proc/{pid}/fd").iterdir())))


def is_serving(target: str, timeout: float = 5.0) -> bool:
    with grpc.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout)
    return answer.status == health_pb2.HealthCheckResponse.SERVING


def assert_recovered(pid: int, before: Vitals, seconds: float = 20.0) -> None:
    """Waits until the process holds no more than before."""

    def is_back() -> bool:
        now = vitals(pid)
        return (
            now.rss <= before.rss + _MORE_MEMORY
            and now.threads <= before.threads + _MORE_THREADS
            and now.files <= before.files + _MORE_FILES
        )

    assert wait_until(is_back, seconds), f"{before} before, {vitals(pid)} now"
