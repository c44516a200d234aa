"""Builds both distributions, and tries each of their extras in a fresh environment: ``make release-check``.

Python 3.11 and the newest one at hand are used; ``PYTHONS="3.12 3.14"`` names others. ``EXTRAS="cli plot"`` tries these
alone. The GPU's extras bring 2 GB, so they are only resolved. What is built stays in ``dist``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from release import contents, stamp
from release.contents import CLIENT, ROOT, SERVER

DIST = ROOT / "dist"
SMOKE = ROOT / "release" / "smoke.py"
GOLDEN = ROOT / "tests" / "engine" / "golden" / "stream_v1.json"
FIRST_MINOR = 11
EXTRAS = {
    "thin": "",
    "server": "[server]",
    "traces": "[traces]",
    "cli": "[cli]",
    "plot": "[plot]",
    "safetensors": "[safetensors]",
    "explore": "[explore]",
    "torch": "[torch]",
    "jax": "[jax]",
    "keras": "[keras,jax]",  # Keras computes with another framework
}
RESOLVED = ("gpu", "gpu-cuda12")
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")


def run(*command: str | Path, environment: dict[str, str] | None = None) -> None:
    """Runs a command that must succeed."""
    code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    if code:
        sys.exit(f"FAILED  {' '.join(map(str, command))} ended with {code}")


def refuse(what: str, problems: Sequence[str]) -> None:
    """Ends if there are problems."""
    if problems:
        sys.exit(f"FAILED  {what}:\n" + "\n".join(f"  {problem}" for problem in problems))
    print(f"ok  {what}", flush=True)


# Building.


def build() -> list[Path]:
    """The sdist of each distribution, and the wheel that is made from it."""
    shutil.rmtree(DIST, ignore_errors=True)
    for distribution in (CLIENT, SERVER):
        run(sys.executable, "-m", "build", "--outdir", DIST, ROOT / distribution.folder)
    return sorted(DIST.iterdir())


def check_archives(archives: list[Path], version: str) -> None:
    """Lists the files of each, and refuses what is too much or missing."""
    for distribution in (CLIENT, SERVER):
        built = [path for path in archives if path.name.startswith(f"{distribution.file_name}-")]
        endings = sorted(path.name.removeprefix(f"{distribution.file_name}-{version}") for path in built)
        refuse(f"{distribution.name} {version}: an sdist and a wheel", [] if len(built) == 2 else endings)
        for archive in built:
            found = contents.names(archive)
            print(*sorted(found), sep="\n")
            wanted = contents.expected(distribution, archive, version)
            refuse(f"{archive.name}: {len(found)} files", contents.complaints(found, wanted))


def check_metadata(version: str) -> None:
    """The server is pinned to its client, and the README's links lead somewhere from PyPI."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    client, server = (contents.metadata(wheel_of(distribution.file_name)) for distribution in (CLIENT, SERVER))
    pin = f"seedbed[cli]=={version}"
    refuse(f"the server requires {pin}", [] if pin in server.get_all("Requires-Dist", []) else ["it does not"])
    links = contents.broken_links(client.get_content(), urls["Repository"], version)
    refuse("the links of the README on PyPI", links)


def wheel_of(file_name: str) -> Path:
    """The wheel that was built."""
    [wheel] = DIST.glob(f"{file_name}-*.whl")
    return wheel


# Installing.


def pythons() -> list[str]:
    """The interpreters to use: those that PYTHONS names, or the oldest and the newest at hand."""
    if chosen := os.environ.get("PYTHONS"):
        found = {version: interpreter(version) for version in chosen.split()}
        refuse(
            "the Pythons that were chosen", [f"{version} is not here" for version, path in found.items() if not path]
        )
        return [path for path in found.values() if path]
    versions = (f"3.{minor}" for minor in range(FIRST_MINOR, FIRST_MINOR + 20))
    here = [path for path in map(interpreter, versions) if path]
    refuse("Python 3.11 or newer", [] if here else ["none is on PATH or in ~/.pyenv/versions"])
    if not interpreter(f"3.{FIRST_MINOR}"):
        print("Python 3.11 is not here; the oldest that is takes its place")
    return list(dict.fromkeys((here[0], here[-1])))


def interpreter(version: str) -> str | None:
    """The interpreter of a version such as 3.13, on PATH or of pyenv; None if there is none that runs."""
    of_pyenv = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python"))
    for candidate in (f"python{version}", *map(str, of_pyenv)):
        with contextlib.suppress(OSError):
            done = subprocess.run(
                [candidate, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True, check=False
            )
            if done.returncode == 0:
                return done.stdout.strip()
    return None


@contextlib.contextmanager
def environment(python: str, extras: str) -> Iterator[Path]:
    """A fresh environment with these extras; gives its Python."""
    with tempfile.TemporaryDirectory(prefix="seedbed-release-") as folder:
        run(python, "-m", "venv", folder)
        inside = Path(folder, "bin", "python")
        install(inside, extras)
        yield inside


def install(python: Path, extras: str, *options: str) -> None:
    """Installs the client's wheel with extras, which find the server's in dist too."""
    requirement = f"seedbed{extras} @ {wheel_of(CLIENT.file_name).as_uri()}"
    run(python, *PIP, "install", "--only-binary", ":all:", "--find-links", DIST, *options, requirement)


@contextlib.contextmanager
def served(python: Path, folder: Path) -> Iterator[str]:
    """A server that all extras ask; gives its address. The folder gets a file that it made."""
    seedbed = python.with_name("seedbed")
    process = subprocess.Popen([seedbed, "serve", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        line = process.stdout.readline()
        found = re.search(r"serving on ([^;]+);", line)
        refuse(f"the server starts: {line.strip()}", [] if found else ["it does not"])
        assert found
        scheme = ("kaiming_normal", "--shape", "64,32", "--seed", "7", "--name", "w")
        run(seedbed, "get", *scheme, "--target", found[1], "-o", folder / "w.safetensors")
        yield found[1]
    finally:
        process.terminate()
        process.wait(60)


def try_extras(python: str, extras: Sequence[str]) -> None:
    """Tries each extra with one Python."""
    with tempfile.TemporaryDirectory() as folder, environment(python, "[server]") as server:
        for extra in RESOLVED:
            began = time.monotonic()
            install(server, f"[{extra}]", "--dry-run")
            print(f"ok  seedbed[{extra}] resolves ({time.monotonic() - began:.0f} s)", flush=True)
        with served(server, Path(folder)) as target:
            for extra in extras:
                try_extra(python, extra, target, folder)


def try_extra(python: str, extra: str, target: str, folder: str) -> None:
    """Installs an extra where nothing else is, and runs its smoke test."""
    began = time.monotonic()
    with environment(python, EXTRAS[extra]) as inside:
        installed = time.monotonic()
        variables = {**os.environ, "KERAS_BACKEND": "jax"}
        run(inside, "-I", SMOKE, extra, target, GOLDEN, folder, environment=variables)
        seconds = f"{installed - began:.0f} s to install, {time.monotonic() - installed:.0f} s to try"
        print(f"ok  seedbed{EXTRAS[extra]} ({seconds})", flush=True)


def main() -> None:
    """Checks the release of this tree."""
    version = stamp.version()
    archives = build()
    run(sys.executable, "-m", "twine", "check", "--strict", *archives)
    check_archives(archives, version)
    check_metadata(version)
    extras = os.environ.get("EXTRAS", "").split() or list(EXTRAS)
    for python in pythons():
        version_line = subprocess.run([python, "--version"], check=True, capture_output=True, text=True).stdout.strip()
        print(f"with {version_line}: {python}", flush=True)
        try_extras(python, extras)


if __name__ == "__main__":
    main()
