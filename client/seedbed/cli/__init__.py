"""The command line ``seedbed``. Requires the extra ``cli`` (or ``server``, which includes it)."""

import importlib.util
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: The arguments after the program's name; ``sys.argv`` by default.

    Returns:
        The exit code, as ``seedbed --help`` documents it.
    """
    if importlib.util.find_spec("click") is None or importlib.util.find_spec("rich") is None:
        print("seedbed: the command line is not installed; run: pip install 'seedbed[cli]'", file=sys.stderr)
        return 2
    from seedbed.cli._app import run  # noqa: PLC0415

    return run(arguments)
