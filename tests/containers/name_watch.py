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
import socket, sys, time
while True:
    start = time.time()
    try:
        result = " ".join(sorted({{place[0] for *_, place in socket.getaddrinfo({NAME!r}, None, socket.AF_INET)}}))
    except OSError as error:
        result = "! " + error.strerror
    sys.stdout.write(f"{{start}} {{time.time()}} {{result}}\\n")  # in one piece, unlike print, so that no line is torn
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

    def lists(self, addresses: set[str]) -> bool:
        """Whether the name stands for at least one of some addresses."""
        lookups = self._lookups("--tail", "3")  # the last line may not be complete yet
        return bool(lookups) and not lookups[-1].addresses.isdisjoint(addresses)

    def summary(self) -> str:
        """How often and how long the name did not resolve."""
        failures = [group[-1].end - group[0].start for group in self._groups() if group[0].error]
        if not failures:
            return "no failures"
        return f"{len(failures)} failure{'' if len(failures) == 1 else 's'}, up to {max(failures):.0f} s"

    def report(self) -> str:
        """All lookups, consecutive ones with the same outcome as one line."""
        lines = [f"  {clock(group[0].start)}  {len(group):4} lookups  {group[0].outcome}" for group in self._groups()]
        return "\n".join([f"the name `{NAME}`, as another container resolved it ({self.summary()}):", *lines])

    def _groups(self) -> list[list[Lookup]]:
        return [list(group) for _, group in itertools.groupby(self._lookups(), lambda lookup: lookup.outcome)]

    def _lookups(self, *options: str) -> list[Lookup]:
        lines = self._engine("logs", *options, self._container, code=None).splitlines()
        return [_parsed(line) for line in lines if line.count(" ") >= 2]


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


def clock(seconds: float) -> str:
    """A time since the epoch, as the time of day in UTC."""
    return time.strftime("%H:%M:%S", time.gmtime(seconds))
