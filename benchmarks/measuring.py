"""Interleaved runs, so that a noisy machine treats all competitors alike."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass
class Row:
    """One competitor's figure, and how it compares with the peer of its group."""

    group: str
    name: str
    million_per_second: float
    ratio_to_peer: float


def compare(group: str, elements: int, runs: int, competitors: dict[str, Callable[[], object]]) -> list[Row]:
    """Times all competitors in turns; the last one is the peer that the others are compared with.

    The ratio is the median of the ratios within each turn, which a drifting clock speed does not touch.
    """
    seconds: dict[str, list[float]] = {name: [] for name in competitors}
    for run in range(runs + 1):
        for name, function in competitors.items():
            begin = time.perf_counter()
            function()
            if run:  # the first warms up
                seconds[name].append(time.perf_counter() - begin)
    peer = list(competitors)[-1]
    return [
        Row(
            group,
            name,
            elements / statistics.median(times) / 1e6,
            statistics.median(theirs / ours for ours, theirs in zip(times, seconds[peer], strict=True)),
        )
        for name, times in seconds.items()
    ]


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {"cpu": model, "cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}


def report(rows: list[Row]) -> dict[str, object]:
    """The figures as JSON."""
    return {"machine": machine(), "rows": [asdict(row) for row in rows]}
