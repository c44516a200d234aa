"""The default number of workers, and the GPU of each."""

import ctypes
import re
from types import SimpleNamespace

import pytest

from seedbed_server import engine
from seedbed_server.engine import backends
from seedbed_server.service import process, sizing
from seedbed_server.service.settings import Settings


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("SEEDBED_DEVICE", raising=False)
    monkeypatch.delenv("SEEDBED_BACKEND", raising=False)
    monkeypatch.setattr(engine, "gpu_count", lambda: 0)
    monkeypatch.setattr(sizing.sys, "platform", "linux")


@pytest.fixture
def memory(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(sizing, "_MEMORY_LIMIT", limit)
    return limit


@pytest.mark.parametrize(("cores", "count"), [(1, 1), (2, 1), (3, 1), (4, 2), (16, 8), (32, 16), (256, 16)])
def test_one_worker_per_two_cores(monkeypatch, memory, cores, count):
    monkeypatch.setattr(engine, "usable_cores", lambda: cores)
    assert sizing.worker_count(Settings()) == count


@pytest.mark.parametrize(("text", "count"), [("max\n", 16), ("2147483648\n", 4), ("1000\n", 1)])
def test_the_memory_of_the_container_limits_workers(monkeypatch, memory, text, count):
    monkeypatch.setattr(engine, "usable_cores", lambda: 64)
    memory.write_text(text)
    assert sizing.worker_count(Settings()) == count


def test_one_worker_where_processes_cannot_share_addresses(monkeypatch):
    monkeypatch.setattr(engine, "usable_cores", lambda: 64)
    assert sizing.worker_count(Settings(listen=["127.0.0.1:0", "unix:/tmp/seedbed"])) == 1
    monkeypatch.setattr(sizing.sys, "platform", "darwin")
    assert sizing.worker_count(Settings()) == 1


@pytest.mark.parametrize(
    ("gpus", "backend", "device", "count", "devices"),
    [
        (0, None, None, 8, [None, None, None]),
        (1, None, None, 1, [None, None, None]),
        (2, None, None, 2, [0, 1, 0]),
        (4, "cupy", None, 4, [0, 1, 2]),
        (4, "cupy", 3, 1, [3, 3, 3]),
        (4, "numba", None, 8, [None, None, None]),
    ],
)
def test_one_worker_per_gpu(monkeypatch, memory, gpus, backend, device, count, devices):
    monkeypatch.setattr(engine, "usable_cores", lambda: 16)
    monkeypatch.setattr(engine, "gpu_count", lambda: gpus)
    settings = Settings(backend=backend, device=device)
    assert sizing.worker_count(settings) == count
    assert [sizing.worker_device(settings, index) for index in range(3)] == devices


def test_environment_variables_apply(monkeypatch, memory):
    monkeypatch.setattr(engine, "usable_cores", lambda: 16)
    monkeypatch.setattr(engine, "gpu_count", lambda: 4)
    monkeypatch.setenv("SEEDBED_DEVICE", "1")
    assert sizing.worker_count(Settings()) == 1
    assert sizing.worker_device(Settings(), 2) is None  # each worker reads the variable itself
    monkeypatch.setenv("SEEDBED_BACKEND", "numpy")
    assert sizing.worker_count(Settings()) == 8


@pytest.mark.parametrize(
    ("why_no_gpu", "status", "count"), [("none", 0, 0), (None, 0, 3), (None, 100, 0)], ids=["none", "three", "broken"]
)
def test_the_driver_counts_gpus(monkeypatch, why_no_gpu, status, count):
    def count_devices(pointer):
        pointer._obj.value = 3
        return 0

    driver = SimpleNamespace(cuInit=lambda _: status, cuDeviceGetCount=count_devices)
    monkeypatch.setattr(backends, "_why_no_gpu", lambda: why_no_gpu)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver)
    assert backends.gpu_count() == count


def test_a_server_starts_the_default_number_of_workers(start_server, monkeypatch):
    expected = sizing.worker_count(Settings(backend="numpy"))
    found = re.search(r"; (\d+) workers", start_server(workers="auto").banner)
    assert int(found[1] if found else 1) == expected
    assert Settings().workers == "auto"


def test_the_flag_for_workers(seedbed_command, monkeypatch):
    counts = []
    monkeypatch.setattr(process, "run", lambda settings: counts.append(settings.workers))
    monkeypatch.delenv("SEEDBED_WORKERS")
    for arguments in ((), ("--workers", "auto"), ("--workers", "3")):
        assert seedbed_command("serve", *arguments)[0] == 0
    assert counts == ["auto", "auto", 3]
    for wrong in ("0", "-1", "many", "1.5"):
        code, _, err = seedbed_command("serve", "--workers", wrong)
        assert code == 2
        assert f"{wrong!r} is not a number of workers; give 1 or more, or auto" in " ".join(err.split())
