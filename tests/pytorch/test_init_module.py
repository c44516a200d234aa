"""`seedbed.torch.init_module` in one process."""

import copy
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import torch
from _helpers.emulation import emulated_cupy
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

import seedbed
import seedbed.torch
from seedbed.v1 import Model

RULES = [("*.bias", "zeros", {}), ("*", "normal", {"std": 0.02})]


class Net(nn.Module):
    """Tied embeddings, norms with buffers, a table that the code computes."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.embedding = nn.Embedding(50, 16, padding_idx=3, dtype=dtype)
        self.hidden = nn.Linear(16, 32, dtype=dtype)
        self.norm = nn.BatchNorm1d(32, dtype=dtype)
        self.back = nn.Linear(32, 16, dtype=dtype)
        self.head = nn.Linear(16, 50, bias=False, dtype=dtype)
        self.head.weight = self.embedding.weight
        self.register_buffer("table", torch.arange(16, dtype=dtype) / 16)

    def forward(self, tokens):
        x = self.embedding(tokens) + self.table
        return self.head(self.back(torch.relu(self.norm(self.hidden(x)))))


@pytest.fixture(scope="module")
def client():
    with seedbed.connect("local:") as client:
        yield client


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16", "float64"])
def test_the_values_are_the_clients(client, name):
    dtype = getattr(torch, name)
    model = seedbed.torch.record(lambda: Net(dtype), seed=3)
    module = Net(dtype)
    seedbed.torch.init_module(module, client, model=model)
    for key, array in client.init_model(model):
        tensor = module.state_dict()[key]
        plain = tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16) if name == "bfloat16" else tensor.numpy()
        assert plain.dtype == array.dtype
        assert plain.tobytes() == array.tobytes(), key
    assert not module.embedding.weight[3].any()


def test_wherever_the_parameters_are(client):
    """With memory, without, or moved: the same bits, and existing memory is kept."""
    model = seedbed.torch.record(Net, seed=3)
    module = Net()
    before = {name: parameter.data_ptr() for name, parameter in module.named_parameters()}
    seedbed.torch.init_module(module, client, model=model)
    assert {name: parameter.data_ptr() for name, parameter in module.named_parameters()} == before
    on_meta = seedbed.torch.on_meta(Net)
    seedbed.torch.init_module(on_meta, client, model=model)
    assert_equal(state(on_meta), state(module))
    assert on_meta.head.weight is on_meta.embedding.weight
    assert isinstance(on_meta.hidden.weight, nn.Parameter)
    restrided = Net()
    restrided.hidden.weight.data = torch.empty(16, 32).t()
    restrided.back.weight.data = torch.empty(16, 64)[:, ::2]
    seedbed.torch.init_module(restrided, client, model=model)
    assert_equal(state(restrided), state(module))


def test_scalars_and_empty_tensors(client):
    module = nn.ParameterDict({"a": nn.Parameter(torch.tensor(0.0)), "b": nn.Parameter(torch.empty(0, 3))})
    module["c"] = nn.Parameter(torch.empty((), dtype=torch.bfloat16))
    seedbed.torch.init_module(module, client, rules=[("*", "constant", {"val": 2.5})])
    assert module["a"] == module["c"] == 2.5


def test_recurrent_layers_on_meta(client):
    """They keep separate lists of their parameters."""
    module = seedbed.torch.on_meta(lambda: nn.LSTM(4, 5))
    seedbed.torch.init_module(module, client, rules=[("*", "uniform", {"a": -0.4, "b": 0.4})])
    output, _ = module(torch.zeros(2, 3, 4))
    assert output.abs().max() > 0


def test_seed(client):
    model = seedbed.torch.record(Net, seed=3)
    modules = [Net() for _ in range(3)]
    for module, seed in zip(modules, [None, 3, 4], strict=True):
        seedbed.torch.init_module(module, client, seed, model=model)
    first, same, other = map(state, modules)
    assert_equal(first, same)
    assert not torch.equal(first["hidden.weight"], other["hidden.weight"])
    assert model.tensors[0].seed == 3
    with pytest.raises(seedbed.InvalidRequest, match="seed"):
        seedbed.torch.init_module(Net(), client, -1, model=model)


def test_rules(client):
    rules = [
        ("*.bias", "zeros", {}),
        ("norm.*", "ones", {}),
        ("hidden.*", "kaiming_normal", {"nonlinearity": "relu"}),
        ("*", "normal", {"std": 0.02}),
    ]
    module = Net()
    seedbed.torch.init_module(module, client, 5, rules=rules)
    assert not module.back.bias.any()
    assert (module.norm.weight == 1).all()
    assert module.embedding.weight.std().item() == pytest.approx(0.02, rel=0.1)
    expected = client.kaiming_normal((32, 16), nonlinearity="relu", seed=5, name="hidden.weight")
    assert np.array_equal(module.hidden.weight.detach().numpy(), expected)


def test_rules_that_match_nothing_are_refused(client):
    module = Net()
    before = state(module)
    with pytest.raises(seedbed.InvalidRequest, match=r"rules: match none of back\.weight, embedding\.weight, hid"):
        seedbed.torch.init_module(module, client, rules=[("*bias", "zeros", {}), ("norm.*", "ones", {})])
    with pytest.raises(seedbed.InvalidRequest, match="nonlinearity"):
        seedbed.torch.init_module(module, client, rules=[("*", "kaiming_normal", {"nonlinearity": "gelu"})])
    assert_equal(state(module), before)


def without(model, name):
    return Model(tensors=[spec for spec in model.tensors if spec.name != name])


MISFITS = {
    "a parameter is missing": (lambda model: without(model, "back.bias"), r"model: lacks .*: back\.bias$"),
    "a tensor is too many": (
        lambda model: Model(tensors=[*model.tensors, seedbed.spec("zeros", (3,), name="more")]),
        "model: has tensors that the module lacks: more",
    ),
    "a tensor is there twice": (lambda model: Model(tensors=[*model.tensors, model.tensors[0]]), "several"),
    "another shape": (
        lambda model: Model(tensors=[*without(model, "back.bias").tensors, seedbed.spec("zeros", 8, name="back.bias")]),
        r"back\.bias: has shape \(16,\) in the module and \(8,\) in the model",
    ),
    "another dtype": (
        lambda model: Model(
            tensors=[
                *without(model, "back.bias").tensors,
                seedbed.spec("zeros", 16, name="back.bias", dtype="bfloat16"),
            ]
        ),
        r"back\.bias: has dtype float32 in the module and bfloat16 in the model",
    ),
}


@pytest.mark.parametrize(("change", "words"), MISFITS.values(), ids=MISFITS)
def test_a_model_that_does_not_fit_is_refused(client, change, words):
    module = seedbed.torch.on_meta(Net)
    with pytest.raises(seedbed.InvalidRequest, match=words):
        seedbed.torch.init_module(module, client, model=change(seedbed.torch.record(Net)))
    assert module.hidden.weight.is_meta


def test_either_model_or_rules(client):
    with pytest.raises(seedbed.InvalidRequest, match="either"):
        seedbed.torch.init_module(Net(), client)
    with pytest.raises(seedbed.InvalidRequest, match="either"):
        seedbed.torch.init_module(Net(), client, model=Model(), rules=[])


def test_buffers(client):
    """Listed buffers are filled, others keep their values; one without values is refused."""
    model = seedbed.torch.record(Net)
    module = Net()
    module.norm.running_mean.fill_(5)
    module.norm.num_batches_tracked.fill_(5)
    seedbed.torch.init_module(module, client, model=model)
    assert not module.norm.running_mean.any()
    assert module.norm.num_batches_tracked == 5
    with torch.device("meta"):
        module = Net()
    with pytest.raises(seedbed.InvalidRequest, match=r"num_batches_tracked: .*on_meta"):
        seedbed.torch.init_module(module, client, model=model)
    assert module.hidden.weight.is_meta


def test_what_the_server_refuses_is_named(client):
    module = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2, bias=False)})
    spec = seedbed.torch.record(lambda: module).tensors
    model = Model(tensors=[seedbed.spec("zeros", one.shape, name=one.name) for one in spec[:2]])
    model.tensors.append(seedbed.spec("normal", (2, 2), std=1e39, name="b.weight"))
    with pytest.raises(seedbed.InvalidRequest, match=r"^b\.weight\.normal: the largest value"):
        seedbed.torch.init_module(module, client, model=model)


def test_autograd_is_left_as_it_was(client):
    module = Net()
    module.back.weight.requires_grad_(False)
    module(torch.tensor([1, 2])).sum().backward()
    gradient = module.hidden.weight.grad.clone()
    seedbed.torch.init_module(module, client, rules=RULES)
    assert not module.back.weight.requires_grad
    assert module.hidden.weight.requires_grad
    assert module.hidden.weight.is_leaf
    assert torch.equal(module.hidden.weight.grad, gradient)
    on_meta = seedbed.torch.on_meta(lambda: copy.deepcopy(Net().requires_grad_(False)))
    seedbed.torch.init_module(on_meta, client, rules=RULES)
    assert not any(parameter.requires_grad for parameter in on_meta.parameters())


def test_torch_s_own_dtypes_and_numbers_are_taken(client):
    half, whole = torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True), torch.tensor(7)
    for dtype in (torch.float32, torch.half, torch.bfloat16, torch.double, torch.cfloat):
        spec = seedbed.spec("normal", torch.Size([3, whole]), std=half, seed=whole, dtype=dtype)
        assert (list(spec.shape), spec.normal.std, spec.seed) == ([3, 7], 0.5, 7)
        assert client.init(spec, out=torch.empty(3, 7, dtype=dtype)).dtype == dtype
    assert client.init(seedbed.spec(seedbed.literal(half.expand(3)))).tolist() == [0.5] * 3
    for refused in (torch.tensor([0.5]), torch.tensor(True), torch.tensor(1j), torch.tensor(0.5, device="meta")):
        with pytest.raises(seedbed.InvalidRequest, match=r"spec.normal.std: std "):
            client.normal((3,), std=refused)
    with pytest.raises(seedbed.InvalidRequest, match=r"spec.dtype: dtype int8 is not supported"):
        client.normal((3,), dtype=torch.int8)


@pytest.mark.parametrize(
    "make",
    [lambda: torch.empty(4).expand(3, 4), lambda: torch.empty(9).as_strided((3, 4), (2, 1)),
     lambda: torch.empty(6).unfold(0, 4, 1)],
)  # fmt: skip
def test_tensors_whose_elements_share_memory_are_refused(client, make):
    with pytest.raises(seedbed.InvalidRequest, match="out: has elements that share memory"):
        client.normal((3, 4), out=make())


def test_it_trains(client):
    module = seedbed.torch.on_meta(Net)
    seedbed.torch.init_module(module, client, model=seedbed.torch.record(Net))
    tokens = torch.arange(32)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    losses = []
    for _ in range(10):
        loss = nn.functional.cross_entropy(module(tokens), tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_progress_may_be_drawn_by_the_first_rank(client, capsys, monkeypatch):
    seedbed.torch.init_module(Net(), client, rules=RULES, progress=True)
    assert "7.6/7.6 KiB" in capsys.readouterr().err
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    seedbed.torch.init_module(Net(), client, rules=RULES, progress=True)
    assert capsys.readouterr().err == ""
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with pytest.raises(seedbed.InvalidRequest, match="rich"):  # the ranks that draw nothing do not wait for the first
        seedbed.torch.init_module(Net(), client, rules=RULES, progress=True)


def test_a_failure_is_reported(client):
    """The server's errors name the tensor; no module is partly filled without an error."""
    with pytest.raises(seedbed.InvalidRequest, match="std"):
        seedbed.torch.init_module(Net(), client, rules=[("*", "normal", {"std": -1})])
    with seedbed.connect("127.0.0.1:1", timeout=1) as nobody, pytest.raises(seedbed.SeedbedError):
        seedbed.torch.init_module(Net(), nobody, rules=RULES)


def test_a_device_without_reach_is_staged(client, monkeypatch):
    """As for a GPU: sampled into an array of the client, then copied."""
    staged, direct = [nn.ModuleList([Net(), Net(torch.bfloat16)]) for _ in range(2)]
    seedbed.torch.init_module(direct, client, rules=RULES)
    monkeypatch.setattr(seedbed.torch._module, "_is_in_reach", lambda memory: False)
    seedbed.torch.init_module(staged, client, rules=RULES)
    assert_equal(state(staged), state(direct))


def test_importing_seedbed_does_not_import_torch():
    code = "import sys, seedbed; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_gpu_fills_the_module_in_one_call(monkeypatch):
    """On the emulated GPU, whose memory is the CPU's, so that tensors on the CPU stand for those on a GPU."""
    net, expected = Net(torch.bfloat16), Net(torch.bfloat16)
    with seedbed.connect("local:") as local:
        seedbed.torch.init_module(expected, local, seed=3, rules=RULES[1:])
    with emulated_cupy() as cupy, seedbed.connect("local:cuda") as client:
        stream = cupy.cuda.Stream()
        monkeypatch.setattr(client._memory, "_torch_stream", lambda _: stream.ptr)  # type: ignore[attr-defined]
        monkeypatch.setattr(client._memory, "_is_plain", lambda *_: True)  # type: ignore[attr-defined]
        begun = []
        engine = client._engine  # type: ignore[attr-defined]
        write_all = engine.write_all
        monkeypatch.setattr(engine, "write_all", lambda jobs, *how: (begun.append(len(jobs)), write_all(jobs, *how)))
        seedbed.torch.init_module(net, client, seed=3, rules=RULES[1:])
        stream.synchronize()
    assert begun == [len(list(net.parameters()))]
    for ours, theirs in zip(net.parameters(), expected.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_part_alone_is_filled(client):
    model = seedbed.torch.record(Net, seed=3)
    module, whole = Net(), Net()
    before = state(module)
    seedbed.torch.init_module(module, client, model=model, only="hidden.*")
    seedbed.torch.init_module(whole, client, model=model)
    for name, tensor in state(module).items():
        assert torch.equal(tensor, (whole.state_dict() if name.startswith("hidden.") else before)[name]), name
    seedbed.torch.verify_module(module, client, model=model, only=["hidden.weight", "hidden.b*"])
    with pytest.raises(seedbed.Mismatch, match="back"):
        seedbed.torch.verify_module(module, client, model=model, only=["hidden.*", "back.*"])


def test_a_part_is_filled_by_rules_that_fit_nothing_else(client):
    module = Net()
    before = state(module)
    seedbed.torch.init_module(module, client, rules=[("back.bias", "ones", {})], only="back.bias")
    assert (module.back.bias == 1).all()
    assert torch.equal(module.back.weight, before["back.weight"])


def test_a_part_of_a_module_on_the_meta_device(client):
    with torch.device("meta"):
        module = Net()
    seedbed.torch.init_module(module, client, model=seedbed.torch.record(Net, seed=3), only="hidden.*")
    assert {name for name, tensor in state(module).items() if not tensor.is_meta} == {"hidden.weight", "hidden.bias"}


@pytest.mark.parametrize("only", ["hiden.*", [], "Hidden.*"])
def test_a_part_that_is_none(client, only):
    with pytest.raises(seedbed.InvalidRequest, match=r"only: .* matches none of back\.bias, back\.weight, .*embedding"):
        seedbed.torch.init_module(Net(), client, rules=RULES, only=only)


def test_a_model_for_more_than_the_module_fills_a_stage_of_it(client):
    model = seedbed.torch.record(Net, seed=3)
    stage = nn.ModuleDict({"hidden": nn.Linear(16, 32), "back": nn.Linear(32, 16)})
    seedbed.torch.init_module(stage, client, model=model, only=list(stage.state_dict()))
    whole = Net()
    seedbed.torch.init_module(whole, client, model=model)
    assert torch.equal(stage["back"].weight, whole.back.weight)


def wrapped_within(module):
    module.hidden, module.back = checkpoint_wrapper(module.hidden), torch.compile(module.back)
    return module


@pytest.mark.parametrize("wrap", [wrapped_within, checkpoint_wrapper, torch.compile, nn.DataParallel])
def test_wrappers_change_no_name(client, wrap):
    model = seedbed.torch.record(Net, seed=3)
    whole = Net()
    seedbed.torch.init_module(whole, client, model=model)
    plain = Net()
    module = wrap(plain)
    seedbed.torch.init_module(module, client, model=model)
    seedbed.torch.verify_module(module, client, model=model)
    for one, other in zip(plain.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)
    seedbed.torch.init_module(module, client, rules=[("hidden.bias", "ones", {}), *RULES])
    assert sum(bool((tensor == 1).all()) for tensor in plain.parameters()) == 1


def pair():
    student = nn.Linear(4, 4)
    return nn.ModuleDict({"student": student, "teacher": copy.deepcopy(student)})


@pytest.mark.parametrize("only", ["student.*", "teacher.*"])
def test_only_one_of_two_that_share_draws(client, only):
    """A teacher that is not filled may hold other values than its student would get."""
    module, model = pair(), seedbed.torch.record(pair)
    before = state(module)
    with pytest.raises(seedbed.InvalidRequest, match=r"weight: has draws in common with .*which is left as it is"):
        seedbed.torch.init_module(module, client, model=model, only=only)
    assert_equal(state(module), before)
    seedbed.torch.init_module(module, client, model=model, only=["student.*", "teacher.*"])
    apart = seedbed.torch.record(pair, independent_copies=True)
    seedbed.torch.init_module(module, client, model=apart, only=only)
    stage = nn.ModuleDict({"student": nn.Linear(4, 4)})  # whose teacher is in another process, filled from this model
    seedbed.torch.init_module(stage, client, model=model, only="student.*")


def test_streams_that_are_named_after_no_tensor(client):
    model = Model(tensors=[seedbed.spec("normal", (4,), name=name, stream="any") for name in ("a", "b")])
    module = nn.ParameterDict({name: nn.Parameter(torch.zeros(4)) for name in ("a", "b")})
    seedbed.torch.init_module(module, client, model=model)
    assert torch.equal(module["a"], module["b"])
    with pytest.raises(seedbed.InvalidRequest, match="a: has draws in common with b, which is left as it is"):
        seedbed.torch.init_module(module, client, model=model, only="a")
