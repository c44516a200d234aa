"""What a distribution must hold, and must not: the files that git tracks and its metadata, and nothing else."""

from __future__ import annotations

import email.parser
import email.policy
import re
import subprocess
import tarfile
import zipfile
from email.message import EmailMessage
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Distribution(NamedTuple):
    """One of the two distributions of this tree.

    Attributes:
        name: As on PyPI.
        folder: Where its pyproject.toml is.
        package: Its package, from there.
        sdist_only: What its sdist has beside the package.
        metadata: What its wheel has in its ``.dist-info``.
    """

    name: str
    folder: str
    package: str
    sdist_only: frozenset[str]
    metadata: frozenset[str]

    @property
    def file_name(self) -> str:
        """How its files' names begin."""
        return self.name.replace("-", "_")


_SDIST = frozenset({".gitignore", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml"})
_WHEEL = frozenset({"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"})
CLIENT = Distribution("seedbed", ".", "client/seedbed", _SDIST | {"CHANGELOG.md"}, _WHEEL)
SERVER = Distribution("seedbed-server", "server", "seedbed_server", _SDIST | {"hatch_build.py"}, _WHEEL)


def names(archive: Path) -> set[str]:
    """The files of an sdist, without its folder, or of a wheel."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return set(wheel.namelist())
    with tarfile.open(archive) as sdist:
        return {member.name.partition("/")[2] for member in sdist.getmembers() if not member.isdir()}


def tracked(distribution: Distribution) -> set[str]:
    """The files of its package that git tracks, from the distribution's folder."""
    folder = ROOT / distribution.folder
    command = ["git", "-C", str(folder), "ls-files", "-z", "--", distribution.package]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return set(filter(None, listed.split("\0")))


def expected(distribution: Distribution, archive: Path, version: str) -> set[str]:
    """What an archive has to hold."""
    files = tracked(distribution)
    if archive.suffix != ".whl":
        return files | distribution.sdist_only
    parent = distribution.package.rpartition("/")[0]
    info = f"{distribution.file_name}-{version}.dist-info"
    return {name.removeprefix(f"{parent}/") for name in files} | {f"{info}/{name}" for name in distribution.metadata}


def complaints(found: set[str], wanted: set[str]) -> list[str]:
    """What an archive holds too much, and what it lacks."""
    extra = [f"does not belong: {name}" for name in sorted(found - wanted)]
    return extra + [f"is missing: {name}" for name in sorted(wanted - found)]


def metadata(wheel: Path) -> EmailMessage:
    """The metadata of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.parser.BytesParser(EmailMessage, policy=email.policy.default).parsebytes(archive.read(name))


def broken_links(description: str, repository: str, version: str) -> list[str]:
    """The links of a description that lead nowhere on PyPI: relative ones, and those to files that this tree lacks."""
    raw = repository.replace("https://github.com/", "https://raw.githubusercontent.com/")
    of_this_tree = re.compile(rf"(?:{re.escape(repository)}/blob|{re.escape(raw)})/v{re.escape(version)}/([^#]+)")
    broken = []
    for link in re.findall(r"\]\(([^)]+)\)", description):
        if not link.startswith(("https://", "#")):
            broken.append(f"not absolute: {link}")
        elif (file := of_this_tree.match(link)) and not (ROOT / file[1]).exists():
            broken.append(f"no such file: {link}")
    return broken
