"""DeepSpeed: each rank fills its partition of what ZeRO-3 cuts, and the whole is the same for every number of ranks."""

import os
from types import SimpleNamespace

import _ranks
import _trainers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import seedbed
import seedbed.torch
from seedbed.torch import _zero

slow = pytest.mark.slow
RULES = [("*", "uniform", {})]
RANKS = 2


def see():
    """What one of several ranks sees."""
    _trainers.join_as_from_torchrun()
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed
    import deepspeed_zero3

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # which it would compile, for a minute
    deepspeed.init_distributed("gloo")
    with _trainers.counted() as asked:
        module = deepspeed_zero3.filled("local:")
    seen = {
        "asked": sum(asked),
        "held": [(p.ds_numel, p.ds_tensor.numel()) for p in module.parameters()],
        "digest": deepspeed_zero3.digest(module),
        "refused": [],
    }
    model = seedbed.torch.record(deepspeed_zero3.build, seed=7)
    with seedbed.connect("local:") as client:
        seedbed.torch.verify_module(module, client, model=model)
        with deepspeed.zero.GatheredParameters(list(module.parameters())):
            seen["gathered"] = refusal(module, client, model=model)
        seen["losses"] = deepspeed_zero3.train(module)
        seen["given away"] = refusal(module, client, model=model)
        seen["trained"] = difference(module, client, model)
        seen["by rules"] = by_rules(client, deepspeed)
    return seen


def refusal(module, client, **what):
    with pytest.raises(seedbed.InvalidRequest) as error:
        seedbed.torch.init_module(module, client, **what)
    return str(error.value)


def difference(module, client, model):
    with pytest.raises(seedbed.Mismatch) as error:
        seedbed.torch.verify_module(module, client, model=model)
    return str(error.value)


def by_rules(client, deepspeed):
    """What rules make of parameters that are smaller than there are ranks, or cut within rows of rows."""
    config = {"train_batch_size": RANKS, "zero_optimization": {"stage": 3}, "bf16": {"enabled": True}}
    with deepspeed.zero.Init(config_dict_or_path=config):
        module = Small()
    seedbed.torch.init_module(module, client, seed=5, rules=RULES)
    with deepspeed.zero.GatheredParameters(list(module.parameters())):
        return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.many = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(3, 5, 7))


@pytest.fixture(scope="module")
def seen():
    return _ranks.run(RANKS, see)


@slow
def test_the_whole_is_the_same_as_in_one_process(seen):
    assert {rank["digest"] for rank in seen} == {_trainers.alone()}


@slow
def test_a_rank_asks_for_its_partition_alone(seen):
    """Which has padding, that nobody asks for, on the last rank."""
    sizes = [size for size, _ in seen[0]["held"]]
    assert sum(rank["asked"] for rank in seen) == 4 * sum(sizes)
    for rank in seen:
        partitions = [length for _, length in rank["held"]]
        assert partitions == [-(-size // RANKS) for size in sizes]
        assert 0 <= 4 * sum(partitions) - rank["asked"] <= 4 * RANKS * len(partitions)


@slow
def test_it_trains(seen):
    for rank in seen:
        assert rank["losses"] == seen[0]["losses"]
    assert seen[0]["losses"][-1] < 0.1
    for number, rank in enumerate(seen):
        assert rank["trained"].endswith(f"on rank {number}")


@slow
def test_rules_and_small_parameters_of_bfloat16(seen):
    module = Small().bfloat16()
    with seedbed.connect("local:") as client:
        seedbed.torch.init_module(module, client, seed=5, rules=RULES)
    for rank in seen:
        for name, parameter in module.named_parameters():
            assert torch.equal(rank["by rules"][name], parameter), name


@slow
def test_what_would_be_lost_is_refused(seen):
    for rank in seen:
        assert "is gathered; fill the module outside of deepspeed.zero.GatheredParameters" in rank["gathered"]
        assert "fill the module before deepspeed.initialize" in rank["given away"]


@given(st.lists(st.integers(1, 5), max_size=4), st.data())
def test_boxes_are_the_elements_in_their_order(shape, data):
    size = torch.Size(shape).numel()
    first = data.draw(st.integers(0, size))
    last = data.draw(st.integers(first, size))
    whole = torch.arange(size).view(shape)
    boxes = list(_zero.boxes(tuple(shape), first, last))
    pieces = [whole[tuple(slice(*run) for run in box)].reshape(-1) for box in boxes]
    assert torch.cat([torch.arange(0), *pieces]).tolist() == list(range(first, last))
    assert len(boxes) <= max(1, 2 * len(shape) - 1)


@pytest.mark.parametrize(
    ("held", "second"),
    [(torch.zeros(1), None), (torch.zeros(3, dtype=torch.int8), None), (torch.zeros(3), torch.zeros(5))],
    ids=["on NVMe", "quantised", "twice"],
)
def test_a_partition_that_is_held_otherwise_is_refused(held, second, monkeypatch):
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group: 2)
    module = nn.Linear(5, 1, bias=False)
    vars(module.weight).update(
        ds_tensor=held,
        ds_secondary_tensor=second,
        ds_shape=(1, 5),
        ds_numel=5,
        ds_process_group=None,
        ds_status=SimpleNamespace(name="NOT_AVAILABLE"),
    )
    with (
        seedbed.connect("local:") as client,
        pytest.raises(seedbed.InvalidRequest, match="weight: is partitioned by DeepSpeed into other than equal parts"),
    ):
        seedbed.torch.init_module(module, client, rules=RULES)
