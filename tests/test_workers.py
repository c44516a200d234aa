"""Worker processes that share a port."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from _helpers.waiting import wait_until

import seedbed
from seedbed_server import engine
from seedbed_server.service import process
from seedbed_server.service.settings import Settings
from seedbed_server.service.workers import _MIN_LIFETIME

SPEC = seedbed.spec("normal", (64, 64), seed=7, name="w")


def workers(handle):
    """The process IDs of a server's workers."""
    return [int(pid) for pid in Path(f"/proc/{handle.pid}/task/{handle.pid}/children").read_text().split()]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def serving(start_server):
    return start_server(workers=2, log_level="info")


def test_workers_share_a_port_and_serve_the_same_bits(serving):
    assert "; 2 workers" in serving.banner
    assert len(workers(serving)) == 2
    with seedbed.connect("local:") as client:
        expected = client.init(SPEC)
    for _ in range(20):
        with seedbed.connect(serving.target, timeout=20) as client:
            assert (client.init(SPEC) == expected).all()


def test_workers_share_the_cores(start_server):
    handle = start_server(workers=2)
    with seedbed.connect(handle.target, timeout=20) as client:
        assert client.server_info().threads == max(1, engine.usable_cores() // 2)


def test_each_worker_has_its_own_metrics_and_clients(start_server):
    handle = start_server(workers=2, metrics="0")
    urls = re.search(r"; metrics on (.+)$", handle.banner.strip())[1].split(", ")
    assert len(set(urls)) == 2
    for _ in range(60):  # one of two gets them all with probability 2^-59
        with seedbed.connect(handle.target, timeout=20) as client:
            client.ones((3,))
    served = []
    for url in urls:
        with urllib.request.urlopen(url, timeout=5) as response:
            counted = re.search(
                r'^seedbed_requests_total\{rpc="InitTensor",status="OK"\} (\S+)$', response.read().decode(), re.M
            )
        served.append(float(counted[1]) if counted else 0)
    assert sum(served) == 60
    assert min(served) > 0


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced(serving):
    time.sleep(_MIN_LIFETIME + 0.1)  # a worker that dies sooner counts as broken
    victim, other = workers(serving)
    os.kill(victim, signal.SIGKILL)
    assert wait_until(lambda: len(workers(serving)) == 2 and victim not in workers(serving), 20)
    assert other in workers(serving)
    for _ in range(20):
        with seedbed.connect(serving.target, timeout=20) as client:
            assert client.ones((3,)).tolist() == [1, 1, 1]
    code, log = serving.terminate()
    assert code == 0
    assert f"worker {victim} exited with code -9; starting another" in log


def test_workers_that_die_at_once_end_the_server(serving):
    os.kill(workers(serving)[0], signal.SIGKILL)
    code, log = serving.wait()
    assert code == 1
    assert "workers: one exited with code -9 within 5 s of its start" in log


def test_workers_drain_on_sigterm(serving):
    pids = workers(serving)
    with seedbed.connect(serving.target, timeout=20) as client:
        chunks = client.iter_chunks(seedbed.spec("ones", (40 << 20,)))
        next(chunks)
        serving.process.terminate()
        assert sum(len(values) for _, values in chunks) > 39 << 20
    assert serving.wait() == (0, serving.errors())
    assert not any(map(is_running, pids))


def test_a_second_signal_ends_workers_at_once(serving):
    pids = workers(serving)
    with seedbed.connect(serving.target, timeout=20) as client:
        chunks = client.iter_chunks(seedbed.spec("ones", (1 << 40,)))
        next(chunks)
        serving.process.terminate()
        assert wait_until(lambda: "UNAVAILABLE" in str(refused(serving.target)))
        serving.process.terminate()
        code, _ = serving.wait(10)
        chunks.close()
    assert code == -signal.SIGTERM
    assert wait_until(lambda: not any(map(is_running, pids)))


def refused(target):
    with seedbed.connect(target, timeout=1) as client:
        try:
            return client.server_info()
        except seedbed.SeedbedError as error:
            return f"UNAVAILABLE {error}"


def test_workers_end_when_their_head_is_killed(serving):
    pids = workers(serving)
    serving.kill()
    assert wait_until(lambda: not any(map(is_running, pids)), 20)


def test_ctrl_c_drains_workers(serving):
    serving.process.send_signal(signal.SIGINT)
    code, log = serving.wait()
    assert code == 0
    assert "Traceback" not in log


def test_all_workers_reload_tokens(start_server, tmp_path, seedbed_command):
    path = tmp_path / "tokens"
    _, line, _ = seedbed_command("token", "alice")
    first, digest = line.split()
    path.write_text(digest)
    command = [sys.executable, "-m", "seedbed.cli", "serve", "--listen", "127.0.0.1:0", "--backend", "numpy",
               "--workers", "2", "--tokens", str(path)]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        target = re.search(r"serving on ([^;]+);", server.stdout.readline())[1]
        with seedbed.connect(target, token=first) as client:
            client.server_info()
        _, line, _ = seedbed_command("token", "bob")
        second, digest = line.split()
        path.write_text(digest)
        server.send_signal(signal.SIGHUP)

        def works(token):
            with seedbed.connect(target, token=token) as client:
                try:
                    return bool(client.server_info())
                except seedbed.Unauthenticated:
                    return False

        assert wait_until(lambda: all(works(second) for _ in range(20)))
        assert not any(works(first) for _ in range(20))
        server.terminate()
        assert server.wait(20) == 0


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"workers": 0}, ValueError, "workers: 0 is less than 1"),
        ({"workers": 2, "listen": ["unix:/tmp/seedbed-none"]}, ValueError, "cannot be shared by several workers"),
        ({"workers": 2, "listen": ["127.0.0.1"]}, ValueError, "is not an address"),
        ({"workers": 2, "listen": ["0.0.0.0:0"]}, ValueError, "is open to other machines"),
        ({"workers": 2, "metrics": "here"}, ValueError, "metrics: 'here' is not an address"),
        ({"workers": 2, "chunk_bytes": 1}, ValueError, "chunk_bytes: 1 is not between"),
        ({"workers": 2, "backend": "none"}, ValueError, "backend: 'none' is unknown"),
        ({"workers": 2, "backend": "cupy", "device": 99}, ValueError, "backend: cupy cannot be used"),
    ],
)
def test_mistakes_are_reported_once(options, error, text, capfd):
    with pytest.raises(error, match=re.escape(text)):
        process.run(Settings(**{"listen": ["127.0.0.1:0"], **options}))
    assert capfd.readouterr() == ("", "")


def test_a_port_in_use(start_server):
    taken = start_server()
    with pytest.raises(OSError, match="the port is in use"):
        process.run(Settings(listen=[taken.target], workers=2))
