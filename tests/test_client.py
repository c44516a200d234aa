"""Both clients against real servers: over TCP, over a Unix socket, and in this process."""

import asyncio
import math
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import seedbed
from seedbed._receive import assembler as _stream
from seedbed.v1 import DataType, Model, Region, TensorSlice, TensorSpec

SPECS = [
    seedbed.spec("constant", (5, 7), val=0.5, name="constant"),
    seedbed.spec("ones", (), name="scalar"),
    seedbed.spec("zeros", (0, 3), name="empty"),
    seedbed.spec("eye", (5, 7), name="eye", dtype="float16"),
    seedbed.spec("dirac", (4, 2, 3), groups=2, name="dirac"),
    seedbed.spec("uniform", (64, 33), a=-1, name="uniform", dtype="bfloat16"),
    seedbed.spec("normal", (700, 701), seed=2**64 - 1, name="normal"),  # more than one chunk
    seedbed.spec("trunc_normal", (64, 33), std=0.02, bounds="sigma", name="trunc_normal", dtype="float64"),
    seedbed.spec("xavier_uniform", (3, 4, 5), name="xavier_uniform"),
    seedbed.spec("xavier_normal", (3, 4, 5, 2), name="xavier_normal"),
    seedbed.spec("kaiming_uniform", (30, 40), a=math.sqrt(5), name="kaiming_uniform", dtype="float16"),
    seedbed.spec("kaiming_normal", (30, 40), mode="fan_out", nonlinearity="selu", name="kaiming_normal"),
    seedbed.spec("orthogonal", (20, 30), name="orthogonal"),
    seedbed.spec("sparse", (30, 20), sparsity=0.25, name="sparse"),
    seedbed.spec("orthogonal", (20, 3, 5), axis=-1, name="columns"),
    seedbed.spec("delta_orthogonal", (8, 4, 3, 3), name="delta"),
    seedbed.spec("normal", (64, 33), std=0.1, name="complex normal", dtype=np.complex64),
    seedbed.spec("disk", (64, 33), radius=2, std=1.5, name="disk", dtype="complex64"),
    seedbed.spec("variance_scaling", (4, 30, 40), scale=2, mode="fan_avg", distribution="truncated_normal", name="λ"),
]
BIG = seedbed.spec("normal", (700, 701), seed=2**64 - 1, name="normal")


def slow_tensor():
    return seedbed.spec("normal", (1 << 34,), name="slow")


@pytest.fixture(scope="module")
def local():
    with seedbed.connect("local:") as client:
        yield client


@pytest.fixture(params=["tcp", "unix", "local", "aio tcp", "aio unix", "aio local"])
def get_model(request, server, start_server, tmp_path):
    """Fetch a model over each transport, with both clients."""
    target = server if "tcp" in request.param else "local:"
    if "unix" in request.param:
        target = start_server(listen=[f"unix:{tmp_path}/s"]).target

    def sync(model, **arguments):
        with seedbed.connect(target) as client:
            return list(client.init_model(model, **arguments))

    async def coroutine(model, **arguments):
        async with seedbed.aio.connect(target) as client:
            return [item async for item in client.init_model(model, **arguments)]

    if "aio" not in request.param:
        return sync
    return lambda model, **arguments: asyncio.run(coroutine(model, **arguments))


def assert_equal(left, right):
    assert left.dtype == right.dtype
    assert left.shape == right.shape
    assert left.tobytes() == right.tobytes()


def test_all_transports_give_the_same_bytes(get_model, local):
    got = get_model(SPECS)
    assert [name for name, _ in got] == [spec.name for spec in SPECS]
    for spec, (_, array) in zip(SPECS, got, strict=True):
        assert array.shape == tuple(spec.shape)
        assert array.dtype == seedbed.dtypes.numpy_dtype(spec.dtype)
        assert_equal(array, local.init(spec))


def test_models_slices_and_progress(get_model, local):
    columns = TensorSlice(spec=BIG, region=Region(start=[0, 3], stop=[700, 600]))
    calls = []
    [(name, part), (_, small)] = get_model([columns, SPECS[0]], progress=lambda *call: calls.append(call))
    assert name == "normal"
    assert_equal(part, local.init(BIG)[:, 3:600])
    assert_equal(small, local.init(SPECS[0]))
    total = part.nbytes + small.nbytes
    assert {of for _, of in calls} == {total}
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
    assert calls[-1] == (total, total)
    assert len(calls) > 1
    assert_equal(get_model(Model(name="m", tensors=[BIG]))[0][1], local.init(BIG))
    assert get_model(Model()) == []


def test_models_fill_the_callers_arrays(get_model, local):
    arrays = {spec.name: np.empty(spec.shape, seedbed.dtypes.numpy_dtype(spec.dtype)) for spec in SPECS}
    for name, array in get_model(SPECS, out=arrays):
        assert array is arrays[name]
        assert_equal(array, local.init(next(spec for spec in SPECS if spec.name == name)))
    requested = []

    def find(name):
        requested.append(name)
        return arrays["normal"] if name == "normal" else None

    got = dict(get_model(SPECS, out=find))
    assert requested == [spec.name for spec in SPECS]
    assert got["normal"] is arrays["normal"]
    assert got["eye"] is not arrays["eye"]
    with pytest.raises(seedbed.InvalidRequest, match=r"out: has shape \(1,\) for tensor 'constant'"):
        get_model(SPECS, out=lambda name: np.empty(1, np.float32))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_methods_equal_their_specs(local, spec):
    scheme = spec.WhichOneof("scheme")
    parameters = {
        "constant": {"val": 0.5},
        "dirac": {"groups": 2},
        "uniform": {"a": -1},
        "trunc_normal": {"std": 0.02, "bounds": "sigma"},
        "kaiming_uniform": {"a": math.sqrt(5)},
        "kaiming_normal": {"mode": "fan_out", "nonlinearity": "selu"},
        "sparse": {"sparsity": 0.25},
        "variance_scaling": {"scale": 2, "mode": "fan_avg", "distribution": "truncated_normal"},
        "columns": {"axis": -1},
        "complex normal": {"std": 0.1},
        "disk": {"radius": 2, "std": 1.5},
    }
    parameters = parameters.get(spec.name, parameters.get(scheme, {}))
    options = {"seed": spec.seed, "name": spec.name, "dtype": seedbed.dtypes.name_of(spec.dtype)}
    array = getattr(local, scheme)(tuple(spec.shape), **parameters, **options)
    assert_equal(array, local.init(spec))

    async def call():
        async with seedbed.aio.connect("local:") as client:
            return await getattr(client, scheme)(tuple(spec.shape), **parameters, **options)

    assert_equal(asyncio.run(call()), array)


def test_regions_equal_slices(server, local):
    whole = local.init(BIG)
    with seedbed.connect(server) as client:
        for region in (np.s_[1:2, :], np.s_[..., 700:], np.s_[-3:, 5:-5], np.s_[3:3, :], np.s_[:, :], np.s_[690:, ...]):
            assert_equal(client.init(BIG, region=region), whole[region])
            assert_equal(client.normal((700, 701), seed=2**64 - 1, name="normal", region=region), whole[region])


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_region_equals_the_slice(local, data):
    shape = data.draw(st.lists(st.integers(0, 6), max_size=4))
    bounds = [sorted(data.draw(st.tuples(st.integers(0, size), st.integers(0, size)))) for size in shape]
    region = tuple(slice(start, stop) for start, stop in bounds)
    assert_equal(local.normal(shape, region=region), local.normal(shape)[region])


def outputs(tmp_path):
    shape = (700, 701)
    yield np.empty(shape, np.float32)
    yield np.empty(shape, np.float32, order="F")
    yield np.empty((1400, 1402), np.float32)[::2, ::2]
    yield np.empty(shape, np.float32)[::-1, ::-1]
    yield np.empty((2, *shape), np.float32)[1]
    yield np.frombuffer(bytearray(700 * 701 * 4 + 1), np.float32, offset=1).reshape(shape)  # not aligned
    yield np.lib.format.open_memmap(tmp_path / "w.npy", "w+", np.float32, shape)
    yield np.memmap(tmp_path / "w.bin", np.float32, "w+", offset=6, shape=shape)
    yield np.ma.empty(shape, np.float32)


def test_out_is_filled_in_place(server, local, tmp_path):
    expected = local.init(BIG)
    with seedbed.connect(server) as client:
        for out in outputs(tmp_path):
            assert client.init(BIG, out=out) is out
            assert_equal(np.array(out), expected)
    assert_equal(np.load(tmp_path / "w.npy"), expected)


def test_out_for_regions_scalars_empties_and_bfloat16(local):
    part = np.zeros((2, 4), ml_dtypes.bfloat16)[:, 1:3]
    assert local.uniform((5, 5), dtype="bfloat16", region=np.s_[1:3, 2:4], out=part) is part
    assert_equal(np.array(part), local.uniform((5, 5), dtype="bfloat16")[1:3, 2:4])
    scalar = np.zeros((), np.float32)
    assert local.ones((), out=scalar)[()] == 1
    empty = np.zeros((0, 4), np.float32)
    assert local.ones((0, 4), out=empty) is empty


def test_results_own_their_memory(local):
    array = local.normal((3, 4))
    assert type(array) is np.ndarray
    assert array.flags.writeable
    assert array.flags.c_contiguous
    assert local.normal(()).shape == ()


def test_chunks(server, local):
    with seedbed.connect(server) as client:
        chunks = list(client.iter_chunks(BIG))
        assert len(chunks) > 1
        assert [offset for offset, _ in chunks] == list(np.cumsum([0] + [len(values) for _, values in chunks])[:-1])
        assert_equal(np.concatenate([values for _, values in chunks]), local.init(BIG).reshape(-1))
        assert not chunks[0][1].flags.writeable
        rest = list(client.iter_chunks(BIG, np.s_[:, 1:], first_element=490_000 - 3))
        assert [offset for offset, _ in rest] == [490_000 - 3]
        assert_equal(rest[0][1], local.init(BIG)[:, 1:].reshape(-1)[-3:])
        assert list(client.iter_chunks(BIG, first_element=700 * 701)) == []
        assert list(client.iter_chunks(SPECS[2])) == []
        with pytest.raises(seedbed.InvalidRequest, match="first_element"):
            next(client.iter_chunks(BIG, first_element=700 * 701 + 1))


def test_describe_gain_and_server_info(server):
    async def ask(target):
        async with seedbed.aio.connect(target) as client:
            spec = seedbed.spec("kaiming_normal", (64, 3, 5, 5), nonlinearity="tanh")
            return (
                await client.describe(spec, np.s_[:32, ...]),
                await client.calculate_gain("leaky_relu", 0.2),
                await client.calculate_gain("leaky_relu"),
            ), await client.server_info()

    for target in (server, "local:"):
        with seedbed.connect(target) as client:
            spec = seedbed.spec("kaiming_normal", (64, 3, 5, 5), nonlinearity="tanh")
            description = client.describe(spec, np.s_[:32, ...])
            gains = client.calculate_gain("leaky_relu", 0.2), client.calculate_gain("leaky_relu")
            info = client.server_info()
        assert (description.fan_in, description.fan_out, description.element_count) == (75, 1600, 32 * 75)
        assert gains == (math.sqrt(2 / (1 + 0.2**2)), math.sqrt(2 / (1 + 0.01**2)))
        assert list(info.algorithm_versions) == [1]
        assert asyncio.run(ask(target)) == ((description, *gains), info)


REFUSED_BY_THE_SERVER = [
    (TensorSpec(shape=[3]), None, "spec"),
    (TensorSpec(shape=[-3], ones={}), None, "spec.shape"),
    (seedbed.spec("ones", (-3,)), np.s_[0:1], "spec.shape"),
    (seedbed.spec("ones", (2**62, 4)), None, "spec.shape"),
    (seedbed.spec("uniform", (3,), a=2), None, "spec.uniform"),
    (seedbed.spec("normal", (3,), std=math.nan), None, "spec.normal.std"),
    (seedbed.spec("eye", (3,)), None, "spec.shape"),
    (seedbed.spec("ones", (3,)), Region(start=[0, 0], stop=[1, 1]), "region"),
    (seedbed.spec("ones", (3,)), Region(start=[2], stop=[1]), "region"),
    (seedbed.spec("ones", (3,)), Region(start=[0], stop=[4]), "region"),
]


@pytest.mark.parametrize(("spec", "region", "field"), REFUSED_BY_THE_SERVER)
def test_refusals_are_the_same_over_all_transports(server, local, spec, region, field):
    texts = set()
    with seedbed.connect(server) as remote:
        for client in (remote, local):
            for ask in (client.init, client.describe):
                with pytest.raises(seedbed.InvalidRequest) as caught:
                    ask(spec, region)
                assert caught.value.field.startswith(field)
                texts.add(str(caught.value))
    assert len(texts) == 1


def test_refusals_within_a_model_name_the_tensor(get_model):
    for spec, region, field in REFUSED_BY_THE_SERVER:
        if region is None:
            with pytest.raises(seedbed.InvalidRequest) as caught:
                get_model([SPECS[0], spec])
            assert caught.value.field.startswith(f"tensors[1].{field}")


def test_an_invalid_region_is_not_reported_as_a_bad_out(local):
    with pytest.raises(seedbed.InvalidRequest) as caught:
        local.init(seedbed.spec("ones", (3,)), Region(start=[2], stop=[1]), out=np.empty(1, np.float32))
    assert caught.value.field.startswith("region")


def test_one_client_serves_many_threads(server, local):
    expected = local.init(BIG)
    with seedbed.connect(server) as client, ThreadPoolExecutor(6) as pool:
        for result in pool.map(lambda _: client.init(BIG), range(12)):
            assert_equal(result, expected)


def test_one_aio_client_serves_many_tasks(server, local):
    async def call(target):
        async with seedbed.aio.connect(target) as client:
            return await asyncio.gather(*(client.init(BIG) for _ in range(6)))

    for target in (server, "local:"):
        for result in asyncio.run(call(target)):
            assert_equal(result, local.init(BIG))


def test_local_work_does_not_block_the_loop():
    async def call():
        async with seedbed.aio.connect("local:") as client:
            work = asyncio.create_task(client.orthogonal((4096, 4096)))
            for _ in range(4):
                await asyncio.sleep(0.001)
                assert not work.done()
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work

    asyncio.run(call())


@pytest.mark.parametrize("target", ["server", "local:"])
def test_deadlines(request, target):
    target = request.getfixturevalue("server") if target == "server" else target
    start = time.monotonic()
    with seedbed.connect(target, timeout=0.3) as client, pytest.raises(seedbed.DeadlineExceeded, match=r"0\.3 s"):
        for _ in client.iter_chunks(slow_tensor()):
            pass

    async def call():
        async with seedbed.aio.connect(target) as client:
            with pytest.raises(TimeoutError, match=r"0\.3 s"):
                async for _ in client.iter_chunks(slow_tensor(), timeout=0.3):
                    pass

    asyncio.run(call())
    assert time.monotonic() - start < 10
    with seedbed.connect(target, timeout=None) as client:
        assert client.ones(1)[0] == 1


@pytest.mark.parametrize("target", ["server", "local:"])
def test_closing_ends_running_calls(request, target):
    target = request.getfixturevalue("server") if target == "server" else target
    client = seedbed.connect(target)
    threading.Timer(0.3, client.close).start()
    with pytest.raises(seedbed.Cancelled, match="connect again"):
        for _ in client.iter_chunks(slow_tensor()):
            pass
    with pytest.raises(seedbed.Cancelled):
        client.ones(1)
    client.close()


def test_a_cancelled_local_task_stops():
    async def call():
        async with seedbed.aio.connect("local:") as client:
            seen = []
            spec = seedbed.spec("normal", (1 << 34,))

            async def read():
                async for offset, _ in client.iter_chunks(spec):
                    seen.append(offset)

            task = asyncio.create_task(read())
            while not seen:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            before = len(seen)
            await asyncio.sleep(0.2)
            assert len(seen) == before
            assert len(await client.ones(3)) == 3

    asyncio.run(call())


def test_arrays_that_exceed_the_memory(local):
    with pytest.raises(MemoryError, match="iter_chunks"):
        local.zeros((2**55,))


def test_messages_over_a_limit(server):
    with seedbed.connect(server, options=[("grpc.max_receive_message_length", 1000)]) as client:
        with pytest.raises(
            seedbed.ResourceExhausted, match="sends larger messages than this client accepts; allow them"
        ):
            client.ones(1000)
        limit = client.server_info().limits.max_request_bytes
        with pytest.raises(seedbed.ResourceExhausted, match=r"more bytes than .* accepts"):
            client.ones((), name="x" * limit)


def test_models_that_exceed_a_request(server, local):
    """They come in order, and the last of twenty requests is validated before the first is sampled."""
    specs = [seedbed.spec("normal", (3,), name=f"{'x' * 250_000}{i}") for i in range(320)]

    async def ask():
        async with seedbed.aio.connect(server) as client:
            return [(name, array.tobytes()) async for name, array in client.init_model(specs)]

    expected = [(spec.name, local.init(spec).tobytes()) for spec in specs]
    with seedbed.connect(server) as client:
        assert [(name, array.tobytes()) for name, array in client.init_model(specs)] == expected
        assert asyncio.run(ask()) == expected
        specs[300].normal.std = -1.0
        with pytest.raises(seedbed.InvalidRequest) as error:
            next(client.init_model(specs))
    assert error.value.field == "tensors[300].spec.normal.std"


def test_requests_stay_within_the_limit_when_resumed(monkeypatch):
    monkeypatch.setattr(_stream, "_MAX_REQUEST_BYTES", 600)
    tensors = [TensorSlice(spec=seedbed.spec("normal", (2**40,), name=f"{i:050}")) for i in range(40)]
    assembler = _stream.ModelAssembler(tensors)
    counts = []
    while (request := assembler.request()).resume.tensor_index:  # those that only validate
        counts.append(len(request.tensors))
        assembler.finish()
    for part in request.tensors:
        part.spec.algorithm_version = 1
    request.resume.tensor_index, request.resume.first_element = 2**31, 2**62
    assert request.ByteSize() <= 600 + 64
    assert sum(counts) + len(request.tensors) == 40
    assert max(counts) == len(request.tensors) > 3


def test_the_repr_of_clients(local):
    assert repr(local) == "<LocalClient of local:, timeout=600.0>"
    assert repr(seedbed.aio.connect("localhost:1", timeout=None)) == "<AsyncClient of localhost:1, timeout=None>"


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


def test_the_environment_configures_local():
    code = "import seedbed; print(seedbed.connect('local:').server_info())"
    done = run_python(code, SEEDBED_BACKEND="numpy", SEEDBED_THREADS="1")
    assert 'backend: "numpy"' in done.stdout
    assert "threads: 1" in done.stdout
    done = run_python(code, SEEDBED_BACKEND="abacus")
    assert 'InvalidRequest: target: "local:" is unavailable: ' in done.stderr
    assert "abacus" in done.stderr


def test_local_without_the_server_says_what_to_install():
    code = "import sys; sys.modules['seedbed_server'] = None; import seedbed; seedbed.connect('local:')"
    message = "target: \"local:\" needs the server in this process: pip install 'seedbed[server]'"
    assert message in run_python(code).stderr


def test_data_types_of_messages(local):
    assert local.init(TensorSpec(shape=[2], ones={})).dtype == np.float32
    assert local.init(TensorSpec(shape=[2], ones={}, dtype=DataType.DATA_TYPE_FLOAT64)).dtype == np.float64


def test_the_callers_messages_are_not_changed(local):
    spec = TensorSpec(shape=[2], ones={})
    local.init(spec)
    list(local.init_model([spec]))
    assert spec == TensorSpec(shape=[2], ones={})
