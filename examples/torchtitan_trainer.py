"""Trains torchtitan's debug models from the same weights for every layout, without a seed checkpoint.

    python examples/torchtitan_trainer.py --ranks 4 --tp 2 [--model qwen3] [--target HOST:PORT]
    torchrun --nproc-per-node 8 examples/torchtitan_trainer.py --tp 2 --target HOST:PORT

It uses torchtitan's own Trainer, with its model, parallelisms and optimizer; only the function `from_seedbed` is new.
Each rank requests only its own shards. It prints a digest of the weights, which is the same for every layout.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

import seedbed
import seedbed.torch

if not torch.accelerator.is_available():
    # torchtitan 0.3 assumes a GPU. These are the functions that its Trainer calls, for a CPU.
    torch._utils._get_available_device_type = lambda: "cpu"
    torch.cpu.get_device_name = lambda _=None: "CPU"
    torch.cpu.get_device_properties = lambda _=None: SimpleNamespace(total_memory=1 << 34)
    torch.cpu.memory_stats = lambda _=None: {}
    torch.cpu.reset_peak_memory_stats = torch.cpu.empty_cache = lambda: None

from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.tokenizer import BaseTokenizer
from torchtitan.distributed import utils as dist_utils
from torchtitan.models.common.attention import ScaledDotProductAttention
from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.protocols.module import Module as TitanModule
from torchtitan.trainer import Trainer


def from_seedbed(spec: ModelSpec, target: str, seed: int) -> ModelSpec:
    """The same model, but when the Trainer calls ``init_weights``, Seedbed fills the shards of each rank."""

    def initialised() -> torch.nn.Module:
        model = spec.model.build()
        model.init_weights()
        return model

    def parallelize(model: torch.nn.Module, **settings: object) -> torch.nn.Module:
        recorded = seedbed.torch.record(initialised, seed)
        parallel = spec.parallelize_fn(model, **settings)

        def init_weights(**settings: Any) -> None:
            # The model still initialises its buffers and ties, but skips its parameters.
            with mock.patch.object(TitanModule, "_init_self_parameters"):
                type(parallel).init_weights(parallel, **settings)
            with seedbed.connect(target) as client:
                seedbed.torch.init_module(parallel, client, model=recorded, progress=_count)

        parallel.init_weights = init_weights
        return parallel

    return dataclasses.replace(spec, parallelize_fn=parallelize)


received = [0]
"""The number of bytes that this rank has received."""


def _count(done: int, _: int) -> None:
    received[0] = done


class Letters(BaseTokenizer):
    """Replaces a model's tokenizer, which would have to be downloaded."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseTokenizer.Config):
        pass

    def __init__(self, config: Config, **_: object) -> None:
        super().__init__()

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: list[int]) -> str:
        return bytes(tokens).decode()

    def get_vocab_size(self) -> int:
        return 256


class Counting(BaseDataLoader):
    """Replaces a data set: batches of consecutive numbers, the same for every layout."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        pass

    def __init__(
        self, config: Config, *, dp_world_size: int, dp_rank: int, seq_len: int, local_batch_size: int, **_: object
    ) -> None:
        self._rows = range(dp_rank * local_batch_size, (dp_rank + 1) * local_batch_size)
        self._in_all = dp_world_size * local_batch_size
        self._length = seq_len
        self._batch = 0

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        while True:
            first = torch.tensor([7 * (self._batch * self._in_all + row) for row in self._rows])[:, None]
            tokens = (first + torch.arange(self._length + 1)) % 256
            self._batch += 1
            yield {"input": tokens[:, :-1].contiguous()}, tokens[:, 1:].contiguous()

    def state_dict(self) -> dict[str, Any]:
        return {"batch": self._batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._batch = state.get("batch", 0)


def config_of(arguments: argparse.Namespace) -> Trainer.Config:
    """Torchtitan's configuration of its debug model, small enough for a CPU."""
    package = f"torchtitan.models.{arguments.model}"
    config: Trainer.Config = getattr(
        importlib.import_module(f"{package}.config_registry"), f"{arguments.model}_debugmodel"
    )()
    spec = config.model_spec
    assert spec is not None
    for layer in spec.model.layers:
        layer.attention.inner_attention = ScaledDotProductAttention.Config()  # the others need a GPU
    config.model_spec = from_seedbed(spec, arguments.target, arguments.seed)
    config.tokenizer, config.dataloader = Letters.Config(), Counting.Config()
    config.training.seq_len, config.training.steps = 32, arguments.steps
    config.training.global_batch_size = 8
    config.training.local_batch_size = 8 // (int(os.environ["WORLD_SIZE"]) // arguments.tp)
    config.training.disable_cuda_graphs = not torch.accelerator.is_available()
    config.parallelism.tensor_parallel_degree = arguments.tp
    config.parallelism.spmd_backend = arguments.spmd  # the default needs torch 2.14
    config.validator.enable = False
    config.lr_scheduler.warmup_steps = 0
    config.checkpoint = CheckpointManager.Config(
        enable=bool(arguments.checkpoint or arguments.load), interval=arguments.steps, last_save_model_only=False,
        initial_load_path=arguments.load or None, initial_load_in_hf=bool(arguments.load),
    )  # fmt: skip
    config.hf_assets_path = arguments.load or ""
    config.dump_folder = arguments.checkpoint or "out/torchtitan"
    return config


def digest(module: torch.nn.Module) -> str:
    """A digest of the full weights, gathered from all ranks."""
    hashed = hashlib.sha256()
    for _, tensor in sorted(module.state_dict().items()):
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        hashed.update(whole.detach().cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()[:16]


def held(module: torch.nn.Module) -> int:
    """The number of bytes of this rank's shards."""
    local = (tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in module.parameters())
    return sum(tensor.nbytes for tensor in local)


def gathered(value: int) -> list[int]:
    """The value of every rank."""
    values = [0] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def build(config: Trainer.Config) -> Trainer:
    """The Trainer, with initialised weights."""
    trainer: Trainer = config.build()
    if config.checkpoint.enable:
        trainer.checkpointer.load(step=-1)
    if not torch.accelerator.is_available():
        dist_utils.set_pg_timeouts = lambda **_: None  # of NCCL's groups
        for part in trainer.model_parts[0].modules():
            if isinstance(part, FSDPModule):
                part.set_force_sum_reduction_for_comms(True)  # gloo supports only this
    return trainer


def train(trainer: Trainer) -> list[float]:
    """Trains, and returns the loss of each step."""
    losses = []
    log = trainer.metrics_processor.log

    def log_and_keep(step: int, loss: float, *rest: object, **named: object) -> None:
        losses.append(loss)
        log(step, loss, *rest, **named)

    trainer.metrics_processor.log = log_and_keep
    trainer.train()
    return losses


def run(arguments: argparse.Namespace) -> None:
    """Runs one rank."""
    trainer = build(config_of(arguments))
    [module] = trainer.model_parts
    weights, shards, bytes_received = digest(module), gathered(held(module)), gathered(received[0])
    losses = train(trainer)
    if dist.get_rank() == 0:
        print(f"bytes of each rank's shards: {shards}; received: {bytes_received}")
        print(f"weights {weights}; losses {', '.join(f'{loss:.3f}' for loss in losses)}")
    trainer.close()
    dist.barrier()  # gloo's threads may still hold tensors, which they cannot free once Python ends
    dist.destroy_process_group()


def main() -> None:
    """Starts the ranks, unless torchrun has started them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=["llama3", "qwen3"], default="llama3")
    parser.add_argument("--target", default="local:", help="the server; by default each rank samples for itself")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--tp", type=int, default=1, help="the degree of tensor parallelism; FSDP2 takes the rest")
    parser.add_argument("--spmd", default="partial_dtensor", help="torchtitan's parallelism.spmd_backend")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--checkpoint", help="a folder for a checkpoint after the last step")
    parser.add_argument("--load", help="a directory of safetensors to load instead of using Seedbed")
    arguments = parser.parse_args()
    if "RANK" in os.environ:
        run(arguments)
        return
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={arguments.ranks}"]
    sys.exit(subprocess.run([*torchrun, *sys.argv], check=False).returncode)


if __name__ == "__main__":
    main()
