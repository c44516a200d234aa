"""Runs a function on several ranks, each in a separate process, with gloo."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run(world_size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """The results of the function, by rank."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_main, (world_size, folder, function, args), world_size)
        return [torch.load(Path(folder, str(rank)), weights_only=False) for rank in range(world_size)]


def _main(rank: int, world_size: int, folder: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.environ["SEEDBED_THREADS"] = "1"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    torch.save(function(*args), Path(folder, str(rank)))
    dist.barrier()
    dist.destroy_process_group()
