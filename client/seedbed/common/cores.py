"""The number of cores that a process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

_CPU_LIMIT: Final = Path("/sys/fs/cgroup/cpu.max")  # of this container: "QUOTA PERIOD", in microseconds


def usable_cores() -> int:
    """The number of cores that this process may run on, at most the CPU quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CPU_LIMIT.read_text(encoding="ascii").split()
        return min(cores, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no control groups, or no limit: "max"
        return cores


def cores_of_rank() -> int:
    """This process's share of the usable cores, if it is one of several ranks on this machine.

    torchrun sets LOCAL_WORLD_SIZE to the number of ranks. A rank that is already pinned to cores gets all of them.
    """
    cores, ranks = usable_cores(), os.environ.get("LOCAL_WORLD_SIZE", "")
    is_bound = hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) < (os.cpu_count() or 1)
    if is_bound or not (ranks.isascii() and ranks.isdigit()):
        return cores
    return max(1, cores // max(1, int(ranks)))
