"""Models as users write them, each as a function that makes its parameters."""

import functools

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx


def a_key():
    """Not made on import: other tests may still have to set the number of devices."""
    return jax.random.key(3)


def image(size=16, channels=1):
    return jnp.ones((1, size, size, channels))


# Flax, linen.


class CNN(linen.Module):
    """Of Flax's MNIST example."""

    @linen.compact
    def __call__(self, x):
        x = linen.Conv(features=32, kernel_size=(3, 3))(x)
        x = linen.avg_pool(linen.relu(x), window_shape=(2, 2), strides=(2, 2))
        x = linen.Conv(features=64, kernel_size=(3, 3))(x)
        x = linen.avg_pool(linen.relu(x), window_shape=(2, 2), strides=(2, 2))
        x = linen.relu(linen.Dense(features=64)(x.reshape((x.shape[0], -1))))
        return linen.Dense(features=10)(x)


def sinusoidal_init(max_len, max_scale=10000.0):
    """As in Flax's LM1B example, by NumPy."""

    def init(key, shape, dtype=np.float32):
        del key, dtype
        width = shape[-1]
        table = np.zeros((max_len, width), dtype=np.float32)
        position = np.arange(0, max_len)[:, np.newaxis]
        factor = -np.log(max_scale) / (width // 2 - 1)
        div = np.exp(np.arange(0, width // 2) * factor)
        table[:, : width // 2] = np.sin(position * div)
        table[:, width // 2 : 2 * (width // 2)] = np.cos(position * div)
        return jnp.array(table[np.newaxis])

    return init


class AddPositions(linen.Module):
    learned: bool = True

    @linen.compact
    def __call__(self, x):
        table = self.param("pos_embedding", sinusoidal_init(32), (1, 32, x.shape[-1]))
        return x + table[:, : x.shape[1]]


class DecoderBlock(linen.Module):
    width: int = 32

    @linen.compact
    def __call__(self, x, _=None):
        kernel, bias = linen.initializers.xavier_uniform(), linen.initializers.normal(stddev=1e-6)
        h = linen.LayerNorm()(x)
        h = linen.MultiHeadDotProductAttention(
            num_heads=4, qkv_features=self.width, kernel_init=kernel, bias_init=bias, use_bias=False, dropout_rate=0.1
        )(h, deterministic=True)
        x = x + h
        h = linen.LayerNorm()(x)
        h = linen.relu(linen.Dense(4 * self.width, kernel_init=kernel, bias_init=bias)(h))
        h = linen.Dropout(0.1)(h, deterministic=True)
        return x + linen.Dense(self.width, kernel_init=kernel, bias_init=bias)(h), None


class LanguageModel(linen.Module):
    """Flax's LM1B: token embeddings of std 1, shared with the logits; sinusoidal positions."""

    scanned: bool = False

    @linen.compact
    def __call__(self, tokens):
        embed = linen.Embed(97, 32, embedding_init=linen.initializers.normal(stddev=1.0))
        x = AddPositions()(embed(tokens))
        if self.scanned:
            stack = linen.scan(
                linen.remat(DecoderBlock),
                variable_axes={"params": 0},
                split_rngs={"params": True, "dropout": True},
                length=3,
                metadata_params={linen.PARTITION_NAME: None},
            )
            x, _ = stack()(x, None)
        else:
            for _ in range(2):
                x, _ = DecoderBlock()(x)
        return embed.attend(linen.LayerNorm()(x)) / np.sqrt(32)


class Recurrent(linen.Module):
    cell: type = linen.OptimizedLSTMCell

    @linen.compact
    def __call__(self, x):
        return linen.RNN(self.cell(24))(x)


class Residual(linen.Module):
    """A block of Flax's ImageNet example: the last scale starts at zero; with running statistics."""

    @linen.compact
    def __call__(self, x):
        norm = functools.partial(linen.BatchNorm, use_running_average=False)
        y = linen.relu(norm()(linen.Conv(16, (3, 3), use_bias=False)(x)))
        y = norm(scale_init=linen.initializers.zeros_init())(linen.Conv(16, (3, 3), use_bias=False)(y))
        return linen.relu(linen.Conv(16, (1, 1), use_bias=False, name="proj")(x) + y)


class Bfloat16(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.Dense(64, param_dtype=jnp.bfloat16)(x)
        return linen.DenseGeneral((4, 16), param_dtype=jnp.float16, bias_init=linen.initializers.uniform(0.3))(x)


class Partitioned(linen.Module):
    @linen.compact
    def __call__(self, x):
        kernel = linen.with_logical_partitioning(linen.initializers.he_normal(), ("embed", "mlp"))
        return linen.Dense(64, kernel_init=kernel)(x)


# Flax, nnx.


class Block(nnx.Module):
    def __init__(self, width, rngs):
        self.norm = nnx.RMSNorm(width, scale_init=nnx.initializers.zeros_init(), rngs=rngs)
        self.attention = nnx.MultiHeadAttention(4, width, decode=False, dropout_rate=0.1, rngs=rngs)
        normal = nnx.initializers.normal()
        self.gate = nnx.Param(normal(rngs.params(), (2, width, 4 * width)))
        self.down = nnx.Linear(4 * width, width, use_bias=False, kernel_init=normal, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)


class Gemma(nnx.Module):
    """Gemma as in Flax's example: scales of zero, fused gates, embeddings of std 0.01."""

    def __init__(self, rngs):
        self.embedding = nnx.Param(nnx.initializers.normal()(rngs.params(), (97, 32)))
        self.layers = nnx.List([Block(32, rngs) for _ in range(2)])
        self.final = nnx.RMSNorm(32, rngs=rngs)


class Stacked(nnx.Module):
    """Layers made by nnx.vmap over split streams, for nnx.scan."""

    def __init__(self, rngs):
        @nnx.split_rngs(splits=3)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def make(rngs):
            return nnx.Linear(20, 30, bias_init=nnx.initializers.normal(0.02), rngs=rngs)

        self.layers = make(rngs)
        self.head = nnx.LoRALinear(30, 5, lora_rank=2, rngs=rngs)


class ConvNet(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 16, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.cell = nnx.OptimizedLSTMCell(8, 16, rngs=rngs)
        self.gru = nnx.GRUCell(8, 16, rngs=rngs)
        self.steps = nnx.BatchStat(jnp.array(5))


def nnx_state(model):
    return lambda: nnx.split(model(rngs=nnx.Rngs(0)))[1]


# Equinox.


class Encoder(eqx.Module):
    table: eqx.nn.Embedding
    attention: eqx.nn.MultiheadAttention
    layers: eqx.nn.MLP
    norm: eqx.nn.LayerNorm
    dropout: eqx.nn.Dropout
    scale: jax.Array
    conv: eqx.nn.Conv2d
    cells: list

    def __init__(self, key):
        keys = jax.random.split(key, 6)
        self.table = eqx.nn.Embedding(50, 32, key=keys[0])
        self.attention = eqx.nn.MultiheadAttention(4, 32, key=keys[1])
        self.layers = eqx.filter_vmap(lambda k: eqx.nn.MLP(32, 32, 64, 1, key=k))(jax.random.split(keys[2], 3))
        self.norm = eqx.nn.LayerNorm(32)
        self.dropout = eqx.nn.Dropout(0.1)
        self.scale = 0.1 * jnp.abs(jax.random.normal(keys[3], (300,)))
        self.conv = eqx.nn.Conv2d(3, 16, 3, key=keys[4])
        self.cells = [eqx.nn.LSTMCell(8, 16, key=keys[5]), eqx.nn.GRUCell(8, 16, key=keys[5])]


def equinox_with_state():
    class Net(eqx.Module):
        norm: eqx.nn.BatchNorm
        weight: eqx.nn.WeightNorm

        def __init__(self):
            self.norm = eqx.nn.BatchNorm(16, "batch", mode="ema")
            self.weight = eqx.nn.WeightNorm(eqx.nn.Linear(20, 30, key=a_key()))

    return eqx.nn.make_with_state(Net)()


# Haiku.


def haiku_lstm(x):
    core = hk.LSTM(16)
    return hk.dynamic_unroll(core, x, core.initial_state(1))[0]


def haiku_transformer(x):
    init = hk.initializers.VarianceScaling(2 / 3)
    table = hk.get_parameter("positions", [8, 32], init=hk.initializers.TruncatedNormal(0.02))
    x = hk.Embed(50, 32, w_init=hk.initializers.TruncatedNormal(stddev=0.02))(x) + table

    def block(x):
        h = hk.MultiHeadAttention(4, 8, w_init=init)(*[hk.LayerNorm(-1, True, True)(x)] * 3)
        return x + h + hk.Linear(32, w_init=init)(jax.nn.gelu(hk.Linear(64, w_init=init)(x)))

    return hk.experimental.layer_stack(3)(block)(x)


def haiku_mixed(x):
    x = hk.Linear(24, w_init=hk.initializers.Orthogonal(scale=2.0), b_init=hk.initializers.RandomNormal(0.1, 1.0))(x)
    x = hk.Linear(24, w_init=hk.initializers.UniformScaling(0.5))(x)
    x = hk.Conv2D(8, 3, w_init=hk.initializers.RandomUniform(-0.1, 0.3))(x.reshape(1, 4, 6, -1))
    return hk.BatchNorm(True, True, 0.9)(x, is_training=True)


def haiku_resnet50(x):
    return hk.nets.ResNet50(1000)(x, is_training=True)


MODELS = {
    "linen CNN": lambda: CNN().init(a_key(), image()),
    "linen LM1B": lambda: LanguageModel().init(a_key(), jnp.zeros((1, 8), jnp.int32)),
    "linen LM1B, scanned": lambda: LanguageModel(scanned=True).init(a_key(), jnp.zeros((1, 8), jnp.int32)),
    "linen LSTM": lambda: Recurrent().init(jax.random.PRNGKey(3), jnp.ones((1, 5, 16))),
    "linen GRU": lambda: Recurrent(linen.GRUCell).init(a_key(), jnp.ones((1, 5, 16))),
    "linen residual block": lambda: Residual().init(a_key(), image(8, 3)),
    "linen 16 bits": lambda: Bfloat16().init(jax.random.key(3, impl="rbg"), jnp.ones((1, 32))),
    "linen partitioned": lambda: Partitioned().init(a_key(), jnp.ones((1, 32))),
    "nnx Gemma": nnx_state(Gemma),
    "nnx stack": nnx_state(Stacked),
    "nnx conv and cells": nnx_state(ConvNet),
    "equinox encoder": lambda: Encoder(a_key()),
    "equinox with state": equinox_with_state,
    "haiku LSTM": lambda: hk.transform(haiku_lstm).init(a_key(), jnp.ones((5, 1, 8))),
    "haiku transformer": lambda: hk.transform(haiku_transformer).init(a_key(), jnp.zeros((1, 8), jnp.int32)),
    "haiku initializers": lambda: hk.transform_with_state(haiku_mixed).init(a_key(), jnp.ones((1, 12)))[0],
}

RESNET50 = lambda: hk.transform_with_state(haiku_resnet50).init(a_key(), image(32, 3))[0]  # noqa: E731 - as the others
