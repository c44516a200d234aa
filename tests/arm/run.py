"""Runs the engine's tests on AArch64; elsewhere in a guest whose processor qemu emulates, some twenty times slower.

``python tests/arm/run.py`` runs those of ``TESTS``; what pytest is given can be given instead::

    make test-arm ARGS="tests/engine/test_golden.py -k normal"

The first of these ways that there is, is taken:

- On an AArch64 machine, with the Python that runs this file.
- In a container of docker or podman that can run ``linux/arm64``.
- For root: in a Debian that debootstrap installs to ``$XDG_CACHE_HOME/seedbed-arm``. Remove the folder to be rid of it.

The guest gets the extra ``tests`` of pyproject.toml, anew when that file or the server's changes, and keeps it:
containers in the volume ``seedbed-arm``. pip has the host's settings there, but for the host's folders. The checkout is
read-only. The first run takes some twenty minutes on two cores: kernels are compiled, too. These variables say what to
use:

- ``ENGINE``: ``docker``, ``podman`` or ``chroot``, and no other way.
- ``ARM_IMAGE``: the containers' image, with Python 3.11 or newer. Default: Python's own.
- ``DEBIAN_MIRROR``: what debootstrap installs from. Default: Debian's own.
"""

from __future__ import annotations

import ast
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seedbed-arm"
DEBIAN = CACHE / "debian"
IMAGE = os.environ.get("ARM_IMAGE") or "docker.io/library/python:3.13-slim"
MIRROR = os.environ.get("DEBIAN_MIRROR") or "http://deb.debian.org/debian"
PACKAGES = "python3,python3-venv,ca-certificates"
BINFMT = Path("/proc/sys/fs/binfmt_misc")

# The others need torch, or the GPU's compiler, or a processor that is not emulated, for they look at the clock.
TIMED = "tests/engine/test_laws.py::test_a_large_matrix_polls_for_cancellation_and_reports_progress"
TESTS = [
    "tests/engine",
    *(f"--ignore=tests/engine/test_{name}.py" for name in ("schemes", "cuda", "cuda_machine_code")),
    f"--deselect={TIMED}",
    *("-m", "not slow"),
    *("-n", str(min(8, os.cpu_count() or 1)), "--dist", "worksteal"),
]

# What is written goes to /cache, which is kept; /src is the checkout. The emulated GPU needs a C++ compiler.
GUEST = {
    "EMULATED_GPU": "0",
    "HOME": "/cache",
    "HYPOTHESIS_STORAGE_DIRECTORY": "/cache/hypothesis",
    "LANG": "C.UTF-8",
    "NUMBA_CACHE_DIR": "/cache/numba",
    "PIP_ROOT_USER_ACTION": "ignore",
    "PYTEST_ADDOPTS": "-o cache_dir=/cache/pytest",
    "PYTHONPYCACHEPREFIX": "/cache/bytecode",
}
IN_GUEST = """
set -e
cd /src
{ cat pyproject.toml server/pyproject.toml; python3 -VV; } >/tmp/requirements
if ! cmp -s /tmp/requirements /cache/installed; then
  echo "installing what the tests need"
  rm -f /cache/installed
  python3 -m venv --clear /cache/venv
  /cache/venv/bin/python -m pip install --quiet --only-binary=:all: --editable '.[tests]' --editable server
  cp /tmp/requirements /cache/installed
fi
exec /cache/venv/bin/python -m pytest "$@"
"""

# Within a namespace of its own, with which the mounts go. Gets the guest's root, the checkout and our cache.
IN_CHROOT = """
mount --bind "$2" "$1/src"
mount -o remount,bind,ro "$1/src"
mount --bind "$3/kept" "$1/cache"
mount --bind "$3/settings" "$1/settings"
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
cp --dereference --remove-destination /etc/resolv.conf "$1/etc/resolv.conf"
root=$1
shift 3
exec chroot "$root" "$@"
"""
OWN_MOUNTS = ("unshare", "--mount", "sh", "-e", "-c")
QUIETLY = 'log=$1; shift; "$@" >"$log" 2>&1 || { tail "$log"; exit 1; }'

ADVICE = """Install one of these:
- docker or podman, and qemu's user mode: Debian's packages qemu-user-static and binfmt-support, or
  docker run --privileged --rm tonistiigi/binfmt --install arm64
- if you are root on Linux: Debian's packages debootstrap, qemu-user-static and binfmt-support"""


def run(*command: str | Path) -> None:
    """Runs a command that must succeed."""
    code = subprocess.run(command, check=False).returncode
    if code:
        sys.exit(f"FAILED  {' '.join(map(str, command))} ended with {code}")


def complaint(*command: str) -> str:
    """The last line of what a command wrote, if it failed."""
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode == 0:
        return ""
    return (done.stderr or done.stdout).strip().rpartition("\n")[2] or f"exit code {done.returncode}"


# What the guest knows of the host.


def pip_settings(listed: str, folder: Path) -> dict[str, str]:
    """What ``pip config list`` prints, as variables; files are copied to a folder, which the guest has as /settings."""
    settings: dict[str, str] = {}
    for section in ("global", "install", ":env:"):  # in turn, as pip has it: the last one wins
        for line in listed.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(f"{section}."):
                settings[name.removeprefix(f"{section}.")] = ast.literal_eval(value)
    words = {name: [in_guest(word, folder) for word in value.split()] for name, value in settings.items()}
    return {
        f"PIP_{name.upper().replace('-', '_')}": " ".join(filter(None, value))
        for name, value in words.items()
        if any(value)
    }


def in_guest(word: str, folder: Path) -> str:
    """A word of a setting as the guest has it, which has none of the host's folders."""
    if not word.startswith(("/", "~", "file:")):
        return word
    path = Path(word).expanduser()
    if not path.is_file():
        return ""
    shutil.copy(path, folder / path.name)
    return f"/settings/{path.name}"


def environment() -> dict[str, str]:
    """The guest's variables."""
    settings = CACHE / "settings"
    shutil.rmtree(settings, ignore_errors=True)
    settings.mkdir(parents=True)
    pip = subprocess.run([sys.executable, "-m", "pip", "config", "list"], text=True, capture_output=True, check=False)
    proxies = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    return {**GUEST, **proxies, **pip_settings(pip.stdout, settings)}


# A container.


def problem_of_engine(engine: str) -> str:
    """Why an engine cannot run the guest; empty if it can."""
    if not shutil.which(engine):
        return "is not installed"
    if said := complaint(engine, "info"):
        return f"does not work: {said}"
    if said := complaint(engine, "run", "--rm", "--platform", "linux/arm64", IMAGE, "true"):
        return f"does not run {IMAGE} for linux/arm64: {said}"
    return ""


def container(engine: str, names: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """The command that runs pytest in a container, which takes the variables of these names."""
    options = ["--rm", "--platform", "linux/arm64", "--security-opt", "label=disable"]
    for mounted in (f"{ROOT}:/src:ro", "seedbed-arm:/cache", f"{CACHE / 'settings'}:/settings:ro"):
        options += ["--volume", mounted]
    for name in names:
        options += ["--env", name]  # without its value, which may be a password
    return [engine, "run", *options, IMAGE, "sh", "-c", IN_GUEST, "sh", *arguments]


# A folder.


def problem_of_chroot() -> str:
    """Why there can be no guest in a folder; empty if there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs Linux, and root"
    if missing := [name for name in ("debootstrap", "unshare") if not shutil.which(name)]:
        return f"needs {' and '.join(missing)}"
    if not (BINFMT / "qemu-aarch64").exists() and not shutil.which("qemu-aarch64-static"):
        return "needs qemu's user mode"
    return ""


def install_debian() -> None:
    """Has the kernel start AArch64's programs by qemu, and installs Debian unless it is there."""
    if not (BINFMT / "status").exists():
        run("mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT)
    if not (BINFMT / "qemu-aarch64").exists():
        run("update-binfmts", "--enable", "qemu-aarch64")
    if DEBIAN.exists():
        return
    print(f"installing Debian for AArch64 to {DEBIAN}, in some minutes", flush=True)
    unfinished = DEBIAN.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    options = ["--arch=arm64", "--variant=minbase", f"--include={PACKAGES}", "bookworm"]
    run(*OWN_MOUNTS, QUIETLY, "sh", CACHE / "debootstrap.log", "debootstrap", *options, unfinished, MIRROR)
    for name in ("src", "cache", "settings"):
        (unfinished / name).mkdir()
    unfinished.rename(DEBIAN)


def chroot(arguments: Sequence[str]) -> list[str]:
    """The command that runs pytest in the folder."""
    enter = [*OWN_MOUNTS, IN_CHROOT, "sh", str(DEBIAN), str(ROOT), str(CACHE)]
    return [*enter, "sh", "-c", IN_GUEST, "sh", *arguments]


def choose(requested: str | None) -> str:
    """The way to go; none that was tried is passed over in silence."""
    problems: dict[str, str] = {}
    for way in [requested] if requested else ["docker", "podman", "chroot"]:
        problem = problem_of_chroot() if way == "chroot" else problem_of_engine(way)
        if not problem:
            return way
        problems[way] = problem
    reasons = "\n".join(f"  {way} {problem}" for way, problem in problems.items())
    sys.exit(f"There is no way to run AArch64's programs here:\n{reasons}\n{ADVICE}")


def main(arguments: Sequence[str]) -> int:
    if platform.machine().lower() in ("aarch64", "arm64"):
        return subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=ROOT, check=False).returncode
    way, guest = choose(os.environ.get("ENGINE")), environment()
    print(f"on an emulated AArch64, by {way}", flush=True)
    if way == "chroot":
        (CACHE / "kept").mkdir(exist_ok=True)
        install_debian()
        paths = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        return subprocess.run(chroot(arguments), env=guest | paths, check=False).returncode
    return subprocess.run(container(way, list(guest), arguments), env=os.environ | guest, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or TESTS))
