"""What ``benchmarks/gpu.py`` runs on a GPU: the proof of its bits, and its figures.

Importing this makes the rest importable: Seedbed from this checkout, and stand-ins for packages that are missing.
``benchmarks/many_cores.py`` does so, too.
"""

import sys
from pathlib import Path

from benchmarks.on_gpu import stand_ins

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "client"), str(ROOT / "server")]
STAND_INS = stand_ins.put_in()
"""The packages that are missing, and what is in their places."""
