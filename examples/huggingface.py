"""Initialises a GPT-2 of transformers from its configuration, trains it for one step, and saves it.

    pip install transformers
    python examples/huggingface.py gpt2-124m [--target HOST:PORT]

You write no rules: the scheme of each parameter comes from the code of transformers. Nothing is downloaded.
"""

import argparse
from pathlib import Path

import torch
from google.protobuf import json_format
from transformers import GPT2Config, GPT2LMHeadModel

import seedbed
import seedbed.torch


def main() -> None:
    """Writes a folder for ``from_pretrained``, with the model file beside the weights."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument("--target", default="local:", help="the server; by default this process samples")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    config = GPT2Config(n_layer=arguments.layers)

    model = seedbed.torch.record(lambda: GPT2LMHeadModel(config), seed=arguments.seed)
    module = seedbed.torch.on_meta(lambda: GPT2LMHeadModel(config))
    with seedbed.connect(arguments.target) as client:
        seedbed.torch.init_module(module, client, model=model, progress=True)

    tokens = torch.arange(64).reshape(2, 32)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4)
    before = module(tokens, labels=tokens).loss
    before.backward()
    optimizer.step()
    after = module(tokens, labels=tokens).loss
    print(f"loss {before.item():.3f}, after one step {after.item():.3f}")

    module.save_pretrained(arguments.output)
    model_file = arguments.output / "seedbed.json"
    model_file.write_text(json_format.MessageToJson(model), encoding="utf-8")
    print(f"{arguments.output}: {len(model.tensors)} tensors, and {model_file.name}, which makes them again")


if __name__ == "__main__":
    main()
