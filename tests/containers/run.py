"""Builds the image and runs docker-compose.yml for real: replicas, DNS, a trainer, servers that are killed and stopped.

Needs docker or podman with its compose, and nothing else: ``python tests/containers/run.py``. These variables say what
to use:

- ``ENGINE``: ``docker`` or ``podman``. Default: the one there is.
- ``COMPOSE``: the command for compose. Default: ``docker compose`` or ``podman-compose``.
- ``SEEDBED_IMAGE``: an image that was built before. Default: the Dockerfile is built, on ``BASE_IMAGE``.
- ``PROMETHEUS_IMAGE``: an image of Prometheus, which is started, too, and must see all servers. Default: not checked.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ENGINE = os.environ.get("ENGINE") or ("docker" if shutil.which("docker") else "podman")
COMPOSE = shlex.split(os.environ.get("COMPOSE") or ("docker compose" if ENGINE == "docker" else "podman-compose"))
PROJECT = f"seedbed-{uuid.uuid4().hex[:8]}"
IMAGE = os.environ.get("SEEDBED_IMAGE") or f"localhost/{PROJECT}:cpu"
PROMETHEUS = os.environ.get("PROMETHEUS_IMAGE", "")
PROFILES = ("--profile", "train", "--profile", "monitoring")
REPLICAS = 3
SETTLED = 35.0  # seconds; gRPC's default for looking a name up again is 30 s; ours is 2 s, and others may ask, too

# 2.5 GiB, of which each tensor comes from all replicas at once.
BIG = {
    "name": "big",
    "tensors": [
        {"name": f"layers.{i}.weight", "shape": [8192, 8192], "seed": i, "normal": {"std": 0.02}} for i in range(10)
    ],
}
HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
HTTP2_SETTINGS = 4
READ_METRICS = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9464/metrics').read().decode())"
READ_STATUS = "print(open('/proc/1/status').read())"
READ_ADDRESSES = "import socket; print(*{found[4][0] for found in socket.getaddrinfo('server', 50051)})"
WRITE_TO_ROOT = "import errno\ntry: open('/x', 'w')\nexcept OSError as e: print(errno.errorcode[e.errno])"


# What engines and compose are asked.


def run(*command: str, code: int | None = 0) -> str:
    """Runs a command and gives what it wrote to stdout; None for a code that does not matter."""
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, text=True, capture_output=True, check=False)
    if code is not None and done.returncode != code:
        sys.exit(f"FAILED  {shlex.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def engine(*arguments: str, code: int | None = 0) -> str:
    return run(ENGINE, *arguments, code=code)


def compose(*arguments: str) -> str:
    return run(*COMPOSE, "--project-name", PROJECT, *PROFILES, *arguments)


def containers(service: str) -> list[str]:
    label = "label=com.docker.compose"
    filters = ("--filter", f"{label}.project={PROJECT}", "--filter", f"{label}.service={service}")
    return sorted(engine("ps", *filters, "--format", "{{.Names}}").split())


def state(container: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(engine("inspect", "--format", "{{json .State}}", container))
    return found


def inside(container: str, code: str) -> str:
    """What Python prints within a container."""
    return engine("exec", container, "python", "-c", code).strip()


def metric(container: str, name: str) -> float:
    """A metric of a server, all its labels together."""
    lines = [line for line in inside(container, READ_METRICS).splitlines() if not line.startswith("#")]
    return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))


def status(container: str) -> dict[str, str]:
    """What Linux tells of the server's process."""
    return dict(line.split(":\t", 1) for line in inside(container, READ_STATUS).splitlines() if ":\t" in line)


def is_healthy(container: str) -> bool:
    """Whether the engine has found so; podman, where there is no systemd, looks only when it is told to."""
    if ENGINE == "podman":
        engine("healthcheck", "run", container, code=None)
    health = state(container).get("Health", {})
    return isinstance(health, dict) and health.get("Status") == "healthy"


# What is said of them.


def check(what: str, is_right: object, seen: object = "") -> None:
    print(f"{'ok' if is_right else 'FAILED'}  {what}{f': {seen}' if seen != '' else ''}", flush=True)
    if not is_right:
        sys.exit(1)


def until(what: str, is_so: Callable[[], object], seconds: float = 120.0) -> float:
    """Waits until something is so; gives the seconds that it took."""
    began = time.monotonic()
    while not is_so():
        if time.monotonic() - began > seconds:
            check(f"{what} within {seconds:g} s", False)
        time.sleep(0.05)
    return time.monotonic() - began


# One container, with no compose.


@contextlib.contextmanager
def alone(*options: str) -> Iterator[tuple[str, float]]:
    """A server to whose container nothing is given; gives its name, and the seconds that its start took."""
    name = f"{PROJECT}-alone"
    create = ("create", "--name", name, "--read-only", "--network", "none", *options)
    # podman gives tmpfs to read-only containers by itself; docker does not.
    engine(*create, *(("--read-only-tmpfs=false",) if ENGINE == "podman" else ()), IMAGE)
    try:
        began = time.monotonic()
        engine("start", name)
        until("the server starts", lambda: "serving on" in engine("logs", name))
        yield name, time.monotonic() - began
    finally:
        engine("rm", "--force", "--volumes", name, code=None)


def one_container() -> None:
    image = json.loads(engine("image", "inspect", IMAGE))[0]
    check("the image has a numeric user", image["Config"]["User"] == "10001:10001", image["Config"]["User"])
    check("the image's size", True, f"{image['Size'] / 1e6:.0f} MB")
    with alone() as (name, warm):
        until("it is healthy", lambda: is_healthy(name))
        check("a read-only container with nothing mounted serves, and is healthy", True)
        check("its memory", True, status(name)["VmRSS"].strip())
        began = time.monotonic()
        engine("stop", "-t", "30", name)
        check("SIGTERM ends it with 0", state(name)["ExitCode"] == 0, f"{time.monotonic() - began:.1f} s")
    with alone("--env", "NUMBA_CPU_NAME=generic") as (_, other):
        check("it starts on a processor that the image was not built on", True, f"{other:.1f} s")
    is_built_here = not os.environ.get("SEEDBED_IMAGE")
    check("it starts on this one", warm < other / 2 or not is_built_here, f"{warm:.1f} s")


# All that docker-compose.yml describes.


@contextlib.contextmanager
def composed() -> Iterator[None]:
    try:
        compose("up", "--detach", "--no-build", "--scale", f"server={REPLICAS}", "server", "loopback")
        yield
    finally:
        run(*COMPOSE, "--project-name", PROJECT, *PROFILES, "down", "--volumes", code=None)


def replicas_are_up() -> list[str]:
    replicas = containers("server")
    check("replicas run", len(replicas) == REPLICAS, len(replicas))
    for name in [*replicas, *containers("loopback")]:
        until(f"{name} is healthy", lambda name=name: is_healthy(name))
    check("all are healthy", True)
    addresses = inside(replicas[0], READ_ADDRESSES).split()
    check("the name `server` means all of them", len(addresses) == REPLICAS, " ".join(addresses))
    of_process = status(replicas[0])
    check("the server is user 10001", of_process["Uid"].split() == ["10001"] * 4)
    check("it has no capability", int(of_process["CapEff"], 16) == int(of_process["CapBnd"], 16) == 0)
    check("it gets no new privileges", of_process["NoNewPrivs"] == "1")
    check("its root is read-only", inside(replicas[0], WRITE_TO_ROOT) == "EROFS")
    return replicas


def this_machine_reaches_one() -> None:
    with socket.create_connection(("127.0.0.1", int(ENVIRONMENT["SEEDBED_PORT"])), timeout=10) as connection:
        connection.sendall(HTTP2_HELLO)
        header = connection.recv(9)
    check("the server at this machine's loopback answers", len(header) == 9 and header[3] == HTTP2_SETTINGS)


@contextlib.contextmanager
def training(model: str, *command: str) -> Iterator[str]:
    """The service `trainer`, at work beside the block; must have succeeded in the end. Gives its container's name."""
    name = f"{PROJECT}-trainer-{uuid.uuid4().hex[:8]}"
    trainer = (
        *COMPOSE,
        "--project-name",
        PROJECT,
        *PROFILES,
        "run",
        "--rm",
        "--no-deps",
        "-T",
        "--name",
        name,
        "trainer",
        *command,
    )
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            trainer, cwd=ROOT, env=ENVIRONMENT | {"MODEL": model}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            yield name
            process.wait(600)
        finally:
            process.kill()
            log.seek(0)
            said = log.read().strip()
            if process.wait():
                print(said)
    check(f"the trainer of {model} ended with 0", process.returncode == 0, said.rpartition("\n")[2])


def right_to_the_last_bit(model: str) -> None:
    """Compares a checkpoint with what a container makes by itself."""
    mounted = ("--volume", f"{PROJECT}_checkpoint:/checkpoint:ro")
    said = engine(
        "run", "--rm", "--read-only", "--network", "none", *mounted, IMAGE, "verify", "--target", "local:", model
    )
    check(f"{model} is what a container without a network makes", True, said.strip().rpartition("\n")[2])


def sending(container: str) -> None:
    """Waits until a server is amidst a stream."""
    before = metric(container, "seedbed_sent_bytes_total")

    def is_amidst() -> bool:
        is_open = metric(container, "seedbed_open_streams") > 0
        return is_open and metric(container, "seedbed_sent_bytes_total") > before + 10e6

    until(f"{container} sends", is_amidst)


def a_model_comes_from_all(replicas: list[str]) -> None:
    with training("gpt2-124m"):
        pass
    sent = [metric(name, "seedbed_sent_bytes_total") / 1e6 for name in replicas]
    check("each replica sent a part", min(sent) > 0, ", ".join(f"{amount:.0f} MB" for amount in sent))
    right_to_the_last_bit("gpt2-124m")


def one_is_killed(replicas: list[str]) -> None:
    with training("big"):
        sending(replicas[0])
        engine("kill", "--signal", "KILL", replicas[0])
        check("a replica was killed amidst its stream", True)
        time.sleep(3)
        if not state(replicas[0])["Running"]:
            engine("start", replicas[0])
    right_to_the_last_bit("big")
    until(f"{replicas[0]} is healthy", lambda: is_healthy(replicas[0]))


def all_are_stopped_in_turn(replicas: list[str]) -> None:
    with training("big", "until [ -e /tmp/enough ]; do seedbed verify /checkpoint/big; done") as trainer:
        for name in replicas:
            sending(name)
            began = time.monotonic()
            engine("stop", "-t", "40", name)
            seconds = time.monotonic() - began
            check(f"{name} drained amidst its stream, exit code 0", state(name)["ExitCode"] == 0, f"{seconds:.1f} s")
            engine("start", name)
            until(f"{name} is healthy", lambda name=name: is_healthy(name))
            time.sleep(SETTLED)
        engine("exec", trainer, "touch", "/tmp/enough")


def prometheus_sees_all() -> None:
    compose("up", "--detach", "--no-build", "--no-deps", "prometheus")
    url = f"http://127.0.0.1:{ENVIRONMENT['PROMETHEUS_PORT']}/api/v1/query?query=up"
    expected = REPLICAS + len(containers("loopback"))

    def up() -> int:
        with contextlib.suppress(OSError):
            found = json.load(urllib.request.urlopen(url))["data"]["result"]
            return sum(sample["value"][1] == "1" for sample in found)
        return 0

    until(f"Prometheus sees {expected} servers", lambda: up() == expected)
    check("Prometheus sees all servers", True, expected)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def models(folder: Path) -> None:
    """The trainer's models, to be read by the container's user."""
    shutil.copy(ROOT / "examples" / "gpt2-124m.json", folder)
    (folder / "big.json").write_text(json.dumps(BIG), encoding="utf-8")
    folder.chmod(0o755)


def main() -> None:
    if not os.environ.get("SEEDBED_IMAGE"):
        base = os.environ.get("BASE_IMAGE")
        options = ("--build-arg", f"BASE_IMAGE={base}") if base else ()
        engine(
            "build",
            "--tag",
            IMAGE,
            "--target",
            "cpu",
            *(("--format", "docker") if ENGINE == "podman" else ()),
            *options,
            ".",
        )
    one_container()
    with composed():
        replicas = replicas_are_up()
        this_machine_reaches_one()
        a_model_comes_from_all(replicas)
        if PROMETHEUS:
            prometheus_sees_all()
        one_is_killed(replicas)
        all_are_stopped_in_turn(replicas)
    print("all is well")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as models_folder:
        models(Path(models_folder))
        ENVIRONMENT = os.environ | {
            "SEEDBED_IMAGE": IMAGE,
            "SEEDBED_PORT": str(free_port()),
            "PROMETHEUS_PORT": str(free_port()),
            "MODELS": models_folder,
        }
        main()
