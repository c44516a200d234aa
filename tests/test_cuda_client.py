"""The client of ``local:cuda`` on a GPU made of threads, where reading without waiting for a stream gives garbage."""

from __future__ import annotations

import contextlib
import math
import pickle
import subprocess
import sys
import threading
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from _helpers.emulation import emulated_cupy

import seedbed
from seedbed._inside import cuda as _cuda
from seedbed.cli._app import run
from seedbed.v1 import Model, Region, TensorSlice, TensorSpec

SPECS = [
    seedbed.spec("constant", (5, 7), val=0.5, name="constant", dtype="float16"),
    seedbed.spec("ones", (), name="scalar"),
    seedbed.spec("zeros", (0, 3), name="empty"),
    seedbed.spec("eye", (5, 7), name="eye", dtype="float16"),
    seedbed.spec("dirac", (4, 2, 3), groups=2, name="dirac"),
    seedbed.spec("uniform", (64, 33), a=-1, name="uniform", dtype="bfloat16"),
    seedbed.spec("normal", (70, 71), seed=2**64 - 1, name="normal"),
    seedbed.spec("trunc_normal", (64, 33), std=0.02, name="trunc_normal", dtype="float64"),
    seedbed.spec("orthogonal", (20, 30), name="orthogonal"),
    seedbed.spec("sparse", (30, 20), sparsity=0.25, name="sparse"),
    seedbed.spec("orthogonal", (20, 3, 5), axis=-1, name="columns"),
    seedbed.spec("delta_orthogonal", (8, 4, 3, 3), name="delta"),
    seedbed.spec("normal", (64, 33), std=0.1, name="complex normal", dtype="complex64"),
    seedbed.spec("disk", (64, 33), radius=2, std=1.5, name="disk", dtype="complex64"),
    TensorSpec(name="permutation", shape=[70, 71], permutation={}),
    TensorSpec(
        name="padded",
        shape=[70, 71],
        parts={
            "parts": [
                {"recipe": {"normal": {}}},
                {"recipe": {"zeros": {}}, "region": {"start": [3, 0], "stop": [4, 71]}},
            ]
        },
    ),
]
NORMAL = seedbed.spec("normal", (70, 71), seed=2**64 - 1, name="normal")
MIB = 1 << 20


@pytest.fixture(scope="module")
def local():
    with seedbed.connect("local:") as client:
        yield client


@pytest.fixture(scope="module")
def cupy():
    with emulated_cupy() as module:
        yield module


@pytest.fixture(scope="module")
def client(cupy):
    with seedbed.connect("local:cuda") as client:
        yield client


@pytest.fixture
def limit(cupy):
    """Limit the GPU's memory to the bytes in use and some more."""
    with contextlib.ExitStack() as stack:
        yield lambda byte_count: stack.enter_context(cupy.cuda.limited(cupy.cuda.used.get(0, 0) + byte_count))


@contextlib.contextmanager
def busy(stream):
    """Suspend a stream's work until the end of the block."""
    gate = threading.Event()
    stream.enqueue(gate.wait)
    try:
        yield
    finally:
        gate.set()


class Tensor:
    """An array of another library, with DLPack and a stream of its own."""

    def __init__(self, cupy, shape, dtype=np.float32, requires_grad=False):
        self.cupy, self.requires_grad = cupy, requires_grad
        self.array = cupy.empty(shape, dtype)
        self.stream = cupy.cuda.Stream()

    def __dlpack_device__(self):
        return 2, self.array.device.id

    def __dlpack__(self, *, stream, max_version=None, copy=None):
        if self.requires_grad:
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
        consumer = self.cupy.cuda.get_current_stream()
        assert stream == consumer.ptr
        reached = threading.Event()
        self.stream.enqueue(reached.set)
        consumer.enqueue(reached.wait)
        return self.array

    def detach(self):
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, requires_grad=False)
        return twin

    def read(self):
        """Wait for its own stream only, like a library that knows no other."""
        self.stream.synchronize()
        return self.array.peek()


class JaxArray(Tensor):
    __module__ = "jaxlib._jax"


class Unshared(Tensor):
    def __dlpack__(self, **_):
        raise BufferError("not strided")


def assert_equal(left, right):
    assert left.dtype == right.dtype
    assert left.shape == right.shape
    assert left.tobytes() == right.tobytes()


def refusal(call, *args, **kwargs):
    try:  # pytest.raises would keep the arrays in the frames alive
        call(*args, **kwargs)
    except seedbed.InvalidRequest as error:
        return error.field, error.description
    raise AssertionError("it was not refused")


# New arrays.


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_values_equal_those_of_other_targets(client, local, cupy, spec):
    array = client.init(spec)
    assert isinstance(array, cupy.ndarray)
    assert_equal(array.get(), local.init(spec))


def test_methods_and_regions(client, local):
    arguments = {"nonlinearity": "relu", "seed": 7, "name": "w", "dtype": "bfloat16"}
    whole = client.kaiming_normal((30, 40), **arguments)
    assert whole.dtype == ml_dtypes.bfloat16
    assert_equal(whole.get(), local.kaiming_normal((30, 40), **arguments))
    for region in (np.s_[1:2, :], np.s_[..., 39:], np.s_[-3:, 5:-5], np.s_[3:3, :]):
        assert_equal(client.kaiming_normal((30, 40), **arguments, region=region).get(), whole.get()[region])


def test_calls_return_before_the_gpu_is_done(client, local, cupy):
    stream = cupy.cuda.Stream()
    with stream, busy(stream):
        array = client.init(NORMAL)
        assert set(array.peek().tobytes()) == {0xA5}
    stream.synchronize()
    assert_equal(array.peek(), local.init(NORMAL))


def test_a_new_array_that_is_dropped_at_once_does_no_harm(client, local):
    for _ in range(20):
        client.init(NORMAL)
    assert_equal(client.init(NORMAL).get(), local.init(NORMAL))


def test_memory_is_exhausted(client, limit):
    limit(MIB)
    with pytest.raises(MemoryError, match=r"4\.0 GiB on GPU 0 for tensor 'w' is unavailable; request"):
        client.normal((1 << 30,), name="w")


# The caller's arrays.


def arrays(cupy):
    shape = (70, 71)
    yield cupy.empty(shape, np.float32)
    yield cupy.empty(70 * 71 + 1, np.float32)[1:].reshape(*shape)  # begins within 16 bytes
    yield cupy.empty((140, 142), np.float32)[::2, ::2]
    yield cupy.empty(shape, np.float32)[::-1, ::-1]
    yield cupy.empty((70, 73), np.float32)[:, 1:-1]


def test_out_is_filled_in_place(client, local, cupy):
    for out in arrays(cupy):
        assert client.init(NORMAL, out=out) is out
        assert_equal(out.get(), local.init(NORMAL))


def test_calls_with_an_array_of_cupy_return_before_the_gpu_is_done(client, local, cupy):
    for out in arrays(cupy):
        stream = cupy.cuda.Stream()
        with stream, busy(stream):
            client.init(NORMAL, out=out)
            assert set(out.peek().tobytes()) == {0xA5}
        stream.synchronize()
        assert_equal(out.peek(), local.init(NORMAL))


def test_memory_around_out_is_not_changed(client, cupy):
    whole = cupy.empty((70, 73), np.float32)
    client.init(NORMAL, out=whole[:, 1:-1])
    rest = whole.get()[:, [0, -1]]
    assert set(rest.tobytes()) == {0xA5}


def test_out_for_regions_scalars_empties_and_bfloat16(client, local, cupy):
    part = cupy.empty((2, 4), ml_dtypes.bfloat16)[:, 1:3]
    assert client.uniform((5, 5), dtype="bfloat16", region=np.s_[1:3, 2:4], out=part) is part
    assert_equal(part.get(), local.uniform((5, 5), dtype="bfloat16")[1:3, 2:4])
    scalar = cupy.empty((), np.float32)
    assert client.ones((), out=scalar).get() == 1
    for shape in ((0, 4), (4, 0)):
        empty = cupy.empty(shape, np.float32)
        assert client.ones(shape, out=empty) is empty


def test_an_array_of_another_library_is_filled_when_the_call_returns(client, local, cupy):
    tensor = Tensor(cupy, (70, 71))
    current = cupy.cuda.get_current_stream()
    threading.Timer(0.1, (gate := threading.Event()).set).start()
    current.enqueue(gate.wait)
    assert client.init(NORMAL, out=tensor) is tensor
    assert_equal(tensor.read(), local.init(NORMAL))


def test_pending_work_of_another_library_comes_first(client, local, cupy):
    tensor = Tensor(cupy, (70, 71))
    threading.Timer(0.1, (gate := threading.Event()).set).start()
    tensor.stream.enqueue(gate.wait)
    with tensor.stream:
        tensor.array[...] = cupy.empty((70, 71), np.float32)
    client.init(NORMAL, out=tensor)
    assert_equal(tensor.read(), local.init(NORMAL))


def test_a_tensor_that_requires_a_gradient(client, local, cupy):
    tensor = Tensor(cupy, (70, 71), requires_grad=True)
    assert client.init(NORMAL, out=tensor) is tensor
    assert_equal(tensor.read(), local.init(NORMAL))


# Torch tensors.


class TorchTensor(Tensor):
    """The part of a CUDA tensor that the client uses."""

    is_cuda, layout = True, "strided"

    def __init__(self, cupy, shape, dtype=np.float32, **options):
        super().__init__(cupy, shape, dtype, **options)
        self.stream = None
        self.shape, self.dtype = shape, f"torch.{np.dtype(dtype)}"
        self.device = SimpleNamespace(index=self.array.device.id)

    def data_ptr(self):
        return self.array.data.ptr

    def is_contiguous(self):
        return self.array.flags.c_contiguous

    def __dlpack__(self, **options):
        assert options["stream"] == sys.modules["torch"].cuda.current_stream(0).cuda_stream  # so no stream waits
        TorchTensor.shared += 1
        return self.array

    shared = 0


@pytest.fixture
def torch_stream(cupy, monkeypatch):
    """Torch's current stream."""
    stream = cupy.cuda.Stream()
    cuda = SimpleNamespace(current_stream=lambda _number: SimpleNamespace(cuda_stream=stream.ptr))
    nn = SimpleNamespace(Parameter=type("Parameter", (TorchTensor,), {}))
    torch = SimpleNamespace(Tensor=TorchTensor, nn=nn, strided="strided", cuda=cuda)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(TorchTensor, "shared", 0)
    return stream


def test_torch_tensors_are_filled_on_torch_s_stream(client, local, cupy, torch_stream):
    tensors = {
        spec.name: TorchTensor(cupy, tuple(spec.shape), seedbed.dtypes.numpy_dtype(spec.dtype)) for spec in SPECS
    }
    with busy(torch_stream):
        got = dict(client.init_model(SPECS, out=tensors))
        assert got == tensors
        cupy.cuda.get_current_stream().synchronize()
        assert set(tensors["normal"].array.peek().tobytes()) == {0xA5}
    torch_stream.synchronize()
    for spec in SPECS:
        assert_equal(tensors[spec.name].array.peek(), local.init(spec))
    assert TorchTensor.shared == 0


def test_torch_tensors_that_are_not_contiguous(client, local, cupy, torch_stream):
    tensor = TorchTensor(cupy, (70, 71))
    tensor.array = cupy.empty((140, 142), np.float32)[::2, ::2]
    with busy(torch_stream):
        assert client.init(NORMAL, out=tensor) is tensor
    torch_stream.synchronize()
    assert_equal(tensor.array.peek(), local.init(NORMAL))


def test_torch_s_default_stream(client, local, cupy, torch_stream, monkeypatch):
    default = SimpleNamespace(cuda_stream=0)
    monkeypatch.setattr(sys.modules["torch"].cuda, "current_stream", lambda _number: default)
    tensor = TorchTensor(cupy, (70, 71))
    with cupy.cuda.Stream():
        client.init(NORMAL, out=tensor)
    cupy.cuda.Stream.null.synchronize()
    assert_equal(tensor.array.peek(), local.init(NORMAL))


def test_torch_tensors_that_are_refused(client, cupy, torch_stream):
    for tensor, words in (
        (TorchTensor(cupy, (3, 2)), "has shape (3, 2)"),
        (TorchTensor(cupy, (2, 3), np.float64), "has dtype float64"),
    ):
        field, description = refusal(client.normal, (2, 3), out=tensor)
        assert field == "out"
        assert description.startswith(words)


def outs_refused(cupy):
    def expanded():
        array = cupy.empty((1, 3), np.float32)
        return cupy.ndarray(np.broadcast_to(array._host, (2, 3)), array._block)

    def windows():
        array = cupy.empty((1, 8), np.float32)
        return cupy.ndarray(np.lib.stride_tricks.sliding_window_view(array._host[0], 3)[:2], array._block)

    return [
        ([[0.0] * 3] * 2, "is a list for tensor 'w'; give a CuPy array, or one that supports DLPack"),
        (np.empty((2, 3), np.float32), "is not in a GPU's memory for tensor 'w'; give an array on GPU 0, or connect"),
        (cupy.empty((3, 2), np.float32), "has shape (3, 2) for tensor 'w'; give one of the region's shape, (2, 3)"),
        (cupy.empty((2, 3), np.float16), "has dtype float16 for tensor 'w'; give one of dtype float32"),
        (Tensor(cupy, (2, 3), np.float64), "has dtype float64 for tensor 'w'; give one of dtype float32"),
        (expanded(), "has elements that share memory for tensor 'w'"),
        (windows(), "has elements that share memory for tensor 'w'"),
        (Unshared(cupy, (2, 3)), "cannot be shared with CuPy for tensor 'w': not strided; give a CuPy array"),
        (JaxArray(cupy, (2, 3)), "is a JAX array for tensor 'w', which is read-only; omit it, and pass"),
    ]


def test_arrays_that_are_refused(client, cupy):
    for out, words in outs_refused(cupy):
        for call in (
            lambda out=out: client.normal((2, 3), name="w", out=out),
            lambda out=out: client.init_model([seedbed.spec("normal", (2, 3), name="w")], out={"w": out}),
            lambda out=out: list(client.init_model([seedbed.spec("normal", (2, 3), name="w")], out=lambda _: out)),
        ):
            field, description = refusal(call)
            assert field == "out"
            assert description.startswith(words)


def test_a_client_that_is_pickled_opens_the_gpu_when_it_is_used(client, local, monkeypatch):
    sent = pickle.dumps(client)
    with monkeypatch.context() as unopened:
        unopened.setattr(_cuda, "open_cuda_engine", None)
        arrived = pickle.loads(sent)
    assert repr(arrived) == repr(client)
    assert_equal(arrived.init(NORMAL).get(), local.init(NORMAL))


# Models.


def test_models_slices_and_progress(client, local):
    columns = TensorSlice(spec=NORMAL, region=Region(start=[0, 3], stop=[70, 60]))
    calls = []
    [(name, part), (_, empty), (_, small)] = client.init_model(
        [columns, SPECS[2], SPECS[0]], progress=lambda *call: calls.append(call)
    )
    assert name == "normal"
    assert_equal(part.get(), local.init(NORMAL)[:, 3:60])
    assert_equal(small.get(), local.init(SPECS[0]))
    assert empty.shape == (0, 3)
    total = part.nbytes + small.nbytes
    assert calls == [(part.nbytes, total), (total, total)]
    assert [name for name, _ in client.init_model(Model(tensors=SPECS))] == [spec.name for spec in SPECS]
    assert list(client.init_model(Model())) == []


def test_models_fill_the_callers_arrays(client, local, cupy):
    outputs = {spec.name: cupy.empty(tuple(spec.shape), seedbed.dtypes.numpy_dtype(spec.dtype)) for spec in SPECS}
    for (name, array), spec in zip(client.init_model(SPECS, out=outputs), SPECS, strict=True):
        assert array is outputs[name]
        assert_equal(array.get(), local.init(spec))
    tensor = Tensor(cupy, (70, 71))
    got = dict(client.init_model(SPECS, out={"normal": tensor}.get))
    assert got["normal"] is tensor
    assert_equal(tensor.read(), local.init(NORMAL))
    assert isinstance(got["eye"], cupy.ndarray)
    assert refusal(client.init_model, SPECS, out={}) == refusal(local.init_model, SPECS, out={})


def test_all_tensors_are_validated_before_any_work(client, cupy):
    out = cupy.empty((70, 71), np.float32)
    wrong = [NORMAL, seedbed.spec("normal", (3,), std=-1)]
    field, _ = refusal(lambda: list(client.init_model(wrong, out=lambda _: out)))
    assert field == "tensors[1].spec.normal.std"
    assert set(out.get().tobytes()) == {0xA5}


def test_a_model_needs_only_the_memory_that_the_caller_keeps(client, limit):
    limit(3 * MIB)
    tensors = client.init_model([seedbed.spec("normal", (MIB // 2,), name=str(i)) for i in range(8)])
    assert [next(tensors)[0] for _ in range(8)] == list("01234567")


def test_a_model_is_queued_in_groups(client, local, monkeypatch):
    begun = []
    write_all = client._engine._backend.write_all
    monkeypatch.setattr(
        client._engine._backend, "write_all", lambda jobs, stream: (begun.append(len(jobs)), write_all(jobs, stream))
    )
    specs = [seedbed.spec("normal", (100,), name=str(i)) for i in range(600)]
    for spec, (_, array) in zip(specs, client.init_model(specs), strict=True):
        assert_equal(array.get(), local.init(spec))
    assert begun == [256, 256, 88]
    begun.clear()
    monkeypatch.setattr(_cuda, "_GROUP_BYTES", 1000)
    assert len(list(client.init_model(specs[:5]))) == 5
    assert begun == [2, 2, 1]


def test_memory_that_is_reused(client, local, cupy):
    """Tensors in the same memory are not queued together."""
    specs = [seedbed.spec("normal", (100,), name=str(i)) for i in range(7)]
    memory = cupy.empty(150, np.float32)
    outs = [memory[:100], memory[50:], memory[:100], memory[149:49:-1]]
    for spec, (_, array) in zip(specs, client.init_model(specs, out=lambda name: outs[int(name) % 4]), strict=True):
        assert_equal(array.get(), local.init(spec))


def test_literals(client, local, cupy):
    spec = TensorSpec(name="w", shape=[2, 3], literal={"data": np.arange(6, dtype=np.float32).tobytes()})
    assert_equal(client.init(spec).get(), local.init(spec))
    out = cupy.empty((2, 6), np.float32)[:, ::2]
    assert_equal(client.init(spec, out=out).get(), local.init(spec))


# Pieces.


def test_pieces(client, local, cupy, monkeypatch):
    monkeypatch.setattr(_cuda, "_PIECE_BYTES", 4096)
    pieces = list(client.iter_chunks(NORMAL))
    assert [offset for offset, _ in pieces] == list(range(0, 70 * 71, 1024))
    assert all(isinstance(values, cupy.ndarray) for _, values in pieces)
    assert_equal(np.concatenate([values.get() for _, values in pieces]), local.init(NORMAL).reshape(-1))
    [(offset, values)] = client.iter_chunks(NORMAL, np.s_[:, 1:], first_element=4897)
    assert offset == 4897
    assert_equal(values.get(), local.init(NORMAL)[:, 1:].reshape(-1)[-3:])
    assert list(client.iter_chunks(NORMAL, first_element=70 * 71)) == []
    assert list(client.iter_chunks(SPECS[2])) == []


@pytest.mark.parametrize("first_element", [-1, 70 * 71 + 1, 2**63, 0.5, True])
def test_pieces_outside_the_tensor(client, local, first_element):
    expected = refusal(lambda: list(local.iter_chunks(NORMAL, first_element=first_element)))
    assert refusal(lambda: list(client.iter_chunks(NORMAL, first_element=first_element))) == expected


def test_pieces_of_a_tensor_that_exceeds_the_memory(client, limit, monkeypatch):
    monkeypatch.setattr(_cuda, "_PIECE_BYTES", 2 * MIB)
    limit(3 * MIB)
    pieces = client.iter_chunks(seedbed.spec("normal", (4 * MIB,)))
    assert [next(pieces)[0] for _ in range(8)] == list(range(0, 4 * MIB, MIB // 2))


# Other calls, and errors.


def test_describe_gain_and_server_info(client, local):
    spec = seedbed.spec("kaiming_normal", (64, 3, 5, 5), nonlinearity="tanh")
    assert client.describe(spec, np.s_[:32, ...]) == local.describe(spec, np.s_[:32, ...])
    assert client.calculate_gain("leaky_relu", 1.0) == 1.0
    info = client.server_info()
    assert (info.backend, info.device) == ("cupy", "Emulated GPU (device 0, compute capability 9.0)")
    assert repr(client) == "<CudaClient of local:cuda, timeout=600.0>"


@pytest.mark.parametrize(
    ("spec", "region"),
    [
        (TensorSpec(shape=[3]), None),
        (TensorSpec(shape=[-3], ones={}), None),
        (TensorSpec(shape=[3], ones={}, dtype=77), None),
        (seedbed.spec("normal", (3,), std=math.nan), None),
        (seedbed.spec("ones", (3,)), Region(start=[0, 0], stop=[1, 1])),
        (seedbed.spec("ones", (3,)), Region(start=[2], stop=[1])),
        (seedbed.spec("ones", (3,)), np.s_[0:4]),
        ("ones", None),
    ],
)
def test_refusals_equal_those_of_other_targets(client, local, cupy, spec, region):
    expected = refusal(local.init, spec, region)
    assert refusal(client.init, spec, region) == expected
    assert refusal(client.init, spec, region, out=cupy.empty(3, np.float32)) == expected
    assert refusal(lambda: list(client.iter_chunks(spec, region))) == expected
    if region is None:
        assert refusal(lambda: list(client.init_model([spec]))) == refusal(lambda: list(local.init_model([spec])))


def test_a_closed_client(cupy):
    with seedbed.connect("local:cuda") as client:
        model = client.init_model([NORMAL, NORMAL])
        next(model)
    calls = (
        lambda: next(model),
        lambda: client.init(NORMAL),
        lambda: next(client.iter_chunks(NORMAL)),
        client.server_info,
    )
    for call in calls:
        with pytest.raises(seedbed.Cancelled, match="this client of local:cuda is closed; connect again"):
            call()


def test_a_timeout(client):
    for call in (client.init, lambda *args, **options: list(client.iter_chunks(*args, **options))):
        with pytest.raises(seedbed.DeadlineExceeded, match="no complete response from local:cuda within 1e-09 s"):
            call(NORMAL, timeout=1e-9)


def test_a_failure_of_the_engine(client, monkeypatch):
    def fail(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(client._engine._backend, "write_all", fail)
    with pytest.raises(seedbed.InternalError, match="internal error"):
        client.init(NORMAL)


# The choice of the GPU.


def test_another_gpu(cupy, client, local, monkeypatch):
    monkeypatch.setenv("EMULATED_GPUS", "2")
    with seedbed.connect("local:cuda:1") as other:
        array = other.init(NORMAL)
        assert array.device.id == 1  # type: ignore[attr-defined]
        assert cupy.cuda.runtime.getDevice() == 0
        assert_equal(array.get(), local.init(NORMAL))  # type: ignore[attr-defined]
        assert other.init(NORMAL, out=array) is array
        words = "is in GPU 1's memory for tensor 'normal'; give an array on GPU 0, or connect to local:cuda:1"
        assert refusal(client.init, NORMAL, out=array) == ("out", words)
        with cupy.cuda.Device(1):
            tensor = Tensor(cupy, (70, 71))
        assert refusal(client.init, NORMAL, out=tensor) == ("out", words)
        assert_equal(other.init(NORMAL, out=tensor).read(), local.init(NORMAL))  # type: ignore[attr-defined]
    monkeypatch.setenv("SEEDBED_DEVICE", "1")
    assert seedbed.connect("local:cuda").ones(1).device.id == 1  # type: ignore[attr-defined]


# Unavailable targets.


def test_without_a_gpu(cupy, monkeypatch):
    monkeypatch.setenv("EMULATED_GPUS", "0")
    field, description = refusal(seedbed.connect, "local:cuda")
    assert field == "target"
    assert description.startswith('"local:cuda" is unavailable: backend: cupy cannot be used: there is no GPU; check')


def test_a_missing_gpu(cupy):
    _, description = refusal(seedbed.connect, "local:cuda:7")
    assert '"local:cuda:7" is unavailable: ' in description
    assert "there is no device 7; give one of 0 .. 0" in description


def test_without_cupy_or_the_server(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "cupy is not installed; run pip install 'seedbed[gpu]'" in refusal(seedbed.connect, "local:cuda")[1]
    monkeypatch.setitem(sys.modules, "seedbed_server.service.local", None)
    field, description = refusal(seedbed.connect, "local:cuda")
    assert field == "target"
    assert description.startswith("\"local:cuda\" needs the server in this process: pip install 'seedbed[gpu]'")


@pytest.mark.parametrize("target", ["local:cuda:", "local:cuda:x", "local:cuda:-1", "local:CUDA"])
def test_invalid_targets(target):
    field, description = refusal(seedbed.connect, target)
    assert field == "target"
    assert description.startswith(f"{target!r} is not an address; give HOST:PORT")
    assert "local:cuda" in description


def test_coroutines_are_refused():
    remedy = 'use seedbed.connect("local:cuda"), whose calls return before the GPU is done'
    words = f'"local:cuda" is unavailable for asyncio; {remedy}'
    assert refusal(seedbed.aio.connect, "local:cuda") == ("target", words)


@pytest.mark.parametrize("command", [["get", "ones", "--shape", "3", "-o", "w.npy"], ["health"], ["info"]])
def test_the_command_line_refuses_it(command, capsys):
    assert run([*command, "--target", "local:cuda"]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "local:cuda fills arrays on the GPU, for Python programs only; give local:" in message


def test_imports_happen_on_first_use():
    code = "import seedbed, sys; print({'seedbed._inside.cuda', 'seedbed_server', 'cupy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"
