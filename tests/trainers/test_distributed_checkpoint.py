"""torch's Distributed Checkpoint: from a checkpoint of Seedbed's into any layout, and from one layout into another."""

import pytest
import torch
import torch.distributed.checkpoint as dcp
from _helpers import ranks
from _helpers.command import process
from google.protobuf.json_format import MessageToJson
from torch import nn
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import seedbed
import seedbed.torch

pytestmark = pytest.mark.nightly


def make():
    return nn.Sequential(nn.Embedding(100, 32), nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 32), nn.Linear(32, 100))


def sharded(fsdp, tp):
    """The model on the meta device, cut for so many ranks of each kind."""
    module = seedbed.torch.on_meta(make)
    mesh = init_device_mesh("cpu", (fsdp, tp), mesh_dim_names=("fsdp", "tp"))
    if tp > 1:
        parallelize_module(module, mesh["tp"], {"1": ColwiseParallel(), "3": RowwiseParallel()})
    fully_shard(module, mesh=mesh["fsdp"])
    return module


def whole(module):
    state = module.state_dict()
    return {name: each.full_tensor() if isinstance(each, DTensor) else each for name, each in state.items()}


def load_and_save(checkpoint, folder):
    """What each of four ranks does: from the files into three layouts; from one layout's checkpoint into another."""
    found = []
    for fsdp, tp in [(4, 1), (2, 2), (1, 4)]:
        module = sharded(fsdp, tp).to_empty(device="cpu")
        state = module.state_dict()
        dcp.load(state, storage_reader=HuggingFaceStorageReader(checkpoint))
        found.append(whole(module))

    module = sharded(2, 2)
    with seedbed.connect("local:") as client:
        seedbed.torch.init_module(module, client, model=seedbed.torch.record(make, seed=7))
    dcp.save(module.state_dict(), checkpoint_id=folder)
    module = sharded(4, 1).to_empty(device="cpu")
    state = module.state_dict()
    dcp.load(state, checkpoint_id=folder)
    found.append(whole(module))
    return found


def test_any_layout_holds_the_weights_of_the_files(tmp_path):
    model = seedbed.torch.record(make, seed=7)
    with seedbed.connect("local:") as client:
        expected = seedbed.torch.build(make, client, seed=7).state_dict()
    (tmp_path / "model.json").write_text(MessageToJson(model))
    command = process("model", tmp_path / "model.json", "-o", tmp_path / "files", "--max-shard-size", "10KB")
    assert command.wait(60) == 0
    assert len(list((tmp_path / "files").iterdir())) > 3

    for states in ranks.run(4, load_and_save, str(tmp_path / "files"), str(tmp_path / "dcp")):
        for state in states:
            assert state.keys() == expected.keys()
            assert all(torch.equal(state[name], expected[name]) for name in expected)
