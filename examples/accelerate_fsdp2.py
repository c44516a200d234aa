"""Fills a model that Accelerate prepares: in one process, under DDP, or sharded by FSDP2.

    torchrun --nproc-per-node 2 examples/accelerate_fsdp2.py [HOST:PORT]

On GPUs the ranks shard it, and each asks for its part; on the CPU Accelerate knows DDP alone. The weights, whose digest
is printed, are the same either way: those of `fsdp2.py`.
"""

import hashlib
import sys

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin, init_empty_weights
from fsdp2 import build
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import seedbed
import seedbed.torch


def accelerator() -> Accelerator:
    """One that shards by FSDP2 where it can, and not again what is sharded."""
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="NO_WRAP", cpu_ram_efficient_loading=False)
    return Accelerator(fsdp_plugin=plugin, cpu=not torch.cuda.is_available())


def prepared(accelerator: Accelerator, target: str) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A model, sharded and filled, and its optimizer."""
    model = seedbed.torch.record(build, seed=7)
    with init_empty_weights():
        module = build()
    if accelerator.is_fsdp2:  # before prepare, which would give the optimizer no parameters of a model without memory
        for block in module[1:-1]:
            fully_shard(block)
        fully_shard(module)
    with seedbed.connect(target) as client:
        seedbed.torch.init_module(module, client, model=model, device=accelerator.device)
    return accelerator.prepare(module, torch.optim.AdamW(module.parameters(), lr=0.01))


def train(accelerator: Accelerator, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> list[float]:
    """The losses of a few steps of learning to repeat what is read."""
    tokens = torch.arange(100, device=accelerator.device)
    losses = []
    for _ in range(5):
        loss = torch.nn.functional.cross_entropy(module(tokens), tokens)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    return losses


def digest(module: torch.nn.Module) -> str:
    """A digest of the full weights, gathered from all ranks."""
    hashed = hashlib.sha256()
    for parameter in module.parameters():
        whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        hashed.update(whole.detach().cpu().view(torch.uint8).numpy().tobytes())  # NumPy has no bfloat16
    return hashed.hexdigest()[:16]


def main() -> None:
    """What each rank does."""
    accelerate = accelerator()
    module, optimizer = prepared(accelerate, sys.argv[1] if len(sys.argv) > 1 else "local:")
    accelerate.print(f"weights {digest(module)}")
    losses = train(accelerate, module, optimizer)
    accelerate.print(f"losses {', '.join(f'{loss:.3f}' for loss in losses)}")
    accelerate.wait_for_everyone()
    accelerate.end_training()


if __name__ == "__main__":
    main()
