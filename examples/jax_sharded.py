"""Trains a model whose weights are never in one place: each of 8 devices gets only its own shards.

    python examples/jax_sharded.py [TARGET]

The devices are 8 parts of this machine's CPU. For 8 GPUs or TPUs, in one process or in several, only change the two
lines that configure them. TARGET is a server such as localhost:50051; by default it is local:, which samples within
this process. It needs ``pip install 'seedbed[jax,server]'``.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import seedbed
import seedbed.jax

SHAPES = {
    "up": {"kernel": (256, 1024), "bias": (1024,)},
    "down": {"kernel": (1024, 256), "bias": (256,)},
}
PARTITIONS = {
    "up": {"kernel": PartitionSpec("data", "model"), "bias": PartitionSpec("model")},
    "down": {"kernel": PartitionSpec("model", "data"), "bias": PartitionSpec()},
}


def to_spec(path, shape):
    """The spec of a parameter, named by its place in the tree, such as up.kernel."""
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    if len(shape) == 1:
        return seedbed.spec("zeros", shape, name=name)
    he_normal = {"scale": 2.0, "mode": "fan_in", "distribution": "truncated_normal"}
    return seedbed.spec("variance_scaling", shape, **he_normal, seed=7, name=name)


def loss(params, x, y):
    """The mean squared error of a residual block."""
    hidden = jax.nn.relu(x @ params["up"]["kernel"] + params["up"]["bias"])
    return jnp.mean((x + hidden @ params["down"]["kernel"] + params["down"]["bias"] - y) ** 2)


@jax.jit
def step(params, x, y):
    """One step of gradient descent."""
    value, gradients = jax.value_and_grad(loss)(params, x, y)
    return value, jax.tree.map(lambda weight, gradient: weight - gradient, params, gradients)


def main():
    """Requests the shards, checks them, and trains."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "model"))

    specs = jax.tree_util.tree_map_with_path(to_spec, SHAPES, is_leaf=lambda leaf: isinstance(leaf, tuple))
    shardings = jax.tree.map(lambda partition: NamedSharding(mesh, partition), PARTITIONS)
    with seedbed.connect(sys.argv[1] if len(sys.argv) > 1 else "local:") as client:
        params = seedbed.jax.init_tree(client, specs, shardings)
        whole = client.init(specs["up"]["kernel"])

    kernel = params["up"]["kernel"]
    print(f"up.kernel: {kernel.shape}, on {len(kernel.devices())} devices, {kernel.addressable_data(0).shape} on each")
    assert all((shard.data == whole[shard.index]).all() for shard in kernel.addressable_shards)
    print("every shard is that part of the whole, bit for bit")

    x = jax.device_put(jax.random.normal(jax.random.key(0), (64, 256)), NamedSharding(mesh, PartitionSpec("data")))
    y = jnp.tanh(x[:, ::-1])
    for number in range(30):
        value, params = step(params, x, y)
        if number % 10 == 0:
            print(f"step {number:2}: loss {value:.4f}")
    print(f"step {number:2}: loss {value:.4f}")


if __name__ == "__main__":
    main()
