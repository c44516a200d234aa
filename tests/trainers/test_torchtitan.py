"""torchtitan's Trainer, over gloo: every layout begins with the weights of one process, without a seed checkpoint."""

import argparse
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from _helpers import ranks
from _helpers.command import process
from safetensors.torch import load_file

import seedbed
import seedbed.torch

pytestmark = pytest.mark.nightly

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LAYOUTS = [("llama3", 2), ("llama3", 1), ("qwen3", 2)]
# The debug model as transformers would say it.
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "intermediate_size": 768,
    "num_hidden_layers": 6, "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 2048,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "initializer_range": 0.02,
    "rope_theta": 500000.0,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 8192},
}  # fmt: skip


def example():
    sys.path.insert(0, str(EXAMPLES))
    import torchtitan_trainer

    return torchtitan_trainer


def arguments(**given):
    return argparse.Namespace(
        **{"model": "llama3", "target": "local:", "seed": 7, "tp": 1, "steps": 3, "spmd": "partial_dtensor",
           "checkpoint": None, "load": None, **given}
    )  # fmt: skip


def begin(target, checkpoint):
    """What each of four ranks does."""
    os.environ.update(RANK=str(torch.distributed.get_rank()), LOCAL_RANK="0", WORLD_SIZE="4")
    titan = example()
    reports = []
    for model, tp in LAYOUTS:
        trainer = titan.build(titan.config_of(arguments(model=model, tp=tp, target=target)))
        [module] = trainer.model_parts
        reports.append(
            {"held": titan.held(module), "received": titan.received[0], "weights": titan.digest(module)}
            | ({"losses": titan.train(trainer)} if model == "llama3" else {})
        )
        trainer.close()
    trainer = titan.build(titan.config_of(arguments(tp=2, load=checkpoint, checkpoint=checkpoint + "-out")))
    state = {name: whole(tensor) for name, tensor in trainer.model_parts[0].state_dict().items()}
    reports.append(trainer.checkpointer.sd_adapter.to_hf(state))
    trainer.close()
    return reports


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def in_one_process(model):
    """The digest of the weights of a process without ranks."""
    titan = example()
    config = __import__(f"torchtitan.models.{model}", fromlist=["model_registry"]).model_registry("debugmodel").model

    def initialised():
        module = config.build()
        module.init_weights()
        return module

    with seedbed.connect("local:") as client:
        return titan.digest(seedbed.torch.build(initialised, client, seed=7))


def run(*command):
    started = process(*command)
    _, errors = started.communicate(timeout=60)
    assert started.returncode == 0, errors


def test_every_layout_begins_the_same(server, tmp_path):
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    run("record", "--hf-config", folder / "config.json", "-o", tmp_path / "model.json")
    run("model", tmp_path / "model.json", "-o", folder, "--max-shard-size", "10MB")

    *layouts, loaded = zip(*ranks.run(4, begin, server, str(folder)), strict=True)
    for (model, _), reports in zip(LAYOUTS, layouts, strict=True):
        assert {report["weights"] for report in reports} == {in_one_process(model)}
        for report in reports:
            assert report["received"] == report["held"]
    (first, _, _, _), (second, _, _, _) = layouts[:2]
    assert first["losses"] == pytest.approx(second["losses"], rel=1e-3)
    assert len(first["losses"]) == 3

    written = {}
    for file in folder.glob("*.safetensors"):
        written |= load_file(file)
    for tensors in loaded:
        assert tensors.keys() == written.keys()
        assert all(torch.equal(tensors[name], written[name]) for name in written)
