"""Results as JSON: one file per part, with the place, time and command of each result."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

Say = Callable[[str], None]
"""Shows the user the progress."""

Result = dict[str, Any]

_PACKAGES = ("seedbed", "numpy", "numba", "mpmath", "scipy", "torch", "jax", "flax")


class Report:
    """The results of a part, by key. Each is written at once, and replaces an older one with the same key.

    Args:
        part: ``bits``, ``laws`` or ``peers``; names the file.
        folder: The folder of the file.
    """

    def __init__(self, part: str, folder: Path) -> None:
        self.path = folder / f"{part}.json"
        self.folder = folder

    @property
    def results(self) -> dict[str, Result]:
        """All results in the file."""
        if not self.path.exists():
            return {}
        results: dict[str, Result] = json.loads(self.path.read_text(encoding="utf-8"))
        return results

    def add(self, key: str, command: str, result: Result) -> None:
        """Adds a result to the file, which other processes may have changed meanwhile."""
        new = {"command": command, "date": str(datetime.date.today()), "machine": machine(), **result}
        self.folder.mkdir(parents=True, exist_ok=True)
        whole = self.path.with_suffix(".new")
        whole.write_text(to_text(dict(sorted({**self.results, key: new}.items()))), encoding="utf-8")
        whole.replace(self.path)


def machine() -> Result:
    """The machine and the versions of packages."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": _cpu(), "cores": cores, "python": platform.python_version(), "packages": _packages()}


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    found = re.search(r"model name\s*: (.*)", text)
    return found[1] if found else platform.processor() or platform.machine()


def _packages() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def to_text(results: dict[str, Result]) -> str:
    """JSON with each list of numbers on one line."""
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
    return re.sub(r"\[[-+\d.eE,\s]+\]", lambda match: "[" + " ".join(match[0][1:-1].split()) + "]", text) + "\n"
