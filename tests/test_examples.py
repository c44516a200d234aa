"""The model files under examples/: what they promise, and what the service makes of them."""

import json
import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from google.protobuf import json_format

import seedbed
from seedbed.v1 import DataType, Model

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

# Tensors and parameters, as the models' own libraries count them.
MODELS = {
    "gpt2-124m": (148, 124_439_808),
    "llama-3.1-8b": (291, 8_030_261_248),
    "resnet-50": (161, 25_557_032),
    "vit-b16": (200, 86_567_656),
}

LAWS = {
    "gpt2-124m": {"normal": 50, "constant": 98},
    "llama-3.1-8b": {"normal": 226, "constant": 65},
    "resnet-50": {"normal": 53, "uniform": 2, "constant": 106},
    "vit-b16": {"normal": 74, "trunc_normal": 2, "constant": 124},
}

SOURCE = {
    "model": "tiny",
    "params": [
        {
            "name": "w",
            "shape": [4, 3],
            "init": "kaiming_normal_",
            "args": {"a": 0, "mode": "fan_out", "nonlinearity": "relu"},
        },
        {"name": "b", "shape": [4], "init": "zeros_", "args": {}},
    ],
}


def read(name):
    return json_format.Parse((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"), Model())


def test_every_model_file_is_known_here():
    assert {path.stem for path in EXAMPLES.glob("*.json")} == MODELS.keys()


@pytest.mark.parametrize("name", MODELS)
def test_a_model_file_counts_what_the_model_has(name):
    model = read(name)
    tensors, parameters = MODELS[name]
    assert model.name == name
    assert len({spec.name for spec in model.tensors}) == len(model.tensors) == tensors
    assert sum(math.prod(spec.shape) for spec in model.tensors) == parameters
    assert all(spec.dtype != DataType.DATA_TYPE_UNSPECIFIED and spec.algorithm_version == 1 for spec in model.tensors)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_file_is_canonical_and_has_a_tensor_a_line(name):
    text = (EXAMPLES / f"{name}.json").read_text(encoding="utf-8")
    assert json.loads(text) == json_format.MessageToDict(read(name))
    assert len(text.splitlines()) == MODELS[name][0] + 2


@pytest.mark.parametrize("name", MODELS)
def test_the_service_knows_the_law_of_every_tensor(name):
    with seedbed.connect("local:") as client:
        descriptions = [client.describe(spec) for spec in read(name).tensors]
    assert Counter(description.law.WhichOneof("law") for description in descriptions) == LAWS[name]


def test_the_laws_are_those_of_the_libraries():
    with seedbed.connect("local:") as client:
        law = {spec.name: client.describe(spec).law for spec in read("gpt2-124m").tensors}
        assert law["transformer.wte.weight"].normal.std == 0.02
        assert law["transformer.h.0.attn.c_proj.weight"].normal.std == 0.02 / math.sqrt(24)
        law = {spec.name: client.describe(spec).law for spec in read("resnet-50").tensors}
        stem = law["resnet.embedder.embedder.convolution.weight"].normal
        assert stem.std == pytest.approx(math.sqrt(2 / (64 * 7 * 7)), rel=1e-15)
        assert law["classifier.1.weight"].uniform.b == pytest.approx(1 / math.sqrt(2048), rel=1e-15)


def test_the_script_makes_a_model_file(tmp_path):
    (tmp_path / "tiny.json").write_text(json.dumps(SOURCE), encoding="utf-8")
    (tmp_path / "out").mkdir()
    command = [sys.executable, EXAMPLES / "make_models.py", tmp_path, tmp_path / "out"]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ})
    model = json_format.Parse((tmp_path / "out" / "tiny.json").read_text(encoding="utf-8"), Model())
    assert [spec.WhichOneof("scheme") for spec in model.tensors] == ["kaiming_normal", "zeros"]
    assert list(model.tensors[0].shape) == [4, 3]
