"""Fills a model that DeepSpeed's ZeRO-3 partitions, each rank its own partition alone, and trains it for a few steps.

    torchrun --nproc-per-node 2 examples/deepspeed_zero3.py [HOST:PORT]

The weights, whose digest is printed, are the same for every number of ranks: those of `fsdp2.py`.
"""

import hashlib
import sys

import deepspeed
import torch
import torch.distributed as dist
from fsdp2 import build

import seedbed
import seedbed.torch

CONFIG = {
    "train_micro_batch_size_per_gpu": 1,
    "zero_optimization": {"stage": 3},
    "zero_force_ds_cpu_optimizer": False,
}


def filled(target: str) -> torch.nn.Module:
    """The partitioned model; none of its parameters is gathered."""
    model = seedbed.torch.record(build, seed=7)  # outside of zero.Init, which would partition what is recorded
    with deepspeed.zero.Init(config_dict_or_path=CONFIG):
        module = build()
    with seedbed.connect(target) as client:
        seedbed.torch.init_module(module, client, model=model)  # before deepspeed.initialize, which copies the weights
    return module


def train(module: torch.nn.Module) -> list[float]:
    """The losses of a few steps of learning to repeat what is read."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=CONFIG)
    tokens = torch.arange(100, device=engine.device)
    losses = []
    for _ in range(5):
        loss = torch.nn.functional.cross_entropy(engine(tokens), tokens)
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
    engine.destroy()
    return losses


def digest(module: torch.nn.Module) -> str:
    """A digest of the full weights, gathered from all ranks for this alone."""
    hashed = hashlib.sha256()
    with deepspeed.zero.GatheredParameters(list(module.parameters())):
        for parameter in module.parameters():
            hashed.update(parameter.detach().cpu().view(torch.uint8).numpy().tobytes())  # NumPy has no bfloat16
    return hashed.hexdigest()[:16]


def main() -> None:
    """What each rank does."""
    deepspeed.init_distributed()
    module = filled(sys.argv[1] if len(sys.argv) > 1 else "local:")
    weights = digest(module)
    losses = train(module)
    if dist.get_rank() == 0:
        print(f"weights {weights}; losses {', '.join(f'{loss:.3f}' for loss in losses)}")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
