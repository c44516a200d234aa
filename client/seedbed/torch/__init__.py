"""PyTorch: records a model's own initialisers, and fills its parameters wherever they are.

    model = seedbed.torch.record(lambda: Transformer(config), seed=7)  # once, anywhere; no memory, no rules to write

    module = seedbed.torch.on_meta(lambda: Transformer(config))  # on each rank
    fully_shard(module)
    with seedbed.connect("localhost:50051") as client:
        seedbed.torch.init_module(module, client, model=model)
        seedbed.torch.verify_module(module, client, model=model)  # proves it, at any time

Each rank requests only its own shards. The full weights are the same bits whatever the sharding, and no rank ever holds
more of them than its shards.
"""

from seedbed.torch._module import Rule, init_module
from seedbed.torch._record import build, on_meta, record
from seedbed.torch._verify import verify_module

__all__ = ["Rule", "build", "init_module", "on_meta", "record", "verify_module"]
