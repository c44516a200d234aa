"""What DeepSpeed would not go on with is refused: it keeps other copies of it. What it does: howto/trainers.md."""

import os
import re

import pytest
import torch
import torch.distributed as dist
from _helpers import ranks
from torch import nn

import seedbed
import seedbed.torch

pytestmark = pytest.mark.nightly

RULES = [("*", "ones", {})]


def make():
    return nn.Linear(400, 400, bias=False)  # more elements than DeepSpeed leaves gathered


def see():
    """What one of two ranks sees."""
    os.environ |= {"DS_ACCELERATOR": "cpu", "LOCAL_RANK": str(dist.get_rank())}
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # which it would compile, for a minute
    deepspeed.init_distributed("gloo")
    module, config = divided()
    with seedbed.connect("local:") as client:
        seen = {"second partition": complaint(client, divided(zero_hpz_partition_size=2)[0])}
        with deepspeed.zero.GatheredParameters(list(module.parameters())):
            seen["gathered"] = complaint(client, module)
        seedbed.torch.init_module(module, client, rules=RULES)
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
        engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config)
        seen["in use"] = complaint(client, module)
        seen["output"] = engine(torch.ones(1, 400)).unique().tolist()
    engine.destroy()
    return seen


def divided(**options):
    import deepspeed

    config = {"train_micro_batch_size_per_gpu": 1, "zero_force_ds_cpu_optimizer": False}
    config["zero_optimization"] = {"stage": 3, **options}
    with deepspeed.zero.Init(config_dict_or_path=config):
        return make(), config


def complaint(client, module):
    try:
        seedbed.torch.init_module(module, client, rules=RULES)
    except seedbed.InvalidRequest as error:
        return str(error)
    return "nothing"


def test_what_would_be_lost_is_refused():
    for seen in ranks.run(2, see):
        assert seen["output"] == [400]
        assert re.match("weight: is held by DeepSpeed .*twice, by zero_hpz_partition_size", seen["second partition"])
        assert re.match("weight: is not partitioned in memory by DeepSpeed", seen["gathered"])
        assert re.match("weight: has a copy in DeepSpeed's optimizer", seen["in use"])
