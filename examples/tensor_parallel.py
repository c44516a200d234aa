"""Fills a model whose layers are split by tensor parallelism, and sharded by FSDP2 if there are ranks for both.

    python examples/tensor_parallel.py --tp 2 [--dp 2] [--target HOST:PORT]
    torchrun --nproc-per-node 8 examples/tensor_parallel.py --tp 4 --dp 2 --target HOST:PORT

Each rank requests only its own shards. It prints a digest of the weights, which is the same for every layout.
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
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import seedbed
import seedbed.torch

PLAN = {"up": ColwiseParallel(), "down": RowwiseParallel()}


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


def digest(module: nn.Module) -> str:
    """A digest of the full weights, gathered from all ranks."""
    hashed = hashlib.sha256()
    for parameter in module.parameters():
        whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        hashed.update(whole.detach().cpu().numpy().tobytes())
    return hashed.hexdigest()[:16]


def run(target: str, dp: int, tp: int) -> None:
    """Runs one rank."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    mesh = init_device_mesh(device, (dp, tp), mesh_dim_names=("dp", "tp"))

    model = seedbed.torch.record(build, seed=7)  # the scheme of each parameter, from the code above
    module = seedbed.torch.on_meta(build)
    for block in module[1:-1]:
        parallelize_module(block, mesh["tp"], PLAN)
    if dp > 1:
        for block in module[1:-1]:
            fully_shard(block, mesh=mesh["dp"])
        fully_shard(module, mesh=mesh["dp"])
    with seedbed.connect(target) as client:
        seedbed.torch.init_module(module, client, model=model, device=device)

    weights = digest(module)
    tokens = torch.arange(100, device=device)
    loss = nn.functional.cross_entropy(module(tokens), tokens)
    loss.backward()
    if dist.get_rank() == 0:
        print(f"weights {weights}; up.weight is {tuple(module[1].up.weight.placements)}; loss {loss.item():.3f}")
    dist.barrier()  # gloo's threads may still hold tensors, which they cannot free once Python ends
    dist.destroy_process_group()


def main() -> None:
    """Starts the ranks, unless torchrun has started them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--target", default="local:", help="the server; by default each rank samples for itself")
    parser.add_argument("--dp", type=int, default=1, help="ranks along which FSDP2 shards")
    parser.add_argument("--tp", type=int, default=2, help="ranks along which layers are split")
    arguments = parser.parse_args()
    if "RANK" in os.environ:
        run(arguments.target, arguments.dp, arguments.tp)
        return
    ranks = arguments.dp * arguments.tp
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    sys.exit(subprocess.run([*torchrun, *sys.argv], check=False).returncode)


if __name__ == "__main__":
    main()
