"""`seedbed.jax.record` records what JAX would draw."""

import functools
import hashlib
import inspect
import math
import re
import sys
from pathlib import Path

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState
from google.protobuf import json_format
from jax.interpreters import partial_eval
from jax.nn import initializers
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding
from scipy import stats

import seedbed
import seedbed.jax
from seedbed.v1 import Model, TensorSpec

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _jax_models import MODELS, RESNET50, LanguageModel, a_key

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

CERTAIN = ("zeros", "ones", "constant", "eye", "literal")
X = jax.ShapeDtypeStruct((1, 16), "float32")


@pytest.fixture(scope="module")
def local():
    with seedbed.connect("local:") as client:
        yield client


@pytest.fixture(scope="module")
def device():
    return SingleDeviceSharding(jax.devices()[0])


def record(init, *args, **kwargs):
    return seedbed.jax.record(init, *args, seed=7, **kwargs)


def specs(init, *args):
    return {spec.name: spec for spec in record(init, *args).model.tensors}


def spec_of(init):
    [spec] = record(init).model.tensors
    return spec


FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def own(init, every=1):
    """Arrays of the model's own init, compiled by JAX without what they do not need; every so many of them."""

    def arrays():
        return [leaf for leaf in jax.tree.leaves(init()) if isinstance(leaf, jax.Array)][::every]

    closed = jax.make_jaxpr(arrays)()
    jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return jax.jit(lambda: jax.core.eval_jaxpr(jaxpr, closed.consts), compiler_options=FAST)()


def same_law(a, b):
    """The p-value of two samples following one law; of both parts, if they are complex."""
    a, b = (np.asarray(one) for one in (a, b))
    if a.dtype.kind == "c":
        return min(same_law(part(a), part(b)) for part in (np.real, np.imag, np.abs))
    return stats.ks_2samp(*(one.astype(np.float64).ravel() for one in (a, b)), method="asymp").pvalue


def is_key(leaf):
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def plain(leaf):
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def check_against_own(init, local, every=1):
    """Compares the leaves of a recorded tree with JAX's own."""
    recorded = record(init)
    paths = jax.tree_util.tree_leaves_with_path(recorded.specs)
    arrays = [leaf for _, leaf in paths if isinstance(leaf, (TensorSpec, jax.Array))][::every]
    values = own(init, every)
    drawn = []
    for spec, theirs in zip(arrays, values, strict=True):
        if not isinstance(spec, TensorSpec):
            assert spec.dtype == theirs.dtype
            np.testing.assert_array_equal(plain(spec), plain(theirs))
            continue
        ours, theirs = local.init(spec), np.asarray(theirs)
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        if spec.WhichOneof("scheme") in CERTAIN:
            np.testing.assert_array_equal(ours, theirs, spec.name)
        else:
            drawn.append((spec.name, same_law(ours, theirs)))
    unlike = [pair for pair in drawn if pair[1] < 0.01 / len(drawn)]
    assert not unlike
    return recorded


@pytest.mark.parametrize("name", MODELS)
def test_models_begin_as_by_their_own_init(name, local):
    recorded = check_against_own(MODELS[name], local)
    # Nothing of these models but absolute values and norms is other than a scheme.
    odd = [spec.name for spec in recorded.model.tensors if spec.WhichOneof("scheme") in ("expression", "parts")]
    assert odd == {"equinox encoder": ["scale"], "equinox with state": ["0.weight.g"]}.get(name, [])


@pytest.mark.nightly
def test_resnet50_of_haiku(local):
    recorded = check_against_own(RESNET50, local, every=7)
    assert sum(math.prod(spec.shape) for spec in recorded.model.tensors) == 25_557_032


def near(value):
    return pytest.approx(value, rel=1e-5)


def bounded(std):
    return {"std": near(std / 0.87962566), "a": near(-2 * std / 0.87962566), "b": near(2 * std / 0.87962566)}


LAWS = {
    "lecun_normal": (initializers.lecun_normal(), (64, 16), "trunc_normal", bounded(1 / 8)),
    "he_normal of a kernel": (initializers.he_normal(), (3, 3, 4, 16), "trunc_normal", bounded(math.sqrt(2 / 36))),
    "glorot_uniform": (initializers.glorot_uniform(), (64, 32), "uniform", {"a": near(-0.25), "b": near(0.25)}),
    "he_uniform": (initializers.he_uniform(), (24, 32), "uniform", {"a": near(-0.5), "b": near(0.5)}),
    "variance_scaling": (
        initializers.variance_scaling(3.0, "fan_out", "normal"),
        (64, 12),
        "normal",
        {"std": near(0.5)},
    ),
    "normal": (initializers.normal(0.02), (5, 6), "normal", {"std": near(0.02)}),
    "uniform": (initializers.uniform(0.3), (5, 6), "uniform", {"a": 0, "b": near(0.3)}),
    "truncated_normal": (
        initializers.truncated_normal(0.5, lower=-1, upper=3),
        (5, 6),
        "trunc_normal",
        {"std": 0.5, "a": -0.5, "b": 1.5},
    ),
    "orthogonal": (initializers.orthogonal(2.0), (6, 4), "orthogonal", {"gain": 2}),
    "orthogonal, wide": (initializers.orthogonal(), (4, 6), "orthogonal", {"gain": 1}),
    "orthogonal kernel": (initializers.orthogonal(0.5), (3, 3, 4, 8), "orthogonal", {"gain": 0.5, "axis": 3}),
    "orthogonal, axis": (initializers.orthogonal(column_axis=1), (3, 5, 4), "orthogonal", {"gain": 1, "axis": 1}),
    "zeros": (initializers.zeros, (5,), "zeros", {}),
    "ones": (initializers.ones, (5,), "ones", {}),
    "constant": (initializers.constant(0.25), (5, 2), "constant", {"val": 0.25}),
}


@pytest.mark.parametrize("name", LAWS)
def test_the_schemes_of_jax_s_initializers(name):
    init, shape, scheme, parameters = LAWS[name]
    for key in (a_key(), jax.random.PRNGKey(3)):
        spec = spec_of(lambda key=key: {"w": init(key, shape)})
        assert (spec.name, tuple(spec.shape), spec.seed) == ("w", shape, 7)
        assert spec.WhichOneof("scheme") == scheme
        message = getattr(spec, scheme)
        assert {field: getattr(message, field) for field in parameters} == parameters


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits_are_the_same_law(dtype):
    """The standard deviation is JAX's, which computes it in the dtype."""
    spec = spec_of(lambda: initializers.lecun_normal()(a_key(), (64, 16), dtype))
    assert seedbed.dtypes.name_of(spec.dtype) == dtype
    assert spec.trunc_normal.std == pytest.approx(1 / 8 / 0.87962566, rel=2**-6)


def test_64_bits():
    with jax.enable_x64(True):
        spec = spec_of(lambda: initializers.lecun_normal()(a_key(), (64, 16)))
    assert seedbed.dtypes.name_of(spec.dtype) == "float64"
    assert spec.trunc_normal.std == pytest.approx(1 / 8 / 0.87962566103423978, rel=1e-12)


@pytest.mark.parametrize("distribution", ["uniform", "normal", "truncated_normal"])
def test_complex_numbers(distribution, local):
    init = initializers.variance_scaling(2.0, "fan_in", distribution)
    spec = spec_of(lambda: init(a_key(), (50, 80), jnp.complex64))
    assert spec.WhichOneof("scheme") == ("normal" if distribution == "normal" else "disk")
    [theirs] = own(lambda: init(a_key(), (50, 80), jnp.complex64))
    assert same_law(local.init(spec), theirs) > 0.01


def test_complex_numbers_in_any_order(local):
    init = initializers.lecun_normal(dtype=jnp.complex64)
    keys = jax.random.split(a_key(), 5)
    made = specs(
        lambda: {
            "transposed": init(keys[0], (6, 4)).T,
            "reshaped, negative": -init(keys[1], (6, 4)).reshape(6, 2, 2),
            "stacked": jax.vmap(lambda key: init(key, (6, 4)))(keys[2:]),
        }
    )
    assert {(spec.WhichOneof("scheme"), round(spec.disk.std, 5)) for spec in made.values()} == {("disk", 0.42833)}
    assert [list(spec.shape) for spec in made.values()] == [[6, 2, 2], [3, 6, 4], [4, 6]]
    with pytest.raises(seedbed.InvalidRequest, match="computed from complex numbers"):
        specs(lambda: {"z": init(keys[0], (6, 4)), "turned": -init(keys[0], (6, 4))})


def test_delta_orthogonal(local):
    spec = spec_of(lambda: initializers.delta_orthogonal(2.0)(a_key(), (3, 3, 4, 8)))
    kernel = local.init(spec)
    assert np.count_nonzero(kernel.any(axis=(2, 3))) == 1
    np.testing.assert_allclose(kernel[1, 1] @ kernel[1, 1].T, 4 * np.eye(4), atol=1e-5)


def normal(shape=(100, 40), key=None):
    return jax.random.normal(a_key() if key is None else key, shape)


FORMULAS = {
    "exponential": lambda: jax.random.exponential(a_key(), (4000,)),
    "gumbel": lambda: jax.random.gumbel(a_key(), (4000,)),
    "laplace": lambda: jax.random.laplace(a_key(), (4000,)),
    "logistic": lambda: jax.random.logistic(a_key(), (4000,)),
    "cauchy": lambda: jax.random.cauchy(a_key(), (4000,)),
    "bernoulli": lambda: jax.random.bernoulli(a_key(), 0.3, (4000,)).astype("float32"),
    "rademacher": lambda: jax.random.rademacher(a_key(), (4000,)).astype("float32"),
    "randint": lambda: jax.random.randint(a_key(), (4000,), -3, 9).astype("float32"),
    "permutation": lambda: jax.random.permutation(a_key(), jnp.arange(10, 20000, 10)).astype("float32"),
    "uniform between rows": lambda: jax.random.uniform(a_key(), (500, 3), minval=jnp.arange(3.0), maxval=4.0),
    "truncated by rows": lambda: jax.random.truncated_normal(a_key(), jnp.array([-1.0, 0.0]), 2.0, (500, 2)),
    "Mamba's A_log": lambda: jnp.log(jax.random.uniform(a_key(), (4000,), minval=1, maxval=16)),
    "inverse softplus": lambda: (lambda dt: dt + jnp.log(-jnp.expm1(-dt)))(
        jnp.exp(jax.random.uniform(a_key(), (4000,)) * math.log(100) + math.log(1e-3))
    ),
    "rows of length 1": lambda: (lambda x: x / jnp.linalg.norm(x, axis=1, keepdims=True))(normal()),
    "multivariate": lambda: jax.random.multivariate_normal(
        a_key(), jnp.array([0.0, 3.0]), jnp.array([[2.0, 0.3], [0.3, 0.5]]), (2000,)
    ),
    "dropped out": lambda: jnp.where(jax.random.bernoulli(jax.random.key(4), 0.5, (100, 40)), normal(), 0.0),
    "masked": lambda: jnp.where(jnp.tril(jnp.ones((60, 60), bool)), normal((60, 60)), 1.0),
    "a row of zeros": lambda: normal().at[0].set(0.0),
    "rows written by a loop": lambda: jax.lax.fori_loop(
        0, 5, lambda i, x: x.at[i].set(normal((300,), jax.random.fold_in(a_key(), i))), jnp.zeros((5, 300))
    ),
    "a diagonal added": lambda: (0.1 * normal((40, 40))).at[jnp.arange(40), jnp.arange(40)].add(1.0),
    "padded": lambda: jnp.pad(normal(), ((2, 3), (0, 10)), constant_values=9.0),
    "turned, repeated, rolled": lambda: jnp.roll(jnp.repeat(jnp.flip(normal((50, 20)), 0), 2, axis=1), 3, axis=0),
    "a loop of draws": lambda: jax.lax.fori_loop(
        0, 4, lambda i, x: x + jax.random.uniform(jax.random.fold_in(a_key(), i), (2000,)), jnp.zeros(2000)
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_what_is_made_of_draws(name, local):
    init = FORMULAS[name]
    spec = spec_of(init)
    [theirs] = own(init)
    assert same_law(local.init(spec), theirs) > 1e-3


FUNCTIONS = {
    "transposed": lambda x: jnp.transpose(x.reshape(4, 5, 6), (2, 0, 1)),
    "reversed": lambda x: x[::-1, 1::2],
    "rolled": lambda x: jnp.roll(x, (3, -2), axis=(0, 1)),
    "rotated": jnp.rot90,
    "tiled": lambda x: jnp.tile(x, (2, 1, 3)),
    "repeated": lambda x: jnp.repeat(x, 3, axis=0),
    "padded within": lambda x: jax.lax.pad(x, 7.0, ((1, 0, 2), (0, 3, 0))),
    "cut": lambda x: jax.lax.pad(x, 0.0, ((-3, -4, 0), (-30, 40, 0))),
    "rows": lambda x: x[jnp.array([7, 1, 19, 1])],
    "columns": lambda x: jnp.take(x, jnp.array([5, 0, 2]), axis=1),
    "elements": lambda x: x[jnp.array([0, 1, 2]), jnp.array([1, 2, 3])],
    "a trace": lambda x: jnp.diagonal(x[:6]).sum(),
    "rows written": lambda x: x.at[jnp.array([3, 5, 7])].set(-x[:3]),
    "a column written": lambda x: x.at[:, 4].set(x[:, 0] + 1),
    "a block written": lambda x: x.at[2:5, 1:3].set(x[10:13, 3:5]),
    "added": lambda x: x.at[2:5, 1:3].add(10.0),
    "a slice by clamped numbers": lambda x: jax.lax.dynamic_slice(x, (jnp.array(18), jnp.array(-3)), (5, 2)),
    "an update by clamped numbers": lambda x: jax.lax.dynamic_update_slice(x, x[:5, :2], (jnp.array(30), jnp.array(2))),
    "split": lambda x: jnp.concatenate(jnp.split(x, (2, 5), axis=1)[::-1], axis=1),
    "unstacked": lambda x: jnp.stack(jnp.unstack(x, axis=1)[::2]),
    "subtracted": lambda x: x.at[2:5].subtract(x[6:9]),
    "any and all": lambda x: ((x > 1).any(1) | (x < 1).all(1)).astype("float32"),
    "stacked": lambda x: jnp.stack([x, 2 * x, x**3], axis=1),
    "chosen": lambda x: jnp.where(x > 0.3, x, jnp.where(x < -1, -1.0, x * x)),
    "clipped": lambda x: jnp.clip(x, -0.5, jnp.arange(6.0) / 5),
    "logic": lambda x: ((x > 0) ^ (jnp.abs(x) < 1) | ~(x < 2)).astype("float32"),
    "integers": lambda x: (3 * x).astype(int).astype("float32") + jnp.round(x) + jnp.floor(x) - jnp.ceil(2 * x),
    "signs": lambda x: jnp.sign(x) * jnp.sqrt(jnp.abs(x)),
    "exponentials": lambda x: jnp.exp2(x) + jnp.expm1(x) + jnp.sinh(x) / jnp.cosh(x) + jax.nn.softplus(x),
    "angles": lambda x: jnp.sin(x) * jnp.tan(x / 3) + jnp.cos(x),
    "activations": lambda x: jax.nn.gelu(x) + jax.nn.silu(x) + jax.nn.relu(x) + jax.lax.erfc(x),
    "softmax": lambda x: jax.nn.softmax(x, axis=0),
    "standardized": lambda x: jax.nn.standardize(x, axis=1),
    "means": lambda x: x.mean(0) - x.max(0) + x.min(0),
    "product": lambda x: x.T @ x,
    "einsum": lambda x: jnp.einsum("abi,cbj->jab", x.reshape(4, 5, 6), x.reshape(4, 5, 6)),
    "by a table": lambda x: x @ jnp.eye(6)[:, ::-1] + jnp.linspace(0, 1, 6),
    "gradients": jax.grad(lambda x: jnp.sum(jnp.tanh(x) ** 2)),
    "mapped": lambda x: jax.lax.map(lambda row: row / jnp.linalg.norm(row), x),
    "scanned": lambda x: jax.lax.scan(lambda carry, row: (carry / 2 + row, carry), jnp.zeros(6), x[:5])[1],
    "mapped over columns": jax.vmap(lambda column: column - column[::-1], in_axes=1, out_axes=1),
    "half precision": lambda x: (x.astype("bfloat16") * 3 + 1).astype("float32"),
    "rounded": lambda x: jax.lax.reduce_precision(x, 5, 10),
    "powers": lambda x: jnp.abs(x) ** 1.7 + x**-2 + jax.lax.rsqrt(x**2 + 1) + jnp.power(2.0, x),
    "minus": lambda x: 1 - x,
}


def test_what_is_computed_of_a_draw_is_computed_of_its_very_values(local):
    """The draw itself is a leaf, too, so that values computed from it depend on it."""

    def init():
        x = normal((20, 6))
        return {"x": x, **{name: function(x) for name, function in FUNCTIONS.items()}}

    made = specs(init)
    x = jnp.asarray(local.init(made["x"]))
    expected = jax.jit(lambda: {name: function(x) for name, function in FUNCTIONS.items()}, compiler_options=FAST)()
    for name, value in expected.items():
        precision = {"half precision": 2e-2}.get(name, 2e-5)
        np.testing.assert_allclose(local.init(made[name]), value, precision, precision, err_msg=name)


def test_a_draw_as_the_bound_of_a_clamp(local):
    def init():
        x, half = jax.random.uniform(a_key(), (50,)), jnp.full((50,), 0.5)
        low, high = jax.lax.clamp(x, half, jnp.ones((50,))), jax.lax.clamp(jnp.zeros((50,)), half, x)
        return {"x": x, "low": low, "high": high, "clamped": jax.lax.clamp(0.0, x, 1.0)}

    made = {name: local.init(spec) for name, spec in specs(init).items()}
    np.testing.assert_array_equal(made["low"], np.maximum(made["x"], np.float32(0.5)), strict=True)
    np.testing.assert_array_equal(made["high"], np.minimum(made["x"], np.float32(0.5)), strict=True)
    np.testing.assert_array_equal(made["clamped"], made["x"], strict=True)


def test_what_is_zero_or_in_order_is_so_here():
    with seedbed.connect("local:") as client:
        table = client.init(spec_of(FORMULAS["a row of zeros"]))
        assert not table[0].any()
        assert table[1:].all()
        masked = client.init(spec_of(FORMULAS["masked"]))
        assert (masked[np.triu_indices(60, 1)] == 1).all()
        padded = client.init(spec_of(FORMULAS["padded"]))
        assert (padded[:2] == 9).all()
        assert (padded[:, 40:] == 9).all()
        order = client.init(spec_of(FORMULAS["permutation"]))
        assert sorted(order) == list(range(10, 20000, 10))
        repeated = client.init(spec_of(FORMULAS["turned, repeated, rolled"]))
        assert (repeated[:, ::2] == repeated[:, 1::2]).all()


def test_large_tensors_stay_schemes():
    """Whatever their order and place in the code."""
    keys = jax.random.split(a_key(), 4)
    made = specs(
        lambda: {
            "transposed": normal((8, 4)).T.reshape(2, 2, 8) * 0.02 + 1,
            "negated": -jax.random.uniform(keys[0], (6,), minval=1, maxval=4),
            "half": (normal((6,), keys[1]) / 4).astype(jnp.float16),
            "taken": normal((6, 5), keys[2])[::2, 1:3],
            "by hand": jnp.sqrt(2) * jax.lax.erf_inv(jax.random.uniform(keys[3], (5,), minval=-0.9, maxval=0.9)),
        }
    )
    schemes = {name: spec.WhichOneof("scheme") for name, spec in made.items()}
    assert schemes == {
        "transposed": "normal",
        "negated": "uniform",
        "half": "normal",
        "taken": "normal",
        "by hand": "trunc_normal",
    }
    assert (made["transposed"].normal.mean, made["transposed"].normal.std) == (1, near(0.02))
    assert (made["negated"].uniform.a, made["negated"].uniform.b) == (-4, -1)
    assert made["by hand"].trunc_normal.b == near(stats.norm.ppf(0.95))


def test_parts_of_one_draw_are_draws_of_their_own_where_they_are_apart(local):
    def fused():
        q, k, v = jnp.split(normal((6, 90)), 3, axis=1)
        return {"q": q, "k": k, "v": v}

    made = specs(fused)
    assert {spec.WhichOneof("scheme") for spec in made.values()} == {"normal"}
    assert len({local.init(spec).tobytes() for spec in made.values()}) == 3
    overlapping = specs(lambda: (lambda x: {"a": x[:4], "b": x[2:]})(normal((6, 5))))
    a, b = (local.init(overlapping[name]) for name in "ab")
    assert (a[2:] == b[:2]).all()


# What is equal in the code is equal here, and nothing else.


def test_draws_of_the_same_key_are_equal(local):
    other = jax.random.key(4)
    made = specs(
        lambda: {
            "first": normal(),
            "again": 3 * normal(),
            "minus": -normal(),
            "through a function": jax.jit(lambda key: jax.random.normal(jax.random.wrap_key_data(key), (100, 40)))(
                jax.random.key_data(a_key())
            ),
            "other key": normal(key=other),
            "other shape": normal((40, 100)),
            "other law": jax.random.uniform(a_key(), (100, 40)),
            "other generator": normal(key=jax.random.key(3, impl="rbg")),
        }
    )
    values = {name: local.init(spec) for name, spec in made.items()}
    np.testing.assert_allclose(values["again"], 3 * values["first"], rtol=1e-6)
    np.testing.assert_allclose(values["minus"], -values["first"], rtol=1e-6)
    assert (values["through a function"] == values["first"]).all()
    for name in ("other key", "other shape", "other law", "other generator"):
        correlation = np.corrcoef(values["first"].ravel(), values[name].ravel())[0, 1]
        assert abs(correlation) < 0.08, name


layer_init = functools.partial(initializers.lecun_normal(), shape=(20, 30))

STACKS = {
    "vmap": jax.vmap(layer_init),
    "stack": lambda keys: jnp.stack([layer_init(key) for key in keys]),
    "scan": lambda keys: jax.lax.scan(lambda carry, key: (carry, layer_init(key)), 0, keys)[1],
    "map": lambda keys: jax.lax.map(layer_init, keys),
    "scan of numbers": lambda keys: jax.lax.scan(lambda _, i: (_, layer_init(keys[i])), 0, jnp.arange(3))[1],
    "reversed": lambda keys: jax.lax.scan(lambda carry, key: (carry, layer_init(key)), 0, keys, reverse=True)[1],
    "transposed": lambda keys: jax.vmap(lambda key: layer_init(key).T, out_axes=1)(keys).transpose(1, 2, 0),
    "twice": lambda keys: jax.vmap(jax.vmap(layer_init))(keys[:, None])[:, 0],
}


@pytest.mark.parametrize("name", STACKS)
def test_a_stack_of_layers_is_one_draw_with_the_fans_of_a_layer(name):
    spec = spec_of(lambda: STACKS[name](jax.random.split(a_key(), 3)))
    assert math.prod(spec.shape) == 1800
    assert spec.WhichOneof("scheme") == "trunc_normal"
    assert spec.trunc_normal.std == near(20**-0.5 / 0.87962566)


def test_equal_layers_of_a_stack_are_equal(local):
    keys = jax.random.split(a_key(), 3)
    made = specs(
        lambda: {
            "stack": jax.vmap(lambda key: normal((20, 30), key))(keys),
            "last": normal((20, 30), keys[2]),
            "twice": jax.vmap(lambda key: normal((7, 5), key))(jnp.stack([keys[0], keys[1], keys[0]])),
            "shared": jax.vmap(lambda _: normal((8, 5)))(jnp.arange(3)),
        }
    )
    stack, last, twice, shared = (local.init(made[name]) for name in ("stack", "last", "twice", "shared"))
    assert (stack[2] == last).all()
    assert (twice[0] == twice[2]).all()
    assert (shared == shared[0]).all()
    assert (twice[0] != twice[1]).all()
    assert (stack[0] != stack[1]).all()


def test_orthogonal_layers_of_a_stack_are_each_orthogonal(local):
    spec = spec_of(
        lambda: jax.vmap(lambda key: initializers.orthogonal(2.0)(key, (6, 4)))(jax.random.split(a_key(), 3))
    )
    stack = local.init(spec)
    for layer in stack:
        np.testing.assert_allclose(layer.T @ layer, 4 * np.eye(4), atol=1e-5)
    assert (stack[0] != stack[1]).all()
    one = spec_of(lambda: jax.vmap(lambda key: initializers.orthogonal()(key, (6, 4)))(jax.random.split(a_key(), 1)))
    np.testing.assert_allclose(local.init(one)[0].T @ local.init(one)[0], np.eye(4), atol=1e-5)


def test_a_function_of_the_user_s_own_by_a_sampler_s_name():
    @jax.jit
    def _uniform(key, low, high):
        return low + (high - low) * jax.random.normal(key, (5,))

    spec = spec_of(lambda: _uniform(a_key(), 1.0, 3.0))
    assert (spec.normal.mean, spec.normal.std) == (1, 2)


def test_what_runs_without_jit_is_recorded_all_the_same():
    with jax.disable_jit():
        assert spec_of(lambda: normal((3,))).normal.std == 1


# What stays as it is.


def test_leaves_that_are_not_drawn_and_not_served_stay(local, device):
    def init():
        return {
            "step": jnp.zeros((), jnp.int32),
            "mask": jnp.arange(4) > 1,
            "key": jax.random.split(a_key())[0],
            "bound": jnp.full((3,), -jnp.inf),
            "rate": 0.5,
            "name": jax.nn.relu,
            "nothing": None,
            "w": normal((3, 2)),
            "table": np.linspace(0, 1, 5, dtype=np.float32),
        }

    recorded = record(init)
    assert [spec.name for spec in recorded.model.tensors] == ["table", "w"]
    tree = seedbed.jax.init_tree(local, recorded.specs, device)
    expected = init()
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    assert (tree["rate"], tree["name"], tree["nothing"]) == (0.5, jax.nn.relu, None)
    for name in ("step", "mask", "key", "bound", "table"):
        assert tree[name].dtype == expected[name].dtype
        assert (plain(tree[name]) == plain(expected[name])).all()
        assert tree[name].sharding == device


def test_a_module_of_nnx_comes_back_ready_to_call(local, device):
    def make():
        rngs = nnx.Rngs(0)
        return nnx.Sequential(nnx.Linear(4, 64, rngs=rngs), nnx.Dropout(0.5, rngs=rngs), nnx.Linear(64, 2, rngs=rngs))

    module = seedbed.jax.init_tree(local, record(make).specs, device)
    assert isinstance(module, nnx.Sequential)
    assert module(jnp.ones((3, 4))).shape == (3, 2)
    state = nnx.split(make())[1]
    assert jax.tree.structure(nnx.split(module)[1]) == jax.tree.structure(state)


def test_a_module_of_equinox_comes_back_ready_to_call(local, device):
    module = seedbed.jax.init_tree(local, record(eqx.nn.MLP, 4, 2, 64, 1, key=a_key()).specs, device)
    assert module(jnp.ones(4)).shape == (2,)


def test_a_training_state_is_recorded_with_its_optimizer(local, device):
    model = linen.Dense(3)

    def create():
        return TrainState.create(
            apply_fn=model.apply, params=model.init(a_key(), jnp.ones((1, 4))), tx=optax.adam(1e-3)
        )

    recorded = record(create)
    state = seedbed.jax.init_tree(local, recorded.specs, device)
    assert isinstance(state, TrainState)
    assert int(state.opt_state[0].count) == state.step == 0
    assert not any(leaf.any() for leaf in jax.tree.leaves((state.opt_state[0].mu, state.opt_state[0].nu)))
    gradients = jax.grad(lambda params: state.apply_fn(params, jnp.ones((1, 4))).sum())(state.params)
    assert int(state.apply_gradients(grads=gradients).step) == 1


def test_nothing_large_is_made():
    """64 GiB of parameters, and 128 of optimizer state."""
    model = linen.Dense(1 << 17)
    x = jax.ShapeDtypeStruct((1, 1 << 17), "float32")
    made = specs(lambda: model.init(a_key(), jnp.zeros((1, 1 << 17))))
    assert made["params.kernel"].shape == [1 << 17, 1 << 17]
    assert made == specs(model.init, a_key(), x)
    moments = specs(lambda params: optax.adam(1e-3).init(params), jax.eval_shape(model.init, a_key(), x))
    assert {spec.WhichOneof("scheme") for spec in moments.values()} == {"zeros"}
    marked = spec_of(lambda: jnp.zeros((1 << 17, 1 << 13)).at[3].set(1.0))
    assert [part.recipe.constant.val for part in marked.parts.parts] == [0, 1]
    padded = spec_of(lambda: normal((1 << 17, 1 << 13)).at[0].set(0.0))
    assert [part.region.stop for part in padded.parts.parts] == [[], [1, 1 << 13]]
    rows = specs(lambda: (lambda x: {"some": x[jnp.array([3, 5, 7])], "last": x[-1]})(normal((1 << 17, 1 << 13))))
    assert {spec.WhichOneof("scheme") for spec in rows.values()} == {"normal"}
    turned = spec_of(lambda: initializers.orthogonal()(a_key(), (1 << 15, 1 << 14)))
    assert turned.WhichOneof("scheme") == "orthogonal"


def test_the_model_is_a_message_of_the_tree(local):
    recorded = record(LanguageModel().init, a_key(), jax.ShapeDtypeStruct((1, 8), "int32"))
    assert recorded.model.name == "LanguageModel"
    assert repr(recorded) == "<Recorded LanguageModel, 28 tensors>"
    assert list(recorded.model.tensors) == jax.tree.leaves(recorded.specs)
    assert json_format.Parse(json_format.MessageToJson(recorded.model), Model()) == recorded.model
    names = [spec.name for spec in recorded.model.tensors]
    assert "params.DecoderBlock_1.Dense_0.kernel" in names
    assert len(set(names)) == len(names)
    again = record(LanguageModel().init, a_key(), jnp.zeros((1, 8), jnp.int32))
    assert again.model == recorded.model
    [last] = seedbed.jax.record(lambda: {"w": normal()}, seed=2**64 - 1).model.tensors
    assert last.seed == 2**64 - 1


# Refusals.


def at(function):
    """The line of a function within this file."""
    return inspect.getsourcelines(function)[1]


REFUSALS = {
    "a decomposition": (lambda: jnp.linalg.svd(normal((4, 4)))[0], r"decomposes drawn matrices by svd"),
    "Q alone": (lambda: jnp.linalg.qr(normal((4, 4)))[0], r"uses a QR decomposition otherwise .*Haar"),
    "Q by the first row of R": (
        lambda: (lambda q, r: q * jnp.sign(r[0]))(*jnp.linalg.qr(normal((4, 4)))),
        r"uses a QR decomposition otherwise",
    ),
    "Q by rows": (
        lambda: (lambda q, r: q * jnp.sign(jnp.diag(r))[:, None])(*jnp.linalg.qr(normal((4, 4)))),
        r"uses a QR decomposition otherwise",
    ),
    "QR of a uniform": (
        lambda: (lambda q, r: q * jnp.sign(jnp.diag(r)))(*jnp.linalg.qr(jax.random.uniform(a_key(), (4, 4)))),
        r"decomposes a matrix that is wider than high or not of independent normals",
    ),
    "a branch": (
        lambda: jax.lax.cond(jax.random.uniform(a_key()) < 0.5, lambda: jnp.ones(3), lambda: jnp.zeros(3)),
        r"branches on drawn values",
    ),
    "a loop": (
        lambda: jax.lax.while_loop(lambda x: x < 3, lambda x: x + 1, jax.random.uniform(a_key())),
        r"loops until drawn values end it",
    ),
    "sorted": (lambda: jnp.sort(normal((9,))), r"sorts drawn values"),
    "sums": (lambda: jnp.cumsum(normal((9,))), r"applies cumsum to drawn values"),
    "bits": (lambda: jax.random.bits(a_key(), (3,)).astype("float32"), r"draws bits"),
    "gamma": (lambda: jax.random.gamma(a_key(), 2.0, (3,)), r"draws from a gamma distribution"),
    "categorical": (
        lambda: jax.random.categorical(a_key(), jnp.zeros(3), shape=(4,)).astype("float32"),
        r"applies argmax to drawn values",
    ),
    "a choice": (lambda: jax.random.choice(a_key(), jnp.arange(5.0) ** 2, (4,)), r"takes elements at drawn indices"),
    "shuffled values": (
        lambda: jax.random.permutation(a_key(), jnp.array([3.0, 1.0, 4.0])),
        r"shuffles values other than a range",
    ),
    "drawn integers": (
        lambda: jax.random.randint(a_key(), (3,), 0, 5),
        r"is drawn as int32 .*only float32, .* are served",
    ),
    "a key of draws": (
        lambda: normal(key=jax.random.key(jax.random.randint(a_key(), (), 0, 9))),
        r"computes a key from drawn values|draws with a key that is computed from drawn values",
    ),
    "a callback": (
        lambda: jax.pure_callback(lambda: np.ones(3, np.float32), jax.ShapeDtypeStruct((3,), "float32")),
        r"calls back into Python",
    ),
    "complex arithmetic": (lambda: jax.random.normal(a_key(), (3,), jnp.complex64) ** 2, r"complex numbers"),
    "bounds by vmap": (
        lambda: jax.vmap(lambda key, b: jax.random.uniform(key, (3,), maxval=b))(
            jax.random.split(a_key(), 2), jnp.array([1.0, 2.0])
        ),
        r"draws between bounds that are out of order, or that differ along a vmap",
    ),
    "bounds by vmap, for one key": (
        lambda: jax.vmap(lambda b: jax.random.uniform(a_key(), (3,), maxval=b))(jnp.array([1.0, 2.0, 3.0])),
        r"draws between bounds that are out of order, or that differ along a vmap",
    ),
    "truncated by vmap, for one key": (
        lambda: jax.vmap(lambda b: jax.random.truncated_normal(a_key(), 0, b, (3,)))(jnp.array([1.0, 2.0, 3.0])),
        r"draws between bounds that are out of order, or that differ along a vmap",
    ),
    "an infinity": (
        lambda: jnp.where(normal((9,)) > 0, -jnp.inf, 0.0),
        r"computed from drawn values .*and from values that are not",
    ),
    "a large product": (lambda: normal((4096, 4096)) @ normal((4096, 4096)), r"multiplies drawn matrices"),
    "a mask of the weights": (
        lambda: jnp.where(jnp.isnan(normal((9,))), 1.0, jnp.linalg.inv(normal((3, 3))).ravel()),
        r"applies lu to drawn values",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_no_recipe_describes_is_refused_with_its_line(name):
    init, reason = REFUSALS[name]
    with pytest.raises(seedbed.InvalidRequest, match=reason) as caught:
        record(lambda: {"block": [{"w": init()}]})
    assert caught.value.field == "block.0.w"
    match = re.search(r"\(([^()]*):(\d+)\)", caught.value.description)
    assert match, caught.value.description
    lines, first = inspect.getsourcelines(init)
    assert match[1] == __file__
    assert first <= int(match[2]) < first + len(lines) or int(match[2]) == at(normal) + 1


def test_statistics_of_a_batch_are_refused_where_init_computes_them():
    def net(x):
        return hk.BatchNorm(True, True, 0.9)(hk.Conv2D(8, 3)(x), is_training=True)

    init = hk.transform_with_state(net).init
    with pytest.raises(seedbed.InvalidRequest, match="applies conv_general_dilated to drawn values") as caught:
        record(init, a_key(), jnp.ones((1, 4, 4, 3)))
    assert caught.value.field == "1.batch_norm/~/mean_ema.average"
    params = specs(lambda: init(a_key(), jnp.ones((1, 4, 4, 3)))[0])
    assert params["conv2_d.w"].WhichOneof("scheme") == "trunc_normal"


def test_what_depends_on_an_input_without_values_is_refused():
    def init(x):
        return {"scale": x.std() * jnp.ones(3), "w": normal((3,))}

    with pytest.raises(seedbed.InvalidRequest, match=r"depends on the values of an argument.*give the array") as caught:
        record(init, X)
    assert caught.value.field == "scale"
    assert specs(init, jnp.array([1.0, 3.0]))["scale"].WhichOneof("scheme") == "ones"


def test_bad_arguments_are_refused():
    with pytest.raises(seedbed.InvalidRequest, match=r"seed: "):
        seedbed.jax.record(lambda: jnp.ones(3), seed=-1)
    with pytest.raises(seedbed.InvalidRequest, match=r"init: is a dict; give a function, such as model.init"):
        seedbed.jax.record({})
    with pytest.raises(seedbed.InvalidRequest, match=r"a.b: names two leaves"):
        record(lambda: {"a": {"b": jnp.ones(3)}, "a.b": normal((3,))})


# Sharded.


def mesh_of(*sizes):
    return Mesh(np.array(jax.devices()).reshape(sizes), ("a", "b"))


def sharded(tree, mesh, axes):
    """A sharding for each leaf, over the last axes that it divides."""

    def sharding(leaf):
        shape = tuple(getattr(leaf, "shape", ()))
        names = [None] * len(shape)
        for name in axes:
            for axis in range(len(shape))[::-1]:
                if names[axis] is None and shape[axis] % mesh.shape[name] == 0:
                    names[axis] = name
                    break
        return NamedSharding(mesh, PartitionSpec(*names))

    return jax.tree.map(sharding, tree)


def digest(tree):
    hashed = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        hashed.update(plain(leaf).tobytes())
    return hashed.hexdigest()


class Counted:
    """A client that counts the bytes of its requests."""

    def __init__(self, client):
        self._client = client
        self.target = client.target
        self.requested = 0

    def init_model(self, parts, **arguments):
        for _, values in self._client.init_model(parts, **arguments):
            self.requested += values.nbytes
            yield _, values


LAYOUTS = {"2 x 4": ((2, 4), "ab"), "4 x 2": ((4, 2), "ba"), "all in a row": ((8, 1), "a"), "replicated": ((8, 1), "")}


def test_a_sharded_model_is_the_same_for_every_layout(local, device, tmp_path):
    """Orbax also writes it in one layout, and reads it in another."""
    recorded = record(MODELS["linen LM1B, scanned"])
    whole = digest(seedbed.jax.init_tree(local, recorded.specs, device))
    trees = {}
    for name, (sizes, axes) in LAYOUTS.items():
        client = Counted(local)
        shardings = sharded(recorded.specs, mesh_of(*sizes), axes)
        tree = trees[name] = seedbed.jax.init_tree(client, recorded.specs, shardings)
        assert digest(tree) == whole
        leaves = jax.tree.leaves(tree)
        assert jax.tree.leaves(shardings) == [leaf.sharding for leaf in leaves]
        shards = [{str(shard.index): shard.data.nbytes for shard in leaf.addressable_shards} for leaf in leaves]
        assert client.requested == sum(sum(parts.values()) for parts in shards) == sum(leaf.nbytes for leaf in leaves)
    kernel = trees["2 x 4"]["params"]["ScanCheckpointDecoderBlock_0"]["Dense_0"]["kernel"]
    assert kernel.addressable_data(0).shape == (3, 8, 64)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "seed", trees["2 x 4"])
        checkpointer.wait_until_finished()
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), trees["all in a row"]
        )
        restored = checkpointer.restore(tmp_path / "seed", like)
    assert digest(restored) == whole
    assert [a.sharding for a in jax.tree.leaves(restored)] == [a.sharding for a in jax.tree.leaves(like)]


def test_16_bit_and_stateful_trees_are_sharded_too(local, device):
    for name in ("linen 16 bits", "nnx Gemma", "equinox encoder"):
        recorded = record(MODELS[name])
        shardings = sharded(recorded.specs, mesh_of(2, 4), "ab")
        tree = seedbed.jax.init_tree(local, recorded.specs, shardings)
        arrays = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
        whole = [
            leaf
            for leaf in jax.tree.leaves(seedbed.jax.init_tree(local, recorded.specs, device))
            if isinstance(leaf, jax.Array)
        ]
        assert digest(arrays) == digest(whole)
        assert all(len(leaf.sharding.device_set) == 8 for leaf in arrays)


def test_an_init_that_shards_its_results_is_recorded_all_the_same():
    mesh = jax.make_mesh((2, 4), ("a", "b"), axis_types=(AxisType.Explicit,) * 2)
    blocks = PartitionSpec("a", "b")

    def init():
        one, other = jax.lax.optimization_barrier((jnp.ones(8), jnp.zeros((1 << 16, 1 << 18))))
        return {
            "drawn": 2 * jax.random.normal(a_key(), (8, 8), out_sharding=blocks),
            "initializer": initializers.normal(0.5)(jax.random.key(4), (8, 8), jnp.float32, out_sharding=blocks),
            "resharded": jax.sharding.reshard(normal((8, 4)), blocks),
            "put": jax.device_put(normal((4, 8)), NamedSharding(mesh, blocks)),
            "one": one,
            "other": other,
        }

    with jax.set_mesh(mesh):
        made = specs(init)
    assert [made[name].normal.std for name in ("drawn", "initializer", "resharded", "put")] == [2, 0.5, 1, 1]
    assert [made[name].WhichOneof("scheme") for name in ("one", "other")] == ["ones", "zeros"]


def test_the_shardings_that_a_flax_model_is_annotated_with(local):
    mesh = mesh_of(2, 4)
    linen_specs = record(MODELS["linen partitioned"]).specs
    rules = {"embed": "a", "mlp": "b"}
    logical = linen.logical_to_mesh_sharding(linen.get_partition_spec(linen_specs), mesh, list(rules.items()))
    params = seedbed.jax.init_tree(local, linen_specs, logical)["params"]["Dense_0"]
    assert isinstance(params["kernel"], linen.LogicallyPartitioned)
    assert params["kernel"].value.sharding.spec == PartitionSpec("a", "b")

    def make():
        kernel = nnx.with_partitioning(nnx.initializers.lecun_normal(), ("a", "b"))
        return nnx.split(nnx.Linear(8, 16, kernel_init=kernel, rngs=nnx.Rngs(0)))[1]

    with jax.set_mesh(mesh):
        nnx_specs = record(make).specs
    state = seedbed.jax.init_tree(local, nnx_specs, nnx.get_named_sharding(nnx_specs, mesh))
    assert state["kernel"].get_value().sharding.spec == PartitionSpec("a", "b")
