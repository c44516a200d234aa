"""`seedbed.torch.record` records what torch would compute."""

import base64
import copy
import json
import math
import random
import re
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import json_format
from torch import nn

import seedbed
import seedbed.torch
from seedbed.v1 import Model

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

LAYERS = {
    "Linear": lambda: nn.Linear(300, 200),
    "Linear without bias": lambda: nn.Linear(300, 200, bias=False),
    "Conv1d": lambda: nn.Conv1d(30, 40, 5),
    "Conv2d": lambda: nn.Conv2d(30, 40, 3, groups=2),
    "Conv3d": lambda: nn.Conv3d(10, 20, 3),
    "ConvTranspose1d": lambda: nn.ConvTranspose1d(30, 40, 5),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(30, 40, 3),
    "ConvTranspose3d": lambda: nn.ConvTranspose3d(10, 20, 3),
    "Embedding": lambda: nn.Embedding(100, 50),
    "Embedding with padding": lambda: nn.Embedding(100, 50, padding_idx=3),
    "Embedding with padding from the end": lambda: nn.Embedding(100, 50, padding_idx=-1),
    "EmbeddingBag": lambda: nn.EmbeddingBag(100, 50, padding_idx=0),
    "LSTM": lambda: nn.LSTM(30, 40, 2, bidirectional=True, proj_size=20),
    "GRU": lambda: nn.GRU(30, 40, 2),
    "RNN": lambda: nn.RNN(30, 40),
    "LSTMCell": lambda: nn.LSTMCell(30, 40),
    "MultiheadAttention": lambda: nn.MultiheadAttention(64, 4, add_bias_kv=True),
    "MultiheadAttention, kdim": lambda: nn.MultiheadAttention(64, 4, kdim=32, vdim=16),
    "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(64, 4, 128),
    "TransformerEncoder": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), 2),
    "TransformerDecoder": lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(64, 4, 128), 2),
    "Transformer": lambda: nn.Transformer(64, 4, 2, 2, 128, batch_first=True),
    "Bilinear": lambda: nn.Bilinear(20, 30, 40),
    "PReLU": lambda: nn.PReLU(7, init=0.1),
    "BatchNorm1d": lambda: nn.BatchNorm1d(7),
    "BatchNorm2d": lambda: nn.BatchNorm2d(7),
    "LayerNorm": lambda: nn.LayerNorm((7, 5)),
    "RMSNorm": lambda: nn.RMSNorm(7),
    "GroupNorm": lambda: nn.GroupNorm(2, 8),
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(7, affine=True, track_running_stats=True),
}


@pytest.fixture(autouse=True)
def _default_dtype():
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def client():
    with seedbed.connect("local:") as client:
        yield client


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("build", LAYERS.values(), ids=LAYERS)
def test_layers_of_torch(client, build, dtype):
    """Names and shapes are the module's, and values are distributed as torch's own."""
    torch.manual_seed(1)
    torch.set_default_dtype(dtype)
    real, model = build(), seedbed.torch.record(build, seed=5)
    floating = {name: buffer for name, buffer in real.named_buffers() if buffer.is_floating_point()}
    tensors = {**dict(real.named_parameters()), **floating}
    assert [spec.name for spec in model.tensors] == list(tensors)
    for spec in model.tensors:
        assert seedbed.dtypes.name_of(spec.dtype) == str(dtype).removeprefix("torch.")
        assert spec.seed == 5
        tensor = tensors[spec.name].detach().double().numpy()
        assert tuple(spec.shape) == tensor.shape
        assert_alike(client.init(spec).astype(np.float64), tensor)


def assert_alike(ours, theirs):
    """The same constants, row by row, and the same law."""
    if theirs.ndim > 1:
        for row, other in zip(ours, theirs, strict=True):
            assert (row.std() == 0) == (other.std() == 0)
    if theirs.std() == 0:
        assert np.allclose(ours, theirs, rtol=1e-2)
        return
    error = 6 / math.sqrt(theirs.size)
    assert abs(ours.mean() - theirs.mean()) < 1.5 * theirs.std() * error
    assert abs(ours.std() / theirs.std() - 1) < 1.5 * error


def transformers_model(name):
    import transformers as hf

    if name == "gpt2-124m":
        return lambda: hf.GPT2LMHeadModel(hf.GPT2Config())
    if name == "vit-b16":
        return lambda: hf.ViTForImageClassification(hf.ViTConfig(num_labels=1000))
    if name == "resnet-50":
        return lambda: hf.ResNetForImageClassification(hf.ResNetConfig(num_labels=1000))
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = hf.LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        max_position_embeddings=131072,
        rope_parameters=rope,
        dtype="bfloat16",
    )
    return lambda: hf.AutoModelForCausalLM.from_config(config)


@pytest.mark.slow  # to import transformers takes seconds
@pytest.mark.parametrize("name", ["gpt2-124m", "llama-3.1-8b", "vit-b16", "resnet-50"])
def test_models_of_transformers(client, name):
    """As the model files, which were written by hand from the same code."""
    expected = json_format.Parse((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"), Model())
    recorded = {spec.name: spec for spec in seedbed.torch.record(transformers_model(name)).tensors}
    extra = recorded.keys() - {spec.name for spec in expected.tensors}
    assert all(name.endswith(("running_mean", "running_var")) for name in extra)
    for spec in expected.tensors:
        own = recorded[spec.name]
        assert own.shape == spec.shape
        assert own.dtype == spec.dtype
        assert client.describe(own).law == client.describe(spec).law


def test_composed_initialisers_are_recognised(client):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.orthogonal = nn.Parameter(torch.empty(6, 4))
            self.sparse = nn.Parameter(torch.zeros(6, 4))
            self.dirac = nn.Parameter(torch.randn(6, 2, 3))
            self.eye = nn.Parameter(torch.empty(6, 4))
            self.real_eye = nn.Parameter(torch.ones(6, 4))
            self.made_eye = nn.Parameter(torch.eye(4))
            self.truncated = nn.Parameter(torch.zeros(1, 4, dtype=torch.bfloat16))
            nn.init.orthogonal_(self.orthogonal, gain=2)
            nn.init.sparse_(self.sparse, sparsity=0.5, std=0.1)
            nn.init.dirac_(self.dirac, groups=3)
            nn.init.eye_(self.eye)
            nn.init.eye_(self.real_eye)
            with torch.device("cpu"):  # a mode of torch's own between us and the function
                nn.init.trunc_normal_(self.truncated, 0.5, 2.0, -1.0, 3.0)

    specs = {spec.name: spec for spec in seedbed.torch.record(Net).tensors}
    assert specs["orthogonal"].orthogonal.gain == 2
    assert (specs["sparse"].sparse.sparsity, specs["sparse"].sparse.std) == (0.5, 0.1)
    assert specs["dirac"].dirac.groups == 3
    assert {specs[name].WhichOneof("scheme") for name in ("eye", "real_eye", "made_eye")} == {"eye"}
    bounds = specs["truncated"].trunc_normal
    assert (bounds.mean, bounds.std, bounds.a, bounds.b) == (0.5, 2, -1, 3)
    assert client.describe(specs["truncated"]).law.trunc_normal.a == -1


def parameter(fill, shape=(4, 6), dtype=torch.float32):
    """A module of one parameter, and the code that fills or replaces it."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.empty(shape, dtype=dtype))
            with torch.no_grad():
                result = fill(self.weight)
            if isinstance(result, nn.Parameter):
                self.weight = result

    return Net


def test_transformers_initialisation_under_its_guard():
    """As transformers 5 calls it: replaced functions of torch.nn.init, and orthogonal_ by a float32 detour."""
    init = pytest.importorskip("transformers.initialization")

    def fill(weight):
        with init.guard_torch_init_functions():
            nn.init.normal_(weight, std=3)
            init.orthogonal_(weight)

    [spec] = seedbed.torch.record(parameter(fill, dtype=torch.bfloat16)).tensors
    assert spec.WhichOneof("scheme") == "orthogonal"


RECORDED = {
    "the last fill counts": (lambda w: w.normal_().uniform_(2, 3), {"uniform": {"a": 2, "b": 3}}),
    "a draw that is used up": (lambda w: w.normal_().mul_(2).zero_(), {"zeros": {}}),
    "constants are folded": (lambda w: w.zero_().add_(1).mul_(0.5), {"constant": {"val": 0.5}}),
    "folded out of place": (lambda w: nn.Parameter(w.fill_(2.0) * 3), {"constant": {"val": 6}}),
    "a copy of a constant": (lambda w: w.copy_(torch.full((6,), 0.25)), {"constant": {"val": 0.25}}),
    "rand": (lambda w: nn.Parameter(torch.rand(3)), {"uniform": {"b": 1}}),
    "randn": (lambda w: nn.Parameter(torch.randn(3)), {"normal": {"std": 1}}),
    "randn_like": (lambda w: nn.Parameter(torch.randn_like(w)), {"normal": {"std": 1}}),
    "torch.normal": (lambda w: nn.Parameter(torch.normal(1.0, 2.0, (3,))), {"normal": {"mean": 1, "std": 2}}),
    "ones times": (lambda w: nn.Parameter(torch.ones(8) * 0.5), {"constant": {"val": 0.5}}),
    "a legacy constructor": (lambda w: nn.Parameter(torch.Tensor(3, 4).normal_()), {"normal": {"std": 1}}),
    "drawn where ones were": (lambda w: nn.Parameter(nn.init.normal_(torch.ones(1), std=3)), {"normal": {"std": 3}}),
    "zeros_like": (lambda w: nn.Parameter(torch.zeros_like(w.normal_())), {"zeros": {}}),
    "new_full": (lambda w: w.copy_(w.new_full((6,), 2)), {"constant": {"val": 2}}),
    "torch.tensor": (lambda w: nn.Parameter(torch.tensor([3.0], device=w.device)), {"constant": {"val": 3}}),
    "on the meta device": (lambda w: nn.Parameter(torch.ones(3, device="meta") / 2), {"constant": {"val": 0.5}}),
    "through a transposed view": (lambda w: w.t().uniform_(0, 1), {"uniform": {"b": 1}}),
    "through a flat view": (lambda w: w.view(-1).normal_(), {"normal": {"std": 1}}),
    "through .data": (lambda w: w.data.normal_(std=2), {"normal": {"std": 2}}),
    "a part of a drawn tensor": (lambda w: nn.Parameter(w.normal_()[1:]), {"normal": {"std": 1}}),
    "narrowed": (lambda w: nn.Parameter(w.normal_().to(torch.bfloat16)), {"normal": {"std": 1}}),
    "item of a constant": (lambda w: w.fill_(w.fill_(3.0)[0, 0].item() + 1), {"constant": {"val": 4}}),
    "turned in place": (lambda w: nn.Parameter(torch.empty(3, 4).normal_().t_().detach_()), {"normal": {"std": 1}}),
    "arithmetic on a draw": (lambda w: w.normal_().mul_(0.5), {"normal": {"std": 0.5}}),
    "arithmetic out of place": (lambda w: nn.Parameter(torch.randn(3) * 0.5 + 1), {"normal": {"mean": 1, "std": 0.5}}),
    "turned round": (lambda w: nn.Parameter((1 - torch.rand(3)) * 2), {"uniform": {"b": 2}}),
    "steps of a draw": (lambda w: nn.Parameter(w.normal_()[:, ::2]), {"normal": {"std": 1}}),
    "out=": (lambda w: torch.add(torch.zeros(4, 6), 3, out=w), {"constant": {"val": 3}}),
    "an orthogonal matrix, turned": (
        lambda w: nn.Parameter(nn.init.orthogonal_(torch.empty(6, 4)) * 3),
        {"orthogonal": {"gain": 3}},
    ),
    "Q of a normal matrix": (
        lambda w: nn.Parameter(torch.linalg.qr(torch.randn(6, 4))[0]),
        {"orthogonal": {"gain": 1}},
    ),
    "log_normal_, logged": (lambda w: nn.Parameter(torch.exp(w.zero_())), {"ones": {}}),
    "filled as integers": (
        lambda w: w.normal_().view(torch.int32).fill_(0x3F800000),
        {"ones": {}},
    ),
    "nothing to fill": (lambda w: nn.Parameter(torch.empty(0, 3)), {"zeros": {}}),
}


@pytest.mark.parametrize(("fill", "expected"), RECORDED.values(), ids=RECORDED)
def test_what_is_recorded(fill, expected):
    [spec] = seedbed.torch.record(parameter(fill)).tensors
    kind = spec.WhichOneof("scheme")
    assert {kind: json_format.MessageToDict(getattr(spec, kind))} == expected


def test_more_computed_values_than_a_request_carries():
    table = torch.arange(600.0 * 600).reshape(600, 600)
    with pytest.raises(seedbed.InvalidRequest, match="combines 1440000 bytes of values that") as error:
        seedbed.torch.record(parameter(lambda w: nn.Parameter(table.sin() + torch.randn(600, 600))))
    assert error.value.field == "weight"
    assert seedbed.torch.record(parameter(lambda w: nn.Parameter(table.sin()))).tensors[0].HasField("literal")
    noisy = parameter(lambda w: nn.Parameter(torch.eye(600) + torch.randn(600, 600) + torch.arange(600.0)))
    assert seedbed.torch.record(noisy).ByteSize() < 5000  # what repeats, and what is known, takes no bytes


def test_more_steps_than_an_expression_has():
    def fill(w):
        w.normal_()
        for _ in range(10_000):
            w.tanh_()

    with pytest.raises(seedbed.InvalidRequest, match=r"has more than 10000 steps.*test_record\.py") as error:
        seedbed.torch.record(parameter(fill))
    assert error.value.field == "weight"


def test_data_may_be_replaced():
    """Whether the new tensor or the old one has memory."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.empty(3))
            self.a.data = torch.full((3,), 2.0)
            self.b = nn.Parameter(torch.zeros(3))
            self.b.data = torch.randn(3)

    a, b = seedbed.torch.record(Net).tensors
    assert a.constant.val == 2
    assert b.HasField("normal")


PARTS = {
    "a row": (lambda w: w.normal_()[2].zero_(), [((), (), "normal"), ((2, 0), (3, 6), 0)]),
    "an element": (lambda w: w.normal_()[2, 3].fill_(5), [((), (), "normal"), ((2, 3), (3, 4), 5)]),
    "assignment": (
        lambda w: w.normal_().__setitem__((slice(1, 3), slice(2, None)), 4),
        [((), (), "normal"), ((1, 2), (3, 6), 4)],
    ),
    "a column": (lambda w: w.normal_().t()[1].fill_(1), [((), (), "normal"), ((0, 1), (4, 2), 1)]),
    "two, overlapping": (
        lambda w: (w.normal_()[:2].fill_(1), w[1:3].fill_(2)),
        [((), (), "normal"), ((0, 0), (2, 6), 1), ((1, 0), (3, 6), 2)],
    ),
    "on a constant": (lambda w: w.fill_(1)[:, 2:4].fill_(7), [((), (), 1), ((0, 2), (4, 4), 7)]),
    "halves": (
        lambda w: (w[:2].uniform_(), w[2:].normal_()), [((0, 0), (2, 6), "uniform"), ((2, 0), (4, 6), "normal")],
    ),
    "joined": (
        lambda w: nn.Parameter(torch.cat([torch.randn(2, 3), torch.zeros(2, 2)], 1)),
        [((0, 0), (2, 3), "normal"), ((0, 3), (2, 5), 0)],
    ),
    "scaled afterwards": (
        lambda w: (w[:2].normal_(), w[2:].zero_(), w.mul_(2)), [((0, 0), (2, 6), "normal"), ((2, 0), (4, 6), 0)],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("fill", "expected"), PARTS.values(), ids=PARTS)
def test_parts(fill, expected):
    [spec] = seedbed.torch.record(parameter(fill)).tensors
    found = []
    for part in spec.parts.parts:
        scheme = part.recipe.WhichOneof("scheme")
        value = part.recipe.constant.val if scheme == "constant" else scheme
        found.append((tuple(part.region.start), tuple(part.region.stop), value))
    assert found == expected


def test_a_fill_of_everything_hides_what_was_before():
    [spec] = seedbed.torch.record(parameter(lambda w: (w.normal_(), w[1].fill_(1), w.uniform_()))).tensors
    assert spec.HasField("uniform")
    [spec] = seedbed.torch.record(parameter(lambda w: w.zero_()[1].zero_())).tensors
    assert spec.HasField("zeros")


@pytest.mark.parametrize("part", [np.s_[1:3, 2:], np.s_[2:3, 3:4], np.s_[0:1, 0:1], np.s_[3:4]])
def test_parts_of_a_tensor_that_has_memory(client, part):
    def fill(_):
        values = torch.zeros(4, 6)
        values[part] = 2
        return nn.Parameter(values)

    [spec] = seedbed.torch.record(parameter(fill)).tensors
    assert np.array_equal(client.init(spec), fill(None).detach().numpy())
    assert len(spec.parts.parts) == 2


COMPLEX = {
    "randn": (lambda: 0.02 * torch.randn(4, 5, dtype=torch.cfloat), {"normal": {"std": 0.02}}),
    "rand": (lambda: -0.5 * torch.rand(4, 5, dtype=torch.cfloat), {"uniform": {"a": -0.5, "b": 0}}),
    "normal_": (lambda: torch.empty(4, 5, dtype=torch.cfloat).normal_(0, 2), {"normal": {"std": 2}}),
    "xavier_uniform_": (
        lambda: nn.init.xavier_uniform_(torch.empty(3, 3, dtype=torch.cfloat)), {"uniform": {"a": -1, "b": 1}}
    ),
    "xavier_normal_": (
        lambda: nn.init.xavier_normal_(torch.empty(4, 4, dtype=torch.cfloat)), {"normal": {"std": 0.5}}
    ),
    "of floats": (lambda: torch.view_as_complex(torch.rand(4, 5, 2)), {"uniform": {"b": 1}}),
    "zeros": (lambda: torch.zeros(4, 5, dtype=torch.cfloat), {"zeros": {}}),
    "computed": (
        lambda: torch.full((2, 3), 1j),
        {"literal": {"data": base64.b64encode(np.full((2, 3), 1j, np.complex64).tobytes()).decode()}},
    ),
    "transposed": (lambda: torch.randn(4, 5, dtype=torch.cfloat).T, {"normal": {"std": 1}}),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_parameters(name, client):
    """As the weights of Fourier neural operators (Li et al. 2021) are made."""
    make, scheme = COMPLEX[name]
    [spec] = seedbed.torch.record(parameter(lambda _: nn.Parameter(make()))).tensors
    message = json_format.MessageToDict(spec)
    kind = next(iter(scheme))
    assert message["dtype"] == "DATA_TYPE_COMPLEX64"
    assert message[kind] == (scheme[kind] if kind == "literal" else pytest.approx(scheme[kind]))
    assert client.init(spec).shape == tuple(make().shape)


def test_parts_of_a_complex_parameter(client):
    def fill(_):
        values = torch.zeros(4, 5, dtype=torch.cfloat)
        values[1:3] = 0.1 * torch.randn(2, 5, dtype=torch.cfloat)
        return nn.Parameter(values)

    [spec] = seedbed.torch.record(parameter(fill)).tensors
    values = client.init(spec)
    assert values[1:3].all()
    assert not values[::3].any()


def test_a_module_with_complex_parameters_is_filled_and_verified(client):
    class SpectralConv(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(0.1 * torch.rand(4, 4, 3, 3, dtype=torch.cfloat))

    module = seedbed.torch.build(SpectralConv, client, seed=5)
    model = seedbed.torch.record(SpectralConv, seed=5)
    assert np.array_equal(module.weight.detach().numpy(), client.init(model.tensors[0]))
    seedbed.torch.verify_module(module, client, model=model)
    with torch.no_grad():
        module.weight[1, 2, 0, 0] += 1j
    with pytest.raises(seedbed.Mismatch, match=r"element \(1, 2, 0, 0\)"):
        seedbed.torch.verify_module(module, client, model=model)


REFUSED = {
    "never filled": (lambda w: None, "never initialised"),
    "half filled": (lambda w: w[:2].zero_(), "never initialised"),
    "computed from what was never filled": (lambda w: w.add_(1), "computed from memory that was never initialised"),
    "drawn, a part seen as integers": (lambda w: w.normal_().view(torch.int16)[0].fill_(7), "int16"),
    "infinite": (lambda w: w.fill_(torch.inf), "not finite"),
    "infinite, with memory": (lambda w: nn.Parameter(torch.full((3,), torch.inf)), "not finite"),
    "complex of double precision": (lambda w: nn.Parameter(torch.zeros(3, dtype=torch.complex128)), "complex128"),
    "a complex sum": (
        lambda w: nn.Parameter(torch.randn(3, dtype=torch.cfloat) + 1),
        r"computed from complex numbers, of which only draws.*test_record",
    ),
    "a complex product": (
        lambda w: nn.Parameter(torch.randn(3, dtype=torch.cfloat) * 1j),
        "computed from complex numbers",
    ),
    "a real part": (lambda w: nn.Parameter(torch.randn(3, dtype=torch.cfloat).real.clone()), "no recipe describes"),
    "made complex": (lambda w: nn.Parameter(torch.randn(3).to(torch.cfloat)), "computed from complex numbers"),
    "an inverse": (
        lambda w: nn.Parameter(torch.inverse(torch.randn(4, 4))),
        r"linalg_inv_ex of drawn values.*test_record",
    ),
    "sorted": (lambda w: w.copy_(w.normal_().sort(0)[0]), "sort of drawn values"),
    "a decomposition": (
        lambda w: nn.Parameter(torch.linalg.qr(torch.rand(6, 4))[0]),
        "decomposes a matrix",
    ),
    "R of a decomposition": (lambda w: nn.Parameter(torch.linalg.qr(torch.randn(6, 4))[1]), "signs"),
    "signs of all of R": (lambda w: nn.Parameter(torch.linalg.qr(torch.randn(6, 4))[1].sign()), "only the diagonal"),
    "signs of a row of R": (lambda w: nn.Parameter(torch.linalg.qr(torch.randn(6, 4))[1][0].sign()), "only the diag"),
    "signs beside the diagonal": (
        lambda w: nn.Parameter(torch.diag(torch.linalg.qr(torch.randn(6, 4))[1], 1).sign()),
        "only the diagonal",
    ),
    "signs of what is computed from R": (
        lambda w: nn.Parameter((torch.linalg.qr(torch.randn(6, 4))[1].diagonal() - 100).sign()),
        "only the diagonal",
    ),
    "multinomial": (lambda w: w.copy_(torch.multinomial(torch.ones(4), 1)), "multinomial"),
}


@pytest.mark.parametrize(("fill", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_replayed_is_an_error(fill, words):
    with pytest.raises(seedbed.InvalidRequest, match=words) as error:
        seedbed.torch.record(parameter(fill))
    assert error.value.field == "weight"


READS = {
    "item": lambda w: w.fill_(w.normal_().sum().item()),
    "if": lambda w: w.zero_() if (w.normal_() > 0).any() else w.fill_(1),
    "tolist": lambda w: w.normal_().tolist(),
    "nonzero": lambda w: w.normal_().nonzero(),
}


@pytest.mark.parametrize("fill", READS.values(), ids=READS)
def test_reading_what_was_drawn_is_an_error(fill):
    with pytest.raises(seedbed.InvalidRequest, match="drawn") as error:
        seedbed.torch.record(parameter(fill))
    assert "shape" in str(error.value)
    assert re.findall(r"test_record\.py:\d+", str(error.value))


def test_the_code_may_compute_with_real_numbers():
    """Code that does not concern weights works: masks, tables, numbers read from tensors."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            rates = [rate.item() for rate in torch.linspace(0, 0.2, 3)]
            self.layers = nn.ModuleList(nn.Sequential(nn.Linear(3, 3), nn.Dropout(rate)) for rate in rates)
            self.register_buffer("mask", torch.tril(torch.ones(4, 4)).bool())
            self.register_buffer("frequencies", 1 / 10 ** (torch.arange(4.0) / 4))
            self.register_buffer("scale", torch.tensor(0.5))
            self.register_buffer("projection", torch.randn(3, 3))
            self.register_buffer("count", torch.tensor(0))
            assert rates[2] == pytest.approx(0.2)

    recorded = {spec.name: spec.WhichOneof("scheme") for spec in seedbed.torch.record(Net).tensors[6:]}
    assert recorded == {"frequencies": "literal", "scale": "constant", "projection": "normal"}
    module = seedbed.torch.on_meta(Net)
    assert all(parameter.is_meta for parameter in module.parameters())
    assert module.mask.sum() == 10
    assert module.frequencies[0] == 1
    assert module.count == 0


def test_deep_copies_keep_what_buffers_hold():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("table", torch.arange(4.0))
            self.register_buffer("drawn", torch.zeros(4).normal_())
            self.register_buffer("constant", torch.full((4,), 2.0))

    model = seedbed.torch.record(lambda: nn.ModuleList([net := Net(), copy.deepcopy(net)]))
    schemes = [spec.WhichOneof("scheme") for spec in model.tensors]
    assert schemes == ["literal", "normal", "constant"] * 2
    assert [spec.stream for spec in model.tensors if spec.HasField("normal")] == ["", "0.drawn"]
    module = seedbed.torch.on_meta(lambda: copy.deepcopy(Net()))
    assert module.table.tolist() == [0, 1, 2, 3]


def test_tied_parameters_are_one():
    def build():
        module = nn.ModuleDict({"embedding": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
        module["head"].weight = module["embedding"].weight
        return module

    [spec] = seedbed.torch.record(build).tensors
    assert spec.name == "embedding.weight"
    module = seedbed.torch.on_meta(build)
    assert module["head"].weight is module["embedding"].weight


def test_parameters_that_share_memory_are_refused():
    def build():
        module = nn.ModuleList([nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)])
        module[1].weight.data = module[0].weight.data
        return module

    with pytest.raises(seedbed.InvalidRequest, match=r"1\.weight: shares memory with 0\.weight"):
        seedbed.torch.record(build)


def test_parts_of_one_drawing_are_independent():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            both = torch.randn(4, 3)
            self.a, self.b = nn.Parameter(both[:2]), nn.Parameter(both[2:])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(seedbed.torch.record(Net).tensors) == 2


def teacher_and_student():
    student, teacher = nn.Linear(8, 6), nn.Linear(8, 6)
    teacher.load_state_dict(student.state_dict())
    return nn.ModuleList([student, teacher])


def seeded_twice():
    layers = []
    for _ in range(2):
        torch.manual_seed(3)
        layers.append(nn.Linear(8, 6))
    return nn.ModuleList(layers)


def state_set_again():
    state = torch.get_rng_state()
    first = nn.Linear(8, 6)
    torch.set_rng_state(state)
    return nn.ModuleList([first, nn.Linear(8, 6)])


def two_generators():
    pair = [nn.Linear(8, 6), nn.Linear(8, 6)]
    for layer in pair:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            layer.weight.normal_(generator=generator)
            layer.bias.normal_(generator=generator)
    return nn.ModuleList(pair)


COPIES = {
    "deep copies": lambda: nn.ModuleList([layer := nn.Linear(8, 6), copy.deepcopy(layer)]),
    "layers that torch copies": lambda: (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 8, batch_first=True), 2).layers
    ),
    "load_state_dict": teacher_and_student,
    "one seed twice": seeded_twice,
    "a generator's state, set again": state_set_again,
    "two generators of one seed": two_generators,
}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_copies_stay_copies(client, make):
    def filled(**options):
        model = seedbed.torch.record(make, seed=3, **options)
        module = seedbed.torch.on_meta(make)
        seedbed.torch.init_module(module, client, model=model)
        return [dict(part.named_parameters()) for part in module]  # type: ignore[attr-defined]

    for one, other in (make()[:2], filled()):
        one, other = (
            dict(one.named_parameters()) if isinstance(one, nn.Module) else one,
            (dict(other.named_parameters()) if isinstance(other, nn.Module) else other),
        )
        assert all(torch.equal(one[name], other[name]) for name in one)
    one, other = filled(independent_copies=True)
    assert not any(torch.equal(one[name], other[name]) for name in one if one[name].std() > 0)


def test_draws_that_only_begin_alike_are_independent():
    """The same seed, but something else is drawn in between."""

    def build():
        torch.manual_seed(0)
        first = nn.ParameterList([torch.randn(3), torch.randn(4)])
        torch.manual_seed(0)
        return nn.ModuleList([first, nn.ParameterList([torch.randn(5), torch.randn(4)])])

    assert {spec.stream for spec in seedbed.torch.record(build).tensors} == {""}


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weight_norm(client, norm):
    def build():
        return norm(nn.Linear(30, 40))

    module = seedbed.torch.build(build, client, seed=3)
    scale, direction = (dict(module.named_parameters())[name] for name in names_of_weight_norm(module))
    assert torch.allclose(scale, direction.norm(dim=1, keepdim=True))
    assert torch.isfinite(module(torch.ones(2, 30))).all()


def names_of_weight_norm(module):
    return [name for name, _ in module.named_parameters() if name != "bias"]


def test_spectral_norm(client):
    """Its buffers are the singular vectors that torch's power iteration finds in the drawn weight."""
    module = seedbed.torch.build(lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(30, 20)), client, seed=3)
    parametrisation = module.parametrizations.weight[0]
    u, _, v = torch.linalg.svd(module.parametrizations.weight.original.detach())
    assert (parametrisation._u @ u[:, 0]).abs() > 0.9
    assert (parametrisation._v @ v[0]).abs() > 0.9


def test_numbers_of_other_generators_are_functions_of_the_seed(client):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.full((3,), random.random()))
            self.b = nn.Parameter(torch.empty(3).normal_(std=float(np.random.uniform(0.1, 2))))
            self.c = nn.Parameter(torch.from_numpy(np.random.randn(4)))

    states = random.getstate(), np.random.get_state()[1].tolist()
    assert seedbed.torch.record(Net, seed=1, check=True) == seedbed.torch.record(Net, seed=1)
    assert (
        seedbed.torch.record(Net, seed=1).tensors[0].constant != seedbed.torch.record(Net, seed=2).tensors[0].constant
    )
    assert states == (random.getstate(), np.random.get_state()[1].tolist())


def test_a_recording_that_differs_each_time_is_found():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.ones(3))
            self.b = nn.Parameter(torch.from_numpy(np.random.default_rng().normal(size=3)))

    with pytest.raises(seedbed.InvalidRequest, match=r"^b: is initialised differently each time"):
        seedbed.torch.record(Net, check=True)


class Buffers(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("drawn", torch.randn(50))
        self.register_buffer("passing", torch.rand(50), persistent=False)
        self.register_buffer("order", torch.randperm(9))
        self.register_buffer("integers", torch.randint(3, 7, (40,)))
        self.register_buffer("table", torch.arange(4.0), persistent=False)
        self.register_buffer("elsewhere", torch.arange(4.0, device="cpu") ** 2, persistent=False)
        self.register_buffer("mask", torch.ones(2, 2, dtype=torch.bool))
        self.plain = torch.empty(3).fill_(2)


def test_buffers_have_their_values(client):
    module = seedbed.torch.on_meta(Buffers)
    assert module.table.tolist() == [0, 1, 2, 3]
    assert module.elsewhere.tolist() == [0, 1, 4, 9]
    assert module.mask.all()
    assert module.plain.tolist() == [2, 2, 2]
    assert type(module.plain) is torch.Tensor
    with pytest.raises(seedbed.InvalidRequest, match=r"give the model that seedbed\.torch\.record makes"):
        seedbed.torch.init_module(module, client, rules=[("*", "zeros", {})])
    seedbed.torch.init_module(module, client, model=seedbed.torch.record(Buffers, seed=1))
    assert sorted(module.order.tolist()) == list(range(9))
    assert module.order.dtype == torch.int64
    assert set(module.integers.tolist()) == {3, 4, 5, 6}
    assert module.drawn.std() > 0.5
    assert 0 <= module.passing.min() <= module.passing.max() < 1


def test_build_is_the_three_steps(client):
    def make():
        return nn.Sequential(nn.Linear(30, 20), nn.BatchNorm1d(20))

    module = seedbed.torch.on_meta(make)
    seedbed.torch.init_module(module, client, model=seedbed.torch.record(make, seed=4))
    built = seedbed.torch.build(make, client, seed=4)
    assert all(
        torch.equal(a, b) for a, b in zip(module.state_dict().values(), built.state_dict().values(), strict=True)
    )
    assert all(type(parameter) is nn.Parameter for parameter in built.parameters())


@pytest.mark.parametrize("convert", [nn.Module.half, nn.Module.double, nn.Module.bfloat16])
def test_conversions(client, convert):
    real = convert(nn.Linear(40, 30))
    module = seedbed.torch.build(lambda: convert(nn.Linear(40, 30)), client, seed=1)
    assert module.weight.dtype == real.weight.dtype
    assert_alike(module.weight.detach().double().numpy(), real.weight.detach().double().numpy())
    assert torch.equal(module.weight.float().to(real.weight.dtype), module.weight)  # drawn as float32


def test_attributes_of_parameters_stay():
    def make():
        layer = nn.Linear(3, 2)
        layer.weight.no_weight_decay = True  # type: ignore[attr-defined]
        layer.bias.requires_grad_(False)
        return layer

    module = seedbed.torch.on_meta(make)
    assert module.weight.no_weight_decay
    assert not module.bias.requires_grad


def test_the_code_sees_the_cpu():
    """Code that reads the device takes the same branch as without a recording."""

    def fill(weight):
        assert weight.device.type == "cpu"
        assert not weight.is_meta
        weight.fill_(1.0 if weight.device == torch.device("cpu") else 2.0)

    [spec] = seedbed.torch.record(parameter(fill)).tensors
    assert spec.HasField("ones")


def test_what_is_no_module_is_refused():
    with pytest.raises(seedbed.InvalidRequest, match="returned a Tensor"):
        seedbed.torch.record(lambda: torch.zeros(3))


def test_torch_is_as_before():
    """Modes, generators and functions are restored, also after an error."""
    state = torch.get_rng_state()
    with pytest.raises(seedbed.InvalidRequest):
        seedbed.torch.record(parameter(lambda w: w.normal_().sum().item()))
    seedbed.torch.record(lambda: nn.Linear(3, 3))
    assert torch.equal(torch.get_rng_state(), state)
    assert nn.Linear(3, 3).weight.device.type == "cpu"
    assert nn.init.orthogonal_(torch.empty(3, 3)).abs().max() <= 1


def test_recording_needs_no_memory_for_weights():
    """16 GiB of weights; measured is Python's memory, which the modules themselves take."""
    tracemalloc.start()
    model = seedbed.torch.record(lambda: nn.Sequential(*(nn.Linear(2**16, 2**14) for _ in range(4))))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(math.prod(spec.shape) for spec in model.tensors) * 4 > 16 * 2**30
    assert peak < 8 << 20


def test_a_recorded_model_is_a_model_file():
    model = seedbed.torch.record(lambda: nn.Embedding(5, 3, padding_idx=1))
    assert json_format.Parse(json.dumps(json_format.MessageToDict(model)), Model()) == model
