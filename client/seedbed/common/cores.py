"""How much of this machine a process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

_CPU_LIMIT: Final = Path("/sys/fs/cgroup/cpu.max")  # microseconds of processor time in how many, as a container sees it


def usable_cores() -> int:
    """How many cores this process may run on, and, in a container, how many of them it may keep busy."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CPU_LIMIT.read_text(encoding="ascii").split()
        return min(cores, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # there are no control groups, or no limit: "max"
        return cores


def cores_of_rank() -> int:
    """This process's share of the usable cores, if it is one of several ranks of a trainer on this machine.

    torchrun says how many there are in LOCAL_WORLD_SIZE. Who bound each rank to cores of its own has divided already.
    """
    cores, ranks = usable_cores(), os.environ.get("LOCAL_WORLD_SIZE", "")
    is_bound = hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) < (os.cpu_count() or 1)
    if is_bound or not (ranks.isascii() and ranks.isdigit()):
        return cores
    return max(1, cores // max(1, int(ranks)))
