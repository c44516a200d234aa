"""Prints what CHANGELOG.md says of the version of this tree: ``python -m release.notes``."""

import sys

from release.stamp import ROOT, version


def notes(changelog: str, of: str) -> str:
    """The section of a version, without its heading; empty if there is none."""
    _, _, rest = changelog.partition(f"\n## [{of}]")
    section = rest.partition("\n## ")[0].partition("\n[")[0]
    return section.partition("\n")[2].strip()


if __name__ == "__main__":
    found = notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version())
    if not found:
        sys.exit(f"CHANGELOG.md has no section for {version()}")
    print(found)
