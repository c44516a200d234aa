"""Copies the version from client/seedbed/_version.py to the files that cannot read it: ``make stamp``.

tests/test_release.py fails where a copy is stale.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "client" / "seedbed" / "_version.py"

COPIES = {
    "CITATION.cff": r"(?m)(?<=^version: ).*",
    "deploy/kubernetes/base/deployment.yaml": r"(?<=image: seedbed:)\S+",
    "deploy/kubernetes/base/kustomization.yaml": r'(?<=newTag: ")[^"]+',
    "deploy/kubernetes/checkpoint/job.yaml": r"(?<=image: seedbed:)\S+",
    "deploy/kubernetes/gpu/kustomization.yaml": r"(?<=newTag: )\S+(?=-gpu)",
    "docs/operations.md": r"(?<=IMAGE=ghcr\.io/seedbed-dev/seedbed:)\S+",
    "docs/tutorial.md": r"(?<=seedbed )\S+(?= serving on)",
}
"""By file, what its copies of the version look like."""


def version() -> str:
    """The version of this tree."""
    [found] = re.findall(r'__version__ = "(.+)"', SOURCE.read_text(encoding="utf-8"))
    return str(found)


def stamped(path: str, text: str) -> str:
    """The text of a file with the version of this tree.

    Raises:
        ValueError: There is no copy of the version in it.
    """
    text, count = re.subn(COPIES[path], version(), text)
    if not count:
        raise ValueError(f"{path}: no version found; mend the pattern in release/stamp.py")
    return text


def main() -> None:
    """Stamps all files; with ``--print``, only prints the version."""
    if "--print" in sys.argv[1:]:
        print(version())
        return
    for name in COPIES:
        file = ROOT / name
        file.write_text(stamped(name, file.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
