"""What run.py says where it cannot run, with scripts in place of the engines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")
DENIED = "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock"
WORKS = 'case "$*" in --version) echo "NAME version 1";; "image inspect"*) echo "$IMAGES";; esac'
FAILS = 'case "$*" in --version) echo "NAME version 1";; ps) echo "REASON" >&2; exit 1;; esac'
NO_COMPOSE = f'[ "$1" = compose ] && exit 1\n{WORKS}'


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """The only folder on the path: no engine but those that a test puts there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


def install(programs: Path, name: str, script: str) -> None:
    path = programs / name
    path.write_text(f"#!/bin/sh\n{script.replace('NAME', name)}\n")
    path.chmod(0o755)


def message(programs: Path, **variables: str) -> str:
    """The one line that run.py prints where it cannot run."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("ENGINE", "COMPOSE")}
    environment = {**inherited, "PATH": str(programs), "SEEDBED_IMAGE": "seedbed", **variables}
    done = subprocess.run([sys.executable, RUN], env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    return line.removeprefix("cannot test containers here: ")


def test_no_engine(programs: Path):
    assert message(programs) == "there is no container engine; install podman or Docker"
    assert message(programs, ENGINE="podman") == "ENGINE=podman is not installed; install it, or unset ENGINE"


def test_engine_that_does_not_work(programs: Path):
    install(programs, "docker", FAILS.replace("REASON", "Cannot connect to the Docker daemon"))
    line = message(programs)
    assert line.startswith("docker does not work (Cannot connect to the Docker daemon); start it (`systemctl start")


def test_engine_that_refuses_this_user(programs: Path):
    install(programs, "docker", FAILS.replace("REASON", DENIED))
    assert message(programs) == (
        f"docker refuses this user ({DENIED}); add your user to the group docker, or run this as root"
    )


def test_engine_without_compose(programs: Path):
    install(programs, "docker", NO_COMPOSE)
    assert message(programs) == (
        "`docker compose` does not run; install the Docker Compose plugin (package docker-compose-plugin), "
        "or set COMPOSE"
    )
    assert message(programs, COMPOSE="absent --x").startswith("`absent --x` does not run; ")


def test_another_engine_takes_the_place_of_one_that_does_not_work(programs: Path):
    install(programs, "docker", FAILS.replace("REASON", "Cannot connect to the Docker daemon"))
    install(programs, "podman", WORKS)
    assert message(programs) == (
        "`podman-compose` does not run; install it with `pip install podman-compose`, or set COMPOSE"
    )


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ("[]", "there is no image seedbed; build it, or unset SEEDBED_IMAGE"),
        (
            '[{"Config": {}}]',
            "the image seedbed has no health check, because images in the OCI format cannot hold one; "
            "build it with `--format docker`",
        ),
    ],
)
def test_image_that_cannot_be_tested(programs: Path, images: str, expected: str):
    install(programs, "podman", WORKS)
    install(programs, "podman-compose", "")
    assert message(programs, IMAGES=images) == expected
