"""PEFT: adapters are filled as PEFT's own code would fill them, and the weights beside them stay as they are."""

import math

import pytest
import torch

import seedbed
import seedbed.torch
from seedbed.v1 import Model

pytestmark = pytest.mark.slow

ADAPTERS = "*.lora_*"
LAYER = "base_model.model.transformer.h.0.attn.c_attn"
RULES = [("*.lora_A.*", "kaiming_uniform", {"a": math.sqrt(5)}), ("*.lora_B.*", "zeros", {})]


def base():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=20, n_positions=8, bos_token_id=0, eos_token_id=0)
    )


def adapted(low_cpu_mem_usage=False, **options):
    """A model with adapters of rank 8 beside matrices of 16 inputs and 48 outputs."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=8, target_modules=["c_attn"], fan_in_fan_out=True, **options)
    return get_peft_model(base(), config, low_cpu_mem_usage=low_cpu_mem_usage)


def record(**options):
    return seedbed.torch.record(lambda: adapted(**options), seed=7)


def parameters(module, *, adapters):
    """Either the adapters or all else, copied."""
    return {
        name: parameter.detach().clone()
        for name, parameter in module.named_parameters()
        if (".lora_" in name) == adapters
    }


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.fixture(scope="module")
def client():
    with seedbed.connect("local:") as client:
        yield client


@pytest.fixture(scope="module")
def filled(client):
    """What the adapters hold if they are filled together with all else."""
    module = adapted()
    seedbed.torch.init_module(module, client, model=record())
    return parameters(module, adapters=True)


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True], ids=["in memory", "on meta"])
@pytest.mark.parametrize("what", ["model", "part of a model", "rules"])
def test_adapters_are_filled_alone(client, filled, what, low_cpu_mem_usage):
    how = {"model": record()} if what != "rules" else {"rules": RULES, "seed": 7}
    if what == "part of a model":
        how["model"] = Model(tensors=[tensor for tensor in how["model"].tensors if ".lora_" in tensor.name])
    module = adapted(low_cpu_mem_usage)
    before = parameters(module, adapters=False)
    seedbed.torch.init_module(module, client, only=ADAPTERS, **how)
    assert_equal(parameters(module, adapters=False), before)
    assert_equal(parameters(module, adapters=True), filled)
    seedbed.torch.verify_module(module, client, only=ADAPTERS, **how)
    with pytest.raises(seedbed.Mismatch if what == "model" else seedbed.InvalidRequest):
        seedbed.torch.verify_module(module, client, **how)


def test_it_trains(client):
    module = adapted()
    seedbed.torch.init_module(module, client, model=record(), only=ADAPTERS)
    before = parameters(module, adapters=False)
    optimizer = torch.optim.Adam([parameter for parameter in module.parameters() if parameter.requires_grad], lr=0.05)
    tokens, losses = torch.arange(8)[None], []
    for _ in range(10):
        loss = module(input_ids=tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert_equal(parameters(module, adapters=False), before)


@pytest.mark.parametrize("init", [True, "eva", "lora_ga"])
def test_by_default_a_is_uniform_and_b_zero(init):
    """As reset_lora_parameters has it: kaiming_uniform_(a=sqrt(5)). The latter two wait for data, and begin so."""
    a, b = laws(init)
    assert a.uniform.b == -a.uniform.a == pytest.approx(1 / math.sqrt(16))
    assert b.WhichOneof("scheme") == "zeros"


def test_gaussian():
    a, b = laws("gaussian")
    assert (a.normal.mean, a.normal.std) == (0, pytest.approx(1 / 8))
    assert b.WhichOneof("scheme") == "zeros"


def test_random_b():
    a, b = laws(False)
    assert a.uniform.b == pytest.approx(1 / math.sqrt(16))
    assert b.uniform.b == pytest.approx(1 / math.sqrt(8))


def laws(init):
    """What fills A and B of a layer."""
    tensors = {tensor.name: tensor for tensor in record(init_lora_weights=init).tensors}
    return [tensors[f"{LAYER}.{name}.default.weight"] for name in ("lora_A", "lora_B")]


def test_orthogonal(client):
    """Both are drawn, of halves of one orthogonal matrix, so that their product is zero."""
    module = adapted(init_lora_weights="orthogonal")
    seedbed.torch.init_module(module, client, model=record(init_lora_weights="orthogonal"), only=ADAPTERS)
    a, b = (module.get_parameter(f"{LAYER}.{name}.default.weight") for name in ("lora_A", "lora_B"))
    assert a.std() > 0.01
    assert b.std() > 0.01
    assert (b @ a).abs().max() < 1e-6


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora", "mica"])
def test_what_decomposes_the_base_weights_is_refused(init):
    with pytest.raises(seedbed.InvalidRequest, match=rf"{LAYER}\..*(svd|decomposition).*is not served"):
        record(init_lora_weights=init)


def test_what_is_computed_of_the_base_weights_is_not_filled(client):
    """DoRA's magnitudes are the norms of the weights that are there, and not of those that were recorded."""
    module = adapted(use_dora=True)
    before = parameters(module, adapters=True)
    with pytest.raises(seedbed.InvalidRequest, match=r"magnitude.*has draws in common with .*base_layer\.weight"):
        seedbed.torch.init_module(module, client, model=record(use_dora=True), only=ADAPTERS)
    assert_equal(parameters(module, adapters=True), before)
    seedbed.torch.init_module(module, client, rules=RULES, only=["*.lora_A.*", "*.lora_B.*"])
    magnitudes = f"{LAYER}.lora_magnitude_vector.default.weight"
    assert torch.equal(module.get_parameter(magnitudes), before[magnitudes])
    assert not torch.equal(
        module.get_parameter(f"{LAYER}.lora_A.default.weight"), before[f"{LAYER}.lora_A.default.weight"]
    )
