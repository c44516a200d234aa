"""`seedbed.torch.init_module` on several ranks: the same bits for every sharding, and each rank requests only its part.

What is placed where, torch itself says: the whole is put together by its collectives, or cut by its own rules.
"""

import math
import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from _helpers import ranks
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import _clear_sharding_prop_cache
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.distributed.tensor.placement_types import _StridedShard
from torch.testing._internal.distributed.fake_pg import FakeStore

import seedbed
import seedbed.torch
from seedbed._ask import regions

NIGHTLY = pytest.mark.nightly  # processes that import torch
PEAK = Path("/proc/self/clear_refs")  # 5, written to it, lets the peak VmHWM begin anew


class Net(nn.Module):
    """Sizes that 2, 3 and 4 do not divide, tensors of fewer rows than ranks, tied and orthogonal ones, buffers; and a
    fused projection beside what it is made of, a transposed copy, and what is computed of draws."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(13, 8, padding_idx=2)
        self.norm = nn.BatchNorm1d(8)
        self.up = nn.Linear(8, 12)
        self.down = nn.Linear(12, 8)
        self.few = nn.Linear(8, 1)
        self.head = nn.Linear(8, 13, bias=False)
        self.head.weight = self.embedding.weight
        nn.init.orthogonal_(self.up.weight)
        self.queries, self.keys = nn.Linear(8, 7, bias=False), nn.Linear(8, 5, bias=False)
        self.fused, self.turned = nn.Linear(8, 12, bias=False), nn.Linear(12, 8, bias=False)
        self.decay = nn.Parameter(torch.log(torch.rand(7, 3) * 15 + 1))
        self.direction = nn.Parameter(nn.functional.normalize(torch.randn(7, 8), dim=0))
        with torch.no_grad():
            self.fused.weight.copy_(torch.cat([self.queries.weight, self.keys.weight]))
            self.turned.weight.copy_(self.fused.weight.t())

    def forward(self, tokens):
        x = self.norm(self.embedding(tokens))
        x = x + self.down(torch.relu(self.up(x)))
        return self.head(x) * torch.sigmoid(self.few(x))


def data_parallel(module, mesh):
    fully_shard(module.up, mesh=mesh)
    fully_shard(module, mesh=mesh)


def replicated_data_parallel(module, mesh):
    fully_shard(module, mesh=mesh)


def tensor_parallel(module, mesh):
    parallelize_module(
        module,
        mesh,
        {"up": ColwiseParallel(), "down": RowwiseParallel(), "fused": ColwiseParallel(), "turned": RowwiseParallel()},
    )


def both(module, mesh):
    tensor_parallel(module, mesh["tp"])
    data_parallel(module, mesh["dp"])


CASES = {
    "FSDP over 2": (data_parallel, (2,)),
    "FSDP over 3": (data_parallel, (3,)),
    "FSDP over 4": (data_parallel, (4,)),
    "HSDP over 2 x 2": (replicated_data_parallel, (2, 2)),
    "TP over 2": (tensor_parallel, (2,)),
    "TP over 4": (tensor_parallel, (4,)),
    "FSDP x TP over 2 x 2": (both, (2, 2)),
}


def see_all():
    """What one rank of four sees: of a large module first, then of each case that it takes part in."""
    return {"large": fill_a_large_module(), **{name: fill_a_small_module(*case) for name, case in CASES.items()}}


def fill_a_large_module():
    """The rise of this rank's peak memory, and what it holds."""

    def build():
        return nn.Sequential(*(nn.Linear(4096, 4096, bias=False) for _ in range(8)))

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    with seedbed.connect("local:") as client:
        small = nn.Linear(512, 512)
        seedbed.torch.init_module(small, client, model=seedbed.torch.record(lambda: nn.Linear(512, 512)))
        module = seedbed.torch.on_meta(build)
        for layer in module:  # type: ignore[attr-defined]
            fully_shard(layer, mesh=mesh)
        fully_shard(module, mesh=mesh)
        model = seedbed.torch.record(build)
        before = memory("VmRSS")
        if PEAK.exists():
            PEAK.write_text("5")
        seedbed.torch.init_module(module, client, model=model)
    return memory("VmHWM") - before, sum(parameter.to_local().nbytes for parameter in module.parameters())  # type: ignore[attr-defined]


def memory(what):
    status = Path("/proc/self/status")
    return int(re.search(rf"{what}:\s+(\d+) kB", status.read_text())[1]) * 1024 if status.exists() else 0


def fill_a_small_module(shard, shape):
    ranks = torch.arange(math.prod(shape)).view(shape)
    mesh = DeviceMesh("cpu", ranks, mesh_dim_names=("dp", "tp")[: len(shape)])
    if dist.get_rank() not in ranks:
        return None
    module = seedbed.torch.on_meta(Net)
    shard(module, mesh)
    with seedbed.connect("local:") as client:
        requested = count_bytes(client)
        seedbed.torch.init_module(module, client, model=seedbed.torch.record(Net, seed=7))
    held = [*module.parameters(), *(buffer for buffer in module.buffers() if buffer.is_floating_point())]
    return {
        "requested": sum(requested),
        "held": sum((tensor.to_local() if isinstance(tensor, DTensor) else tensor).nbytes for tensor in held),
        "whole": {
            name: (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()  # before it is trained
            for name, tensor in module.state_dict().items()
        },
        "placements": {name: str(getattr(tensor, "placements", "")) for name, tensor in module.named_parameters()},
        "is_tied": module.head.weight is module.embedding.weight,
        "losses": train(module),
    }


def count_bytes(client):
    """The bytes of each tensor that is requested, from now on."""
    requested = []
    init_model = client.init_model

    def counting(parts, **options):
        requested.extend(map(regions.byte_count, parts))
        return init_model(parts, **options)

    client.init_model = counting
    return requested


def train(module):
    tokens = torch.arange(12)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02, foreach=False)
    losses = []
    for _ in range(5):
        loss = nn.functional.cross_entropy(module(tokens), tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture(scope="module")
def seen():
    """What each of four ranks sees."""
    return ranks.run(4, see_all)


def of_case(seen, name):
    """The results of the ranks that take part in a case."""
    results = [result[name] for result in seen if result[name]]
    assert len(results) == math.prod(CASES[name][1])
    return results


@pytest.fixture(scope="module")
def alone():
    """The same module in one process."""
    module = Net()
    with seedbed.connect("local:") as client:
        seedbed.torch.init_module(module, client, model=seedbed.torch.record(Net, seed=7))
    return module.state_dict()


@NIGHTLY
@pytest.mark.parametrize("name", CASES)
def test_every_sharding_has_the_same_bits(seen, alone, name):
    for result in of_case(seen, name):
        whole = result["whole"]
        assert whole.keys() == alone.keys()
        for tensor in alone:
            assert torch.equal(whole[tensor], alone[tensor]), tensor
        assert result["is_tied"]


@NIGHTLY
@pytest.mark.parametrize("name", CASES)
def test_a_fused_matrix_is_the_matrices_that_it_is_made_of(seen, name):
    for result in of_case(seen, name):
        whole = result["whole"]
        assert torch.equal(whole["fused.weight"], torch.cat([whole["queries.weight"], whole["keys.weight"]]))
        assert torch.equal(whole["turned.weight"], whole["fused.weight"].t())


@NIGHTLY
@pytest.mark.parametrize("name", CASES)
def test_a_rank_asks_for_its_shards_alone(seen, name):
    for result in of_case(seen, name):
        assert result["requested"] == result["held"]


@NIGHTLY
@pytest.mark.parametrize("name", CASES)
def test_sharded_modules_train(seen, name):
    for result in of_case(seen, name):
        assert result["losses"][-1] < result["losses"][0]


@NIGHTLY
def test_the_cases_are_what_they_are_for(seen):
    placements = seen[0]["FSDP x TP over 2 x 2"]["placements"]
    assert placements["up.weight"].startswith("(_StridedShard(dim=0, sf=2), Shard(dim=0)")
    assert placements["down.weight"].startswith("(Shard(dim=0), Shard(dim=1)")
    assert "Replicate" in seen[0]["HSDP over 2 x 2"]["placements"]["up.weight"]


@NIGHTLY
@pytest.mark.skipif(not PEAK.exists(), reason="needs Linux's /proc")
def test_a_rank_needs_memory_for_its_shards_alone(seen):
    for rise, held in [result["large"] for result in seen]:
        assert held == 128 << 20
        assert rise < held + (24 << 20)


@st.composite
def placed(draw):
    """A shape, a mesh of up to three dimensions, and how the tensor is placed on it."""
    shape = draw(st.lists(st.integers(0, 9), min_size=1, max_size=3))
    mesh = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    dimension = st.integers(0, len(shape) - 1)
    placement = st.one_of(
        st.just(Replicate()),
        st.builds(Shard, dimension),
        st.builds(lambda dim, factor: _StridedShard(dim, split_factor=factor), dimension, st.integers(1, 3)),
    )
    return shape, mesh, draw(st.tuples(*[placement for _ in mesh]))


@pytest.fixture(scope="module")
def client():
    with seedbed.connect("local:") as client:
        yield client


@NIGHTLY
@given(case=placed(), on_meta=st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_placement_is_a_cut_of_the_whole(client, case, on_meta):
    """Every rank of a simulated mesh gets what torch cuts out of the whole."""
    shape, mesh_shape, placements = case
    spec = seedbed.spec("uniform", shape, name="weight")
    whole = torch.from_numpy(client.init(spec))
    size = math.prod(mesh_shape)
    for rank in range(size):
        _clear_sharding_prop_cache()  # it has the meshes of the rank before
        dist.init_process_group("fake", rank=rank, world_size=size, store=FakeStore())
        try:
            mesh = init_device_mesh("cpu", tuple(mesh_shape))
            expected = distribute_tensor(whole, mesh, placements, src_data_rank=None)
            module = nn.ParameterDict({"weight": nn.Parameter(torch.full_like(expected, torch.nan))})
            if on_meta:
                module.to("meta")
            seedbed.torch.init_module(module, client, rules=[("weight", "uniform", {})])
            assert torch.equal(module["weight"].to_local(), expected.to_local())
        finally:
            dist.destroy_process_group()


def test_what_no_rank_holds_is_refused(client):
    zeros = [("*", "zeros", {})]
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        mesh = init_device_mesh("cpu", (2,))
        partial = DTensor.from_local(torch.ones(3), mesh, [Partial()])
        module = nn.ParameterDict({"weight": nn.Parameter(partial)})
        with pytest.raises(seedbed.InvalidRequest, match="weight: is placed as Partial"):
            seedbed.torch.init_module(module, client, rules=[("*", "ones", {})])
        seedbed.torch.init_module(module, client, rules=zeros)  # but the parts of a sum that is zero may be zero
        assert not module["weight"].to_local().any()
        seedbed.torch.verify_module(module, client, rules=zeros)
    finally:
        dist.destroy_process_group()
