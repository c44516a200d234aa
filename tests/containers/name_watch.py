"""Looks the name of the replicas up all the time, in a container beside them.

podman's name service has failed for half a minute after a container ended, and has lost a replica that was running.
Clients must survive the former. The latter is not our fault: nothing can reach a server that has no address.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from typing import NamedTuple

from container_engine import Engine

NAME = "server"
WATCH = f"""
import socket, time
while True:
    start = time.time()
    try:
        result = " ".join(sorted({{place[0] for *_, place in socket.getaddrinfo({NAME!r}, None, socket.AF_INET)}}))
    except OSError as error:
        result = "! " + error.strerror
    print(start, time.time(), result, flush=True)
    time.sleep(0.5)
"""


class Lookup(NamedTuple):
    """One lookup of the name; an error if it has no addresses."""

    start: float
    end: float
    addresses: frozenset[str]
    error: str

    @property
    def outcome(self) -> str:
        return self.error or f"{len(self.addresses)} addresses: {' '.join(sorted(self.addresses))}"


class NameWatch:
    """The lookups that a container makes."""

    def __init__(self, engine: Engine, container: str) -> None:
        self._engine = engine
        self._container = container

    def latest(self) -> Lookup | None:
        """The last lookup that has ended; None if there is none yet."""
        lookups = self._lookups("--tail", "1")
        return lookups[-1] if lookups else None

    def lists(self, addresses: set[str]) -> bool:
        """Whether the name stands for at least one of some addresses."""
        latest = self.latest()
        return latest is not None and not latest.addresses.isdisjoint(addresses)

    def report(self) -> str:
        """All lookups, those with the same outcome as one line, and how long the name did not resolve."""
        groups = [list(group) for _, group in itertools.groupby(self._lookups(), lambda lookup: lookup.outcome)]
        lines = [f"  {_clock(group[0].start)}  {len(group):4} lookups  {group[0].outcome}" for group in groups]
        failed = [group[-1].end - group[0].start for group in groups if group[0].error]
        summary = f"{len(failed)} failures of the name service" + (f", up to {max(failed):.0f} s" if failed else "")
        return "\n".join([f"the name `{NAME}`, as another container resolved it ({summary}):", *lines])

    def _lookups(self, *options: str) -> list[Lookup]:
        lines = self._engine("logs", *options, self._container, code=None).splitlines()
        return [_parsed(line) for line in lines]


@contextlib.contextmanager
def watching(engine: Engine, image: str) -> Iterator[NameWatch]:
    """Watches the name from the network of the replicas."""
    container = f"{engine.project}-watch"
    options = ("--read-only", "--no-healthcheck", "--network", f"{engine.project}_replicas", "--entrypoint", "python")
    engine("run", "--detach", "--name", container, *options, image, "-c", WATCH)
    try:
        yield NameWatch(engine, container)
    finally:
        engine("rm", "--force", "--volumes", container, code=None)


def _parsed(line: str) -> Lookup:
    start, end, result = line.split(" ", 2)
    is_error = result.startswith("! ")
    addresses = frozenset() if is_error else frozenset(result.split())
    return Lookup(float(start), float(end), addresses, result.removeprefix("! ") if is_error else "")


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(seconds))
