"""PEFT's adapters: what is recorded of them, and what is not. That they are filled alone: howto/trainers.md."""

import pytest
import torch

import seedbed
import seedbed.torch

pytestmark = pytest.mark.nightly


def make(kind, **options):
    from peft import LoraConfig, get_peft_model

    base = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 48))
    return get_peft_model(base, LoraConfig(r=8, target_modules=["0", "2"], init_lora_weights=kind, **options))


def adapters(kind):
    model = seedbed.torch.record(lambda: make(kind), seed=7)
    return {spec.name: spec for spec in model.tensors if "lora" in spec.name}


@pytest.mark.parametrize(("kind", "scheme"), [(True, "uniform"), ("gaussian", "normal")])
def test_the_laws_are_pefts(kind, scheme):
    specs = adapters(kind)
    assert len(specs) == 4
    for name, spec in specs.items():
        rank, fan_in = spec.shape
        if "lora_B" in name:
            assert spec.HasField("zeros")
        elif scheme == "uniform":  # kaiming_uniform_ with a = sqrt(5)
            assert spec.uniform.b == -spec.uniform.a == pytest.approx(fan_in**-0.5)
        else:
            assert (spec.normal.mean, spec.normal.std) == (0, 1 / rank)


@torch.no_grad()
def test_orthogonal_adapters_cancel_each_other():
    """Each is drawn, and takes one half of an orthogonal matrix: B A is 0, though neither is."""
    module, theirs = make("orthogonal"), make("orthogonal")
    with seedbed.connect("local:") as client:
        seedbed.torch.init_module(module, client, model=seedbed.torch.record(lambda: make("orthogonal"), seed=7))
    for index in (0, 2):
        ours, other = ([layer.lora_A["default"].weight, layer.lora_B["default"].weight] for layer in
                       (module.base_model.model[index], theirs.base_model.model[index]))  # fmt: skip
        a, b = ours
        assert (b @ a).abs().max() < 1e-6 * a.norm() * b.norm()
        for one, its in zip(ours, other, strict=True):
            assert one.std().item() == pytest.approx(its.std().item(), rel=0.3)


@pytest.mark.parametrize("kind", ["pissa", "olora"])
def test_adapters_made_of_the_base_weights_are_refused(kind):
    with pytest.raises(seedbed.InvalidRequest, match=r"base_layer\.weight: .* not served.*peft"):
        seedbed.torch.record(lambda: make(kind), seed=7)


def test_magnitudes_of_the_base_weights_stay_theirs():
    """DoRA's: the norms of the weights that are there, and not of those that would be drawn."""
    module, model = make(True, use_dora=True), seedbed.torch.record(lambda: make(True, use_dora=True))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    rules = [("*lora_A*", "kaiming_uniform", {"a": 5**0.5}), ("*", "zeros", {})]
    with seedbed.connect("local:") as client:
        with pytest.raises(
            seedbed.InvalidRequest, match=r"lora_.*has draws in common with base_model\..*left as it is"
        ):
            seedbed.torch.init_module(module, client, model=model, only="*lora_*")
        seedbed.torch.init_module(module, client, rules=rules, only=["*lora_A*", "*lora_B*"])
    changed = {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if "lora_A" in name}  # and B was zero


def test_magnitudes_of_drawn_base_weights():
    """DoRA's of a model that is filled as a whole: PEFT adds B A to the weights, which is zero, and takes the norms."""
    model = seedbed.torch.record(lambda: make(True, use_dora=True), seed=7)
    with seedbed.connect("local:") as client:
        module = make(True, use_dora=True)
        seedbed.torch.init_module(module, client, model=model)
    layer = module.base_model.model[0]
    magnitudes = layer.lora_magnitude_vector["default"].weight
    torch.testing.assert_close(magnitudes, layer.base_layer.weight.norm(dim=1))
