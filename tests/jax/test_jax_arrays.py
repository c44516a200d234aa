"""JAX's adapter, on eight devices of this machine's CPU."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from _helpers.ports import free_port
from flax import linen, nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

import seedbed
import seedbed.jax
from seedbed.v1 import TensorSlice

# Tests are collected before any runs, and so before any could have looked for devices.
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

ROOT = Path(__file__).resolve().parent.parent.parent
DTYPES = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float64": np.float64,
    "complex64": np.complex64,
}
JAX_ERRORS = (jax.errors.JaxRuntimeError, ValueError)  # it depends on when JAX notices
X = np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 16)

# The partition, and how many different parts it has, on a mesh of 2x4.
PARTITIONS = {
    "rows": (PartitionSpec("b"), 4),
    "rows over all": (PartitionSpec(("a", "b")), 8),
    "columns": (PartitionSpec(None, "b"), 4),
    "blocks": (PartitionSpec("a", "b"), 8),
    "blocks, turned": (PartitionSpec("b", "a"), 8),
    "halves": (PartitionSpec(None, "a"), 2),
    "replicated": (PartitionSpec(), 1),
}


class Noting:
    """A client that notes its requests."""

    def __init__(self, client):
        self._client = client
        self.target = client.target
        self.requests = []
        self.described = []

    def init_model(self, parts, **arguments):
        self.requests.append(list(parts))
        return self._client.init_model(parts, **arguments)

    def describe(self, spec):
        self.described.append(spec)
        return self._client.describe(spec)

    @property
    def regions(self):
        """The tensor's name, and the start and stop, of each part."""
        return [
            (part.spec.name, tuple(part.region.start), tuple(part.region.stop))
            for parts in self.requests
            for part in parts
        ]

    @property
    def elements(self):
        return sum(int(np.prod(np.subtract(stop, start))) for _, start, stop in self.regions)


class Unused:
    """A client without a server, which must send no request."""

    target = "localhost:1"


@pytest.fixture(scope="module")
def mesh():
    return Mesh(np.array(jax.devices()).reshape(2, 4), ("a", "b"))


@pytest.fixture(scope="module")
def local():
    with seedbed.connect("local:") as client:
        yield client


@pytest.fixture
def requested(local):
    return Noting(local)


def matrix(dtype="float32"):
    return seedbed.spec("xavier_uniform", (24, 16), seed=7, name="w", dtype=dtype)


def same(array, expected):
    """Whether bits and types are equal."""
    array, expected = np.asarray(array), np.asarray(expected)
    return array.dtype == expected.dtype and array.shape == expected.shape and array.tobytes() == expected.tobytes()


def all_same(tree, expected):
    return jax.tree.all(jax.tree.map(same, tree, expected))


# Arrays


@pytest.mark.parametrize("name", PARTITIONS)
def test_any_sharding_has_the_values_of_the_whole_and_requests_each_part_once(requested, local, mesh, name):
    partition, parts = PARTITIONS[name]
    sharding = NamedSharding(mesh, partition)
    array = seedbed.jax.init_array(requested, matrix(), sharding)
    assert array.sharding == sharding
    assert same(array, local.init(matrix()))
    assert all(same(shard.data, local.init(matrix())[shard.index]) for shard in array.addressable_shards)
    assert len(requested.requests) == 1
    assert len(set(requested.regions)) == len(requested.regions) == parts
    assert requested.elements == 24 * 16


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_dtypes(local, mesh, dtype):
    with jax.enable_x64(dtype == "float64"):
        array = seedbed.jax.init_array(local, matrix(dtype), NamedSharding(mesh, PartitionSpec("a", "b")))
        assert array.dtype == DTYPES[dtype]
        assert same(array, local.init(matrix(dtype)))


def test_one_device_and_explicit_axes(requested, local):
    device = SingleDeviceSharding(jax.devices()[5])
    assert seedbed.jax.init_array(requested, matrix(), device).devices() == {jax.devices()[5]}
    mesh = jax.make_mesh((4,), ("x",), devices=jax.devices()[4:])
    array = seedbed.jax.init_array(requested, matrix(), NamedSharding(mesh, PartitionSpec("x")))
    assert array.devices() == set(jax.devices()[4:])
    assert same(array, local.init(matrix()))


@pytest.mark.parametrize("shape", [(), (0, 4), (8, 0)])
def test_scalars_and_empty_arrays(local, mesh, shape):
    spec = seedbed.spec("normal", shape, name="w")
    array = seedbed.jax.init_array(local, spec, NamedSharding(mesh, PartitionSpec("b") if shape else PartitionSpec()))
    assert same(array, local.init(spec))


def test_over_a_socket(server, local, mesh):
    with seedbed.connect(server) as client:
        array = seedbed.jax.init_array(client, matrix(), NamedSharding(mesh, PartitionSpec("b", "a")))
    assert same(array, local.init(matrix()))


def test_uneven_shards_are_refused_as_jax_refuses_them(mesh):
    spec = seedbed.spec("normal", (6, 4), name="w")
    with pytest.raises(seedbed.InvalidRequest, match=r"sharding: of spec does not fit its shape \(6, 4\): .* 4 times"):
        seedbed.jax.init_array(Unused(), spec, NamedSharding(mesh, PartitionSpec("b")))


def test_refusals_of_arrays(local, mesh):
    init = seedbed.jax.init_array
    replicated = NamedSharding(mesh, PartitionSpec())
    vector = seedbed.spec("normal", (8,))
    with pytest.raises(seedbed.InvalidRequest, match=r"has more dimensions than its shape \(8,\)"):
        init(Unused(), vector, NamedSharding(mesh, PartitionSpec("a", "b")))
    with pytest.raises(seedbed.InvalidRequest, match=r"of spec is P.*\('a',?\); give a jax.sharding.Sharding"):
        init(Unused(), vector, PartitionSpec("a"))
    with pytest.raises(seedbed.InvalidRequest, match=r"spec: is a TensorSlice; give a TensorSpec"):
        init(Unused(), TensorSlice(spec=vector), replicated)
    with pytest.raises(
        seedbed.InvalidRequest, match=r"spec.dtype: float64 needs JAX's 64-bit mode; set .*jax_enable_x64"
    ):
        init(Unused(), matrix("float64"), replicated)
    with pytest.raises(seedbed.InvalidRequest, match=r"spec.normal.std: "):
        init(local, seedbed.spec("normal", (8,), std=-1), replicated)
    with pytest.raises(seedbed.InvalidRequest, match=r"spec.shape\[0\]: "):
        init(local, seedbed.spec("normal", (-8, 8)), NamedSharding(mesh, PartitionSpec("b")))
    client = Unused()
    client.target = "local:cuda:1"
    with pytest.raises(seedbed.InvalidRequest, match=r'client: arrays of "local:cuda:1" are CuPy\'s; use .*local:'):
        init(client, vector, replicated)


# Trees


def tree_of_specs():
    return {
        "layers": [
            {"kernel": seedbed.spec("normal", (16, 8), name=f"{i}.kernel"), "bias": seedbed.spec("zeros", (8,))}
            for i in range(3)
        ],
        "embedding": seedbed.spec("trunc_normal", (32, 16), name="embedding", dtype="bfloat16"),
        "none": None,
    }


def test_a_tree_is_one_request(requested, local, mesh):
    rows, columns = NamedSharding(mesh, PartitionSpec("b")), NamedSharding(mesh, PartitionSpec(None, "a"))
    specs = tree_of_specs()
    tree = seedbed.jax.init_tree(requested, specs, {"layers": rows, "embedding": columns, "none": None})
    assert all_same(tree, jax.tree.map(local.init, specs))
    assert tree["layers"][1]["bias"].sharding == rows
    assert tree["embedding"].sharding == columns
    assert len(requested.requests) == 1
    assert not requested.described
    assert len(requested.regions) == 6 * 4 + 2
    assert requested.elements == 3 * (16 * 8 + 8) + 32 * 16


def test_shardings_may_be_one_or_one_each(local, mesh):
    specs, replicated = tree_of_specs(), NamedSharding(mesh, PartitionSpec())
    one = seedbed.jax.init_tree(local, specs, replicated)
    each = seedbed.jax.init_tree(local, specs, jax.tree.map(lambda _: replicated, specs))
    assert all_same(one, each)


def test_an_empty_tree_asks_nothing(mesh):
    assert seedbed.jax.init_tree(Unused(), {"a": [], "b": None}, NamedSharding(mesh, PartitionSpec())) == {
        "a": [],
        "b": None,
    }


def test_progress_counts_the_bytes_of_the_parts(local, mesh):
    reports = []
    sharding = NamedSharding(mesh, PartitionSpec("b"))
    seedbed.jax.init_tree(local, tree_of_specs(), sharding, progress=lambda *numbers: reports.append(numbers))
    total = 3 * (16 * 8 + 8) * 4 + 32 * 16 * 2
    assert reports[-1] == (total, total)
    assert reports == sorted(reports)
    assert len(reports) == 7 * 4


def test_progress_draws_a_bar(local, mesh, capsys):
    seedbed.jax.init_tree(local, tree_of_specs(), NamedSharding(mesh, PartitionSpec("b")), progress=True)
    assert "2.6/2.6 KiB" in capsys.readouterr().err


def test_jax_s_own_dtypes_and_numbers_are_taken():
    for dtype in (jnp.bfloat16, jnp.dtype("bfloat16"), jnp.zeros(3, "bfloat16").dtype):
        spec = seedbed.spec("normal", jnp.zeros((3, 4)).shape, std=jnp.array(0.5), seed=jnp.array(7), dtype=dtype)
        assert (seedbed.dtypes.name_of(spec.dtype), spec.normal.std, spec.seed) == ("bfloat16", 0.5, 7)
    refused = []

    def traced(std):
        with pytest.raises(seedbed.InvalidRequest, match=r"spec.normal.std: std .* has no value here") as caught:
            seedbed.spec("normal", (3,), std=std)
        refused.append(caught.value)
        return std

    jax.jit(traced)(0.5)
    assert refused


def test_leaves_of_one_name_are_one_tensor(local, mesh):
    specs = [seedbed.spec("normal", (8,), name="w"), seedbed.spec("normal", (8,), name="w", seed=1)]
    replicated = NamedSharding(mesh, PartitionSpec())
    one, same = seedbed.jax.init_tree(local, specs[:1] * 2, replicated)
    assert (one == same).all()
    with pytest.raises(seedbed.InvalidRequest, match=r"specs\[1\].name: 'w' is also the name of an earlier tensor"):
        seedbed.jax.init_tree(local, specs, replicated)


def test_refusals_of_trees(local, mesh):
    replicated = NamedSharding(mesh, PartitionSpec())
    good, bad = seedbed.spec("normal", (8,)), seedbed.spec("uniform", (8,), a=1, b=0)
    with pytest.raises(seedbed.InvalidRequest, match=r"specs\['layers'\]\[1\].uniform") as caught:
        seedbed.jax.init_tree(local, {"a": good, "layers": [good, bad]}, NamedSharding(mesh, PartitionSpec("b")))
    assert caught.value.field.startswith("specs['layers'][1].uniform")
    with pytest.raises(seedbed.InvalidRequest, match=r"specs\['a'\]\[0\]: is a int; give a TensorSpec"):
        seedbed.jax.init_tree(Unused(), {"a": (3, 4)}, replicated)
    with pytest.raises(seedbed.InvalidRequest, match=r"sharding: of specs\['a'\] is 'rows'; give"):
        seedbed.jax.init_tree(Unused(), {"a": good}, {"a": "rows"})
    for shardings in ({"b": replicated}, [replicated], {"a": None}):
        with pytest.raises(seedbed.InvalidRequest, match=r"shardings: have neither the structure of specs"):
            seedbed.jax.init_tree(Unused(), {"a": good}, shardings)


PROCESS = """
import json, sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import seedbed, seedbed.jax

coordinator, process = sys.argv[1], int(sys.argv[2])
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)
jax.distributed.initialize(coordinator, num_processes=2, process_id=process)
devices = np.array(jax.devices())
both = NamedSharding(Mesh(devices.reshape(2, 4), ("a", "b")), PartitionSpec("a", "b"))
first = NamedSharding(Mesh(devices[:4], ("x",)), PartitionSpec("x"))
specs = [seedbed.spec("normal", (8, 8), name="w"), seedbed.spec("normal", (4,), name="first")]
requested = []
with seedbed.connect("local:") as client:
    init_model = client.init_model
    client.init_model = lambda parts, **arguments: requested.extend(parts) or init_model(parts, **arguments)
    arrays = seedbed.jax.init_tree(client, specs, [both, first])
    for array, spec in zip(arrays, specs):
        assert array.shape == tuple(spec.shape) and array.dtype == np.float32
        for shard in array.addressable_shards:
            assert (np.asarray(shard.data) == client.init(spec)[shard.index]).all()
    def init(key):
        return {"w": jax.random.normal(key, (8, 8)), "keys": jax.random.split(key, 8), "steps": jax.numpy.arange(8)}

    recorded = seedbed.jax.record(init, jax.random.key(0))
    columns = NamedSharding(Mesh(devices, ("x",)), PartitionSpec("x"))
    before = len(requested)
    tree = seedbed.jax.init_tree(client, recorded.specs, columns)
    del requested[before:]
    assert all(leaf.sharding == columns for leaf in jax.tree.leaves(tree)), tree
    local = [int(shard.data[0]) for shard in tree["steps"].addressable_shards]
    assert local == list(range(4 * process, 4 * process + 4))
    theirs = jax.random.key_data(jax.random.split(jax.random.key(0), 8))
    for shard in jax.random.key_data(tree["keys"]).addressable_shards:
        assert (np.asarray(shard.data) == theirs[shard.index]).all()
print(json.dumps([[part.spec.name, *part.region.start, *part.region.stop] for part in requested]))
"""


@pytest.mark.nightly
def test_two_processes_ask_for_their_own_shards_only():
    coordinator = f"127.0.0.1:{free_port()}"
    processes = [
        subprocess.Popen([sys.executable, "-c", PROCESS, coordinator, str(i)], stdout=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    try:
        requested = [json.loads(process.communicate(timeout=60)[0].splitlines()[-1]) for process in processes]
    finally:
        for process in processes:
            process.kill()
    columns = [(0, 2), (2, 4), (4, 6), (6, 8)]
    assert requested[0] == [["w", 0, a, 4, b] for a, b in columns] + [["first", i, i + 1] for i in range(4)]
    assert requested[1] == [["w", 4, a, 8, b] for a, b in columns]


# Initializers


def initializer(client, scheme, name, **parameters):
    return seedbed.jax.initializer(client, scheme, name=name, seed=7, **parameters)


class Linen(linen.Module):
    client: object

    @linen.compact
    def __call__(self, x):
        kernel = initializer(self.client, "xavier_uniform", "up.kernel")
        x = linen.Dense(64, kernel_init=kernel, bias_init=initializer(self.client, "zeros", "up.bias"))(x)
        kernel = initializer(self.client, "normal", "down.kernel", std=0.02)
        return linen.Dense(16, kernel_init=kernel, param_dtype=jnp.bfloat16)(linen.relu(x))


class Nnx(nnx.Module):
    def __init__(self, client, rngs):
        kernel = initializer(client, "xavier_uniform", "up.kernel")
        self.up = nnx.Linear(16, 64, kernel_init=kernel, rngs=rngs)
        kernel = initializer(client, "normal", "down.kernel", std=0.02)
        self.down = nnx.Linear(64, 16, kernel_init=kernel, param_dtype=jnp.bfloat16, rngs=rngs)

    def __call__(self, x):
        return self.down(nnx.relu(self.up(x)))


def kernels(client):
    up = client.xavier_uniform((16, 64), name="up.kernel", seed=7)
    return up, client.normal((64, 16), std=0.02, name="down.kernel", seed=7, dtype="bfloat16")


def linen_kernels(variables):
    return variables["params"]["Dense_0"]["kernel"], variables["params"]["Dense_1"]["kernel"]


def test_linen_gets_the_values_of_the_names_whatever_the_key_and_the_compilation(local, mesh):
    model = Linen(local)
    abstract = jax.eval_shape(model.init, jax.random.key(0), X)
    shardings = jax.tree.map(lambda leaf: NamedSharding(mesh, PartitionSpec(*"ba"[: leaf.ndim])), abstract)
    for init in (model.init, jax.jit(model.init), jax.jit(model.init, out_shardings=shardings)):
        for key in (jax.random.key(0), jax.random.PRNGKey(1)):
            assert all_same(linen_kernels(init(key, X)), kernels(local))


class Block(linen.Module):
    client: object

    @linen.compact
    def __call__(self, x):
        return linen.Dense(16, kernel_init=initializer(self.client, "normal", "/".join(self.path)))(x)


def test_linen_modules_may_name_parameters_by_their_path(local):
    variables = linen.Sequential([Block(local), Block(local)]).init(jax.random.key(0), X)
    for path in ("layers_0", "layers_1"):
        assert same(variables["params"][path]["Dense_0"]["kernel"], local.normal((16, 16), name=path, seed=7))


def test_nnx_gets_the_values_of_the_names(local):
    for create in (Nnx, nnx.jit(Nnx, static_argnums=0)):
        model = create(local, nnx.Rngs(1))
        assert all_same((model.up.kernel[...], model.down.kernel[...]), kernels(local))


def test_abstract_evaluation_asks_nothing():
    variables = jax.eval_shape(Linen(Unused()).init, jax.random.key(0), X)
    up, down = linen_kernels(variables)
    assert (up.shape, up.dtype, down.shape, down.dtype) == ((16, 64), np.float32, (64, 16), ml_dtypes.bfloat16)
    model = nnx.eval_shape(lambda: Nnx(Unused(), nnx.Rngs(0)))
    assert model.up.kernel.shape == (16, 64)
    jax.jit(Linen(Unused()).init).lower(jax.random.key(0), X)


def test_a_compiled_initialization_asks_whenever_it_runs():
    with seedbed.connect("local:") as client:
        init = jax.jit(Linen(client).init)
        first = init(jax.random.key(0), X)
        assert all_same(first, init(jax.random.key(1), X))
    with pytest.raises(JAX_ERRORS, match="Cancelled: this client of local: is closed"):
        jax.block_until_ready(init(jax.random.key(0), X))


@pytest.mark.parametrize("call", [lambda f: f(), lambda f: jax.jit(f)()], ids=["eager", "jit"])
def test_dtypes_of_initializers(local, call):
    init = initializer(local, "normal", "w")
    assert call(lambda: init(None, (3,))).dtype == np.float32
    assert call(lambda: init(None, (), jnp.bfloat16)).shape == ()
    half = initializer(local, "normal", "w", dtype="float16")
    assert same(call(lambda: half(None, (3,))), local.normal((3,), name="w", seed=7, dtype="float16"))
    assert same(call(lambda: half(None, (3,), "float32")), local.normal((3,), name="w", seed=7))
    with pytest.raises(seedbed.InvalidRequest, match=r"spec.dtype: float64 needs JAX's 64-bit mode"):
        call(lambda: init(None, (3,), jnp.float64))
    with pytest.raises(seedbed.InvalidRequest, match=r"spec.dtype: dtype int32 is not supported"):
        call(lambda: init(None, (3,), jnp.int32))
    with jax.enable_x64(True):
        expected = local.normal((3,), name="w", seed=7, dtype="float64")
        assert same(call(lambda: init(None, (3,), jnp.float64)), expected)


def test_an_invalid_initializer_is_refused_when_it_is_made(local):
    with pytest.raises(seedbed.InvalidRequest, match=r"unknown scheme kaiming"):
        initializer(local, "kaiming", "w")
    with pytest.raises(seedbed.InvalidRequest, match=r"spec.normal.std"):
        initializer(local, "normal", "w", std="small")
    with pytest.raises(TypeError, match="stddev"):
        initializer(local, "normal", "w", stddev=0.02)
    with pytest.raises(TypeError, match="name"):
        seedbed.jax.initializer(local, "normal")
    client = Unused()
    client.target = "local:cuda"
    with pytest.raises(seedbed.InvalidRequest, match="CuPy"):
        initializer(client, "normal", "w")


def test_a_shape_that_a_scheme_does_not_have(local):
    init = initializer(local, "kaiming_normal", "w")
    with pytest.raises(seedbed.InvalidRequest, match=r"spec.shape: Fan in"):
        init(jax.random.key(0), (3,))
    with pytest.raises(JAX_ERRORS, match=r"InvalidRequest: spec.shape: Fan in"):
        jax.block_until_ready(jax.jit(lambda: init(jax.random.key(0), (3,)))())


def test_one_name_is_refused_for_many_layers_under_vmap(local):
    refusal = r"name: 'up.kernel' cannot name 3 parameters"
    create = nnx.vmap(lambda rngs: Nnx(local, rngs))
    for make in (create, nnx.jit(create)):
        with pytest.raises(seedbed.InvalidRequest, match=refusal):
            make(nnx.Rngs(0).split(3))
    stacked = linen.vmap(Linen, variable_axes={"params": 0}, split_rngs={"params": True}, axis_size=3, in_axes=None)
    with pytest.raises(seedbed.InvalidRequest, match=refusal):
        stacked(local).init(jax.random.key(0), X)


def test_one_name_is_right_for_a_layer_that_vmap_shares(local):
    shared = linen.vmap(Linen, variable_axes={"params": None}, split_rngs={"params": False})
    assert all_same(linen_kernels(shared(local).init(jax.random.key(0), X)), kernels(local))


def test_a_flax_model_trains_from_sharded_weights(local, mesh):
    model = Linen(local)

    def spec_of(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        scheme = "zeros" if name.endswith("bias") else "xavier_uniform"
        return seedbed.spec(scheme, leaf.shape, dtype=leaf.dtype, name=name, seed=7)

    @jax.jit
    def step(variables):
        loss, gradients = jax.value_and_grad(lambda v: jnp.mean((model.apply(v, X) - jnp.sin(3 * X)) ** 2))(variables)
        return loss, jax.tree.map(lambda weight, gradient: weight - 0.3 * gradient, variables, gradients)

    abstract = jax.eval_shape(model.init, jax.random.key(0), X)
    specs = jax.tree_util.tree_map_with_path(spec_of, abstract)
    assert specs["params"]["Dense_1"]["bias"].name == "params.Dense_1.bias"
    shardings = jax.tree.map(lambda leaf: NamedSharding(mesh, PartitionSpec(*"ba"[: leaf.ndim])), abstract)
    variables = seedbed.jax.init_tree(local, specs, shardings)
    losses = []
    for _ in range(20):
        loss, variables = step(variables)
        losses.append(float(loss))
    assert losses[-1] < losses[0] / 5


@pytest.mark.nightly
def test_the_example_runs(server):
    for target in ([], [server]):
        command = [sys.executable, str(ROOT / "examples" / "jax_sharded.py"), *target]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        lines = done.stdout.splitlines()
        assert lines[0] == "up.kernel: (256, 1024), on 8 devices, (128, 256) on each"
        assert lines[1] == "every shard is that part of the whole, bit for bit"
        losses = [float(line.rpartition(" ")[2]) for line in lines[2:]]
        assert losses == sorted(losses, reverse=True)
