"""The command line as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def process(*arguments: object, **options: object) -> subprocess.Popen[str]:
    """Starts ``seedbed`` from this checkout; options are those of Popen."""
    paths = [str(ROOT / "client"), str(ROOT / "server"), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-m", "seedbed.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        **options,
    )
