"""JAX: records a model's own init function, and fills arrays; each process requests only its own devices' shards.

>>> import jax, seedbed.jax
>>> mesh = jax.make_mesh((jax.device_count(),), ("data",))
>>> rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
>>> spec = seedbed.spec("normal", (8 * jax.device_count(), 4), std=0.02, name="wte")
>>> with seedbed.connect("local:") as client:
...     wte = seedbed.jax.init_array(client, spec, rows)
>>> wte.sharding == rows
True

`record` derives the specs of a whole model from its init function, whether Flax's, Equinox's, Haiku's or your own;
`init_tree` makes their arrays, sharded in any way.

It needs ``pip install 'seedbed[jax]'``.
"""

from seedbed.jax._arrays import init_array, init_tree, initializer
from seedbed.jax._record import Recorded, record

__all__ = ["Recorded", "init_array", "init_tree", "initializer", "record"]
