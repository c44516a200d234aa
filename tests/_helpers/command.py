"""Runs the command line as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def environment(*paths: object, **variables: str) -> dict[str, str]:
    """The environment of a process that imports this checkout, with additional folders first on its path."""
    inherited = os.environ.get("PYTHONPATH")
    folders = [*map(str, paths), str(ROOT / "client"), str(ROOT / "server"), *([inherited] if inherited else [])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders), **variables}


def process(*arguments: object, **options: object) -> subprocess.Popen[str]:
    """Starts ``seedbed`` from this checkout; the options are those of Popen."""
    return subprocess.Popen(
        [sys.executable, "-m", "seedbed.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        **options,
    )
