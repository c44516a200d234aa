"""Docker or podman, with compose: finds what this machine has, and runs its commands."""

from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
PROBE_SECONDS = 30.0
PROFILES = ("--profile", "train", "--profile", "monitoring")

INSTALL = {
    "docker": "install the Docker Compose plugin (package docker-compose-plugin)",
    "podman": "install it with `pip install podman-compose`",
}
START = {
    "docker": "start it (`systemctl start docker`) or set ENGINE=podman",
    "podman": "check `podman info` or set ENGINE=docker",
}
ALLOW = {
    "docker": "add your user to the group docker, or run this as root",
    "podman": "run this as root, or set up rootless podman (`podman system migrate`)",
}


class UnusableError(Exception):
    """This machine or its container engine cannot run the tests. The message is one line and ends with the remedy."""


class FailedError(Exception):
    """A check of our containers failed."""


def find_engine() -> str:
    """Returns the name of a container engine that works: ENGINE, or else docker or podman.

    Raises:
        UnusableError: There is none.
    """
    choice = os.environ.get("ENGINE")
    problems = []
    for program in [choice] if choice else ["docker", "podman"]:
        if shutil.which(program) is None:
            continue
        problem = _problem(program)
        if problem is None:
            return program
        problems.append(problem)
    if problems:
        raise UnusableError("; ".join(problems))
    if choice:
        raise UnusableError(f"ENGINE={choice} is not installed; install it, or unset ENGINE")
    raise UnusableError("there is no container engine; install podman or Docker")


def find_compose(program: str) -> tuple[str, ...]:
    """Returns the command that runs compose: COMPOSE, or else the engine's own.

    Raises:
        UnusableError: It is not installed.
    """
    kind = _kind(program)
    default = "podman-compose" if kind == "podman" else f"{program} compose"
    command = shlex.split(os.environ.get("COMPOSE") or default)
    if _probe(*command, "version").returncode != 0:
        raise UnusableError(f"`{shlex.join(command)}` does not run; {INSTALL[kind]}, or set COMPOSE")
    return tuple(command)


def _problem(program: str) -> str | None:
    """Why an engine cannot be used, with the remedy; None if it can."""
    kind = _kind(program)
    done = _probe(program, "ps")
    if done.returncode == 0:
        return None
    reason = last_line(done.stderr) or f"`{program} ps` exited with {done.returncode}"
    if "permission denied" in done.stderr.lower():
        return f"{program} refuses this user ({reason}); {ALLOW[kind]}"
    return f"{program} does not work ({reason}); {START[kind]}"


@functools.cache
def _kind(program: str) -> str:
    """``docker`` or ``podman``. The package podman-docker installs podman as ``docker``."""
    if "podman" in program:
        return "podman"
    return "podman" if "podman" in _probe(program, "--version").stdout else "docker"


def _probe(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, text=True, capture_output=True, check=False, timeout=PROBE_SECONDS)
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no response within {PROBE_SECONDS:g} s")


def last_line(text: str) -> str:
    """The last line, without the line break."""
    return text.strip().rpartition("\n")[2]


@dataclass(frozen=True)
class Engine:
    """An engine with compose, and the project that the tests run in it."""

    program: str
    compose_command: tuple[str, ...]
    project: str
    environment: Mapping[str, str]
    """The variables that docker-compose.yml reads, beside those of this process."""

    @property
    def is_podman(self) -> bool:
        return _kind(self.program) == "podman"

    def __call__(self, *arguments: str, code: int | None = 0) -> str:
        """Runs a command of the engine; see `run`."""
        return self.run(self.program, *arguments, code=code)

    def compose(self, *arguments: str, code: int | None = 0) -> str:
        return self.run(*self.compose_line(*arguments), code=code)

    def compose_line(self, *arguments: str) -> tuple[str, ...]:
        return (*self.compose_command, "--project-name", self.project, *PROFILES, *arguments)

    def run(self, *command: str, code: int | None = 0) -> str:
        """Runs a command in the repository and returns its standard output.

        Raises:
            FailedError: It exited with another code than ``code``, unless that is None.
        """
        done = subprocess.run(command, cwd=ROOT, env=self.variables(), text=True, capture_output=True, check=False)
        if code is not None and done.returncode != code:
            output = f"{done.stdout}\n{done.stderr}".strip()
            raise FailedError(f"`{shlex.join(command)}` exited with {done.returncode}:\n{output}")
        return done.stdout

    def variables(self) -> dict[str, str]:
        return {**os.environ, **self.environment}

    def containers(self, service: str) -> list[str]:
        """The names of a service's running containers."""
        label = "label=com.docker.compose"
        filters = ("--filter", f"{label}.project={self.project}", "--filter", f"{label}.service={service}")
        return sorted(self("ps", *filters, "--format", "{{.Names}}").split())

    def state(self, container: str) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self("inspect", "--format", "{{json .State}}", container))
        return state

    def addresses(self, container: str) -> set[str]:
        template = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        return set(self("inspect", "--format", template, container).split())

    def python(self, container: str, code: str) -> str:
        """Runs Python code in a container and returns what it prints."""
        return self("exec", container, "python", "-c", code).strip()

    def is_healthy(self, container: str) -> bool:
        """Whether the container's health check passed. Without systemd, podman runs it only on request."""
        if self.is_podman:
            self("healthcheck", "run", container, code=None)
        return bool(self.state(container).get("Health", {}).get("Status") == "healthy")

    def image(self, name: str) -> dict[str, Any]:
        """What the engine knows of an image.

        Raises:
            UnusableError: There is no such image, or it has no health check.
        """
        images = json.loads(self("image", "inspect", name, code=None) or "[]")
        if not images:
            raise UnusableError(f"there is no image {name}; build it, or unset SEEDBED_IMAGE")
        image: dict[str, Any] = images[0]
        if image["Config"].get("Healthcheck") or image.get("Healthcheck") or image.get("HealthCheck"):
            return image
        raise UnusableError(
            f"the image {name} has no health check, because images in the OCI format cannot hold one; "
            "build it with `--format docker`"
        )

    def build(self, name: str, options: tuple[str, ...] = ()) -> None:
        """Builds the Dockerfile's target ``cpu``."""
        # podman's default format, OCI, would drop the health check.
        form = ("--format", "docker") if self.is_podman else ()
        self("build", "--tag", name, "--target", "cpu", *form, *options, ".")
