"""The parts of ``benchmarks/gpu.py``: it compares a GPU's bits, and measures its speed.

Import this package first: it adds Seedbed from this checkout to the path, and installs stand-ins for missing packages.
``benchmarks/many_cores.py`` does the same.
"""

import sys
from pathlib import Path

from benchmarks.on_gpu import stand_ins

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "client"), str(ROOT / "server")]
STAND_INS = stand_ins.install()
"""The missing packages, and what replaces them."""
