"""Accelerate: a model that is built without memory, filled and prepared holds the same weights however it is prepared.

Accelerate shards on GPUs alone. What it does there is tried by telling it that it is where it shards.
"""

import _ranks
import _trainers
import pytest
import torch
from torch import nn

import seedbed
import seedbed.torch

slow = pytest.mark.slow


def see():
    """What one of two ranks sees."""
    _trainers.join_as_from_torchrun()
    import accelerate_fsdp2

    accelerator = accelerate_fsdp2.accelerator()
    seen = {"ddp": fit(accelerator)}
    pretend_to_shard(accelerator)
    return seen | {"fsdp2": fit(accelerator), "unsharded": unsharded(accelerator)}


def pretend_to_shard(accelerator):
    from accelerate import FullyShardedDataParallelPlugin, PartialState
    from accelerate.utils import DistributedType

    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="NO_WRAP", cpu_ram_efficient_loading=False)
    PartialState().distributed_type = accelerator.state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = plugin
    assert accelerator.is_fsdp2


def fit(accelerator):
    import accelerate_fsdp2

    with _trainers.counted() as asked:
        module, optimizer = accelerate_fsdp2.prepared(accelerator, "local:")
    return {
        "kind": str(accelerator.distributed_type),
        "asked": sum(asked),
        "held": _trainers.local_bytes(module),
        "digest": accelerate_fsdp2.digest(module),
        "losses": accelerate_fsdp2.train(accelerator, module, optimizer),
    }


def unsharded(accelerator):
    """How many parameters the optimizer has of a model without memory that prepare shards, of how many."""
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).to("meta")
    module, optimizer = accelerator.prepare(module, torch.optim.SGD(module.parameters()))
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return len(known & set(map(id, module.parameters()))), len(list(module.parameters()))


@pytest.fixture(scope="module")
def seen():
    return _ranks.run(2, see)


@slow
@pytest.mark.parametrize(("how", "kind"), [("ddp", "DistributedType.MULTI_CPU"), ("fsdp2", "DistributedType.FSDP")])
def test_however_prepared_it_has_the_same_weights(seen, how, kind):
    assert {rank[how]["kind"] for rank in seen} == {kind}
    assert {rank[how]["digest"] for rank in seen} == {_trainers.alone()}
    for rank in seen:
        assert rank[how]["losses"] == pytest.approx(seen[0]["ddp"]["losses"], rel=1e-3)
        assert rank[how]["losses"][-1] < 0.1


@slow
def test_a_rank_asks_for_its_shards_alone(seen):
    for rank in seen:
        assert rank["fsdp2"]["asked"] == rank["fsdp2"]["held"] < rank["ddp"]["asked"]
    assert sum(rank["fsdp2"]["asked"] for rank in seen) == seen[0]["ddp"]["asked"]


@slow
def test_prepare_loses_an_optimizers_parameters_that_have_no_memory(seen):
    """Why the example shards by itself: should this fail, prepare can do so."""
    for known, number in [rank["unsharded"] for rank in seen]:
        assert known < number


def test_init_empty_weights_unties():
    """Which is told, and on_meta does not do."""
    from accelerate import init_empty_weights

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
            self.head.weight = self.embedding.weight

    model = seedbed.torch.record(Tied, seed=7)
    with init_empty_weights():
        untied = Tied()
    with seedbed.connect("local:") as client:
        with pytest.raises(seedbed.InvalidRequest, match=r"lacks parameters of the module: head\.weight"):
            seedbed.torch.init_module(untied, client, model=model)
        tied = seedbed.torch.on_meta(Tied)
        seedbed.torch.init_module(tied, client, model=model)
    assert tied.head.weight is tied.embedding.weight
