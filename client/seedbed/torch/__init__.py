"""PyTorch: a model's own initialisers are recorded, and its parameters filled wherever they are.

    model = seedbed.torch.record(lambda: Transformer(config), seed=7)  # once, anywhere; no memory, no rules to write

    module = seedbed.torch.on_meta(lambda: Transformer(config))  # on each rank
    fully_shard(module)
    with seedbed.connect("localhost:50051") as client:
        seedbed.torch.init_module(module, client, model=model)
        seedbed.torch.verify_module(module, client, model=model)  # proves it, whenever that is wanted

Each rank asks for its own shards alone. The full weights are the same bits whatever the sharding, and no rank ever
holds more of them than its part.
"""

from seedbed.torch._module import Rule, init_module
from seedbed.torch._record import build, on_meta, record
from seedbed.torch._verify import verify_module

__all__ = ["Rule", "build", "init_module", "on_meta", "record", "verify_module"]
