"""Parameters that DeepSpeed's ZeRO-3 divides: each rank fills its own run. With DeepSpeed itself: howto/trainers.md."""

import enum
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import seedbed
import seedbed.torch
from seedbed.torch._shards import _boxes_of_run

Status = enum.Enum("Status", ["AVAILABLE", "NOT_AVAILABLE", "INFLIGHT"])


@given(st.lists(st.integers(0, 5), max_size=4), st.data())
def test_a_run_of_elements_is_a_few_boxes(shape, data):
    size = math.prod(shape)
    start = data.draw(st.integers(0, size))
    stop = data.draw(st.integers(start, size))
    boxes = list(_boxes_of_run(tuple(shape), start, stop))
    numbers = np.arange(size).reshape(shape)
    found = [numbers[tuple(slice(*run) for run in box)].ravel() for box in boxes]
    assert np.concatenate([np.arange(0), *found]).tolist() == list(range(start, stop))
    assert all(part.size for part in found)
    assert len(boxes) <= max(1, 2 * len(shape) - 1)


def divided(module, rank, ranks):
    """The module as one rank has it after ``deepspeed.zero.Init``."""
    for parameter in module.parameters():
        parameter.ds_shape, parameter.ds_numel = parameter.shape, parameter.numel()
        each = -(-parameter.numel() // ranks)
        parameter.ds_tensor = torch.full((each,), torch.nan)
        parameter.ds_tensor.ds_numel = each
        parameter.ds_tensor.status = Status.AVAILABLE
        parameter.ds_status = Status.NOT_AVAILABLE
        parameter.ds_process_group = SimpleNamespace(rank=lambda: rank)
        parameter.data = torch.empty(0)
    return module


@pytest.fixture(autouse=True)
def ranks_of_fakes(monkeypatch):
    monkeypatch.setattr(torch.distributed, "get_rank", lambda group=None: group.rank() if group else 0)


def make():
    return nn.Sequential(nn.Linear(7, 5), nn.Conv1d(3, 2, 5), nn.Linear(1, 1, bias=False))


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("how", ["model", "rules"])
def test_the_runs_of_all_ranks_are_the_tensors(ranks, how):
    options = (
        {"model": seedbed.torch.record(make, seed=7)}
        if how == "model"
        else {"rules": [("*", "xavier_normal", {})], "only": "*weight", "seed": 7}
    )
    with seedbed.connect("local:") as client:
        whole = make()
        seedbed.torch.init_module(whole, client, **options)
        parts = [divided(make(), rank, ranks) for rank in range(ranks)]
        for part in parts:
            seedbed.torch.init_module(part, client, **options)
            seedbed.torch.verify_module(part, client, **options)
    for name, parameter in whole.named_parameters():
        if how == "rules" and not name.endswith("weight"):
            continue
        runs = [dict(part.named_parameters())[name].ds_tensor for part in parts]
        assert torch.equal(torch.cat(runs)[: parameter.numel()].view(parameter.shape), parameter), name


def test_a_difference_is_reported_at_its_place():
    model = seedbed.torch.record(make, seed=7)
    part = divided(make(), 1, 2)
    with seedbed.connect("local:") as client:
        seedbed.torch.init_module(part, client, model=model)
        part[0].weight.ds_tensor[3] = 8  # the second of two ranks begins with element 18, (2, 4)
        with pytest.raises(seedbed.Mismatch, match=r"0\.weight: element \(3, 0\) is 8\.0 in the module"):
            seedbed.torch.verify_module(part, client, model=model)


@pytest.mark.parametrize(("where", "status"), [("ds_status", "AVAILABLE"), ("ds_tensor", "NOT_AVAILABLE")])
def test_what_is_gathered_or_elsewhere_is_refused(where, status):
    part = divided(make(), 0, 2)
    weight = part[0].weight
    if where == "ds_status":
        weight.ds_status = Status[status]
    else:
        weight.ds_tensor.status = Status[status]
    with (
        seedbed.connect("local:") as client,
        pytest.raises(seedbed.InvalidRequest, match=r"0\.weight: .*between deepspeed\.zero\.Init and deepspeed"),
    ):
        seedbed.torch.init_module(part, client, model=seedbed.torch.record(make, seed=7))


@pytest.mark.parametrize(
    ("attribute", "value", "complaint"),
    [
        ("ds_secondary_tensor", torch.zeros(9), "held by DeepSpeed quantised, or twice"),
        ("dtype", torch.int8, "held by DeepSpeed quantised, or twice"),
        ("_z3_optimizer", object(), "has a copy in DeepSpeed's optimizer"),
    ],
)
def test_what_would_be_lost_is_refused(attribute, value, complaint):
    """DeepSpeed keeps another copy than the one that is filled, and would continue with that."""
    part = divided(make(), 0, 2)
    if attribute == "dtype":
        status = part[0].weight.ds_tensor.status
        part[0].weight.ds_tensor = torch.zeros(18, dtype=value)
        part[0].weight.ds_tensor.status, part[0].weight.ds_tensor.ds_numel = status, 18
    else:
        setattr(part[0].weight, attribute, value)
    with seedbed.connect("local:") as client, pytest.raises(seedbed.InvalidRequest, match=rf"0\.weight: .*{complaint}"):
        seedbed.torch.init_module(part, client, model=seedbed.torch.record(make, seed=7))
    assert part[2].weight.ds_tensor.isnan().all()  # nothing was filled
