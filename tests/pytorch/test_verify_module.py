"""`seedbed.torch.verify_module` finds and names every difference."""

import re

import pytest
import torch
import torch.distributed as dist
from _helpers import ranks
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import seedbed
import seedbed.torch

NIGHTLY = pytest.mark.nightly  # processes that import torch


class Net(nn.Module):
    """A table over several chunks, tied ones, and buffers: drawn, of integers, and not in the model."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.embedding = nn.Embedding(1501, 400, padding_idx=2, dtype=dtype)
        self.head = nn.Linear(400, 1501, bias=False, dtype=dtype)
        self.head.weight = self.embedding.weight
        self.few = nn.Linear(400, 3, dtype=dtype)
        self.register_buffer("frequencies", torch.randn(16, dtype=dtype))
        self.register_buffer("order", torch.randperm(64))
        self.register_buffer("steps", torch.tensor(0))


@pytest.fixture(scope="module")
def client():
    with seedbed.connect("local:") as client:
        yield client


@pytest.fixture(scope="module")
def model():
    return seedbed.torch.record(Net, seed=3)


@pytest.fixture
def module(client, model):
    module = Net()
    seedbed.torch.init_module(module, client, model=model)
    return module


def mismatch(module, client, **arguments):
    with pytest.raises(seedbed.Mismatch) as failure:
        seedbed.torch.verify_module(module, client, **arguments)
    return str(failure.value)


def test_what_is_filled_is_verified(module, client, model):
    module.steps += 1  # which the model does not list
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert seedbed.torch.verify_module(module, client, model=model) is None
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_first_element_that_differs_is_named(module, client, model):
    with torch.no_grad():
        module.embedding.weight[1499, 7] = 0.5  # not in the first chunk
        module.embedding.weight[1500, 3:5] = 0.5
    message = mismatch(module, client, model=model)
    pattern = r"embedding\.weight: element \(1499, 7\) is 0\.5 in the module and -?\d\S+ in the model; 3 of 600,400 "
    assert re.fullmatch(pattern + "elements differ", message)


def test_one_bit_is_enough(module, client, model):
    with torch.no_grad():
        module.few.bias.view(torch.int32)[2] ^= 1
    assert mismatch(module, client, model=model).startswith("few.bias: element (2,) is ")


def test_signs_of_zeros_differ(module, client, model):
    with torch.no_grad():
        module.embedding.weight[2, 9] = -0.0
    assert "element (2, 9) is -0.0 in the module and 0.0 in the model" in mismatch(module, client, model=model)


def test_what_prints_alike_is_shown_by_its_bits():
    one = seedbed.torch._verify._compared
    nans = torch.tensor([0x7FC00000, 0x7FC00001], dtype=torch.int32).view(torch.float32).numpy()
    assert one(nans[:1], nans[1:]) == "nan (0x7fc00000) in the module and nan (0x7fc00001) in the model"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types(client, dtype):
    model = seedbed.torch.record(lambda: Net(dtype), seed=3)
    module = Net(dtype)
    seedbed.torch.init_module(module, client, model=model)
    seedbed.torch.verify_module(module, client, model=model)
    with torch.no_grad():
        module.few.weight[1, 398] = 1
    message = mismatch(module, client, model=model)
    assert message.startswith("few.weight: element (1, 398) is 1")
    assert message.endswith("; 1 of 1,200 elements differs")


@pytest.mark.parametrize(("name", "index"), [("frequencies", 5), ("order", 63)])
def test_buffers_of_the_model(module, client, model, name, index):
    module.get_buffer(name)[index] += 1
    assert mismatch(module, client, model=model).startswith(f"{name}: element ({index},) is ")


def test_memory_of_another_order(client):
    model = seedbed.torch.record(lambda: nn.Linear(20, 30), seed=3)
    module = nn.Linear(20, 30)
    seedbed.torch.init_module(module, client, model=model)
    module.weight = nn.Parameter(module.weight.detach().T.contiguous().T)
    assert not module.weight.is_contiguous()
    seedbed.torch.verify_module(module, client, model=model)
    with torch.no_grad():
        module.weight[4, 11] = 1
    assert mismatch(module, client, model=model).startswith("weight: element (4, 11) is 1.0")


def test_seeds_and_rules(client):
    rules = [("bias", "zeros", {}), ("*", "normal", {})]
    module = nn.Linear(5, 4)
    seedbed.torch.init_module(module, client, seed=7, rules=rules)
    seedbed.torch.verify_module(module, client, seed=7, rules=rules)
    assert mismatch(module, client, seed=8, rules=rules).startswith("weight: element (0, 0) is ")


def test_scalars_and_nothing(client):
    module = nn.ParameterDict({"one": torch.zeros(()), "none": torch.zeros(0, 3)})
    seedbed.torch.verify_module(module, client, rules=[("*", "zeros", {})])
    assert "one: element () is 0.0 in the module and 1.0 in the model" in mismatch(
        module, client, rules=[("*", "ones", {})]
    )


def test_what_has_no_values_is_refused(client, model):
    with pytest.raises(seedbed.InvalidRequest, match=r"embedding\.weight: is on the meta device.*init_module first"):
        seedbed.torch.verify_module(seedbed.torch.on_meta(Net), client, model=model)


def test_what_does_not_fit_is_refused(module, client, model):
    with pytest.raises(seedbed.InvalidRequest, match="give either a model or rules"):
        seedbed.torch.verify_module(module, client)
    with pytest.raises(seedbed.InvalidRequest, match="has dtype float64 in the module and float32 in the model"):
        seedbed.torch.verify_module(Net(torch.float64), client, model=model)


def see():
    """The error on one rank of two, once a shard of rank 1 is changed."""
    module = seedbed.torch.on_meta(Net)
    fully_shard(module, mesh=init_device_mesh("cpu", (2,)))
    model = seedbed.torch.record(Net, seed=3)
    with seedbed.connect("local:") as client:
        seedbed.torch.init_module(module, client, model=model)
        seedbed.torch.verify_module(module, client, model=model)
        if dist.get_rank() == 1:
            with torch.no_grad():
                module.few.weight.to_local()[0, 17] = 1
        try:
            seedbed.torch.verify_module(module, client, model=model)
        except seedbed.Mismatch as error:
            return str(error)
    return None


@NIGHTLY
def test_each_rank_verifies_its_shards():
    first, second = ranks.run(2, see)
    assert first is None
    # Of three rows torch gives the first rank two.
    assert second.startswith("few.weight: element (2, 17) is 1.0 in the module and ")
    assert second.endswith("; 1 of 400 elements differs on rank 1")
