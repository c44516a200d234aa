"""``local:`` fills the caller's memory in place, on all threads, and stops on request."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import seedbed
from seedbed._inside import cpu
from seedbed.v1 import TensorSpec

LARGE = seedbed.spec("trunc_normal", (1 << 28,), name="large")  # takes two threads a second
SOON = 0.5  # seconds; some hundredths on an idle machine


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch):
    monkeypatch.setenv("SEEDBED_THREADS", "2")


@pytest.fixture
def client():
    with seedbed.connect("local:") as client:
        client.ones((1,))  # compiles the kernels, or loads them
        yield client


@settings(deadline=None)
@given(hnp.array_shapes(min_dims=1, max_dims=4, max_side=9), st.data())
def test_arrays_of_any_strides_are_filled_in_place(shape, data):
    spec = seedbed.spec("normal", shape, name="w", dtype="float64")
    axes = data.draw(st.permutations(range(len(shape))))
    steps = [data.draw(st.sampled_from([1, 2, -1, -3])) for _ in shape]
    memory = np.full([shape[axis] * abs(step) for axis, step in zip(axes, steps, strict=True)], 7.0)
    out = memory[tuple(slice(None, None, step) for step in steps)].transpose(np.argsort(axes))
    with seedbed.connect("local:") as client:
        assert client.init(spec, out=out) is out
        np.testing.assert_array_equal(out, client.init(spec))
    assert (memory == 7).sum() == memory.size - out.size


def test_large_arrays_that_are_not_contiguous(client, monkeypatch):
    monkeypatch.setattr(cpu, "_BOX_ELEMENTS", 1000)
    for shape in [(3, 5, 700), (3, 900, 5), (7001,), (20, 30, 2, 3)]:
        out = np.empty((*shape, 2), np.float32)[..., 1]
        client.normal(shape, name="w", out=out)
        np.testing.assert_array_equal(out, client.normal(shape, name="w"))


@pytest.mark.parametrize("strides", [(0, 4), (4, 4), (4, 0), (-4, 4), (8, 8)])
def test_elements_that_share_memory_are_refused(client, strides):
    out = np.lib.stride_tricks.as_strided(np.zeros(99, "f4")[50:], (2, 3), strides)
    with pytest.raises(seedbed.InvalidRequest, match="elements that share memory"):
        client.normal((2, 3), out=out)


def test_torch_tensors(client):
    torch = pytest.importorskip("torch")
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.complex64):
        name = str(dtype).removeprefix("torch.")
        expected = client.normal((4, 6), dtype=name, seed=3)
        assert np.array_equal(client.normal((4, 6), dtype=dtype, seed=3), expected)
        out = torch.empty(4, 6, dtype=dtype, requires_grad=True)
        assert client.normal((4, 6), dtype=name, seed=3, out=out) is out
        strided = torch.empty(6, 4, dtype=dtype).t()
        client.normal((4, 6), dtype=name, seed=3, out=strided)
        for filled in (out.detach(), strided):
            values = filled if filled.is_complex() else filled.double()
            np.testing.assert_array_equal(values.numpy(), expected.astype(values.numpy().dtype))
    with pytest.raises(seedbed.InvalidRequest, match="has dtype float32"):
        client.normal((2,), dtype="float64", out=torch.empty(2))
    with pytest.raises(seedbed.InvalidRequest, match="cannot be shared with NumPy"):
        client.normal((2,), out=torch.empty(2, device="meta"))
    with pytest.raises(seedbed.InvalidRequest, match="is a list"):
        client.normal((2,), out=[0, 0])


def test_tensors_of_a_model_may_reuse_the_same_memory(client):
    buffer = np.empty(1000, np.float32)
    specs = [seedbed.spec("normal", (size,), name=f"w{size}") for size in (1000, 10, 999, 500)]
    got = [array.copy() for _, array in client.init_model(specs, out=lambda name: buffer[: int(name[1:])])]
    for spec, array in zip(specs, got, strict=True):
        np.testing.assert_array_equal(array, client.init(spec))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=12))
def test_overlapping_arrays_are_not_filled_together(places):
    buffer = np.empty(100, np.float32)
    specs = [seedbed.spec("normal", (size,), name=f"{i}") for i, (_, size) in enumerate(places)]
    with seedbed.connect("local:") as client:
        outs = {spec.name: buffer[begin : begin + size] for spec, (begin, size) in zip(specs, places, strict=True)}
        for name, array in client.init_model(specs, out=outs):
            np.testing.assert_array_equal(array, client.init(specs[int(name)]))


def test_a_model_larger_than_a_group(client, monkeypatch):
    monkeypatch.setattr(cpu, "_GROUP_BYTES", 4000)
    specs = [seedbed.spec("uniform", (size,), name=f"w{size}") for size in (900, 200, 1000, 1001, 5, 1)]
    reports = []
    got = list(client.init_model(specs, progress=lambda done, total: reports.append((done, total))))
    assert [name for name, _ in got] == [spec.name for spec in specs]
    for spec, (_, array) in zip(specs, got, strict=True):
        np.testing.assert_array_equal(array, client.init(spec))
    assert reports == sorted(reports)
    assert reports[-1] == (3107 * 4, 3107 * 4)


def test_only_the_result_takes_memory(client):
    out = np.empty(1 << 24, np.float32)
    tracemalloc.start()
    client.normal(out.shape, out=out, progress=lambda *_: None)
    client.normal((1 << 12, 1 << 12), out=out.reshape(1 << 12, -1).T)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_deadlines(client):
    out = np.zeros(LARGE.shape, np.float32)
    began = time.monotonic()
    with pytest.raises(seedbed.DeadlineExceeded, match=r"within 0\.2 s"):
        client.init(LARGE, out=out, timeout=0.2)
    assert time.monotonic() - began < 0.2 + SOON
    assert_untouched(out)


def test_closing_ends_calls(client):
    out, errors = np.zeros(LARGE.shape, np.float32), []

    def fill():
        try:
            client.init(LARGE, out=out)
        except seedbed.SeedbedError as error:
            errors.append((error, time.monotonic()))

    thread = threading.Thread(target=fill)
    thread.start()
    time.sleep(0.1)
    closed = time.monotonic()
    client.close()
    thread.join()
    [(error, ended)] = errors
    assert isinstance(error, seedbed.Cancelled)
    assert ended - closed < SOON
    assert_untouched(out)


def test_a_cancelled_task_stops_writing():
    out = np.zeros(LARGE.shape, np.float32)

    async def run():
        async with seedbed.aio.connect("local:") as client:
            task = asyncio.create_task(client.init(LARGE, out=out))
            await asyncio.sleep(0.1)
            began = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return time.monotonic() - began

    assert asyncio.run(run()) < SOON
    assert_untouched(out)


INTERRUPTED = """
import sys, time, numpy as np, seedbed
out = np.zeros(1 << 28, np.float32)
with seedbed.connect("local:") as client:
    client.ones((1,))
    try:
        print("begun", flush=True)
        if sys.argv[1] == "init":
            client.trunc_normal(out.shape, out=out)
        else:
            client.visit([seedbed.spec("trunc_normal", (1 << 40,))], lambda *_: None)
    except KeyboardInterrupt:
        print(time.time(), flush=True)
        before = out.copy()
        time.sleep(0.1)
        print((out == before).all(), flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are another thing there")
@pytest.mark.parametrize("how", ["init", "visit"])
def test_an_interrupt_ends_the_call_at_once(how):
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED, how], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(0.03)
        sent = time.time()
        os.kill(process.pid, signal.SIGINT)
        assert float(process.stdout.readline()) - sent < 2 * SOON
        assert process.stdout.readline() == "True\n"


def test_a_visit_covers_each_element_once(client):
    specs = [
        seedbed.spec("normal", (1500, 1000), name="a", dtype="bfloat16"), seedbed.spec("zeros", (3,), name="b"),
        seedbed.spec("ones", (0, 3), name="empty"), seedbed.spec("orthogonal", (30, 40), name="c"),
        seedbed.spec(seedbed.literal(np.arange(6.0).reshape(2, 3)), (2, 3), dtype="float64", name="table"),
    ]  # fmt: skip
    arrays = [np.zeros(spec.shape, dtype).reshape(-1) for spec, dtype in zip(specs, DTYPES, strict=True)]
    counts = [np.zeros(array.size, np.int64) for array in arrays]

    def use(index, first, values):
        arrays[index][first : first + len(values)] = values
        counts[index][first : first + len(values)] += 1

    client.visit(specs, use, jobs=3)
    for spec, array, count in zip(specs, arrays, counts, strict=True):
        assert (count == 1).all()
        assert array.tobytes() == client.init(spec).tobytes()


DTYPES = [ml_dtypes.bfloat16, "f4", "f4", "f4", "f8"]


def test_an_exception_of_the_visitor_ends_the_visit(client):
    seen = []

    def use(index, first, _values):
        seen.append(first)
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        client.visit([LARGE], use)
    assert len(seen) <= os.cpu_count()


@pytest.mark.parametrize("jobs", [0, -1, 2000, 1.5, True, "2"])
def test_a_visit_with_an_invalid_number_of_jobs(client, jobs):
    with pytest.raises(seedbed.InvalidRequest, match=r"^jobs: "):
        client.visit([LARGE], print, jobs=jobs)


def test_a_visit_of_an_invalid_tensor(client):
    with pytest.raises(seedbed.InvalidRequest, match=r"^tensors\[1\]\.spec\.normal\.std"):
        client.visit([seedbed.spec("zeros", (2,)), seedbed.spec("normal", (2,), std=-1)], print)
    nan = TensorSpec(shape=[2], name="nan")
    nan.CopyFrom(seedbed.spec(seedbed.log(seedbed.draw("constant", val=0)), (2,), name="nan"))
    with pytest.raises(seedbed.InvalidRequest, match=r"^tensors\[1\]\.spec\.expression: element \(0,\)"):
        client.visit([seedbed.spec("zeros", (2,)), nan], lambda *_: None)


def assert_untouched(out):
    """Assert that no thread writes any more."""
    written = np.count_nonzero(out)
    time.sleep(SOON)
    assert np.count_nonzero(out) == written < out.size


def test_an_orthogonal_matrix_reports_progress_before_it_is_in_place():
    """No row is complete before the last strip of columns."""
    reports = []
    with seedbed.connect("local:") as client:
        client.init(
            seedbed.spec("orthogonal", (1500, 1400)), progress=lambda done, total: reports.append((done, total))
        )
    assert len(reports) > 1
    assert reports == sorted(set(reports))
    assert reports[-1] == (1500 * 1400 * 4, 1500 * 1400 * 4)
