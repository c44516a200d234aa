"""Accelerate's FSDP2, which is for GPUs alone: a CPU is passed off as one. What is for CPUs: howto/trainers.md."""

import pytest
import torch
from _helpers import ranks
from torch import nn
from torch.distributed.fsdp import fully_shard

import seedbed
import seedbed.torch

pytestmark = pytest.mark.nightly


def make():
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))


def prepare():
    """What each rank does."""
    from accelerate import Accelerator, init_empty_weights
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    accelerator = Accelerator(cpu=True)
    for state in (AcceleratorState, PartialState):
        state._shared_state["distributed_type"] = DistributedType.FSDP
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="NO_WRAP", cpu_ram_efficient_loading=False
    )
    with init_empty_weights():
        module, empty = make(), make()
    fully_shard(module)
    received = []
    with seedbed.connect("local:") as client:
        model = seedbed.torch.record(make, seed=7)
        seedbed.torch.init_module(module, client, model=model, progress=lambda done, _: received.append(done))
    module, optimizer = accelerator.prepare(module, torch.optim.AdamW(module.parameters(), 0.01))
    known = trained(module, optimizer)
    lost = trained(*accelerator.prepare(empty, torch.optim.AdamW(empty.parameters(), 0.01)))
    weights = {name: tensor.full_tensor().clone() for name, tensor in module.state_dict().items()}
    shards = sum(parameter.to_local().nbytes for parameter in module.parameters())
    losses = []
    for _ in range(3):
        loss = module(torch.ones(4, 32)).square().mean()
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return weights, received[-1], shards, losses, known, lost


def trained(module, optimizer):
    """Which of a module's parameters the optimizer has."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return [id(parameter) in held for parameter in module.parameters()]


def test_fsdp2_begins_with_the_weights_of_one_process():
    with seedbed.connect("local:") as client:
        expected = seedbed.torch.build(make, client, seed=7).state_dict()
    for weights, received, shards, losses, known, lost in ranks.run(2, prepare):
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
        assert received == shards < sum(tensor.nbytes for tensor in expected.values())
        assert losses[2] < losses[0]
        assert all(known)
        assert not all(lost)  # what prepare shards without memory; should this fail, the page may leave sharding to it
