"""A LightningModule that fills itself: in one process, under DDP, or sharded by FSDP2, each rank its own shards alone.

    python examples/lightning_fsdp2.py --devices 2 --strategy fsdp2 [--target HOST:PORT]

The weights, whose digest is printed, are the same for every strategy and number of ranks: those of `fsdp2.py`.
"""

import argparse
import hashlib

import lightning
import torch
import torch.distributed as dist
from fsdp2 import build
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import seedbed
import seedbed.torch


class Repeater(lightning.LightningModule):
    """Learns to repeat what it reads."""

    def __init__(self, target: str = "local:") -> None:
        super().__init__()
        self.target = target
        self.net: torch.nn.Sequential | None = None

    def configure_model(self) -> None:
        """Builds the net without memory, shards it, and fills what is on this rank."""
        if self.net is not None:  # Lightning calls this again, to test after fit
            return
        model = seedbed.torch.record(build, seed=7)
        net = seedbed.torch.on_meta(build)
        if self.device_mesh is not None:  # with ModelParallelStrategy
            mesh = self.device_mesh["data_parallel"]
            for block in net[1:-1]:
                fully_shard(block, mesh=mesh)
            fully_shard(net, mesh=mesh)
        with seedbed.connect(self.target) as client:
            seedbed.torch.init_module(net, client, model=model)
        self.net = net

    def on_fit_start(self) -> None:
        """Prints the digest of the full weights."""
        weights = digest(self.net)
        self.print(f"weights {weights}")

    def training_step(self, tokens: torch.Tensor) -> torch.Tensor:
        """The loss, which Lightning propagates back."""
        loss = torch.nn.functional.cross_entropy(self.net(tokens), tokens)
        self.print(f"loss {loss.item():.3f}")
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Called once the net is filled."""
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def digest(module: torch.nn.Module) -> str:
    """A digest of the full weights, gathered from all ranks."""
    hashed = hashlib.sha256()
    for parameter in module.parameters():
        whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        hashed.update(whole.detach().cpu().view(torch.uint8).numpy().tobytes())  # NumPy has no bfloat16
    return hashed.hexdigest()[:16]


def fit(module: Repeater, devices: int, strategy: str | Strategy) -> None:
    """Trains for a few steps."""
    if strategy == "fsdp2":
        strategy = ModelParallelStrategy(data_parallel_size=devices, tensor_parallel_size=1)
    trainer = lightning.Trainer(
        devices=devices,
        strategy=strategy,
        max_epochs=5,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, torch.utils.data.DataLoader([torch.arange(100)], batch_size=None))


def main() -> None:
    """Lightning starts the other ranks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--target", default="local:", help="the server; default none, each rank samples by itself")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--strategy", default="auto", help="auto, ddp or fsdp2")
    arguments = parser.parse_args()
    fit(Repeater(arguments.target), arguments.devices, arguments.strategy)
    if dist.is_initialized():
        dist.barrier()  # gloo's threads may still hold tensors, which they cannot free once Python ends
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
