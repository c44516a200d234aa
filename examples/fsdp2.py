"""Fills a model that FSDP2 shards, where each rank requests only its own shards, and trains it for a few steps.

    python examples/fsdp2.py --ranks 2 [--target HOST:PORT]
    torchrun --nproc-per-node 4 examples/fsdp2.py --target HOST:PORT

It prints a digest of the weights, which is the same for every number of ranks.
"""

import argparse
import hashlib
import os
import subprocess
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import seedbed
import seedbed.torch


class Block(nn.Module):
    """A layer with a residual connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Adds the layer's output to its input."""
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


def build() -> nn.Module:
    """A model with torch's own initialisers."""
    return nn.Sequential(nn.Embedding(1000, 64), *(Block(64) for _ in range(4)), nn.Linear(64, 1000))


def train(module: nn.Module, tokens: torch.Tensor) -> list[float]:
    """Trains the model to repeat its input, and returns the losses."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    losses = []
    for _ in range(5):
        loss = nn.functional.cross_entropy(module(tokens), tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def digest(module: nn.Module) -> str:
    """A digest of the full weights, gathered from all ranks."""
    hashed = hashlib.sha256()
    for parameter in module.parameters():
        hashed.update(parameter.detach().full_tensor().cpu().numpy().tobytes())
    return hashed.hexdigest()[:16]


def run(target: str) -> None:
    """Runs one rank."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    mesh = init_device_mesh(device, (int(os.environ["WORLD_SIZE"]),))

    model = seedbed.torch.record(build, seed=7)  # the scheme of each parameter, from the code above
    module = seedbed.torch.on_meta(build)
    for block in module[1:-1]:
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    with seedbed.connect(target) as client:
        seedbed.torch.init_module(module, client, model=model)

    weights = digest(module)
    losses = train(module, torch.arange(100, device=device))
    if dist.get_rank() == 0:
        print(f"weights {weights}; losses {', '.join(f'{loss:.3f}' for loss in losses)}")
    dist.barrier()  # gloo's threads may still hold tensors, which they cannot free once Python ends
    dist.destroy_process_group()


def main() -> None:
    """Starts the ranks, unless torchrun has started them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--target", default="local:", help="the server; by default each rank samples for itself")
    parser.add_argument("--ranks", type=int, default=2)
    arguments = parser.parse_args()
    if "RANK" in os.environ:
        run(arguments.target)
        return
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={arguments.ranks}"]
    sys.exit(subprocess.run([*torchrun, *sys.argv], check=False).returncode)


if __name__ == "__main__":
    main()
