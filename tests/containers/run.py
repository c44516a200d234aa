"""Builds the image and runs docker-compose.yml for real: replicas, DNS, a trainer, servers that are killed, restarts.

Needs podman or Docker, with compose, and only Python's standard library: ``python tests/containers/run.py``. It exits
with 0 if all is well, with 1 if a check failed, and with 2 if this machine or its container engine is at fault. These
variables configure it:

- ``ENGINE``: ``docker`` or ``podman``. Default: the first of them that works.
- ``COMPOSE``: the command that runs compose. Default: ``docker compose`` or ``podman-compose``.
- ``SEEDBED_IMAGE``: an image to test. Default: one is built from the Dockerfile, on ``BASE_IMAGE``, with
  ``BUILD_OPTIONS``.
- ``PROMETHEUS_IMAGE``: an image of Prometheus, which must then find all servers. Default: Prometheus is not tested.
- ``RESTARTS``: how many times all replicas are restarted under a trainer. Default: 1.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from container_engine import ROOT, Engine, FailedError, UnusableError, find_compose, find_engine, last_line
from name_watch import NAME, NameWatch, clock, watching

PROJECT = f"seedbed-{uuid.uuid4().hex[:8]}"
READY_IMAGE = os.environ.get("SEEDBED_IMAGE", "")
IMAGE = READY_IMAGE or f"localhost/{PROJECT}:cpu"
PROMETHEUS = os.environ.get("PROMETHEUS_IMAGE", "")
RESTARTS = int(os.environ.get("RESTARTS") or 1)
REPLICAS = 3
LIMIT = 300.0  # seconds, for anything that takes a few on a machine that is not busy
WAIT = 300.0  # seconds; as long as a client waits for a server by default
NAME_LIMIT = 120.0  # seconds; longer than podman's name service has ever failed and recovered

# 2.5 GiB. Tensors of this size are fetched from all replicas at once.
BIG = {
    "name": "big",
    "tensors": [
        {"name": f"layers.{i}.weight", "shape": [8192, 8192], "seed": i, "normal": {"std": 0.02}} for i in range(10)
    ],
}
VERIFY_UNTIL_STOPPED = "until [ -e /tmp/stop ]; do seedbed verify /checkpoint/big; done"
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
HTTP2_SETTINGS = 4
READ_METRICS = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9464/metrics').read().decode())"
READ_STATUS = "print(open('/proc/1/status').read())"
WRITE_TO_ROOT = "import errno\ntry: open('/x', 'w')\nexcept OSError as e: print(errno.errorcode[e.errno])"


# Checks.


def say(result: str, what: str, detail: object = "") -> None:
    """Prints a line with the time, as the report on the name does."""
    print(f"{clock(time.time())} {result:6} {what}{f': {detail}' if detail else ''}", flush=True)


def check(what: str, is_right: object, detail: object = "") -> None:
    if not is_right:
        raise FailedError(f"{what}: {detail}" if detail else what)
    say("ok", what, detail)


def until(what: str, condition: Callable[[], object], seconds: float = LIMIT) -> float:
    """Waits until a condition holds and returns the seconds that it took."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            raise FailedError(f"not within {seconds:g} s: {what}")
        time.sleep(0.25)
    return time.monotonic() - start


def until_healthy(engine: Engine, container: str) -> None:
    until(f"{container} is healthy", lambda: engine.is_healthy(container))


def until_listed(engine: Engine, watch: NameWatch, container: str) -> None:
    """Waits until the name service lists a container that runs.

    Raises:
        UnusableError: It does not, which is the engine's fault.
    """
    addresses = engine.addresses(container)
    try:
        until("the name has the address", lambda: watch.lists(addresses), NAME_LIMIT)
    except FailedError:
        raise UnusableError(
            f"{container} runs at {', '.join(addresses)}, but {engine.program}'s name service has not listed it under "
            f"`{NAME}` for {NAME_LIMIT:g} s; restart {engine.program} or update it (podman: aardvark-dns)"
        ) from None


def metric(engine: Engine, container: str, name: str) -> float:
    """A metric of a server, summed over its labels."""
    lines = [line for line in engine.python(container, READ_METRICS).splitlines() if not line.startswith("#")]
    return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))


def status(engine: Engine, container: str) -> dict[str, str]:
    """``/proc/PID/status`` of the server."""
    lines = engine.python(container, READ_STATUS).splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


# One container, without compose.


@contextlib.contextmanager
def lone_server(engine: Engine, *options: str) -> Iterator[tuple[str, float]]:
    """A server whose container has no network and no volumes; yields its name and the seconds that it took to start."""
    name = f"{PROJECT}-lone"
    # By default, podman mounts tmpfs into read-only containers and Docker does not.
    no_tmpfs = ("--read-only-tmpfs=false",) if engine.is_podman else ()
    engine("create", "--name", name, "--read-only", "--network", "none", *no_tmpfs, *options, IMAGE)
    try:
        start = time.monotonic()
        engine("start", name)
        until("the server starts", lambda: "serving on" in engine("logs", name))
        yield name, time.monotonic() - start
    finally:
        engine("rm", "--force", "--volumes", name, code=None)


def stop(engine: Engine, container: str, grace: int, what: str) -> None:
    """Stops a container, within seconds of grace, and checks that it exits with 0."""
    start = time.monotonic()
    engine("stop", "-t", str(grace), container)
    seconds = time.monotonic() - start
    check(what, engine.state(container)["ExitCode"] == 0, f"{seconds:.1f} s")


def test_image(engine: Engine) -> None:
    image: dict[str, Any] = engine.image(IMAGE)
    check("the image has a numeric user", image["Config"]["User"] == "10001:10001", image["Config"]["User"])
    say("ok", "the image's size", f"{image['Size'] / 1e6:.0f} MB")


def test_one_container(engine: Engine) -> None:
    with lone_server(engine) as (name, seconds):
        until_healthy(engine, name)
        say("ok", "a read-only container without volumes serves and is healthy")
        say("ok", "its memory", status(engine, name)["VmRSS"].strip())
        stop(engine, name, 30, "SIGTERM ends it with 0")
    with lone_server(engine, "--env", "NUMBA_CPU_NAME=generic") as (_, other_seconds):
        say("ok", "it starts on a processor other than the one that built the image", f"{other_seconds:.1f} s")
    if not READY_IMAGE:
        check("the image's kernels make the start fast", seconds < other_seconds / 2, f"{seconds:.1f} s")


# Replicas and a trainer, as in docker-compose.yml.


@contextlib.contextmanager
def composed(engine: Engine) -> Iterator[NameWatch]:
    try:
        engine.compose("up", "--detach", "--no-build", "--scale", f"server={REPLICAS}", "server", "loopback")
        with watching(engine, IMAGE) as watch:
            try:
                yield watch
            except (FailedError, UnusableError):
                print(watch.report(), flush=True)
                raise
    finally:
        engine.compose("down", "--volumes", code=None)


def healthy_replicas(engine: Engine, watch: NameWatch) -> list[str]:
    replicas = engine.containers("server")
    check("all replicas run", len(replicas) == REPLICAS, len(replicas))
    for name in [*replicas, *engine.containers("loopback")]:
        until_healthy(engine, name)
    say("ok", "all are healthy")
    for name in replicas:
        until_listed(engine, watch, name)
    say("ok", f"the name `{NAME}` stands for all of them")
    return replicas


def test_hardening(engine: Engine, replica: str) -> None:
    process = status(engine, replica)
    check("the server is user 10001", process["Uid"].split() == ["10001"] * 4)
    check("it has no capabilities", int(process["CapEff"], 16) == int(process["CapBnd"], 16) == 0)
    check("it cannot gain privileges", process["NoNewPrivs"] == "1")
    check("its root is read-only", engine.python(replica, WRITE_TO_ROOT) == "EROFS")


def test_published_port(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(HTTP2_PREFACE)
        header = connection.recv(9)
    check("the server on this machine's loopback speaks HTTP/2", len(header) == 9 and header[3] == HTTP2_SETTINGS)


class Trainer:
    """The service ``trainer``, which runs in the background.

    Args:
        engine: What runs it.
        model: The model that it makes a checkpoint of.
        command: What its shell runs. Default: the command of docker-compose.yml.
        log: A file for its output.
    """

    def __init__(self, engine: Engine, model: str, command: tuple[str, ...], log: IO[str]) -> None:
        self.name = f"{PROJECT}-trainer-{uuid.uuid4().hex[:8]}"
        self._engine = engine
        self._log = log
        options = ("run", "--rm", "--no-deps", "-T", "--name", self.name)
        self._process = subprocess.Popen(
            engine.compose_line(*options, "trainer", *command),
            cwd=ROOT,
            env={**engine.variables(), "MODEL": model},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def finish(self, seconds: float) -> str:
        """Waits until it ends and returns the last line of its output.

        Raises:
            FailedError: It failed, or did not end in time.
        """
        until("the trainer ends", self.has_ended, seconds)
        if self._process.returncode != 0:
            raise FailedError(f"the trainer exited with {self._process.returncode}:\n{self.output()}")
        return last_line(self.output())

    def output(self) -> str:
        self._log.seek(0)
        return self._log.read().strip()

    def remove(self) -> None:
        self._process.kill()
        self._process.wait()
        self._engine("rm", "--force", self.name, code=None)


@contextlib.contextmanager
def training(engine: Engine, model: str, *command: str) -> Iterator[Trainer]:
    """Runs a trainer beside the block, after which it must succeed."""
    with tempfile.TemporaryFile("w+") as log:
        trainer = Trainer(engine, model, command, log)
        try:
            yield trainer
            last_line = trainer.finish(600)
        finally:
            trainer.remove()
    say("ok", f"the trainer of {model} ended with 0", last_line)


def until_sending(engine: Engine, replica: str, trainer: Trainer) -> None:
    """Waits until a replica is in the middle of a stream to the trainer.

    The trainer may have to wait for a server first, if names did not resolve.
    """
    before = metric(engine, replica, "seedbed_sent_bytes_total")

    def is_sending() -> bool:
        if trainer.has_ended():
            raise FailedError(f"the trainer ended early:\n{trainer.output()}")
        has_open_streams = metric(engine, replica, "seedbed_open_streams") > 0
        return has_open_streams and metric(engine, replica, "seedbed_sent_bytes_total") > before + 10e6

    until(f"{replica} sends to the trainer", is_sending, WAIT)


def test_checkpoint(engine: Engine, model: str) -> None:
    """Compares a checkpoint with what a container without a network samples."""
    volume = ("--volume", f"{PROJECT}_checkpoint:/checkpoint:ro")
    verify = ("verify", "--target", "local:", model)
    output = engine("run", "--rm", "--read-only", "--network", "none", *volume, IMAGE, *verify)
    say("ok", f"{model} is what a container without a network samples", last_line(output))


def test_all_replicas_send(engine: Engine, replicas: list[str]) -> None:
    with training(engine, "gpt2-124m"):
        pass
    sent = [metric(engine, name, "seedbed_sent_bytes_total") / 1e6 for name in replicas]
    check("each replica sent a part", min(sent) > 0, ", ".join(f"{amount:.0f} MB" for amount in sent))
    test_checkpoint(engine, "gpt2-124m")


def test_kill(engine: Engine, replica: str) -> None:
    with training(engine, "big") as trainer:
        until_sending(engine, replica, trainer)
        engine("kill", "--signal", "KILL", replica)
        say("ok", "a replica was killed in the middle of a stream")
        time.sleep(3)
        if not engine.state(replica)["Running"]:
            engine("start", replica)
    test_checkpoint(engine, "big")
    until_healthy(engine, replica)


def test_rolling_restart(engine: Engine, watch: NameWatch, replicas: list[str]) -> None:
    """Replaces one replica after the other, as fast as they become healthy. Their addresses change."""
    with training(engine, "big", VERIFY_UNTIL_STOPPED) as trainer:
        for name in replicas:
            until_listed(engine, watch, name)
            until_sending(engine, name, trainer)
            restart(engine, name)
        engine("exec", trainer.name, "touch", "/tmp/stop")


def restart(engine: Engine, replica: str) -> None:
    stop(engine, replica, 40, f"{replica} finished its streams and exited with 0")
    engine("start", replica)
    until_healthy(engine, replica)


def test_prometheus(engine: Engine, port: int) -> None:
    engine.compose("up", "--detach", "--no-build", "--no-deps", "prometheus")
    url = f"http://127.0.0.1:{port}/api/v1/query?query=up"
    expected = REPLICAS + len(engine.containers("loopback"))

    def up() -> int:
        with contextlib.suppress(OSError):
            samples = json.load(urllib.request.urlopen(url))["data"]["result"]
            return sum(sample["value"][1] == "1" for sample in samples)
        return 0

    until(f"Prometheus finds {expected} servers", lambda: up() == expected)
    say("ok", "Prometheus finds all servers", expected)


# All of it.


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def models() -> Iterator[str]:
    """A folder with the trainer's models, which the container's user can read."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(ROOT / "examples" / "gpt2-124m.json", folder)
        (folder / "big.json").write_text(json.dumps(BIG), encoding="utf-8")
        folder.chmod(0o755)
        yield name


@contextlib.contextmanager
def image(engine: Engine) -> Iterator[None]:
    """Builds the image and removes it afterwards, unless SEEDBED_IMAGE names one."""
    if READY_IMAGE:
        yield
        return
    base = os.environ.get("BASE_IMAGE")
    options = ("--build-arg", f"BASE_IMAGE={base}") if base else ()
    start = time.monotonic()
    engine.build(IMAGE, (*options, *shlex.split(os.environ.get("BUILD_OPTIONS", ""))))
    say("ok", "the image is built", f"{time.monotonic() - start:.0f} s")
    try:
        yield
    finally:
        engine("rmi", "--no-prune", IMAGE, code=None)  # its layers stay, for the next build


def test_all(engine: Engine) -> None:
    test_image(engine)
    test_one_container(engine)
    with composed(engine) as watch:
        replicas = healthy_replicas(engine, watch)
        test_hardening(engine, replicas[0])
        test_published_port(int(engine.environment["SEEDBED_PORT"]))
        test_all_replicas_send(engine, replicas)
        if PROMETHEUS:
            test_prometheus(engine, int(engine.environment["PROMETHEUS_PORT"]))
        test_kill(engine, replicas[0])
        for turn in range(1, RESTARTS + 1):
            test_rolling_restart(engine, watch, replicas)
            say("ok", f"no trainer was lost in rolling restart {turn} of {RESTARTS}")
        say("ok", f"the name `{NAME}` meanwhile", watch.summary())


def main() -> int:
    # So that containers are removed even then.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    start = time.monotonic()
    try:
        program = find_engine()
        compose = find_compose(program)
        say("ok", "the container engine works", f"{program}, {shlex.join(compose)}")
        with models() as folder:
            ports = {"SEEDBED_PORT": str(free_port()), "PROMETHEUS_PORT": str(free_port())}
            engine = Engine(program, compose, PROJECT, {"SEEDBED_IMAGE": IMAGE, "MODELS": folder, **ports})
            with image(engine):
                test_all(engine)
    except UnusableError as error:
        print(f"cannot test containers here: {error}", file=sys.stderr)
        return 2
    except FailedError as error:
        say("FAILED", str(error))
        return 1
    print(f"all is well, after {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
