"""The command ``seedbed record``: its files, its messages, and seed checkpoints made with it."""

import json
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers
from google.protobuf import json_format

import seedbed
import seedbed.torch
from seedbed.v1 import Model

CODE = '''
import random

import torch
from torch import nn


def build():
    print("building")
    return nn.Linear(8, 4)


class Net(nn.Module):
    """A scheme, parts, an expression and computed values."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)
        self.embedding = nn.Embedding(10, 4, padding_idx=0)
        self.squares = nn.Parameter(torch.randn(6, 6) ** 2)
        self.table = nn.Parameter(torch.arange(12.0).sin())


class Holder:
    build = Net


def needy(config, size=3):
    return nn.Linear(size, size)


def broken():
    return nn.Linear(4, 4).no_such


def mismatched():
    return nn.Linear(torch.zeros(2, 3) @ torch.zeros(2, 3), 4)


def unset():
    module = nn.Linear(4, 4)
    module.bias = nn.Parameter(torch.empty(4))
    return module


def entropy():
    module = nn.Linear(4, 4)
    nn.init.constant_(module.bias, random.SystemRandom().random())
    return module


def copies():
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2, enable_nested_tensor=False)


ready = nn.Linear(2, 2)
number = 3
'''
GPT2 = {
    "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": 2, "n_embd": 32, "n_head": 2,
    "vocab_size": 100, "n_positions": 16, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "hidden_size": 32,
    "intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 100, "dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _folder(monkeypatch, tmp_path):
    """An empty folder with the code, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("SEEDBED_TARGET", raising=False)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "code.py").write_text(CODE, encoding="utf-8")
    path = list(sys.path)
    yield
    assert sys.path == path
    for name in [name for name in sys.modules if name.split(".")[0] in ("own", "worse")]:
        del sys.modules[name]


def recorded(command, *arguments):
    """The model that is recorded, and the summary."""
    code, out, _ = command("record", *arguments, "-o", "model.json")
    assert code == 0
    return json_format.Parse(Path("model.json").read_text(encoding="utf-8"), Model()), out


@pytest.fixture
def refusal(seedbed_command, tmp_path):
    """The error of a command that is refused, and writes nothing."""

    def run(*arguments):
        before = sorted(tmp_path.iterdir())
        code, out, err = seedbed_command("record", *arguments, "-o", "model.json")
        assert (code, out) == (2, "")
        assert "Traceback" not in err
        written = set(tmp_path.iterdir()) - set(before)
        assert not [path for path in written if path.name != "__pycache__"]
        return err

    return run


def test_a_function_and_a_seed(seedbed_command):
    model, out = recorded(seedbed_command, "own.code:build", "--seed", "0x7")
    assert model == seedbed.torch.record(lambda: torch.nn.Linear(8, 4), seed=7)
    assert out == "model.json: 2 tensors, 36 parameters: 2 by one scheme; 0.0 MiB of literals\n"


def test_the_summary_tells_kinds_apart(seedbed_command):
    model, out = recorded(seedbed_command, "own.code:Holder.build")
    assert model.name == "Net"
    assert "5 tensors, 224 parameters: 2 by one scheme, 1 in parts, 1 literal, 1 by expressions; 0.0 MiB" in out


def test_the_file_is_one_for_the_other_commands(ok, seedbed_command):
    model, _ = recorded(seedbed_command, "own.code:Net", "--seed", "3")
    ok("model", "model.json", "-o", "model.safetensors")
    found = safetensors.torch.load_file("model.safetensors")
    with seedbed.connect("local:") as client:
        for name, values in client.init_model(model):
            assert (found[name].numpy() == values).all()


def test_to_standard_output(seedbed_command, tmp_path):
    code, out, err = seedbed_command("record", "own.code:build", "-o", "-")
    assert code == 0
    assert len(json_format.Parse(out, Model()).tensors) == 2
    assert err == "building\n-: 2 tensors, 36 parameters: 2 by one scheme; 0.0 MiB of literals\n"
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_dtype(seedbed_command):
    model, _ = recorded(seedbed_command, "own.code:build", "--dtype", "bfloat16")
    assert {seedbed.dtypes.name_of(spec.dtype) for spec in model.tensors} == {"bfloat16"}
    assert torch.get_default_dtype() == torch.float32


def test_copies(seedbed_command):
    name = "layers.1.linear1.weight"
    for options, stream in ((), "layers.0.linear1.weight"), (("--independent-copies",), ""):
        model, _ = recorded(seedbed_command, "own.code:copies", *options)
        assert next(spec.stream for spec in model.tensors if spec.name == name) == stream


def test_check(refusal, seedbed_command):
    assert "bias: is initialised differently each time that the code runs" in refusal("own.code:entropy", "--check")
    recorded(seedbed_command, "own.code:entropy")
    recorded(seedbed_command, "own.code:Net", "--check")


@pytest.mark.parametrize(
    ("arguments", "complaints"),
    [
        ((), ["give either MODULE:NAME", "--hf-config"]),
        (("own.code:build", "--hf-config", "c.json"), ["give either MODULE:NAME"]),
        (("own.code:build", "--hf-model-class", "GPT2Model"), ["--hf-model-class", "requires --hf-config"]),
        (("own.code",), ["'own.code' is not MODULE:NAME"]),
        (("own.code:build()",), ["is not MODULE:NAME", "a call is not supported"]),
        (("own/code.py:build",), ["is not MODULE:NAME"]),
        (("no.such:build",), ["MODULE:NAME", "there is no module 'no'; run the command in the directory that"]),
        (("own.such:build",), ["there is no module 'own.such'"]),
        (("own.code:bild",), ["own.code has no 'bild': own.code has no attribute 'bild'"]),
        (("own.code:Holder.bild",), ["Holder has no attribute 'bild'"]),
        (("own.code:ready",), ["own.code:ready is a Linear; give a function or class"]),
        (("own.code:number",), ["own.code:number is a int; give a function or class"]),
        (("own.code:needy",), ["own.code:needy needs arguments: config; write a function without arguments"]),
        (("own.code:broken",), ["own.code:broken failed at", "code.py:33: AttributeError: ", "no_such"]),
        (("own.code:mismatched",), ["code.py:37: RuntimeError: "]),
        (("own.code:unset",), ["bias: is never initialised"]),
        (("own.code:Holder",), ["build: returned a Holder"]),
    ],
)
def test_refusals(refusal, arguments, complaints):
    err = refusal(*arguments)
    for complaint in complaints:
        assert complaint in err


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("import torch\n1 / 0\n", "worse.py:2: ZeroDivisionError: division by zero"),
        ("def f(:\n", "worse.py:1: SyntaxError: "),
        ("import no_such_package\n", "worse.py:1: ModuleNotFoundError: No module named 'no_such_package'"),
    ],
)
def test_code_that_cannot_be_imported(refusal, tmp_path, code, complaint):
    (tmp_path / "worse.py").write_text(code, encoding="utf-8")
    err = refusal("worse:f")
    assert "worse failed at " in err
    assert complaint in err


@pytest.mark.parametrize(
    ("package", "arguments", "requirement"),
    [
        ("torch", ("own.code:build",), "seedbed[torch]"),
        ("transformers", ("--hf-config", "config.json"), "transformers>=5"),
    ],
)
def test_what_is_not_installed(monkeypatch, seedbed_command, package, arguments, requirement):
    name = "seedbed.torch" if package == "torch" else package
    monkeypatch.setitem(sys.modules, name, None)
    code, _, err = seedbed_command("record", *arguments, "-o", "model.json")
    assert code == 2
    assert f"{package} is not installed" in err
    assert f"pip install '{requirement}'" in err


# transformers


@pytest.mark.parametrize(
    ("fields", "kind"), [(GPT2, transformers.GPT2LMHeadModel), (LLAMA, transformers.LlamaForCausalLM)]
)
def test_a_seed_checkpoint(seedbed_command, ok, tmp_path, fields, kind):
    (tmp_path / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    recorded(seedbed_command, "--hf-config", "config.json", "--seed", "7")
    ok("model", "model.json", "-o", "model.safetensors")
    loaded, report = kind.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    with seedbed.connect("local:") as client:
        built = seedbed.torch.build(lambda: kind._from_config(config), client, seed=7).state_dict()
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == getattr(torch, fields.get("dtype", "float32"))
        assert torch.equal(tensor, built.pop(name)), name
    assert not built


def test_which_class_and_dtype(seedbed_command, tmp_path):
    fields = {name: value for name, value in GPT2.items() if name != "architectures"}
    (tmp_path / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    model, _ = recorded(seedbed_command, "--hf-config", "config.json")
    assert (model.name, model.tensors[0].name) == ("GPT2Model", "wte.weight")
    model, _ = recorded(
        seedbed_command, "--hf-config", "config.json", "--hf-model-class", "GPT2LMHeadModel", "--dtype", "float16"
    )
    assert model.name == "GPT2LMHeadModel"
    assert {seedbed.dtypes.name_of(spec.dtype) for spec in model.tensors} == {"float16"}


@pytest.mark.parametrize(
    ("text", "arguments", "complaint"),
    [
        ("{", (), "config.json: not JSON: "),
        ("[]", (), "it has no model_type"),
        ("{}", (), "it has no model_type"),
        ('{"model_type": "none"}', (), "the installed transformers has no model_type 'none'"),
        (json.dumps(GPT2), ("--hf-model-class", "GPT3"), "transformers has no model class 'GPT3'"),
        (json.dumps(GPT2), ("--hf-model-class", "GPT2Config"), "transformers has no model class 'GPT2Config'"),
        (json.dumps({**GPT2, "n_head": 5}), (), "config.json failed at "),
    ],
)
def test_configurations_that_are_refused(refusal, tmp_path, text, arguments, complaint):
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    assert complaint in refusal("--hf-config", "config.json", *arguments)


def test_a_configuration_that_is_missing(refusal):
    assert "c.json: No such file or directory" in refusal("--hf-config", "c.json")
