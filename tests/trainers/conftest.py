"""The examples are imported as modules, and functions run on several ranks as in tests/pytorch."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "pytorch"), str(TESTS.parent / "examples")]  # and so in the ranks, which get sys.path
